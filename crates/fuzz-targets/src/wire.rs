//! Changes protobuf messages without knowing which: fields are doubled, left out, swapped, renumbered, filled with
//! each other's content, and leaves are changed. Lengths are written anew, so that the result is protobuf.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// Nested deeper, a message is bytes.
const DEPTH: u32 = 8;
/// Most changes to one input.
const CHANGES: u64 = 4;

/// As LLVM's `LLVMFuzzerCustomMutator`: changes the first `size` bytes of `data`, which has room for `max_size`, and
/// returns how many they are now. `bytes` changes plain bytes in the same way (`libfuzzer_sys::fuzzer_mutate`).
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    bytes: fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Random(u64::from(seed) << 1 | 1);
    let max_size = max_size.min(data.len());
    // A change of raw bytes now and then: input that is not protobuf has to be tried too.
    let fields = match random.below(32) {
        0 => None,
        _ => parse(&data[..size], DEPTH),
    };
    let Some(mut fields) = fields else {
        return bytes(data, size, max_size);
    };
    let mut change = Change {
        random,
        bytes,
        all: fields.clone(),
    };
    for _ in 0..=change.random.below(CHANGES) {
        change.message(&mut fields);
    }
    let mut out = Vec::new();
    write(&fields, &mut out);
    if out.len() > max_size {
        return bytes(data, size, max_size);
    }
    data[..out.len()].copy_from_slice(&out);
    out.len()
}

#[derive(Clone)]
struct Field {
    number: u32,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

fn parse(mut data: &[u8], depth: u32) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while data.has_remaining() {
        let (number, wire_type) = decode_key(&mut data).ok()?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut data).ok()?),
            WireType::SixtyFourBit => Value::Fixed64(data.try_get_u64_le().ok()?),
            WireType::ThirtyTwoBit => Value::Fixed32(data.try_get_u32_le().ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut data).ok()?).ok()?;
                let (inside, rest) = data.split_at_checked(length)?;
                data = rest;
                let message = (depth > 0 && !inside.is_empty()).then(|| parse(inside, depth - 1));
                match message.flatten() {
                    Some(message) => Value::Message(message),
                    None => Value::Bytes(inside.to_vec()),
                }
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let mut inside = Vec::new();
        match value {
            Value::Varint(varint) => {
                encode_key(*number, WireType::Varint, out);
                encode_varint(*varint, out);
                continue;
            }
            Value::Fixed64(fixed) => {
                encode_key(*number, WireType::SixtyFourBit, out);
                out.put_u64_le(*fixed);
                continue;
            }
            Value::Fixed32(fixed) => {
                encode_key(*number, WireType::ThirtyTwoBit, out);
                out.put_u32_le(*fixed);
                continue;
            }
            Value::Bytes(bytes) => inside.extend_from_slice(bytes),
            Value::Message(fields) => write(fields, &mut inside),
        }
        encode_key(*number, WireType::LengthDelimited, out);
        encode_varint(inside.len() as u64, out);
        out.extend(inside);
    }
}

struct Change {
    random: Random,
    bytes: fn(&mut [u8], usize, usize) -> usize,
    /// As it came in, to copy from.
    all: Vec<Field>,
}

impl Change {
    /// Changes one thing in this message or in one inside it.
    fn message(&mut self, fields: &mut Vec<Field>) {
        if fields.is_empty() {
            let copy = self.some_field();
            fields.extend(copy);
            return;
        }
        let at = self.random.index(fields.len());
        if let Value::Message(inside) = &mut fields[at].value
            && self.random.below(5) > 0
        {
            return self.message(inside);
        }
        match self.random.below(12) {
            0 => drop(fields.remove(at)),
            1 => fields.insert(at, fields[at].clone()),
            2 => {
                let other = self.random.index(fields.len());
                fields.swap(at, other);
            }
            3 => {
                let step = 1 + self.random.below(4) as u32;
                let number = match self.random.below(2) {
                    0 => fields[at].number.saturating_sub(step),
                    _ => fields[at].number + step,
                };
                fields[at].number = number.clamp(1, 1 << 20);
            }
            4 => {
                if let Some(copy) = self.some_field() {
                    fields.insert(at, copy);
                }
            }
            5 => {
                if let Some(copy) = self.some_field() {
                    fields[at].value = copy.value;
                }
            }
            _ => self.leaf(&mut fields[at].value),
        }
    }

    fn leaf(&mut self, value: &mut Value) {
        match value {
            Value::Varint(number) => *number = self.number(*number),
            Value::Fixed64(number) => *number = self.number(*number),
            Value::Fixed32(number) => *number = self.number(u64::from(*number)) as u32,
            Value::Bytes(content) => self.content(content),
            Value::Message(fields) => {
                let mut content = Vec::new();
                write(fields, &mut content);
                self.content(&mut content);
                *value = Value::Bytes(content);
            }
        }
    }

    fn number(&mut self, number: u64) -> u64 {
        const KNOWN: [u64; 12] = [
            0,
            1,
            2,
            0x7f,
            0xffff,
            0x7fff_ffff,
            0xffff_ffff,
            (1 << 48) - 1,
            1 << 48,
            i64::MAX as u64,
            u64::MAX - 1,
            u64::MAX,
        ];
        let known = KNOWN[self.random.index(KNOWN.len())];
        match self.random.below(6) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => number ^ 1 << self.random.below(64),
            3 => known,
            4 => self.random.below(256),
            _ => self.random.next() >> self.random.below(64),
        }
    }

    /// Bytes whose length stays, for keys and hashes, or any.
    fn content(&mut self, content: &mut Vec<u8>) {
        if self.random.below(3) == 0 && !content.is_empty() {
            let at = self.random.index(content.len());
            content[at] ^= 1 << self.random.below(8);
            return;
        }
        let (size, room) = (content.len(), content.len() * 2 + 16);
        content.resize(room, 0);
        let size = (self.bytes)(content, size, room);
        content.truncate(size);
    }

    /// A copy of a field from anywhere in the input.
    fn some_field(&mut self) -> Option<Field> {
        let mut fields = &self.all;
        loop {
            if fields.is_empty() {
                return None;
            }
            let field = &fields[self.random.index(fields.len())];
            match &field.value {
                Value::Message(inside) if !inside.is_empty() && self.random.below(3) > 0 => {
                    fields = inside;
                }
                _ => return Some(field.clone()),
            }
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_protobuf_is_protobuf() {
        let command = crate::command::seeds().swap_remove(0);
        let mut data = command.clone();
        data.resize(4096, 0);
        let mut changed = 0;
        for seed in 0..2_000 {
            let keep = |_: &mut [u8], size: usize, _: usize| size;
            data[..command.len()].copy_from_slice(&command);
            let size = mutate(&mut data, command.len(), 4096, seed, keep);
            assert!(parse(&data[..size], DEPTH).is_some());
            changed += u32::from(data[..size] != command[..]);
        }
        assert!(changed > 1_000, "{changed}");
    }
}
