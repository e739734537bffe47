//! What an export in ESD's own format says about itself.

use scumble_erase::Edit;
use scumble_families as families;
use scumble_nn::files::{Checkpoint, EsdAbout, esd_family};
use serde_json::Value;

use crate::request::ExportRequest;

/// The metadata for an edit, as far as it knows them: an edit that ESD made knows its settings. How
/// far it goes is counted as ESD's code counts, one more than the paper. The prompt it was erased
/// from is not kept in edits, so it is left empty.
pub(super) fn about(request: &ExportRequest, base: &Checkpoint, edit: &Edit) -> EsdAbout {
    let about = &edit.about;
    let options = if about.method == "esd" {
        &about.options
    } else {
        &Value::Null
    };
    let count = |key: &str| options[key].as_u64().and_then(|n| usize::try_from(n).ok());
    // An edit that was read from such a file has ESD's names.
    let either = |ours: &str, theirs: &str| count(ours).or_else(|| count(theirs));
    let number = |key: &str| options[key].as_f64();
    EsdAbout {
        family: Some(esd_family(base)),
        base_model_id: request.base_repo.clone().unwrap_or_else(|| {
            let made_on = Some(about.base.clone()).filter(|name| !name.is_empty());
            made_on.unwrap_or_else(|| base.name.clone())
        }),
        train_method: options["train_method"]
            .as_str()
            .unwrap_or(&about.method)
            .to_owned(),
        erase_concept: about.concepts.join("; "),
        erase_from: options["erase_from"].as_str().unwrap_or_default().into(),
        num_inference_steps: either("sampling_steps", "num_inference_steps"),
        guidance_scale: number("start_guidance").or_else(|| number("guidance_scale")),
        negative_guidance: number("eta")
            .map(|eta| eta + 1.0)
            .or_else(|| number("negative_guidance")),
        batch_size: either("batch", "batch_size"),
        resolution: count("resolution").or_else(|| own_side(base)),
    }
}

/// The side of a base's own pictures.
fn own_side(base: &Checkpoint) -> Option<usize> {
    usize::try_from((families::of_files(base.family).side)(base)?).ok()
}
