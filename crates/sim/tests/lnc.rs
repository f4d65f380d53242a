//! A run over Lightning Node Connect can be played again. In a file of its own: the worlds of a campaign depend on how many runtimes its
//! process had before, and those of another campaign over another carrier, beside it, are such.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use longhand_sim::world::Route;

#[test]
fn a_run_with_lightning_node_connect_is_the_same_alone_and_among_others() {
    common::is_the_same_alone(Route::Lnc, &["relay:10:swapped", "frame:20:silent"]);
}
