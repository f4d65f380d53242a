#![no_main]

longhand_fuzz::target!(phone_ledger, script);
