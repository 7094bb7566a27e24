//! The tree that the mount shows, asked directly: a real store, no kernel.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use modelfs::format::record::Door;
use modelfs::fs::{
    Changes, Detail, Entry, Filesystem, Flow, Found, FsError, Lookup, Opened, Reader, RenameMode,
    Requester, Settings, Written,
};
use modelfs::ops::{Caller, HotLimit, OpenOptions, Workspace};
use modelfs::sys::io::Real;
use nix::errno::Errno;

const ROOT: u64 = 1;
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

struct Tree {
    fs: Filesystem,
    me: Requester,
    _directory: tempfile::TempDir,
}

fn now() -> Timestamp {
    Timestamp::now()
}

impl Tree {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let caller = Caller {
            user: "me".into(),
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: Vec::new(),
            door: Door::Daemon,
        };
        let settings = Settings {
            mountpoint: "/mnt/models".into(),
            pid: 7,
            since: now(),
            version: "0".into(),
            now,
            name_of: |uid| uid.to_string(),
            groups_of: |_, _, gid| vec![gid],
            uid: caller.uid,
            gid: caller.gid,
        };
        let options = OpenOptions {
            directory: directory.path().join("store"),
            create: true,
            holder: "a test".into(),
            cache_bytes: 1 << 20,
            hot_limit: HotLimit::Untouched,
            clock: now,
            signer: None,
        };
        let workspace = Workspace::open(options, Arc::new(Real), now(), &caller).unwrap();
        let me = Requester { uid: caller.uid, gid: caller.gid, pid: 1 };
        Self { fs: Filesystem::new(Arc::new(workspace), settings), me, _directory: directory }
    }

    /// A tree with a model `churn` that has the versions `v1` and `v2`.
    fn with_versions() -> Self {
        let tree = Self::new();
        tree.fs.make_directory(tree.me, ROOT, OsStr::new("churn"), 0o755).unwrap();
        for text in ["one", "two"] {
            tree.write_draft("same", "equal in all versions");
            tree.write_draft("file", text);
            tree.seal("sealed").unwrap();
        }
        tree
    }

    fn find(&self, path: &str) -> Option<Found> {
        let mut at = ROOT;
        let mut found = None;
        for name in path.split('/') {
            match self.fs.lookup(self.me, at, OsStr::new(name)).unwrap() {
                Lookup::Found(next) => (at, found) = (next.attributes.number, Some(next)),
                Lookup::Missing { .. } => return None,
            }
        }
        found
    }

    fn number(&self, path: &str) -> u64 {
        if path.is_empty() {
            return ROOT;
        }
        self.find(path).unwrap_or_else(|| panic!("{path} is there")).attributes.number
    }

    fn write_draft(&self, name: &str, text: &str) {
        let draft = self.number("churn/draft");
        let flags = libc::O_WRONLY | libc::O_CREAT;
        let name = OsStr::new(name);
        let (_, opened) = self.fs.create(self.me, draft, name, 0o644, flags).unwrap();
        let written = self.fs.write(self.me, opened.handle, 0, text.as_bytes()).unwrap();
        assert!(matches!(written, Written::Done(bytes) if bytes == text.len()), "{written:?}");
        drop(opened.backing);
        self.fs.release(opened.handle);
    }

    fn open(&self, path: &str, flags: i32) -> Opened {
        let opening = self.fs.open(self.me, self.number(path), flags).unwrap();
        opening.wait(&self.fs).unwrap()
    }

    /// Writes a command; the answer's line.
    fn seal(&self, command: &str) -> Result<String, FsError> {
        let opened = self.open("churn/snapshot", libc::O_RDWR);
        match self.fs.write(self.me, opened.handle, 0, command.as_bytes())? {
            Written::Pending(pending) => assert_eq!(pending.wait()?, command.len()),
            Written::Done(bytes) => assert_eq!(bytes, command.len()),
        }
        let mut line = vec![0; 4_096];
        let count = self.fs.read(opened.handle, 0, Reader::Program, &mut line).unwrap();
        self.fs.release(opened.handle);
        line.truncate(count);
        Ok(String::from_utf8(line).unwrap())
    }

    fn text(&self, path: &str) -> String {
        let opened = self.open(path, libc::O_RDONLY);
        let mut text = vec![0; 65_536];
        let count = self.fs.read(opened.handle, 0, Reader::PageCache, &mut text).unwrap();
        self.fs.release(opened.handle);
        text.truncate(count);
        String::from_utf8(text).unwrap()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let opened = self.fs.open_directory(self.me, self.number(path)).unwrap();
        let mut names = Vec::new();
        let mut take = |entry: &Entry<'_>| {
            names.push(entry.name.to_str().unwrap().to_owned());
            Flow::More
        };
        self.fs.list(opened.handle, 0, Detail::Names, &mut take).unwrap();
        self.fs.release(opened.handle);
        names.sort();
        names
    }

    fn link(&self, name: &str, target: &str) -> Result<Found, FsError> {
        let (name, target) = (OsStr::new(name), OsStr::new(target));
        self.fs.symlink(self.me, self.number("churn"), name, target)
    }

    fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), FsError> {
        let place = |path: &'static str, name| (self.number(path), OsStr::new(name));
        let (from, to) =
            (place("churn", from.to_owned().leak()), place("churn", to.to_owned().leak()));
        self.fs.rename(self.me, from, to, mode)
    }

    fn target(&self, path: &str) -> OsString {
        self.fs.readlink(self.number(path)).unwrap()
    }
}

