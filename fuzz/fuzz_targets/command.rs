#![no_main]

longhand_fuzz::target!(command, script);
