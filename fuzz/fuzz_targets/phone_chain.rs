#![no_main]

longhand_fuzz::target!(phone_chain, bytes);
