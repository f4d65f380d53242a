#![no_main]

longhand_fuzz::target!(websocket, bytes);
