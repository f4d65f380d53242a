#![no_main]

longhand_fuzz::target!(link_session, script);
