#![no_main]

longhand_fuzz::target!(hashmail, script);
