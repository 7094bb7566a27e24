//! What a draft promises to programs, asked of the tree directly, without a mount.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

const ME: Creator = Creator { uid: 1234, gid: 4321 };
const RDWR: i32 = libc::O_RDWR;

/// A draft over a directory of its own, removed at the end.
struct Scratch {
    base: tempfile::TempDir,
    tree: DraftTree,
}

impl Scratch {
    fn new() -> Scratch {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("draft")).unwrap();
        let tree = DraftTree::open(&base.path().join("draft")).unwrap();
        Scratch { base, tree }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.base.path().join("draft").join(path)
    }

    fn at(&self, path: &str) -> NodeId {
        self.find(path).unwrap()
    }

    /// Looks up every component, as the kernel does.
    fn find(&self, path: &str) -> io::Result<NodeId> {
        let mut node = NodeId::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            node = self.tree.lookup(node, OsStr::new(name))?.0;
        }
        Ok(node)
    }

    fn find_directory(&self, path: &str) -> io::Result<NodeId> {
        let node = self.find(path)?;
        let is_directory = self.tree.status(node)?.kind() == EntryKind::Directory;
        if is_directory { Ok(node) } else { Err(error(libc::ENOTDIR)) }
    }

    fn create(&self, path: &str, content: &str) -> (NodeId, DraftFile) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let flags = RDWR | libc::O_EXCL;
        let created = self.tree.create(self.at(parent), OsStr::new(name), 0o640, flags, &ME);
        let (node, _, file) = created.unwrap();
        assert_eq!(file.write_at(content.as_bytes(), 0).unwrap(), content.len());
        (node, file)
    }

    fn make_directory(&self, path: &str) -> NodeId {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.tree.make_directory(self.at(parent), OsStr::new(name), 0o750, &ME).unwrap().0
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.tree.unlink(self.find(parent)?, OsStr::new(name))
    }

    fn rename(&self, from: &str, to: &str, flags: u32) -> io::Result<()> {
        let (parent, name) = from.rsplit_once('/').unwrap_or(("", from));
        let (new_parent, new_name) = to.rsplit_once('/').unwrap_or(("", to));
        let (parent, new_parent) = (self.find_directory(parent)?, self.find_directory(new_parent)?);
        self.tree.rename(parent, OsStr::new(name), new_parent, OsStr::new(new_name), flags)
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let file = self.tree.open_file(self.find(path)?, libc::O_RDONLY)?;
        Ok(content(&file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.tree.shared.nodes.lock().check();
    }
}

fn content(file: &DraftFile) -> String {
    let mut buffer = vec![0; 4096];
    let count = file.read_at(&mut buffer, 0).unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[track_caller]
fn refused<T>(result: io::Result<T>, errno: i32) {
    let got = result.err().map(|error| error.raw_os_error());
    assert_eq!(got, Some(Some(errno)), "{}", io::Error::from_raw_os_error(errno));
}

#[test]
fn a_file_open_while_created_renamed_and_unlinked_stays_the_same_file() {
    let scratch = Scratch::new();
    let (node, file) = scratch.create("a", "one");
    scratch.rename("a", "b", 0).unwrap();
    assert_eq!(scratch.at("b"), node);
    scratch.tree.forget(node, 1);
    scratch.unlink("b").unwrap();
    // Unlinked: by its descriptor, for attributes and for another open, as in /proc/self/fd.
    assert_eq!(scratch.tree.status(node).unwrap().nlink, 0);
    let change = SetAttributes { mode: Some(0o600), size: Some(2), ..Default::default() };
    let status = scratch.tree.set_attributes(node, &change).unwrap();
    assert_eq!((status.permissions(), status.size), (0o600, 2));
    assert_eq!(content(&scratch.tree.open_file(node, libc::O_RDONLY).unwrap()), "on");
    refused(scratch.tree.link(node, NodeId::ROOT, OsStr::new("again")), libc::ENOENT);
    let (other, _) = scratch.create("b", "two");
    assert_ne!(other, node);
    assert_eq!(content(&file), "on");
    drop(file);
    assert_eq!(scratch.tree.status(node).unwrap().nlink, 0, "until it is forgotten");
    scratch.tree.forget(node, 1);
    refused(scratch.tree.status(node), libc::ESTALE);
}

#[test]
fn a_file_that_is_replaced_after_its_look_up_can_still_be_opened() {
    let scratch = Scratch::new();
    drop(scratch.create("target", "old"));
    let found = scratch.at("target");
    drop(scratch.create("new", "new"));
    scratch.rename("new", "target", 0).unwrap();
    assert_eq!(content(&scratch.tree.open_file(found, libc::O_RDONLY).unwrap()), "old");
    assert_eq!(content(&scratch.tree.open_file(scratch.at("target"), 0).unwrap()), "new");
    let removed = scratch.at("target");
    scratch.unlink("target").unwrap();
    assert_eq!(scratch.tree.status(removed).unwrap().nlink, 0);
    assert_eq!(content(&scratch.tree.open_file(removed, RDWR).unwrap()), "new");
    for node in [found, removed] {
        scratch.tree.forget(node, u64::MAX);
        refused(scratch.tree.status(node), libc::ESTALE);
    }
}

#[test]
fn nodes_go_when_they_are_forgotten_and_closed() {
    let scratch = Scratch::new();
    scratch.make_directory("d");
    let (node, file) = scratch.create("d/f", "x");
    // Parents first, as after a crash of order: the child keeps them.
    for _ in 0..2 {
        scratch.tree.forget(scratch.at("d"), 2);
    }
    assert_eq!(scratch.tree.status(node).unwrap().size, 1);
    scratch.tree.forget(node, 1);
    assert_eq!(scratch.tree.status(node).unwrap().size, 1, "kept by the open file");
    drop(file);
    refused(scratch.tree.status(node), libc::ESTALE);
    let count = scratch.tree.shared.nodes.lock().node_count();
    assert!(count <= 2, "{count} nodes left");
}

#[test]
fn a_hard_link_outlives_the_other_name() {
    let scratch = Scratch::new();
    let (node, file) = scratch.create("a", "one");
    drop(file);
    let (linked, status) = scratch.tree.link(node, NodeId::ROOT, OsStr::new("b")).unwrap();
    assert_eq!((linked, status.nlink), (node, 2));
    // Two names of one file: rename does nothing and says so to nobody.
    scratch.rename("a", "b", 0).unwrap();
    assert_eq!(scratch.read("a").unwrap(), "one");
    scratch.unlink("a").unwrap();
    assert_eq!(scratch.tree.status(node).unwrap().nlink, 1);
    assert_eq!(scratch.read("b").unwrap(), "one");
    assert_eq!(scratch.at("b"), node);
    scratch.create("c", "other");
    scratch.rename("c", "b", 0).unwrap();
    assert_eq!(scratch.tree.status(node).unwrap().nlink, 0, "until it is forgotten");
    scratch.tree.forget(node, u64::MAX);
    refused(scratch.tree.status(node), libc::ESTALE);
}

#[test]
fn a_renamed_directory_takes_its_open_children_along() {
    let scratch = Scratch::new();
    let top = scratch.make_directory("top");
    scratch.make_directory("top/sub");
    let (node, file) = scratch.create("top/sub/f", "one");
    scratch.make_directory("elsewhere");
    scratch.rename("top", "elsewhere/moved", 0).unwrap();
    assert_eq!(scratch.tree.status(node).unwrap().size, 3);
    assert_eq!(scratch.at("elsewhere/moved"), top);
    assert_eq!(scratch.at("elsewhere/moved/sub/f"), node);
    file.write_at(b"two", 0).unwrap();
    assert_eq!(scratch.read("elsewhere/moved/sub/f").unwrap(), "two");
    refused(scratch.rename("elsewhere", "elsewhere/moved/sub/x", 0), libc::EINVAL);
    refused(scratch.tree.remove_directory(top, OsStr::new("sub")), libc::ENOTEMPTY);
    refused(scratch.unlink("elsewhere/moved"), libc::EISDIR);
}

#[test]
fn exchange_and_noreplace_do_what_they_say() {
    let scratch = Scratch::new();
    let (a, _file) = scratch.create("a", "one");
    let d = scratch.make_directory("d");
    let (inner, _inner_file) = scratch.create("d/inner", "two");
    refused(scratch.rename("a", "d", libc::RENAME_NOREPLACE), libc::EEXIST);
    scratch.rename("a", "d", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!((scratch.at("d"), scratch.at("a"), scratch.at("a/inner")), (a, d, inner));
    assert_eq!(scratch.tree.status(inner).unwrap().size, 3);
    refused(scratch.rename("a", "none", libc::RENAME_EXCHANGE), libc::ENOENT);
    refused(scratch.rename("a", "x", libc::RENAME_WHITEOUT), libc::EINVAL);
    refused(scratch.rename("none", "x", 0), libc::ENOENT);
}

#[test]
fn freezing_is_refused_with_the_names_of_what_is_open_for_writing() {
    let scratch = Scratch::new();
    scratch.make_directory("d");
    scratch.make_directory("e");
    let (node, file) = scratch.create("d/new\nline", "x");
    let reader = scratch.tree.open_file(node, libc::O_RDONLY).unwrap();
    let check = |sub: &str, expected: &[&str]| {
        let got = scratch.tree.freeze(Path::new(sub));
        let Err(FreezeError::Busy { paths }) = got else {
            assert!(expected.is_empty() && got.is_ok(), "{sub}: {got:?}");
            return;
        };
        assert_eq!(paths, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{sub}");
    };
    check("", &["d/new\nline"]);
    check("d", &["d/new\nline"]);
    check("e", &[]);
    let text = scratch.tree.freeze(Path::new("")).unwrap_err().to_string();
    assert!(
        text.contains("1 file is open for writing") && text.contains("`d/new\\nline`"),
        "{text}"
    );
    // A second name in `e` counts, whether or not anybody told us of it.
    fs::hard_link(scratch.path("d/new\nline"), scratch.path("e/hidden")).unwrap();
    check("e", &["d/new\nline"]);
    scratch.at("e/hidden");
    check("e", &["e/hidden"]);
    // What has no name any more is in no tree.
    scratch.unlink("e/hidden").unwrap();
    scratch.unlink("d/new\nline").unwrap();
    check("", &[]);
    drop((file, reader));
    let got = scratch.tree.freeze(Path::new("none")).unwrap_err();
    assert!(matches!(got, FreezeError::NotFound { .. }), "{got:?}");
    let got = scratch.tree.freeze(Path::new("../x")).unwrap_err();
    assert!(matches!(got, FreezeError::NotFound { .. }), "{got:?}");
}

#[test]
fn nothing_below_a_freeze_changes_and_reads_go_on() {
    let scratch = Scratch::new();
    scratch.make_directory("d");
    scratch.make_directory("d/sub");
    let d = scratch.at("d");
    let (node, file) = scratch.create("d/f", "one");
    let (outside, outside_file) = scratch.create("g", "two");
    drop((file, outside_file));
    let tree = &scratch.tree;
    let name = OsStr::new("x");
    let frozen = tree.freeze(Path::new("d")).unwrap();
    assert_eq!(frozen.path(), scratch.path("d"));
    let touch = SetAttributes { mtime: Some(SetTime::Now), ..Default::default() };
    let cut = SetAttributes { size: Some(0), ..Default::default() };
    let errno = libc::EBUSY;
    {
        refused(tree.create(d, name, 0o600, RDWR, &ME).map(|_| ()), errno);
        refused(tree.create(d, OsStr::new("f"), 0o600, RDWR, &ME).map(|_| ()), errno);
        refused(tree.make_directory(d, name, 0o700, &ME), errno);
        refused(tree.make_node(d, name, libc::S_IFIFO | 0o600, 0, &ME), errno);
        refused(tree.symlink(d, name, name, &ME), errno);
        refused(tree.link(outside, d, name), errno);
        refused(tree.link(node, NodeId::ROOT, name), errno);
        refused(tree.set_attributes(node, &touch), errno);
        refused(tree.set_attributes(node, &cut), errno);
        refused(tree.set_attributes(d, &touch), errno);
        refused(tree.open_file(node, libc::O_WRONLY), errno);
        refused(tree.open_file(node, libc::O_RDONLY | libc::O_TRUNC), errno);
        refused(scratch.unlink("d/f"), errno);
        refused(tree.remove_directory(d, OsStr::new("sub")), errno);
        refused(scratch.rename("d", "moved", 0), errno);
        refused(scratch.rename("d/f", "f", 0), errno);
        refused(scratch.rename("g", "d/f", 0), errno);
        refused(scratch.rename("g", "d", libc::RENAME_EXCHANGE), errno);
        refused(tree.remove_directory(NodeId::ROOT, OsStr::new("d")), errno);
    }
    assert_eq!(scratch.read("d/f").unwrap(), "one");
    assert_eq!(tree.list(d).unwrap().len(), 2);
    let overlapping = tree.freeze(Path::new("")).unwrap_err();
    assert!(matches!(overlapping, FreezeError::Frozen { .. }), "{overlapping:?}");
    // The rest of the draft goes on.
    scratch.create("h", "three");
    tree.set_attributes(outside, &touch).unwrap();
    drop(frozen);
    tree.set_attributes(node, &touch).unwrap();
    scratch.unlink("d/f").unwrap();
}

#[test]
fn a_consumed_draft_leaves_an_empty_one_and_open_readers_go_on() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    let change = SetAttributes {
        mode: Some(0o2770),
        uid: at::is_root().then_some(77),
        gid: at::is_root().then_some(88),
        ..Default::default()
    };
    tree.set_attributes(NodeId::ROOT, &change).unwrap();
    let before = tree.status(NodeId::ROOT).unwrap();
    let d = scratch.make_directory("d");
    let (node, file) = scratch.create("d/f", "one");
    drop(file);
    let (closed, closed_file) = scratch.create("g", "two");
    drop(closed_file);
    let reader = tree.open_file(node, libc::O_RDONLY).unwrap();
    let sealed = scratch.base.path().join("sealed");
    tree.freeze(Path::new("")).unwrap().consume(&sealed).unwrap();
    assert!(tree.is_empty().unwrap());
    let after = tree.status(NodeId::ROOT).unwrap();
    assert_ne!(after.ino, before.ino);
    let owner = |status: &Status| (status.mode, status.uid, status.gid);
    assert_eq!(owner(&after), owner(&before));
    assert_eq!(fs::read(sealed.join("d/f")).unwrap(), b"one");
    assert_eq!(content(&reader), "one");
    assert_eq!(tree.status(node).unwrap().size, 3, "by the open descriptor");
    refused(tree.status(d), libc::ESTALE);
    refused(tree.list(d), libc::ESTALE);
    refused(tree.status(closed), libc::ESTALE);
    refused(tree.open_file(closed, libc::O_RDONLY), libc::ESTALE);
    refused(tree.lookup(d, OsStr::new("f")), libc::ESTALE);
    refused(tree.lookup(NodeId::ROOT, OsStr::new("d")), libc::ENOENT);
    fs::remove_dir_all(&sealed).unwrap();
    // Inode numbers are given out again: they must not lead to the old nodes (D2).
    for index in 0..20 {
        let (fresh, _) = scratch.create(&format!("new{index}"), "new");
        assert!(![node, closed, d].contains(&fresh));
    }
    assert_eq!(content(&reader), "one");
}

#[test]
fn a_consumed_subdirectory_is_gone_and_the_rest_stays() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    scratch.make_directory("keep");
    scratch.make_directory("d");
    scratch.make_directory("d/sub");
    let (inside, file) = scratch.create("d/sub/f", "one");
    drop(file);
    let (linked, file) = scratch.create("keep/f", "two");
    drop(file);
    tree.link(linked, scratch.at("d/sub"), OsStr::new("second")).unwrap();
    let sealed = scratch.base.path().join("sealed");
    refused(tree.freeze(Path::new("d/sub")).unwrap().consume(&scratch.path("keep")), libc::EEXIST);
    assert_eq!(scratch.read("d/sub/f").unwrap(), "one", "a failed consume changes nothing");
    tree.freeze(Path::new("./d/sub/")).unwrap().consume(&sealed).unwrap();
    assert_eq!(fs::read(sealed.join("second")).unwrap(), b"two");
    refused(tree.status(inside), libc::ESTALE);
    refused(scratch.find("d/sub"), libc::ENOENT);
    assert_eq!(scratch.at("keep/f"), linked);
    assert_eq!(scratch.read("keep/f").unwrap(), "two");
    scratch.make_directory("d/sub");
}

#[test]
fn names_of_any_bytes_are_kept_and_names_that_are_paths_are_refused() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    let longest = vec![b'n'; 255];
    for bytes in [&b"new\nline"[..], b"-rf", b"\xff\xfe", b" ", b"...", &longest] {
        let name = OsStr::from_bytes(bytes);
        tree.create(NodeId::ROOT, name, 0o600, RDWR, &ME).unwrap();
        let mut listed = tree.list(NodeId::ROOT).unwrap().into_iter();
        assert!(listed.any(|entry| entry.name == name), "{name:?}");
        tree.unlink(NodeId::ROOT, name).unwrap();
    }
    let too_long = vec![b'n'; 256];
    let cases = [
        (&b""[..], libc::ENOENT),
        (b".", libc::EINVAL),
        (b"..", libc::EINVAL),
        (b"a/b", libc::EINVAL),
        (b"/", libc::EINVAL),
        (b"a\0b", libc::EINVAL),
        (&too_long, libc::ENAMETOOLONG),
    ];
    for (bytes, errno) in cases {
        let name = OsStr::from_bytes(bytes);
        refused(tree.lookup(NodeId::ROOT, name), errno);
        refused(tree.make_directory(NodeId::ROOT, name, 0o700, &ME), errno);
        refused(tree.rename(NodeId::ROOT, name, NodeId::ROOT, OsStr::new("x"), 0), errno);
        refused(tree.unlink(NodeId::ROOT, name), errno);
    }
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_refused_where_it_gets_too_long() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    let name = OsString::from("n".repeat(255));
    let mut node = NodeId::ROOT;
    let mut depth = 0;
    let errno = loop {
        match tree.make_directory(node, &name, 0o700, &ME) {
            Ok((made, _)) => node = made,
            Err(error) => break error.raw_os_error(),
        }
        depth += 1;
    };
    assert_eq!((errno, depth), (Some(libc::ENAMETOOLONG), 16));
    // Below another directory the deepest ones are out of reach, and back again they are not.
    scratch.make_directory("a");
    let top = tree.lookup(NodeId::ROOT, &name).unwrap().0;
    let a = scratch.at("a");
    tree.rename(NodeId::ROOT, &name, a, &name, 0).unwrap();
    refused(tree.status(node), libc::ENAMETOOLONG);
    assert_eq!(tree.lookup(a, &name).unwrap().0, top);
    tree.rename(a, &name, NodeId::ROOT, &name, 0).unwrap();
    assert_eq!(tree.status(node).unwrap().kind(), EntryKind::Directory);
}

#[test]
fn links_are_objects_and_never_followed() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    fs::write(scratch.base.path().join("secret"), "secret").unwrap();
    let (link, status) =
        tree.symlink(NodeId::ROOT, OsStr::new("l"), OsStr::new("../secret"), &ME).unwrap();
    assert_eq!((status.kind(), status.size), (EntryKind::Symlink, 9));
    assert_eq!(tree.readlink(link).unwrap(), "../secret");
    refused(tree.open_file(link, libc::O_RDONLY), libc::ELOOP);
    refused(tree.create(NodeId::ROOT, OsStr::new("l"), 0o600, RDWR, &ME).map(|_| ()), libc::ELOOP);
    let change = |mode, size| SetAttributes { mode, size, ..Default::default() };
    refused(tree.set_attributes(link, &change(Some(0o777), None)), libc::EOPNOTSUPP);
    refused(tree.set_attributes(link, &change(None, Some(0))), libc::ELOOP);
    refused(tree.lookup(link, OsStr::new("x")), libc::ENOTDIR);
    assert_eq!(fs::read(scratch.base.path().join("secret")).unwrap(), b"secret");
    // A directory that became a link behind our back leads nowhere.
    let d = scratch.make_directory("d");
    let (f, file) = scratch.create("d/f", "one");
    drop(file);
    fs::rename(scratch.path("d"), scratch.path("real")).unwrap();
    std::os::unix::fs::symlink("real", scratch.path("d")).unwrap();
    refused(tree.status(f), libc::ESTALE);
    refused(tree.list(d), libc::ESTALE);
}

