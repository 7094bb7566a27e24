//! The refusal matrix: every call that changes something x every kind of object x who asks.
//!
//! Below a version the kernel has the first word for users without permission (EACCES, EPERM), and
//! modelfs has the last: EROFS, for root too.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Mount, require_root};
use crate::syscalls::{self as sys, Outcome, User, as_user};

/// Owner of the model `churn`.
const OWNER: User = User { uid: 4001, gid: 4001, groups: &[4001] };
/// Somebody who may read it and no more.
const OTHER: User = User { uid: 4003, gid: 4003, groups: &[4003] };
const ROOT: User = User { uid: 0, gid: 0, groups: &[0] };

/// One call on one object: what it is called, what it does, what each of the three gets.
struct Case {
    call: &'static str,
    object: &'static str,
    work: Box<dyn Fn() -> Outcome + Send + Sync>,
    root: &'static [i32],
    owner: &'static [i32],
    other: &'static [i32],
}

const EROFS: &[i32] = &[libc::EROFS];
const EACCES: &[i32] = &[libc::EACCES];
const EPERM: &[i32] = &[libc::EPERM];

/// A mount with a sealed tree of every kind of object, which `OWNER` owns and all may read.
fn sealed_mount() -> Mount {
    require_root();
    let mount = Mount::with_churn();
    let script = r#"
set -eu
cd "$M/churn/draft"
mkdir dir dir/empty
echo data > dir/file
echo data > file
echo '#!/bin/sh' > run; chmod 755 run
ln -s file link
cd /
echo sealed > "$M/churn/snapshot"
ln -s v1 "$M/churn/prod"
chown 4001:4001 "$M/churn"
chmod 755 "$M/churn"
"#;
    mount.run("bash", script).ok();
    mount
}

/// A case of the same answer for `owner` and `other`.
fn case(
    call: &'static str,
    object: &'static str,
    root: &'static [i32],
    others: &'static [i32],
    work: impl Fn() -> Outcome + Send + Sync + 'static,
) -> Case {
    Case { call, object, work: Box::new(work), root, owner: others, other: others }
}

/// Calls that add a name to a directory below a version.
fn additions(object: &'static str, dir: &Path, draft_file: &Path) -> Vec<Case> {
    let new = dir.join("new");
    let at = |work: fn(&Path) -> Outcome| {
        let new = new.clone();
        move || work(&new)
    };
    let (from, to) = (draft_file.to_owned(), new.clone());
    let (linked, link_to) = (draft_file.to_owned(), new.clone());
    vec![
        case(
            "open O_CREAT",
            object,
            EROFS,
            EACCES,
            at(|new| sys::open(new, libc::O_WRONLY | libc::O_CREAT, 0o644).map(drop)),
        ),
        case("mkdir", object, EROFS, EACCES, at(|new| sys::mkdir(new, 0o755))),
        case(
            "mknod fifo",
            object,
            EROFS,
            EACCES,
            at(|new| sys::mknod(new, libc::S_IFIFO | 0o644, 0)),
        ),
        case(
            "mknod file",
            object,
            EROFS,
            EACCES,
            at(|new| sys::mknod(new, libc::S_IFREG | 0o644, 0)),
        ),
        case(
            "mknod socket",
            object,
            EROFS,
            EACCES,
            at(|new| sys::mknod(new, libc::S_IFSOCK | 0o644, 0)),
        ),
        case(
            "mknod device",
            object,
            EROFS,
            EACCES,
            at(|new| sys::mknod(new, libc::S_IFCHR | 0o644, libc::makedev(1, 3))),
        ),
        case("symlink", object, EROFS, EACCES, at(|new| sys::symlink("v1", new))),
        case("rename from the draft", object, EROFS, EACCES, move || sys::rename2(&from, &to, 0)),
        // A link needs write permission or ownership of its source first where links are protected.
        case(
            "link from the draft",
            object,
            &[libc::EROFS, libc::EXDEV],
            &[libc::EACCES, libc::EPERM],
            move || sys::link(&linked, &link_to),
        ),
    ]
}

