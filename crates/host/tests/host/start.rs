//! How a host starts, refuses to start, and stops.

use crate::common::{config, host_without_chain, listening};
use bitcoin::Network;
use longhand_chain::ChainError;
use longhand_host::{Host, HostConfig, HostError};
use longhand_proto::Code;
use longhand_proto::operator::StatusRequest;
use longhand_testkit::failing_source::FailingSource;
use longhand_testkit::host::operator;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn refused(config: HostConfig) -> HostError {
    match Host::start(config).await {
        Ok(_) => panic!("the host must not start"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_host_starts_without_its_chain_source_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let status = operator
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!status.chain_reachable);
    assert_eq!(
        (status.block_height, status.nodes, status.network.as_str()),
        (0, 0, "regtest")
    );
    assert_eq!(status.link_addresses, listening(&host));
    assert_eq!(
        status.peer_address,
        host.addresses().unwrap().peer.to_string()
    );
    host.stop().await;
}

#[tokio::test]
async fn a_second_host_on_the_same_data_is_refused_until_the_first_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _operator) = host_without_chain(config(&dir)).await;
    let error = refused(config(&dir)).await;
    assert_eq!(error.code(), Code::DatabaseLocked, "{error}");
    first.stop().await;
    host_without_chain(config(&dir)).await.0.stop().await;
}

#[tokio::test]
async fn a_host_starts_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _operator) = host_without_chain(config(&dir)).await;
    // As after SIGKILL: the files stay as they are, the socket too.
    let copy = dir.path().join("after");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(dir.path().join("host")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    drop(std::os::unix::net::UnixListener::bind(copy.join("operator.sock")).unwrap());
    let mut config = config(&dir);
    config.data_dir = copy;
    let (second, _operator) = host_without_chain(config).await;
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    type Set = fn(&mut HostConfig, std::net::SocketAddr);
    let settings: [(&str, Set); 4] = [
        ("link.listen", |config, address| {
            config.link.listen = vec![format!("grpc://{address}")]
        }),
        ("peer.listen", |config, address| {
            config.peer.listen = address
        }),
        ("operator.listen", |config, address| {
            config.operator.listen = address.to_string()
        }),
        ("metrics.listen", |config, address| {
            config.metrics.listen = address.to_string()
        }),
    ];
    for (key, set) in settings {
        let mut config = config(&dir);
        set(&mut config, address);
        let error = refused(config).await;
        assert_eq!(error.code(), Code::CannotListen);
        let line = error.to_string();
        assert!(
            line.contains(key) && line.contains(&address.to_string()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_database_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    host_without_chain(config(&dir)).await.0.stop().await;
    let error = refused(HostConfig {
        network: Network::Signet,
        ..config(&dir)
    })
    .await;
    assert_eq!(error.code(), Code::WrongNetwork);
    assert!(error.to_string().contains("belongs to regtest"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    std::fs::create_dir(&config.data_dir).unwrap();
    std::fs::write(config.database_file(), "somebody's notes").unwrap();
    let path = config.database_file();
    assert_eq!(refused(config).await.code(), Code::DatabaseForeign);
    assert_eq!(std::fs::read(path).unwrap(), b"somebody's notes");
}

#[tokio::test]
async fn a_lost_hub_seed_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    host_without_chain(config(&dir)).await.0.stop().await;
    std::fs::remove_file(config(&dir).hub_seed_file()).unwrap();
    assert_eq!(refused(config(&dir)).await.code(), Code::HubSeed);
}

#[tokio::test]
async fn a_chain_source_that_is_the_wrong_one_stops_the_start() {
    let wrong_network = || ChainError::WrongNetwork {
        expected: "regtest".into(),
        found: "main".into(),
    };
    type Fails = fn() -> ChainError;
    let cases: [(Fails, Code); 2] = [
        (wrong_network, Code::WrongNetwork),
        (|| ChainError::Unauthorized, Code::ChainUnauthorized),
    ];
    for (error, code) in cases {
        let dir = tempfile::tempdir().unwrap();
        let refused = FailingSource(error)
            .start_host(config(&dir))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.code(), code);
    }
}

#[tokio::test]
async fn secrets_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.operator.listen = "127.0.0.1:0".into();
    let (host, _operator) = host_without_chain(config.clone()).await;
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(config.data_dir.clone()), 0o700);
    for file in [
        config.database_file(),
        config.hub_seed_file(),
        config.link_key_file(),
        config.operator_token_file(),
    ] {
        assert_eq!(mode(file.clone()), 0o600, "{}", file.display());
    }
    host.stop().await;
}

#[tokio::test]
async fn the_operators_port_asks_for_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.operator.listen = "127.0.0.1:0".into();
    let (host, mut with_token) = host_without_chain(config.clone()).await;
    with_token.status(StatusRequest {}).await.unwrap();

    let other = dir.path().join("other.token");
    std::fs::write(&other, "00".repeat(32)).unwrap();
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    config.operator.token_file = other;
    let mut without = operator(&host, &config).await.unwrap();
    let refused = without.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    host.stop().await;
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _operator) = host_without_chain(config(&dir)).await;
    let address = host.addresses().unwrap().metrics.unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    for line in [
        "longhand_links 0",
        "longhand_chain_reachable 0",
        "longhand_store_commits_total",
    ] {
        assert!(answer.contains(line), "{line} is not in {answer}");
    }
    host.stop().await;
}