#[test]
fn a_file_replaced_behind_our_back_is_stale_and_never_the_other_file() {
    let scratch = Scratch::new();
    let (node, file) = scratch.create("f", "one");
    drop(file);
    fs::write(scratch.path("other"), "other").unwrap();
    fs::rename(scratch.path("other"), scratch.path("f")).unwrap();
    let cut = SetAttributes { size: Some(0), ..Default::default() };
    refused(scratch.tree.status(node), libc::ESTALE);
    refused(scratch.tree.set_attributes(node, &cut), libc::ESTALE);
    refused(scratch.tree.open_file(node, RDWR | libc::O_TRUNC), libc::ESTALE);
    assert_eq!(scratch.read("f").unwrap(), "other");
}

#[test]
fn attributes_are_set_as_on_the_backing_file_system() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    let (node, file) = scratch.create("f", "one");
    drop(file);
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let change = SetAttributes { mtime: Some(SetTime::At(time)), ..Default::default() };
    let before = tree.status(node).unwrap();
    let after = tree.set_attributes(node, &change).unwrap();
    assert_eq!((after.mtime, after.atime), (time, before.atime));
    let grown = SetAttributes { size: Some(1 << 40), ..Default::default() };
    assert_eq!(tree.set_attributes(node, &grown).unwrap().size, 1 << 40);
    let absurd = SetAttributes { size: Some(u64::MAX), ..Default::default() };
    refused(tree.set_attributes(node, &absurd), libc::EFBIG);
    let directory = scratch.make_directory("d");
    refused(tree.set_attributes(directory, &grown), libc::EISDIR);
    let set_id = SetAttributes { mode: Some(0o6755), ..Default::default() };
    assert_eq!(tree.set_attributes(node, &set_id).unwrap().permissions(), 0o6755);
    if at::is_root() {
        let owner = SetAttributes { uid: Some(5), ..Default::default() };
        let status = tree.set_attributes(node, &owner).unwrap();
        assert_eq!((status.uid, status.permissions()), (5, 0o755), "set-id bits are dropped");
        let both = SetAttributes { gid: Some(6), mode: Some(0o4755), ..Default::default() };
        let status = tree.set_attributes(node, &both).unwrap();
        assert_eq!((status.gid, status.permissions()), (6, 0o4755));
    }
}

