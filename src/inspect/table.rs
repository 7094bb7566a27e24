//! Tables: tensors are gathered in the order of their headers, then sorted and checked.

use std::collections::HashMap;
use std::mem::size_of;
use std::ops::Range;

use super::onnx::ExternalTensor;
use super::{
    Dtype, FileFormat, NAME_BYTES_MAX, RANK_MAX, Stop, TABLE_BYTES_MAX, TENSOR_COUNT_MAX, Tensor,
    TensorTable,
};

/// A table that grows, within its limits.
pub(super) struct TableBuilder {
    tensors: Vec<Tensor>,
    /// Length of the file that the tensors lie in.
    file_bytes: u64,
    memory_bytes_left: usize,
}

impl TableBuilder {
    /// Starts the table of a file of `file_bytes`.
    pub fn new(file_bytes: u64) -> Self {
        Self { tensors: Vec::new(), file_bytes, memory_bytes_left: TABLE_BYTES_MAX }
    }

    /// Adds a tensor. A `dtype` and `shape` that do not give the length of `bytes` are refused.
    pub fn add(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<u64>,
        bytes: Range<u64>,
    ) -> Result<(), Stop> {
        if TENSOR_COUNT_MAX <= self.tensors.len() {
            return Err(Stop::Malformed("it has too many tensors"));
        }
        check_shape(&name, &shape)?;
        self.spend(&name, &shape)?;
        let length = bytes.end.checked_sub(bytes.start);
        let Some(length) = length.filter(|_| bytes.end <= self.file_bytes) else {
            return Err(Stop::Malformed("a tensor leads past the end of the file"));
        };
        if dtype != Dtype::Other && dtype.bytes(&shape) != Some(length) {
            return Err(Stop::Malformed("a tensor's shape does not give its bytes"));
        }
        self.tensors.push(Tensor { name, dtype, shape, bytes });
        Ok(())
    }

    /// Counts the memory of one tensor, here or in a list beside this one.
    pub fn spend(&mut self, name: &str, shape: &[u64]) -> Result<(), Stop> {
        let bytes = size_of::<Tensor>() + name.len() + size_of_val(shape);
        let left = self.memory_bytes_left.checked_sub(bytes);
        self.memory_bytes_left =
            left.ok_or(Stop::Malformed("its names and shapes are too long"))?;
        Ok(())
    }

    /// The table, sorted (I1), with distinct names (I2). Tensors with the same bytes become one.
    pub fn finish(mut self, format: FileFormat) -> Result<TensorTable, Stop> {
        // Stable: of tensors with the same bytes the first one stays.
        self.tensors.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
        self.tensors.dedup_by(|later, first| later.bytes == first.bytes && !later.bytes.is_empty());
        let overlaps = |pair: &[Tensor]| pair[1].bytes.start < pair[0].bytes.end;
        if self.tensors.windows(2).any(overlaps) {
            return Err(Stop::Malformed("two of its tensors overlap"));
        }
        make_names_distinct(&mut self.tensors);
        Ok(TensorTable { format, tensors: self.tensors, external: Vec::new() })
    }
}

fn check_shape(name: &str, shape: &[u64]) -> Result<(), Stop> {
    if RANK_MAX < shape.len() {
        return Err(Stop::Malformed("a tensor has too many dimensions"));
    }
    if NAME_BYTES_MAX < name.len() {
        return Err(Stop::Malformed("a name is too long"));
    }
    Ok(())
}

/// Gives the second tensor of a name `name#2`, and so on.
fn make_names_distinct(tensors: &mut [Tensor]) {
    // How often a name was seen. A name that was given is counted too, so the work is linear.
    let mut seen: HashMap<String, u64> = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        let Some(count) = seen.get_mut(&tensor.name) else {
            seen.insert(tensor.name.clone(), 1);
            continue;
        };
        let mut next = *count;
        let name = loop {
            next += 1;
            let name = format!("{}#{next}", tensor.name);
            if !seen.contains_key(&name) {
                break name;
            }
        };
        seen.insert(tensor.name.clone(), next);
        seen.insert(name.clone(), 1);
        tensor.name = name;
    }
}

/// The table of a file of `file_bytes` beside an ONNX file that says of it what `tensors` says.
///
/// Of tensors that overlap, the one with the smaller start stays; those that lead past the end of
/// the file are left out. A tensor without a length ends where its shape says, or with the file.
pub fn external_table(tensors: &[&ExternalTensor], file_bytes: u64) -> TensorTable {
    let mut found: Vec<Tensor> =
        tensors.iter().filter_map(|tensor| place(tensor, file_bytes)).collect();
    found.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
    let mut end = 0;
    found.retain(|tensor| {
        let fits = end <= tensor.bytes.start;
        end = if fits { tensor.bytes.end } else { end };
        fits
    });
    make_names_distinct(&mut found);
    TensorTable { format: FileFormat::OnnxData, tensors: found, external: Vec::new() }
}

