//! Pickles of PyTorch: which storages they speak of, and what the tensors in them are called.
//!
//! A pickle is a program. This reads it without running anything: a name that would be imported is
//! compared with a short list, a call of one on the list gives a tensor, and a call of anything
//! else gives a bag with its arguments. A pickle that cannot be followed to its end, or that is
//! too large, still gives the storages that were seen until then.
//! Source: `pickletools.py` of Python, `torch/_utils.py` of PyTorch.

use std::collections::HashMap;
use std::mem;

use super::super::description::DESCRIPTION_BYTES_MAX;
use super::super::dtype::element_count;
use super::super::{Dtype, NAME_BYTES_MAX, NESTING_MAX, RANK_MAX, TABLE_BYTES_MAX};
use super::names::{Callable, callable};

/// Values on the stack at once.
const STACK_COUNT_MAX: usize = 1_000_000;
/// Containers, their entries and memos of one pickle: 100,000 tensors make as many.
const KEPT_COUNT_MAX: usize = 4_000_000;
/// Parts of a module that its parameters' names leave out.
const UNNAMED: [&[u8]; 3] = [b"_parameters", b"_buffers", b"_modules"];

/// One storage, and the first tensor that is all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Storage {
    /// Its member's name in the archive.
    pub key: String,
    pub dtype: Dtype,
    /// Elements of its dtype.
    pub count: u64,
    /// Of a tensor in it.
    pub name: Option<String>,
    /// Of a tensor that is all of it, row after row.
    pub shape: Option<Vec<u64>>,
}

impl Storage {
    /// A storage of which only the key is known.
    pub fn unknown(key: &str) -> Self {
        Self { key: key.to_owned(), dtype: Dtype::Other, count: 0, name: None, shape: None }
    }
}

/// One tensor by one of its names, which is empty where the pickle is nothing but the tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    pub name: String,
    pub shape: Vec<u64>,
    /// Index of its storage.
    pub storage: usize,
    /// Its first element in the storage.
    pub offset: u64,
}

/// What a pickle says of tensors.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// In its order, each key once.
    pub storages: Vec<Storage>,
    /// As they are met from its root on, also those that share a storage.
    pub tensors: Vec<Named>,
    /// Of the pickle; `None` when it could not be followed to its end.
    pub bytes: Option<usize>,
}

/// The storages of a pickle.
pub(super) fn scan(pickle: &[u8]) -> Vec<Storage> {
    follow(Machine::new(pickle)).storages
}

/// The storages and tensors of a pickle.
pub(super) fn scan_tensors(pickle: &[u8]) -> Scan {
    follow(Machine { list_bytes_left: DESCRIPTION_BYTES_MAX, ..Machine::new(pickle) })
}

fn follow(mut machine: Machine<'_>) -> Scan {
    let mut state = Some(Step::Next);
    while let Some(Step::Next) = state {
        state = machine.step();
    }
    let bytes = state.map(|_end| machine.at);
    if let (Some(_), Some(result)) = (bytes, machine.stack.last().copied()) {
        machine.name_tensors(result, &mut String::new(), 0);
    }
    Scan { storages: machine.storages, tensors: machine.named, bytes }
}

enum Step {
    Next,
    End,
}

/// A value, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Item {
    /// Anything that is none of the others.
    Nothing,
    Int(i64),
    /// A text: where it begins in the pickle, its length.
    Text(u32, u32),
    /// A tuple, list, dictionary or object: its index in `nodes`.
    Node(u32),
    Callable(Callable),
    /// Index in `storages`.
    Storage(u32),
    /// Index in `tensors`.
    Tensor(u32),
}

/// A tensor in a storage. Its size and strides are looked at when it gets its name.
#[derive(Clone, Copy, Debug)]
struct View {
    storage: u32,
    offset: Item,
    size: Item,
    strides: Item,
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    stack: Vec<Item>,
    /// Lengths that the stack had at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Item>,
    /// The entries of each container, with their keys or indices.
    nodes: Vec<Vec<(Item, Item)>>,
    storages: Vec<Storage>,
    storage_by_key: HashMap<&'a [u8], u32>,
    tensors: Vec<View>,
    named: Vec<Named>,
    kept_left: usize,
    name_bytes_left: usize,
    /// Of `named`.
    list_bytes_left: usize,
}

