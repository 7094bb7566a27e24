//! Which objects of a draft somebody knows: their names, references and open files.
//!
//! Only memory: no system call is made here. Invariant D1: a node that others name as parent stays
//! until they are gone. Invariant D2: an inode of the backing file system leads to a node only
//! while we know of no reason why its number could have been given to another object.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{NodeId, PATH_BYTES_MAX, error};
use crate::sys::at::{EntryKind, Status};

/// Most objects without a name that are kept reachable for callers who have not forgotten them.
const KEPT_COUNT_MAX: usize = 1_024;

/// An object of the backing file system.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Inode {
    dev: u64,
    ino: u64,
}

impl Inode {
    pub(super) fn of(status: &Status) -> Inode {
        Inode { dev: status.dev, ino: status.ino }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Name {
    parent: NodeId,
    name: Box<OsStr>,
}

#[derive(Debug)]
struct Opened {
    id: u64,
    file: Arc<File>,
    writable: bool,
}

/// Small, as there may be a million of them.
#[derive(Debug)]
struct Node {
    inode: Inode,
    kind: EntryKind,
    /// Those we were told of: at most one of a directory, any number of a file.
    names: Vec<Name>,
    /// How often a caller was given this node and has not forgotten it.
    references: u64,
    /// How many names have this node as parent.
    children: u32,
}

/// What is open for writing: where it is, as far as we know, and what it is open as.
pub(super) struct Writer {
    pub(super) paths: Vec<PathBuf>,
    pub(super) file: Arc<File>,
}

#[derive(Debug)]
pub(super) struct NodeTable {
    /// Dense: a hash table that has just grown has room for twice as many.
    nodes: IndexMap<NodeId, Node>,
    by_inode: HashMap<Inode, NodeId>,
    /// Of nodes that are open, how.
    opened: HashMap<NodeId, Vec<Opened>>,
    /// The way to an object that lost its last name after it was looked up and before it is opened:
    /// on a file system of its own it could be opened still. O_PATH descriptors.
    kept: HashMap<NodeId, Arc<File>>,
    /// Node ids are never used again, so a late `forget` cannot hit another node.
    next_node: u64,
    next_open: u64,
    /// Descriptors that nobody needs any more, to be closed outside the lock.
    closing: Vec<Arc<File>>,
}

impl NodeTable {
    pub(super) fn new(root: Inode) -> NodeTable {
        let mut table = NodeTable {
            nodes: IndexMap::new(),
            by_inode: HashMap::new(),
            opened: HashMap::new(),
            kept: HashMap::new(),
            next_node: NodeId::ROOT.0 + 1,
            next_open: 0,
            closing: Vec::new(),
        };
        table.put_node(NodeId::ROOT, root, EntryKind::Directory);
        table
    }

    /// The inode behind a node; ESTALE for one that is not known.
    pub(super) fn inode(&self, node: NodeId) -> io::Result<Inode> {
        Ok(self.nodes.get(&node).ok_or_else(|| error(libc::ESTALE))?.inode)
    }

    /// A path to a node from the draft's directory, empty for that itself.
    ///
    /// ESTALE where none is left, ENAMETOOLONG where the kernel would not take it.
    pub(super) fn path(&self, node: NodeId) -> io::Result<PathBuf> {
        if node == NodeId::ROOT {
            return Ok(PathBuf::new());
        }
        let found = self.nodes.get(&node).ok_or_else(|| error(libc::ESTALE))?;
        let mut answer = Err(error(libc::ESTALE));
        for name in &found.names {
            answer = self.path_below(name);
            if answer.is_ok() {
                break;
            }
        }
        answer
    }

    /// All known paths to a node that the kernel would take.
    pub(super) fn paths(&self, node: NodeId) -> Vec<PathBuf> {
        if node == NodeId::ROOT {
            return vec![PathBuf::new()];
        }
        let names = self.nodes.get(&node).map_or(&[][..], |found| &found.names);
        names.iter().filter_map(|name| self.path_below(name).ok()).collect()
    }

    /// Takes a reference to what `name` in `parent` was found to be; `None` when `parent` has been
    /// forgotten meanwhile.
    pub(super) fn intern(
        &mut self,
        parent: NodeId,
        name: &OsStr,
        status: &Status,
    ) -> Option<NodeId> {
        if !self.nodes.contains_key(&parent) {
            return None;
        }
        let (inode, kind) = (Inode::of(status), status.kind());
        let known = self.by_inode.get(&inode).copied();
        let known = known.filter(|id| self.nodes.get(id).is_some_and(|node| node.kind == kind));
        let id = known.unwrap_or_else(|| {
            let id = NodeId(self.next_node);
            self.next_node += 1;
            self.put_node(id, inode, kind);
            id
        });
        self.add_name(id, Name { parent, name: name.into() });
        self.nodes.get_mut(&id).expect("it was known or put above").references += 1;
        Some(id)
    }

    /// Gives back `count` references; the caller drops the answer after the lock, as a close may take
    /// long.
    pub(super) fn forget(&mut self, node: NodeId, count: u64) -> Vec<Arc<File>> {
        if let Some(found) = self.nodes.get_mut(&node) {
            found.references = found.references.saturating_sub(count);
        }
        self.collect(node);
        std::mem::take(&mut self.closing)
    }

    /// Counts an open file; its number for `remove_open`.
    pub(super) fn add_open(
        &mut self,
        node: NodeId,
        file: &Arc<File>,
        writable: bool,
    ) -> io::Result<u64> {
        if !self.nodes.contains_key(&node) {
            return Err(error(libc::ESTALE));
        }
        let id = self.next_open;
        self.next_open += 1;
        let opened = Opened { id, file: Arc::clone(file), writable };
        self.opened.entry(node).or_default().push(opened);
        Ok(id)
    }

    /// Ends an open file; the caller drops the answer after the lock, as a close may take long.
    pub(super) fn remove_open(&mut self, node: NodeId, id: u64) -> Vec<Arc<File>> {
        if let Some(opened) = self.opened.get_mut(&node)
            && let Some(index) = opened.iter().position(|opened| opened.id == id)
        {
            self.closing.push(opened.swap_remove(index).file);
            if opened.is_empty() {
                self.opened.remove(&node);
            }
            self.collect(node);
        }
        std::mem::take(&mut self.closing)
    }

    /// A descriptor of a node that is there anyway, a writable one if there is one.
    pub(super) fn opened(&self, node: NodeId) -> Option<Arc<File>> {
        let opened = self.opened.get(&node).map_or(&[][..], Vec::as_slice);
        let best = opened.iter().find(|one| one.writable).or(opened.first());
        best.map(|one| &one.file).or(self.kept.get(&node)).map(Arc::clone)
    }

    /// A writable descriptor of a node, if somebody has one.
    pub(super) fn opened_writable(&self, node: NodeId) -> Option<Arc<File>> {
        let opened = self.opened.get(&node)?;
        Some(Arc::clone(&opened.iter().find(|one| one.writable)?.file))
    }

    /// All nodes that are open for writing.
    pub(super) fn writers(&self) -> Vec<Writer> {
        let writers = self.opened.iter().filter_map(|(id, opened)| {
            let opened = opened.iter().find(|opened| opened.writable)?;
            Some(Writer { paths: self.paths(*id), file: Arc::clone(&opened.file) })
        });
        writers.collect()
    }

    /// The inodes, with their devices, to which a descriptor leads that somebody still has.
    pub(super) fn held(&self) -> HashSet<(u64, u64)> {
        let held = self.opened.keys().chain(self.kept.keys());
        let inodes = held.filter_map(|id| Some(self.nodes.get(id)?.inode));
        inodes.map(|inode| (inode.dev, inode.ino)).collect()
    }

    /// Takes away a name; `last` says that the object, to which `there` leads, has no other, known or
    /// not.
    pub(super) fn remove_name(
        &mut self,
        inode: Inode,
        (parent, name): (NodeId, &OsStr),
        last: bool,
        there: &Arc<File>,
    ) {
        let Some(&node) = self.by_inode.get(&inode) else { return };
        if last {
            self.by_inode.remove(&inode);
        }
        self.drop_names(node, |known| known.parent != parent || *known.name != *name);
        if let Some(found) = self.nodes.get(&node)
            && found.names.is_empty()
            && found.kind != EntryKind::Directory
            && self.kept.len() < KEPT_COUNT_MAX
        {
            self.kept.entry(node).or_insert_with(|| Arc::clone(there));
        }
    }

    /// Replaces a name by another.
    pub(super) fn move_name(&mut self, inode: Inode, from: (NodeId, &OsStr), to: (NodeId, &OsStr)) {
        let Some(&node) = self.by_inode.get(&inode) else { return };
        let to_name = Name { parent: to.0, name: to.1.into() };
        if self.nodes.contains_key(&to.0) {
            // Before the old name goes: the new parent may hang on nothing else (D1).
            self.add_name(node, to_name);
        }
        self.drop_names(node, |known| known.parent != from.0 || *known.name != *from.1);
    }

    /// Takes away every name below `top`, and its own unless it is the draft's directory.
    pub(super) fn cut(&mut self, top: Inode) {
        if let Some(&top) = self.by_inode.get(&top) {
            // First decide, then change: chains of parents lead through nodes that change as well.
            let parents = self.nodes.iter().filter(|(_, node)| 0 < node.children);
            let parents = parents.map(|(id, _)| *id).filter(|id| self.is_below(*id, top));
            let inside: HashSet<NodeId> = parents.collect();
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in ids {
                self.drop_names(id, |known| id != top && !inside.contains(&known.parent));
            }
        }
        // What has no name left may be removed by whoever has the tree now, and its number given to
        // another object (D2).
        let nodes = &self.nodes;
        let named = |id: &NodeId| nodes.get(id).is_some_and(|node| !node.names.is_empty());
        self.by_inode.retain(|_, id| *id == NodeId::ROOT || named(id));
    }

    /// Lets the draft's own node stand for another directory.
    pub(super) fn replace_root(&mut self, inode: Inode) {
        let root = self.nodes.get_mut(&NodeId::ROOT).expect("the root is never collected");
        self.by_inode.remove(&root.inode);
        root.inode = inode;
        self.by_inode.insert(inode, NodeId::ROOT);
    }

    fn put_node(&mut self, id: NodeId, inode: Inode, kind: EntryKind) {
        let (names, references, children) = (Vec::new(), 0, 0);
        self.nodes.insert(id, Node { inode, kind, names, references, children });
        self.by_inode.insert(inode, id);
    }

    fn add_name(&mut self, node: NodeId, name: Name) {
        let found = self.nodes.get_mut(&node).expect("the caller has just found it");
        if found.names.contains(&name) {
            return;
        }
        let parent = name.parent;
        // A directory has one name; another was changed behind our back.
        let displaced = match found.kind {
            EntryKind::Directory => std::mem::take(&mut found.names),
            _ => Vec::new(),
        };
        // Most objects have one name for ever.
        if found.names.is_empty() {
            found.names.reserve_exact(1);
        }
        found.names.push(name);
        self.nodes.get_mut(&parent).expect("callers check the parent").children += 1;
        for old in displaced {
            self.drop_child(old.parent);
        }
    }

    fn drop_names(&mut self, node: NodeId, keep: impl Fn(&Name) -> bool) {
        let Some(found) = self.nodes.get_mut(&node) else { return };
        let dropped: Vec<Name> = found.names.extract_if(.., |name| !keep(name)).collect();
        for name in dropped {
            self.drop_child(name.parent);
        }
        self.collect(node);
    }

    fn drop_child(&mut self, parent: NodeId) {
        if let Some(found) = self.nodes.get_mut(&parent) {
            found.children -= 1;
        }
        self.collect(parent);
    }

    /// Removes a node that nobody needs, and then its parents if they were kept for it alone.
    fn collect(&mut self, node: NodeId) {
        let mut candidates = vec![node];
        while let Some(id) = candidates.pop() {
            let Some(found) = self.nodes.get(&id) else { continue };
            let used = found.references > 0 || found.children > 0;
            if used || self.opened.contains_key(&id) || id == NodeId::ROOT {
                continue;
            }
            let removed = self.nodes.swap_remove(&id).expect("it was found above");
            self.closing.extend(self.kept.remove(&id));
            if self.by_inode.get(&removed.inode) == Some(&id) {
                self.by_inode.remove(&removed.inode);
            }
            for name in removed.names {
                if let Some(parent) = self.nodes.get_mut(&name.parent) {
                    parent.children -= 1;
                    candidates.push(name.parent);
                }
            }
        }
    }

    fn path_below(&self, name: &Name) -> io::Result<PathBuf> {
        let mut components = vec![&*name.name];
        let mut bytes = name.name.len();
        let mut parent = name.parent;
        while parent != NodeId::ROOT {
            // A directory's only name; without one it is gone and so is all below it.
            let above = self.nodes.get(&parent).and_then(|node| node.names.first());
            let above = above.ok_or_else(|| error(libc::ESTALE))?;
            bytes += 1 + above.name.len();
            if PATH_BYTES_MAX < bytes {
                return Err(error(libc::ENAMETOOLONG));
            }
            components.push(&above.name);
            parent = above.parent;
        }
        let mut path = Vec::with_capacity(bytes);
        for component in components.iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component.as_bytes());
        }
        Ok(PathBuf::from(OsString::from_vec(path)))
    }

