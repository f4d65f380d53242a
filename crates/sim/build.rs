//! Exports the symbols that `longhand-sim-os` replaces, so that libraries which look them up find them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in ["getrandom", "clock_gettime", "syscall"] {
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol={symbol}");
    }
}
