//! Live links: requests across drops, newest link wins, detach, and the errors of callers when a link has ended.

use std::time::Duration;

use crate::common::{Host, link, paired, phone, serve};
use longhand_link::runtime::tokio;
use longhand_link::{
    Carrier, CloseCode, Config, Conversation, Credentials, Link, LinkError, RecordSink,
    RecordStream, Side, accept, connect_over,
};
use longhand_proto::Code;
use tokio::sync::watch;
use tokio::time::Instant;

/// A link over a carrier that the test can cut.
async fn cuttable(
    host: &Host,
    credentials: &Credentials,
    conversation: &Conversation,
) -> (Link, watch::Sender<bool>) {
    let (phone_end, host_end) = Carrier::pair();
    let (cut, is_cut) = watch::channel(false);
    let phone_end = Carrier::new(
        Cut {
            inner: phone_end.sink,
            is_cut: is_cut.clone(),
        },
        Cut {
            inner: phone_end.stream,
            is_cut,
        },
    );
    let (accepted, connected) = tokio::join!(
        accept(host_end, host),
        connect_over(phone_end, credentials, conversation)
    );
    accepted.unwrap();
    (connected.unwrap(), cut)
}

struct Cut<T> {
    inner: T,
    is_cut: watch::Receiver<bool>,
}

#[async_trait::async_trait]
impl RecordSink for Cut<Box<dyn RecordSink>> {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), longhand_link::CarrierError> {
        if *self.is_cut.borrow() {
            return Err(longhand_link::CarrierError("cut".into()));
        }
        self.inner.send(record).await
    }
}

