//! What the train methods pick from Stable Diffusion 1.4, counted in numbers as the papers' code
//! counts them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeSet, path::Path};

use scumble_erase::trainable::{
    ALL, ESD_ALL, ESD_U, ESD_X, ESD_X_STRICT, KEYS, SELFATTN, Trainable,
};
use scumble_nn::{Manifest, UNet, config::UNetConfig};
use serde_json::json;

fn sd14() -> Manifest {
    let config = json!({
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
    });
    UNet::manifest(&UNetConfig::read(Path::new("unet/config.json"), &config).unwrap())
}

fn picked(trainable: &Trainable, manifest: &Manifest) -> BTreeSet<String> {
    trainable
        .pick(
            manifest
                .iter()
                .map(|(name, shape)| (name, shape.as_slice())),
        )
        .unwrap()
        .into_iter()
        .collect()
}

fn numbers(names: &BTreeSet<String>, manifest: &Manifest) -> usize {
    names
        .iter()
        .map(|name| manifest[name].iter().product::<usize>())
        .sum()
}

/// The counts are those of torch modules picked by the code of 2025 (`'attn2' in name` and so on,
/// Linear and Conv2d only).
#[test]
fn stable_diffusion_1_4_has_the_published_counts() {
    let manifest = sd14();
    for (trainable, tensors, count) in [
        (ESD_X, 80, 43_962_560),
        (ESD_X_STRICT, 32, 19_169_280),
        (ESD_U, 388, 815_358_084),
        (ESD_ALL, 468, 859_320_644),
        (SELFATTN, 80, 49_574_080),
    ] {
        let names = picked(&trainable, &manifest);
        assert_eq!(numbers(&names, &manifest), count, "{}", trainable.name);
        assert_eq!(names.len(), tensors, "{}", trainable.name);
        assert_eq!(trainable.component, "unet");
    }
}

#[test]
fn the_choices_divide_the_network() {
    let manifest = sd14();
    let of = |trainable| picked(&trainable, &manifest);
    assert!(of(ESD_X_STRICT).is_subset(&of(ESD_X)));
    assert!(of(KEYS).is_subset(&of(ESD_X_STRICT)));
    assert!(of(SELFATTN).is_subset(&of(ESD_U)));
    assert!(of(ESD_X).is_disjoint(&of(ESD_U)));
    assert_eq!(&of(ESD_X) | &of(ESD_U), of(ESD_ALL));
    // Left out of everything: norms, weights and biases.
    let norms: BTreeSet<_> = manifest
        .keys()
        .filter(|name| !of(ESD_ALL).contains(*name))
        .collect();
    assert!(norms.iter().all(|name| name.contains("norm")), "{norms:?}");
    assert!(
        of(ESD_U).contains("time_embedding.linear_1.bias") && of(ESD_U).contains("conv_out.bias")
    );
}

#[test]
fn every_name_and_alias_is_known() {
    for trainable in ALL {
        for name in trainable.aliases.iter().chain([&trainable.name]) {
            for spelling in [
                (*name).to_owned(),
                name.to_uppercase(),
                name.replace('-', "_"),
                format!(" {name} "),
            ] {
                assert_eq!(
                    Trainable::named(&spelling).unwrap().name,
                    trainable.name,
                    "{spelling}"
                );
            }
        }
    }
    for (published, ours) in [
        ("xattn", "esd-x"),
        ("xattn-strict", "esd-x-strict"),
        ("noxattn", "esd-u"),
        ("full", "esd-all"),
        ("kv", "esd-x-strict"),
        ("esd_x", "esd-x"),
        ("selfattn", "selfattn"),
    ] {
        assert_eq!(Trainable::named(published).unwrap().name, ours);
    }
    let names: BTreeSet<_> = ALL
        .iter()
        .flat_map(|t| t.aliases.iter().chain([&t.name]))
        .collect();
    assert_eq!(
        names.len(),
        ALL.iter().map(|t| t.aliases.len() + 1).sum::<usize>(),
        "two choices share a name"
    );
}

#[test]
fn unknown_names_are_errors_with_the_known_ones() {
    for name in ["", "esd", "esd-x-", "attn2", "esd-x;rm"] {
        let error = Trainable::named(name).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        let hint = error.hint().unwrap();
        assert!(ALL.iter().all(|t| hint.contains(t.name)), "{hint}");
    }
}

#[test]
fn picking_nothing_is_an_error_that_shows_what_is_there() {
    let manifest: Manifest = [
        ("conv_in.weight".to_owned(), vec![4, 4, 3, 3]),
        ("attn2.norm.weight".to_owned(), vec![4]),
    ]
    .into();
    let tensors = manifest
        .iter()
        .map(|(name, shape)| (name, shape.as_slice()));
    let error = ESD_X.pick(tensors).unwrap_err();
    assert!(
        error.to_string().contains("esd-x") && error.to_string().contains("unet"),
        "{error}"
    );
    assert!(
        error.hint().unwrap().contains("conv_in.weight"),
        "{:?}",
        error.hint()
    );
}
