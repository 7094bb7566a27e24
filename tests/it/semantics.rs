//! Promises of SEMANTICS.md, a test of the name of each: versions, models, aliases, permissions.
//!
//! Those on drafts and on sealing are in `semantics_draft`; where another module proves a promise
//! among its like, the test of its name is there (`tidy` sees that there is one).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::aliases::two_versions;
use crate::harness::{Mount, is_mounted, noise, require_root};
use crate::permissions::{DENIED, GROUP, MEMBER, OWNER, STRANGER, attempt, mount_with_mode};
use crate::syscalls::{self, as_user};

#[test]
fn a_version_keeps_what_was_sealed() {
    require_root();
    let mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    let odd = OsStr::from_bytes(b"\xff\n\\*");
    fs::create_dir(draft.join("dir")).expect("a directory");
    for (name, mode) in [(odd, 0o600), (OsStr::new("dir/run"), 0o6701)] {
        let path = draft.join(name);
        fs::write(&path, noise(1, 100_000)).expect("a draft file");
        syscalls::lchown(&path, 4001, 4001).expect("root may");
        syscalls::chmod(&path, mode).expect("root may");
        let file = File::options().write(true).open(&path).expect("a draft file");
        file.set_modified(at(1_600_000_000)).expect("futimens");
    }
    fs::hard_link(draft.join(odd), draft.join("twin")).expect("a draft takes links");
    syscalls::symlink("../a target/\u{e9}", &draft.join("dir/link")).expect("a draft takes links");
    assert_eq!(syscalls::utimes(&draft.join("dir/link"), Some(77)), Ok(()));
    assert_eq!(syscalls::utimes(&draft.join("dir"), Some(78)), Ok(()));
    mount.seal("churn", "all that is kept");
    let sealed = mount.path("churn/v1");
    for (name, mode) in [
        (odd, 0o444),
        (OsStr::new("twin"), 0o444),
        (OsStr::new("dir/run"), 0o555),
        (OsStr::new("dir"), 0o555),
        (OsStr::new(""), 0o555),
        (OsStr::new("metadata.json"), 0o444),
    ] {
        let found = fs::metadata(sealed.join(name)).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        assert_eq!(found.mode() & 0o7777, mode, "{name:?}");
        assert_eq!((found.uid(), found.gid(), found.nlink()), (0, 0, 1), "{name:?}");
    }
    for name in [odd, OsStr::new("twin"), OsStr::new("dir/run")] {
        let path = sealed.join(name);
        assert!(fs::read(&path).expect("sealed") == noise(1, 100_000), "{name:?}");
        let time = fs::metadata(&path).expect("sealed").modified().expect("a time");
        assert_eq!(time, at(1_600_000_000), "{name:?}");
    }
    mount.assert_link("churn/v1/dir/link", "../a target/\u{e9}");
    let time = |name: &str| fs::symlink_metadata(sealed.join(name)).expect("sealed").mtime();
    assert_eq!((time("dir/link"), time("dir")), (77, 78));
}

#[test]
fn a_version_has_metadata() {
    let mount = Mount::with_churn();
    let user = r#"{"z": [1, 2.50], "a": "é"}"#;
    mount.seal_files("churn", &[("a", b"a"), ("metadata.json", user.as_bytes())], "mine");
    let text = mount.text("churn/v1/metadata.json");
    let found: Value = serde_json::from_str(&text).expect("metadata.json is JSON");
    assert_eq!(found["user"], json!({"z": [1, 2.5], "a": "é"}));
    assert_eq!((&found["model"], &found["message"]), (&json!("churn"), &json!("mine")));
    // Objects of serde_json are sorted maps, written without white space.
    let canonical = serde_json::to_string(&found).expect("it came from JSON");
    assert_eq!(text.trim_end_matches('\n'), canonical);
    let out = mount.bench.root.join("out");
    mount.cli(&["export", "churn/v1", out.to_str().expect("text")]).ok();
    let exported = fs::read_to_string(out.join("metadata.json")).expect("part of the version");
    assert_eq!(exported, text);
    fs::write(mount.path("churn/draft/a"), "b").expect("a draft file");
    for wrong in ["[1]", "7", "not json"] {
        fs::write(mount.path("churn/draft/metadata.json"), wrong).expect("a draft file");
        assert_eq!(mount.refused("churn", b"wrong\n").0, libc::EINVAL, "{wrong}");
    }
    fs::remove_file(mount.path("churn/draft/metadata.json")).expect("a draft is writable");
    mount.seal("churn", "without");
    let text = mount.text("churn/v2/metadata.json");
    let found: Value = serde_json::from_str(&text).expect("metadata.json is JSON");
    assert!(found.get("user").is_none(), "{text}");
}

