//! What the train methods pick from Stable Diffusion 1.4, counted in numbers as the papers' code
//! counts them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../families/tests/common/mod.rs"]
mod published;

use std::collections::BTreeSet;

use published::published;
use scumble_erase::{
    training::lora::Layers,
    training::trainable::{ALL, ESD_ALL, ESD_U, ESD_X, ESD_X_STRICT, KEYS, SELFATTN, Trainable},
};
use scumble_families::{Family, Part, named};
use scumble_nn::Manifest;

/// The U-Net of Stable Diffusion 1.4, which is that of 1.5.
fn sd14() -> Manifest {
    let [sd, ..] = published();
    sd.network("unet").clone()
}

fn picked(trainable: &Trainable, manifest: &Manifest) -> BTreeSet<String> {
    picked_of(named("sd").unwrap(), trainable, manifest)
}

fn picked_of(family: &Family, trainable: &Trainable, manifest: &Manifest) -> BTreeSet<String> {
    trainable
        .pick(
            family,
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
        assert_eq!(trainable.part, Part::Denoiser);
    }
}

/// The patterns of names by which the choices were made before there were roles, and the number of
/// the last layer that one of them wanted.
type Pattern = fn(&str, usize) -> bool;
const PATTERNS: [(&str, Pattern); 14] = [
    ("esd-x", |n, _| n.contains("attn2")),
    ("esd-x-strict", |n, _| {
        n.contains("attn2.to_k") || n.contains("attn2.to_v")
    }),
    ("keys", |n, _| n.contains("attn2.to_k")),
    ("esd-u", |n, _| !n.contains("attn2")),
    ("esd-all", |_, _| true),
    ("selfattn", |n, _| n.contains("attn1")),
    ("selfattn-q", |n, _| {
        n.contains("attn1") || n.contains("attn2.to_q")
    }),
    ("attention", |n, _| {
        n.contains(".attn1.") || n.contains(".attn2.")
    }),
    ("text-encoder", |n, _| {
        n.contains("encoder.layers.") || n.contains("final_layer_norm")
    }),
    ("text-first", |n, _| n.contains("encoder.layers.0.")),
    ("text-first-linear", |n, _| n.contains("encoder.layers.0.")),
    ("text-mlp", |n, last| {
        n.contains("encoder.layers.") && n.contains(".mlp.fc")
            || n.contains(&format!("encoder.layers.{last}.self_attn."))
    }),
    ("text-mlp-only", |n, _| {
        n.contains("encoder.layers.") && n.contains(".mlp.fc")
    }),
    ("text-attn", |n, _| {
        n.contains("encoder.layers.") && n.contains(".self_attn.")
    }),
];

#[test]
fn roles_pick_what_patterns_of_names_picked() {
    for model in published() {
        let family = named(model.family).unwrap();
        for (trainable, (name, pattern)) in ALL.iter().zip(PATTERNS) {
            assert_eq!(trainable.name, name);
            let manifest = model.network(family.id_of(trainable.part));
            let last = family.ids(trainable.part).next().map_or(0, |id| {
                let layers = manifest.keys().filter_map(|n| family.place(id, n)?.layer);
                layers.max().unwrap_or(0)
            });
            let layers_only = trainable.part == Part::Denoiser || name == "text-first-linear";
            let is_layer = |name: &str| {
                let module = name.rsplit_once('.').unwrap().0;
                manifest[&format!("{module}.weight")].len() >= 2
            };
            // ESD's trainer of SDXL had another filter above that of the choice.
            let inside = |n: &str| {
                let whole = family.id == "sdxl" && ["esd-u", "esd-all"].contains(&name);
                !whole || n.contains("block") && !n.contains("emb")
            };
            let before: BTreeSet<String> = manifest
                .keys()
                .filter(|n| pattern(n, last) && (!layers_only || is_layer(n)) && inside(n))
                .cloned()
                .collect();
            assert!(!before.is_empty(), "{name}");
            let now = picked_of(family, trainable, manifest);
            assert_eq!(now, before, "{} {name}", model.name);
        }
    }
}

#[test]
fn adapters_lie_beside_the_layers_that_patterns_of_names_picked() {
    let linear = |name: &str, shape: &[usize]| {
        name.contains("attentions.") && shape.len() >= 2 && shape[2..].iter().all(|&k| k == 1)
    };
    type Pattern = fn(&str) -> bool;
    let patterns: [(Layers, Pattern); 5] = [
        (Layers::Transformers, |_| true),
        (Layers::KeysValues, |n| {
            n.contains("attn2.to_k") || n.contains("attn2.to_v")
        }),
        (Layers::CrossAttention, |n| n.contains(".attn2.")),
        (Layers::SelfAttention, |n| n.contains(".attn1.")),
        (Layers::NoCrossAttention, |n| !n.contains(".attn2.")),
    ];
    for model in published() {
        let manifest = model.network("unet");
        for (layers, pattern) in patterns {
            let before: Vec<String> = manifest
                .iter()
                .filter(|(name, shape)| linear(name, shape) && pattern(name))
                .filter_map(|(name, _)| Some(name.strip_suffix(".weight")?.to_owned()))
                .collect();
            let tensors = manifest.iter();
            let tensors = tensors.map(|(name, shape)| (name.as_str(), shape.as_slice()));
            let now = layers.among(named(model.family).unwrap(), tensors);
            assert!(!before.is_empty());
            assert_eq!(now, before, "{} {layers:?}", model.name);
        }
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
    let error = ESD_X.pick(named("sd").unwrap(), tensors).unwrap_err();
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