#[test]
fn a_draft_becomes_a_version_that_reads_back() {
    let tree = Tree::with_versions();
    assert_eq!(tree.text("churn/v1/file"), "one");
    assert_eq!(tree.text("churn/v2/file"), "two");
    assert_eq!(tree.names("churn/draft"), [".", ".."]);
    let expected = [".", "..", "draft", "latest", "snapshot", "v1", "v2"];
    assert_eq!(tree.names("churn"), expected);
    assert_eq!(tree.target("churn/latest"), "v2");
    let error = tree.seal("nothing there").unwrap_err();
    assert_eq!(error.errno(), Errno::ENODATA, "{error}");
    assert!(tree.text("churn/.modelfs/why").contains("ENODATA"));
}

#[test]
fn an_open_file_of_the_draft_holds_a_seal_up() {
    let tree = Tree::with_versions();
    tree.write_draft("busy", "x");
    let opened = tree.open("churn/draft/busy", libc::O_RDWR);
    let error = tree.seal("too early").unwrap_err();
    assert_eq!(error.errno(), Errno::EBUSY, "{error}");
    assert!(error.explanation().contains("busy"), "{error}");
    drop(opened.backing);
    tree.fs.release(opened.handle);
    let line = tree.seal("now").unwrap();
    assert!(line.contains("\"version\":\"v3\""), "{line}");
}

#[test]
fn nothing_below_a_version_changes() {
    let tree = Tree::with_versions();
    let (me, name) = (tree.me, OsStr::new("new"));
    let (version, file) = (tree.number("churn/v1"), tree.number("churn/v1/file"));
    let old = OsStr::new("file");
    let mode = Changes { mode: Some(0o777), ..Changes::default() };
    let draft = tree.number("churn/draft");
    let fs = &tree.fs;
    let errors = [
        fs.make_directory(me, version, name, 0o755).unwrap_err(),
        fs.make_node(me, version, name, libc::S_IFIFO, 0).unwrap_err(),
        fs.symlink(me, version, name, OsStr::new("v1")).unwrap_err(),
        fs.create(me, version, name, 0o644, libc::O_RDWR).unwrap_err(),
        fs.link(tree.me, file, version, name).unwrap_err(),
        fs.unlink(me, version, old).unwrap_err(),
        fs.remove_directory(me, version, old).unwrap_err(),
        fs.remove_directory(me, tree.number("churn"), OsStr::new("v1")).unwrap_err(),
        fs.rename(me, (version, old), (version, name), RenameMode::Replace).unwrap_err(),
        fs.rename(me, (version, old), (draft, name), RenameMode::Replace).unwrap_err(),
        fs.rename(me, (draft, name), (version, old), RenameMode::Replace).unwrap_err(),
        fs.set_attributes(me, file, &mode).unwrap_err(),
        fs.set_attributes(me, version, &mode).unwrap_err(),
        fs.open(tree.me, file, libc::O_WRONLY).unwrap_err(),
        fs.open(tree.me, file, libc::O_RDONLY | libc::O_TRUNC).unwrap_err(),
        fs.refuse_attribute(file),
        fs.refuse_attribute(version),
        fs.open(tree.me, tree.number(".modelfs/why"), libc::O_WRONLY).unwrap_err(),
        fs.unlink(me, tree.number(".live/prod"), name).unwrap_err(),
    ];
    for (index, error) in errors.iter().enumerate() {
        assert_eq!(error.errno(), Errno::EROFS, "{index}: {error}");
    }
}

