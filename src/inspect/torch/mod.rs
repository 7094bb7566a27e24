//! PyTorch: archives with a pickle, and one member for each storage that it speaks of.
//!
//! `torch.save` keeps storages in `<root>/data/`, `torch.jit.save` those of constants also in
//! `<root>/constants/`. A tensor here is a storage: several views of it are one.
//! Source: `torch/serialization.py` and `caffe2/serialize/inline_container.h` of PyTorch.

mod names;
mod pickle;

use std::collections::{HashMap, HashSet};

use super::description::Draft;
use super::dtype::element_count;
use super::imports;
use super::reader::Reader;
use super::table::TableBuilder;
use super::zip::Member;
use super::{
    Dtype, FileFormat, HEADER_BYTES_MAX, PickleDetails, Stop, Tensor, TensorInfo, TensorTable,
};

use pickle::{Named, Scan, Storage};

/// Where storages are, below the root, and what the names of their tensors begin with. The pickle that
/// speaks of them is called as the folder.
const FOLDERS: [(&str, &str); 2] = [("data", ""), ("constants", "constants.")];
/// Bytes at the start of an old file that are read for its pickles at first, how many times more if they
/// go on behind them, and at most.
const OLD_BYTES: u64 = 64 << 10;
const OLD_BYTES_GROWTH: u64 = 16;
const OLD_BYTES_MAX: u64 = 16 << 20;
/// Which pickle of an old file is the object.
const OLD_OBJECT: usize = 4;
/// The pickle of an archive, behind its root.
const PICKLE: &str = "/data.pkl";
/// Bytes of the text `little` and some space.
const BYTE_ORDER_BYTES_MAX: usize = 16;

/// The directory in which all members of an archive are; `None` when PyTorch did not write it.
pub(super) fn root(members: &[Member]) -> Option<&str> {
    let roots = members.iter().filter_map(|member| member.name.strip_suffix(PICKLE));
    roots.filter(|root| !root.contains('/')).min()
}

/// Finds the tensors of the archive below `root`.
pub(super) fn parse(
    reader: &mut Reader<'_>,
    members: &[Member],
    root: &str,
) -> Result<TensorTable, Stop> {
    let mut table = TableBuilder::new(reader.bytes());
    let mut format = FileFormat::Torch;
    let is_little = is_little_endian(reader, members, root)?;
    for (folder, prefix) in FOLDERS {
        let mut storages = HashMap::new();
        if let Some(member) = find(members, &format!("{root}/{folder}.pkl")) {
            if folder == "constants" {
                format = FileFormat::TorchScript;
            }
            let found = pickle::scan(&member.unpacked(reader, HEADER_BYTES_MAX as usize)?);
            storages.extend(found.into_iter().map(|storage| (storage.key.clone(), storage)));
        }
        let path = format!("{root}/{folder}/");
        for member in members.iter().filter(|member| member.is_stored()) {
            let Some(key) = member.name.strip_prefix(&path) else { continue };
            let storage = storages.remove(key);
            let storage = storage.filter(|_| is_little).unwrap_or_else(|| Storage::unknown(key));
            let name = match storage.name {
                Some(name) => format!("{prefix}{name}"),
                None => format!("{folder}/{key}"),
            };
            let bytes = member.content(reader)?;
            let length = bytes.end - bytes.start;
            let (dtype, shape) = layout(storage.dtype, storage.shape, storage.count, length);
            table.add(name, dtype, shape, bytes)?;
        }
    }
    table.finish(format)
}

