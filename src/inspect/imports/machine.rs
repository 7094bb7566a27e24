//! Follows one pickle, opcode by opcode, as far as names and joblib's arrays ask for it.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::description::Draft;
use super::super::{NAME_BYTES_MAX, NESTING_MAX, Stop};
use super::danger::todays;
use super::opcode::{Argument, find};
use super::source::Source;
use super::{Danger, JOBLIB, PickleDetails};

/// Values on the stack at once, and marks.
const STACK_COUNT_MAX: usize = 1_000_000;
/// Values that are kept under a number.
const MEMO_COUNT_MAX: usize = 4_000_000;
/// Bytes of the texts that are kept so.
const MEMO_BYTES_MAX: usize = 64 << 20;
/// Bytes of the longest text that is kept; no name is longer.
const TEXT_BYTES_MAX: usize = NAME_BYTES_MAX;
/// Values of the longest tuple or dictionary that is kept.
const PARTS_MAX: usize = 32;
/// The newest version of pickles.
const PROTOCOL_MAX: u8 = 5;
/// Opcodes that call what was imported.
const CALLS: [u8; 6] = [b'R', b'i', b'o', b'b', 0x81, 0x92];
/// Opcodes that are followed up to the first call.
const CALL_OPCODES_MAX: u64 = 1_000_000;
/// What stands in a pickle of joblib for an array that follows it.
const ARRAY: (&str, &str) = ("joblib.numpy_pickle", "NumpyArrayWrapper");

/// A value, as far as it matters here.
#[derive(Clone)]
enum Item {
    /// Anything that is none of the others.
    Other,
    Int(i64),
    Text(Rc<str>),
    /// A text that there was no room for.
    Lost,
    /// Without tuples in it.
    Tuple(Rc<[Item]>),
    /// What has text keys.
    Dictionary(Rc<[(Rc<str>, Item)]>),
    /// `numpy.dtype`, and one that it made.
    DtypeClass,
    Dtype(Rc<str>),
    /// The class for an array, one of it, and one that knows its array.
    ArrayClass,
    Array,
}

/// What a pickle left when another began within it.
#[derive(Default)]
struct Frame {
    stack: Vec<Item>,
    /// Lengths that the stack had at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Item>,
}

pub struct Machine<'m, 'a, 'b> {
    source: &'m mut Source<'a, 'b>,
    details: &'m mut PickleDetails,
    draft: &'m mut Draft,
    now: Frame,
    /// Pickles around this one.
    around: Vec<Frame>,
    memo_bytes_left: usize,
    /// Whether arrays of joblib are read as opcodes, as all that knows nothing of joblib does.
    is_plain: bool,
    /// Whether it did so with a pickle within this one, whose memo then is another.
    is_shifted: bool,
}

impl<'m, 'a: 'm, 'b: 'a> Machine<'m, 'a, 'b> {
    pub fn new(
        source: &'m mut Source<'a, 'b>,
        details: &'m mut PickleDetails,
        draft: &'m mut Draft,
    ) -> Self {
        let (now, around) = (Frame::default(), Vec::new());
        let memo_bytes_left = MEMO_BYTES_MAX;
        let (is_plain, is_shifted) = (false, false);
        Self { source, details, draft, now, around, memo_bytes_left, is_plain, is_shifted }
    }

    /// Whether it calls what it imported before anything in it is wrong, if it is read by what knows
    /// nothing of joblib; also where that takes long to tell. Imports that `is_known` do not count, nor
    /// those without a known danger after a pickle within this one: their names are others then.
    pub fn calls(mut self, is_known: impl Fn(&str) -> bool) -> bool {
        self.is_plain = true;
        let mut looked_at = 0;
        for _ in 0..CALL_OPCODES_MAX {
            let Ok(opcode) = self.source.byte() else { return false };
            let Some((_, argument)) = find(opcode) else { return false };
            if self.step(opcode, argument).is_err() || opcode == b'.' {
                return false;
            }
            let imports = &self.details.globals;
            if CALLS.contains(&opcode) && looked_at < imports.len() {
                looked_at = imports.len();
                let counts = |danger| !self.is_shifted || danger == Danger::Dangerous;
                if imports.iter().any(|(path, danger)| counts(*danger) && !is_known(path)) {
                    return true;
                }
            }
        }
        true
    }

