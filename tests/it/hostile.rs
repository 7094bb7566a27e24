//! Hostile names and trees: kept byte for byte, or refused by name; never half done.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::harness::{Mount, require_root, setting};
use crate::syscalls::{self, Outcome};

#[test]
fn odd_names_are_kept_byte_for_byte() {
    let mount = Mount::with_churn();
    let names: Vec<Vec<u8>> = vec![
        b"two\nlines".to_vec(),
        b"-rf".to_vec(),
        b"--".to_vec(),
        vec![b'n'; 255],
        b"not utf-8 \xff\xfe\x80".to_vec(),
        b" leading and trailing ".to_vec(),
        b"\"quotes\" 'and' \\backslashes\\".to_vec(),
        b"\x01\x7f\t\r".to_vec(),
        "\u{202e}gnp.exe".as_bytes().to_vec(),
        b"...".to_vec(),
        b".hidden".to_vec(),
        b"*?[a]$(id)`id`".to_vec(),
    ];
    let draft = mount.path("churn/draft");
    for name in &names {
        let path = draft.join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let answer = mount.seal("churn", "odd names");
    assert_eq!(answer["files"], names.len());
    let sealed = mount.path("churn/v1");
    let mut found: Vec<Vec<u8>> = fs::read_dir(&sealed)
        .expect("sealed")
        .map(|entry| entry.expect("an entry").file_name().as_bytes().to_vec())
        .filter(|name| name != b"metadata.json")
        .collect();
    let mut expected = names.clone();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for name in &names {
        let path = sealed.join(OsStr::from_bytes(name));
        assert_eq!(&fs::read(&path).expect("sealed"), name, "{}", path.display());
    }
    let metadata = mount.text("churn/v1/metadata.json");
    serde_json::from_str::<Value>(&metadata).expect("metadata.json is JSON whatever the names");
    let out = mount.bench.root.join("out");
    mount.cli(&["export", "churn/v1", out.to_str().expect("text")]).ok();
    for name in &names {
        assert_eq!(&fs::read(out.join(OsStr::from_bytes(name))).expect("exported"), name);
    }
    mount.assert_sound();
}

#[test]
fn a_name_of_256_bytes_is_too_long() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft").join("n".repeat(256));
    let refused = fs::write(path, "").expect_err("longer than any file system takes");
    assert_eq!(refused.raw_os_error(), Some(libc::ENAMETOOLONG));
}

/// Puts one object called `bad` next to a good file; the seal is refused and names it.
#[track_caller]
fn check_refused(what: &str, make: impl Fn(&std::path::Path) -> Outcome) {
    let mount = Mount::with_churn();
    fs::create_dir(mount.path("churn/draft/deep")).expect("a directory");
    fs::write(mount.path("churn/draft/good"), "good").expect("a draft file");
    let bad = mount.path("churn/draft/deep/bad");
    let made = make(&bad);
    assert_eq!(made, Ok(()), "{what} can be made in a draft: {}", syscalls::name(made));
    let (_, answer) = mount.refused("churn", b"hostile\n");
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(error.contains("deep/bad"), "{what}: the path is named: {answer}");
    assert_eq!(mount.names("churn"), ["draft", "snapshot"], "{what}: nothing was sealed");
    assert_eq!(mount.text("churn/draft/good"), "good", "{what}: the draft is as it was");
    assert!(fs::symlink_metadata(&bad).is_ok(), "{what}: the draft is as it was");
    fs::remove_file(&bad).expect("a draft is writable");
    assert_eq!(mount.seal("churn", "without it")["version"], "v1", "{what}");
}

#[test]
fn a_fifo_is_refused_by_name() {
    check_refused("a fifo", |path| syscalls::mknod(path, libc::S_IFIFO | 0o644, 0));
}

#[test]
fn a_device_is_refused_by_name() {
    require_root();
    let null = libc::makedev(1, 3);
    check_refused("a device", |path| syscalls::mknod(path, libc::S_IFCHR | 0o644, null));
}

#[test]
fn a_socket_is_refused_by_name() {
    check_refused("a socket", |path| syscalls::mknod(path, libc::S_IFSOCK | 0o644, 0));
}

#[test]
fn a_link_that_leaves_the_tree_is_refused_by_name() {
    for target in ["/etc/passwd", "../..", "../../v1", "x/../../../y", "/"] {
        check_refused(target, |path| syscalls::symlink(target, path));
    }
}

#[test]
fn a_link_inside_the_tree_is_sealed_as_written() {
    let mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    fs::create_dir(draft.join("sub")).expect("a directory");
    fs::write(draft.join("weights"), "w").expect("a draft file");
    let links = [("current", "weights"), ("sub/up", "../weights"), ("dangling", "sub/nothing")];
    for (name, target) in links {
        syscalls::symlink(target, &draft.join(name)).expect("a draft takes links");
    }
    mount.seal("churn", "links");
    for (name, target) in links {
        mount.assert_link(&format!("churn/v1/{name}"), target);
    }
    assert_eq!(mount.text("churn/v1/current"), "w");
    assert_eq!(mount.text(".live/latest/churn/sub/up"), "w");
}