#[test]
fn a_version_number_is_used_once() {
    let mut mount = Mount::with_churn();
    let number = |mount: &Mount, text: &str| {
        mount.seal_files("churn", &[("who", text.as_bytes())], text)["version"].clone()
    };
    assert_eq!(number(&mount, "one"), "v1");
    mount.refused("churn", b"an empty draft\n");
    let inode = |mount: &Mount| fs::metadata(mount.path("churn/v1")).expect("sealed").ino();
    let first = inode(&mount);
    assert_eq!(number(&mount, "two"), "v2", "a refusal takes no number");
    mount.kill9();
    mount.start();
    assert_eq!(number(&mount, "three"), "v3", "nor does a restart");
    assert_eq!(number(&mount, "one"), "v1", "the same again");
    mount.restart();
    assert_eq!(number(&mount, "four"), "v4");
    let listed = ["draft", "latest", "snapshot", "v1", "v2", "v3", "v4"];
    assert_eq!(mount.names("churn"), listed);
    for (version, text) in [("v1", "one"), ("v2", "two"), ("v3", "three"), ("v4", "four")] {
        assert_eq!(mount.text(&format!("churn/{version}/who")), text);
    }
    assert_eq!(inode(&mount), first);
}

#[test]
fn dot_names_are_not_listed() {
    let mount = two_versions();
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    syscalls::symlink("v2", &mount.path("churn/.waits")).expect("a temporary link");
    syscalls::symlink("v2", &mount.path("churn/CuA1b2C3")).expect("a temporary link");
    for name in [".live", ".modelfs", "churn/.live", "churn/.modelfs"] {
        assert!(mount.path(name).is_dir(), "{name} is found by name");
    }
    for name in ["churn/.waits", "churn/CuA1b2C3"] {
        mount.assert_link(name, "v2");
    }
    assert_eq!(mount.names(""), ["churn"]);
    assert_eq!(mount.names("churn"), ["draft", "latest", "prod", "snapshot", "v1", "v2"]);
}

#[test]
fn a_model_is_made_by_mkdir() {
    require_root();
    let mount = Mount::new();
    syscalls::chmod(&mount.point, 0o777).expect("root may");
    let (mine, other) = (mount.path("mine"), mount.path("other"));
    assert_eq!(as_user(OWNER, || syscalls::mkdir(&mine, 0o750)), Ok(()));
    let found = fs::metadata(&mine).expect("just made");
    assert_eq!((found.uid(), found.gid()), (OWNER.uid, OWNER.gid), "it belongs to who makes it");
    assert_eq!(syscalls::rename2(&mine, &other, 0), Err(libc::EPERM), "root neither");
    assert_eq!(as_user(OWNER, || syscalls::rename2(&mine, &other, 0)), Err(libc::EPERM));
    let remove = || syscalls::errno(fs::remove_dir(&mine));
    fs::write(mine.join("draft/file"), "x").expect("a draft file");
    assert_eq!(remove(), Err(libc::ENOTEMPTY), "its draft is not empty");
    fs::remove_file(mine.join("draft/file")).expect("a draft is writable");
    assert_eq!(remove(), Ok(()));
    assert!(mount.names("").is_empty());
    fs::create_dir(&mine).expect("the name is free again");
    mount.seal_files("mine", &[("a", b"a")], "one");
    assert_eq!(remove(), Err(libc::ENOTEMPTY), "it has a version");
    assert_eq!(mount.text("mine/v1/a"), "a");
}

