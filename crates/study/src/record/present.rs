//! Keys of three states.

use serde::{Deserialize, Deserializer};

/// For a key that is left out where it does not apply and null where it says nothing.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}
