//! Gives the targets of `longhand-fuzz-targets` to libFuzzer.

pub use {libfuzzer_sys, longhand_fuzz_targets};

/// The target with this name. Its input is `bytes`, changed by libFuzzer, or a `script`, changed as protobuf.
#[macro_export]
macro_rules! target {
    ($name:ident, bytes) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            $crate::longhand_fuzz_targets::run::$name(data);
        });
    };
    ($name:ident, script) => {
        $crate::target!($name, bytes);
        $crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8],
                                              size: usize,
                                              max_size: usize,
                                              seed: u32| {
            let bytes = $crate::libfuzzer_sys::fuzzer_mutate;
            $crate::longhand_fuzz_targets::mutate(data, size, max_size, seed, bytes)
        });
    };
}
