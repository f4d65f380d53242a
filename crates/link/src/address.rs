//! Addresses of hosts: `scheme://authority?name=value&name=value`.
//!
//! The scheme says which carrier is meant (RFC 3986, 3.1); authority and parameters are read by that carrier alone. An address of
//! an unknown scheme is kept as it is, so that a pairing code made for newer phones can be used by older ones.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::LinkError;

/// The longest address, in bytes: a pairing code has one byte for the length.
pub const MAX_ADDRESS: usize = 255;

/// Characters of parameters that are written as `%XX` (RFC 3986, 2.1): all that separate something, in the address or in a
/// list of addresses.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@');

/// The place where a host listens, or is reached. It has at most [`MAX_ADDRESS`] bytes as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    scheme: String,
    authority: String,
    parameters: Vec<(String, String)>,
}

impl Address {
    /// An address without parameters.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(scheme: &str, authority: &str) -> Result<Address, AddressError> {
        let starts_well = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !starts_well || !scheme.chars().all(is_scheme) {
            return Err(AddressError::Scheme);
        }
        let is_authority = |c: char| c.is_ascii_graphic() && !"?#".contains(c);
        if authority.is_empty() || !authority.chars().all(is_authority) {
            return Err(AddressError::Authority);
        }
        Address {
            scheme: scheme.to_ascii_lowercase(),
            authority: authority.to_owned(),
            parameters: Vec::new(),
        }
        .bounded()
    }

    /// The same address with one parameter more.
    ///
    /// # Errors
    /// [`AddressError::Parameter`] when the name is empty or there already; [`AddressError::TooLong`].
    pub fn with(mut self, name: &str, value: &str) -> Result<Address, AddressError> {
        if name.is_empty() || self.parameter(name).is_some() {
            return Err(AddressError::Parameter);
        }
        self.parameters.push((name.to_owned(), value.to_owned()));
        self.bounded()
    }

    /// Names the carrier, such as `grpcs`; in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The place, such as `host.example:9750`: visible ASCII, never empty.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The value of a parameter, decoded; `None` when it is not there.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }

    /// Names and values of all parameters, decoded, in the order of the text.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.parameters.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The route at a balancer before several mailboxes: the parameter `route`, one hexadecimal digit.
    ///
    /// # Errors
    /// [`LinkError::UnknownCarrier`] when it is something else.
    pub fn route(&self) -> Result<Option<char>, LinkError> {
        let Some(text) = self.parameter("route") else {
            return Ok(None);
        };
        let digit = text.parse::<char>().ok().filter(char::is_ascii_hexdigit);
        let unknown = || LinkError::UnknownCarrier(self.to_string());
        digit.map(Some).ok_or_else(unknown)
    }

    /// The URL of a WebSocket at this address, whose scheme is `ws` or `wss`: with a path, and without parameters but the route.
    ///
    /// # Errors
    /// As [`Address::route`].
    pub fn websocket_url(&self) -> Result<String, LinkError> {
        let mut url = format!("{}://{}", self.scheme, self.authority);
        if !self.authority.contains('/') {
            url.push('/');
        }
        if let Some(route) = self.route()? {
            url.push_str(&format!("?route={route}"));
        }
        Ok(url)
    }

    fn bounded(self) -> Result<Address, AddressError> {
        match self.to_string().len() {
            0..=MAX_ADDRESS => Ok(self),
            _ => Err(AddressError::TooLong),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)?;
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            let [name, value] = [name, value].map(|text| utf8_percent_encode(text, ENCODED));
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if text.len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::NoScheme)?;
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let mut address = Address::new(scheme, authority)?;
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').ok_or(AddressError::Parameter)?;
            address = address.with(&decode(name)?, &decode(value)?)?;
        }
        Ok(address)
    }
}

/// Decodes a name or a value of an address.
fn decode(text: &str) -> Result<String, AddressError> {
    let is_written = |c: char| c.is_ascii_graphic() && c != '#';
    if !text.chars().all(is_written) {
        return Err(AddressError::Parameter);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| AddressError::Parameter)
}

