//! A run over Lightning Node Connect can be played again. In a file of its own: beside campaigns in other threads of its process it is
//! another run now and then.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use longhand_sim::world::Route;

#[test]
fn a_run_with_lightning_node_connect_is_the_same_alone_and_among_others() {
    common::is_the_same_alone(Route::Lnc, &["relay:10:swapped", "frame:20:silent"]);
}
