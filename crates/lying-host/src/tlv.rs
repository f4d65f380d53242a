//! LDK's TLV records, for changing one field of an encoding.

use bitcoin::consensus::encode::{Decodable, Encodable};
use lightning::util::ser::{BigSize, Readable, Writeable};

/// The fields of a length-prefixed TLV stream.
#[derive(Clone)]
pub(crate) struct Fields(Vec<(u64, Vec<u8>)>);

impl Fields {
    /// Reads a stream.
    pub fn read(mut bytes: &[u8]) -> Fields {
        let length = big_size(&mut bytes) as usize;
        let mut bytes = &bytes[..length];
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let kind = big_size(&mut bytes);
            let length = big_size(&mut bytes) as usize;
            let (value, rest) = bytes.split_at(length);
            fields.push((kind, value.to_vec()));
            bytes = rest;
        }
        Fields(fields)
    }

    pub fn write(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        for (kind, value) in &self.0 {
            stream.extend(BigSize(*kind).encode());
            stream.extend(BigSize(value.len() as u64).encode());
            stream.extend(value);
        }
        let mut all = BigSize(stream.len() as u64).encode();
        all.extend(stream);
        all
    }

    pub fn get(&self, kind: u64) -> &[u8] {
        let found = self.0.iter().find(|(it, _)| *it == kind);
        found.map_or(&[], |(_, value)| value)
    }

    /// The same with another value.
    pub fn with(mut self, kind: u64, value: Vec<u8>) -> Fields {
        for (it, old) in &mut self.0 {
            if *it == kind {
                old.clone_from(&value);
            }
        }
        self
    }
}

fn big_size(bytes: &mut &[u8]) -> u64 {
    BigSize::read(bytes).map_or(0, |size| size.0)
}

/// Consensus-decodes a value.
pub(crate) fn decode<T: Decodable>(bytes: &[u8]) -> T {
    bitcoin::consensus::deserialize(bytes).expect("LDK encoded it")
}

/// Consensus-encodes a value.
pub(crate) fn encode<T: Encodable>(value: &T) -> Vec<u8> {
    bitcoin::consensus::serialize(value)
}