/// Calls that change one object below a version, of whatever kind.
fn changes(object: &'static str, path: &Path, is_link: bool) -> Vec<Case> {
    let at = |work: fn(&Path) -> Outcome| {
        let path = path.to_owned();
        move || work(&path)
    };
    let beside = path.with_file_name("moved");
    let away = path.to_owned();
    let mut cases = vec![
        case("lchown", object, EROFS, EPERM, at(|path| sys::lchown(path, 4003, 4003))),
        case("utimensat", object, EROFS, EPERM, at(|path| sys::utimes(path, Some(7)))),
        case("rename", object, EROFS, EACCES, move || sys::rename2(&away, &beside, 0)),
    ];
    if !is_link {
        cases.extend([
            case("chmod", object, EROFS, EPERM, at(|path| sys::chmod(path, 0o777))),
            case("fchmod", object, EROFS, EPERM, at(|path| sys::fchmod(path, 0o777))),
            case("touch", object, EROFS, EACCES, at(|path| sys::utimes(path, None))),
            case(
                "setxattr user",
                object,
                EROFS,
                EACCES,
                at(|path| sys::set_xattr(path, "user.test", b"value")),
            ),
            case(
                "removexattr user",
                object,
                EROFS,
                EACCES,
                at(|path| sys::remove_xattr(path, "user.test")),
            ),
        ]);
    }
    cases
}

/// Calls that only a regular file has.
fn file_changes(object: &'static str, path: &Path) -> Vec<Case> {
    let open = |flags: libc::c_int| {
        let path = path.to_owned();
        move || sys::open(&path, flags, 0o644).map(drop)
    };
    let (cut, gone, linked) = (path.to_owned(), path.to_owned(), path.to_owned());
    let beside = path.with_file_name("linked");
    vec![
        case("open O_WRONLY", object, EROFS, EACCES, open(libc::O_WRONLY)),
        case("open O_RDWR", object, EROFS, EACCES, open(libc::O_RDWR)),
        case("open O_APPEND", object, EROFS, EACCES, open(libc::O_WRONLY | libc::O_APPEND)),
        case("open O_TRUNC", object, EROFS, EACCES, open(libc::O_WRONLY | libc::O_TRUNC)),
        case("open O_RDONLY|O_TRUNC", object, EROFS, EACCES, open(libc::O_RDONLY | libc::O_TRUNC)),
        case("open O_CREAT, there", object, EROFS, EACCES, open(libc::O_WRONLY | libc::O_CREAT)),
        case("truncate", object, EROFS, EACCES, move || sys::truncate(&cut, 0)),
        case("unlink", object, EROFS, EACCES, move || sys::errno(fs::remove_file(&gone))),
        case("link", object, EROFS, &[libc::EACCES, libc::EPERM], move || {
            sys::link(&linked, &beside)
        }),
    ]
}

/// Everything below the version at `root`, a path that leads to it.
fn cases_below(root: &Path, draft_file: &Path) -> Vec<Case> {
    let at = |name: &str| root.join(name);
    let (empty, link, dir) = (at("dir/empty"), at("link"), at("dir"));
    let mut cases = additions("version root", root, draft_file);
    cases.extend(additions("directory", &dir, draft_file));
    for (object, name) in [
        ("file", "file"),
        ("deep file", "dir/file"),
        ("executable", "run"),
        ("metadata.json", "metadata.json"),
    ] {
        cases.extend(changes(object, &at(name), false));
        cases.extend(file_changes(object, &at(name)));
    }
    cases.extend(changes("directory", &dir, false));
    cases.extend(changes("link", &link, true));
    cases.push(case("rmdir", "empty directory", EROFS, EACCES, move || {
        sys::errno(fs::remove_dir(&empty))
    }));
    cases.push(case("unlink", "link", EROFS, EACCES, move || sys::errno(fs::remove_file(&link))));
    let (one, two) = (at("file"), at("run"));
    cases.push(case("rename EXCHANGE", "files", EROFS, EACCES, move || {
        sys::rename2(&one, &two, libc::RENAME_EXCHANGE)
    }));
    let (from, to) = (at("file"), draft_file.with_file_name("stolen"));
    cases.push(case("rename to the draft", "file", EROFS, EACCES, move || {
        sys::rename2(&from, &to, 0)
    }));
    cases
}

/// Runs every case as all three; all that differ, as one text.
fn failures(place: &str, cases: &[Case]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (who, user) in [("root", ROOT), ("owner", OWNER), ("other", OTHER)] {
        for case in cases {
            let found = as_user(user, || (case.work)());
            let expected = match who {
                "root" => case.root,
                "owner" => case.owner,
                _ => case.other,
            };
            if !found.is_err_and(|errno| expected.contains(&errno)) {
                let names: Vec<String> = expected.iter().map(|e| sys::name(Err(*e))).collect();
                let (names, found) = (names.join(" or "), sys::name(found));
                let (call, object) = (case.call, case.object);
                wrong.push(format!("{place}: {call} on {object} as {who}: {found}, not {names}"));
            }
        }
    }
    wrong
}