#[test]
fn an_alias_moves_by_links_and_renames() {
    let tree = Tree::with_versions();
    let first = tree.link("prod", "v1").unwrap().attributes.number;
    assert_eq!(tree.link("prod", "v2").unwrap_err().errno(), Errno::EEXIST);
    tree.link("CuA1b2C3", "v2").unwrap();
    tree.rename("CuA1b2C3", "prod", RenameMode::Replace).unwrap();
    assert_eq!(tree.target("churn/prod"), "v2");
    assert_ne!(tree.number("churn/prod"), first, "a fresh inode after each move");
    assert!(tree.find("churn/CuA1b2C3").is_none());
    tree.link("next", "../churn/v1").unwrap();
    tree.rename("next", "prod", RenameMode::KeepExisting).unwrap_err();
    tree.rename("next", "prod", RenameMode::Exchange).unwrap();
    assert_eq!((tree.target("churn/prod"), tree.target("churn/next")), ("v1".into(), "v2".into()));
    tree.rename("next", "prod", RenameMode::Replace).unwrap();
    assert_eq!(tree.target("churn/prod"), "v2");
    assert!(tree.find("churn/next").is_none());
    tree.link(".t", "v1").unwrap();
    tree.rename(".t", "prod", RenameMode::Exchange).unwrap();
    assert_eq!((tree.target("churn/prod"), tree.target("churn/.t")), ("v1".into(), "v2".into()));
    tree.fs.unlink(tree.me, tree.number("churn"), OsStr::new("prod")).unwrap();
    assert!(tree.find("churn/prod").is_none());
}

#[test]
fn what_is_no_alias_is_refused_with_the_right_errno() {
    let tree = Tree::with_versions();
    let errno = |result: Result<Found, FsError>| result.unwrap_err().errno();
    for (name, target, expected) in [
        ("prod", "v9", Errno::ENOENT),
        ("prod", "v0", Errno::ENOENT),
        ("prod", "../other/v1", Errno::ENOENT),
        ("prod", "/etc/passwd", Errno::EINVAL),
        ("prod", "draft", Errno::EINVAL),
        ("v7", "v1", Errno::EPERM),
        ("latest", "v1", Errno::EPERM),
        (".t", "v9", Errno::ENOENT),
    ] {
        assert_eq!(errno(tree.link(name, target)), expected, "{name} -> {target}");
    }
    tree.link(".t", "v1").unwrap();
    for (from, to, expected) in [
        (".t", "a b", Errno::EINVAL),
        (".t", "v1", Errno::EROFS),
        (".t", "v9", Errno::EPERM),
        (".t", "latest", Errno::EPERM),
        ("draft", "other", Errno::EPERM),
        ("v1", "v9", Errno::EROFS),
        ("nothing", "prod", Errno::ENOENT),
    ] {
        let error = tree.rename(from, to, RenameMode::Replace).unwrap_err();
        assert_eq!(error.errno(), expected, "{from} to {to}: {error}");
    }
}

#[test]
fn a_live_view_follows_the_alias_and_what_is_open_does_not() {
    let tree = Tree::with_versions();
    assert_eq!(tree.names(".live/prod"), [".", ".."], "empty, but there");
    assert_eq!(tree.names("churn/.live/prod"), [".", ".."]);
    assert!(tree.find(".live/v1").is_none());
    tree.link("prod", "v1").unwrap();
    let (view, old) = (tree.number(".live/prod"), tree.number(".live/prod/churn"));
    tree.link(".t", "v2").unwrap();
    tree.rename(".t", "prod", RenameMode::Replace).unwrap();
    assert_eq!(tree.number(".live/prod"), view);
    assert_ne!(tree.number(".live/prod/churn"), old);
    assert_eq!(tree.text(".live/prod/churn/file"), "two");
    assert_eq!(tree.text("churn/.live/prod/file"), "two");
    let Lookup::Found(kept) = tree.fs.lookup(tree.me, old, OsStr::new("file")).unwrap() else {
        panic!("the open directory lost its file");
    };
    assert_eq!(kept.attributes.number, tree.number("churn/v1/file"));
}