#[test]
fn an_alias_moves_in_one_step() {
    let mut mount = two_versions();
    let at = |name: &str| mount.path("churn").join(name);
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    mount.retarget("churn", "next", "v2").expect("v2 is there");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = ["prod", "next"].map(|name| {
            let (path, done) = (at(name), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let found = fs::read_link(&path).expect("at no time is it missing");
                    assert!(["v1", "v2"].map(Path::new).contains(&found.as_path()), "{found:?}");
                }
            })
        });
        // Names in one directory are looked up between its changes; a live view is beside them.
        let (view, over) = (mount.path(".live/prod/churn/who"), &done);
        let view = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let found = fs::read_to_string(&view).expect("at no time is it missing");
                assert!(["v1", "v2"].contains(&found.as_str()), "{found}");
            }
        });
        for number in 0..200 {
            let moved = match number % 2 {
                0 => syscalls::rename2(&at("prod"), &at("next"), libc::RENAME_EXCHANGE),
                _ => mount.retarget("churn", "prod", if number % 4 == 1 { "v1" } else { "v2" }),
            };
            if moved.is_err() || readers.iter().chain([&view]).any(|reader| reader.is_finished()) {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(moved, Ok(()), "move {number}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let targets = || ["prod", "next"].map(|name| fs::read_link(at(name)).expect("an alias"));
    let [prod, next] = targets();
    syscalls::symlink("v1", &at(".t")).expect("a temporary link");
    for from in [".t", "next"] {
        let kept = syscalls::rename2(&at(from), &at("prod"), libc::RENAME_NOREPLACE);
        assert_eq!(kept, Err(libc::EEXIST), "{from}");
    }
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    mount.retarget("churn", "next", "v2").expect("v2 is there");
    syscalls::rename2(&at("prod"), &at("next"), libc::RENAME_EXCHANGE).expect("both are there");
    assert_eq!(targets(), ["v2", "v1"].map(Path::new), "after {prod:?} and {next:?}");
    // What is left of a killed daemon is what was on disk when the call returned; that it was
    // durable too is shown by tests/powercut.
    syscalls::symlink("v1", &at(".u")).expect("a temporary link");
    syscalls::rename2(&at(".u"), &at("prod"), 0).expect("v1 is there");
    mount.kill9();
    mount.start();
    mount.assert_link("churn/prod", "v1");
    mount.assert_link("churn/next", "v1");
}

#[test]
fn a_temporary_link_is_no_alias() {
    const LINKS_MAX: usize = 1_024;
    let mut mount = two_versions();
    let at = |mount: &Mount, name: &str| mount.path("churn").join(name);
    let names = [".prod", "prod~", "a b", "caf\u{e9}", "CuA1b2C3"];
    for name in names {
        syscalls::symlink("v1", &at(&mount, name)).unwrap_or_else(|e| panic!("{name}: errno {e}"));
        mount.assert_link(&format!("churn/{name}"), "v1");
    }
    let aliases = mount.cli_json(&["alias", "list", "churn"]).to_string();
    assert!(names.iter().all(|name| !aliases.contains(name)), "{aliases}");
    syscalls::rename2(&at(&mount, "CuA1b2C3"), &at(&mount, "prod"), 0).expect("it waited for that");
    mount.assert_link("churn/prod", "v1");
    assert!(fs::symlink_metadata(at(&mount, "CuA1b2C3")).is_err(), "a rename takes it away");
    let count = names.len() - 1;
    for number in count..LINKS_MAX {
        let made = syscalls::symlink("v1", &at(&mount, &format!(".{number}")));
        assert_eq!(made, Ok(()), "link {number}; {:?}", mount.text("churn/.modelfs/why"));
    }
    assert_eq!(syscalls::symlink("v1", &at(&mount, ".more")), Err(libc::ENOSPC));
    fs::create_dir(mount.path("fraud")).expect("mkdir makes a model");
    mount.seal_files("fraud", &[("a", b"a")], "another model has its own");
    syscalls::symlink("v1", &mount.path("fraud/.more")).expect("another model has its own");
    // Not waited for here: `a_temporary_link_is_gone_after_a_minute` sets the clock.
    mount.restart();
    for name in [".prod", "prod~", ".9"] {
        let found = fs::symlink_metadata(at(&mount, name)).expect_err("in memory only");
        assert_eq!(found.raw_os_error(), Some(libc::ENOENT), "{name}");
    }
    mount.assert_link("churn/prod", "v1");
}

#[test]
fn a_live_view_asks_for_the_models_permission() {
    let mount = mount_with_mode(0o750);
    syscalls::symlink("v1", &mount.path("churn/qa")).expect("root may");
    let views = [".live/prod/churn", ".live/latest/churn", "churn/.live/qa"];
    for mode in [0o750, 0o775, 0o700] {
        syscalls::chmod(&mount.path("churn"), mode).expect("root may");
        for view in views {
            let found = fs::metadata(mount.path(view)).unwrap_or_else(|e| panic!("{view}: {e}"));
            let found = (found.uid(), found.gid(), found.mode() & 0o7777);
            assert_eq!(found, (OWNER.uid, GROUP, mode & 0o555), "{view}");
        }
        let who = mount.path(".live/prod/churn/who");
        for (user, may) in
            [(OWNER, true), (MEMBER, mode & 0o010 != 0), (STRANGER, mode & 0o001 != 0)]
        {
            let expected = if may { Ok(()) } else { DENIED };
            let found = as_user(user, || syscalls::errno(fs::read(&who)));
            assert_eq!(found, expected, "{mode:o}, {user:?}");
        }
    }
}

#[test]
fn sealed_files_are_cached_for_ever() {
    let mount = Mount::with_churn();
    // Too short to be hot: of a hot file the kernel asks the times after it has read it.
    let bytes = noise(5, 100_000);
    mount.seal_files("churn", &[("weights", &bytes), ("sub/file", b"s")], "one");
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let version = syscalls::open(&mount.path("churn/v1"), flags, 0).expect("a directory");
    // Not by its path: what leads to a version may move, so the kernel asks for it.
    let name = |name: &str| format!("/proc/self/fd/{}/{name}", version.as_raw_fd());
    let (weights, deep, missing) = (name("weights"), name("sub/file"), name("missing"));
    let look = || (fs::metadata(&weights), fs::metadata(&deep), fs::metadata(&missing));
    assert!(fs::read(&weights).expect("sealed") == bytes);
    let _ = look();
    let mut again = File::open(&weights).expect("opened again, after a close");
    // From here on nobody answers: what needs an answer hangs.
    syscalls::signal(mount.pid(), libc::SIGSTOP);
    let (send, answer) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut read = Vec::new();
            let done = again.read_to_end(&mut read);
            send.send((look(), done.map(|_| read))).expect("somebody waits");
        });
        let answer = answer.recv_timeout(Duration::from_secs(20));
        syscalls::signal(mount.pid(), libc::SIGCONT);
        let ((weights, deep, missing), read) = answer.expect("the kernel asked again");
        assert_eq!(weights.expect("known").len(), 100_000);
        assert_eq!(deep.expect("known").len(), 1);
        let missing = missing.expect_err("known to be missing").raw_os_error();
        assert_eq!(missing, Some(libc::ENOENT));
        assert!(read.expect("in the page cache") == bytes);
    });
}