#[test]
fn new_objects_belong_to_their_creator_and_inherit_from_a_set_group_id_directory() {
    let scratch = Scratch::new();
    let tree = &scratch.tree;
    if !at::is_root() {
        println!("not root: nothing can be given away, this test did not run");
        return;
    }
    let owner = |status: &Status| (status.uid, status.gid, status.permissions());
    let name = OsStr::new("x");
    let plain = scratch.make_directory("plain");
    let (_, status, _file) = tree.create(plain, name, 0o4777, RDWR, &ME).unwrap();
    assert_eq!(owner(&status), (1234, 4321, 0o4777), "whatever the umask, and after the chown");
    let (_, status) = tree.symlink(plain, OsStr::new("l"), name, &ME).unwrap();
    assert_eq!((status.uid, status.gid), (1234, 4321));
    let group = scratch.make_directory("group");
    let change = SetAttributes { mode: Some(0o2775), gid: Some(99), ..Default::default() };
    tree.set_attributes(group, &change).unwrap();
    let (_, status, _file) = tree.create(group, name, 0o664, RDWR, &ME).unwrap();
    assert_eq!(owner(&status), (1234, 99, 0o664));
    let (_, status) = tree.make_directory(group, OsStr::new("d"), 0o755, &ME).unwrap();
    assert_eq!(owner(&status), (1234, 99, 0o2755));
    let fifo = libc::S_IFIFO | 0o600;
    let (_, status) = tree.make_node(group, OsStr::new("p"), fifo, 0, &ME).unwrap();
    assert_eq!((owner(&status), status.kind()), ((1234, 99, 0o600), EntryKind::Fifo));
}

