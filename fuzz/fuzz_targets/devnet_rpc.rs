#![no_main]

longhand_fuzz::target!(devnet_rpc, bytes);
