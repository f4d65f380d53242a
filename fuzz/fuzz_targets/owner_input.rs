#![no_main]

longhand_fuzz::target!(owner_input, bytes);
