//! Every tensor of every network has a role, and the roles are what the names say.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Published, published};
use scumble_families::{FAMILIES, Family, Part, Projection, Role, named, of_files};
use scumble_nn::files;

fn family(model: &Published) -> &'static Family {
    named(model.family).unwrap()
}

#[test]
fn every_tensor_of_the_published_networks_has_a_role() {
    for model in published() {
        let family = family(&model);
        let ids: Vec<&str> = family.components.iter().map(|c| c.id).collect();
        let networks: Vec<&str> = model.networks.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, networks, "{}", model.name);
        for (id, manifest) in &model.networks {
            assert!(manifest.len() > 100, "{} {id}", model.name);
            for name in manifest.keys() {
                let place = family.place(id, name);
                assert!(place.is_some(), "{} {id}: {name} has no role", model.name);
                assert!(
                    name.starts_with(&format!("{}.", place.unwrap().module)),
                    "{name}: {place:?}"
                );
            }
        }
    }
}

/// How many tensors have each role: counted from the published architectures, not from names.
#[test]
fn roles_are_as_many_as_the_architectures_have_layers() {
    let [sd, _, xl] = published();
    let counts = |model: &Published, id: &str| {
        let mut counts: BTreeMap<Role, usize> = BTreeMap::new();
        for name in model.network(id).keys() {
            *counts
                .entry(family(model).role(id, name).unwrap())
                .or_default() += 1;
        }
        counts
    };
    // 16 and 70 transformer blocks: q, k and v are bare matrices, the output has a bias; two layers
    // of the feed-forward part, three norms. 16 and 11 transformers; 22 and 17 residual blocks.
    for (model, blocks, transformers, resnets) in [(&sd, 16, 16, 22), (&xl, 70, 11, 17)] {
        let unet = counts(model, "unet");
        for projection in [Projection::Queries, Projection::Keys, Projection::Values] {
            assert_eq!(unet[&Role::Context(projection)], blocks, "{projection:?}");
            assert_eq!(unet[&Role::SelfAttention(projection)], blocks);
        }
        assert_eq!(unet[&Role::Context(Projection::Output)], 2 * blocks);
        assert_eq!(unet[&Role::SelfAttention(Projection::Output)], 2 * blocks);
        assert_eq!(unet[&Role::FeedForward], 4 * blocks);
        assert_eq!(unet[&Role::TransformerProjection], 4 * transformers);
        assert_eq!(unet[&Role::TimeProjection], 2 * resnets);
        assert_eq!(
            unet[&Role::Norm],
            6 * blocks + 2 * transformers + 4 * resnets + 2
        );
        assert_eq!(unet[&Role::TimeEmbedding], 4);
        assert_eq!(
            (unet[&Role::Input], unet[&Role::Output]),
            (2, 2),
            "{}",
            model.name
        );
    }
    let added = |model| counts(model, "unet").get(&Role::AddedEmbedding).copied();
    assert_eq!((added(&sd), added(&xl)), (None, Some(4)));
    for (id, layers, projections) in [("text_encoder", 12, 0), ("text_encoder_2", 32, 1)] {
        let text = counts(&xl, id);
        assert_eq!(text[&Role::TokenEmbedding], 1);
        assert_eq!(text[&Role::PositionEmbedding], 1);
        assert_eq!(text[&Role::FeedForward], 4 * layers);
        assert_eq!(text[&Role::SelfAttention(Projection::Output)], 2 * layers);
        assert_eq!(text[&Role::Norm], 4 * layers + 2);
        let pooled = text.get(&Role::PooledProjection).copied();
        assert_eq!(pooled.unwrap_or(0), projections, "{id}");
    }
}

