#![no_main]

longhand_fuzz::target!(operator, script);
