//! The calls of a client in this process, whose connection is the program's own: see [`crate::Mailbox::hashmail`].

use std::sync::Arc;

use futures::{Stream, StreamExt};
use longhand_link::carrier::guest::Visit;
use longhand_proto::hashmail::{CipherBox, CipherBoxDesc};
use tonic::Status;

use super::body::Reserved;
use super::core::{BoxId, Role};
use super::given_id;
use super::grpc::{Sending, messages, status};
use super::refusal::Refusal;
use super::shared::Shared;

/// One connection. A call that is dropped is over, as one that its client has cancelled. Clones share it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    visit: Visit,
}

impl Connection {
    pub(crate) fn new(shared: &Arc<Shared>) -> Connection {
        Connection {
            shared: shared.clone(),
            visit: Visit::embedded(),
        }
    }

    /// Something has come from the client. After [`super::SILENCE`] without this, another may take the ends that it uses.
    pub fn heard(&self) {
        self.visit.hears();
    }

    /// Creates a box.
    ///
    /// # Errors
    /// As over gRPC.
    pub fn create(&self, id: &[u8]) -> Result<(), Status> {
        let created = self.shared.create(BoxId::new(id), None);
        created.map_err(|refusal| self.refuse(refusal))
    }

    /// Deletes a box.
    ///
    /// # Errors
    /// As over gRPC.
    pub fn delete(&self, id: &[u8]) -> Result<(), Status> {
        let deleted = self.shared.delete(BoxId::new(id));
        deleted.map_err(|refusal| self.refuse(refusal))
    }

    /// The messages of a box.
    ///
    /// # Errors
    /// As over gRPC.
    pub async fn receive(
        &self,
        id: &[u8],
    ) -> Result<impl Stream<Item = Result<CipherBox, Status>> + Send + use<>, Status> {
        let visit = Some(self.visit.clone());
        let attached = self
            .shared
            .attach(BoxId::new(id), Role::Reader, visit)
            .await;
        let attached = attached.map_err(|refusal| self.refuse(refusal))?;
        let stream_id = given_id(id).to_vec();
        Ok(messages(attached, CipherBoxDesc { stream_id }))
    }

    /// Puts messages into the box that the first of them names, until they end.
    ///
    /// # Errors
    /// As over gRPC.
    pub async fn send(
        &self,
        messages: impl Stream<Item = CipherBox> + Send + Unpin,
    ) -> Result<(), Status> {
        let sending = Sending {
            shared: &self.shared,
            messages: messages.map(Ok),
            reserved: Reserved::default(),
        };
        sending.run(Some(self.visit.clone())).await.map(drop)
    }

    fn refuse(&self, refusal: Refusal) -> Status {
        self.shared.refused(refusal);
        status(refusal)
    }
}