/// The patterns that stood in the code before there were roles.
#[test]
fn roles_pick_what_patterns_of_names_picked() {
    type Old = fn(&str) -> bool;
    type New = fn(Role) -> bool;
    let pairs: [(&str, Old, New); 8] = [
        ("cross-attention", |n| n.contains("attn2"), Role::is_context),
        (
            "self-attention",
            |n| n.contains("attn1"),
            Role::is_self_attention,
        ),
        (
            "queries",
            |n| n.contains("attn2.to_q"),
            |r| r == Role::Context(Projection::Queries),
        ),
        (
            "keys",
            |n| n.ends_with("attn2.to_k.weight"),
            |r| r == Role::Context(Projection::Keys),
        ),
        (
            "values",
            |n| n.ends_with("attn2.to_v.weight"),
            |r| r == Role::Context(Projection::Values),
        ),
        (
            "feed-forward",
            |n| n.contains(".ff.net."),
            |r| r == Role::FeedForward,
        ),
        ("norms", |n| n.contains("norm"), |r| r == Role::Norm),
        (
            "outside of the blocks",
            |n| {
                ["conv_in.", "conv_out.", "time_embedding.", "add_embedding."]
                    .iter()
                    .any(|begin| n.starts_with(begin))
            },
            |r| {
                matches!(
                    r,
                    Role::Input | Role::Output | Role::TimeEmbedding | Role::AddedEmbedding
                )
            },
        ),
    ];
    for model in published() {
        let family = family(&model);
        for (what, old, new) in pairs {
            let names = || model.network("unet").keys();
            let before: BTreeSet<_> = names().filter(|n| old(n)).collect();
            let now: BTreeSet<_> = names()
                .filter(|n| new(family.role("unet", n).unwrap()))
                .collect();
            assert!(!before.is_empty(), "{what}");
            assert_eq!(before, now, "{} {what}", model.name);
        }
        for id in family.text_encoders() {
            for name in model.network(id).keys() {
                let place = family.place(id, name).unwrap();
                let number = name.split_once("encoder.layers.").map(|(_, rest)| {
                    let number = rest.split('.').next().unwrap();
                    number.parse::<usize>().unwrap()
                });
                assert_eq!(place.layer, number, "{name}");
                let tables = ["token_embedding", "position_embedding"];
                let is_table = tables.iter().any(|table| name.contains(table));
                assert_eq!(place.role.is_table(), is_table, "{name}");
                assert_eq!(
                    place.role.is_self_attention(),
                    name.contains(".self_attn."),
                    "{name}"
                );
                assert_eq!(place.role == Role::FeedForward, name.contains(".mlp.fc"));
                assert_eq!(
                    place.role == Role::Norm,
                    name.contains("layer_norm"),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn the_module_of_an_attention_holds_its_projections() {
    for model in published() {
        let family = family(&model);
        let mut attentions: BTreeMap<&str, usize> = BTreeMap::new();
        for name in model.network("unet").keys() {
            let place = family.place("unet", name).unwrap();
            if let Some(module) = name.strip_suffix(".to_out.0.weight") {
                assert_eq!(place.module, module);
            }
            if place.role.is_context() || place.role.is_self_attention() {
                *attentions.entry(place.module).or_default() += 1;
            }
        }
        assert!(attentions.values().all(|&tensors| tensors == 5));
        assert!(
            attentions
                .keys()
                .all(|module| module.ends_with(".attn1") || module.ends_with(".attn2"))
        );
    }
}

#[test]
fn what_an_edit_lays_beside_a_layer_is_no_part_of_the_network() {
    let sd = named("sd").unwrap();
    let attention = "mid_block.attentions.0.transformer_blocks.0.attn2";
    for (end, role, module) in [
        (".to_k.lora_down.weight", Role::LowRank, ".to_k"),
        (".to_k.lora_up.weight", Role::LowRank, ".to_k"),
        (".eraser.down.bias", Role::Bottleneck, ""),
        (".eraser.up.weight", Role::Bottleneck, ""),
    ] {
        let name = format!("{attention}{end}");
        let place = sd.place("unet", &name).unwrap();
        assert_eq!(place.role, role, "{name}");
        assert_eq!(place.module, format!("{attention}{module}"));
        assert!(place.role.is_beside());
    }
}

#[test]
fn other_names_have_no_role() {
    let xl = named("sdxl").unwrap();
    for (id, name) in [
        ("unet", ""),
        ("unet", "conv_in"),
        ("unet", "conv_in.scale"),
        ("unet", "down_blocks.x.resnets.0.conv1.weight"),
        ("unet", "down_blocks.0.resnets.0.conv3.weight"),
        (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.attn3.to_k.weight",
        ),
        (
            "unet",
            "mid_block.attentions.0.transformer_blocks.0.attn2.norm_q.weight",
        ),
        ("unet", "text_model.final_layer_norm.weight"),
        ("text_encoder", "conv_in.weight"),
        (
            "text_encoder",
            "text_model.encoder.layers.0.self_attn.in_proj.weight",
        ),
        ("vae", "conv_in.weight"),
        ("transformer", "conv_in.weight"),
        ("text_encoder_3", "text_model.final_layer_norm.weight"),
    ] {
        assert_eq!(xl.role(id, name), None, "{id} {name}");
    }
}

#[test]
fn families_differ_in_id_and_components() {
    let ids: BTreeSet<_> = FAMILIES.iter().map(|family| family.id).collect();
    assert_eq!(ids.len(), FAMILIES.len());
    let components: BTreeSet<Vec<_>> = FAMILIES
        .iter()
        .map(|family| family.components.iter().map(|c| c.id).collect())
        .collect();
    assert_eq!(components.len(), FAMILIES.len());
    for family in FAMILIES {
        assert_eq!(named(family.id).unwrap().id, family.id);
        assert_eq!(family.ids(Part::Denoiser).count(), 1, "{}", family.id);
        assert_eq!(family.id_of(Part::TextEncoder), family.text_encoders()[0]);
        for key in family.described_by {
            let (id, _) = key.split_once('.').unwrap();
            assert!(family.components.iter().any(|c| c.id == id), "{key}");
        }
    }
    assert!(named("flux").is_none());
    for (recognised, id) in [
        (files::Family::Sd1, "sd"),
        (files::Family::Sd2, "sd"),
        (files::Family::Custom, "sd"),
        (files::Family::Sdxl, "sdxl"),
    ] {
        assert_eq!(of_files(recognised).id, id);
    }
}
