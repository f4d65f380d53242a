//! A panic counts in whatever thread it is. In a file of its own: the run that ends next in its process reports it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_sim::world::{Campaign, Class, Scenario, SeededFault};

#[test]
fn the_checks_see_a_panic_in_a_thread_that_runs_share() {
    let campaign = Campaign::new().unwrap();
    let wrong = campaign
        .play_with_fault(Scenario::Pay, SeededFault::PanicElsewhere)
        .wrong;
    assert!(
        wrong.iter().any(|fault| fault.class == Class::Panic),
        "{wrong:?}"
    );
}
