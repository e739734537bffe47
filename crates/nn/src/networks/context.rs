//! A prompt as the cross-attention sees it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use burn::tensor::Tensor;

use super::{added::Added, removal::Removal};

/// Hidden states of prompts, and the keys and values that a U-Net made of them: a run asks the same
/// prompt at every step, and they do not change.
///
/// # Shapes
/// - hidden states: `[n, tokens, width]`
/// - gates: `[n, rank]`
#[derive(Debug)]
pub struct Context {
    hidden: Tensor<3>,
    gates: Option<Tensor<2>>,
    added: Option<Added>,
    start_detached: bool,
    removal: Option<Removal>,
    made: Mutex<Option<(NetworkId, Vec<KeysValues>)>>,
}

/// Keys and values of one cross-attention, `[n, tokens, c]` each.
#[derive(Clone, Debug)]
pub(crate) struct KeysValues {
    pub(crate) keys: Tensor<3>,
    pub(crate) values: Tensor<3>,
}

impl KeysValues {
    fn with_start_detached(self) -> Self {
        let detached = |x: Tensor<3>| {
            let rest = x.dims()[1] - 1;
            Tensor::cat(
                vec![x.clone().narrow(1, 0, 1).detach(), x.narrow(1, 1, rest)],
                1,
            )
        };
        Self {
            keys: detached(self.keys),
            values: detached(self.values),
        }
    }
}

/// Tells one network from every other in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkId(u64);

impl NetworkId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Context {
    /// The hidden states themselves.
    pub fn hidden(&self) -> &Tensor<3> {
        &self.hidden
    }

    /// With a factor for each prompt and each column of the network's low-rank adapters; without
    /// any, all are 1.
    #[must_use]
    pub fn gated(mut self, gates: Option<Tensor<2>>) -> Self {
        self.gates = gates;
        self
    }

    /// The factors of the adapters, `[n, rank]`.
    pub fn gates(&self) -> Option<&Tensor<2>> {
        self.gates.as_ref()
    }

    /// With added conditioning, which SDXL's U-Net asks for and others refuse.
    #[must_use]
    pub fn with_added(mut self, added: Option<Added>) -> Self {
        self.added = added;
        self
    }

    /// The added conditioning.
    pub fn added(&self) -> Option<&Added> {
        self.added.as_ref()
    }

    /// With no gradient through the keys and values of the first position, the start token, which
    /// all prompts share.
    #[must_use]
    pub fn with_start_detached(mut self) -> Self {
        self.start_detached = true;
        self
    }

    /// With directions that the values of every cross-attention lose.
    #[must_use]
    pub fn without(mut self, removal: Option<Removal>) -> Self {
        self.removal = removal;
        self
    }

    /// The directions that values lose.
    pub fn removal(&self) -> Option<&Removal> {
        self.removal.as_ref()
    }

    /// What that network made of the prompt; made now if the last to ask was another one.
    pub(crate) fn keys_values(
        &self,
        network: NetworkId,
        make: impl FnOnce(&Tensor<3>) -> Vec<KeysValues>,
    ) -> Vec<KeysValues> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((by, found)) if *by == network => found.clone(),
            _ => {
                let mut new = make(&self.hidden);
                if self.start_detached {
                    new = new
                        .into_iter()
                        .map(KeysValues::with_start_detached)
                        .collect();
                }
                *made = Some((network, new.clone()));
                new
            }
        }
    }
}

impl From<Tensor<3>> for Context {
    fn from(hidden: Tensor<3>) -> Self {
        Self {
            hidden,
            gates: None,
            added: None,
            start_detached: false,
            removal: None,
            made: Mutex::new(None),
        }
    }
}

impl From<&Tensor<3>> for Context {
    fn from(hidden: &Tensor<3>) -> Self {
        hidden.clone().into()
    }
}

impl Clone for Context {
    fn clone(&self) -> Self {
        let made = self
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Self {
            hidden: self.hidden.clone(),
            gates: self.gates.clone(),
            added: self.added.clone(),
            start_detached: self.start_detached,
            removal: self.removal.clone(),
            made: Mutex::new(made),
        }
    }
}
