//! The phone's engine: keys, ledger and rules. No sockets, no clock, no files.
