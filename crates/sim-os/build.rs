//! Exports the symbols that this crate replaces, for its tests.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in ["getrandom", "clock_gettime", "syscall"] {
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol={symbol}");
    }
}
