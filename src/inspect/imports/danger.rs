//! What is known of the names that pickles import.
//!
//! Four answers: names that only make plain values; names of libraries whose objects models are made of,
//! which run that library's code and nothing that the file brings; names that run whatever they are given;
//! and all others. The lists are short on purpose: what is not on them is not known.

use serde::{Deserialize, Serialize};

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Danger {
    /// Makes a plain value.
    Safe,
    /// A class of a well-known library.
    Library,
    Unknown,
    /// Runs commands or code, or reaches files or the network.
    Dangerous,
}

/// Modules of which nothing is harmless, with what lies below them.
const DANGEROUS_MODULES: [(&str, &str); 66] = [
    ("_io", "which opens files"),
    ("_osx_support", "which runs commands"),
    ("_pickle", "which loads further pickles"),
    ("_posixsubprocess", "which runs commands"),
    ("aifc", "which opens files"),
    ("asyncio", "which runs commands"),
    ("bdb", "which runs code"),
    ("cProfile", "which runs code"),
    ("cgi", "which reaches files"),
    ("cloudpickle", "which makes functions of what the file holds"),
    ("code", "which runs code"),
    ("codeop", "which compiles code"),
    ("commands", "which runs commands"),
    ("ctypes", "which reaches memory and libraries"),
    ("dill", "which makes functions of what the file holds"),
    ("distutils", "which runs commands"),
    ("doctest", "which runs code"),
    ("ensurepip", "which runs commands"),
    ("fileinput", "which opens files"),
    ("ftplib", "which reaches the network"),
    ("glob", "which reaches files"),
    ("http", "which reaches the network"),
    ("httpx", "which reaches the network"),
    ("idlelib", "which runs code"),
    ("imaplib", "which reaches the network"),
    ("importlib", "which imports anything"),
    ("io", "which opens files"),
    ("lib2to3", "which runs code"),
    ("linecache", "which reads files"),
    ("logging", "which opens files"),
    ("marshal", "which loads code"),
    ("multiprocessing", "which starts processes"),
    ("nt", "which runs commands"),
    ("numpy.ctypeslib", "which reaches memory and libraries"),
    ("numpy.distutils", "which runs commands"),
    ("numpy.f2py", "which runs code"),
    ("numpy.lib._datasource", "which reaches files and the network"),
    ("numpy.lib.npyio", "which opens files"),
    ("numpy.testing", "which runs code"),
    ("os", "which runs commands and reaches files"),
    ("pandas.io", "which opens files"),
    ("pathlib", "which reaches files"),
    ("pdb", "which runs code"),
    ("pip", "which runs commands"),
    ("pkgutil", "which imports anything"),
    ("platform", "which runs commands"),
    ("posix", "which runs commands and reaches files"),
    ("profile", "which runs code"),
    ("pty", "which runs commands"),
    ("requests", "which reaches the network"),
    ("runpy", "which runs code"),
    ("shutil", "which reaches files"),
    ("smtplib", "which reaches the network"),
    ("socket", "which reaches the network"),
    ("ssl", "which reaches the network"),
    ("subprocess", "which runs commands"),
    ("sys", "which reaches the interpreter"),
    ("timeit", "which runs code"),
    ("torch.distributed.rpc", "which reaches the network"),
    ("torch.hub", "which reaches the network"),
    ("torch.multiprocessing", "which starts processes"),
    ("torch.package", "which imports what the file holds"),
    ("torch.serialization", "which loads further pickles"),
    ("torch.utils.cpp_extension", "which runs commands"),
    ("urllib", "which reaches the network"),
    ("webbrowser", "which runs commands"),
];

/// Names that are harmful in modules that are not so as a whole.
const DANGEROUS_NAMES: [(&str, &str, &str); 35] = [
    ("builtins", "__import__", "which imports anything"),
    ("builtins", "apply", "which calls anything"),
    ("builtins", "breakpoint", "which runs code"),
    ("builtins", "compile", "which compiles code"),
    ("builtins", "delattr", "which changes objects"),
    ("builtins", "eval", "which runs code"),
    ("builtins", "exec", "which runs code"),
    ("builtins", "execfile", "which runs code"),
    ("builtins", "exit", "which ends the process"),
    ("builtins", "file", "which opens files"),
    ("builtins", "filter", "which calls anything"),
    ("builtins", "getattr", "which reaches any attribute"),
    ("builtins", "globals", "which reaches the interpreter"),
    ("builtins", "input", "which waits for input"),
    ("builtins", "locals", "which reaches the interpreter"),
    ("builtins", "map", "which calls anything"),
    ("builtins", "open", "which opens files"),
    ("builtins", "quit", "which ends the process"),
    ("builtins", "setattr", "which changes objects"),
    ("builtins", "type", "which makes classes"),
    ("builtins", "vars", "which reaches the interpreter"),
    ("functools", "partial", "which calls anything"),
    ("functools", "reduce", "which calls anything"),
    ("joblib", "load", "which loads further pickles"),
    ("numpy", "load", "which loads further pickles"),
    ("operator", "attrgetter", "which reaches any attribute"),
    ("operator", "itemgetter", "which reaches any item"),
    ("operator", "methodcaller", "which calls anything"),
    ("pandas", "read_pickle", "which loads further pickles"),
    ("pickle", "load", "which loads further pickles"),
    ("pickle", "loads", "which loads further pickles"),
    ("torch", "load", "which loads further pickles"),
    ("torch.storage", "_load_from_bytes", "which loads further pickles"),
    ("types", "CodeType", "which makes code of what the file holds"),
    ("types", "FunctionType", "which makes functions of what the file holds"),
];

