//! Who is let in.
#![allow(clippy::unwrap_used)]

use axum::http::HeaderValue;

use super::*;
use crate::testing::{ALL, FakeNode, OneApp, macaroon, macaroon_of};
use crate::{NodeError, Rights};

fn door() -> (Door, Arc<OneApp>) {
    let app = OneApp::new(Arc::new(FakeNode::default()));
    (Door::new(app.clone()), app)
}

fn with(hex: &str) -> HeaderMap {
    HeaderMap::from_iter([(METADATA, HeaderValue::from_str(hex).unwrap())])
}

fn enter(hex: &str, needed: Op) -> Result<(), (Code, String)> {
    let entered = door().0.enter(&with(hex), Some(needed));
    entered
        .map(drop)
        .map_err(|it| (it.code(), it.message().to_owned()))
}

#[test]
fn only_the_app_with_the_right_enters() {
    let read = Rights {
        read: true,
        ..Rights::default()
    };
    let hex = macaroon(read, None).to_hex();
    assert_eq!(enter(&hex, Op::read("info")), Ok(()));
    assert_eq!(enter(&hex.to_uppercase(), Op::read("info")), Ok(()));
    let (code, line) = enter(&hex, Op::write("offchain")).unwrap_err();
    assert_eq!(code, Code::PermissionDenied);
    assert!(
        line.starts_with("permission denied: ") && line.contains("offchain:write"),
        "{line}"
    );
    let refused = [
        (
            macaroon_of([8; 32], ALL, None).to_hex(),
            "verification failed: ",
        ),
        (macaroon(ALL, Some(1)).to_hex(), "macaroon has expired"),
        (
            macaroon(ALL, None).narrowed("ipaddr 127.0.0.1").to_hex(),
            "caveat not satisfied",
        ),
        ("00".to_owned().into(), "cannot get macaroon: "),
        ("xyz".to_owned().into(), "cannot get macaroon: "),
        (String::new().into(), "cannot get macaroon: "),
    ];
    for (hex, begins) in refused {
        let (code, line) = enter(&hex, Op::read("info")).unwrap_err();
        assert_eq!(code, Code::Unauthenticated);
        assert!(line.starts_with(begins) && !line.contains('\n'), "{line}");
        assert!(hex.is_empty() || !line.contains(hex.as_str()), "{line}");
    }
}

#[test]
fn exactly_one_macaroon_is_read() {
    let (door, _) = door();
    let refused = door.enter(&HeaderMap::new(), None).map(drop).unwrap_err();
    assert!(refused.message().starts_with("expected 1 macaroon, got 0"));
    let mut twice = with(&macaroon(ALL, None).to_hex());
    twice.insert(HEADER, HeaderValue::from_static("00"));
    let refused = door.enter(&twice, None).map(drop).unwrap_err();
    assert!(refused.message().starts_with("expected 1 macaroon, got 2"));
}

#[test]
fn an_app_has_so_many_calls_open() {
    let (door, _) = door();
    let headers = with(&macaroon(ALL, None).to_hex());
    let mut open: Vec<Caller> = Vec::new();
    for _ in 0..MOST_CALLS {
        open.push(door.enter(&headers, None).map_err(drop).unwrap());
    }
    let refused = door.enter(&headers, None).map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    open.pop();
    assert!(door.enter(&headers, None).is_ok());
    open.clear();
    assert!(door.open.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_ends_when_its_app_is_disconnected() {
    let (door, app) = door();
    let caller = door.enter(&with(&macaroon(ALL, None).to_hex()), None);
    let numbers = stream::iter((0..2).map(Ok)).chain(stream::pending());
    let mut kept = caller.map_err(drop).unwrap().keep(numbers).boxed();
    assert_eq!(kept.next().await.unwrap().unwrap(), 0);
    app.disconnect();
    assert_eq!(
        kept.next().await.unwrap().unwrap_err().code(),
        Code::Unauthenticated
    );
    assert!(kept.next().await.is_none());
    drop(kept);
    assert!(door.open.lock().unwrap().is_empty());
}

#[test]
fn errors_of_a_node_are_one_line() {
    let status = Status::from(NodeError::PhoneAway("a\nb\u{1b}".repeat(200)));
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .starts_with("the owner's phone is away: a b")
    );
    assert!(!status.message().contains(char::is_control) && status.message().len() < 1_000);
}
