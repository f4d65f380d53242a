#![no_main]

longhand_fuzz::target!(vault_files, script);