// All methods give `None` where the pickle cannot be followed any further.
impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Self {
        Self {
            pickle,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            storages: Vec::new(),
            storage_by_key: HashMap::new(),
            tensors: Vec::new(),
            named: Vec::new(),
            kept_left: KEPT_COUNT_MAX,
            name_bytes_left: TABLE_BYTES_MAX,
            list_bytes_left: 0,
        }
    }

    /// Follows one opcode.
    fn step(&mut self) -> Option<Step> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Some(Step::End),
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.push(*self.stack.last()?)?,
            // Protocol and frame.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'N' | 0x88 | 0x89 | 0x97 => self.push(Item::Nothing)?,
            0x98 => {}
            b'F' | b'I' | b'L' | b'S' | b'V' | b'J' | b'K' | b'M' | b'G' | 0x8a | 0x8b => {
                self.number_or_line(opcode)?;
            }
            b'T' | b'U' | b'X' | b'B' | b'C' | 0x8c | 0x8d | 0x8e | 0x96 => {
                let text = self.text(opcode)?;
                self.push(text)?;
            }
            b'}' | b']' | b')' | 0x8f => self.push_node(Vec::new())?,
            b't' | b'l' | b'd' | 0x91 | 0x85..=0x87 => self.container(opcode)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.add_entries(opcode)?,
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(opcode)?,
            b'P' | b'Q' => self.persistent(opcode)?,
            b'c' | b'i' | b'o' | 0x93 | b'R' | b'b' | 0x81 | 0x92 | 0x82..=0x84 => {
                self.class_or_call(opcode)?;
            }
            _ => return None,
        }
        Some(Step::Next)
    }

    /// The next bytes, which are stepped over.
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.pickle.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    /// The little-endian number of the next `length` bytes, at most 8.
    fn unsigned(&mut self, length: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(self.take(length)?);
        Some(u64::from_le_bytes(bytes))
    }

    /// The bytes up to the end of the line, which is stepped over.
    fn line(&mut self) -> Option<&'a [u8]> {
        let length = self.pickle.get(self.at..)?.iter().position(|byte| *byte == b'\n')?;
        let line = self.take(length)?;
        self.at += 1;
        Some(line)
    }

    fn push(&mut self, item: Item) -> Option<()> {
        if STACK_COUNT_MAX <= self.stack.len() {
            return None;
        }
        self.stack.push(item);
        Some(())
    }

    fn mark(&mut self) -> Option<()> {
        if STACK_COUNT_MAX <= self.marks.len() {
            return None;
        }
        self.marks.push(self.stack.len());
        Some(())
    }

    /// The topmost value above the last mark.
    fn pop(&mut self) -> Option<Item> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor { None } else { self.stack.pop() }
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Item>> {
        let mark = self.marks.pop()?;
        Some(self.stack.drain(mark.min(self.stack.len())..).collect())
    }

    /// Counts what is kept until the end.
    fn keep(&mut self, count: usize) -> Option<()> {
        self.kept_left = self.kept_left.checked_sub(count)?;
        Some(())
    }

    fn push_node(&mut self, entries: Vec<(Item, Item)>) -> Option<()> {
        self.keep(1 + entries.len())?;
        let index = u32::try_from(self.nodes.len()).ok()?;
        self.nodes.push(entries);
        self.push(Item::Node(index))
    }

    fn text_at(&self, item: Item) -> Option<&'a [u8]> {
        let Item::Text(start, length) = item else { return None };
        self.pickle.get(start as usize..start as usize + length as usize)
    }

    /// The text that was just taken, which ends `behind` bytes ago.
    fn text_before(&self, text: &[u8], behind: usize) -> Option<Item> {
        let start = self.at.checked_sub(behind)?.checked_sub(text.len())?;
        Some(Item::Text(u32::try_from(start).ok()?, u32::try_from(text.len()).ok()?))
    }

    fn number_or_line(&mut self, opcode: u8) -> Option<()> {
        let item = match opcode {
            b'J' => Item::Int(self.unsigned(4)?.cast_signed() << 32 >> 32),
            b'K' => Item::Int(self.unsigned(1)?.cast_signed()),
            b'M' => Item::Int(self.unsigned(2)?.cast_signed()),
            b'G' => {
                self.take(8)?;
                Item::Nothing
            }
            0x8a | 0x8b => {
                let length = self.unsigned(if opcode == 0x8a { 1 } else { 4 })?;
                signed(self.take(usize::try_from(length).ok()?)?)
            }
            b'S' | b'V' => {
                let line = self.line()?;
                let quoted = opcode == b'S' && 2 <= line.len();
                let text = if quoted { &line[1..line.len() - 1] } else { line };
                self.text_before(text, if quoted { 2 } else { 1 })?
            }
            _ => {
                let line = str::from_utf8(self.line()?).ok();
                let digits = line.map(|line| line.trim_end_matches('L'));
                digits.and_then(|digits| digits.parse().ok()).map_or(Item::Nothing, Item::Int)
            }
        };
        self.push(item)
    }

    /// A text or bytes with their length in front.
    fn text(&mut self, opcode: u8) -> Option<Item> {
        let length_bytes = match opcode {
            b'U' | b'C' | 0x8c => 1,
            b'T' | b'X' | b'B' => 4,
            _ => 8,
        };
        let length = self.unsigned(length_bytes)?;
        let text = self.take(usize::try_from(length).ok()?)?;
        self.text_before(text, 0)
    }

    /// Makes a tuple, list, set or dictionary of what is on the stack.
    fn container(&mut self, opcode: u8) -> Option<()> {
        let items = match opcode {
            0x85..=0x87 => {
                let mut items: Vec<Item> =
                    (0x85..=opcode).map(|_| self.pop()).collect::<Option<_>>()?;
                items.reverse();
                items
            }
            _ => self.pop_to_mark()?,
        };
        self.push_node(if opcode == b'd' { pairs(&items) } else { indexed(0, &items) })
    }

    /// Adds what is on the stack to the container below it.
    fn add_entries(&mut self, opcode: u8) -> Option<()> {
        let items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        self.keep(items.len())?;
        if let Item::Node(index) = *self.stack.last()? {
            let entries = &mut self.nodes[index as usize];
            let is_dictionary = matches!(opcode, b's' | b'u');
            let first = entries.len();
            entries.extend(if is_dictionary { pairs(&items) } else { indexed(first, &items) });
        }
        Some(())
    }

    fn memo(&mut self, opcode: u8) -> Option<()> {
        let index = match opcode {
            b'q' | b'h' => self.unsigned(1)?,
            b'r' | b'j' => self.unsigned(4)?,
            0x94 => self.memo.len() as u64,
            _ => str::from_utf8(self.line()?).ok()?.parse().ok()?,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let item = *self.memo.get(&index)?;
            return self.push(item);
        }
        let item = *self.stack.last()?;
        self.keep(1)?;
        self.memo.insert(index, item);
        Some(())
    }

    /// A persistent id: `("storage", class, key, device, count)`.
    fn persistent(&mut self, opcode: u8) -> Option<()> {
        if opcode == b'P' {
            self.line()?;
            return self.push(Item::Nothing);
        }
        let id = self.pop()?;
        let storage = self.storage(id);
        self.push(storage.map_or(Item::Nothing, Item::Storage))
    }

    /// The storage that a persistent id names.
    fn storage(&mut self, id: Item) -> Option<u32> {
        let Item::Node(index) = id else { return None };
        let [(_, kind), (_, class), (_, key), _, (_, count), ..] = *self.nodes[index as usize]
        else {
            return None;
        };
        let (Item::Callable(Callable::Storage(dtype)), Item::Int(count)) = (class, count) else {
            return None;
        };
        let key = self.text_at(key).filter(|_| self.text_at(kind) == Some(b"storage"))?;
        if let Some(known) = self.storage_by_key.get(key) {
            return Some(*known);
        }
        if NAME_BYTES_MAX < key.len() {
            return None;
        }
        self.keep(1)?;
        let index = u32::try_from(self.storages.len()).ok()?;
        let count = u64::try_from(count).ok()?;
        let key_text = String::from_utf8_lossy(key);
        self.storages.push(Storage { dtype, count, ..Storage::unknown(&key_text) });
        self.storage_by_key.insert(key, index);
        Some(index)
    }

    /// A name that would be imported, or what a call of one gives.
    fn class_or_call(&mut self, opcode: u8) -> Option<()> {
        let item = match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Item::Callable(callable(module, name))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let texts = self.text_at(module).zip(self.text_at(name));
                Item::Callable(texts.map_or(Callable::Other, |(m, n)| callable(m, n)))
            }
            // An extension's number, of one, two or four bytes.
            0x82..=0x84 => {
                self.take(1 << (opcode - 0x82))?;
                Item::Callable(Callable::Other)
            }
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.call(class, arguments)?
            }
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, arguments)?
            }
            b'b' => {
                let state = self.pop()?;
                if let Item::Node(index) = *self.stack.last()? {
                    self.keep(1)?;
                    self.nodes[index as usize].push((Item::Nothing, state));
                }
                return Some(());
            }
            // Old forms of an object with its arguments.
            _ => {
                if opcode == b'i' {
                    self.line()?;
                    self.line()?;
                }
                let items = self.pop_to_mark()?;
                return self.push_node(indexed(0, &items));
            }
        };
        self.push(item)
    }

    /// What a call gives: a tensor, or a bag with the arguments.
    fn call(&mut self, class: Item, arguments: Item) -> Option<Item> {
        let arguments_of = |nodes: &[Vec<(Item, Item)>], item| match item {
            Item::Node(index) => {
                let mut found = [Item::Nothing; 7];
                for (slot, entry) in found.iter_mut().zip(&nodes[index as usize]) {
                    *slot = entry.1;
                }
                found
            }
            _ => [Item::Nothing; 7],
        };
        let mut called = class;
        let mut found = arguments_of(&self.nodes, arguments);
        if called == Item::Callable(Callable::RebuildFromType) {
            called = found[0];
            found = arguments_of(&self.nodes, found[2]);
        }
        match (called, found) {
            (Item::Callable(Callable::Wrap), [inner, ..]) => Some(inner),
            (
                Item::Callable(Callable::Rebuild),
                [Item::Storage(storage), offset, size, strides, _, _, dtype],
            ) => {
                self.keep(1)?;
                let of = &mut self.storages[storage as usize];
                if let (Dtype::Other, Item::Callable(Callable::Element(dtype))) = (of.dtype, dtype)
                {
                    // A storage without a type counts bytes.
                    let unit = dtype.unit().map_or(1, |(_, bytes)| bytes);
                    (of.dtype, of.count) = (dtype, of.count / unit);
                }
                let index = u32::try_from(self.tensors.len()).ok()?;
                self.tensors.push(View { storage, offset, size, strides });
                Some(Item::Tensor(index))
            }
            _ => {
                self.push_node(vec![(Item::Nothing, arguments)])?;
                self.pop()
            }
        }
    }

    /// Gives the tensors within `item` the names by which they are reached. `path` is the name so
    /// far, and as before when this returns.
    fn name_tensors(&mut self, item: Item, path: &mut String, depth: usize) {
        match item {
            Item::Tensor(index) => self.name_tensor(self.tensors[index as usize], path),
            Item::Node(index) if depth < NESTING_MAX => {
                // Taken, so that each is walked once, also where they are a ring.
                for (key, value) in mem::take(&mut self.nodes[index as usize]) {
                    if !matches!(value, Item::Node(_) | Item::Tensor(_)) {
                        continue;
                    }
                    let length = path.len();
                    self.extend_path(path, key);
                    if path.len() <= NAME_BYTES_MAX && self.spend_name(path.len() - length) {
                        self.name_tensors(value, path, depth + 1);
                    }
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }

    /// Counts what names cost; false when it is too much.
    fn spend_name(&mut self, bytes: usize) -> bool {
        let left = self.name_bytes_left.checked_sub(bytes);
        self.name_bytes_left = left.unwrap_or(0);
        left.is_some()
    }

    fn extend_path(&self, path: &mut String, key: Item) {
        let part = match key {
            Item::Int(index) => index.to_string(),
            _ => match self.text_at(key) {
                Some(text) if !UNNAMED.contains(&text) && text.len() <= NAME_BYTES_MAX => {
                    String::from_utf8_lossy(text).into_owned()
                }
                _ => return,
            },
        };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&part);
    }

    /// Lists a tensor. The first that is all of its storage names that too, else the first in it.
    fn name_tensor(&mut self, view: View, path: &str) {
        self.list_tensor(view, path);
        let storage = &self.storages[view.storage as usize];
        if storage.shape.is_some() {
            return;
        }
        let shape = self.whole_shape(view);
        if shape.is_none() && storage.name.is_some() || path.is_empty() {
            return;
        }
        if !self.spend_name(path.len() + shape.as_ref().map_or(0, |shape| 8 * shape.len())) {
            return;
        }
        let storage = &mut self.storages[view.storage as usize];
        storage.name = Some(path.to_owned());
        storage.shape = shape;
    }

    fn list_tensor(&mut self, view: View, path: &str) {
        let (Some(shape), Item::Int(offset)) = (self.numbers(view.size), view.offset) else {
            return;
        };
        let Ok(offset) = u64::try_from(offset) else { return };
        let bytes = size_of::<Named>() + path.len() + 8 * shape.len();
        if let Some(left) = self.list_bytes_left.checked_sub(bytes) {
            self.list_bytes_left = left;
            let (name, storage) = (path.to_owned(), view.storage as usize);
            self.named.push(Named { name, shape, storage, offset });
        }
    }

    /// The shape of a tensor that is all of its storage, row after row.
    fn whole_shape(&self, view: View) -> Option<Vec<u64>> {
        let shape = self.numbers(view.size)?;
        let strides = self.numbers(view.strides)?;
        let is_all = element_count(&shape) == Some(self.storages[view.storage as usize].count);
        if view.offset != Item::Int(0) || !is_all || shape.len() != strides.len() {
            return None;
        }
        let mut expected = 1_u64;
        for (size, stride) in shape.iter().zip(&strides).rev() {
            // The stride of a dimension without steps is never used.
            if *size != 1 && *stride != expected {
                return None;
            }
            expected = expected.checked_mul(*size)?;
        }
        Some(shape)
    }

    fn numbers(&self, item: Item) -> Option<Vec<u64>> {
        let Item::Node(index) = item else { return None };
        let entries = &self.nodes[index as usize];
        // The size of PyTorch's own class has its tuple in a bag.
        if let [(Item::Nothing, inner @ Item::Node(_))] = entries[..] {
            let Item::Node(index) = inner else { return None };
            return numbers_of(&self.nodes[index as usize]);
        }
        numbers_of(entries)
    }
}

fn numbers_of(entries: &[(Item, Item)]) -> Option<Vec<u64>> {
    if RANK_MAX < entries.len() {
        return None;
    }
    let number = |entry: &(Item, Item)| match entry.1 {
        Item::Int(number) => u64::try_from(number).ok(),
        _ => None,
    };
    entries.iter().map(number).collect()
}

/// Keys and values that stand in turn.
fn pairs(items: &[Item]) -> Vec<(Item, Item)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Values with their indices, from `first`.
fn indexed(first: usize, items: &[Item]) -> Vec<(Item, Item)> {
    let indices = (first as i64..).map(Item::Int);
    indices.zip(items.iter().copied()).collect()
}

/// A number of any length in two's complement, little endian.
fn signed(bytes: &[u8]) -> Item {
    let mut wide = match bytes.last() {
        Some(last) if 0x80 <= *last => [0xff; 8],
        _ => [0; 8],
    };
    match wide.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return Item::Nothing,
    }
    Item::Int(i64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{
        pickle, pickle_numbers, pickle_storage, pickle_tensor, pickle_text,
    };
    use super::*;

    fn named(key: &str, dtype: Dtype, count: u64, name: &str, shape: &[u64]) -> Storage {
        let (name, shape) = (Some(name.to_owned()), Some(shape.to_vec()));
        Storage { dtype, count, name, shape, ..Storage::unknown(key) }
    }

    #[test]
    fn a_storage_without_a_type_gets_that_of_its_tensor() {
        let storage = [
            b"(".to_vec(),
            pickle_text("storage"),
            b"ctorch.storage\nUntypedStorage\n".to_vec(),
            pickle_text("7"),
            pickle_text("cuda:0"),
            b"K\x0ctQ".to_vec(),
        ];
        let tensor = [
            b"ctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v3\n(".to_vec(),
            storage.concat(),
            b"K\0".to_vec(),
            pickle_numbers(&[3, 2]),
            pickle_numbers(&[2, 1]),
            b"\x89Nctorch\nbfloat16\ntR\x88}tR".to_vec(),
        ];
        let found = scan(&pickle(&[("w", tensor.concat())]));
        assert_eq!(found, [named("7", Dtype::Bf16, 6, "w", &[3, 2])]);
    }

    #[test]
    fn tensors_are_found_in_lists_objects_and_what_has_many_names() {
        let tensor = |key| pickle_tensor(&pickle_storage("FloatStorage", key, 2), 0, &[2], &[1]);
        let list = [b"](".to_vec(), tensor("0"), tensor("1"), b"e".to_vec()].concat();
        let object =
            [b"cmine\nModel\n)\x81}(".to_vec(), pickle_text("head"), tensor("2"), b"ub".to_vec()]
                .concat();
        let typed = [
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\ncmine\nT\n("
                .to_vec(),
            pickle_storage("FloatStorage", "3", 2),
            b"K\0".to_vec(),
            pickle_numbers(&[2]),
            pickle_numbers(&[1]),
            b"t}tR".to_vec(),
        ]
        .concat();
        let found = scan(&pickle(&[("list", list), ("model", object), ("typed", typed)]));
        let expected = [
            named("0", Dtype::F32, 2, "list.0", &[2]),
            named("1", Dtype::F32, 2, "list.1", &[2]),
            named("2", Dtype::F32, 2, "model.head", &[2]),
            named("3", Dtype::F32, 2, "typed", &[2]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn rings_and_deep_and_endless_pickles_come_to_an_end() {
        let tensor = pickle_tensor(&pickle_storage("FloatStorage", "0", 2), 0, &[2], &[1]);
        // A list that holds itself, and a tensor.
        let ring = [b"\x80\x02]q\x01h\x01a".as_slice(), &tensor, b"a."].concat();
        assert_eq!(scan(&ring), [named("0", Dtype::F32, 2, "1", &[2])]);
        let deep = [b"]".repeat(1_000), tensor.clone(), b"a".repeat(1_000), b".".to_vec()].concat();
        assert_eq!(scan(&deep)[0].name, None);
        assert_eq!(scan(&b"(".repeat(STACK_COUNT_MAX + 9)), []);
        assert_eq!(scan(&b"N".repeat(STACK_COUNT_MAX + 9)), []);
        assert_eq!(scan(&b"}0".repeat(KEPT_COUNT_MAX + 9)), []);
        // Doubles a tuple again and again: 2^1000 tensors, one storage.
        let doubled = [tensor, b"2\x86".repeat(1_000), b".".to_vec()].concat();
        assert_eq!(scan(&doubled).len(), 1);
    }

    #[test]
    fn names_are_bounded_in_length_and_in_sum() {
        let part = "p".repeat(NAME_BYTES_MAX / 2);
        let tensor =
            |key: &str| pickle_tensor(&pickle_storage("FloatStorage", key, 2), 0, &[2], &[1]);
        let long = pickle(&[(&part, pickle(&[(&part, tensor("0"))])[2..].to_vec())]);
        // The inner pickle ends the outer one: only its own part of the name is there.
        assert_eq!(scan(&long)[0].name.as_deref(), Some(part.as_str()));
        let whole = super::super::super::samples::pickle_dictionary;
        let long = pickle(&[(&part, whole(&[(&part, tensor("0"))])), ("b", tensor("1"))]);
        let names: Vec<_> = scan(&long).into_iter().map(|storage| storage.name).collect();
        assert_eq!(names, [None, Some("b".to_owned())]);
    }

    #[test]
    fn numbers_of_every_length_are_read() {
        let check = |bytes: &[u8], expected| assert_eq!(signed(bytes), expected, "{bytes:?}");
        check(&[], Item::Int(0));
        check(&[0xff], Item::Int(-1));
        check(&[0xff, 0], Item::Int(255));
        check(&[0, 0, 0, 0, 0, 0, 0, 0x80], Item::Int(i64::MIN));
        check(&[0; 9], Item::Nothing);
    }
}
