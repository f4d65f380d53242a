#![no_main]

longhand_fuzz::target!(lnd_rpc, script);
