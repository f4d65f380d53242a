//! Pairing, registering, attaching again, detaching.

use bitcoin::bech32::{self, Bech32m};
use longhand_link::{
    Config, Conversation, DialOptions, HostIdentity, LinkKey, LinkKeypair, OwnerId, Pairing,
    PairingCode, PairingId, Side, accept,
};
use longhand_proto::Code;
use longhand_proto::command::error::Action;

use super::*;
use crate::testing::{DiskFate, DiskWrite};

#[tokio::test]
async fn a_pairing_code_makes_the_phone_the_hosts() {
    let (_dir, phone, host) = attached().await;
    let paired = phone.vault().host().unwrap().unwrap();
    assert!(paired.registered);
    assert_eq!(paired.addresses, ["memory://host"]);
    assert_eq!(phone.balance().await.unwrap().lightning_msat, 42_000);
    assert_eq!(host.registered(), 1);
    phone.detach().await.unwrap();
    assert!(host.conversation.link().is_none());
}

#[tokio::test]
async fn a_paired_phone_attaches_again_and_registers_once() {
    let (_dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    phone.attach().await.unwrap();
    assert_eq!(phone.balance().await.unwrap().lightning_msat, 42_000);
    assert_eq!(host.registered(), 1);
}

#[tokio::test]
async fn an_unpaired_phone_says_so() {
    let host = scripted_host();
    let (_dir, phone) = phone_with(WORDS, &host);
    assert_eq!(code_of(phone.balance().await), Code::NotAttached);
    assert_eq!(code_of(phone.attach().await), Code::NotPaired);
    assert_eq!(host.dials.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn bad_pairing_codes_change_nothing() {
    let host = scripted_host();
    let (_dir, phone) = phone_with(WORDS, &host);
    let text = code_text(&host);
    assert_eq!(
        code_of(phone.pair("longhand1nonsense").await),
        Code::PairingMalformed
    );
    assert_eq!(
        code_of(phone.pair(&text[..text.len() - 3]).await),
        Code::PairingMalformed
    );

    let expired = PairingCode {
        expires_unix_s: now_unix_s(),
        ..host.code()
    };
    let refused = phone.pair(&expired.to_text().unwrap()).await;
    let refused = refused.unwrap_err().report();
    assert_eq!(refused.code, Code::PairingExpired);
    for part in [
        "the pairing code expired at 20",
        "this phone's clock shows 20",
    ] {
        assert!(refused.message.contains(part), "{refused:?}");
    }
    assert_eq!(host.dials.load(Ordering::SeqCst), 0);

    let unknown = PairingCode {
        secret: PairingSecret::generate().unwrap(),
        ..host.code()
    };
    assert_eq!(
        code_of(phone.pair(&unknown.to_text().unwrap()).await),
        Code::PairingUnknown
    );

    host.is_down.store(true, Ordering::SeqCst);
    assert_eq!(code_of(phone.pair(&text).await), Code::HostUnreachable);
    assert_eq!(phone.vault().host().unwrap(), None);

    host.is_down.store(false, Ordering::SeqCst);
    phone.pair(&text).await.unwrap();
}

#[tokio::test]
async fn a_pairing_code_of_a_newer_version_is_named() {
    let host = scripted_host();
    let (_dir, phone) = phone_with(WORDS, &host);
    let (prefix, mut data) = bech32::decode(&code_text(&host)).unwrap();
    data[0] += 1;
    let newer = bech32::encode::<Bech32m>(prefix, &data).unwrap();
    assert_eq!(code_of(phone.pair(&newer).await), Code::PairingVersion);
    assert_eq!(host.dials.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_code_whose_addresses_no_carrier_takes_is_refused() {
    let host = scripted_host();
    let dir = tempfile::tempdir().unwrap();
    let vault = new_vault(dir.path(), WORDS);
    let phone = start(vault, DialOptions::default()).unwrap();
    // Its address is in the memory of this process.
    let refused = phone.pair(&code_text(&host)).await;
    assert_eq!(code_of(refused), Code::CarrierUnknown);
    assert_eq!(phone.vault().host().unwrap(), None);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_make_no_link() {
    let host = scripted_host();
    let dir = tempfile::tempdir().unwrap();
    let dialer = DialOptions {
        ca_pem: Some(b"no certificate".to_vec()),
        ..DialOptions::default()
    };
    let phone = start(new_vault(dir.path(), WORDS), dialer).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let encrypted = PairingCode {
        addresses: vec![format!("wss://{}", listener.local_addr().unwrap())],
        ..host.code()
    };
    let failed = phone.pair(&encrypted.to_text().unwrap()).await;
    assert_eq!(code_of(failed), Code::Tls);
}

#[tokio::test]
async fn a_phone_does_not_pair_with_another_host_than_the_codes() {
    let host = scripted_host();
    let (_dir, phone) = phone_with(WORDS, &host);
    let elsewhere = PairingCode {
        host: scripted_host().key(),
        ..host.code()
    };
    let refused = phone.pair(&elsewhere.to_text().unwrap()).await;
    assert_eq!(code_of(refused), Code::WrongHost);
    assert_eq!(phone.vault().host().unwrap(), None);
}

#[tokio::test]
async fn a_phone_does_not_attach_to_a_host_with_another_key() {
    let (_dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    let mut paired = phone.vault().host().unwrap().unwrap();
    paired.key = scripted_host().key().0;
    phone.vault().set_host(&paired).unwrap();
    assert_eq!(code_of(phone.attach().await), Code::HandshakeFailed);
    assert!(host.conversation.link().is_none());
}

/// A system that gives no random bytes.
struct NoRandomness;

#[async_trait]
impl Dial for NoRandomness {
    async fn dial(&self, _: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        Err(LinkError::Randomness("none".into()))
    }
}

#[tokio::test]
async fn a_link_that_cannot_be_set_up_here_is_named() {
    let host = scripted_host();
    let dir = tempfile::tempdir().unwrap();
    let phone = start(new_vault(dir.path(), WORDS), NoRandomness).unwrap();
    let failed = phone.pair(&code_text(&host)).await;
    assert_eq!(code_of(failed), Code::LinkFailed);
}

/// The line breaks as soon as it stands.
struct BrokenLine;

#[async_trait]
impl Dial for BrokenLine {
    async fn dial(&self, _: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        Ok(Carrier::pair().0)
    }
}

#[tokio::test]
async fn a_line_that_breaks_during_the_handshake_is_named() {
    let host = scripted_host();
    let dir = tempfile::tempdir().unwrap();
    let phone = start(new_vault(dir.path(), WORDS), BrokenLine).unwrap();
    let broken = phone.pair(&code_text(&host)).await;
    assert_eq!(code_of(broken), Code::HandshakeBroken);
}

/// One process of a host, whose commands the test reads.
struct HostProcess {
    host: Arc<ScriptedHost>,
    conversation: Conversation,
}

#[async_trait]
impl HostIdentity for HostProcess {
    fn keypair(&self) -> LinkKeypair {
        self.host.keypair()
    }

    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError> {
        self.host.pairing(id).await
    }

    async fn pin(&self, id: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        self.host.pin(id, phone).await
    }

    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        self.host.owner_of(phone).await
    }

    fn conversation_of(&self, _: &OwnerId) -> Conversation {
        self.conversation.clone()
    }
}

/// Each attempt reaches the next process.
struct ToProcesses(Mutex<Vec<HostProcess>>);

#[async_trait]
impl Dial for ToProcesses {
    async fn dial(&self, _: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        let process = self.0.lock().unwrap().remove(0);
        let (phone_end, host_end) = Carrier::pair();
        tokio::spawn(async move {
            let accepted = accept(host_end, &process).await.unwrap();
            accepted.link.closed().await
        });
        Ok(phone_end)
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_the_host_has_lost_in_a_restart_is_reported() {
    let host = scripted_host();
    let process = || {
        let config = Config::new("host", &["command"]);
        let (conversation, requests) =
            Conversation::new(Side::Host, config, longhand_link::runtime::tokio()).unwrap();
        let host = Arc::clone(&host);
        (HostProcess { host, conversation }, requests)
    };
    let ((before, mut commands), (after, _commands)) = (process(), process());
    let dir = tempfile::tempdir().unwrap();
    let dialer = ToProcesses(Mutex::new(vec![before, after]));
    let phone = start(new_vault(dir.path(), WORDS), dialer).unwrap();
    let pairing = tokio::spawn({
        let (phone, code) = (phone.clone(), code_text(&host));
        async move { phone.pair(&code).await }
    });
    let _lost_with_the_process = commands.next().await.unwrap();
    let attaching = tokio::spawn({
        let phone = phone.clone();
        async move { phone.attach().await }
    });
    assert_eq!(code_of(pairing.await.unwrap()), Code::HostRestarted);
    attaching.abort();
}

#[tokio::test]
async fn a_code_that_another_phone_used_is_refused() {
    let (_dir, _phone, host) = attached().await;
    let (_other_dir, other) = phone_with(OTHER_WORDS, &host);
    assert_eq!(
        code_of(other.pair(&code_text(&host)).await),
        Code::PairingUsed
    );
    assert_eq!(other.vault().host().unwrap(), None);
}

#[tokio::test]
async fn a_code_that_has_expired_by_the_hosts_clock_alone_is_refused_with_both_times() {
    let host = scripted_host();
    let (_dir, phone) = phone_with(WORDS, &host);
    host.has_expired_code.store(true, Ordering::SeqCst);
    let refused = phone.pair(&code_text(&host)).await.unwrap_err().report();
    assert_eq!(refused.code, Code::PairingExpired);
    for part in ["the host's clock shows 20", "this phone's clock shows 20"] {
        assert!(refused.message.contains(part), "{refused:?}");
    }
    assert_eq!(phone.vault().host().unwrap(), None);
}

#[tokio::test]
async fn a_paired_phone_stays_with_its_host() {
    let (_dir, phone, _host) = attached().await;
    let another = scripted_host();
    assert_eq!(
        code_of(phone.pair(&code_text(&another)).await),
        Code::PairedElsewhere
    );
    phone.balance().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_broke_off_does_not_let_another_host_take_over() {
    let (_dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    // The host takes the code, and the link breaks before it has acknowledged the node, twice.
    host.script(|ask| matches!(ask, Ask::Register(_)).then_some(Act::HangUp));
    for _ in 0..2 {
        assert!(phone.pair(&code_text(&host)).await.is_err());
        assert!(!phone.vault().host().unwrap().unwrap().registered);
    }

    let another = scripted_host();
    assert_eq!(
        code_of(phone.pair(&code_text(&another)).await),
        Code::PairedElsewhere
    );
    let kept = phone.vault().host().unwrap().unwrap();
    assert_eq!(kept.key, host.code().host.0);

    host.script(|_| None);
    phone.attach().await.unwrap();
    assert_eq!(phone.balance().await.unwrap().lightning_msat, 42_000);
    assert!(phone.vault().host().unwrap().unwrap().registered);
}

#[tokio::test]
async fn a_host_that_has_another_node_for_the_owner_is_reported() {
    let host = scripted_host();
    host.script(|ask| match ask {
        Ask::Register(_) => Some(Act::Reply(error("OTHER_SEED", Action::FixInput))),
        _ => None,
    });
    let (_dir, phone) = phone_with(WORDS, &host);
    let refused = phone.pair(&code_text(&host)).await.unwrap_err();
    assert_eq!(refused.report().code, "OTHER_SEED");
    assert_eq!(
        refused.to_string(),
        "the host says no; change what was asked"
    );
    assert!(
        host.conversation.link().is_none(),
        "the phone does not stay"
    );
    assert!(!phone.vault().host().unwrap().unwrap().registered);
}

#[tokio::test(start_paused = true)]
async fn a_broken_link_is_dialled_again_until_the_host_is_back() {
    let (_dir, phone, host) = attached().await;
    host.is_down.store(true, Ordering::SeqCst);
    host.hang_up(CloseCode::Shutdown);
    let balance = tokio::spawn({
        let phone = phone.clone();
        async move { phone.balance().await }
    });
    while host.dials.load(Ordering::SeqCst) < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    host.is_down.store(false, Ordering::SeqCst);
    assert_eq!(balance.await.unwrap().unwrap().lightning_msat, 42_000);
}

/// An attacker on the network, who answers in the host's place as long as the host is down.
struct Intercepted(Arc<ScriptedHost>);

#[async_trait]
impl Dial for Intercepted {
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError> {
        if !self.0.is_down.load(Ordering::SeqCst) {
            return ToHost(Arc::clone(&self.0)).dial(address, meeting).await;
        }
        self.0.dials.fetch_add(1, Ordering::SeqCst);
        let (ours, mut theirs) = Carrier::pair();
        tokio::spawn(async move {
            theirs.stream.recv().await.unwrap();
            // A bare refusal: "another version". No key is needed to write it.
            theirs.sink.send(vec![9, 4, 1]).await.unwrap();
            theirs.stream.recv().await
        });
        Ok(ours)
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_on_the_line_can_make_the_phone_give_up() {
    let host = scripted_host();
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::restore(Network::Regtest, WORDS, Birthday::New).unwrap();
    let vault = Vault::create(
        dir.path(),
        secrets,
        &"passphrase".to_owned().into(),
        Some(1),
    );
    let phone = start(vault.unwrap(), Intercepted(Arc::clone(&host))).unwrap();
    phone.pair(&code_text(&host)).await.unwrap();
    phone.detach().await.unwrap();
    host.is_down.store(true, Ordering::SeqCst);
    assert_eq!(code_of(phone.attach().await), Code::Version);

    let before = host.dials.load(Ordering::SeqCst);
    let running = tokio::spawn({
        let phone = phone.clone();
        async move { phone.run(std::future::pending()).await }
    });
    while host.dials.load(Ordering::SeqCst) < before + 3 {
        assert!(!running.is_finished(), "the phone has given up");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    host.is_down.store(false, Ordering::SeqCst);
    assert_eq!(phone.balance().await.unwrap().lightning_msat, 42_000);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_command_gives_up_when_the_host_stays_away() {
    let (_dir, phone, host) = attached().await;
    host.is_down.store(true, Ordering::SeqCst);
    host.hang_up(CloseCode::Shutdown);
    assert_eq!(code_of(phone.balance().await), Code::HostAway);
}

/// The link broke before the answer arrived, and the host has given so many others since that it no longer keeps it.
#[tokio::test]
async fn an_answer_that_the_host_no_longer_keeps_is_asked_for_anew() {
    let (_dir, phone, host) = attached().await;
    let mut asked = 0;
    host.script(move |_| {
        asked += 1;
        (asked == 1).then_some(Act::Refuse(Code::Forgotten.into()))
    });
    assert_eq!(phone.balance().await.unwrap().lightning_msat, 42_000);
    assert_eq!(host.asked().len(), 2);

    // A new request cannot be forgotten.
    host.script(|_| Some(Act::Refuse(Code::Forgotten.into())));
    assert_eq!(code_of(phone.balance().await), Code::Forgotten);
    assert_eq!(host.asked().len(), 4);
}

#[tokio::test]
async fn the_newest_process_wins_and_the_older_one_ends() {
    let (dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    let older = tokio::spawn({
        let phone = phone.clone();
        async move { phone.run(std::future::pending()).await }
    });
    host.link(2).await;

    // A copy of the phone's directory has the same keys: an owner must not make one, and the lock cannot detect it.
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let vault = Vault::open(copy.path(), &"passphrase".to_owned().into()).unwrap();
    let newer = start(vault, ToHost(Arc::clone(&host))).unwrap();
    newer.attach().await.unwrap();

    assert_eq!(code_of(older.await.unwrap()), Code::Replaced);
    newer.balance().await.unwrap();
    assert_eq!(code_of(phone.balance().await), Code::Replaced);
}

#[tokio::test]
async fn run_detaches_cleanly_when_it_is_stopped() {
    let (_dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let phone = phone.clone();
        async move { phone.run(async { drop(stopped.await) }).await }
    });
    let link = host.link(2).await;
    phone.attached().await.unwrap();
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(link.closed().await.code, CloseCode::Detached);
}

/// The host's file fails once, as on a disk that is full for a moment.
struct FailsOnce(AtomicBool);

impl DiskFaults for FailsOnce {
    fn before(&self, write: DiskWrite, _: usize) -> DiskFate {
        if write == DiskWrite::Host && !self.0.swap(true, Ordering::SeqCst) {
            let error = std::io::ErrorKind::StorageFull.into();
            return DiskFate::Fail { error, written: 0 };
        }
        DiskFate::GoOn
    }
    fn power_gone(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_for_a_moment_does_not_end_a_phone() {
    let host = scripted_host();
    let (dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    phone.detach().await.unwrap();
    phone.stop_now();
    // Its pairing broke off before the host had registered it.
    let vault = Vault::open(dir.path(), &passphrase()).unwrap();
    let mut paired = vault.host().unwrap().unwrap();
    paired.registered = false;
    vault.set_host(&paired).unwrap();

    let faults = Arc::new(FailsOnce(AtomicBool::new(false)));
    drop(vault);
    let vault = open_on(faults.clone(), dir.path());
    let phone = start(vault, ToHost(Arc::clone(&host))).unwrap();
    let running = tokio::spawn({
        let phone = phone.clone();
        async move { phone.run(std::future::pending()).await }
    });
    host.link(3).await;
    phone.attached().await.unwrap();
    assert!(faults.0.load(Ordering::SeqCst));
    assert!(!running.is_finished(), "the phone has given up");
    running.abort();
}

#[tokio::test]
async fn a_host_that_forgot_the_phone_is_not_dialled_for_ever() {
    let (_dir, phone, host) = attached().await;
    phone.detach().await.unwrap();
    host.forget_phone();
    assert_eq!(
        code_of(phone.run(std::future::pending()).await),
        Code::UnknownOwner
    );
}

#[tokio::test]
async fn the_host_gets_the_birthday_of_restored_words() {
    for (birthday, height, unix_s) in [
        (Birthday::New, 0, 0),
        (Birthday::Height(800_000), 800_000, 0),
        (Birthday::UnixS(1_700_000_000), 0, 1_700_000_000),
    ] {
        let host = scripted_host();
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::restore(Network::Regtest, WORDS, birthday).unwrap();
        let vault = Vault::create(dir.path(), secrets, &passphrase(), Some(1)).unwrap();
        let phone = start(vault, ToHost(Arc::clone(&host))).unwrap();
        phone.pair(&code_text(&host)).await.unwrap();
        phone.detach().await.unwrap();
        let registrations = host.registrations();
        let [register] = &registrations[..] else {
            panic!("not one registration: {registrations:?}");
        };
        assert_eq!(register.birthday_height, height);
        assert_eq!(register.birthday_unix_s, unix_s);
    }
}
