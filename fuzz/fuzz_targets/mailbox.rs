#![no_main]

longhand_fuzz::target!(mailbox, script);