#[test]
fn open_files_append_allocate_seek_and_copy() {
    let scratch = Scratch::new();
    let (node, file) = scratch.create("f", "one");
    let append = scratch.tree.open_file(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
    append.write_at(b"two", 0).unwrap();
    assert_eq!(content(&file), "onetwo");
    refused(append.read_at(&mut [0], 0), libc::EBADF);
    file.set_len(1 << 20).unwrap();
    assert_eq!(file.seek_hole(0).unwrap(), 4096.min(file.seek_hole(0).unwrap()));
    refused(file.seek_data(1 << 20), libc::ENXIO);
    file.allocate(0, 0, 2 << 20).unwrap();
    assert_eq!(file.status().unwrap().size, 2 << 20);
    refused(file.allocate(0x4000_0000, 0, 1), libc::EOPNOTSUPP);
    let (_, copy) = scratch.create("copy", "");
    assert_eq!(file.copy_range(3, &copy, 0, 3).unwrap(), 3);
    assert_eq!(content(&copy), "two");
    file.sync(true).unwrap();
    file.sync(false).unwrap();
    scratch.tree.sync_directory(NodeId::ROOT).unwrap();
    // O_CREAT without O_EXCL opens what is there; with O_EXCL it does not.
    let name = OsStr::new("copy");
    let opened = scratch.tree.create(NodeId::ROOT, name, 0o600, RDWR | libc::O_TRUNC, &ME);
    assert_eq!(content(&opened.unwrap().2), "");
    let exclusive = scratch.tree.create(NodeId::ROOT, name, 0o600, RDWR | libc::O_EXCL, &ME);
    refused(exclusive.map(|_| ()), libc::EEXIST);
    refused(scratch.tree.open_file(NodeId::ROOT, libc::O_RDONLY), libc::EISDIR);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).rotate_left(17) % limit
    }

    fn path(&mut self, own: &str) -> String {
        let names = ["a", "b", "c"];
        let depth = 1 + self.below(3);
        let parts = (0..depth).map(|_| names[self.below(3) as usize]).collect::<Vec<_>>();
        format!("{own}/{}", parts.join("/"))
    }
}

