//! Two mailboxes behind a load balancer, which chooses by the route of a stream: both ends of a stream reach the same process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::common::{config, start};
use crate::links::{paired, phone, serve};
use longhand_link::carrier::mailbox::{Expected, MailboxListener, Meetings};
use longhand_link::{
    Address, Conversation, Credentials, DialOptions, Listener, Rendezvous, accept, connect,
};
use longhand_mailbox::Mailbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Enough that some have routes of either process: the probability of none is 2^-15.
const PHONES: usize = 16;

/// A load balancer over HTTP/1.1, as nginx or HAProxy would be set up: the digit of `route=` chooses the process.
struct Balancer {
    address: SocketAddr,
    /// Which processes were chosen, by digit; `None` without one.
    chosen: Arc<Mutex<BTreeSet<Option<u32>>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    async fn start(processes: [SocketAddr; 2]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let chosen = Arc::new(Mutex::default());
        let mut tasks = JoinSet::new();
        let choices = Arc::clone(&chosen);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, processes, choices.clone()));
            }
        });
        Balancer {
            address,
            chosen,
            _tasks: tasks,
        }
    }
}

async fn forward(
    mut client: TcpStream,
    processes: [SocketAddr; 2],
    chosen: Arc<Mutex<BTreeSet<Option<u32>>>>,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        let mut byte = [0];
        if client.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.extend(byte);
    }
    let route = route(&String::from_utf8_lossy(&head));
    chosen.lock().unwrap().insert(route);
    let process = processes[usize::from(route.is_some_and(|route| route % 2 == 1))];
    let mut process = TcpStream::connect(process).await.unwrap();
    process.write_all(&head).await.unwrap();
    // Ends with an error when either side resets its connection.
    let _ = copy_bidirectional(&mut client, &mut process).await;
}

/// The digit in a request line such as `GET /?route=a HTTP/1.1`.
fn route(head: &str) -> Option<u32> {
    let (_, after) = head.lines().next()?.split_once("route=")?;
    after.chars().next()?.to_digit(16)
}

async fn process() -> Mailbox {
    let mut config = config();
    config.has_routes = true;
    config.link.listen = vec!["ws://127.0.0.1:0".into()];
    start(config).await
}

fn socket(mailbox: &Mailbox) -> SocketAddr {
    mailbox.addresses()[0].authority().parse().unwrap()
}

/// A phone that its host expects.
struct Paired {
    host: crate::links::Host,
    credentials: Credentials,
    conversation: Conversation,
}

#[tokio::test]
async fn both_ends_of_each_stream_meet_in_the_same_of_two_processes() {
    let mailboxes = [process().await, process().await];
    let balancer = Balancer::start([socket(&mailboxes[0]), socket(&mailboxes[1])]).await;
    let at: Address = format!("mailbox+ws://{}", balancer.address)
        .parse()
        .unwrap();
    let meetings = Meetings::default();
    let mut phones = Vec::new();
    for _ in 0..PHONES {
        let (host, commands, credentials) = paired();
        serve(commands);
        let (conversation, signing) = phone();
        serve(signing);
        let Credentials::Attach { phone, .. } = &credentials else {
            panic!("the phone is paired");
        };
        let meeting = Rendezvous::of_keys(phone, &host.public());
        meetings.add(Expected::Phone(phone.public()), meeting);
        phones.push(Paired {
            host,
            credentials,
            conversation,
        });
    }
    let options = DialOptions::default();
    let mut listener = MailboxListener::open(&at, options.clone(), &meetings).unwrap();
    let addresses = [at.to_string()];
    let mut links = Vec::new();
    for it in &phones {
        let (node, link) = tokio::join!(
            async { accept(listener.accept().await.unwrap(), &it.host).await },
            connect(&addresses, &it.credentials, &options, &it.conversation),
        );
        let (node, link) = (node.unwrap().link, link.unwrap().0);
        let answer = link.request("command", vec![1, 2, 3]).await;
        assert_eq!(answer.unwrap(), [3, 2, 1]);
        links.push((node, link));
    }
    for mailbox in &mailboxes {
        let metrics = mailbox.metrics();
        let ends = metrics
            .lines()
            .find_map(|it| it.strip_prefix("longhand_mailbox_ends "));
        let ends: u32 = ends.unwrap().parse().unwrap();
        assert!(
            ends >= 10 && ends.is_multiple_of(2),
            "the host has one of its own for each route; beside them whole streams: {ends}"
        );
    }
    let chosen = balancer.chosen.lock().unwrap();
    let routes: BTreeSet<_> = chosen.iter().copied().flatten().collect();
    assert_eq!(
        routes,
        (0..16).collect(),
        "the host has a connection for each route"
    );
    drop(links);
}
