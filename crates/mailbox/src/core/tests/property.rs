//! Any sequence of requests keeps the books and the bounds.

use proptest::prelude::*;

use super::super::limits::MAX_REPLIES;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Connect(Option<u8>),
    Attach(usize, u32, u8, bool),
    Detach(usize, u32),
    Delete(usize, u8),
    Send(usize, u32, usize),
    Forge(usize, u32),
    Ping(usize),
    Take(usize),
    Close(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, handle, key) = (0..5_usize, 0..4_u32, 0..4_u8);
    let step = prop_oneof![
        2 => prop::option::of(0..2_u8).prop_map(Step::Connect),
        6 => (who.clone(), handle.clone(), key.clone(), any::<bool>())
            .prop_map(|(who, handle, key, end)| Step::Attach(who, handle, key, end)),
        1 => (who.clone(), handle.clone()).prop_map(|(who, handle)| Step::Detach(who, handle)),
        1 => (who.clone(), key).prop_map(|(who, key)| Step::Delete(who, key)),
        10 => (who.clone(), handle.clone(), 0..MAX_PAYLOAD + 2)
            .prop_map(|(who, handle, bytes)| Step::Send(who, handle, bytes)),
        1 => (who.clone(), handle).prop_map(|(who, handle)| Step::Forge(who, handle)),
        1 => who.clone().prop_map(Step::Ping),
        5 => who.clone().prop_map(Step::Take),
        1 => who.prop_map(Step::Close),
        2 => (0..40_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..150)
}

fn play(world: &mut World, clients: &mut Vec<ConnectionId>, step: Step) {
    let client = |who: usize| clients.iter().rev().nth(who).copied();
    match step {
        Step::Connect(None) => clients.push(world.connect()),
        Step::Connect(Some(last)) => clients.push(world.connect_from(last)),
        Step::Pass(seconds) => world.pass(seconds),
        Step::Take(who) => drop(client(who).and_then(|id| world.take(id))),
        Step::Close(who) => {
            if let Some(id) = client(who) {
                world.close(id);
            }
        }
        Step::Attach(who, handle, key, is_host) => {
            let end = if is_host { End::Host } else { End::Phone };
            let stream = stream(key);
            let attach = Request::Attach {
                handle,
                stream,
                end,
            };
            ask(world, client(who), attach);
        }
        Step::Detach(who, handle) => ask(world, client(who), Request::Detach { handle }),
        Step::Delete(who, key) => {
            let stream = stream(key);
            ask(world, client(who), Request::Delete { stream });
        }
        Step::Ping(who) => ask(world, client(who), Request::Ping),
        Step::Send(who, handle, bytes) => {
            let payload = vec![0; bytes];
            ask(world, client(who), Request::Send { handle, payload });
        }
        Step::Forge(who, handle) => {
            let code = Code::BadSignature;
            ask(world, client(who), Request::Refused { handle, code });
        }
    }
}

/// At the pace that the relay allows.
fn ask(world: &mut World, client: Option<ConnectionId>, request: Request) {
    let Some(id) = client else { return };
    if let Pace::At(time) = world.relay.pace(id, world.now) {
        world.now = time;
    }
    if world.relay.pace(id, world.now) == Pace::Now {
        world.ask(id, request);
    }
}

proptest! {
    #[test]
    fn any_requests_keep_the_books_and_the_bounds(steps in steps()) {
        let limits = Limits {
            connections_per_network: 2,
            ends_per_network: 3,
            ends: 6,
            queue_messages: 4,
            queue_bytes: 200_000,
            total_bytes: 500_000,
            bytes_per_network: 300_000,
            bytes_per_s: 10_000,
            bytes_burst: 300_000,
            ..Limits::default()
        };
        let mut world = World::with(limits);
        let mut clients = Vec::new();
        for step in steps {
            // Each step checks the books.
            play(&mut world, &mut clients, step);
            for connection in world.relay.connections.values() {
                prop_assert!(connection.replies() <= MAX_REPLIES + 2 * 6);
            }
        }
        for id in clients {
            world.close(id);
        }
        world.pass(60);
        let counts = world.relay.counts();
        prop_assert_eq!((counts.connections, counts.ends), (0, 0));
        prop_assert_eq!((counts.streams, counts.queued_bytes), (0, 0));
        prop_assert_eq!(world.relay.next_tick(), None);
    }
}
