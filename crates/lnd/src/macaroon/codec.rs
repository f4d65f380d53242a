//! The binary format of libmacaroons, version 2: a version byte, then fields of a type and a length (both LEB128) in sections, each
//! ended by a zero: a header, one section for each caveat, an empty one, and the signature.

use zeroize::Zeroizing;

use super::{MOST_BYTES, MOST_CAVEATS, Macaroon, MacaroonError};

const VERSION: u8 = 2;
const END: u64 = 0;
const LOCATION: u64 = 1;
const IDENTIFIER: u64 = 2;
const VERIFICATION_ID: u64 = 4;
const SIGNATURE: u64 = 6;

pub(super) const TOO_LONG: MacaroonError = MacaroonError::Malformed("it is too long");
const CUT: MacaroonError = MacaroonError::Malformed("it ends too early");
const MIXED: MacaroonError = MacaroonError::Malformed("its fields are not in their order");

pub(super) fn encode(macaroon: &Macaroon) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(vec![VERSION]);
    if !macaroon.location.is_empty() {
        put(&mut out, LOCATION, &macaroon.location);
    }
    put(&mut out, IDENTIFIER, &macaroon.id);
    out.push(0);
    for caveat in &macaroon.caveats {
        put(&mut out, IDENTIFIER, caveat);
        out.push(0);
    }
    out.push(0);
    put(&mut out, SIGNATURE, &macaroon.signature);
    out
}

fn put(out: &mut Vec<u8>, kind: u64, data: &[u8]) {
    put_number(out, kind);
    put_number(out, data.len() as u64);
    out.extend_from_slice(data);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Macaroon, MacaroonError> {
    if bytes.len() > MOST_BYTES {
        return Err(TOO_LONG);
    }
    let mut reader = match bytes.split_first() {
        Some((&VERSION, rest)) => Reader(rest),
        _ => return Err(MacaroonError::Malformed("it is not of version 2")),
    };
    let mut header = reader.section()?;
    let location = header.take(LOCATION).unwrap_or_default().to_vec();
    let id = header.take(IDENTIFIER).ok_or(MIXED)?.to_vec();
    header.ended()?;
    let mut caveats = Vec::new();
    loop {
        let mut section = reader.section()?;
        if section.0.is_empty() {
            break;
        }
        if caveats.len() == MOST_CAVEATS {
            return Err(TOO_LONG);
        }
        caveats.push(first_party(&mut section)?.to_vec());
    }
    let (kind, signature) = reader.field()?;
    let signature = <[u8; 32]>::try_from(signature).ok();
    let signature = signature.filter(|_| kind == SIGNATURE).ok_or(MIXED)?;
    if !reader.0.is_empty() {
        return Err(MacaroonError::Malformed("something follows it"));
    }
    Ok(Macaroon {
        location,
        id,
        caveats,
        signature,
    })
}

fn first_party<'a>(section: &mut Section<'a>) -> Result<&'a [u8], MacaroonError> {
    let location = section.take(LOCATION);
    let id = section.take(IDENTIFIER).ok_or(MIXED)?;
    let verification_id = section.take(VERIFICATION_ID);
    section.ended()?;
    match (location, verification_id) {
        (None, None) => Ok(id),
        _ => Err(MacaroonError::UnknownCaveat),
    }
}

/// The bytes that are left.
struct Reader<'a>(&'a [u8]);

/// Fields with ascending types, the next one last.
struct Section<'a>(Vec<(u64, &'a [u8])>);

impl<'a> Reader<'a> {
    fn section(&mut self) -> Result<Section<'a>, MacaroonError> {
        let mut fields: Vec<(u64, &[u8])> = Vec::new();
        loop {
            let (kind, data) = self.field()?;
            if kind == END {
                fields.reverse();
                return Ok(Section(fields));
            }
            // So a section has no more fields than there are types.
            if kind > SIGNATURE || fields.last().is_some_and(|(last, _)| *last >= kind) {
                return Err(MIXED);
            }
            fields.push((kind, data));
        }
    }

    fn field(&mut self) -> Result<(u64, &'a [u8]), MacaroonError> {
        let kind = self.number()?;
        if kind == END {
            return Ok((END, &[]));
        }
        let length = self.number()?;
        let length = usize::try_from(length).map_err(|_| CUT)?;
        let (data, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok((kind, data))
    }

    /// LEB128, of at most 31 bits.
    fn number(&mut self) -> Result<u64, MacaroonError> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(CUT)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number).filter(|it| *it <= 0x7fff_ffff).ok_or(TOO_LONG);
            }
        }
        Err(TOO_LONG)
    }
}

impl<'a> Section<'a> {
    fn take(&mut self, kind: u64) -> Option<&'a [u8]> {
        let next = self.0.pop_if(|(next, _)| *next == kind);
        next.map(|(_, data)| data)
    }

    fn ended(&self) -> Result<(), MacaroonError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(MIXED),
        }
    }
}
