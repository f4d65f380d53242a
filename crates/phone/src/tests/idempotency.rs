//! Commands that the owner repeats because no answer arrived, and those that are given a second time on purpose.

use std::collections::BTreeMap;

use longhand_proto::Code;
use longhand_proto::command::error::Action;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::dying::open as open_vault;
use super::*;
use crate::command::{OwnerCommand, OwnerReply};
use crate::control::{ControlSocket, through_running};
use crate::input::OnchainAmount;

const ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
const ADDRESS_2: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// A node that carries out each id once and keeps the result, as `longhand-node` does. Its host goes away when a
/// channel is awaited.
#[derive(Default)]
struct FakeNode {
    /// The number of payments and channels.
    done: AtomicUsize,
    /// The result of each id.
    known: Mutex<BTreeMap<Vec<u8>, Reply>>,
    /// The loss of answers; the command is carried out all the same.
    loses: Mutex<Option<Lost>>,
}

/// The ways in which an answer is lost.
#[derive(Clone)]
enum Lost {
    /// The link breaks before it, and the host is down.
    Link,
    /// This reply is sent in its place.
    Says(Reply),
}

impl FakeNode {
    fn behind(host: &Arc<ScriptedHost>) -> Arc<FakeNode> {
        let node = Arc::new(FakeNode::default());
        let (ours, theirs) = (Arc::clone(&node), Arc::downgrade(host));
        host.script(move |ask| {
            let lose_link = || {
                theirs.upgrade()?.is_down.store(true, Ordering::SeqCst);
                Some(Act::HangUp)
            };
            if matches!(ask, Ask::AwaitChannel(_)) {
                return lose_link();
            }
            let (id, reply) = ours.carry_out(ask)?;
            let mut known = ours.known.lock().unwrap();
            let reply = known.entry(id).or_insert_with(|| {
                ours.done.fetch_add(1, Ordering::SeqCst);
                reply
            });
            match ours.loses.lock().unwrap().clone() {
                None => Some(Act::Reply(reply.clone())),
                Some(Lost::Says(reply)) => Some(Act::Reply(reply)),
                Some(Lost::Link) => lose_link(),
            }
        });
        node
    }

    /// The result for a new id.
    fn carry_out(&self, ask: &Ask) -> Option<(Vec<u8>, Reply)> {
        let count = self.done();
        match ask {
            Ask::SendOnchain(send) => {
                let txid = format!("{count:064}");
                let sent = proto::SentOnchain { txid, fee_sat: 9 };
                Some((send.id.clone(), Reply::SentOnchain(sent)))
            }
            Ask::OpenChannel(open) => {
                let opened = proto::OpenedChannel {
                    id: open.id.clone(),
                    channel_id: vec![u8::try_from(count).unwrap(); 32],
                    funding_outpoint: "00:1".into(),
                };
                Some((open.id.clone(), Reply::OpenedChannel(opened)))
            }
            _ => None,
        }
    }

    /// From now on answers get lost like this.
    fn loses(&self, lost: Option<Lost>) {
        *self.loses.lock().unwrap() = lost;
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    fn forgets(&self) {
        self.known.lock().unwrap().clear();
    }
}

async fn send(phone: &Phone, amount: OnchainAmount) -> Result<String, PhoneError> {
    let sent = phone.send_onchain(ADDRESS, amount, None).await?;
    Ok(sent.txid)
}

async fn open(phone: &Phone) -> Result<String, PhoneError> {
    let opened = phone.open(100_000, None, false, false, None).await?;
    Ok(opened.channel_id)
}

const SAT: OnchainAmount = OnchainAmount::Sat(100_000);

/// The host can be reached again.
async fn comes_back(phone: &Phone, host: &ScriptedHost) {
    host.is_down.store(false, Ordering::SeqCst);
    phone.attached().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_payment_whose_answer_was_lost_is_not_sent_again() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    for amount in [SAT, OnchainAmount::All] {
        let before = node.done();
        node.loses(Some(Lost::Link));
        assert_eq!(code_of(send(&phone, amount).await), Code::HostAway);

        node.loses(None);
        comes_back(&phone, &host).await;
        let txid = send(&phone, amount).await.unwrap();
        assert_eq!(txid, format!("{before:064}"));
        assert_eq!(node.done(), before + 1);
    }
}

#[tokio::test]
async fn a_payment_whose_result_was_delivered_may_be_sent_a_second_time() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    assert_ne!(
        send(&phone, SAT).await.unwrap(),
        send(&phone, SAT).await.unwrap()
    );
    assert_ne!(open(&phone).await.unwrap(), open(&phone).await.unwrap());
    assert_eq!(node.done(), 4);
}

