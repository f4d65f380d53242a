#![no_main]

longhand_fuzz::target!(chain_answer, script);