/// One random operation on the tree and the same on plain files; both must answer alike.
fn step(scratch: &Scratch, dice: &mut Dice, own: &str, model: &Path) {
    let (one, two) = (dice.path(own), dice.path(own));
    let (at_one, at_two) = (model.join(&one), model.join(&two));
    let (parent, name) = one.rsplit_once('/').unwrap();
    let name = OsStr::new(name);
    let tree = &scratch.tree;
    let (what, got, expected) = match dice.below(8) {
        0 => {
            let made = scratch
                .find(parent)
                .and_then(|parent| tree.make_directory(parent, name, 0o750, &ME));
            ("mkdir", made.map(|_| ()), fs::create_dir(&at_one))
        }
        1 | 2 => {
            let text = dice.below(1000).to_string();
            let flags = RDWR | libc::O_TRUNC;
            let file = scratch
                .find(parent)
                .and_then(|parent| tree.create(parent, name, 0o640, flags, &ME));
            let got = file.and_then(|file| file.2.write_at(text.as_bytes(), 0).map(|_| ()));
            ("write", got, fs::write(&at_one, &text))
        }
        3 => ("unlink", scratch.unlink(&one), fs::remove_file(&at_one)),
        4 => {
            let got = scratch.find(parent).and_then(|at| tree.remove_directory(at, name));
            ("rmdir", got, fs::remove_dir(&at_one))
        }
        5 => ("rename", scratch.rename(&one, &two, 0), fs::rename(&at_one, &at_two)),
        6 => {
            let got = scratch.find(&two).and_then(|node| {
                let parent = scratch.find(parent)?;
                tree.link(node, parent, name).map(|_| ())
            });
            ("link", got, fs::hard_link(&at_two, &at_one))
        }
        _ => {
            let change = SetAttributes { size: Some(dice.below(9)), ..Default::default() };
            let size = change.size.unwrap();
            let got = scratch.find(&one).and_then(|node| tree.set_attributes(node, &change));
            let opened = fs::File::options().write(true).open(&at_one);
            ("truncate", got.map(|_| ()), opened.and_then(|file| file.set_len(size)))
        }
    };
    let errno = |result: &io::Result<()>| result.as_ref().err().and_then(io::Error::raw_os_error);
    assert_eq!(errno(&got), errno(&expected), "{what} {one} {two}");
}