fn place(tensor: &ExternalTensor, file_bytes: u64) -> Option<Tensor> {
    let rest = file_bytes.checked_sub(tensor.offset)?;
    let expected = tensor.dtype.bytes(&tensor.shape);
    let length = tensor.length.or(expected).unwrap_or(rest);
    let bytes = tensor.offset..tensor.offset.checked_add(length).filter(|_| length <= rest)?;
    let dtype = if expected == Some(length) { tensor.dtype } else { Dtype::Other };
    Some(Tensor { name: tensor.name.clone(), dtype, shape: tensor.shape.clone(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of byte tensors with these names and bytes; the names that stay.
    fn names(tensors: &[(&str, Range<u64>)]) -> Result<Vec<String>, Stop> {
        let mut table = TableBuilder::new(100);
        for (name, bytes) in tensors {
            let shape = vec![bytes.end - bytes.start];
            table.add((*name).to_owned(), Dtype::U8, shape, bytes.clone())?;
        }
        let table = table.finish(FileFormat::Gguf)?;
        assert!(table.tensors.is_sorted_by_key(|tensor| tensor.bytes.start));
        Ok(table.tensors.into_iter().map(|tensor| tensor.name).collect())
    }

    #[test]
    fn a_table_is_sorted_and_its_names_are_distinct() {
        let check = |tensors: &[(&str, Range<u64>)], expected: &[&str]| {
            assert_eq!(names(tensors).unwrap(), expected);
        };
        check(&[], &[]);
        check(&[("b", 50..100), ("a", 0..50)], &["a", "b"]);
        check(&[("tied", 10..20), ("first", 0..10), ("again", 10..20)], &["first", "tied"]);
        check(
            &[("a", 0..1), ("a", 1..2), ("a#2", 2..3), ("a", 3..4)],
            &["a", "a#2", "a#2#2", "a#3"],
        );
        check(&[("a#2", 0..1), ("a", 1..2), ("a", 2..3)], &["a#2", "a", "a#3"]);
        check(&[("none", 10..10), ("nothing", 10..10), ("a", 10..20)], &["none", "nothing", "a"]);
    }

    #[test]
    fn tensors_that_overlap_or_leave_the_file_are_refused() {
        for bad in [
            vec![("a", 0..10), ("b", 9..20)],
            vec![("a", 0..10), ("b", 3..3)],
            vec![("a", 0..10), ("b", 0..9)],
            vec![("a", 90..101)],
        ] {
            let found = names(&bad);
            assert!(matches!(found, Err(Stop::Malformed(_))), "{bad:?}: {found:?}");
        }
    }

    #[test]
    fn a_table_has_limits() {
        let mut table = TableBuilder::new(100);
        let mut add = |name: String, shape| table.add(name, Dtype::Other, shape, 0..0);
        assert!(add("n".repeat(NAME_BYTES_MAX), vec![1; RANK_MAX]).is_ok());
        assert!(add("n".repeat(NAME_BYTES_MAX + 1), vec![]).is_err());
        assert!(add(String::new(), vec![1; RANK_MAX + 1]).is_err());
        let most = TABLE_BYTES_MAX / (size_of::<Tensor>() + NAME_BYTES_MAX);
        let stopped = (0..).find(|_| add("n".repeat(NAME_BYTES_MAX), vec![]).is_err()).unwrap();
        assert!(stopped <= most && most - 2 <= stopped, "{stopped} of {most}");
    }

    #[test]
    fn a_file_beside_an_onnx_file_is_cut_where_that_says() {
        let tensor = |name: &str, offset, length, shape: &[u64]| ExternalTensor {
            location: "weights.bin".into(),
            offset,
            length,
            name: name.into(),
            dtype: Dtype::F32,
            shape: shape.into(),
        };
        let given = [
            tensor("late", 64, Some(16), &[4]),
            tensor("early", 0, None, &[2, 2]),
            tensor("tied", 0, Some(16), &[4]),
            tensor("odd", 16, Some(15), &[4]),
            tensor("overlaps", 30, Some(4), &[1]),
            tensor("past", 90, Some(16), &[4]),
            tensor("overflows", u64::MAX, Some(u64::MAX), &[4]),
            tensor("endless", 80, None, &[1 << 63]),
        ];
        let table = external_table(&given.each_ref(), 100);
        let found: Vec<_> =
            table.tensors.iter().map(|t| (t.name.as_str(), t.dtype, t.bytes.clone())).collect();
        assert_eq!(
            found,
            [
                ("early", Dtype::F32, 0..16),
                ("odd", Dtype::Other, 16..31),
                ("late", Dtype::F32, 64..80),
                ("endless", Dtype::Other, 80..100),
            ]
        );
    }
}
