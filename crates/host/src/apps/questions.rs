//! Questions to the owner's phone on behalf of an app.

use std::time::Duration;

use longhand_link::LinkError;
use longhand_lnd::NodeError;
use longhand_proto::Code;
use longhand_proto::command::app_reply::Reply;
use longhand_proto::command::app_request::Ask;
use longhand_proto::command::error::Action;
use longhand_proto::command::{AppReply, AppRequest, Error};
use prost::Message;
use tokio::time::timeout;

use super::node::AppNode;

/// The kind of these requests on a link.
const APP: &str = "app";

impl AppNode {
    /// Asks the phone, and waits for its answer for so long. The question is withdrawn when this is dropped.
    pub(super) async fn ask_phone(&self, ask: Ask, within: Duration) -> Result<Reply, NodeError> {
        if !*self.hosted.attached.borrow() {
            let what = "open the wallet there, and try again";
            return Err(NodeError::PhoneAway(what.into()));
        }
        let request = AppRequest {
            app: self.app.clone(),
            ask: Some(ask),
        };
        let conversation = &self.hosted.conversation;
        let answered = conversation.request(APP, request.encode_to_vec());
        let Ok(answered) = timeout(within, answered).await else {
            let what = format!("it had {} s", within.as_secs());
            return Err(NodeError::NotAnswered(what));
        };
        let reply = answered.map_err(link_error)?;
        match AppReply::decode(&*reply).ok().and_then(|it| it.reply) {
            Some(Reply::Error(error)) => Err(phone_error(error)),
            Some(reply) => Ok(reply),
            None => Err(unreadable()),
        }
    }
}

/// The phone's answer is none to the question.
pub(super) fn unreadable() -> NodeError {
    NodeError::Internal("the phone's answer cannot be read: update phone and host".into())
}

fn link_error(error: LinkError) -> NodeError {
    match error {
        LinkError::Refused { code, .. } if code == Code::UnknownKind => NodeError::Unsupported(
            "the owner's phone is of a version without apps: update it".into(),
        ),
        LinkError::Refused { code, message } if code == Code::Busy => NodeError::Busy(message),
        error => NodeError::PhoneAway(error.to_string()),
    }
}

/// An error of the phone, or of the node.
pub(super) fn phone_error(error: Error) -> NodeError {
    let code = error.code.as_str().parse::<Code>().ok();
    match code {
        Some(Code::NotConfirmed | Code::SignerRefused) => NodeError::Refused(error.message),
        Some(Code::AlreadyPaid) => NodeError::AlreadyPaid,
        Some(Code::SignerAway | Code::HostAway) => NodeError::PhoneAway(error.message),
        Some(Code::Busy) => NodeError::Busy(error.message),
        Some(Code::NodeFailed | Code::ChainUnavailable) => NodeError::NotRunning(error.message),
        Some(code) => match code.action() {
            Action::FixInput => NodeError::BadInput(error.message),
            Action::WaitForPhone => NodeError::PhoneAway(error.message),
            Action::Retry => NodeError::NotRunning(error.message),
            Action::GiveUp | Action::Unspecified => NodeError::Internal(error.message),
        },
        None => NodeError::Internal(error.message),
    }
}
