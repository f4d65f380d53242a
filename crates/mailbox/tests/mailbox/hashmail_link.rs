//! Links of phones with their host through a hashmail mailbox, and the ten words that stand for a pairing code.

use std::time::Duration;

use crate::common::{config, start};
use crate::links::{Host, paired, phone, serve};
use longhand_link::carrier::hashmail::{HashmailListener, Phrase, pairing_code};
use longhand_link::carrier::mailbox::{Expected, Meeting, Meetings, Words};
use longhand_link::{
    Address, CloseCode, Conversation, Credentials, Dial, DialOptions, Link, LinkError, LinkKey,
    Listener, OwnerId, PairingCode, PairingSecret, Rendezvous, accept, connect,
};
use longhand_mailbox::Mailbox;
use tokio::time::timeout;

/// For whatever has to happen.
const SOON: Duration = Duration::from_secs(20);

async fn mailbox() -> Mailbox {
    let mut config = config();
    config.hashmail.listen = vec!["grpc://127.0.0.1:0".into()];
    start(config).await
}

fn address(mailbox: &Mailbox, layer: &str) -> Address {
    let at = mailbox.hashmail_addresses()[0].authority();
    format!("{layer}+grpc://{at}").parse().unwrap()
}

/// A host that waits at a mailbox for one phone.
struct World {
    _mailbox: Mailbox,
    host: Host,
    meetings: Meetings,
    listener: HashmailListener,
    credentials: Credentials,
    conversation: Conversation,
    address: Address,
}

async fn waiting(layer: &str) -> World {
    let mailbox = mailbox().await;
    let address = address(&mailbox, layer);
    let (host, commands, credentials) = paired();
    serve(commands);
    let (conversation, signing) = phone();
    serve(signing);
    let Credentials::Attach { phone, .. } = &credentials else {
        panic!("the phone is paired");
    };
    let meetings = Meetings::default();
    meetings.add(
        Expected::Phone(phone.public()),
        Rendezvous::of_keys(phone, &host.public()),
    );
    let listener = HashmailListener::open(&address, DialOptions::default(), &meetings).unwrap();
    let mut connected = listener.connected();
    let answers = connected.wait_for(|is_connected| *is_connected);
    timeout(SOON, answers).await.unwrap().unwrap();
    World {
        _mailbox: mailbox,
        host,
        meetings,
        listener,
        credentials,
        conversation,
        address,
    }
}

impl World {
    /// A new link: its ends at the host and at the phone.
    async fn link(&mut self) -> (Link, Link) {
        let (addresses, options) = ([self.address.to_string()], DialOptions::default());
        // The host's streams may not be there yet.
        let connected = async {
            loop {
                let dialled = connect(&addresses, &self.credentials, &options, &self.conversation);
                if let Ok((link, _)) = dialled.await {
                    return link;
                }
            }
        };
        let accepting = async { accept(self.listener.accept().await.unwrap(), &self.host).await };
        let both = async { tokio::join!(accepting, timeout(SOON, connected)) };
        let (accepted, connected) = timeout(SOON, both).await.unwrap();
        (accepted.unwrap().link, connected.unwrap())
    }
}

#[tokio::test]
async fn a_phone_and_its_host_link_through_hashmail_with_and_without_lightning_node_connect() {
    for layer in ["hashmail", "lnc"] {
        let mut world = waiting(layer).await;
        let (node, link) = world.link().await;
        let (answer, signed) = tokio::join!(
            link.request("command", vec![1; 3_000_000]),
            node.request("signer", vec![2; 3_000_000]),
        );
        assert_eq!(answer.unwrap().len(), 3_000_000, "{layer}");
        assert_eq!(signed.unwrap().len(), 3_000_000, "{layer}");
    }
}

