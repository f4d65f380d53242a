//! Writes the seeds of every fuzz target into its corpus: `cargo run -p longhand-fuzz-targets --example seeds`.
//! `scripts/fuzz --keep` then keeps those that add coverage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use longhand_fuzz_targets::TARGETS;

fn main() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let corpus = corpora.join(target.name);
        fs::create_dir_all(&corpus).unwrap();
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:03}")), seed).unwrap();
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
}
