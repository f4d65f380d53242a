//! Any sequence of calls keeps the books and the bounds, and loses no message in between.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8),
    Delete(u8),
    Attach(u8, bool, u8),
    TakeOver(usize),
    Leave(usize),
    Put(usize, usize),
    Take(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (number, by, end) = (0..3_u8, 0..3_u8, 0..6_usize);
    let step = prop_oneof![
        4 => (number.clone(), by.clone()).prop_map(|(number, by)| Step::Create(number, by)),
        1 => number.clone().prop_map(Step::Delete),
        8 => (number, any::<bool>(), by).prop_map(|(n, reads, by)| Step::Attach(n, reads, by)),
        1 => end.clone().prop_map(Step::TakeOver),
        3 => end.clone().prop_map(Step::Leave),
        12 => (end.clone(), 0..3_000_usize).prop_map(|(end, bytes)| Step::Put(end, bytes)),
        10 => end.prop_map(Step::Take),
        2 => (0..30_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

/// What a reader may get next of a box: numbers of messages, which the first bytes of each hold.
#[derive(Default)]
struct Sent {
    last_put: u64,
    last_taken: HashMap<BoxId, u64>,
}

fn play(world: &mut World, ends: &mut Vec<EndId>, sent: &mut Sent, step: Step) {
    let end = |back: usize| ends.iter().rev().nth(back).copied();
    match step {
        Step::Create(number, by) => {
            let created = world.core.create(id(number), network(by), world.now);
            if created.is_ok() {
                sent.last_taken.remove(&id(number));
            }
        }
        Step::Delete(number) => drop(world.core.delete(id(number))),
        Step::Attach(number, reads, by) => {
            let role = if reads { Role::Reader } else { Role::Writer };
            let attached = world.core.attach(id(number), role, network(by), world.now);
            ends.extend(attached.ok());
        }
        Step::TakeOver(back) => {
            if let Some(end) = end(back) {
                world.core.take_over(end, world.now);
            }
        }
        Step::Leave(back) => {
            if let Some(end) = end(back) {
                world.core.leave(end, world.now);
                ends.retain(|other| *other != end);
            }
        }
        Step::Put(back, bytes) => {
            let Some(end) = end(back) else { return };
            if let Pace::At(time) = world.core.pace(end, world.now) {
                world.now = time;
            }
            if world.core.pace(end, world.now) != Pace::Now {
                return;
            }
            sent.last_put += 1;
            let mut payload = sent.last_put.to_be_bytes().to_vec();
            payload.resize(payload.len() + bytes, 0);
            // Refused when there is no room.
            let _ = world.core.put(end, payload, world.now);
        }
        Step::Take(back) => {
            let Some(end) = end(back) else { return };
            let id = world.core.ends[&end].id;
            if let Taken::Message(message) = world.core.take(end, world.now) {
                let number = u64::from_be_bytes(message[..8].try_into().unwrap());
                let before = sent.last_taken.insert(id, number);
                assert!(before < Some(number), "each comes once, in its order");
            }
        }
        Step::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
    }
}

proptest! {
    #[test]
    fn any_calls_keep_the_books_and_the_bounds(steps in steps()) {
        let limits = HashmailLimits {
            boxes: 2,
            boxes_per_network: 1,
            message_bytes: 2_000,
            queue_messages: 3,
            queue_bytes: 3_000,
            total_bytes: 8_000,
            bytes_per_network: 5_000,
            messages_per_s: 10,
            messages_burst: 20,
            ..HashmailLimits::default()
        };
        let mut world = World::with(limits);
        let (mut ends, mut sent) = (Vec::new(), Sent::default());
        for step in steps {
            play(&mut world, &mut ends, &mut sent, step);
            world.check();
            prop_assert!(world.core.counts().boxes <= 2);
            prop_assert!(world.core.counts().bytes <= 8_000);
            for found in world.core.boxes.values() {
                prop_assert!(found.queue.len() <= 3);
            }
        }
        for end in ends {
            world.core.leave(end, world.now);
        }
        world.pass(Duration::from_secs(3_601));
        let counts = world.core.counts();
        prop_assert_eq!((counts.boxes, counts.ends, counts.bytes), (0, 0, 0));
        prop_assert_eq!(world.core.next_tick(), None);
    }
}
