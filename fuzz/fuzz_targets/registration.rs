#![no_main]

longhand_fuzz::target!(registration, script);
