#![no_main]

longhand_fuzz::target!(command_reply, script);
