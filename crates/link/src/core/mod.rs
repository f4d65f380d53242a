//! The link's protocol as values: bytes and the time go in, bytes and events come out.
