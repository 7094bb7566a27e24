//! ZIP and ZIP64: the members of an archive, and the tensors of those that are stored as they are.
//!
//! Source: PKWARE's APPNOTE.TXT, sections 4.3 to 4.5. An archive with bytes in front of it, one of
//! several parts, and one that is encrypted are refused.

use std::io::{self, Read};
use std::ops::Range;

use flate2::read::DeflateDecoder;

use super::description::{Details, Draft};
use super::reader::Reader;
use super::{Stop, TENSOR_COUNT_MAX, TensorTable, numpy, torch};

/// The first bytes of an archive that is not empty: those of its first member.
pub(super) const MAGIC: [u8; 4] = *b"PK\x03\x04";
const ENTRY_MAGIC: u32 = 0x0201_4b50;
const MEMBER_MAGIC: u32 = 0x0403_4b50;
const END_MAGIC: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const END64_MAGIC: u32 = 0x0606_4b50;
const LOCATOR_MAGIC: u32 = 0x0706_4b50;
const LOCATOR_BYTES: u64 = 20;
/// Bytes of the longest comment at an archive's end.
const COMMENT_BYTES_MAX: u64 = 65_535;
/// A 32-bit number whose value stands in an extra field.
const IN_EXTRA: u64 = 0xffff_ffff;
/// The extra field with the 64-bit numbers.
const EXTRA_ZIP64: u16 = 1;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const ENCRYPTED: u16 = 1;

/// A member of an archive.
#[derive(Debug)]
pub(super) struct Member {
    pub name: String,
    /// Where its own header begins.
    header: u64,
    /// In the archive.
    stored_length: u64,
    packing: Packing,
}

/// How the content of a member stands in the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packing {
    AsItIs,
    Deflated,
    /// Encrypted, or compressed in another way.
    Unknown,
}

/// Whether PyTorch would load it; false also for what is no whole archive.
///
/// # Errors
/// Those of reading it.
pub(super) fn is_torch(reader: &mut Reader<'_>) -> io::Result<bool> {
    match read_directory(reader) {
        Ok(members) => Ok(torch::root(&members).is_some()),
        Err(Stop::Io(error)) => Err(error),
        Err(Stop::Malformed(_) | Stop::Unknown) => Ok(false),
    }
}

/// Finds the tensors of an archive that PyTorch or NumPy wrote.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<TensorTable, Stop> {
    let mut members = read_directory(reader)?;
    if let Some(root) = torch::root(&members).map(str::to_owned) {
        return torch::parse(reader, &members, &root);
    }
    members.retain(Member::is_stored);
    if members.iter().any(|member| member.name.ends_with(numpy::EXTENSION)) {
        return numpy::parse_archive(reader, &members);
    }
    Err(Stop::Unknown)
}

