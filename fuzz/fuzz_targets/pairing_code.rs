#![no_main]

longhand_fuzz::target!(pairing_code, bytes);