#[tokio::test(start_paused = true)]
async fn another_payment_than_the_one_without_an_answer_is_a_new_one() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    node.loses(Some(Lost::Says(error(
        Code::SignerAway,
        Action::WaitForPhone,
    ))));
    assert_eq!(code_of(send(&phone, SAT).await), Code::SignerAway);
    node.loses(None);
    send(&phone, OnchainAmount::Sat(100_001)).await.unwrap();
    send(&phone, OnchainAmount::All).await.unwrap();
    phone.send_onchain(ADDRESS_2, SAT, None).await.unwrap();
    assert_eq!(node.done(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_answer_was_lost_is_not_opened_again() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    node.loses(Some(Lost::Link));
    assert_eq!(code_of(open(&phone).await), Code::HostAway);

    node.loses(None);
    comes_back(&phone, &host).await;
    // An announced one is another.
    let announced = phone.open(100_000, None, true, false, None).await.unwrap();
    assert_eq!(announced.channel_id, "01".repeat(32));
    assert_eq!(open(&phone).await.unwrap(), "00".repeat(32));
    assert_eq!(node.done(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_was_to_be_waited_for_is_the_same_when_the_wait_broke_off() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    let waiting = tokio::spawn({
        let phone = phone.clone();
        async move { phone.open(100_000, None, false, true, None).await }
    });
    while !host.is_down.load(Ordering::SeqCst) {
        assert!(!waiting.is_finished(), "{:?}", waiting.await);
        tokio::task::yield_now().await;
    }
    waiting.abort();
    comes_back(&phone, &host).await;
    assert_eq!(open(&phone).await.unwrap(), "00".repeat(32));
    assert_eq!(node.done(), 1);
}

#[tokio::test]
async fn an_undelivered_command_is_the_same_for_the_next_process_and_after_compaction() {
    for compacts in [false, true] {
        let (dir, phone, host) = attached().await;
        let node = FakeNode::behind(&host);
        send(&phone, SAT).await.unwrap();
        // It is done, and the host does not report it.
        node.loses(Some(Lost::Says(error(Code::NodeRestarted, Action::Retry))));
        assert_eq!(code_of(send(&phone, SAT).await), Code::NodeRestarted);
        assert_eq!(code_of(open(&phone).await), Code::NodeRestarted);
        if compacts {
            phone.inner.signer.compact();
        }
        phone.detach().await.unwrap();
        phone.stop_now();

        node.loses(None);
        let phone = start(open_vault(&dir), ToHost(Arc::clone(&host))).unwrap();
        phone.attach().await.unwrap();
        assert_eq!(send(&phone, SAT).await.unwrap(), format!("{:064}", 1));
        assert_eq!(open(&phone).await.unwrap(), "02".repeat(32));
        assert_eq!(node.done(), 3);

        // Delivered now.
        assert_eq!(send(&phone, SAT).await.unwrap(), format!("{:064}", 3));
        assert_eq!(open(&phone).await.unwrap(), "04".repeat(32));
        phone.detach().await.unwrap();
    }
}

#[tokio::test]
async fn what_failed_for_good_is_tried_anew() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    let failures = [
        (Code::InsufficientFunds, Action::FixInput),
        (Code::PeerUnreachable, Action::Retry),
        (Code::Interrupted, Action::Retry),
        (Code::ChannelClosed, Action::GiveUp),
        (Code::ChannelGone, Action::GiveUp),
        (Code::FundingConflicted, Action::GiveUp),
    ];
    for (count, (code, action)) in failures.into_iter().enumerate() {
        node.loses(Some(Lost::Says(error(code, action))));
        assert_eq!(code_of(open(&phone).await), code);
        assert_eq!(node.done(), count + 1, "{code}");
    }
    // Errors of the host or the phone are not final.
    let troubles = [
        (Code::SignerAway.as_str(), Action::WaitForPhone),
        (Code::NodeRestarted.as_str(), Action::Retry),
        (Code::ChainUnavailable.as_str(), Action::Retry),
        (Code::NodeFailed.as_str(), Action::GiveUp),
        ("SOMETHING_NEW", Action::Retry),
    ];
    for (code, action) in troubles {
        node.loses(Some(Lost::Says(error(code, action))));
        assert_eq!(code_of(open(&phone).await), code);
        assert_eq!(node.done(), failures.len() + 1, "{code}");
    }
}

#[tokio::test]
async fn a_host_that_lost_the_command_is_given_it_again_with_its_id() {
    let (_dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    for _ in 0..3 {
        node.loses(Some(Lost::Says(error(Code::NodeRestarted, Action::Retry))));
        assert_eq!(code_of(send(&phone, SAT).await), Code::NodeRestarted);
        node.forgets();
    }
    node.loses(None);
    send(&phone, SAT).await.unwrap();
    let ids: Vec<_> = host
        .asked()
        .into_iter()
        .filter_map(|ask| match ask {
            Ask::SendOnchain(send) => Some(send.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids, vec![ids[0].clone(); 4]);
}

#[tokio::test]
async fn an_answer_to_a_process_that_has_gone_was_not_delivered() {
    let (dir, phone, host) = attached().await;
    let node = FakeNode::behind(&host);
    let _control = ControlSocket::listen(phone, dir.path()).unwrap();
    let send = OwnerCommand::SendOnchain {
        address: ADDRESS.into(),
        amount: SAT,
        feerate_sat_per_kw: None,
    };
    let mut gone = UnixStream::connect(dir.path().join("control.sock"))
        .await
        .unwrap();
    let mut line = serde_json::to_vec(&send).unwrap();
    line.push(b'\n');
    gone.write_all(&line).await.unwrap();
    drop(gone);
    while node.done() < 1 {
        tokio::task::yield_now().await;
    }

    for txid in [0, 1] {
        let answer = through_running(dir.path(), &send).await.unwrap().unwrap();
        let OwnerReply::Sent(sent) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(sent.txid, format!("{txid:064}"));
    }
}
