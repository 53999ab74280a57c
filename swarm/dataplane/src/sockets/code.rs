//! A program as the kernel's own machine reads it, step by step. Pure: what a program is for is said
//! by who writes it.

/// What a step works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(u8);

/// What a function answers.
pub(super) const R0: Register = Register(0);
/// What functions are given; they leave nothing in these.
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
/// What no function touches.
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const R8: Register = Register(8);
/// Where the stack ends.
pub(super) const STACK: Register = Register(10);

/// Somewhere in memory: so many bytes after what a register says.
pub(super) type Place = (Register, i16);

/// How many bytes of memory a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Four = 0x00,
    Eight = 0x18,
}

/// Functions of the kernel, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// Where the value of a key is in a map, or nothing.
    Find = 1,
    /// Puts a key and its value into a map.
    Put = 2,
    /// What tells a socket from all others.
    SocketCookie = 46,
    /// What tells its network namespace from all others.
    NamespaceCookie = 122,
}

/// What steps do, by number.
const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const STORE_NUMBER: u8 = 0x62;
const LOAD_WIDE: u8 = 0x18;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const REMAINDER: u8 = 0x9c;
const ATOMIC: u8 = 0xc3;
const FETCH_AND_ADD: i32 = 0x01;
const IF_NONE: u8 = 0x15;
const IF_NOT: u8 = 0x56;
const IF_OTHER: u8 = 0x5e;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// Bytes of a step.
const STEP: usize = 8;

/// Where in a program a map is named, in bytes, and which it is.
pub(super) type Mention = (usize, &'static str);

/// A program under way. All its jumps lead to its end.
#[derive(Debug, Default)]
pub(super) struct Code {
    bytes: Vec<u8>,
    jumps: Vec<usize>,
    mentions: Vec<Mention>,
}

impl Code {
    pub(super) fn load(&mut self, size: Size, to: Register, (from, offset): Place) {
        self.step(LOAD | size as u8, (to, from), offset, 0);
    }

    pub(super) fn store(&mut self, size: Size, (to, offset): Place, from: Register) {
        self.step(STORE | size as u8, (to, from), offset, 0);
    }

    pub(super) fn store_number(&mut self, size: Size, (to, offset): Place, number: i32) {
        self.step(STORE_NUMBER | size as u8, (to, R0), offset, number);
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.step(COPY, (to, from), 0, 0);
    }

    pub(super) fn set(&mut self, to: Register, number: i32) {
        self.step(SET, (to, R0), 0, number);
    }

    /// An address on the stack.
    pub(super) fn on_stack(&mut self, to: Register, offset: i16) {
        self.copy(to, STACK);
        self.step(ADD, (to, R0), 0, i32::from(offset));
    }

    /// What remains of one number after division by another, both of four bytes.
    pub(super) fn remainder(&mut self, of: Register, by: Register) {
        self.step(REMAINDER, (of, by), 0, 0);
    }

    /// Adds to four bytes in memory; the register then has what they were before.
    pub(super) fn fetch_and_add(&mut self, (to, offset): Place, number: Register) {
        self.step(ATOMIC, (to, number), offset, FETCH_AND_ADD);
    }

    pub(super) fn call(&mut self, function: Function) {
        self.step(CALL, (R0, R0), 0, function as i32);
    }

    /// A map, for a function.
    pub(super) fn map(&mut self, to: Register, map: &'static str) {
        self.mentions.push((self.bytes.len(), map));
        self.step(LOAD_WIDE, (to, R0), 0, 0);
        self.step(0, (R0, R0), 0, 0);
    }

    /// Goes to the end where there is nothing.
    pub(super) fn end_if_none(&mut self, it: Register) {
        self.jump(IF_NONE, (it, R0), 0);
    }

    /// Goes to the end if four bytes are not this number.
    pub(super) fn end_unless(&mut self, it: Register, number: i32) {
        self.jump(IF_NOT, (it, R0), number);
    }

    /// Goes to the end if four bytes are not the same as four others.
    pub(super) fn end_unless_same(&mut self, one: Register, other: Register) {
        self.jump(IF_OTHER, (one, other), 0);
    }

    /// Adds the end: what was asked for goes on. All bytes, and where maps are named in them.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<Mention>) {
        let end = self.bytes.len();
        self.set(R0, 1);
        self.step(EXIT, (R0, R0), 0, 0);
        for at in &self.jumps {
            let steps = (end - at) / STEP - 1;
            // No program here has that many.
            let steps = i16::try_from(steps).unwrap_or(i16::MAX).to_le_bytes();
            let offset = self.bytes.iter_mut().skip(at + 2);
            offset.zip(steps).for_each(|(byte, new)| *byte = new);
        }
        (self.bytes, self.mentions)
    }

    fn jump(&mut self, what: u8, of: (Register, Register), number: i32) {
        self.jumps.push(self.bytes.len());
        self.step(what, of, 0, number);
    }

    fn step(&mut self, what: u8, (to, from): (Register, Register), offset: i16, number: i32) {
        self.bytes.extend([what, to.0 | from.0 << 4]);
        self.bytes.extend(offset.to_le_bytes());
        self.bytes.extend(number.to_le_bytes());
    }
}