#[test]
fn the_kernel_checks_permissions() {
    let mut mount = mount_with_mode(0o700);
    let reads = [Ok(()), Ok(()), Ok(()), DENIED, DENIED, DENIED];
    let (all, none) = ([Ok(()); 6], [DENIED; 6]);
    for (mode, member, stranger) in [
        (0o700, none, none),
        (0o750, reads, none),
        (0o770, all, none),
        (0o775, all, reads),
        (0o777, all, all),
    ] {
        syscalls::chmod(&mount.path("churn"), mode).expect("root may");
        for (user, expected) in [(STRANGER, stranger), (MEMBER, member), (OWNER, all)] {
            assert_eq!(attempt(&mount, user), expected, "{mode:o}, {user:?}");
            // What is sealed is gone from the draft, so that the next one makes it anew.
            mount.retarget("churn", "prod", "v1").expect("root may");
        }
    }
    syscalls::lchown(&mount.path("churn"), STRANGER.uid, MEMBER.gid).expect("root may");
    syscalls::chmod(&mount.path("churn"), 0o2710).expect("root may");
    syscalls::lchown(&mount.point, OWNER.uid, GROUP).expect("root may");
    syscalls::chmod(&mount.point, 0o751).expect("root may");
    let kept = |mount: &Mount, name: &str| {
        let found = fs::metadata(mount.path(name)).expect("it is there");
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    for _ in 0..2 {
        assert_eq!(kept(&mount, "churn"), (STRANGER.uid, MEMBER.gid, 0o2710));
        assert_eq!(kept(&mount, ""), (OWNER.uid, GROUP, 0o751));
        mount.kill9();
        mount.start();
    }
    assert_eq!(attempt(&mount, STRANGER), all, "now it owns the model");
}

#[test]
fn root_cannot_write_a_version() {
    require_root();
    let mount = Mount::with_churn();
    mount.seal_files("churn", &[("file", b"data"), ("sub/deep", b"deep")], "one");
    let script = r#"
cd "$M/churn/v1"
for try in 'echo x > file' 'echo x >> sub/deep' ': > new' 'rm -f file' 'rm -rf sub' 'mkdir d' \
  'ln file hard' 'ln -s file soft' 'mv file moved' 'chmod 600 file' 'chown 4001 sub' \
  'touch -d 2001-01-01 file' 'truncate -s 1 file' 'setfattr -n user.a -v b file' \
  'dd if=/dev/zero of=metadata.json conv=notrunc count=1' 'mknod fifo p' 'rmdir ../v1'; do
  said=$(eval "$try" 2>&1) && echo "$try: done"
  case "$said" in *'Read-only file system'*) ;; *) echo "$try: $said" ;; esac
