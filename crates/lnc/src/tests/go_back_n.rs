//! Two ends, and a stream between them that loses packets.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Both ends at one time.
struct Pair {
    client: GoBackN,
    server: GoBackN,
    now: Instant,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(Timing::default())
    }

    fn with(timing: Timing) -> Pair {
        let now = Instant::now();
        Pair {
            client: GoBackN::new(Role::Client, timing.clone(), now),
            server: GoBackN::new(Role::Server, timing, now),
            now,
        }
    }

    fn open() -> Pair {
        let mut pair = Pair::new();
        pair.exchange(|_| true);
        assert!(pair.client.is_open() && pair.server.is_open());
        pair
    }

    /// Passes packets until there are none, those that `passes`.
    fn exchange(&mut self, mut passes: impl FnMut(&[u8]) -> bool) {
        loop {
            let (to_server, to_client) = (self.client.next_packet(), self.server.next_packet());
            if to_server.is_none() && to_client.is_none() {
                return;
            }
            if let Some(packet) = to_server.filter(|packet| passes(packet)) {
                self.server.received(self.now, &packet);
            }
            if let Some(packet) = to_client.filter(|packet| passes(packet)) {
                self.client.received(self.now, &packet);
            }
        }
    }

    fn after(&mut self, pause: Duration) {
        self.now += pause;
        self.client.advance(self.now);
        self.server.advance(self.now);
    }
}

fn all_of(end: &mut GoBackN) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| end.next_message()).collect()
}

#[test]
fn messages_of_any_size_come_in_order() {
    let mut pair = Pair::new();
    let messages: Vec<Vec<u8>> = [0, 1, 32 * 1024, 32 * 1024 + 1, 3_000_000]
        .map(|bytes| vec![bytes as u8; bytes])
        .into();
    for message in &messages {
        // Before the two have found each other.
        pair.client.send(pair.now, message).unwrap();
        pair.server.send(pair.now, message).unwrap();
    }
    pair.exchange(|_| true);
    assert_eq!(all_of(&mut pair.server), messages);
    assert_eq!(all_of(&mut pair.client), messages);
}

#[test]
fn a_call_that_is_lost_is_repeated() {
    let mut pair = Pair::new();
    pair.exchange(|_| false);
    pair.after(2 * SECOND);
    pair.exchange(|_| true);
    assert!(pair.client.is_open() && pair.server.is_open());
}

#[test]
fn a_server_opens_with_the_first_data_when_the_confirmation_is_lost() {
    let mut pair = Pair::new();
    pair.client.send(pair.now, b"hello").unwrap();
    pair.exchange(|packet| packet != [6]);
    assert_eq!(all_of(&mut pair.server), [b"hello"]);
}

#[test]
fn no_more_than_the_window_is_under_way() {
    let mut pair = Pair::open();
    for _ in 0..50 {
        pair.client.send(pair.now, b"x").unwrap();
    }
    let packets = std::iter::from_fn(|| pair.client.next_packet());
    assert_eq!(packets.count(), 20);
    pair.server.received(pair.now, &[2, 0, 1, 0, b'x']);
    let ack = pair.server.next_packet().unwrap();
    pair.client.received(pair.now, &ack);
    assert_eq!(pair.client.next_packet(), Some(vec![2, 20, 1, 0, b'x']));
    assert_eq!(pair.client.next_packet(), None);
}

#[test]
fn a_silent_end_is_given_up_and_one_that_answers_is_not() {
    let mut pair = Pair::open();
    for _ in 0..100 {
        pair.after(7 * SECOND);
        pair.exchange(|_| true);
    }
    assert!(pair.client.is_open() && pair.server.is_open());
    for _ in 0..17 {
        assert_eq!(pair.client.over(), None);
        pair.after(SECOND);
        pair.exchange(|_| false);
    }
    assert_eq!(pair.client.over(), Some(Over::Silent));
    assert_eq!(pair.client.next_due(), None);
}

