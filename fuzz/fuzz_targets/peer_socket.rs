#![no_main]

longhand_fuzz::target!(peer_socket, script);
