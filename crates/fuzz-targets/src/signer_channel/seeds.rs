//! Scripts that a host might follow: one that keeps to the protocol, and others that leave it in every way that costs
//! money.

use prost::Message;

use super::{Kind, Script, Step};

/// A step without anything special.
pub(super) fn step(kind: Kind, off: i32, htlcs: u32) -> Step {
    Step {
        kind: kind.into(),
        off,
        htlcs,
        ..Step::default()
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    use Kind::*;
    let open = [
        step(SetUp, 0, 0),
        step(Validate, 0, 0),
        step(Sign, 0, 0),
        step(Prove, 0, 0),
    ];
    // One step of the channel, as a host that keeps to the protocol asks for it.
    let turn = |htlcs: u32| {
        let together = |kind| Step {
            with_next: true,
            ..step(kind, 0, htlcs)
        };
        [
            together(Validate),
            together(Release),
            step(Sign, 0, htlcs),
            step(Revoke, 0, 0),
        ]
    };
    let of = |invoice| Step {
        variant: invoice,
        ..step(Preimage, 0, 0)
    };
    let long = [
        &open[..],
        &[step(Offer, 0, 1)],
        &turn(1),
        &[of(0)],
        &turn(8),
        &[step(Restart, 0, 0)],
        &[step(Offer, 1, 16)],
        &turn(16),
        &[of(1), step(Compact, 0, 0)],
        &turn(0),
        &[step(Close, 0, 0)],
    ]
    .concat();
    let early = [
        &open[..],
        &[step(Offer, 0, 1), step(Validate, 0, 1), of(0)],
        &[step(Sign, 0, 1), of(0)],
        &[step(Revoke, 0, 0), of(0), step(Repeat, 0, 0)],
    ]
    .concat();
    let wrong = [
        &open[..],
        &[
            step(Release, 1, 0),
            step(Validate, -1, 1),
            step(Sign, -1, 1),
        ],
        &[step(Sign, 0, 1), step(Sign, 0, 0), step(Sign, 1, 0)],
        &[step(Revoke, 1, 0), step(Revoke, 0, 0), step(Revoke, -1, 0)],
    ]
    .concat();
    let unilateral = [
        &open[..],
        &turn(1),
        &[step(SignHolder, 0, 0), step(HolderHtlc, 0, 0)],
        &[step(Validate, 0, 0), step(Release, 0, 0)],
        &[step(SignHolder, 1, 0), step(Anchor, 0, 0)],
        &[
            step(PeerHtlc, 0, 0),
            step(Justice, 0, 0),
            step(Justice, 1, 0),
        ],
        &[step(Points, 0, 0), step(Wait, 0, 0)],
    ]
    .concat();
    let parts = [
        &open[..],
        &turn(2),
        &[of(0)],
        &turn(4),
        &[
            of(0),
            Step {
                htlcs: 100,
                ..of(2)
            },
        ],
    ]
    .concat();
    [long, early, wrong, unilateral, parts]
        .map(|steps| Script { steps }.encode_to_vec())
        .to_vec()
}