#[test]
fn an_outage_that_is_shorter_loses_nothing() {
    let mut pair = Pair::open();
    pair.client.send(pair.now, b"before").unwrap();
    pair.exchange(|_| false);
    for _ in 0..12 {
        pair.after(SECOND);
        pair.exchange(|_| false);
    }
    // It is sent again at a third of the time after which a silent end is given up.
    for _ in 0..4 {
        pair.after(SECOND);
        pair.exchange(|_| true);
    }
    assert_eq!(all_of(&mut pair.server), [b"before"]);
}

#[test]
fn two_ends_that_lack_packets_do_not_resend_without_end() {
    let mut pair = Pair::open();
    for _ in 0..20 {
        pair.client.send(pair.now, b"x").unwrap();
        pair.server.send(pair.now, b"y").unwrap();
    }
    let mut packets = 0;
    pair.exchange(|packet| {
        packets += 1;
        // The first data packet of each end.
        !(packet.starts_with(&[2, 0]))
    });
    assert!(packets < 200, "{packets}");
}

#[test]
fn what_is_lost_comes_again_though_the_other_end_goes_on_sending() {
    let mut pair = Pair::open();
    pair.client.send(pair.now, b"lost").unwrap();
    pair.exchange(|packet| !packet.starts_with(&[2, 0, 1, 0]));
    for _ in 0..4 {
        pair.after(SECOND);
        // Something of the server's each second.
        pair.server.send(pair.now, b"busy").unwrap();
        pair.exchange(|_| true);
    }
    assert_eq!(all_of(&mut pair.server), [b"lost"]);
    assert!(pair.client.is_all_acknowledged());
}

#[test]
fn copies_do_not_pile_up_while_the_stream_takes_nothing() {
    let mut pair = Pair::open();
    for _ in 0..20 {
        pair.client.send(pair.now, b"x").unwrap();
    }
    for _ in 0..16 {
        pair.after(SECOND);
        assert!(
            pair.client.output.len() <= 21,
            "{}",
            pair.client.output.len()
        );
    }
}

#[test]
fn an_end_of_an_earlier_connection_and_calls_that_waited_do_no_harm() {
    let now = Instant::now();
    let mut server = GoBackN::new(Role::Server, Timing::default(), now);
    for packet in [&[5][..], &[2, 3, 1, 0, 9], &[1, 20], &[1, 20], &[1, 20]] {
        server.received(now, packet);
    }
    assert_eq!(server.over(), None);
    // The end of the earlier connection, for the one who may still be in it.
    assert_eq!(server.next_packet(), Some(vec![5]));
    assert_eq!(server.next_packet(), Some(vec![1, 20]));
    assert_eq!(server.next_packet(), None);
}

#[test]
fn a_server_that_has_forgotten_a_connection_ends_it_at_the_next_packet() {
    let mut pair = Pair::open();
    pair.server = GoBackN::new(Role::Server, Timing::default(), pair.now);
    for _ in 0..3 {
        pair.client.send(pair.now, b"to nobody").unwrap();
    }
    pair.exchange(|_| true);
    assert_eq!(pair.client.over(), Some(Over::ByPeer));
    let mut again = Pair {
        client: GoBackN::new(Role::Client, Timing::default(), pair.now),
        ..pair
    };
    again.exchange(|_| true);
    assert!(again.client.is_open() && again.server.is_open());
}

#[test]
fn a_full_end_answers_pings() {
    let mut pair = Pair::open();
    let large = vec![7; MAX_JOINED_BYTES - 16 * 1024];
    for _ in 0..2 {
        pair.client.send(pair.now, &large).unwrap();
        pair.exchange(|_| true);
    }
    // Nobody reads at the server, and the third waits.
    pair.client.send(pair.now, &large).unwrap();
    for _ in 0..60 {
        pair.exchange(|_| true);
        pair.after(SECOND);
    }
    assert!(pair.client.is_open() && pair.server.is_open());
    assert_eq!(all_of(&mut pair.server).len(), 2);
}

