#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The host's side of Tor, against a Tor process of the test's own.

use longhand_link::carrier::tor::Tor as TorCarrier;
use longhand_link::{Carriers, DialOptions, DiscoverySeed, OwnerId, PairingCode, PairingSecret};
use longhand_proto::Code;
use longhand_proto::operator::CreateOwnerRequest;
use longhand_store::MemoryStore;
use longhand_testkit::link_phone::LinkPhone;
use longhand_tor::control::{Arrival, Report, Setup};
use longhand_tor::{DialError, DiscoverySecret, OnionDialer, OnionStream, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::clients::TorClients;
use super::testing::{FakeLaunch, FakeProcess, World, asked};
use super::*;
use crate::Host;

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_is_started_again_with_the_same_services() {
    let mut world = World::new(|config| config.tor.peers = true).await;
    let mut seeds = Vec::new();
    for ends in 0..3 {
        let mut process = world.process().await;
        let mut services = [process.ordered().await, process.ordered().await];
        services.sort_by_key(|service| service.id);
        assert_eq!(services.each_ref().map(|it| it.id), [0, PEERS]);
        assert_eq!(
            services.each_ref().map(|it| it.port),
            [LINK_PORT, PEER_PORT]
        );
        seeds.push(services.map(|service| service.seed));
        assert_eq!(world.tor.state().borrow().ends, ends);
    }
    assert!(seeds.iter().all(|it| *it == seeds[0]));
    let [links, peers] = &seeds[0];
    let shown = format!("tor://{}:9750", links.address());
    assert_eq!(world.tor.link_address(0), Some(shown));
    assert_eq!(
        world.tor.peer_address(),
        Some(format!("{}:9735", peers.address()))
    );
}

#[tokio::test(start_paused = true)]
async fn the_addresses_are_the_same_after_a_restart_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_owned();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let world = World::new(|config| config.data_dir = data_dir.clone()).await;
        addresses.push(world.tor.link_address(0).unwrap());
    }
    assert_eq!(addresses[0], addresses[1]);
}

#[tokio::test]
async fn a_connection_is_asked_of_the_process_with_its_password_and_isolation() {
    let mut world = World::new(|_| ()).await;
    let mut process = world.process().await;
    let socks = process.listen().await;
    world.ready().await;
    let connector = world.tor.connector("owner 1");
    let (near, far) = tokio::join!(connector.connect("peer.example", 9735), asked(&socks, 0));
    let (mut far, [isolation, password, host], port) = far;
    assert_eq!(
        (isolation.as_str(), host.as_str(), port),
        ("owner 1", "peer.example", 9735)
    );
    assert!(process.setup.secret.is_password(password.as_bytes()));
    near.unwrap().write_all(b"hello").await.unwrap();
    let mut read = [0; 5];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    let (refused, _) = tokio::join!(connector.connect("peer.example", 9735), asked(&socks, 4));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("not reached over Tor")
    );
}

#[tokio::test]
async fn while_tor_is_stuck_connections_fail_with_the_step() {
    let mut world = World::new(|_| ()).await;
    let connector = world.tor.connector("hub");
    let refused = connector.connect("a.onion", 1).await.unwrap_err();
    assert!(refused.to_string().contains("no relay"), "{refused}");
    assert!(world.tor.proxy_url("x").ends_with("@127.0.0.1:1"));
    let mut process = world.process().await;
    let stuck = Progress {
        step: Step::Clock,
        percent: 8,
        problem: None,
    };
    process.report(Report::Progress(stuck)).await;
    let mut state = world.tor.state();
    let clock = |state: &TorState| state.progress.step == Step::Clock;
    let problem = state.wait_for(clock).await.unwrap().problem();
    assert!(problem.unwrap().contains("clock is wrong"));
    drop(process);
    let gone = |state: &TorState| state.failure.is_some();
    let problem = state.wait_for(gone).await.unwrap().problem();
    assert!(problem.unwrap().contains("process does not run"));
}

#[tokio::test]
async fn a_client_comes_in_by_the_service_that_it_has_dialled_and_with_the_secret_alone() {
    let mut world = World::new(|_| ()).await;
    let process = world.process().await;
    let (taking, mut arriving) = world.arrivals.take().unwrap().take();
    tokio::spawn(taking);
    let come = async |service, secret: &Secret| {
        let mut stream = TcpStream::connect(process.setup.arrivals).await.unwrap();
        let arrival = Arrival {
            service,
            circuit: 7,
        };
        stream
            .write_all(arrival.to_bytes(secret).as_ref())
            .await
            .unwrap();
        stream
    };
    let _phone = come(0, &process.setup.secret).await;
    arriving.links.recv().await.unwrap();
    let _peer = come(PEERS, &process.setup.secret).await;
    arriving.peers.recv().await.unwrap();
    let mut stranger = come(0, &Secret::from_bytes([0; 32])).await;
    assert_eq!(
        stranger.read(&mut [0]).await.unwrap_or(0),
        0,
        "it is closed"
    );
    assert!(arriving.links.try_recv().is_err());
}

