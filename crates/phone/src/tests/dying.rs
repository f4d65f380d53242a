//! A phone that is killed, and one whose power goes in the middle of a write.

use longhand_proto::Code;
use longhand_proto::signer::signer_answer::Answer;
use tokio::runtime::{Builder, Handle, Runtime};

use super::signing::{ask, setup, version};
use super::*;
use crate::testing::{DiskFate, DiskWrite};
use crate::vault::VaultError;

/// Reaches a host that runs elsewhere, so that all tasks here are the phone's.
struct Elsewhere(Handle, ToHost);

#[async_trait]
impl Dial for Elsewhere {
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError> {
        let (address, meeting) = (address.to_owned(), meeting.clone());
        let to_host = ToHost(Arc::clone(&self.1.0));
        let dialled = self
            .0
            .spawn(async move { to_host.dial(&address, &meeting).await });
        dialled.await.unwrap()
    }
}

/// A vault that is paired with `host` and closed.
pub(super) async fn paired_vault(host: &Arc<ScriptedHost>) -> TempDir {
    let (dir, phone) = phone_with(WORDS, host);
    phone.pair(&code_text(host)).await.unwrap();
    phone.detach().await.unwrap();
    // Its tasks are on another thread and may hold the vault for a while yet.
    phone.stop_now();
    dir
}

pub(super) fn open(dir: &TempDir) -> Vault {
    Vault::open(dir.path(), &passphrase()).unwrap()
}

fn on_one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn nothing_of_a_killed_phone_goes_on() {
    let there = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (host, dir) = there.block_on(async {
        let host = scripted_host();
        let dir = paired_vault(&host).await;
        (host, dir)
    });
    let here = on_one_thread();
    here.block_on(async {
        let alive = || Handle::current().metrics().num_alive_tasks();
        let before = alive();
        let dialer = Elsewhere(there.handle().clone(), ToHost(host));
        let phone = start(open(&dir), dialer).unwrap();
        phone.attach().await.unwrap();
        assert!(alive() > before);

        phone.stop_now();
        // Nothing is waited for: a few turns, in which each task sees that it is over.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(alive(), before);
    });
}

