//! The opcodes of pickles: their names, and what follows each.

/// What follows an opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// So many bytes.
    Fixed(u8),
    /// A line.
    Line,
    /// Two lines.
    Lines,
    /// A length of so many bytes, and as many bytes as it says.
    Counted(u8),
}

use Argument::{Counted, Fixed, Line, Lines};

/// Every opcode: its byte, its name, its argument.
const OPCODES: [(u8, &str, Argument); 68] = [
    (b'(', "MARK", Fixed(0)),
    (b'.', "STOP", Fixed(0)),
    (b'0', "POP", Fixed(0)),
    (b'1', "POP_MARK", Fixed(0)),
    (b'2', "DUP", Fixed(0)),
    (b'F', "FLOAT", Line),
    (b'I', "INT", Line),
    (b'J', "BININT", Fixed(4)),
    (b'K', "BININT1", Fixed(1)),
    (b'L', "LONG", Line),
    (b'M', "BININT2", Fixed(2)),
    (b'N', "NONE", Fixed(0)),
    (b'P', "PERSID", Line),
    (b'Q', "BINPERSID", Fixed(0)),
    (b'R', "REDUCE", Fixed(0)),
    (b'S', "STRING", Line),
    (b'T', "BINSTRING", Counted(4)),
    (b'U', "SHORT_BINSTRING", Counted(1)),
    (b'V', "UNICODE", Line),
    (b'X', "BINUNICODE", Counted(4)),
    (b'a', "APPEND", Fixed(0)),
    (b'b', "BUILD", Fixed(0)),
    (b'c', "GLOBAL", Lines),
    (b'd', "DICT", Fixed(0)),
    (b'}', "EMPTY_DICT", Fixed(0)),
    (b'e', "APPENDS", Fixed(0)),
    (b'g', "GET", Line),
    (b'h', "BINGET", Fixed(1)),
    (b'i', "INST", Lines),
    (b'j', "LONG_BINGET", Fixed(4)),
    (b'l', "LIST", Fixed(0)),
    (b']', "EMPTY_LIST", Fixed(0)),
    (b'o', "OBJ", Fixed(0)),
    (b'p', "PUT", Line),
    (b'q', "BINPUT", Fixed(1)),
    (b'r', "LONG_BINPUT", Fixed(4)),
    (b's', "SETITEM", Fixed(0)),
    (b't', "TUPLE", Fixed(0)),
    (b')', "EMPTY_TUPLE", Fixed(0)),
    (b'u', "SETITEMS", Fixed(0)),
    (b'G', "BINFLOAT", Fixed(8)),
    (b'B', "BINBYTES", Counted(4)),
    (b'C', "SHORT_BINBYTES", Counted(1)),
    (0x80, "PROTO", Fixed(1)),
    (0x81, "NEWOBJ", Fixed(0)),
    (0x82, "EXT1", Fixed(1)),
    (0x83, "EXT2", Fixed(2)),
    (0x84, "EXT4", Fixed(4)),
    (0x85, "TUPLE1", Fixed(0)),
    (0x86, "TUPLE2", Fixed(0)),
    (0x87, "TUPLE3", Fixed(0)),
    (0x88, "NEWTRUE", Fixed(0)),
    (0x89, "NEWFALSE", Fixed(0)),
    (0x8a, "LONG1", Counted(1)),
    (0x8b, "LONG4", Counted(4)),
    (0x8c, "SHORT_BINUNICODE", Counted(1)),
    (0x8d, "BINUNICODE8", Counted(8)),
    (0x8e, "BINBYTES8", Counted(8)),
    (0x8f, "EMPTY_SET", Fixed(0)),
    (0x90, "ADDITEMS", Fixed(0)),
    (0x91, "FROZENSET", Fixed(0)),
    (0x92, "NEWOBJ_EX", Fixed(0)),
    (0x93, "STACK_GLOBAL", Fixed(0)),
    (0x94, "MEMOIZE", Fixed(0)),
    (0x95, "FRAME", Fixed(8)),
    (0x96, "BYTEARRAY8", Counted(8)),
    (0x97, "NEXT_BUFFER", Fixed(0)),
    (0x98, "READONLY_BUFFER", Fixed(0)),
];

/// Their indices in `OPCODES` by byte.
const INDEX: [Option<usize>; 256] = {
    let mut indices = [None; 256];
    let mut index = 0;
    while index < OPCODES.len() {
        indices[OPCODES[index].0 as usize] = Some(index);
        index += 1;
    }
    indices
};

/// The opcode with this byte.
pub fn find(byte: u8) -> Option<(&'static str, Argument)> {
    let (_, name, argument) = OPCODES[INDEX[usize::from(byte)]?];
    Some((name, argument))
}
