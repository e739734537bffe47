//! What an adapter file says of when its adapters act.

use scumble_diffusion::Gate;
use scumble_erase::Edit;
use scumble_nn::files::{HostTensor, TensorFile};
use serde_json::json;

/// The metadata of an adapter file that name the prompts of a gate: the published key of SPM, and
/// all of the gate.
const GATE_PROMPTS: &str = "prompts";
const GATE: &str = "scumble.gate";

/// What an adapter file says of an edit's gate. SPM's own code also reads `rank` and `alpha`, one
/// for all modules.
pub(crate) fn gate_metadata(edit: &Edit, rank: usize, alpha: f32) -> Vec<(String, String)> {
    let Some(gate) = &edit.about.gate else {
        return Vec::new();
    };
    vec![
        (GATE_PROMPTS.to_owned(), gate.prompts.join(",")),
        ("rank".to_owned(), rank.to_string()),
        ("alpha".to_owned(), alpha.to_string()),
        (GATE.to_owned(), json!(gate).to_string()),
    ]
}

/// The gate that a LoRA file describes, whatever model it belongs to.
pub fn described_gate(file: &TensorFile) -> Option<Gate> {
    let downs: Vec<_> = file
        .tensors
        .iter()
        .filter(|(key, _)| key.ends_with(".lora_down.weight"))
        .collect();
    let one = |(key, tensor): &(&String, &HostTensor)| {
        key.starts_with("lora_unet") && tensor.shape().first() == Some(&1)
    };
    gate_of(file, !downs.is_empty() && downs.iter().all(one))
}

/// The gate of an adapter file: ours, or that of SPM's code, which scales both factors and so
/// squares closeness.
pub(super) fn gate_of(file: &TensorFile, rank_one: bool) -> Option<Gate> {
    if let Some(gate) = file
        .metadata
        .get(GATE)
        .and_then(|text| serde_json::from_str(text).ok())
    {
        return Some(gate);
    }
    let prompts = file
        .metadata
        .get(GATE_PROMPTS)?
        .split(',')
        .map(|p| p.trim().to_owned());
    let prompts: Vec<String> = prompts.filter(|p| !p.is_empty()).collect();
    (rank_one && !prompts.is_empty()).then_some(Gate {
        prompts,
        power: 2.0,
        factor: 1.0,
        floor: 0.0,
    })
}

/// What a gate does, in words.
pub fn describe_gate(gate: &Gate) -> String {
    let prompts: Vec<String> = gate.prompts.iter().map(|p| format!("`{p}`")).collect();
    format!(
        "acts as far as a prompt is close to {} (power {}, factor {}, floor {:.3})",
        prompts.join(", "),
        gate.power,
        gate.factor,
        gate.floor
    )
}