/// Lists the tensors of the archive below `root`, and what its pickles would import.
pub(super) fn describe(
    reader: &mut Reader<'_>,
    members: &[Member],
    root: &str,
    table: &TensorTable,
    draft: &mut Draft,
) -> Result<PickleDetails, Stop> {
    let is_script = find(members, &format!("{root}/constants.pkl")).is_some();
    let writer = if is_script { "torch.jit" } else { "torch" };
    let mut found =
        PickleDetails { writer: writer.to_owned(), complete: true, ..PickleDetails::default() };
    let mut listed = HashSet::new();
    for member in members.iter().filter(|member| member.name.ends_with(".pkl")) {
        let pickle = member.unpacked(reader, HEADER_BYTES_MAX as usize)?;
        imports::describe_part(&pickle, &mut found, draft)?;
        let is_of = |folder: &str| member.name == format!("{root}/{folder}.pkl");
        if let Some((folder, prefix)) = FOLDERS.iter().find(|(folder, _)| is_of(folder)) {
            let scan = pickle::scan_tensors(&pickle);
            let keys = scan.tensors.iter().map(|it| &scan.storages[it.storage].key);
            listed.extend(keys.map(|key| format!("{folder}/{key}")));
            listed.extend(scan.tensors.iter().map(|it| format!("{prefix}{}", it.name)));
            list_tensors(&scan, prefix, draft);
        }
    }
    // What no pickle has a name for.
    for Tensor { name, dtype, shape, .. } in &table.tensors {
        if !listed.contains(name) {
            let (name, shape) = (name.clone(), shape.clone());
            let tensor = TensorInfo { name, dtype: dtype.to_string(), shape, location: None };
            draft.add_tensor(tensor, None);
        }
    }
    Ok(found)
}

/// Lists the tensors of a file from before PyTorch wrote archives: some pickles one behind the other, of
/// which the fourth is the object, and the storages behind them.
pub(super) fn describe_old(reader: &mut Reader<'_>, draft: &mut Draft) -> Result<(), Stop> {
    let mut window = OLD_BYTES;
    loop {
        let head = reader.bytes_of(&(0..window.min(reader.bytes())))?;
        if let Some(scan) = old_object(&head) {
            list_tensors(&scan, "", draft);
            return Ok(());
        }
        if reader.bytes() <= window || OLD_BYTES_MAX <= window {
            draft.note("its tensors are not listed: their pickle cannot be followed");
            return Ok(());
        }
        window *= OLD_BYTES_GROWTH;
    }
}

fn old_object(head: &[u8]) -> Option<Scan> {
    let mut at = 0;
    for _ in 1..OLD_OBJECT {
        at += pickle::scan_tensors(&head[at..]).bytes?;
    }
    Some(pickle::scan_tensors(&head[at..])).filter(|scan| scan.bytes.is_some())
}

/// Lists the tensors of a pickle; of those that are all of the same elements, the first is counted.
fn list_tensors(scan: &Scan, prefix: &str, draft: &mut Draft) {
    let mut first = Vec::with_capacity(scan.storages.len());
    let mut end = 0_u64;
    for storage in &scan.storages {
        first.push(end);
        end = end.saturating_add(storage.count);
    }
    for Named { name, shape, storage, offset } in &scan.tensors {
        let start = first[*storage].saturating_add(*offset);
        let end = start.saturating_add(element_count(shape).unwrap_or(u64::MAX));
        let (name, shape) = (format!("{prefix}{name}"), shape.clone());
        let dtype = scan.storages[*storage].dtype.to_string();
        draft.add_tensor(TensorInfo { name, dtype, shape, location: None }, Some(start..end));
    }
}

/// The best that is known of a storage of `length` bytes: its tensor's shape, its number of
/// elements, or its bytes.
fn layout(dtype: Dtype, shape: Option<Vec<u64>>, count: u64, length: u64) -> (Dtype, Vec<u64>) {
    let flat = Some(vec![count]);
    let fits = |shape: &Vec<u64>| dtype.bytes(shape) == Some(length);
    match shape.filter(fits).or(flat.filter(fits)) {
        Some(shape) => (dtype, shape),
        None => (Dtype::Other, vec![length]),
    }
}

fn find<'a>(members: &'a [Member], name: &str) -> Option<&'a Member> {
    members.iter().find(|member| member.name == name)
}