/// A tree as one text: what a refused call must leave as it was.
fn picture(mount: &Mount) -> String {
    let script = r#"cd "$M/churn" && find v1 -printf '%p %y %m %U %G %s %T@ %i %l\n' | sort
cat v1/file v1/dir/file v1/run v1/metadata.json; ls -1; readlink prod latest"#;
    mount.run("bash", script).ok().stdout
}

#[test]
fn a_version_never_changes() {
    let mount = sealed_mount();
    let draft_file = mount.path("churn/draft/outside");
    fs::write(&draft_file, "outside").expect("a draft file");
    sys::lchown(&draft_file, OWNER.uid, OWNER.gid).expect("root may");
    sys::chmod(&mount.path("churn/draft"), 0o777).expect("root may");
    let before = picture(&mount);
    let mut wrong = Vec::new();
    for place in ["churn/v1", "churn/prod", ".live/prod/churn", "churn/.live/prod"] {
        let cases = cases_below(&mount.path(place), &draft_file);
        assert!(70 < cases.len(), "{} cases", cases.len());
        wrong.extend(failures(place, &cases));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(picture(&mount), before, "a refused call changes nothing");
    assert!(!mount.path("churn/draft/stolen").exists());
    mount.assert_sound();
}

/// The version's own directory: its parent is the model's, which the owner may write.
fn version_root_cases(model: &Path) -> Vec<Case> {
    let at = |name: &str| model.join(name);
    let owned =
        |call, object, owner: &'static [i32], other: &'static [i32], work: PathsToOutcome| {
            let (one, two) = (at(object), at("v9"));
            let work = Box::new(move || work(&one, &two));
            Case { call, object, work, root: EROFS, owner, other }
        };
    vec![
        owned("rmdir", "v1", EROFS, EACCES, |one, _| sys::errno(fs::remove_dir(one))),
        owned("rename", "v1", EROFS, EACCES, |one, two| sys::rename2(one, two, 0)),
        owned("chmod", "v1", EPERM, EPERM, |one, _| sys::chmod(one, 0o777)),
        owned("lchown", "v1", EPERM, EPERM, |one, _| sys::lchown(one, 4003, 4003)),
        owned("utimensat", "v1", EPERM, EPERM, |one, _| sys::utimes(one, Some(7))),
        owned("setxattr", "v1", EACCES, EACCES, |one, _| sys::set_xattr(one, "user.test", b"x")),
    ]
}

type PathsToOutcome = fn(&Path, &Path) -> Outcome;

#[test]
fn a_version_cannot_be_removed_renamed_or_changed() {
    let mount = sealed_mount();
    let before = picture(&mount);
    let wrong = failures("churn", &version_root_cases(&mount.path("churn")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(picture(&mount), before);
}

/// Calls on a model's directory that mean nothing there.
fn model_cases(model: &Path, elsewhere: &Path) -> Vec<Case> {
    let refused = |call, object, work: Box<dyn Fn() -> Outcome + Send + Sync>| Case {
        call,
        object,
        work,
        root: EPERM,
        owner: EPERM,
        other: EACCES,
    };
    let on = |name: &str, work: fn(&Path) -> Outcome| -> Box<dyn Fn() -> Outcome + Send + Sync> {
        let path = model.join(name);
        Box::new(move || work(&path))
    };
    let moved = |from: PathBuf, to: PathBuf| -> Box<dyn Fn() -> Outcome + Send + Sync> {
        Box::new(move || sys::rename2(&from, &to, 0))
    };
    let (at, away) = (|name: &str| model.join(name), |name: &str| elsewhere.join(name));
    let (source, new) = (at("draft/outside"), at("new"));
    let linked = Box::new(move || sys::link(&source, &new));
    vec![
        refused("mkdir", "new", on("new", |path| sys::mkdir(path, 0o755))),
        refused(
            "create",
            "new",
            on("new", |path| sys::open(path, libc::O_WRONLY | libc::O_CREAT, 0o644).map(drop)),
        ),
        refused("mknod", "new", on("new", |path| sys::mknod(path, libc::S_IFIFO | 0o644, 0))),
        refused("mkdir", "v9", on("v9", |path| sys::mkdir(path, 0o755))),
        refused("link", "new", linked),
        refused("rmdir", "draft", on("draft", |path| sys::errno(fs::remove_dir(path)))),
        refused("unlink", "latest", on("latest", |path| sys::errno(fs::remove_file(path)))),
        refused("unlink", "snapshot", on("snapshot", |path| sys::errno(fs::remove_file(path)))),
        refused("rename", "draft", moved(at("draft"), at("other"))),
        refused("rename", "snapshot", moved(at("snapshot"), at("other"))),
        refused("rename", "latest", moved(at("latest"), at("other"))),
        refused("rename across models", "prod", moved(at("prod"), away("prod"))),
    ]
}

#[test]
fn a_models_directory_holds_no_files() {
    let mount = sealed_mount();
    mount.run("bash", "mkdir -m 777 \"$M/fraud\"; chown 4001:4001 \"$M/fraud\"").ok();
    let outside = mount.path("churn/draft/outside");
    fs::write(&outside, "outside").expect("a draft file");
    // Where links are protected, only who may read and write a file may link it.
    sys::chmod(&outside, 0o666).expect("root may");
    let before = picture(&mount);
    let wrong = failures("churn", &model_cases(&mount.path("churn"), &mount.path("fraud")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(picture(&mount), before);
    assert_eq!(mount.names("fraud"), ["draft", "snapshot"]);
    assert!(!mount.text("churn/.modelfs/why").trim().is_empty(), "the last refusal is explained");
}

#[test]
fn a_draft_is_a_tree_of_its_own() {
    let mount = sealed_mount();
    fs::create_dir(mount.path("fraud")).expect("mkdir makes a model");
    let file = mount.path("churn/draft/file");
    fs::write(&file, "mine").expect("a draft file");
    for elsewhere in ["fraud/draft/file", "churn/file", "fraud/file", "file", "churn/prod2"] {
        let to = mount.path(elsewhere);
        let renamed = sys::rename2(&file, &to, 0);
        assert_eq!(renamed, Err(libc::EXDEV), "rename to {elsewhere}");
        // Beside the versions and the models a hard link is refused for its own sake.
        let expected = if elsewhere.contains("draft") { libc::EXDEV } else { libc::EPERM };
        assert_eq!(sys::link(&file, &to), Err(expected), "link to {elsewhere}");
    }
    let outside = mount.bench.write("outside", "outside");
    for (from, to) in [
        (file.clone(), mount.bench.root.join("taken")),
        (outside, mount.path("churn/draft/taken")),
        (mount.path("churn/prod"), mount.path("churn/draft/taken")),
    ] {
        assert_eq!(sys::rename2(&from, &to, 0), Err(libc::EXDEV), "{}", from.display());
        assert_eq!(sys::link(&from, &to), Err(libc::EXDEV), "{}", from.display());
    }
    let sealed = mount.path("churn/v1/file");
    assert_eq!(sys::link(&sealed, &mount.path("churn/draft/taken")), Err(libc::EXDEV));
    // `mv` goes on with a copy after EXDEV, so moving between drafts works for people.
    mount.run("bash", "mv \"$M/churn/draft/file\" \"$M/fraud/draft/file\"").ok();
    assert_eq!(mount.text("fraud/draft/file"), "mine");
    assert!(!file.exists());
}

#[test]
fn generated_files_and_views_are_read_only() {
    let mount = sealed_mount();
    for name in [
        ".modelfs/status.json",
        ".modelfs/history.jsonl",
        "churn/.modelfs/status.json",
        "churn/.modelfs/history.jsonl",
        "churn/.modelfs/why",
    ] {
        let path = mount.path(name);
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC] {
            let opened = sys::open(&path, flags, 0).map(drop);
            let allowed = [Err(libc::EROFS), Err(libc::EACCES), Err(libc::EPERM)];
            assert!(allowed.contains(&opened), "{name}: {}", sys::name(opened));
        }
        let gone = sys::errno(fs::remove_file(&path));
        assert!(gone.is_err(), "{name} was removed");
    }
    // A name that no alias has: `.live/<any alias>` is there already.
    for name in [".live", ".live/prod", "churn/.live", ".modelfs", "churn/.modelfs"] {
        let made = sys::mkdir(&mount.path(name).join(".new"), 0o755);
        let allowed = [Err(libc::EROFS), Err(libc::EPERM)];
        assert!(allowed.contains(&made), "mkdir in {name}: {}", sys::name(made));
    }
}

#[test]
fn attributes_that_nobody_set_are_absent() {
    let mount = sealed_mount();
    for name in ["churn/v1/file", "churn/v1", "churn/prod", "churn/snapshot", "churn"] {
        let shown = mount.run("bash", &format!("getfattr -d -m - \"$M/{name}\""));
        assert!(shown.stdout.is_empty(), "{name}: {shown:?}");
    }
    // After all these calls the kernel still asks us: one ENOSYS would have ended that.
    let path = mount.path("churn/v1/file");
    assert_eq!(sys::set_xattr(&path, "user.x", b"1"), Err(libc::EROFS));
}