#[async_trait::async_trait]
impl RecordStream for Cut<Box<dyn RecordStream>> {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, longhand_link::CarrierError> {
        let mut is_cut = self.is_cut.clone();
        tokio::select! {
            received = self.inner.recv() => received,
            _ = is_cut.wait_for(|cut| *cut) => Err(longhand_link::CarrierError("cut".into())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_go_both_ways_at_once() {
    let (host, commands, credentials) = paired();
    let (conversation, signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    let (node, phone) = (accepted.unwrap().link, connected.unwrap());
    serve(commands);
    serve(signing);
    let (a, b, c) = tokio::join!(
        phone.request("command", b"pay".to_vec()),
        node.request("signer", b"sign".to_vec()),
        phone.request("command", vec![1; 200_000]),
    );
    assert_eq!((a, b), (Ok(b"yap".to_vec()), Ok(b"ngis".to_vec())));
    assert_eq!(c.unwrap().len(), 200_000);
}

#[tokio::test(start_paused = true)]
async fn a_round_trip_takes_twice_the_distance_and_no_more() {
    let (host, commands, credentials) = paired();
    let (conversation, _signing) = phone();
    serve(commands);
    let (phone_end, host_end) = Carrier::pair();
    let phone_end = phone_end.delayed(Duration::from_millis(50));
    let start = Instant::now();
    let (_, connected) = tokio::join!(
        accept(host_end, &host),
        connect_over(phone_end, &credentials, &conversation)
    );
    let phone = connected.unwrap();
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(150),
        "one round trip, and the phone's Hello"
    );
    let start = Instant::now();
    phone.request("command", vec![1]).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn without_a_link_requests_fail_at_once() {
    let (conversation, _requests) = phone();
    let start = Instant::now();
    let failed = conversation.request("command", vec![1]).await;
    assert!(matches!(failed, Err(LinkError::Down(_))), "{failed:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(conversation.down().await.code, CloseCode::Lost);
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_over_a_new_link_within_the_grace_and_is_executed_once() {
    let (host, mut commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (first, cut) = cuttable(&host, &credentials, &conversation).await;
    let asked = tokio::spawn(async move { first.request("command", b"ab".to_vec()).await });
    let request = commands.next().await.unwrap();
    let old = conversation.link().unwrap();
    cut.send(true).unwrap();
    assert_eq!(old.closed().await.code, CloseCode::Lost);
    // Answered while there is no link.
    request.responder.respond(b"done".to_vec());
    assert!(conversation.link().is_none());
    link(&host, &credentials, &conversation).await.1.unwrap();
    assert_eq!(asked.await.unwrap(), Ok(b"done".to_vec()));
    let more = tokio::time::timeout(Duration::from_secs(1), commands.next()).await;
    assert!(more.is_err(), "it came a second time");
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_requests_fail_and_the_peer_is_down() {
    let (host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (first, cut) = cuttable(&host, &credentials, &conversation).await;
    let asked = tokio::spawn(async move { first.request("command", vec![1]).await });
    tokio::task::yield_now().await;
    let start = Instant::now();
    cut.send(true).unwrap();
    let reason = conversation.down().await;
    assert_eq!(
        (reason.code, start.elapsed()),
        (CloseCode::Lost, Duration::from_secs(3))
    );
    assert!(matches!(asked.await.unwrap(), Err(LinkError::Down(_))));
    // The host notices too.
    assert_eq!(host.conversation().down().await.code, CloseCode::Lost);
    assert!(matches!(
        host.conversation().request("signer", vec![]).await,
        Err(LinkError::Down(_))
    ));
    // A caller that looks only now sees it up, and by the count that it was down between.
    assert_eq!(host.conversation().outages(), 1);
    link(&host, &credentials, &conversation).await.1.unwrap();
    assert_eq!(host.conversation().outages(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_no_longer_admitted_has_no_grace() {
    let (host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (_link, cut) = cuttable(&host, &credentials, &conversation).await;
    cut.send(true).unwrap();
    while host.conversation().link().is_some() {
        tokio::task::yield_now().await;
    }
    let asked = host.conversation().clone();
    let asked = tokio::spawn(async move { asked.request("signer", vec![1]).await });
    tokio::task::yield_now().await;
    assert_eq!(host.conversation().outages(), 0);

    let start = Instant::now();
    host.conversation().admit(None);
    assert!(matches!(asked.await.unwrap(), Err(LinkError::Down(_))));
    assert_eq!(
        host.conversation().down().await.code,
        CloseCode::UnknownOwner
    );
    assert_eq!(
        (host.conversation().outages(), start.elapsed()),
        (1, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn the_newest_link_wins_and_what_is_asked_goes_on_there() {
    let (host, _commands, credentials) = paired();
    let (old_phone, _old_signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &old_phone).await;
    let (old_node, old_link) = (accepted.unwrap().link, connected.unwrap());

    let (new_phone, new_signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &new_phone).await;
    let (node, _new_link) = (accepted.unwrap().link, connected.unwrap());
    let reason = old_link.closed().await;
    assert_eq!((reason.code, reason.by_peer), (CloseCode::Replaced, true));
    assert_eq!(old_node.closed().await.code, CloseCode::Replaced);
    // The old phone does not wait for a new link when its own was replaced.
    assert_eq!(old_phone.down().await.code, CloseCode::Replaced);
    serve(new_signing);
    assert_eq!(node.request("signer", vec![1, 2]).await, Ok(vec![2, 1]));
    // The old handle belongs to the same conversation, but closes nothing any more.
    old_node.close(CloseCode::Shutdown, "late");
    assert_eq!(old_node.request("signer", vec![1, 2]).await, Ok(vec![2, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_detaches_waits_for_the_step_in_hand() {
    let (host, _commands, credentials) = paired();
    let (conversation, mut signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    let (node, phone) = (accepted.unwrap().link, connected.unwrap());
    let step = node.clone();
    let step = tokio::spawn(async move { step.request("signer", b"last".to_vec()).await });
    let last = signing.next().await.unwrap();
    let leaving = tokio::spawn(async move { phone.detach().await });
    node.detach_requested().await;
    last.responder.respond(b"signed".to_vec());
    assert_eq!(step.await.unwrap(), Ok(b"signed".to_vec()));
    node.confirm_detach();
    assert_eq!(leaving.await.unwrap(), Ok(()));
    assert_eq!(conversation.down().await.code, CloseCode::Detached);
    assert_eq!(host.conversation().down().await.code, CloseCode::Detached);
    node.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_detach_that_the_link_does_not_survive_says_so() {
    let (host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (phone, cut) = cuttable(&host, &credentials, &conversation).await;
    let leaving = tokio::spawn(async move { phone.detach().await });
    tokio::task::yield_now().await;
    cut.send(true).unwrap();
    assert!(matches!(leaving.await.unwrap(), Err(LinkError::Down(_))));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stops_sends_the_reason_to_its_phones() {
    let (host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let phone = link(&host, &credentials, &conversation).await.1.unwrap();
    let start = Instant::now();
    host.conversation()
        .give_up(CloseCode::Shutdown, "the host is stopping");
    let reason = phone.closed().await;
    assert_eq!((reason.code, reason.by_peer), (CloseCode::Shutdown, true));
    assert_eq!(conversation.down().await.message, "the host is stopping");
    phone.ended().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_falls_silent_is_dead_after_two_missed_heartbeats() {
    let (host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (phone_end, mut middle) = Carrier::pair();
    let (mut relay, host_end) = Carrier::pair();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Ok(Some(record)) = middle.stream.recv() => relay.sink.send(record).await.unwrap(),
                Ok(Some(record)) = relay.stream.recv() => middle.sink.send(record).await.unwrap(),
                _ = &mut stopped => break,
            }
        }
        // The network loses everything, and both ends stay open.
        std::future::pending::<()>().await;
        drop((middle, relay));
    });
    let (_, phone) = tokio::join!(
        accept(host_end, &host),
        connect_over(phone_end, &credentials, &conversation)
    );
    let phone = phone.unwrap();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(
        conversation.link().is_some(),
        "heartbeats keep an idle link alive"
    );
    stop.send(()).unwrap();
    assert_eq!(phone.closed().await.code, CloseCode::Dead);
    let silence = start.elapsed() - Duration::from_secs(60);
    assert!(
        silence <= Duration::from_secs(25) && silence >= Duration::from_secs(15),
        "{silence:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_is_cancelled_on_the_other_side() {
    let (host, mut commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let phone = link(&host, &credentials, &conversation).await.1.unwrap();
    let asked = tokio::spawn(async move { phone.request("command", vec![1]).await });
    let request = commands.next().await.unwrap();
    asked.abort();
    request.responder.cancelled().await;
    request.responder.respond(vec![]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_or_not_served_is_answered_all_the_same() {
    let (host, mut commands, credentials) = paired();
    let (conversation, signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    let (node, phone) = (accepted.unwrap().link, connected.unwrap());
    let asked = phone.clone();
    let asked = tokio::spawn(async move { asked.request("command", vec![1]).await });
    drop(commands.next().await.unwrap());
    let unanswered = |result| matches!(result, Err(LinkError::Refused { code, .. }) if *code == Code::Unanswered);
    assert!(unanswered(asked.await.unwrap()));
    drop(signing);
    assert!(unanswered(node.request("signer", vec![1]).await));
    let unknown = phone.request("poem", vec![]).await;
    assert!(matches!(unknown, Err(LinkError::Refused { code, .. }) if code == Code::UnknownKind));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_restarted_gives_back_what_was_sent_to_it() {
    let (host, mut commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (first, cut) = cuttable(&host, &credentials, &conversation).await;
    let asked = tokio::spawn(async move { first.request("command", vec![1]).await });
    let _lost_with_the_process = commands.next().await.unwrap();
    cut.send(true).unwrap();
    let (restarted, _commands) =
        Conversation::new(Side::Host, Config::new("host", &["command"]), tokio()).unwrap();
    let host = host.restarted(restarted);
    link(&host, &credentials, &conversation).await.1.unwrap();
    assert_eq!(asked.await.unwrap(), Err(LinkError::Restarted));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_read_is_given_up() {
    let (host, _commands, credentials) = paired();
    let config = Config {
        max_frame: 100_000,
        ..Config::new("phone", &["signer"])
    };
    let (conversation, _signing) = Conversation::new(Side::Phone, config, tokio()).unwrap();
    let (phone_end, mut middle) = Carrier::pair();
    let (mut relay, host_end) = Carrier::pair();
    let relaying = tokio::spawn(async move {
        // Carries the handshake and both Hellos, then stops reading.
        for from_phone in [true, false, false, true] {
            let (from, to) = match from_phone {
                true => (&mut middle, &mut relay),
                false => (&mut relay, &mut middle),
            };
            let record = from.stream.recv().await.unwrap().unwrap();
            to.sink.send(record).await.unwrap();
        }
        (middle, relay)
    });
    let (_, phone) = tokio::join!(
        accept(host_end, &host),
        connect_over(phone_end, &credentials, &conversation)
    );
    let phone = phone.unwrap();
    let _open = relaying.await.unwrap();
    for _ in 0..40 {
        let phone = phone.clone();
        tokio::spawn(async move { phone.request("command", vec![0; 90_000]).await });
    }
    let reason = phone.closed().await;
    assert!(reason.message.contains("does not read"), "{reason}");
}

/// Futures that wait can be awaited in a spawned task.
#[tokio::test]
async fn futures_can_move_between_threads() {
    fn movable(_: &impl Send) {}
    let (host, mut commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let link = link(&host, &credentials, &conversation).await.1.unwrap();
    movable(&link.closed());
    movable(&link.ended());
    movable(&link.detach());
    movable(&link.detach_requested());
    movable(&conversation.down());
    movable(&commands.next());
    let (phone_end, host_end) = Carrier::pair();
    movable(&accept(host_end, &host));
    movable(&connect_over(phone_end, &credentials, &conversation));
    let asked = tokio::spawn(async move { link.request("command", vec![]).await });
    movable(&commands.next().await.unwrap().responder.cancelled());
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_abandoned_says_nothing_and_leaves_no_task() {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let (host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    let (node, phone) = (accepted.unwrap().link, connected.unwrap());
    let ask = async { node.request("signer", b"sign".to_vec()).await };
    let leave = async { node.conversation().abandon() };
    let (asked, ()) = tokio::join!(ask, leave);
    assert!(matches!(asked, Err(LinkError::Down(_))), "{asked:?}");
    node.ended().await;
    assert_eq!(phone.closed().await.code, CloseCode::Lost);
    phone.conversation().abandon();
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive(), before);
    let failed = node.request("signer", Vec::new()).await;
    assert!(matches!(failed, Err(LinkError::Down(_))), "{failed:?}");
}
