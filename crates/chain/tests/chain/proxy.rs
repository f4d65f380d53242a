//! An Esplora server that is reached through a SOCKS proxy.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bitcoin::Network;
use longhand_chain::{EsploraClient, ProxyUrl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::kinds::{Kind, is_unreachable};

/// What a client has asked a proxy for: the user and the host.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A SOCKS 5 proxy (RFC 1928, RFC 1929) all of whose connections lead to one place.
async fn proxy(to: SocketAddr) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, to, log.clone()));
        }
    });
    (address, asked)
}

async fn serve(mut near: TcpStream, to: SocketAddr, log: Asked) {
    let [_, methods] = read(&mut near).await;
    near.read_exact(&mut vec![0; methods.into()]).await.unwrap();
    near.write_all(&[5, 2]).await.unwrap();
    let [_] = read(&mut near).await;
    let user = text(&mut near).await;
    let _password = text(&mut near).await;
    near.write_all(&[1, 0]).await.unwrap();
    let [_, _, _, kind] = read(&mut near).await;
    assert_eq!(kind, 3, "a name, for the proxy to look up");
    let host = text(&mut near).await;
    let [_, _] = read(&mut near).await;
    near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    log.lock().unwrap().push((user, host));
    let mut far = TcpStream::connect(to).await.unwrap();
    let _ = copy_bidirectional(&mut near, &mut far).await;
}

async fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// A text after its length.
async fn text(stream: &mut TcpStream) -> String {
    let [length] = read(stream).await;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_server_is_reached_through_the_proxy_of_now_and_never_past_it() {
    let devnet = Kind::Esplora.devnet().await;
    let url = devnet.esplora_url().unwrap();
    let (address, asked) = proxy(url.trim_start_matches("http://").parse().unwrap()).await;
    let nowhere = "socks5h://chain:secret@127.0.0.1:1".to_owned();
    let current = Arc::new(Mutex::new(nowhere.clone()));
    let proxy: ProxyUrl = {
        let current = current.clone();
        Arc::new(move || current.lock().unwrap().clone())
    };
    let network = Network::Regtest;
    let direct = EsploraClient::new(url.parse().unwrap(), network, Some(proxy.clone())).unwrap();
    assert!(is_unreachable(direct.tip_height().await));

    let named = "http://esplora.test".parse().unwrap();
    let client = EsploraClient::new(named, network, Some(proxy)).unwrap();
    let error = client.tip_height().await.unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
    *current.lock().unwrap() = format!("socks5h://chain:secret@{address}");
    assert_eq!(client.tip_height().await.unwrap(), devnet.tip().height);
    let expected = ("chain".to_owned(), "esplora.test".to_owned());
    assert_eq!(*asked.lock().unwrap(), [expected]);
    // Connections through the proxy of before are not used again.
    *current.lock().unwrap() = nowhere;
    assert!(is_unreachable(client.tip_height().await));
}