/// Every path below `root` with what it is and holds.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if metadata.is_dir() {
                open.push(path.clone());
            }
            let kind = metadata.permissions().mode() & libc::S_IFMT;
            let below = path.strip_prefix(root).unwrap().to_owned();
            found.insert(below, (kind, metadata.nlink(), content));
        }
    }
    found
}

#[test]
fn sixteen_threads_of_random_operations_do_what_plain_files_do() {
    let scratch = Scratch::new();
    let model = scratch.base.path().join("model");
    fs::create_dir(&model).unwrap();
    let rounds = 1_500;
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let own = format!("own{thread}");
            scratch.make_directory(&own);
            fs::create_dir(model.join(&own)).unwrap();
            let (scratch, model) = (&scratch, &model);
            scope.spawn(move || {
                let mut dice = Dice(thread);
                for _ in 0..rounds {
                    step(scratch, &mut dice, &own, model);
                }
            });
        }
    });
    assert_eq!(snapshot(&scratch.path("")), snapshot(&model));
}

#[test]
fn sixteen_threads_on_the_same_names_leave_every_node_where_it_says() {
    let scratch = Scratch::new();
    scratch.make_directory("own");
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let scratch = &scratch;
            scope.spawn(move || {
                let mut dice = Dice(1000 + thread);
                for _ in 0..1_000 {
                    storm(scratch, &mut dice);
                }
            });
        }
    });
    for path in snapshot(&scratch.path("")).into_keys() {
        let node = scratch.at(path.to_str().unwrap());
        let ino = fs::symlink_metadata(scratch.path(path.to_str().unwrap())).unwrap().ino();
        assert_eq!(scratch.tree.status(node).unwrap().ino, ino, "{path:?}");
    }
}

