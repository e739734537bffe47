//! What a run would take, printed in place of the run.

use scumble_study::record::Estimate;
use serde_json::json;

use crate::{failure::Failure, output};

/// Prints it, for people or as an object.
pub(crate) fn print(found: &Estimate, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json(&json!(found));
    }
    output::data(&format!("estimate  {found}"))
}