/// Lists the tensors of such an archive, and what its pickles would import.
pub(super) fn describe(
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Result<Option<Details>, Stop> {
    let table = parse(reader)?;
    let members = read_directory(reader)?;
    let packed = members.iter().filter(|member| !member.is_stored()).count();
    let Some(root) = torch::root(&members) else {
        if packed != 0 {
            draft.note(&format!("{packed} of its members are compressed, and not looked into"));
        }
        return Ok(draft.add_table(&table));
    };
    let details = torch::describe(reader, &members, root, &table, draft)?;
    Ok(Some(Details::Pickle(details)))
}

impl Member {
    /// Whether its content stands in the archive as it is.
    pub fn is_stored(&self) -> bool {
        self.packing == Packing::AsItIs
    }

    /// Where its content lies in the file.
    pub fn content(&self, reader: &mut Reader<'_>) -> Result<Range<u64>, Stop> {
        let mut at = self.header;
        if reader.u32(&mut at)? != MEMBER_MAGIC {
            return Err(Stop::Malformed("a member is not where the archive says"));
        }
        // What else the member's header says was read in the directory.
        let [name_bytes, extra_bytes] = {
            let fixed: [u8; 26] = reader.array(&mut at)?;
            [22, 24].map(|at| u64::from(u16::from_le_bytes([fixed[at], fixed[at + 1]])))
        };
        let file = 0..reader.bytes();
        let head = Reader::range(at, name_bytes + extra_bytes, &file)?;
        Reader::range(head.end, self.stored_length, &file)
    }

    /// Its whole content, of at most `bytes_max`.
    pub fn unpacked(&self, reader: &mut Reader<'_>, bytes_max: usize) -> Result<Vec<u8>, Stop> {
        let long = || Stop::Malformed("a member is too long");
        let content = self.content(reader)?;
        if (bytes_max as u64) < content.end - content.start {
            return Err(long());
        }
        let packed = reader.bytes_of(&content)?;
        match self.packing {
            Packing::AsItIs => Ok(packed),
            Packing::Unknown => Err(Stop::Malformed("a member is packed in an unknown way")),
            Packing::Deflated => {
                let mut out = Vec::new();
                let mut decoder = DeflateDecoder::new(&packed[..]).take(bytes_max as u64 + 1);
                let inflated = decoder.read_to_end(&mut out);
                inflated.map_err(|_damaged| Stop::Malformed("a member is damaged"))?;
                if bytes_max < out.len() { Err(long()) } else { Ok(out) }
            }
        }
    }
}

/// All members, in the order of the directory.
pub(super) fn read_directory(reader: &mut Reader<'_>) -> Result<Vec<Member>, Stop> {
    let (entry_count, directory) = find_directory(reader)?;
    if TENSOR_COUNT_MAX as u64 <= entry_count {
        return Err(Stop::Malformed("it has too many members"));
    }
    let mut members = Vec::new();
    let mut at = directory.start;
    for _ in 0..entry_count {
        if directory.end <= at {
            return Err(Stop::Malformed("its directory is cut off"));
        }
        members.push(read_entry(reader, &mut at)?);
    }
    Ok(members)
}

/// Number of entries of the directory, and where it lies.
fn find_directory(reader: &mut Reader<'_>) -> Result<(u64, Range<u64>), Stop> {
    let bytes = reader.bytes();
    let tail_start = bytes.saturating_sub(END_BYTES as u64 + COMMENT_BYTES_MAX);
    let tail = reader.bytes_of(&(tail_start..bytes))?;
    let is_end = |at: &usize| {
        let end = &tail[*at..];
        let comment = u16::from_le_bytes([end[20], end[21]]) as usize;
        end.starts_with(&END_MAGIC) && end.len() == END_BYTES + comment
    };
    let starts = 0..(tail.len() + 1).saturating_sub(END_BYTES);
    let Some(end) = starts.rev().find(is_end) else {
        return Err(Stop::Malformed("it does not end like an archive"));
    };
    let end = tail_start + end as u64;
    let mut at = end + 10;
    let mut count = u64::from(reader.u16(&mut at)?);
    let mut length = u64::from(reader.u32(&mut at)?);
    let mut start = u64::from(reader.u32(&mut at)?);
    if let Some(mut at) = find_end64(reader, end)? {
        count = reader.u64(&mut at)?;
        length = reader.u64(&mut at)?;
        start = reader.u64(&mut at)?;
    }
    Ok((count, Reader::range(start, length, &(0..end))?))
}

/// Where the 64-bit numbers of the directory lie, if the archive has them in front of its `end`.
fn find_end64(reader: &mut Reader<'_>, end: u64) -> Result<Option<u64>, Stop> {
    let Some(mut at) = end.checked_sub(LOCATOR_BYTES) else { return Ok(None) };
    if reader.u32(&mut at)? != LOCATOR_MAGIC {
        return Ok(None);
    }
    at += 4;
    let mut at = reader.u64(&mut at)?;
    if reader.u32(&mut at)? != END64_MAGIC {
        return Err(Stop::Malformed("its 64-bit end is not where it says"));
    }
    // Its length, versions, disks, and the count of entries on this disk.
    at += 28;
    Ok(Some(at))
}

/// The entry of the directory at `*at`, which moves behind it.
fn read_entry(reader: &mut Reader<'_>, at: &mut u64) -> Result<Member, Stop> {
    if reader.u32(at)? != ENTRY_MAGIC {
        return Err(Stop::Malformed("its directory is damaged"));
    }
    let fixed: [u8; 42] = reader.array(at)?;
    let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
    let u32_at = |at: usize| u64::from(u16_at(at)) | u64::from(u16_at(at + 2)) << 16;
    let (flags, method) = (u16_at(4), u16_at(6));
    let mut numbers = [u32_at(20), u32_at(16), u32_at(38)];
    let file = 0..reader.bytes();
    let name = Reader::range(*at, u16_at(24).into(), &file)?;
    let extra = Reader::range(name.end, u16_at(26).into(), &file)?;
    *at = Reader::range(extra.end, u16_at(28).into(), &file)?.end;
    if numbers.contains(&IN_EXTRA) {
        read_extra(reader, extra, &mut numbers)?;
    }
    let [length, stored_length, header] = numbers;
    let packing = match method {
        _ if flags & ENCRYPTED != 0 => Packing::Unknown,
        STORED if length == stored_length => Packing::AsItIs,
        DEFLATED => Packing::Deflated,
        _ => Packing::Unknown,
    };
    Ok(Member { name: reader.text(&name)?, header, stored_length, packing })
}

/// Fills the numbers that stand in the extra fields: they are there in this order.
fn read_extra(
    reader: &mut Reader<'_>,
    extra: Range<u64>,
    numbers: &mut [u64; 3],
) -> Result<(), Stop> {
    let mut at = extra.start;
    while at < extra.end {
        let kind = reader.u16(&mut at)?;
        let length = reader.u16(&mut at)?;
        let mut field = Reader::range(at, length.into(), &extra)?;
        at = field.end;
        if kind != EXTRA_ZIP64 {
            continue;
        }
        for number in numbers.iter_mut().filter(|number| **number == IN_EXTRA) {
            let place = Reader::range(field.start, 8, &field)?;
            *number = reader.u64(&mut field.start)?;
            field.start = place.end;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{npy, table, zip, zip64};

    fn archive() -> Vec<u8> {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        zip(&[("a.npy", &npy(1, header, &[0; 8])), ("b.npy", &npy(1, header, &[0; 8]))])
    }

    #[test]
    fn an_archive_may_end_with_a_comment() {
        let mut file = archive();
        let end = file.len() - 2;
        file[end] = 5;
        file.extend(b"hello");
        assert_eq!(table(&file, "a.npz").unwrap().tensors.len(), 2);
        file.push(b'!');
        assert_eq!(table(&file, "a.npz"), None);
    }

    #[test]
    fn members_that_are_compressed_or_encrypted_are_passed_over() {
        let file = archive();
        let entry = file.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        for (offset, value) in [(10, 8), (8, 1), (20, 7)] {
            let mut file = file.clone();
            file[entry + offset] = value;
            assert_eq!(table(&file, "a.npz").unwrap().tensors.len(), 1, "{offset}");
        }
    }

    #[test]
    fn archives_of_other_programs_are_not_known() {
        assert_eq!(table(&zip(&[("word/document.xml", b"<w/>")]), "a.npz"), None);
        assert_eq!(table(&zip(&[("a/data.pk", b"")]), "a.pt"), None);
        assert_eq!(table(&zip(&[]), "a.pt"), None);
    }

    #[test]
    fn an_archive_that_lies_is_refused() {
        let file = archive();
        let entry = file.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        let end = file.len() - 22;
        let changed = |at: usize, bytes: &[u8]| {
            let mut file = file.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            table(&file, "a.npz")
        };
        assert!(changed(0, b"PK\x03\x04").is_some());
        // Where the directory is and how long; how many entries it has.
        assert_eq!(changed(end + 16, &[0xff; 4]), None);
        assert_eq!(changed(end + 12, &[0xff; 4]), None);
        assert_eq!(changed(end + 10, &[3, 0]), None);
        // The length of a member, both times; where it is; the number in an extra field that is not there.
        assert_eq!(changed(entry + 20, &[0xfe; 8]), None);
        assert_eq!(changed(entry + 42, &[1]), None);
        assert_eq!(changed(entry + 42, &[0xff; 4]), None);
        // Two entries that are one member are one tensor.
        let second = entry + 46 + "a.npy".len();
        assert_eq!(changed(second + 42, &[0; 4]).unwrap().tensors.len(), 1);
        let mut file = zip64(&[("a.npy", b"")]);
        let end64 = file.windows(4).position(|bytes| bytes == b"PK\x06\x06").unwrap();
        file[end64 + 24..end64 + 56].fill(0xff);
        assert_eq!(table(&file, "a.npz"), None);
    }
}