    /// Follows the pickle to its end.
    pub fn follow(mut self) -> Result<(), Stop> {
        loop {
            let opcode = self.source.byte()?;
            let Some((name, argument)) = find(opcode) else {
                return Err(Stop::Malformed("what stands there is no opcode"));
            };
            *self.details.opcodes.entry(name.to_owned()).or_default() += 1;
            if opcode != b'.' {
                self.step(opcode, argument)?;
                continue;
            }
            self.pop()?;
            self.details.pickles += 1;
            match self.around.pop() {
                Some(frame) => self.now = frame,
                None => return Ok(()),
            }
        }
    }

    fn step(&mut self, opcode: u8, argument: Argument) -> Result<(), Stop> {
        match argument {
            Argument::Counted(length_bytes) => {
                let length = self.source.number(length_bytes)?;
                let text = self.source.bytes_up_to(length, TEXT_BYTES_MAX)?;
                let item = match opcode {
                    b'T' | b'U' | b'X' | 0x8c | 0x8d => text_of(text),
                    0x8a | 0x8b => text.map_or(Item::Other, |bytes| int_of(&bytes)),
                    _ => Item::Other,
                };
                self.push(item)
            }
            Argument::Line => {
                let line = self.source.line(TEXT_BYTES_MAX)?;
                self.line(opcode, line)
            }
            Argument::Lines => {
                let module = self.source.line(TEXT_BYTES_MAX)?;
                let name = self.source.line(TEXT_BYTES_MAX)?;
                let (module, name) =
                    (String::from_utf8_lossy(&module), String::from_utf8_lossy(&name));
                let item = self.import(module.trim_end(), name.trim_end());
                if opcode == b'i' {
                    self.pop_to_mark()?;
                    return self.push(Item::Other);
                }
                self.push(item)
            }
            Argument::Fixed(count) => {
                let number = self.source.number(count)?;
                self.fixed(opcode, number)
            }
        }
    }

    fn line(&mut self, opcode: u8, line: Vec<u8>) -> Result<(), Stop> {
        let line = line.trim_ascii();
        let number = || str::from_utf8(line).ok().and_then(|digits| digits.parse::<u64>().ok());
        let wrong = Stop::Malformed("a number is none");
        match opcode {
            b'g' => return self.recall(number().ok_or(wrong)?),
            b'p' => return self.keep(number().ok_or(wrong)?),
            _ => {}
        }
        let item = match opcode {
            b'S' => text_of(Some(line.get(1..line.len().max(2) - 1).unwrap_or_default().to_vec())),
            b'V' => text_of(Some(line.to_vec())),
            b'I' | b'L' => {
                let digits = str::from_utf8(line).ok().map(|digits| digits.trim_end_matches('L'));
                digits.and_then(|digits| digits.parse().ok()).map_or(Item::Other, Item::Int)
            }
            _ => Item::Other,
        };
        self.push(item)
    }

    fn fixed(&mut self, opcode: u8, number: u64) -> Result<(), Stop> {
        match opcode {
            b'(' => self.mark(),
            b'0' => self.pop_any(),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => {
                let top = self.top()?.clone();
                self.push(top)
            }
            0x80 => self.protocol(number),
            0x95 | 0x98 => Ok(()),
            b'J' => self.push(Item::Int(i64::from(number as u32 as i32))),
            b'K' | b'M' => self.push(Item::Int(number.cast_signed())),
            b'h' | b'j' => self.recall(number),
            b'q' | b'r' => self.keep(number),
            0x94 => self.keep(self.now.memo.len() as u64),
            b')' => self.push(Item::Tuple(Rc::new([]))),
            b't' | 0x85..=0x87 => self.tuple(opcode),
            b'l' | b'd' | 0x91 => {
                self.pop_to_mark()?;
                self.push(Item::Other)
            }
            b'a' => self.pop().map(drop),
            b's' => self.pop().and_then(|_| self.pop()).map(drop),
            b'e' | 0x90 => self.pop_to_mark().map(drop),
            b'u' => self.set_items(),
            b'o' => {
                self.pop_to_mark()?;
                self.push(Item::Other)
            }
            b'R' | 0x81 | 0x92 => self.call(opcode),
            b'b' => self.build(),
            0x93 => self.import_from_stack(),
            0x82..=0x84 => {
                self.details
                    .add_reason("it imports by number, from a registry of Python".to_owned());
                self.push(Item::Other)
            }
            // A persistent id takes the place of what it stands for.
            b'Q' => self.pop().and_then(|_| self.push(Item::Other)),
            _ => self.push(Item::Other),
        }
    }

