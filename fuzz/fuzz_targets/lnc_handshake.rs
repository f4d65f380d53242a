#![no_main]

longhand_fuzz::target!(lnc_handshake, script);
