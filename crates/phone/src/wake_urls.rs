//! The URLs that the host calls when it needs this phone, such as those of its push service.

use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;

use crate::command::WakeUrls;
use crate::error::PhoneError;
use crate::input::check_wake_urls;
use crate::phone::{Phone, expect_reply};

impl Phone {
    /// The URLs as the host has them.
    pub async fn wake_urls(&self) -> Result<WakeUrls, PhoneError> {
        let list = Ask::ListWakeUrls(proto::ListWakeUrls {});
        Ok(expect_reply!(self.command(list).await?, WakeUrls)?.into())
    }

    /// Gives the host `urls` in place of all that this phone gave before; none to be called no more. That of the operator stays.
    /// To be repeated when a push service gives out a new token. Answered whether or not the node runs.
    ///
    /// # Errors
    /// [`crate::input::InputError`] before anything is sent; the host's refusal of a URL that it cannot call.
    pub async fn set_wake_urls(&self, urls: Vec<String>) -> Result<WakeUrls, PhoneError> {
        check_wake_urls(&urls)?;
        let set = Ask::SetWakeUrls(proto::SetWakeUrls { urls });
        Ok(expect_reply!(self.command(set).await?, WakeUrls)?.into())
    }
}