done
cat file sub/deep
find . | sort | tr '\n' ' '
"#;
    let shown = mount.run("bash", script).ok().stdout;
    assert_eq!(shown, "datadeep. ./file ./metadata.json ./sub ./sub/deep ");
    mount.assert_sound();
}

#[test]
fn a_refusal_is_explained() {
    let mount = two_versions();
    let why = |scope: &str| mount.text(&format!("{scope}.modelfs/why"));
    let (store, model) = (why(""), why("churn/"));
    assert_eq!((store.lines().count(), model.lines().count()), (1, 1));
    assert_eq!(syscalls::mkdir(&mount.path("churn/new"), 0o755), Err(libc::EPERM));
    let refused = why("churn/");
    assert!(refused.contains("EPERM") && refused.contains("new"), "{refused}");
    assert_eq!(syscalls::symlink("v9", &mount.path("churn/prod")), Err(libc::ENOENT));
    let refused = why("churn/");
    assert!(refused.contains("churn/v9"), "the last one: {refused}");
    assert_eq!(refused.lines().count(), 1, "and no other: {refused}");
    assert_eq!(why(""), store, "each has its own");
    assert_eq!(syscalls::errno(fs::write(mount.path("file"), "")), Err(libc::EPERM));
    let outside = why("");
    assert!(outside.contains("EPERM") && outside.contains("file"), "{outside}");
    // The kernel knows the name and does not ask.
    assert_eq!(syscalls::mkdir(&mount.path("churn/draft"), 0o755), Err(libc::EEXIST));
    assert_eq!(why("churn/"), refused);
}

#[test]
fn the_stores_own_files_are_the_roots() {
    let mount = mount_with_mode(0o755);
    syscalls::lchown(&mount.point, OWNER.uid, GROUP).expect("root may");
    for name in ["status.json", "history.jsonl", "why"] {
        let path = mount.path(".modelfs").join(name);
        let found = fs::metadata(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(found, (OWNER.uid, GROUP, 0o440), "{name}");
        let read = |user| as_user(user, || syscalls::errno(fs::read(&path)));
        assert_eq!([read(OWNER), read(MEMBER), read(STRANGER)], [Ok(()), Ok(()), DENIED], "{name}");
    }
    let history = mount.text(".modelfs/history.jsonl");
    assert!(history.contains("churn"), "it names all models: {history}");
}

#[test]
fn an_unmount_is_lazy() {
    require_root();
    let mut mount = Mount::with_churn();
    let bytes = noise(6, 6 << 20);
    mount.seal_files("churn", &[("weights", &bytes)], "one");
    let sealed = File::open(mount.path("churn/v1/weights")).expect("sealed");
    let draft = mount.path("churn/draft/file");
    let draft = File::options().create_new(true).write(true).open(draft).expect("a draft file");
    mount.run("bash", "umount -l \"$M\"").ok();
    assert!(!is_mounted(&mount.point), "the path is free at once");
    fs::write(mount.point.join("mine"), "an ordinary directory").expect("it is ours");
    fs::remove_file(mount.point.join("mine")).expect("it is ours");
    let mut tail = vec![0; 1 << 20];
    sealed.read_exact_at(&mut tail, 5 << 20).expect("what is open works");
    assert!(tail == bytes[5 << 20..]);
    draft.write_all_at(b"written later", 0).expect("what is open works");
    draft.sync_all().expect("what is open works");
    drop((sealed, draft));
    assert_eq!(mount.wait_for_end(), 0, "then the daemon ends");
    mount.start();
    assert_eq!(mount.text("churn/draft/file"), "written later");
}