    /// Whether `node` is `top` or hangs below it. Renames never make a directory its own ancestor,
    /// and the count of steps ends even a chain that was changed behind our back.
    fn is_below(&self, mut node: NodeId, top: NodeId) -> bool {
        for _ in 0..=self.nodes.len() {
            if node == top {
                return true;
            }
            match self.nodes.get(&node).and_then(|found| found.names.first()) {
                Some(name) => node = name.parent,
                None => return false,
            }
        }
        false
    }

    /// Checks what must hold between calls.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut children: HashMap<NodeId, u32> = HashMap::new();
        for (id, node) in &self.nodes {
            assert!(node.kind != EntryKind::Directory || node.names.len() <= 1, "{id:?}: {node:?}");
            for name in &node.names {
                assert!(self.nodes.contains_key(&name.parent), "{id:?} lost a parent (D1)");
                *children.entry(name.parent).or_default() += 1;
            }
        }
        for (id, node) in &self.nodes {
            assert_eq!(node.children, children.get(id).copied().unwrap_or(0), "{id:?}");
        }
        for (inode, id) in &self.by_inode {
            assert_eq!(self.nodes[id].inode, *inode);
        }
        for id in self.opened.keys().chain(self.kept.keys()) {
            assert!(self.nodes.contains_key(id), "{id:?} is gone and still open or kept");
        }
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }
}
