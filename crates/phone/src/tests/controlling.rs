//! Commands of other processes, through the one that runs the phone.

use longhand_proto::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::command::{OwnerCommand, OwnerReply};
use crate::control::{ControlSocket, through_running};

#[tokio::test]
async fn a_command_goes_through_the_running_phone() {
    let (dir, phone, host) = attached().await;
    let _control = ControlSocket::listen(phone, dir.path()).unwrap();
    let answer = through_running(dir.path(), &OwnerCommand::Balance)
        .await
        .unwrap()
        .unwrap();
    let OwnerReply::Balance(balance) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(balance.lightning_msat, 42_000);
    assert_eq!(host.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn errors_come_through_with_their_codes() {
    let (dir, phone, _host) = attached().await;
    let _control = ControlSocket::listen(phone, dir.path()).unwrap();
    let pay = OwnerCommand::Pay {
        bolt11: "nonsense".into(),
        amount_msat: None,
        max_fee_msat: None,
    };
    let answer = through_running(dir.path(), &pay).await.unwrap();
    assert_eq!(code_of(answer), Code::InvoiceMalformed);
    let info = through_running(dir.path(), &OwnerCommand::Info)
        .await
        .unwrap();
    assert_eq!(code_of(info), "UNSCRIPTED");
}

#[tokio::test]
async fn without_a_running_phone_there_is_nothing_to_go_through() {
    let (dir, phone, _host) = attached().await;
    assert!(
        through_running(dir.path(), &OwnerCommand::Info)
            .await
            .is_none()
    );
    drop(ControlSocket::listen(phone.clone(), dir.path()).unwrap());
    assert!(
        through_running(dir.path(), &OwnerCommand::Info)
            .await
            .is_none()
    );

    // A socket that a killed process left is dead, and is replaced.
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).unwrap();
    drop(listener);
    assert!(
        through_running(dir.path(), &OwnerCommand::Info)
            .await
            .is_none()
    );
    let _control = ControlSocket::listen(phone, dir.path()).unwrap();
    assert!(
        through_running(dir.path(), &OwnerCommand::Balance)
            .await
            .unwrap()
            .is_ok()
    );
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_and_harms_nobody() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, phone, _host) = attached().await;
    let _control = ControlSocket::listen(phone, dir.path()).unwrap();
    let path = dir.path().join("control.sock");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let endless = vec![b'x'; 100_000];
    for garbage in [
        b"\n".as_slice(),
        b"{}\n",
        b"\xff\n",
        b"{\"command\":\"steal\"}\n",
        &endless,
    ] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // The other side may hang up on a line that does not end.
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.is_empty() || answer.contains(Code::ControlFailed.as_str()),
            "{answer}"
        );
    }
    assert!(
        through_running(dir.path(), &OwnerCommand::Balance)
            .await
            .unwrap()
            .is_ok()
    );
}
