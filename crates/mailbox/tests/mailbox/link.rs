//! Links of phones with their host through a mailbox: the two carriers of `longhand-link` with the relay between them.

use crate::common::{config, start};
use crate::links::{Host, paired, phone, serve};
use longhand_link::carrier::mailbox::{Expected, MailboxListener, Meetings};
use longhand_link::{
    Address, Conversation, Credentials, DialOptions, Link, Listener, Rendezvous, accept, connect,
};
use longhand_mailbox::Mailbox;

/// A host that waits at a mailbox for one phone.
struct World {
    mailbox: Mailbox,
    host: Host,
    listener: MailboxListener,
    credentials: Credentials,
    conversation: Conversation,
    address: Address,
}

async fn waiting() -> World {
    let mailbox = start(config()).await;
    let address: Address = format!("mailbox+{}", mailbox.addresses()[0])
        .parse()
        .unwrap();
    let (host, commands, credentials) = paired();
    serve(commands);
    let (conversation, signing) = phone();
    serve(signing);
    let Credentials::Attach { phone, .. } = &credentials else {
        panic!("the phone is paired");
    };
    let meetings = Meetings::default();
    let meeting = Rendezvous::of_keys(phone, &host.public());
    meetings.add(Expected::Phone(phone.public()), meeting);
    let listener = MailboxListener::open(&address, DialOptions::default(), &meetings).unwrap();
    World {
        mailbox,
        host,
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
        let (accepted, connected) = tokio::join!(
            async { accept(self.listener.accept().await.unwrap(), &self.host).await },
            connect(&addresses, &self.credentials, &options, &self.conversation),
        );
        (accepted.unwrap().link, connected.unwrap().0)
    }
}

#[tokio::test]
async fn a_phone_and_its_host_link_through_a_mailbox() {
    let mut world = waiting().await;
    let (node, link) = world.link().await;
    // More than a queue of the mailbox holds.
    let (answer, signed) = tokio::join!(
        link.request("command", vec![1; 3_000_000]),
        node.request("signer", vec![2; 3_000_000]),
    );
    assert_eq!(answer.unwrap().len(), 3_000_000);
    assert_eq!(signed.unwrap().len(), 3_000_000);
    let metrics = world.mailbox.metrics();
    assert!(metrics.contains("longhand_mailbox_ended_total{code=\"OVERFLOW\"} 0\n"));
}

#[tokio::test]
async fn a_phone_that_comes_again_takes_its_own_place_over() {
    let mut world = waiting().await;
    let (first, _old) = world.link().await;
    let (_second, link) = world.link().await;
    first.closed().await;
    let answer = link.request("command", vec![1, 2, 3]).await;
    assert_eq!(answer.unwrap(), [3, 2, 1]);
}
