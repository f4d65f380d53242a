#![no_main]

longhand_fuzz::target!(esplora_answer, bytes);