#[tokio::test]
async fn one_circuit_does_not_take_the_places_of_others() {
    let mut world = World::new(|_| ()).await;
    let process = world.process().await;
    let (taking, mut arriving) = world.arrivals.take().unwrap().take();
    tokio::spawn(taking);
    let mut open = Vec::new();
    let mut come = async |circuit| {
        let mut stream = TcpStream::connect(process.setup.arrivals).await.unwrap();
        let arrival = Arrival {
            service: 0,
            circuit,
        };
        let head = arrival.to_bytes(&process.setup.secret);
        stream.write_all(head.as_ref()).await.unwrap();
        open.push(stream);
    };
    let mut guests = Vec::new();
    for _ in 0..longhand_link::carrier::admission::Places::STRANGERS.each {
        come(1).await;
        guests.push(arriving.links.recv().await.unwrap());
    }
    come(1).await;
    come(2).await;
    let next = arriving.links.recv().await.unwrap();
    drop(next);
    assert!(
        arriving.links.try_recv().is_err(),
        "only the second circuit had a place"
    );
}

#[tokio::test]
async fn tor_carries_onion_services_and_where_configured_all_that_an_exit_reaches() {
    let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    let some = World::new(|_| ()).await.tor;
    let all = World::new(|config| config.tor.all_outgoing = true)
        .await
        .tor;
    for tor in [&some, &all] {
        assert!(tor.carries(onion));
        for local in ["127.0.0.1", "[::1]", "10.0.0.1", "192.168.1.2", "localhost"] {
            assert!(!tor.carries(local), "{local}");
        }
    }
    for public in ["peer.example", "1.2.3.4", "[2001:4860::1]"] {
        assert!(!some.carries(public) && all.carries(public), "{public}");
    }
}

#[tokio::test]
async fn with_restricted_discovery_a_service_is_served_to_its_owners_clients_alone() {
    let mut world = World::new(|config| config.tor.restricted_discovery = true).await;
    let mut process = world.process().await;
    let clients = TorClients::new(world.tor.clone());
    let seed = |n| Some(DiscoverySeed::of(&PairingSecret::from_bytes([n; 16])));
    clients.set(OwnerId([1; 16]), 3, seed(1));
    let first = process.ordered().await;
    assert_eq!((first.id, first.clients.map(|it| it.len())), (3, Some(1)));
    clients.set(OwnerId([2; 16]), 3, seed(2));
    let second = process.ordered().await;
    let of_both = second.clients.unwrap();
    assert_eq!(of_both.len(), 2);
    // The pairing of the first is renewed.
    clients.set(OwnerId([1; 16]), 3, seed(3));
    let third = process.ordered().await.clients.unwrap();
    assert_eq!((third.len(), third[1]), (2, of_both[1]));
    assert_ne!(third[0], of_both[0]);
    let onion = world.tor.links_onion(3);
    assert_eq!(second.seed.address(), onion);
    assert_ne!(world.tor.links_onion(0), onion);
}

#[tokio::test]
async fn a_forwarded_port_leads_to_its_place() {
    let mut world = World::new(|_| ()).await;
    let mut process = world.process().await;
    let socks = process.listen().await;
    world.ready().await;
    let near = world
        .tor
        .forward("chain.onion", 8332, "chain")
        .await
        .unwrap();
    let mut stream = TcpStream::connect(near).await.unwrap();
    let (mut far, [isolation, _, host], port) = asked(&socks, 0).await;
    assert_eq!(
        (isolation.as_str(), host.as_str(), port),
        ("chain", "chain.onion", 8332)
    );
    far.write_all(b"block").await.unwrap();
    let mut read = [0; 5];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"block");
}

