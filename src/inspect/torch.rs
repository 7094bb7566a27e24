//! PyTorch: archives with a pickle, and one member for each storage that it speaks of.
//!
//! `torch.save` keeps storages in `<root>/data/`, `torch.jit.save` those of constants also in
//! `<root>/constants/`. A tensor here is a storage: several views of it are one.
//! Source: `torch/serialization.py` and `caffe2/serialize/inline_container.h` of PyTorch.

use std::collections::HashMap;

use super::description::Draft;
use super::imports;
use super::pickle::{self, Storage};
use super::reader::Reader;
use super::table::TableBuilder;
use super::zip::Member;
use super::{Dtype, FileFormat, PickleDetails, Stop, TensorTable};

/// The pickle of an archive, behind its root.
const PICKLE: &str = "/data.pkl";
/// Bytes of the text `little` and some space.
const BYTE_ORDER_BYTES_MAX: u64 = 16;

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
    for (folder, prefix) in [("data", ""), ("constants", "constants.")] {
        let mut storages = HashMap::new();
        if let Some(member) = find(members, &format!("{root}/{folder}.pkl")) {
            if folder == "constants" {
                format = FileFormat::TorchScript;
            }
            let content = member.content(reader)?;
            let found = pickle::scan(&reader.bytes_of(&content)?);
            storages.extend(found.into_iter().map(|storage| (storage.key.clone(), storage)));
        }
        let path = format!("{root}/{folder}/");
        for member in members {
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

/// What the pickles of the archive below `root` would import.
pub(super) fn describe(
    reader: &mut Reader<'_>,
    members: &[Member],
    root: &str,
    draft: &mut Draft,
) -> Result<PickleDetails, Stop> {
    let is_script = members.iter().any(|member| member.name == format!("{root}/constants.pkl"));
    let writer = if is_script { "torch.jit" } else { "torch" };
    let mut found =
        PickleDetails { writer: writer.to_owned(), complete: true, ..PickleDetails::default() };
    for member in members.iter().filter(|member| member.name.ends_with(".pkl")) {
        let content = member.content(reader)?;
        imports::describe_part(reader, content, &mut found, draft)?;
    }
    Ok(found)
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
    let content = member.content(reader)?;
    if BYTE_ORDER_BYTES_MAX < content.end - content.start {
        return Ok(false);
    }
    Ok(reader.bytes_of(&content)?.trim_ascii() == b"little")
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