/// Why text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no `://`.
    #[error("an address begins with its scheme: write it as grpc://127.0.0.1:9750")]
    NoScheme,
    /// The scheme has other characters than RFC 3986 allows, or none.
    #[error("the scheme of an address is a letter, then letters, digits, '+', '-' or '.'")]
    Scheme,
    /// The authority is empty, or has a character that is not visible ASCII.
    #[error("after its scheme an address has a place without spaces, such as 127.0.0.1:9750")]
    Authority,
    /// The parameters cannot be read, or one is there twice.
    #[error(
        "parameters of an address are written ?name=value&name=value, each name once, other characters as %XX"
    )]
    Parameter,
    /// It is longer than [`MAX_ADDRESS`].
    #[error("an address has at most {MAX_ADDRESS} bytes: give a shorter one")]
    TooLong,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    #[test]
    fn an_address_has_a_scheme_a_place_and_parameters() {
        let address = parse("GRPCS://[::1]:9750?key=/etc/my%20key.pem&empty=").unwrap();
        assert_eq!(address.scheme(), "grpcs");
        assert_eq!(address.authority(), "[::1]:9750");
        assert_eq!(address.parameter("key"), Some("/etc/my key.pem"));
        assert_eq!(address.parameter("empty"), Some(""));
        assert_eq!(address.parameter("none"), None);
        let shown = "grpcs://[::1]:9750?key=/etc/my%20key.pem&empty=";
        assert_eq!(address.to_string(), shown);
    }

    #[test]
    fn schemes_that_are_not_known_yet_are_kept() {
        for text in [
            "mailbox+wss://relay.example/box/7?id=a1",
            "tor://abcdef.onion:9750",
            "lnc://mailbox.example:443?phrase=ten%20words",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_its_part() {
        for (text, error) in [
            ("", AddressError::NoScheme),
            ("127.0.0.1:9750", AddressError::NoScheme),
            ("://a", AddressError::Scheme),
            ("9p://a", AddressError::Scheme),
            ("g rpc://a", AddressError::Scheme),
            ("grpc://", AddressError::Authority),
            ("grpc://?a=b", AddressError::Authority),
            ("grpc://a b", AddressError::Authority),
            ("grpc://a#b", AddressError::Authority),
            ("grpc://ä", AddressError::Authority),
            ("grpc://a?", AddressError::Parameter),
            ("grpc://a?b", AddressError::Parameter),
            ("grpc://a?=b", AddressError::Parameter),
            ("grpc://a?b=c&b=d", AddressError::Parameter),
            ("grpc://a?b=c d", AddressError::Parameter),
            ("grpc://a?b=c#d", AddressError::Parameter),
            ("grpc://a?b=%ff", AddressError::Parameter),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_address_fits_the_length_byte_of_a_pairing_code_also_when_it_is_written_again() {
        let longest = format!("grpc://{}", "a".repeat(MAX_ADDRESS - 7));
        assert_eq!(parse(&longest).unwrap().to_string(), longest);
        assert_eq!(parse(&format!("{longest}a")), Err(AddressError::TooLong));
        // A comma is written as three characters.
        let commas = format!("grpc://a?b={}", ",".repeat(100));
        assert_eq!(parse(&commas), Err(AddressError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in "\\PC{0,300}") {
            if let Ok(address) = parse(&text) {
                let shown = address.to_string();
                prop_assert!(shown.len() <= MAX_ADDRESS);
                prop_assert_eq!(parse(&shown), Ok(address));
            }
        }

        #[test]
        fn what_looks_like_an_address_comes_back_as_it_was(
            text in "[a-zA-Z][a-z0-9+.-]{0,8}://[!-~]{1,20}(\\?[a-z%&=0-9~]{0,20})?",
        ) {
            if let Ok(address) = parse(&text) {
                prop_assert_eq!(parse(&address.to_string()), Ok(address));
            }
        }

        #[test]
        fn every_parameter_comes_back(
            pairs in prop::collection::btree_map("\\PC{1,3}", "\\PC{0,3}", 0..3),
        ) {
            let mut address = Address::new("memory", "here").unwrap();
            for (name, value) in &pairs {
                address = address.with(name, value).unwrap();
            }
            let read = parse(&address.to_string()).unwrap();
            let found: Vec<_> = read.parameters().collect();
            let given: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(found, given);
        }
    }
}