#[tokio::test(start_paused = true)]
async fn the_process_is_stopped_with_the_host_and_not_started_again() {
    let mut world = World::new(|_| ()).await;
    let mut process = world.process().await;
    let ordered = process.ordered().await;
    assert_eq!(ordered.id, 0);
    let began = tokio::time::Instant::now();
    let (_, end) = tokio::join!(world.tor.stop(), process.orders.next_line());
    assert_eq!(end.unwrap(), None, "its input has ended");
    assert!(began.elapsed() < STOP, "{:?}", began.elapsed());
    let state = world.tor.state().borrow().clone();
    assert_eq!((state.failure, state.has_stopped), (None, true));
    assert!(world.launched.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn each_process_has_a_secret_of_its_own() {
    let mut world = World::new(|_| ()).await;
    let first = world.process().await.setup.secret;
    let second = world.process().await.setup.secret;
    assert_ne!(first.expose(), second.expose());
    let password = second.password();
    assert!(world.tor.proxy_url("x").contains(&*password));
}

#[tokio::test]
async fn a_line_that_is_none_of_the_protocol_ends_the_process() {
    let mut world = World::new(|_| ()).await;
    let mut process = world.process().await;
    process.reports.write_all(b"Tor 0.4.8\n").await.unwrap();
    let mut state = world.tor.state();
    let failed = |state: &TorState| state.failure.is_some();
    let failure = state.wait_for(failed).await.unwrap().failure.clone();
    assert!(failure.unwrap().contains("cannot be read"));
}

/// A phone's Tor, as the process of the test lets it in: it finds one service, and only with one of its clients' secrets.
struct Onions {
    setup: Setup,
    service: Service,
}

#[async_trait]
impl OnionDialer for Onions {
    async fn connect(
        &self,
        onion: &OnionAddress,
        port: u16,
        discovery: Option<&DiscoverySecret>,
    ) -> std::result::Result<Box<dyn OnionStream>, DialError> {
        assert_eq!(
            (*onion, port),
            (self.service.seed.address(), self.service.port)
        );
        let clients = self.service.clients.as_ref().unwrap();
        if !discovery.is_some_and(|secret| clients.contains(&secret.public())) {
            return Err(DialError::NotAClient);
        }
        let mut stream = TcpStream::connect(self.setup.arrivals).await.unwrap();
        let arrival = Arrival {
            service: self.service.id,
            circuit: 1,
        };
        let head = arrival.to_bytes(&self.setup.secret);
        stream.write_all(head.as_ref()).await.unwrap();
        Ok(Box::new(stream))
    }

    fn progress(&self) -> Progress {
        Progress {
            step: Step::Service,
            percent: 100,
            problem: None,
        }
    }
}

/// A host without an open port and with restricted discovery, and the process of the test.
async fn host_on_tor(dir: &std::path::Path) -> (Host, FakeProcess) {
    let mut config = HostConfig {
        data_dir: dir.to_owned(),
        ..HostConfig::default()
    };
    config.link.listen = Vec::new();
    config.peer.listen = "127.0.0.1:0".parse().unwrap();
    config.metrics.listen = String::new();
    config.chain.bitcoind.url = "http://127.0.0.1:1".into();
    config.tor.enabled = true;
    config.tor.restricted_discovery = true;
    let (launch, mut launched) = FakeLaunch::new();
    let open = OpenTor::with(&config, Box::new(launch)).await.unwrap();
    let source = crate::chain::source(&config, Some(&open.tor))
        .await
        .unwrap();
    let store = Arc::new(MemoryStore::new());
    let carriers = Carriers::none();
    let host = Host::listen(config, store, source, &carriers, Some(open))
        .await
        .unwrap();
    (host, FakeProcess::new(launched.recv().await.unwrap()).await)
}

#[tokio::test]
async fn a_phone_pairs_and_attaches_at_the_onion_service_of_its_code_as_one_client() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut process) = host_on_tor(dir.path()).await;
    let request = CreateOwnerRequest {
        name: "ann".into(),
        ..CreateOwnerRequest::default()
    };
    let made = host.operator().create_owner(request).await.unwrap();
    let code: PairingCode = made.code.parse().unwrap();
    let service = process.ordered().await;
    let address = format!("tor://{}:9750", service.seed.address());
    assert_eq!(code.addresses, [address.as_str()]);

    let onions = Onions {
        setup: process.setup.clone(),
        service,
    };
    let options = DialOptions {
        carriers: TorCarrier::beside(Carriers::none(), Arc::new(onions)),
        ..DialOptions::default()
    };
    let phone = LinkPhone::new(code);
    let over_tor = phone.dial_at(&address, &options).await.unwrap();
    let paired = phone.pair_over(over_tor).await.unwrap();
    let over_tor = phone.dial_at(&address, &options).await.unwrap();
    let attached = phone.attach_over(over_tor).await.unwrap();
    assert_eq!(paired.closed().await.code.to_string(), Code::Replaced);
    host.stop().await;
    assert_eq!(attached.closed().await.code.to_string(), Code::Shutdown);
}
