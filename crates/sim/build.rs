//! Exports what `longhand-sim-os` stands in for, so that libraries which look it up find it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in ["getrandom", "clock_gettime", "syscall"] {
        println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol={symbol}");
    }
}
