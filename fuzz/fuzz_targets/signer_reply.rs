#![no_main]

longhand_fuzz::target!(signer_reply, script);
