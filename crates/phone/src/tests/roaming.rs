//! Several ways to one host, and a phone that changes networks.

use std::collections::HashSet;
use std::time::Duration;

use super::*;

const WAYS: [&str; 3] = ["direct://host", "other://host", "relay://host"];

/// A host with several addresses, of which some answer. Those that do not answer take the connection and say nothing, or refuse it.
#[derive(Clone)]
struct Network {
    host: Arc<ScriptedHost>,
    state: Arc<Mutex<NetworkState>>,
}

#[derive(Default)]
struct NetworkState {
    answers: HashSet<&'static str>,
    refuses: bool,
    dialled: Vec<String>,
    /// Connections to addresses that say nothing.
    silent: Vec<Carrier>,
}

impl Network {
    fn new(answers: &[&'static str]) -> Network {
        let network = Network {
            host: scripted_host(),
            state: Arc::default(),
        };
        network.answer(answers);
        network
    }

    /// From now on these addresses answer, and no other.
    fn answer(&self, answers: &[&'static str]) {
        self.state.lock().unwrap().answers = answers.iter().copied().collect();
    }

    /// The addresses that were dialled since the last call.
    fn dialled(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().dialled)
    }

    fn code(&self) -> String {
        let code = longhand_link::PairingCode {
            addresses: WAYS.map(str::to_owned).to_vec(),
            ..self.host.code()
        };
        code.to_text().unwrap().to_string()
    }

    fn phone(&self) -> (TempDir, Phone) {
        let dir = tempfile::tempdir().unwrap();
        let vault = new_vault(dir.path(), WORDS);
        let phone = start(vault, self.clone()).unwrap();
        (dir, phone)
    }

    async fn paired(&self) -> (TempDir, Phone) {
        let (dir, phone) = self.phone();
        phone.pair(&self.code()).await.unwrap();
        (dir, phone)
    }
}

#[async_trait]
impl Dial for Network {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        let mut state = self.state.lock().unwrap();
        state.dialled.push(address.to_owned());
        if state.answers.contains(address) {
            return self.host.dial(address);
        }
        if state.refuses {
            return Err(LinkError::Unreachable {
                address: address.to_owned(),
                reason: "connection refused".into(),
            });
        }
        let (near, far) = Carrier::pair();
        state.silent.push(far);
        Ok(near)
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_takes_the_first_way_that_answers_and_remembers_it_on_its_network() {
    let network = Network::new(&[WAYS[2]]);
    let (dir, phone) = network.phone();
    phone.network_changed(Some("work"));
    let begun = tokio::time::Instant::now();
    phone.pair(&network.code()).await.unwrap();
    // Each way has a head start before the next.
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(network.dialled(), WAYS);
    phone.detach().await.unwrap();

    phone.attach().await.unwrap();
    assert_eq!(network.dialled(), [WAYS[2]]);
    phone.detach().await.unwrap();
    phone.network_changed(Some("home"));
    phone.attach().await.unwrap();
    assert_eq!(network.dialled(), WAYS);
    phone.detach().await.unwrap();

    // Also in the next process.
    phone.stop_now();
    drop(phone);
    let vault = Vault::open(dir.path(), &passphrase()).unwrap();
    let phone = start(vault, network.clone()).unwrap();
    phone.network_changed(Some("work"));
    phone.attach().await.unwrap();
    assert_eq!(network.dialled(), [WAYS[2]]);
}

#[tokio::test(start_paused = true)]
async fn a_better_way_takes_over_without_a_command_noticing() {
    let network = Network::new(&[WAYS[2]]);
    let (_dir, phone) = network.paired().await;
    let worse = network.host.link(1).await;
    let balance = tokio::spawn({
        let phone = phone.clone();
        async move { phone.balance().await }
    });
    network.dialled();
    network.answer(&[WAYS[1], WAYS[2]]);
    let better = network.host.link(2).await;
    assert_eq!(worse.closed().await.code, CloseCode::Replaced);
    assert_eq!(network.dialled(), WAYS[..2]);
    assert_eq!(balance.await.unwrap().unwrap().lightning_msat, 42_000);

    // The way in use is the second best now: only the best is tried, later and later.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(network.dialled(), [WAYS[0], WAYS[0]]);
    phone.balance().await.unwrap();
    assert!(network.host.conversation.link().is_some());
    phone.detach().await.unwrap();
    assert_eq!(better.closed().await.code, CloseCode::Detached);
}

#[tokio::test(start_paused = true)]
async fn another_network_is_dialled_at_once_and_a_command_in_flight_goes_on_there() {
    let network = Network::new(&[WAYS[0]]);
    let (_dir, phone) = network.paired().await;
    let before = network.host.link(1).await;
    let begun = tokio::time::Instant::now();
    phone.network_changed(Some("mobile"));
    network.host.link(2).await;
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert_eq!(before.closed().await.code, CloseCode::Replaced);
    phone.balance().await.unwrap();
    assert_eq!(network.host.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_alive_is_kept_while_the_new_network_does_not_answer() {
    let network = Network::new(&[WAYS[0]]);
    let (_dir, phone) = network.paired().await;
    network.answer(&[]);
    phone.network_changed(Some("mobile"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    phone.balance().await.unwrap();
    network.answer(&[WAYS[1]]);
    network.host.link(2).await;
    phone.balance().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_the_wait_before_a_host_that_was_away_is_dialled_again() {
    let network = Network::new(&[WAYS[0]]);
    let (_dir, phone) = network.paired().await;
    network.answer(&[]);
    network.state.lock().unwrap().refuses = true;
    network.host.hang_up(CloseCode::Shutdown);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    // Each wait is between 15 and 30 seconds now.
    network.dialled();
    while network.dialled().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.dialled();
    network.answer(&[WAYS[0]]);
    let begun = tokio::time::Instant::now();
    phone.balance().await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert_eq!(network.dialled(), [WAYS[0]]);
}

#[tokio::test(start_paused = true)]
async fn without_a_network_nothing_is_dialled_until_there_is_one() {
    let network = Network::new(&[WAYS[0]]);
    let (_dir, phone) = network.paired().await;
    network.dialled();
    phone.network_changed(None);
    network.host.hang_up(CloseCode::Shutdown);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(network.dialled(), [""; 0]);
    phone.network_changed(Some("home"));
    network.host.link(2).await;
    assert_eq!(network.dialled(), [WAYS[0]]);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_waits_to_dial_again_is_woken_by_a_network() {
    let network = Network::new(&[WAYS[0]]);
    let (_dir, phone) = network.paired().await;
    network.host.is_down.store(true, Ordering::SeqCst);
    network.host.hang_up(CloseCode::Shutdown);
    // The pauses have become long.
    tokio::time::sleep(Duration::from_secs(300)).await;
    network.host.is_down.store(false, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    phone.network_changed(Some("home"));
    network.host.link(2).await;
    assert!(begun.elapsed() < Duration::from_millis(10));
}

/// A phone on the last way, whose attempt at the better ones goes on: they take connections and say nothing.
async fn trying_better_ways() -> (Network, TempDir, Phone) {
    let network = Network::new(&[WAYS[2]]);
    let (dir, phone) = network.paired().await;
    network.dialled();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(network.dialled(), WAYS[..2], "the attempt goes on");
    (network, dir, phone)
}

#[tokio::test(start_paused = true)]
async fn a_link_that_ends_while_better_ways_are_tried_is_dialled_over_all_of_them_at_once() {
    let (network, _dir, _phone) = trying_better_ways().await;
    let begun = tokio::time::Instant::now();
    network.host.hang_up(CloseCode::Shutdown);
    network.host.link(2).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_reported_while_better_ways_are_tried_is_dialled_over_all_of_them() {
    let (network, _dir, phone) = trying_better_ways().await;
    let begun = tokio::time::Instant::now();
    phone.network_changed(Some("mobile"));
    network.host.link(2).await;
    assert_eq!(network.dialled(), WAYS);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_was_stopped_for_an_hour_is_back_within_a_second() {
    let network = Network::new(&[WAYS[0]]);
    let (_dir, phone) = network.paired().await;
    // Nothing of it runs meanwhile, as after SIGSTOP and SIGCONT.
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let begun = tokio::time::Instant::now();
    network.host.link(2).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    phone.balance().await.unwrap();
}
