//! What other programs do not read of an export, as far as it was tried in them (`docs/formats.md`
//! has the table).

use std::collections::BTreeSet;

use scumble_families::{self as families, Part, Projection, Role};
use scumble_nn::files::{Checkpoint, Family, Lora};

use crate::request::Form;

/// What to know before the file is used elsewhere; nothing if every program that reads this form
/// reads all of it.
pub(super) fn limits(form: Form, base: &Checkpoint, lora: &Lora) -> Vec<String> {
    let mut list = Vec::new();
    if form == Form::Single && base.family == Family::Custom {
        list.push(
            "only diffusers, with `config=`, and scumble read a single file of these shapes; ComfyUI, A1111 and \
             stable-diffusion.cpp know the published shapes alone"
                .to_owned(),
        );
    }
    let changed: BTreeSet<(&str, String)> = match form {
        Form::Lora => lora
            .low_rank
            .iter()
            .map(|low| (low.component.as_str(), format!("{}.weight", low.module)))
            .collect(),
        Form::Delta => lora
            .diffs
            .iter()
            .map(|diff| (diff.component.as_str(), diff.name.clone()))
            .collect(),
        _ => return list,
    };
    let family = families::of_files(base.family);
    let count = |part: Part, test: &dyn Fn(Role, &str) -> bool| {
        let ids: Vec<&str> = family.ids(part).collect();
        let of = changed.iter().filter(|(of, _)| ids.contains(of));
        let roles = of.filter_map(|(of, name)| Some((family.role(of, name)?, name)));
        roles.filter(|(role, name)| test(*role, name)).count()
    };
    let mut say = |n: usize, what: &str| {
        if n > 0 {
            list.push(format!("{n} changed tensor(s) are {what}"));
        }
    };
    let second = base.family == Family::Sd2;
    let sdxl = base.family == Family::Sdxl;
    let norm = |role: Role, _: &str| role == Role::Norm;
    let heads = |role: Role| {
        matches!(
            role,
            Role::SelfAttention(Projection::Queries | Projection::Keys | Projection::Values)
        )
    };
    if form == Form::Delta {
        let tables = count(Part::TextEncoder, &|role, _| role.is_table());
        say(tables, "embedding tables, which A1111 does not read");
        let norms = count(Part::TextEncoder, &norm);
        if sdxl {
            let projection = count(Part::TextEncoder, &|role, _| role == Role::PooledProjection);
            say(
                norms + projection,
                "norms of SDXL's text encoders or the projection of the second, which A1111 was not seen to read",
            );
        }
        if second {
            say(
                norms,
                "norms of SD 2.x's text encoder, which A1111 does not read",
            );
            let biases = count(Part::TextEncoder, &|role, name| {
                heads(role) && name.ends_with(".bias")
            });
            say(
                biases,
                "biases of q, k and v in SD 2.x's text encoder, which A1111 does not read",
            );
        }
        say(
            norms + tables,
            "the text encoder's norms or tables, which stable-diffusion.cpp was not seen to read",
        );
    } else {
        let outer = count(Part::Denoiser, &|role, _| {
            matches!(
                role,
                Role::Input | Role::Output | Role::TimeEmbedding | Role::AddedEmbedding
            )
        });
        say(
            outer,
            if sdxl {
                "conv_in, conv_out, the time embedding or the added one, which kohya's scripts do not read and at which \
                 diffusers refuses a file for SDXL"
            } else {
                "conv_in, conv_out or the time embedding, which kohya's scripts and stable-diffusion.cpp do not read"
            },
        );
    }
    if second {
        let weights = count(Part::TextEncoder, &|role, name| {
            heads(role) && name.ends_with(".weight")
        });
        say(
            weights,
            "q, k and v of SD 2.x's text encoder, which stable-diffusion.cpp does not read",
        );
    }
    list
}
