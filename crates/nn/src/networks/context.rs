//! A prompt as the cross-attention sees it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use burn::tensor::Tensor;

/// Hidden states of prompts, and the keys and values that a U-Net made of them: a run asks the same prompt at every step,
/// and they do not change.
///
/// # Shapes
/// - hidden states: `[n, tokens, width]`
#[derive(Debug)]
pub struct Context {
    hidden: Tensor<3>,
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

    /// What that network made of the prompt; made now if the last to ask was another one.
    pub(crate) fn keys_values(&self, network: NetworkId, make: impl FnOnce(&Tensor<3>) -> Vec<KeysValues>) -> Vec<KeysValues> {
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
        Self { hidden, made: Mutex::new(None) }
    }
}

impl From<&Tensor<3>> for Context {
    fn from(hidden: &Tensor<3>) -> Self {
        hidden.clone().into()
    }
}

impl Clone for Context {
    fn clone(&self) -> Self {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { hidden: self.hidden.clone(), made: Mutex::new(made) }
    }
}
