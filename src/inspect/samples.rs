//! Small files of every format, built byte by byte, for the tests.

use std::ffi::OsStr;

use super::{InspectError, TensorTable, describe, tensors};

/// The table of a file in memory.
pub(super) fn table(file: &[u8], name: &str) -> Option<TensorTable> {
    let table = tensors(&file, OsStr::new(name)).expect("memory can be read");
    if let Some(table) = &table {
        check(table, file.len() as u64);
    }
    match describe(OsStr::new(name), &file) {
        Ok(description) => drop(description.summary()),
        Err(InspectError::Io(error)) => panic!("memory can be read: {error}"),
        Err(InspectError::Unknown | InspectError::Malformed { .. }) => {}
    }
    table
}

/// What holds of every table (I1, I2).
fn check(table: &TensorTable, file_bytes: u64) {
    let mut end = 0;
    let mut names = std::collections::HashSet::new();
    for tensor in &table.tensors {
        assert!(end <= tensor.bytes.start && tensor.bytes.start <= tensor.bytes.end, "{tensor:?}");
        end = tensor.bytes.end;
        assert!(names.insert(&tensor.name), "{tensor:?}");
        if let Some(bytes) = tensor.dtype.bytes(&tensor.shape) {
            assert_eq!(bytes, tensor.bytes.end - tensor.bytes.start, "{tensor:?}");
        }
    }
    assert!(end <= file_bytes);
}

pub(super) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), data].concat()
}

pub(super) fn gguf_text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

pub(super) fn gguf_value(key: &str, kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&gguf_text(key), &kind.to_le_bytes()[..], bytes].concat()
}

pub(super) fn gguf_array(kind: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), &count.to_le_bytes()[..], bytes].concat()
}

/// A tensor's line; `shape` innermost first.
pub(super) fn gguf_line(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = gguf_text(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    bytes.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

pub(super) fn gguf(
    version: u32,
    values: &[Vec<u8>],
    lines: &[Vec<u8>],
    alignment: usize,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = [b"GGUF".as_slice(), &version.to_le_bytes()].concat();
    bytes.extend((lines.len() as u64).to_le_bytes());
    bytes.extend((values.len() as u64).to_le_bytes());
    bytes.extend(values.concat());
    bytes.extend(lines.concat());
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
    bytes.extend_from_slice(data);
    bytes
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while 0x80 <= value {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A protobuf field that is a number.
pub(super) fn number(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A protobuf field that is bytes or a message.
pub(super) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
}

pub(super) fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u32;
    let length_bytes = if version == 1 { 2 } else { 4 };
    [
        b"\x93NUMPY",
        &[version, 0][..],
        &length.to_le_bytes()[..length_bytes],
        header.as_bytes(),
        data,
    ]
    .concat()
}

/// An archive whose members are stored.
pub(super) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in members {
        let place = bytes.len() as u32;
        let pad = 3;
        let length = (content.len() as u32).to_le_bytes();
        bytes.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\x21\0\0\0\0\0");
        bytes.extend([length, length].concat());
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend(((4 + pad) as u16).to_le_bytes());
        bytes
            .extend([name.as_bytes(), b"FB", &[pad, 0], &vec![b'Z'; pad.into()], content].concat());
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\x21\0\0\0\0\0");
        directory.extend([length, length].concat());
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(place.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, length) = (bytes.len() as u32, directory.len() as u32);
    let count = (members.len() as u16).to_le_bytes();
    bytes.extend(directory);
    bytes.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count].concat());
    bytes.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
    bytes.extend([0, 0]);
    bytes
}

/// The same archive with its numbers where ZIP64 has them, given the members' count.
pub(super) fn zip64(members: &[(&str, &[u8])]) -> Vec<u8> {
    let plain = zip(members);
    let end = plain.len() - 22;
    let u32_at = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().expect("four bytes"));
    let start = u32_at(end + 16) as usize;
    let mut bytes = plain[..start].to_vec();
    let mut at = start;
    for (name, _) in members {
        let (length, place) = (u64::from(u32_at(at + 20)), u64::from(u32_at(at + 42)));
        let mut entry = plain[at..at + 46 + name.len()].to_vec();
        entry[20..28].fill(0xff);
        entry[42..46].fill(0xff);
        entry[30..32].copy_from_slice(&34_u16.to_le_bytes());
        // Another extra field before the one that counts.
        entry.extend([9, 0, 2, 0, 7, 7, 1, 0, 24, 0]);
        entry.extend([length, length, place].map(u64::to_le_bytes).concat());
        bytes.extend(entry);
        at += 46 + name.len();
    }
    let length = (bytes.len() - start) as u64;
    let end64 = bytes.len() as u64;
    let count = members.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.extend([&44_u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8]].concat());
    bytes.extend([count, count, length, start as u64].map(u64::to_le_bytes).concat());
    bytes.extend([b"PK\x06\x07", &[0; 4][..], &end64.to_le_bytes(), &[1, 0, 0, 0]].concat());
    bytes.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &[0xff; 12], &[0, 0]].concat());
    bytes
}

/// A text of a pickle of protocol 2, kept as memo 200 and forgotten.
pub(super) fn pickle_text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes(), b"q\xc8"].concat()
}

/// A tuple of numbers.
pub(super) fn pickle_numbers(numbers: &[u32]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| [b"J", &number.to_le_bytes()[..]].concat());
    [b"(".to_vec(), numbers.collect(), b"t".to_vec()].concat()
}

/// A storage as its persistent id, of a class of the module `torch`.
pub(super) fn pickle_storage(class: &str, key: &str, count: u32) -> Vec<u8> {
    [
        b"(".to_vec(),
        pickle_text("storage"),
        format!("ctorch\n{class}\n").into(),
        pickle_text(key),
        pickle_text("cpu"),
        [b"J", &count.to_le_bytes()[..]].concat(),
        b"tQ".to_vec(),
    ]
    .concat()
}

/// A tensor as `torch.save` writes it.
pub(super) fn pickle_tensor(storage: &[u8], offset: u8, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        storage,
        &[b'K', offset],
        &pickle_numbers(shape),
        &pickle_numbers(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A pickle of a dictionary.
pub(super) fn pickle(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    [b"\x80\x02".to_vec(), pickle_dictionary(entries), b".".to_vec()].concat()
}

/// A dictionary within a pickle.
pub(super) fn pickle_dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries =
        entries.iter().flat_map(|(key, value)| [pickle_text(key), value.clone()].concat());
    [b"}(".to_vec(), entries.collect(), b"u".to_vec()].concat()
}