/// Names that only make plain values, by module.
const SAFE: [(&str, &[&str]); 22] = [
    (
        "builtins",
        &[
            "bool",
            "bytearray",
            "bytes",
            "complex",
            "dict",
            "float",
            "frozenset",
            "int",
            "list",
            "long",
            "object",
            "range",
            "set",
            "slice",
            "str",
            "tuple",
            "unicode",
            "xrange",
        ],
    ),
    ("_codecs", &["encode"]),
    ("collections", &["Counter", "OrderedDict", "defaultdict", "deque"]),
    ("copyreg", &["_reconstructor"]),
    ("datetime", &["date", "datetime", "time", "timedelta", "timezone"]),
    ("decimal", &["Decimal"]),
    ("fractions", &["Fraction"]),
    ("joblib.numpy_pickle", &["NDArrayWrapper", "NumpyArrayWrapper"]),
    (
        "numpy",
        &[
            "bool_",
            "complex128",
            "complex64",
            "dtype",
            "float16",
            "float32",
            "float64",
            "int16",
            "int32",
            "int64",
            "int8",
            "ndarray",
            "object_",
            "str_",
            "uint16",
            "uint32",
            "uint64",
            "uint8",
        ],
    ),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy.random._pickle", &["__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"]),
    ("numpy.random._mt19937", &["MT19937", "__pyx_unpickle_MT19937"]),
    ("numpy.random.bit_generator", &["__pyx_unpickle_SeedSequence"]),
    (
        "torch",
        &[
            "BFloat16Storage",
            "BoolStorage",
            "ByteStorage",
            "CharStorage",
            "DoubleStorage",
            "FloatStorage",
            "HalfStorage",
            "IntStorage",
            "LongStorage",
            "QInt32Storage",
            "QInt8Storage",
            "QUInt8Storage",
            "ShortStorage",
            "Size",
            "bfloat16",
            "bool",
            "complex128",
            "complex64",
            "device",
            "float16",
            "float32",
            "float64",
            "float8_e4m3fn",
            "float8_e5m2",
            "int16",
            "int32",
            "int64",
            "int8",
            "uint16",
            "uint32",
            "uint64",
            "uint8",
        ],
    ),
    (
        "torch._utils",
        &[
            "_rebuild_device_tensor_from_numpy",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
        ],
    ),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    ("torch.nn.parameter", &["Buffer", "Parameter"]),
    ("torch.storage", &["TypedStorage", "UntypedStorage"]),
    ("uuid", &["UUID"]),
];

/// Libraries whose classes models are made of. `__torch__` is no module, but where TorchScript has the
/// classes that its archive defines.
const LIBRARIES: [&str; 15] = [
    "__torch__",
    "catboost",
    "imblearn",
    "lightgbm",
    "numpy",
    "pandas",
    "scipy",
    "sentence_transformers",
    "skl2onnx",
    "sklearn",
    "statsmodels",
    "tokenizers",
    "torch",
    "transformers",
    "xgboost",
];

/// The name that a module of Python 2 has today.
pub fn todays(module: &str) -> &str {
    match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        "cPickle" => "_pickle",
        other => other,
    }
}

/// What is known of `name` of `module`, and why it is dangerous.
pub fn of(module: &str, name: &str) -> (Danger, &'static str) {
    let is_within = |root: &str| {
        module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if let Some((_, why)) = DANGEROUS_MODULES.iter().find(|(root, _)| is_within(root)) {
        return (Danger::Dangerous, why);
    }
    // `eval.__call__` reaches as far as `eval`.
    let first = name.split('.').next().unwrap_or(name);
    let named = DANGEROUS_NAMES.iter().find(|(of, it, _)| *of == module && *it == first);
    if let Some((.., why)) = named {
        return (Danger::Dangerous, why);
    }
    let names = SAFE.iter().find(|(of, _)| *of == module).map_or(&[][..], |(_, names)| names);
    // A path through a name leads to what is not on the list.
    let danger = match name.contains('.') {
        false if names.contains(&name) => Danger::Safe,
        // A function of a library may do anything that the library can.
        false if is_class(name) && LIBRARIES.iter().any(|root| is_within(root)) => Danger::Library,
        _ => Danger::Unknown,
    };
    (danger, "")
}

/// Whether a name is written as those of classes are.
fn is_class(name: &str) -> bool {
    name.trim_start_matches('_').starts_with(|first: char| first.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_as_dangerous_as_what_it_reaches() {
        let check = |module: &str, name: &str, expected: Danger| {
            assert_eq!(of(todays(module), name).0, expected, "{module}.{name}");
        };
        check("builtins", "list", Danger::Safe);
        check("__builtin__", "eval", Danger::Dangerous);
        check("builtins", "eval.__call__", Danger::Dangerous);
        check("builtins", "list.__init__", Danger::Unknown);
        check("builtins", "print", Danger::Unknown);
        check("os", "system", Danger::Dangerous);
        check("os.path", "join", Danger::Dangerous);
        check("osgeo", "x", Danger::Unknown);
        check("sklearn.tree._classes", "DecisionTreeClassifier", Danger::Library);
        check("torch.hub", "load", Danger::Dangerous);
        check("torch.package.PackageImporter", "X", Danger::Dangerous);
        check("torch", "uint16", Danger::Safe);
        check("__torch__.torch.nn.modules.linear", "Linear", Danger::Library);
        check("numpy", "memmap", Danger::Unknown);
        check("numpy.testing._private.utils", "runstring", Danger::Dangerous);
        check("numpy._core.multiarray", "_reconstruct", Danger::Safe);
        check("torch.storage", "_load_from_bytes", Danger::Dangerous);
        check("torch._utils", "_rebuild_tensor_v2", Danger::Safe);
        check("__main__", "Model", Danger::Unknown);
        check("", "", Danger::Unknown);
    }
}
