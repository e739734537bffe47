//! A prompt as the cross-attention sees it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use burn::tensor::Tensor;

use super::{added::Added, hook::ContextHook};

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
    hook: Option<Arc<dyn ContextHook>>,
    made: Mutex<Option<(NetworkId, Vec<KeysValues>)>>,
}

/// Keys and values of one cross-attention, `[n, tokens, c]` each.
#[derive(Clone, Debug)]
pub(crate) struct KeysValues {
    pub(crate) keys: Tensor<3>,
    pub(crate) values: Tensor<3>,
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

    /// With a rule on the keys and values that every cross-attention makes of it.
    #[must_use]
    pub fn with_hook(mut self, hook: Option<Arc<dyn ContextHook>>) -> Self {
        self.hook = hook;
        self
    }

    /// The rule on keys and values.
    pub fn hook(&self) -> Option<&Arc<dyn ContextHook>> {
        self.hook.as_ref()
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
                let new = make(&self.hidden);
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
            hook: None,
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
            hook: self.hook.clone(),
            made: Mutex::new(made),
        }
    }
}