#[test]
fn an_outside_tree_is_walked_with_the_same_care() {
    require_root();
    let mount = Mount::new();
    let tree = mount.bench.root.join("tree");
    fs::create_dir(&tree).expect("a directory");
    fs::write(tree.join("good"), "good").expect("a file");
    let bad = tree.join("bad");
    let seal = || mount.cli(&["snapshot", "churn", tree.to_str().expect("text")]);
    let _listener = UnixListener::bind(&bad).expect("a socket");
    seal().exits(1).says("bad");
    fs::remove_file(&bad).expect("it is ours");
    syscalls::mknod(&bad, libc::S_IFIFO | 0o644, 0).expect("a fifo");
    seal().exits(1).says("bad");
    fs::remove_file(&bad).expect("it is ours");
    syscalls::symlink("/etc/passwd", &bad).expect("a link");
    seal().exits(1).says("bad");
    fs::remove_file(&bad).expect("it is ours");
    seal().ok().says("v1");
    assert_eq!(mount.text("churn/v1/good"), "good");
    assert_eq!(fs::read_to_string(tree.join("good")).expect("left as it is"), "good");
}

#[test]
fn a_setuid_bit_is_dropped_and_said() {
    let mount = Mount::with_churn();
    let path = mount.path("churn/draft/tool");
    fs::write(&path, "#!/bin/sh\n").expect("a draft file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).expect("a draft takes modes");
    let answer = mount.seal("churn", "with a setuid bit");
    let mode = fs::metadata(mount.path("churn/v1/tool")).expect("sealed").permissions().mode();
    assert_eq!(mode & 0o7777, 0o555);
    let said = answer.to_string();
    assert!(said.contains("setuid") && said.contains("tool"), "{said}");
}

#[test]
fn ten_levels_empty_files_and_empty_directories_are_kept() {
    let mount = Mount::with_churn();
    let deep = (0..10).map(|level| format!("d{level}")).collect::<Vec<_>>().join("/");
    let script = format!(
        "set -eu; cd \"$M/churn/draft\"; mkdir -p {deep} hollow; echo x > {deep}/leaf; : > void"
    );
    mount.run("bash", &script).ok();
    assert_eq!(mount.seal("churn", "shapes")["files"], 2);
    assert_eq!(mount.text(&format!("churn/v1/{deep}/leaf")), "x\n");
    assert_eq!(fs::metadata(mount.path("churn/v1/void")).expect("sealed").len(), 0);
    assert_eq!(mount.text("churn/v1/void"), "");
    assert!(mount.names("churn/v1/hollow").is_empty());
    assert!(mount.names("churn/draft").is_empty());
}

#[test]
fn an_empty_draft_is_refused() {
    let mount = Mount::with_churn();
    let (_, answer) = mount.refused("churn", b"nothing\n");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("draft")), "{answer}");
    assert_eq!(mount.names("churn"), ["draft", "snapshot"]);
    mount.cli(&["snapshot", "churn"]).exits(1).says("draft");
}

#[test]
fn names_of_models_are_checked() {
    let mount = Mount::new();
    for name in ["-x", "a b", ".x", "a\nb", "caf\u{e9}", "_x", &"x".repeat(129)] {
        let made = syscalls::mkdir(&mount.path(name), 0o755);
        let allowed = [libc::EINVAL, libc::ENAMETOOLONG, libc::EPERM];
        assert!(made.is_err_and(|e| allowed.contains(&e)), "{name:?}: {}", syscalls::name(made));
    }
    let long = "x".repeat(128);
    assert_eq!(syscalls::mkdir(&mount.path(&long), 0o755), Ok(()));
    assert_eq!(mount.names(""), [long]);
    for make in [
        syscalls::errno(fs::write(mount.path("file"), "")),
        syscalls::symlink("x", &mount.path("link")),
        syscalls::mknod(&mount.path("fifo"), libc::S_IFIFO | 0o644, 0),
    ] {
        assert_eq!(make, Err(libc::EPERM), "the root holds models only");
    }
    let why = mount.text(".modelfs/why");
    assert!(!why.trim().is_empty(), "a refusal explains itself");
}

#[test]
fn many_small_files_are_sealed_and_listed() {
    let count = setting("MODELFS_TEST_SMALL_FILES", 10_000);
    let mount = Mount::with_churn();
    let directory = mount.path("churn/draft/many");
    fs::create_dir(&directory).expect("a directory");
    for number in 0..count {
        fs::write(directory.join(number.to_string()), number.to_string()).expect("a draft file");
    }
    assert_eq!(mount.names("churn/draft/many").len() as u64, count);
    let answer = mount.seal("churn", "many");
    assert_eq!(answer["files"], count);
    let mut names = mount.names("churn/v1/many");
    names.sort_by_key(|name| name.parse::<u64>().expect("a number"));
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert!(names == expected, "{} names of {count}", names.len());
    for number in (0..count).step_by(97) {
        assert_eq!(mount.text(&format!("churn/v1/many/{number}")), number.to_string());
    }
    mount.assert_sound();
}
