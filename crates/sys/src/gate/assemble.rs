//! Programs with named places: jumps are filled in when the place is known. All jumps lead forward.

use crate::bpf::{
    ADD, AND_32, CALL, EXIT, Insn, JUMP, JUMP_EQUAL, JUMP_EQUAL_32, JUMP_NOT_EQUAL, JUMP_NOT_EQUAL_32, LOAD_WIDE, MOVE,
    MOVE_REGISTER, PSEUDO_MAP, insn,
};

/// Destination and source.
#[derive(Clone, Copy, Debug)]
pub struct Registers(pub u8, pub u8);

/// A place in a program.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// A program under construction.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Insn>,
    /// Where each label is, once that is known.
    places: Vec<Option<usize>>,
    /// Jumps and where they lead.
    jumps: Vec<(usize, Label)>,
}

/// The frame pointer.
pub const FRAME: u8 = 10;

/// Helper (`enum bpf_func_id`), which needs a context in [`CONTEXT`].
const SKB_LOAD_BYTES: i32 = 26;
/// Where the program keeps its context.
pub const CONTEXT: u8 = 6;

impl Assembler {
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label is here.
    pub fn bind(&mut self, label: Label) {
        self.places[label.0] = Some(self.code.len());
    }

    /// One instruction: destination and source register, offset, immediate.
    pub fn put(&mut self, code: u8, registers: Registers, offset: i16, immediate: i32) {
        let Registers(to, from) = registers;
        self.code.push(insn(code, from << 4 | to, offset, immediate));
    }

    pub fn jump(&mut self, to: Label) {
        self.branch(JUMP, Registers(0, 0), 0, to);
    }

    /// A conditional jump of this code.
    pub fn branch(&mut self, code: u8, registers: Registers, immediate: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.put(code, registers, 0, immediate);
    }

    pub fn if_is(&mut self, register: u8, value: i32, to: Label) {
        self.branch(JUMP_EQUAL, Registers(register, 0), value, to);
    }

    pub fn if_not(&mut self, register: u8, value: i32, to: Label) {
        self.branch(JUMP_NOT_EQUAL, Registers(register, 0), value, to);
    }

    /// Compares four bytes as they lie in memory.
    pub fn if_word_is(&mut self, register: u8, value: [u8; 4], to: Label) {
        self.branch(JUMP_EQUAL_32, Registers(register, 0), i32::from_ne_bytes(value), to);
    }

    pub fn if_word_not(&mut self, register: u8, value: [u8; 4], to: Label) {
        self.branch(JUMP_NOT_EQUAL_32, Registers(register, 0), i32::from_ne_bytes(value), to);
    }

    pub fn copy(&mut self, to: u8, from: u8) {
        self.put(MOVE_REGISTER, Registers(to, from), 0, 0);
    }

    pub fn set(&mut self, to: u8, value: i32) {
        self.put(MOVE, Registers(to, 0), 0, value);
    }

    pub fn mask(&mut self, register: u8, value: i32) {
        self.put(AND_32, Registers(register, 0), 0, value);
    }

    pub fn call(&mut self, helper: i32) {
        self.put(CALL, Registers(0, 0), 0, helper);
    }

    /// The address of a place on the stack.
    pub fn address(&mut self, to: u8, at: i16) {
        self.copy(to, FRAME);
        self.put(ADD, Registers(to, 0), 0, i32::from(at));
    }

    pub fn map(&mut self, to: u8, map: i32) {
        self.put(LOAD_WIDE, Registers(to, PSEUDO_MAP), 0, map);
        self.put(0, Registers(0, 0), 0, 0);
    }

    /// Copies `count` bytes of the frame from `offset` on to the stack.
    pub fn load_bytes(&mut self, offset: i32, (at, count): (i16, i32), otherwise: Label) {
        self.copy(1, CONTEXT);
        self.set(2, offset);
        self.address(3, at);
        self.set(4, count);
        self.call(SKB_LOAD_BYTES);
        self.if_not(0, 0, otherwise);
    }

    pub fn leave(&mut self, result: i32) {
        self.set(0, result);
        self.put(EXIT, Registers(0, 0), 0, 0);
    }

    /// The program.
    pub fn finish(mut self) -> Vec<Insn> {
        for (at, label) in self.jumps {
            let place = self.places[label.0].expect("every label that is jumped to is bound");
            self.code[at].offset = (place - at - 1) as i16;
        }
        self.code
    }
}