/// One operation among many threads; it may fail, but only as a file system may.
fn storm(scratch: &Scratch, dice: &mut Dice) {
    let (one, two) = (dice.path("own"), dice.path("own"));
    let (parent, name) = one.rsplit_once('/').unwrap();
    let name = OsStr::new(name);
    let tree = &scratch.tree;
    let result = match dice.below(8) {
        0 => {
            scratch.find(parent).and_then(|at| tree.make_directory(at, name, 0o750, &ME).map(drop))
        }
        1 | 2 => scratch.find(parent).and_then(|at| {
            let (_, _, file) = tree.create(at, name, 0o640, RDWR, &ME)?;
            file.write_at(b"text", 0).map(drop)
        }),
        3 => scratch.unlink(&one),
        4 => scratch.rename(&one, &two, libc::RENAME_EXCHANGE),
        5 => scratch.rename(&one, &two, 0),
        6 => scratch.find(&two).and_then(|node| {
            let made = tree.link(node, scratch.find(parent)?, name)?;
            tree.forget(made.0, dice.below(3));
            Ok(())
        }),
        _ => match tree.freeze(Path::new(&one)) {
            Ok(frozen) => {
                let mut before = snapshot(frozen.path());
                std::thread::yield_now();
                let mut after = snapshot(frozen.path());
                // A link count may fall meanwhile.
                before.values_mut().chain(after.values_mut()).for_each(|found| found.1 = 0);
                assert_eq!(before, after, "D3");
                Ok(())
            }
            Err(FreezeError::Io { source, .. }) => Err(source),
            Err(_) => Ok(()),
        },
    };
    let allowed = [
        libc::ENOENT,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::EEXIST,
        libc::ENOTEMPTY,
        libc::EINVAL,
        libc::EPERM,
        libc::ESTALE,
        libc::EBUSY,
    ];
    if let Err(error) = result {
        assert!(allowed.contains(&error.raw_os_error().unwrap()), "{error}");
    }
}
