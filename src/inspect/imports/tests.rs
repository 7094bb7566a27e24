//! Pickles, whole and broken.

use std::ffi::OsStr;

use super::super::{Danger, Description, Details, PickleDetails, describe};

fn described(pickle: &[u8]) -> Description {
    describe(OsStr::new("model.pkl"), &pickle).expect("whatever it is, it is a pickle")
}

fn details(pickle: &[u8]) -> PickleDetails {
    match described(pickle).details {
        Some(Details::Pickle(details)) => details,
        other => panic!("{other:?}"),
    }
}

/// A short text of protocol 4.
fn text(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn stack_global(module: &str, name: &str) -> Vec<u8> {
    [text(module), text(name), vec![0x93]].concat()
}

#[test]
fn an_import_is_told_in_every_form() {
    let check = |pickle: &[u8], name: &str, danger: Danger| {
        let found = details(pickle);
        assert_eq!(found.globals.get(name), Some(&danger), "{found:?}");
        assert!(found.complete, "{found:?}");
        assert_eq!(found.reasons.is_empty(), danger <= Danger::Library, "{found:?}");
    };
    check(b"cos\nsystem\n(S'ls'\ntR.", "os.system", Danger::Dangerous);
    check(b"(S'ls'\nios\nsystem\n.", "os.system", Danger::Dangerous);
    check(b"c__builtin__\neval\n.", "builtins.eval", Danger::Dangerous);
    check(b"\x80\x02ccollections\nOrderedDict\n)R.", "collections.OrderedDict", Danger::Safe);
    let pickle = [b"\x80\x04".to_vec(), stack_global("os", "system"), b".".to_vec()].concat();
    check(&pickle, "os.system", Danger::Dangerous);
    // Names that come out of the memo, and the module by an old opcode.
    let kept =
        [b"\x80\x04".to_vec(), text("os"), vec![0x94, b'0'], text("popen"), vec![0x94, b'0']];
    let pickle = [kept.concat(), b"h\0h\x01\x93.".to_vec()].concat();
    check(&pickle, "os.popen", Danger::Dangerous);
    check(b"Vos\nVgetcwd\n\x93.", "os.getcwd", Danger::Dangerous);
    check(b"c__main__\nModel\n.", "__main__.Model", Danger::Unknown);
}

#[test]
fn what_cannot_be_told_is_said() {
    let check = |pickle: &[u8], part: &str, complete: bool| {
        let found = details(pickle);
        assert!(found.reasons.iter().any(|reason| reason.contains(part)), "{part}: {found:?}");
        assert_eq!(found.complete, complete, "{found:?}");
    };
    check(b"NN\x93.", "names that it computes", true);
    check(b"\x82\x01.", "registry", true);
    check(b"N.garbage", "behind its end", true);
    check(b"", "empty", false);
    check(b"(lp0\n", "past byte 5: it ends early", false);
    check(b"0.", "takes more than there is", false);
    check(b"t.", "no mark", false);
    check(b"h\x07.", "did not keep", false);
    check(b"\x80\x09.", "newer", false);
    check(b"\xff.", "no opcode", false);
    check(b"X\xff\xff\xff\xff.", "ends early", false);
    check(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "ends early", false);
    check(b"BZh91AY&SY", "bzip2", false);
    check(b"x\x9cnot deflated", "compressed to is damaged", false);
}

#[test]
fn pickles_behind_each_other_are_all_followed() {
    let found = details(b"N.cos\nsystem\n.N.");
    assert_eq!((found.pickles, found.opcodes["STOP"]), (3, 3));
    assert_eq!(found.globals["os.system"], Danger::Dangerous);
}

#[test]
fn a_file_of_old_pytorch_is_five_pickles_and_storages() {
    let magic = super::TORCH_MAGIC;
    let rest = [&b"."[..], b"M\xe9\x03.", b"}.", b"cos\nsystem\n.", b"]."].concat();
    let storages = [0xff; 64];
    let found = details(&[&magic[..], &rest, &storages].concat());
    assert_eq!((found.writer.as_str(), found.pickles), ("torch", 5));
    assert_eq!(found.globals.keys().collect::<Vec<_>>(), ["os.system"]);
    assert!(found.complete);
}

/// A pickle of joblib with one array: the state of its stand-in, and what follows.
fn with_array(dtype: &str, shape: &[u8], behind: &[u8]) -> Vec<u8> {
    let sizes: Vec<u8> = shape.iter().flat_map(|size| [b'K', *size]).collect();
    [
        b"\x80\x04".to_vec(),
        stack_global("joblib.numpy_pickle", "NumpyArrayWrapper"),
        b")\x81}(".to_vec(),
        text("shape"),
        [&b"("[..], &sizes, b"t"].concat(),
        text("dtype"),
        stack_global("numpy", "dtype"),
        text(dtype),
        b"\x89\x88\x87R".to_vec(),
        text("numpy_array_alignment_bytes"),
        b"K\x10ub".to_vec(),
        behind.to_vec(),
    ]
    .concat()
}

#[test]
fn arrays_between_opcodes_are_stepped_over() {
    let padded = [&[3, 0, 0, 0][..], &[b'R'; 2 * 3 * 4], b"."].concat();
    let found = details(&with_array("<f4", &[2, 3], &padded));
    assert_eq!((found.writer.as_str(), found.complete), ("joblib", true), "{found:?}");
    // An array of objects is a pickle within the pickle.
    let inner = [&b"\x80\x04"[..], &stack_global("os", "system"), b".N0."].concat();
    let found = details(&with_array("O8", &[1], &inner));
    assert!(found.complete, "{found:?}");
    assert_eq!((found.pickles, found.globals["os.system"]), (2, Danger::Dangerous));
    for (dtype, shape, behind) in [
        ("f4", &[255, 255][..], &b"\0short."[..]),
        ("f", &[1], b"\0\0."),
        ("", &[1], b"\0\0."),
        ("f99999999999999999999", &[1], b"\0\0."),
        ("U18446744073709551615", &[9], b"\0\0."),
    ] {
        let found = details(&with_array(dtype, shape, behind));
        assert!(!found.complete, "{dtype}: {found:?}");
    }
}

#[test]
fn rings_bombs_and_towers_come_to_an_end() {
    // Each text is kept, and taken twice as often as the one before.
    let bomb = [vec![b'('; 2_000_000], b".".to_vec()].concat();
    assert!(!details(&bomb).complete);
    let tower = [vec![b']'; 2_000_000], b".".to_vec()].concat();
    assert!(!details(&tower).complete);
    let nested: Vec<u8> = (0..2_000).flat_map(|_| with_array("O8", &[1], b"")).collect();
    assert!(!details(&nested).complete);
    let many: Vec<u8> =
        (0..20_000).flat_map(|index| format!("cm{index}\nn\n0").into_bytes()).collect();
    let found = described(&[many, b"N.".to_vec()].concat());
    let Some(Details::Pickle(pickle)) = &found.details else { panic!("{found:?}") };
    assert_eq!(pickle.globals.len(), super::GLOBAL_COUNT_MAX);
    assert_eq!(pickle.reasons.len(), super::REASON_COUNT_MAX);
    assert_eq!(found.notes, ["not all imports are listed: there are too many"]);
    assert!(found.summary().to_string().len() <= super::super::SUMMARY_BYTES_MAX);
}

#[test]
fn what_joblib_takes_for_an_array_is_read_as_others_read_it() {
    let file = |array: &[u8]| {
        let wrapper = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(Vshape\n(I".to_vec();
        let state = format!("{}\ntVdtype\ncnumpy\ndtype\n(Vu1\ntRub", array.len());
        [wrapper, state.into(), array.to_vec(), b".".to_vec()].concat()
    };
    let found = details(&file(b"\x01\x02\x03"));
    assert_eq!((found.writer.as_str(), found.reasons.len()), ("joblib", 0), "{found:?}");
    let found = details(&file(b"cos\nsystem\n(S'ls'\ntR."));
    assert!(found.complete, "{found:?}");
    assert_eq!(found.globals.get("os.system"), Some(&Danger::Dangerous), "{found:?}");
    assert_eq!(found.reasons, ["without joblib it calls `os.system`, from within an array"]);
}
