#![no_main]

longhand_fuzz::target!(host_config, bytes);