#[tokio::test]
async fn a_phone_whose_link_has_ended_comes_again_at_once() {
    let mut world = waiting("lnc").await;
    let (first, old) = world.link().await;
    old.close(CloseCode::Detached, "another network");
    timeout(SOON, first.closed()).await.unwrap();
    let (_second, link) = world.link().await;
    let answer = link.request("command", vec![1, 2, 3]).await;
    assert_eq!(answer.unwrap(), [3, 2, 1]);
}

#[tokio::test]
async fn a_phone_that_is_no_longer_expected_keeps_its_link_and_gets_no_other() {
    let mut world = waiting("lnc").await;
    let (_node, link) = world.link().await;
    let Credentials::Attach { phone, .. } = &world.credentials else {
        panic!("the phone is paired");
    };
    world.meetings.remove(&Expected::Phone(phone.public()));
    let answer = link.request("command", vec![1, 2, 3]).await;
    assert_eq!(answer.unwrap(), [3, 2, 1]);
}

#[tokio::test]
async fn a_phone_whose_host_is_not_there_learns_it_at_once() {
    let mailbox = mailbox().await;
    let address = address(&mailbox, "hashmail");
    let meeting = Rendezvous::of_pairing(&PairingSecret::generate().unwrap());
    let (options, address) = (DialOptions::default(), address.to_string());
    let dialled = options.dial(&address, &meeting);
    let dialled = timeout(SOON, dialled).await.unwrap();
    let Err(LinkError::Unreachable { reason, .. }) = dialled else {
        panic!("somebody is there");
    };
    assert!(
        reason.contains("the host is not at the mailbox"),
        "{reason}"
    );
}

fn code(secret: &PairingSecret) -> String {
    let code = PairingCode {
        addresses: vec!["lnc+grpc://127.0.0.1:1".into()],
        host: LinkKey([1; 32]),
        owner: OwnerId([2; 16]),
        secret: secret.clone(),
        expires_unix_s: 1,
    };
    code.to_text().unwrap().to_string()
}

/// A host that has a pairing code for ten words.
async fn with_words(secret: &PairingSecret) -> (Mailbox, Meetings, HashmailListener, Address) {
    let mailbox = mailbox().await;
    let address = address(&mailbox, "lnc");
    let meetings = Meetings::default();
    let words = Words {
        phrase: secret.words(),
        code: code(secret).into(),
    };
    meetings.add(Expected::Words(secret.id()), Meeting::Words(words));
    let listener = HashmailListener::open(&address, DialOptions::default(), &meetings).unwrap();
    (mailbox, meetings, listener, address)
}

/// Asks until the host is there.
async fn exchanged(phrase: &Phrase, address: &Address) -> String {
    loop {
        let code = pairing_code(phrase, address, &DialOptions::default()).await;
        match code {
            Ok(code) => return code.to_string(),
            Err(LinkError::Unreachable { reason, .. }) if reason.contains("no host waits") => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn ten_words_are_exchanged_for_the_pairing_code_as_often_as_it_is_needed() {
    let secret = PairingSecret::from_bytes([7; 16]);
    let (_mailbox, _meetings, _listener, address) = with_words(&secret).await;
    for _ in 0..2 {
        let got = timeout(SOON, exchanged(&secret.words(), &address))
            .await
            .unwrap();
        assert_eq!(got, code(&secret));
    }
}

#[tokio::test]
async fn words_that_nobody_has_and_a_mailbox_without_words_are_named() {
    let mailbox = mailbox().await;
    let phrase = PairingSecret::from_bytes([7; 16]).words();
    let options = DialOptions::default();
    let asked = pairing_code(&phrase, &address(&mailbox, "lnc"), &options).await;
    let reason = asked.unwrap_err().to_string();
    assert!(
        reason.contains("no host waits at this mailbox for these words"),
        "{reason}"
    );
    let asked = pairing_code(&phrase, &address(&mailbox, "hashmail"), &options).await;
    let reason = asked.unwrap_err().to_string();
    assert!(reason.contains("lnc+grpcs://host:port"), "{reason}");
}
