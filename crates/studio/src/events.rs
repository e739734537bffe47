//! What open pages are told while things happen. A page that does not listen misses something and
//! holds up nothing: it asks for all of it when it comes back.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::broadcast;

/// How many events wait for a page that is slow.
const WAITING: usize = 256;

/// Whom to tell.
pub(crate) struct Events {
    /// None once the studio ends, so that no page keeps it open.
    sender: Mutex<Option<broadcast::Sender<String>>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            sender: Mutex::new(Some(broadcast::channel(WAITING).0)),
        }
    }

    /// A job has changed.
    pub(crate) fn job(&self, id: u64) {
        self.tell(&json!({"kind": "job", "id": id}));
    }

    /// How far a job is.
    pub(crate) fn progress(&self, progress: &Value) {
        self.tell(progress);
    }

    fn tell(&self, event: &Value) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            // Nobody may be listening.
            let _ = sender.send(event.to_string());
        }
    }

    /// For a page that wants to hear.
    pub(crate) fn listen(&self) -> Option<broadcast::Receiver<String>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().map(broadcast::Sender::subscribe)
    }

    /// Ends every conversation.
    pub(crate) fn close(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