#[tokio::test(start_paused = true)]
async fn a_killed_phone_sends_and_writes_nothing_more() {
    let (dir, phone, host) = attached().await;
    let link = host.link(1).await;
    let ledger = std::fs::read(dir.path().join("ledger")).unwrap();
    phone.stop_now();

    // The host only sees that the connection broke.
    assert_eq!(link.closed().await.code, CloseCode::Lost);
    assert_eq!(code_of(phone.balance().await), Code::PhoneStopped.as_str());
    assert!(phone.invoice(Some(1_000), "late", 600).await.is_err());
    assert!(phone.attach().await.is_err());
    assert_eq!(host.asked(), []);
    assert_eq!(std::fs::read(dir.path().join("ledger")).unwrap(), ledger);

    // As for a process that is gone, though a handle on it is still there.
    let again = start(open(&dir), ToHost(Arc::clone(&host))).unwrap();
    again.attach().await.unwrap();
    assert_eq!(again.balance().await.unwrap().lightning_msat, 42_000);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_phone_dials_nobody_and_says_that_it_was_stopped() {
    let (_dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    let running = tokio::spawn({
        let phone = phone.clone();
        async move { phone.run(std::future::pending()).await }
    });
    host.link(2).await;
    phone.attached().await.unwrap();
    let dials = host.dials.load(Ordering::SeqCst);
    phone.stop_now();
    let stopped = Code::PhoneStopped.as_str();
    assert_eq!(code_of(running.await.unwrap()), stopped);
    assert_eq!(code_of(phone.attached().await), stopped);
    phone.attach().await.unwrap_err();
    assert_eq!(code_of(phone.balance().await), stopped);
    assert_eq!(host.dials.load(Ordering::SeqCst), dials);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_answer_ends_with_the_phone() {
    let (_dir, phone, host) = attached().await;
    host.is_down.store(true, Ordering::SeqCst);
    host.hang_up(CloseCode::Unavailable);
    let waiting = tokio::spawn({
        let phone = phone.clone();
        async move { phone.balance().await }
    });
    tokio::task::yield_now().await;
    phone.stop_now();
    assert_eq!(code_of(waiting.await.unwrap()), Code::PhoneStopped.as_str());
}

/// The power goes at the next write of one kind, and takes the phone with it.
pub(super) struct Trap {
    at: DiskWrite,
    fate: Mutex<Option<DiskFate>>,
    phone: Mutex<Option<Phone>>,
}

impl Trap {
    pub(super) fn new(at: DiskWrite, fate: DiskFate) -> Arc<Trap> {
        Arc::new(Trap {
            at,
            fate: Mutex::new(Some(fate)),
            phone: Mutex::default(),
        })
    }

    /// From now on it waits for `phone`.
    pub(super) fn set(&self, phone: Phone) {
        *self.phone.lock().unwrap() = Some(phone);
    }
}

impl DiskFaults for Trap {
    fn before(&self, write: DiskWrite, _: usize) -> DiskFate {
        let is_set = self.phone.lock().unwrap().is_some() && write == self.at;
        let fate = is_set.then(|| self.fate.lock().unwrap().take()).flatten();
        fate.unwrap_or(DiskFate::GoOn)
    }
    fn power_gone(&self) {
        let phone = self.phone.lock().unwrap().take();
        phone.expect("the power goes once").stop_now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_dies_at_any_write_of_a_batch_answers_it_when_it_is_back() {
    use DiskFate::{PowerGoneAfter, PowerGoneBefore, PowerGoneTorn};
    use DiskWrite::{HeadRaise, LedgerAppend};
    // A write and its fate, and the number of records after it.
    let cases = [
        (LedgerAppend, PowerGoneBefore, 0),
        (LedgerAppend, PowerGoneTorn { written: 0 }, 0),
        (LedgerAppend, PowerGoneTorn { written: 7 }, 0),
        (LedgerAppend, PowerGoneTorn { written: 50 }, 0),
        (LedgerAppend, PowerGoneAfter, 1),
        (HeadRaise, PowerGoneBefore, 1),
        (HeadRaise, PowerGoneTorn { written: 10 }, 1),
        (HeadRaise, PowerGoneAfter, 1),
    ];
    for (at, fate, on_record) in cases {
        let story = format!("{at:?}, {fate:?}");
        let trap = Trap::new(at, fate);
        let (dir, phone, host) = attached_on(Some(trap.clone())).await;
        let setup = setup(&host).await;
        trap.set(phone);
        let error = ask(&host, &setup).await.unwrap_err();
        assert!(
            matches!(&error, LinkError::Down(reason) if reason.code == CloseCode::Lost),
            "{story}: {error}"
        );

        let phone = start(open(&dir), ToHost(Arc::clone(&host))).unwrap();
        assert_eq!(version(&phone).await, on_record, "{story}");
        phone.attach().await.unwrap();
        host.link(2).await;
        let answers = ask(&host, &setup).await.unwrap();
        assert!(matches!(answers[..], [Answer::Setup(_)]), "{story}");
        assert_eq!(version(&phone).await, 1, "{story}");
        phone.detach().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_dies_while_it_pairs_can_pair_again() {
    for fate in [
        DiskFate::PowerGoneBefore,
        DiskFate::PowerGoneTorn { written: 20 },
        DiskFate::PowerGoneAfter,
    ] {
        let story = format!("{fate:?}");
        let host = scripted_host();
        let trap = Trap::new(DiskWrite::Host, fate);
        let (dir, phone) = phone_on(Some(trap.clone()), WORDS, &host);
        trap.set(phone.clone());
        let error = phone.pair(&code_text(&host)).await.unwrap_err();
        assert!(
            matches!(error, PhoneError::Vault(VaultError::Io(_))),
            "{story}: {error}"
        );
        assert_eq!(host.dials.load(Ordering::SeqCst), 0, "{story}");

        let phone = start(open(&dir), ToHost(Arc::clone(&host))).unwrap();
        phone.pair(&code_text(&host)).await.unwrap();
        phone.detach().await.unwrap();
        assert_eq!(host.registered(), 1, "{story}");
    }
}

/// On a runtime of several threads the disk is written to by others, as in production.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_more_threads_a_phone_does_the_same() {
    let (_dir, phone, host) = attached().await;
    let setup = setup(&host).await;
    let answers = ask(&host, &setup).await.unwrap();
    assert!(matches!(answers[..], [Answer::Setup(_)]), "{answers:?}");
    assert_eq!(version(&phone).await, 1);
    phone.detach().await.unwrap();
}