    fn protocol(&mut self, number: u64) -> Result<(), Stop> {
        let version = u8::try_from(number).unwrap_or(u8::MAX);
        if PROTOCOL_MAX < version {
            return Err(Stop::Malformed("its protocol is newer than any that is known"));
        }
        self.details.protocol = self.details.protocol.max(version);
        Ok(())
    }

    fn push(&mut self, item: Item) -> Result<(), Stop> {
        if STACK_COUNT_MAX <= self.now.stack.len() {
            return Err(Stop::Malformed("its stack is too high"));
        }
        self.now.stack.push(item);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Stop> {
        if STACK_COUNT_MAX <= self.now.marks.len() {
            return Err(Stop::Malformed("it has too many marks"));
        }
        self.now.marks.push(self.now.stack.len());
        Ok(())
    }

    /// Values above the last mark.
    fn above(&self) -> usize {
        self.now.stack.len() - self.now.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Item, Stop> {
        let item = if self.above() == 0 { None } else { self.now.stack.pop() };
        item.ok_or(Stop::Malformed("it takes more than there is"))
    }

    /// The value on top, or the mark.
    fn pop_any(&mut self) -> Result<(), Stop> {
        if self.above() == 0 && self.now.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn top(&self) -> Result<&Item, Stop> {
        let top = if self.above() == 0 { None } else { self.now.stack.last() };
        top.ok_or(Stop::Malformed("it takes more than there is"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Item>, Stop> {
        let mark = self.now.marks.pop().ok_or(Stop::Malformed("it has no mark"))?;
        Ok(self.now.stack.split_off(mark))
    }

    fn keep(&mut self, number: u64) -> Result<(), Stop> {
        let mut item = self.top()?.clone();
        if let Item::Text(text) = &item {
            match self.memo_bytes_left.checked_sub(text.len()) {
                Some(left) => self.memo_bytes_left = left,
                None => item = Item::Lost,
            }
        }
        if MEMO_COUNT_MAX <= self.now.memo.len() {
            return Err(Stop::Malformed("it keeps too much"));
        }
        self.now.memo.insert(number, item);
        Ok(())
    }

    fn recall(&mut self, number: u64) -> Result<(), Stop> {
        let item = self.now.memo.get(&number).cloned();
        self.push(item.ok_or(Stop::Malformed("it recalls what it did not keep"))?)
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), Stop> {
        let mut items = match opcode {
            b't' => self.pop_to_mark()?,
            _ => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        if PARTS_MAX < items.len() {
            return self.push(Item::Other);
        }
        for item in &mut items {
            if matches!(item, Item::Tuple(_) | Item::Dictionary(_)) {
                *item = Item::Other;
            }
        }
        self.push(Item::Tuple(items.into()))
    }

    /// Keys and values of a dictionary; kept where they may describe an array.
    fn set_items(&mut self) -> Result<(), Stop> {
        let items = self.pop_to_mark()?;
        let of = self.pop()?;
        let pairs = items.chunks_exact(2).map(|pair| match &pair[0] {
            Item::Text(key) => Some((Rc::clone(key), pair[1].clone())),
            _ => None,
        });
        let pairs: Option<Vec<_>> =
            if items.len() <= 2 * PARTS_MAX { pairs.collect() } else { None };
        let describes =
            |pairs: &Vec<(Rc<str>, Item)>| pairs.iter().any(|(key, _)| &**key == "dtype");
        let pairs = pairs.filter(describes);
        self.push(pairs.map_or(of, |pairs| Item::Dictionary(pairs.into())))
    }

    fn call(&mut self, opcode: u8) -> Result<(), Stop> {
        if opcode == 0x92 {
            self.pop()?;
        }
        let (arguments, class) = (self.pop()?, self.pop()?);
        let made = match (class, arguments) {
            (Item::ArrayClass, _) => Item::Array,
            (Item::DtypeClass, Item::Tuple(arguments)) => match arguments.first() {
                Some(Item::Text(text)) => Item::Dtype(Rc::clone(text)),
                _ => Item::Other,
            },
            _ => Item::Other,
        };
        self.push(made)
    }

    /// The state of an object; that of joblib's stand-in is followed by the array itself.
    fn build(&mut self) -> Result<(), Stop> {
        let state = self.pop()?;
        let is_array = matches!(self.top()?, Item::Array);
        match state {
            Item::Dictionary(state) if is_array && self.is_plain => {
                self.is_shifted |= matches!(field(&state, "dtype"), Some(Item::Dtype(dtype))
                    if item_bytes(dtype) == Some(None));
                Ok(())
            }
            _ if self.is_plain => Ok(()),
            Item::Dictionary(state) if is_array => self.step_over_array(&state),
            _ if is_array => Err(Stop::Malformed("an array is not described")),
            _ => Ok(()),
        }
    }

    fn step_over_array(&mut self, state: &[(Rc<str>, Item)]) -> Result<(), Stop> {
        let wrong = || Stop::Malformed("an array is not described");
        JOBLIB.clone_into(&mut self.details.writer);
        let (Some(Item::Tuple(shape)), Some(Item::Dtype(dtype))) =
            (field(state, "shape"), field(state, "dtype"))
        else {
            return Err(wrong());
        };
        let Some(item_bytes) = item_bytes(dtype).ok_or_else(wrong)? else {
            // An array of objects is a pickle within this one.
            if NESTING_MAX <= self.around.len() {
                return Err(Stop::Malformed("its pickles are too deep"));
            }
            self.around.push(std::mem::take(&mut self.now));
            return Ok(());
        };
        let mut bytes = item_bytes;
        for size in shape.iter() {
            let Item::Int(size) = size else { return Err(wrong()) };
            let size = u64::try_from(*size).map_err(|_negative| wrong())?;
            bytes = bytes.checked_mul(size).ok_or_else(wrong)?;
        }
        if let Some(Item::Int(_)) = field(state, "numpy_array_alignment_bytes") {
            let padding = self.source.byte()?;
            self.source.skip(padding.into())?;
        }
        self.source.skip(bytes)
    }

    fn import_from_stack(&mut self) -> Result<(), Stop> {
        let (name, module) = (self.pop()?, self.pop()?);
        let item = match (module, name) {
            (Item::Text(module), Item::Text(name)) => self.import(&module, &name),
            (Item::Lost, _) | (_, Item::Lost) => {
                return Err(Stop::Malformed("it has more texts than are kept"));
            }
            _ => {
                self.details.add_reason("it imports by names that it computes".to_owned());
                Item::Other
            }
        };
        self.push(item)
    }

    fn import(&mut self, module: &str, name: &str) -> Item {
        self.details.import(module, name, self.draft);
        match (todays(module), name) {
            ARRAY => Item::ArrayClass,
            ("numpy", "dtype") => Item::DtypeClass,
            _ => Item::Other,
        }
    }
}

/// What a dictionary has under a name.
fn field<'s>(state: &'s [(Rc<str>, Item)], name: &str) -> Option<&'s Item> {
    state.iter().find(|(key, _)| &**key == name).map(|(_, item)| item)
}

fn text_of(bytes: Option<Vec<u8>>) -> Item {
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or(Item::Other, |text| Item::Text(text.into()))
}

/// The little-endian number of at most eight bytes.
fn int_of(bytes: &[u8]) -> Item {
    let Some(last) = bytes.last() else { return Item::Int(0) };
    if 8 < bytes.len() {
        return Item::Other;
    }
    let mut whole = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Item::Int(i64::from_le_bytes(whole))
}

/// Bytes of one element, inner `None` of an object; `None` where that cannot be told.
fn item_bytes(dtype: &str) -> Option<Option<u64>> {
    let plain = dtype.trim_start_matches(['<', '>', '|', '=']);
    let kind = plain.chars().next()?;
    let count = &plain[kind.len_utf8()..];
    let count: u64 = count.split('[').next()?.parse().ok()?;
    match kind {
        'O' => Some(None),
        'U' => count.checked_mul(4).map(Some),
        _ => Some(Some(count)),
    }
}
