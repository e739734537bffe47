//! The tensors of a `CLIPTextModel` and of a `CLIPTextModelWithProjection`.

use super::{layer_of, numbered, without};
use crate::role::{Place, Projection, Role};

/// Where a tensor stands; `None` for a name that the network has not.
pub(crate) fn place(tensor: &str) -> Option<Place<'_>> {
    let name = layer_of(tensor)?;
    let role = match name {
        "text_projection" => Role::PooledProjection,
        "text_model.final_layer_norm" => Role::Norm,
        "text_model.embeddings.token_embedding" => Role::TokenEmbedding,
        "text_model.embeddings.position_embedding" => Role::PositionEmbedding,
        _ => return in_layer(name),
    };
    Some(Place::new(role, name))
}

fn in_layer(name: &str) -> Option<Place<'_>> {
    let (layer, part) = numbered(name, "text_model.encoder.layers")?;
    let of = |role, module| Place {
        role,
        layer: Some(layer),
        module,
    };
    match part {
        "layer_norm1" | "layer_norm2" => Some(of(Role::Norm, name)),
        "mlp.fc1" | "mlp.fc2" => Some(of(Role::FeedForward, name)),
        _ => {
            let end = part.strip_prefix("self_attn.")?;
            let projection = match end {
                "q_proj" => Projection::Queries,
                "k_proj" => Projection::Keys,
                "v_proj" => Projection::Values,
                "out_proj" => Projection::Output,
                _ => return None,
            };
            Some(of(Role::SelfAttention(projection), without(name, end)))
        }
    }
}
