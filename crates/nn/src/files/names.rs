//! Names that changed over the years, brought to today's; and names of what carries no weight.

use super::tensor::{HostTensor, Tensors};
use crate::error::{Error, Result};

/// Where the EMA copies lie in a single file.
pub(super) const EMA: &str = "model_ema.";

/// Where the code of textual inversion keeps the words that it learns, as a part of the model (Gal
/// et al. 2022, `ldm/modules/embedding_manager.py`); merges carry it along.
pub(super) const MANAGER: &str = "embedding_manager.";

/// What to do with such words.
pub(super) const MANAGED: &str = "`embedding_manager.` holds words that textual inversion learned; they are no part of a model. \
     Leave these tensors out of the file, and give the vectors of a word (`string_to_param_dict`) with --embedding, \
     in a safetensors file of that one tensor under the word's name";

/// Beginnings of keys in LDM files that carry no weight: EMA copies, the training loss, schedule
/// buffers.
const IDLE_PREFIXES: [&str; 3] = [
    EMA,
    "first_stage_model.loss.",
    "first_stage_model.model_ema.",
];

/// Keys of LDM files that carry no weight.
const IDLE_KEYS: [&str; 22] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
    "lvlb_weights",
    "scale_factor",
    "global_step",
    "epoch",
    "cond_stage_model.model.attn_mask",
    "cond_stage_model.attn_mask",
    "denoiser.sigmas",
    // Empty marks of ComfyUI; what they say is read before they are dropped.
    V_PRED,
    ZTSNR,
];

/// ComfyUI's mark of a model that predicts v.
pub(super) const V_PRED: &str = "v_pred";
/// ComfyUI's mark of a schedule with zero signal at its end.
pub(super) const ZTSNR: &str = "ztsnr";

/// Last parts of keys that carry no weight, in every layout.
const IDLE_ENDS: [&str; 2] = ["position_ids", "logit_scale"];

/// Whether a key is known to carry no weight, so that skipping it loses nothing.
pub(crate) fn is_idle(name: &str) -> bool {
    IDLE_KEYS.contains(&name)
        || IDLE_PREFIXES.iter().any(|p| name.starts_with(p))
        || IDLE_ENDS.contains(&name.rsplit('.').next().unwrap_or(name))
}

/// Removes what carries no weight; how many tensors that were.
pub(crate) fn drop_idle(tensors: &mut Tensors) -> usize {
    let before = tensors.len();
    tensors.retain(|name, _| !is_idle(name));
    before - tensors.len()
}

/// Brings the names of a component to today's diffusers / transformers names.
///
/// # Errors
/// If an old and a new name of the same tensor are both there.
pub(crate) fn modernise(component: &str, tensors: Tensors) -> Result<Tensors> {
    let mut result = Tensors::new();
    let mut twice = Vec::new();
    for (old, tensor) in tensors {
        let (name, tensor) = match component {
            "text_encoder" | "text_encoder_2" => (text_name(&old), tensor),
            "vae" => vae_name(old.clone(), tensor),
            _ => (old.clone(), tensor),
        };
        if result.insert(name.clone(), tensor).is_some() {
            twice.push(format!(
                "there twice: {component} {name}, the other time as {old}"
            ));
        }
    }
    if twice.is_empty() {
        Ok(result)
    } else {
        Err(Error::Tensors {
            component: component.into(),
            problems: twice,
            hint: None,
        })
    }
}

/// The name with the `text_model.` prefix that transformers 5 sometimes leaves out.
pub(crate) fn text_name(name: &str) -> String {
    let bare = ["embeddings.", "encoder.", "final_layer_norm."]
        .iter()
        .any(|p| name.starts_with(p));
    if bare {
        format!("text_model.{name}")
    } else {
        name.into()
    }
}

/// The middle attention of an autoencoder: `query/key/value/proj_attn` until diffusers 0.17, and
/// 1x1 convolutions in some conversions.
fn vae_name(name: String, tensor: HostTensor) -> (String, HostTensor) {
    let Some(at) = name.find("mid_block.attentions.0.") else {
        return (name, tensor);
    };
    let (head, tail) = name.split_at(at + "mid_block.attentions.0.".len());
    let Some((module, kind)) = tail.rsplit_once('.') else {
        return (name, tensor);
    };
    let module = match module {
        "query" | "q" | "to_q" => "to_q",
        "key" | "k" | "to_k" => "to_k",
        "value" | "v" | "to_v" => "to_v",
        "proj_attn" | "proj_out" | "to_out.0" => "to_out.0",
        "norm" | "group_norm" => return (format!("{head}group_norm.{kind}"), tensor),
        _ => return (name, tensor),
    };
    (format!("{head}{module}.{kind}"), squeezed(tensor))
}

/// A 1x1 convolution's weight as the linear layer's that it is.
pub(crate) fn squeezed(tensor: HostTensor) -> HostTensor {
    match *tensor.shape() {
        [a, b, 1, 1] => tensor.reshaped([a, b]).unwrap_or(tensor),
        _ => tensor,
    }
}
