//! The wake URLs that a phone gives its host.

use super::*;
use crate::command::{OwnerCommand, OwnerReply, WakeUrls};

#[tokio::test]
async fn wake_urls_are_given_as_a_whole_and_shown_as_the_host_has_them() {
    let host = scripted_host();
    let mut kept = Vec::new();
    host.script(move |ask| {
        match ask {
            Ask::SetWakeUrls(set) => kept.clone_from(&set.urls),
            Ask::ListWakeUrls(_) => {}
            _ => return None,
        }
        Some(Act::Reply(Reply::WakeUrls(proto::WakeUrls {
            urls: kept.clone(),
            operator_has_one: true,
        })))
    });
    let (_dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    let shown = |urls: &[&str]| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        OwnerReply::WakeUrls(WakeUrls {
            urls,
            operator_has_one: true,
        })
    };
    let url = "HTTPS://push.example/token";
    for urls in [&[url][..], &[]] {
        let set = OwnerCommand::SetWakeUrls {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        };
        assert_eq!(phone.execute(set).await.unwrap(), shown(urls));
        let listed = phone.execute(OwnerCommand::WakeUrls).await.unwrap();
        assert_eq!(listed, shown(urls));
    }
}
