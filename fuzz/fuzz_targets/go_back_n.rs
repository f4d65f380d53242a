#![no_main]

longhand_fuzz::target!(go_back_n, script);