#[test]
fn equal_files_share_a_number_and_directories_do_not() {
    let tree = Tree::with_versions();
    tree.link("prod", "v1").unwrap();
    let numbers = ["churn/v1", "churn/v2", ".live/prod/churn", "churn/.live/prod"];
    let mut numbers = numbers.map(|path| tree.number(path)).to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
    let file = tree.number("churn/v1/file");
    assert_eq!(file, tree.number(".live/prod/churn/file"));
    assert_ne!(file, tree.number("churn/v2/file"));
}

#[test]
fn only_what_never_changes_is_kept_by_the_kernel() {
    let tree = Tree::with_versions();
    tree.link("prod", "v1").unwrap();
    let ttl = |path: &str| tree.find(path).unwrap().entry_ttl.is_zero();
    for path in ["churn/prod", "churn/latest", "churn/draft", ".live/prod/churn"] {
        assert!(ttl(path), "{path}");
    }
    for path in ["churn", "churn/v1", "churn/v1/file", ".live/prod/churn/file", ".live/prod"] {
        assert!(!ttl(path), "{path}");
    }
    let missing =
        |path: &str| tree.fs.lookup(tree.me, tree.number(path), OsStr::new("none")).unwrap();
    assert_eq!(missing("churn/v1"), Lookup::Missing { ttl: YEAR });
    for path in ["", "churn", "churn/draft", ".live/prod"] {
        assert_eq!(missing(path), Lookup::Missing { ttl: Duration::ZERO }, "{path}");
    }
}

#[test]
fn access_is_kept_and_what_is_not_given_stays() {
    let tree = Tree::with_versions();
    let number = tree.number("churn");
    let changes = Changes { mode: Some(0o40_750), ..Changes::default() };
    let (after, _) = tree.fs.set_attributes(tree.me, number, &changes).unwrap();
    assert_eq!((after.mode, after.uid), (0o750, tree.me.uid));
    tree.link("prod", "v1").unwrap();
    let live = tree.find(".live/prod/churn").unwrap();
    assert_eq!((live.attributes.mode, live.attribute_ttl), (0o550, Duration::ZERO));
    assert_eq!(tree.find("churn/snapshot").unwrap().attributes.mode, 0o640);
    assert_eq!(tree.find("churn/draft").unwrap().attributes.mode, 0o750);
    let truncate = Changes { bytes: Some(0), ..Changes::default() };
    tree.fs.set_attributes(tree.me, tree.number("churn/snapshot"), &truncate).unwrap();
}

#[test]
fn a_model_is_removed_only_while_it_never_had_a_version() {
    let tree = Tree::with_versions();
    let remove = |name: &str| tree.fs.remove_directory(tree.me, ROOT, OsStr::new(name));
    assert_eq!(remove("churn").unwrap_err().errno(), Errno::ENOTEMPTY);
    assert_eq!(remove("none").unwrap_err().errno(), Errno::ENOENT);
    let made = tree.fs.make_directory(tree.me, ROOT, OsStr::new("young"), 0o755).unwrap();
    remove("young").unwrap();
    assert!(tree.find("young").is_none());
    let again = tree.fs.make_directory(tree.me, ROOT, OsStr::new("young"), 0o755).unwrap();
    assert_ne!(made.attributes.number, again.attributes.number, "another one of that name");
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let tree = Tree::with_versions();
    let directory = tree.number("churn/v1");
    let opened = tree.fs.open_directory(tree.me, directory).unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    for _ in 0..10 {
        let mut taken = None;
        let mut take = |entry: &Entry<'_>| match taken {
            Some(_) => Flow::Full,
            None => {
                taken = Some((entry.name.to_owned(), entry.next));
                Flow::More
            }
        };
        tree.fs.list(opened.handle, offset, Detail::Attributes, &mut take).unwrap();
        let Some((name, next)) = taken else { break };
        names.push(name);
        offset = next;
    }
    assert_eq!(names, [".", "..", "file", "metadata.json", "same"]);
}