/// Whether its numbers are little endian, which they are unless a member says otherwise.
fn is_little_endian(reader: &mut Reader<'_>, members: &[Member], root: &str) -> Result<bool, Stop> {
    let Some(member) = find(members, &format!("{root}/byteorder")) else { return Ok(true) };
    let text = member.unpacked(reader, BYTE_ORDER_BYTES_MAX);
    Ok(text?.trim_ascii() == b"little")
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        pickle, pickle_dictionary, pickle_storage, pickle_tensor, table, zip, zip64,
    };
    use super::*;

    type Row<'a> = (&'a str, Dtype, &'a [u64], u64);

    #[track_caller]
    fn check(file: &[u8], format: FileFormat, expected: &[Row<'_>]) {
        let table = table(file, "model.bin").expect("an archive of PyTorch");
        assert_eq!(table.format, format);
        let rows = table.tensors.iter();
        let rows = rows.map(|t| (&*t.name, t.dtype, &*t.shape, t.bytes.end - t.bytes.start));
        assert_eq!(rows.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn torch_lists_its_storages_by_the_names_of_their_tensors() {
        let tied = pickle_tensor(&pickle_storage("FloatStorage", "0", 6), 0, &[2, 3], &[3, 1]);
        let data = pickle(&[
            ("part", pickle_tensor(&pickle_storage("FloatStorage", "0", 6), 1, &[2], &[1])),
            ("embed", tied.clone()),
            ("head", tied),
            (
                "optimizer",
                pickle_dictionary(&[(
                    "turned",
                    pickle_tensor(&pickle_storage("HalfStorage", "1", 6), 0, &[3, 2], &[1, 3]),
                )]),
            ),
            ("odd", pickle_tensor(&pickle_storage("LongStorage", "2", 1), 0, &[1], &[1])),
            (
                "complex",
                pickle_tensor(&pickle_storage("ComplexFloatStorage", "4", 1), 0, &[1], &[1]),
            ),
        ]);
        let members: [(&str, &[u8]); 8] = [
            ("archive/data.pkl", &data),
            ("archive/byteorder", b"little"),
            ("archive/data/0", &[0; 24]),
            ("archive/data/1", &[0; 12]),
            ("archive/data/2", &[0; 9]),
            ("archive/data/3", &[0; 5]),
            ("archive/data/4", &[0; 8]),
            ("archive/version", b"3\n"),
        ];
        let expected: [Row<'_>; 5] = [
            ("embed", Dtype::F32, &[2, 3], 24),
            ("optimizer.turned", Dtype::F16, &[6], 12),
            ("odd", Dtype::Other, &[9], 9),
            ("data/3", Dtype::Other, &[5], 5),
            ("complex", Dtype::Other, &[8], 8),
        ];
        check(&zip(&members), FileFormat::Torch, &expected);
        check(&zip64(&members), FileFormat::Torch, &expected);
    }

    #[test]
    fn torch_lists_its_storages_even_if_their_pickle_cannot_be_followed() {
        let whole =
            pickle(&[("w", pickle_tensor(&pickle_storage("FloatStorage", "0", 2), 0, &[2], &[1]))]);
        let cut = &whole[..whole.len() - 2];
        let members: [(&str, &[u8]); 2] = [("m/data.pkl", cut), ("m/data/0", &[0; 8])];
        check(&zip(&members), FileFormat::Torch, &[("data/0", Dtype::F32, &[2], 8)]);
        let members: [(&str, &[u8]); 2] = [("m/data.pkl", b"\xff"), ("m/data/0", &[0; 8])];
        check(&zip(&members), FileFormat::Torch, &[("data/0", Dtype::Other, &[8], 8)]);
        let members: [(&str, &[u8]); 3] =
            [("m/data.pkl", &whole), ("m/byteorder", b"big"), ("m/data/0", &[0; 8])];
        check(&zip(&members), FileFormat::Torch, &[("data/0", Dtype::Other, &[8], 8)]);
    }

    #[test]
    fn torchscript_lists_its_constants_too() {
        let tensor = pickle_tensor(&pickle_storage("FloatStorage", "0", 2), 0, &[2], &[1]);
        let module = [
            b"\x80\x02c__torch__\nNet\n)\x81".as_slice(),
            &pickle_dictionary(&[(
                "_parameters",
                pickle_dictionary(&[("weight", tensor.clone())]),
            )]),
            b"b.",
        ]
        .concat();
        let constants = [b"\x80\x02(".as_slice(), &tensor, b"t."].concat();
        let file = zip(&[
            ("net/data.pkl", &module),
            ("net/code/__torch__.py", b"class Net(Module):\n"),
            ("net/data/0", &[0; 8]),
            ("net/constants.pkl", &constants),
            ("net/constants/0", &[0; 8]),
        ]);
        let expected: [Row<'_>; 2] =
            [("weight", Dtype::F32, &[2], 8), ("constants.0", Dtype::F32, &[2], 8)];
        check(&file, FileFormat::TorchScript, &expected);
    }
}