#[test]
fn a_closed_connection_says_so_and_takes_nothing() {
    let mut pair = Pair::open();
    pair.client.close();
    assert_eq!(pair.client.over(), Some(Over::Closed));
    pair.exchange(|_| true);
    assert_eq!(pair.server.over(), Some(Over::ByPeer));
    let refused = pair.server.send(pair.now, b"late").unwrap_err();
    assert_eq!(refused, SendError::Over(Over::ByPeer));
}

#[test]
fn a_client_that_begins_again_ends_the_connection_before() {
    let mut pair = Pair::open();
    pair.server.received(pair.now, &[1, 20]);
    assert_eq!(pair.server.over(), Some(Over::Restarted));
}

#[test]
fn what_is_no_packet_and_a_window_that_cannot_be_end_it() {
    for (packet, over) in [
        (&[9][..], Over::Malformed),
        (&[], Over::Malformed),
        (&[1, 0], Over::Window),
        (&[1, 255], Over::Window),
    ] {
        let mut server = Pair::new().server;
        server.received(Instant::now(), packet);
        assert_eq!(server.over(), Some(over), "{packet:?}");
    }
    let mut client = Pair::new().client;
    client.received(Instant::now(), &[1, 19]);
    assert_eq!(client.over(), Some(Over::Window));
}

#[test]
fn what_waits_is_bounded_in_both_directions() {
    let mut pair = Pair::open();
    let large = vec![7; MAX_JOINED_BYTES - 16 * 1024];
    pair.client.send(pair.now, &large).unwrap();
    pair.client.send(pair.now, &large).unwrap();
    assert_eq!(pair.client.send(pair.now, &large), Err(SendError::Full));
    let too_long = pair.client.send(pair.now, &[0; MAX_JOINED_BYTES + 1]);
    assert!(matches!(too_long, Err(SendError::TooLong(_))));

    // Nobody reads: nothing is acknowledged beyond the limit, and nothing is lost.
    pair.exchange(|_| true);
    pair.client.send(pair.now, &large).unwrap();
    pair.exchange(|_| true);
    assert!(pair.server.received.bytes() <= MAX_WAITING_BYTES);
    assert_eq!(all_of(&mut pair.server).len(), 2);
    pair.after(5 * SECOND);
    pair.exchange(|_| true);
    assert_eq!(all_of(&mut pair.server), [large]);
}

#[test]
fn a_message_without_an_end_is_cut_off() {
    let mut pair = Pair::open();
    let part = [&[2, 0, 0, 0][..], &vec![0; 1 << 20]].concat();
    for number in 0..5 {
        let mut part = part.clone();
        part[1] = number;
        pair.server.received(pair.now, &part);
    }
    assert_eq!(pair.server.over(), Some(Over::TooLong));
}

proptest! {
    #[test]
    fn whatever_is_lost_all_messages_come_once_and_in_order(
        window in 1u8..=254,
        lost in proptest::collection::vec(0u8..10, 1..400),
        counts in (0usize..60, 0usize..60),
    ) {
        let mut pair = Pair::with(Timing { window, chunk_bytes: 3, pong: 1_000 * SECOND, ..Timing::default() });
        let messages = |count: usize| -> Vec<Vec<u8>> { (0..count).map(|n| vec![n as u8; n % 8]).collect() };
        let (to_server, to_client) = (messages(counts.0), messages(counts.1));
        let now = pair.now;
        to_server.iter().for_each(|message| pair.client.send(now, message).unwrap());
        to_client.iter().for_each(|message| pair.server.send(now, message).unwrap());
        // A third of the packets, then none.
        let mut fates = lost.into_iter();
        let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
        for _ in 0..600 {
            pair.exchange(|_| fates.next().is_none_or(|fate| fate > 2));
            at_server.extend(all_of(&mut pair.server));
            at_client.extend(all_of(&mut pair.client));
            pair.after(SECOND);
        }
        prop_assert_eq!(at_server, to_server);
        prop_assert_eq!(at_client, to_client);
    }

    #[test]
    fn no_packet_makes_an_end_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..60)) {
        let mut pair = Pair::open();
        for packet in packets {
            pair.server.received(pair.now, &packet);
            pair.client.received(pair.now, &packet);
            pair.after(SECOND);
        }
    }
}
