//! Names that pickles of PyTorch import, as far as they say something of a tensor.

use super::super::Dtype;

/// What a name that would be imported stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Callable {
    /// A class of storages.
    Storage(Dtype),
    /// A dtype of PyTorch.
    Element(Dtype),
    /// Makes a tensor of a storage, an offset, a size and strides.
    Rebuild,
    /// Its first argument, with something around it.
    Wrap,
    /// Calls its first argument with its third.
    RebuildFromType,
    Other,
}

/// What is imported by this name, as far as it is known here.
pub(super) fn callable(module: &[u8], name: &[u8]) -> Callable {
    match (module, name) {
        (b"torch.storage", b"UntypedStorage" | b"TypedStorage" | b"_TypedStorage") => {
            Callable::Storage(Dtype::Other)
        }
        (b"torch" | b"torch.cuda", _) => match name.strip_suffix(b"Storage") {
            Some(kind) => Callable::Storage(storage_dtype(kind)),
            None => element_dtype(name).map_or(Callable::Other, Callable::Element),
        },
        (
            b"torch._utils",
            b"_rebuild_tensor"
            | b"_rebuild_tensor_v2"
            | b"_rebuild_tensor_v3"
            | b"_rebuild_qtensor",
        ) => Callable::Rebuild,
        (b"torch._utils", b"_rebuild_parameter" | b"_rebuild_parameter_with_state") => {
            Callable::Wrap
        }
        (b"torch._tensor", b"_rebuild_from_type_v2") => Callable::RebuildFromType,
        _ => Callable::Other,
    }
}

/// The dtype of the class of storages whose name is `kind` and `Storage`.
fn storage_dtype(kind: &[u8]) -> Dtype {
    match kind {
        b"Double" => Dtype::F64,
        b"Float" => Dtype::F32,
        b"Half" => Dtype::F16,
        b"BFloat16" => Dtype::Bf16,
        b"Long" => Dtype::I64,
        b"Int" | b"QInt32" => Dtype::I32,
        b"Short" => Dtype::I16,
        b"Char" | b"QInt8" => Dtype::I8,
        b"Byte" | b"QUInt8" => Dtype::U8,
        b"Bool" => Dtype::Bool,
        _ => Dtype::Other,
    }
}

/// The dtype that PyTorch calls `torch.<name>`.
fn element_dtype(name: &[u8]) -> Option<Dtype> {
    Some(match name {
        b"float64" => Dtype::F64,
        b"float32" => Dtype::F32,
        b"float16" => Dtype::F16,
        b"bfloat16" => Dtype::Bf16,
        b"float8_e4m3fn" => Dtype::F8E4m3,
        b"float8_e5m2" => Dtype::F8E5m2,
        b"float8_e4m3fnuz" => Dtype::F8E4m3Fnuz,
        b"float8_e5m2fnuz" => Dtype::F8E5m2Fnuz,
        b"int64" => Dtype::I64,
        b"int32" => Dtype::I32,
        b"int16" => Dtype::I16,
        b"int8" => Dtype::I8,
        b"uint64" => Dtype::U64,
        b"uint32" => Dtype::U32,
        b"uint16" => Dtype::U16,
        b"uint8" => Dtype::U8,
        b"bool" => Dtype::Bool,
        _ => return None,
    })
}
