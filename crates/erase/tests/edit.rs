//! Edits as data: files, strengths, merging, low-rank approximations and exports.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use common::{bits, checkpoint, host};
use scumble_diffusion::Pipeline;
use scumble_erase::{About, Change, Edit, Error, training::adam::Moments};
use scumble_families as families;
use scumble_nn::files::{
    Checkpoint, Dtype, HostTensor, Lora, LowRank, OpenOptions, Precision, Spec, TensorFile,
    Tensors, read_lora, write, write_folder, write_kohya, write_peft, write_single,
};
use serde_json::json;

/// Knuth's linear congruential generator, in [-1, 1).
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// New values for the tensors of the U-Net that `pick` names: the base's and a little noise.
fn edit_of(base: &Checkpoint, seed: u64, pick: impl Fn(&str) -> bool) -> Edit {
    let about = About {
        format: 1,
        method: "esd".into(),
        concepts: vec![format!("concept {seed}")],
        base: "tiny".into(),
        base_hash: base.hash(),
        family: base.family.name().into(),
        options: json!({"eta": 1.0, "train_method": "esd-x"}),
        seed,
        kind: None,
        version: "0.1.0".into(),
        gate: None,
        guard: None,
    };
    let picked = base.components["unet"]
        .tensors
        .iter()
        .filter(|(name, _)| pick(name));
    let changes = picked.enumerate().map(|(i, (name, old))| {
        let noise = random(seed + i as u64, old.len());
        let new: Vec<f32> = old
            .to_f32()
            .unwrap()
            .iter()
            .zip(noise)
            .map(|(o, n)| o + 0.01 * n)
            .collect();
        (
            ("unet".to_owned(), name.clone()),
            Change::Value(HostTensor::from_f32(old.shape(), &new)),
        )
    });
    let changes: BTreeMap<_, _> = changes.collect();
    assert!(!changes.is_empty());
    Edit { about, changes }
}

fn cross(name: &str) -> bool {
    name.contains("attn2")
}

fn value(edit: &Edit, name: &str) -> Vec<f32> {
    let Change::Value(value) = &edit.changes[&("unet".to_owned(), name.to_owned())] else {
        panic!("{name} is no value")
    };
    value.to_f32().unwrap()
}

fn load(checkpoint: &Checkpoint) -> Pipeline {
    families::load(checkpoint, &Device::flex()).unwrap()
}

#[test]
fn an_edit_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edit.safetensors");
    let base = checkpoint("odd");
    let mut edit = edit_of(&base, 1, cross);
    // Names with dots of their own, numbers that rounding would lose, another component.
    edit.changes.insert(
        (
            "text_encoder".into(),
            "text_model.final_layer_norm.bias".into(),
        ),
        Change::Value(HostTensor::from_f32([10], &random(2, 10))),
    );
    edit.changes.insert(
        ("unet".into(), "conv_out.bias".into()),
        Change::Value(HostTensor::from_f32(
            [4],
            &[f32::MIN_POSITIVE, -0.0, 1.0 + f32::EPSILON, 1e-42],
        )),
    );
    edit.save(&path).unwrap();
    let read = Edit::open(&path).unwrap();
    assert_eq!(read.about, edit.about);
    assert_eq!(
        read.changes.keys().collect::<Vec<_>>(),
        edit.changes.keys().collect::<Vec<_>>()
    );
    for (key, change) in &edit.changes {
        let (Change::Value(a), Change::Value(b)) = (change, &read.changes[key]) else {
            panic!("{key:?}")
        };
        assert_eq!(
            (a.dtype(), a.shape(), a.bytes()),
            (b.dtype(), b.shape(), b.bytes()),
            "{key:?}"
        );
    }
    // Written again over itself.
    read.save(&path).unwrap();
    assert_eq!(Edit::open(&path).unwrap().about, edit.about);
}

#[test]
fn files_that_are_no_edits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edit.safetensors");
    let tensors = || {
        [(
            "unet.conv_out.bias".to_owned(),
            HostTensor::from_f32([4], &[0.0; 4]),
        )]
        .into()
    };
    let refused = |metadata: &[(&str, &str)], tensors: Tensors, text: &str| {
        let metadata = metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        write(&path, tensors, &metadata).unwrap();
        let error = Edit::open(&path).unwrap_err().to_string();
        assert!(
            error.contains(text) && error.contains("edit.safetensors"),
            "{error}"
        );
    };
    refused(&[], tensors(), "not an edit");
    refused(&[("scumble.edit", "{}")], tensors(), "scumble.edit");
    refused(&[("scumble.edit", "not JSON")], tensors(), "scumble.edit");
    let mut about = About {
        format: 2,
        ..About::default()
    };
    refused(
        &[("scumble.edit", &serde_json::to_string(&about).unwrap())],
        tensors(),
        "format 2",
    );
    about.format = 1;
    let nowhere = [("bias".to_owned(), HostTensor::from_f32([4], &[0.0; 4]))].into();
    refused(
        &[("scumble.edit", &serde_json::to_string(&about).unwrap())],
        nowhere,
        "`bias`",
    );
    fs_err::write(&path, b"no safetensors at all").unwrap();
    assert!(Edit::open(&path).is_err());
    assert!(Edit::open(&folder.path().join("absent.safetensors")).is_err());
}

#[test]
fn a_strength_is_the_way_from_the_base_to_the_edit() {
    let base = checkpoint("odd");
    let model = load(&base);
    let mut edit = edit_of(&base, 3, cross);
    // A minus zero in the base must come back at strength 0.
    let mut base = base;
    let name = "conv_out.bias".to_owned();
    base.component_mut("unet").unwrap().tensors.insert(
        name.clone(),
        HostTensor::from_f32([4], &[-0.0, 1.0, 2.0, 3.0]),
    );
    edit.changes.insert(
        ("unet".into(), name),
        Change::Value(HostTensor::from_f32([4], &[1.0, 1.0, -2.0, 3.5])),
    );
    let loaded = load(&base);
    assert_eq!(bits(&edit.apply_to(&loaded, 0.0).unwrap()), bits(&loaded));
    assert_eq!(bits(&load(&edit.apply(&base, 0.0).unwrap())), bits(&loaded));
    for strength in [1.0, 0.5, -1.0, 2.0] {
        let there = edit.apply_to(&loaded, strength).unwrap();
        // The same numbers through a checkpoint.
        assert_eq!(
            bits(&there),
            bits(&load(&edit.apply(&base, strength).unwrap()))
        );
        for (name, tensor) in there.denoiser.weights.iter() {
            let old = host(&loaded.denoiser.weights.get(name).unwrap().flat());
            let found = host(&tensor.flat());
            match edit.changes.get(&("unet".to_owned(), name.clone())) {
                None => assert_eq!(found, old, "{name}"),
                Some(_) => {
                    let new = value(&edit, name);
                    if strength == 1.0 {
                        assert_eq!(found, new, "{name}");
                    }
                    for ((found, old), new) in found.iter().zip(&old).zip(&new) {
                        let expected =
                            f64::from(*old) + strength * (f64::from(*new) - f64::from(*old));
                        assert!(
                            (f64::from(*found) - expected).abs() <= 1e-7 * expected.abs().max(1e-3),
                            "{name}"
                        );
                    }
                }
            }
        }
    }
    for strength in [f64::NAN, f64::INFINITY] {
        assert!(matches!(
            edit.apply_to(&loaded, strength),
            Err(Error::Model(scumble_nn::Error::Input { .. }))
        ));
        assert!(matches!(
            edit.apply(&base, strength),
            Err(Error::Model(scumble_nn::Error::Input { .. }))
        ));
    }
    // The first model, from before the base was changed, is as it was.
    assert_eq!(bits(&model), bits(&load(&checkpoint("odd"))));
}

#[test]
fn differences_and_factors_are_added() {
    let base = checkpoint("odd");
    let old = base.components["unet"].tensors["conv_in.weight"]
        .to_f32()
        .unwrap();
    let difference = HostTensor::from_f32([6, 4, 3, 3], &random(5, old.len()));
    let mut edit = Edit::default();
    edit.changes.insert(
        ("unet".into(), "conv_in.weight".into()),
        Change::Difference(difference.clone()),
    );
    let found = edit.apply(&base, 1.0).unwrap().components["unet"].tensors["conv_in.weight"]
        .to_f32()
        .unwrap();
    let expected: Vec<f32> = old
        .iter()
        .zip(difference.to_f32().unwrap())
        .map(|(a, b)| a + b)
        .collect();
    assert_eq!(found, expected);

    // Rank 1: alpha 3 times an outer product.
    let (up, down) = (random(6, 6), random(7, 36));
    let low = |rows: usize, columns: usize| LowRank {
        component: "unet".into(),
        module: "conv_in".into(),
        up: HostTensor::from_f32([rows, 1, 1, 1], &up[..rows]),
        down: HostTensor::from_f32([1, columns / 9, 3, 3], &down[..columns]),
        alpha: 3.0,
    };
    edit.changes.insert(
        ("unet".into(), "conv_in.weight".into()),
        Change::LowRank(low(6, 36)),
    );
    let found = edit.apply(&base, 1.0).unwrap().components["unet"].tensors["conv_in.weight"]
        .to_f32()
        .unwrap();
    for i in 0..6 {
        for j in 0..36 {
            assert!((found[i * 36 + j] - (old[i * 36 + j] + 3.0 * up[i] * down[j])).abs() < 1e-6);
        }
    }
    // Half of the matrix.
    edit.changes.insert(
        ("unet".into(), "conv_in.weight".into()),
        Change::LowRank(low(6, 18)),
    );
    assert!(edit.apply(&base, 1.0).is_err());
    // Differences have no place in an edit file; factors have, and come back as they were.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edit.safetensors");
    edit.changes.insert(
        ("unet".into(), "conv_in.weight".into()),
        Change::Difference(difference),
    );
    assert!(
        edit.save(&path)
            .unwrap_err()
            .to_string()
            .contains("unet.conv_in.weight")
    );
    assert!(!path.exists());
    edit.changes.insert(
        ("unet".into(), "conv_in.weight".into()),
        Change::LowRank(low(6, 36)),
    );
    edit.about.format = 1;
    edit.save(&path).unwrap();
    let read = Edit::open(&path).unwrap();
    assert_eq!(read.content_hash(), edit.content_hash());
    let again = read.apply(&base, 1.0).unwrap().components["unet"].tensors["conv_in.weight"]
        .to_f32()
        .unwrap();
    assert_eq!(again, found);
}

/// What a change is, and where one field of it ends, is in the hash: bytes that only stand
/// elsewhere make another edit.
#[test]
fn the_content_hash_tells_changes_apart() {
    let of = |changes: Vec<(&str, &str, Change)>| {
        let changes = changes
            .into_iter()
            .map(|(component, name, change)| ((component.into(), name.into()), change));
        Edit {
            about: About::default(),
            changes: changes.collect(),
        }
        .content_hash()
    };
    let numbers = |shape: [usize; 2]| HostTensor::from_f32(shape, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let value = |shape| Change::Value(numbers(shape));
    let one = of(vec![("unet", "a", value([2, 3]))]);
    let low = |down: [usize; 2], up: [usize; 2]| {
        let tensor = |[r, c]: [usize; 2], from: usize| {
            HostTensor::from_f32(
                [r, c],
                &(from..from + r * c).map(|v| v as f32).collect::<Vec<_>>(),
            )
        };
        // The bytes of both factors together are the same for every way to cut them.
        let (down, up) = (tensor(down, 0), tensor(up, down[0] * down[1]));
        Change::LowRank(LowRank {
            component: "unet".into(),
            module: "a".into(),
            down,
            up,
            alpha: 1.0,
        })
    };
    let others = [
        of(vec![("unet", "a", value([3, 2]))]),
        of(vec![("unet", "b", value([2, 3]))]),
        of(vec![("vae", "a", value([2, 3]))]),
        of(vec![("une", "ta", value([2, 3]))]),
        of(vec![("unet", "a", Change::Difference(numbers([2, 3])))]),
        of(vec![("unet", "a", Change::Added(numbers([2, 3])))]),
        of(vec![("unet", "a", low([1, 2], [4, 1]))]),
        of(vec![("unet", "a", low([1, 4], [2, 1]))]),
    ];
    let all: BTreeSet<&String> = others.iter().chain([&one]).collect();
    assert_eq!(all.len(), others.len() + 1);
    assert_eq!(
        one,
        of(vec![("unet", "a", value([2, 3]))]),
        "the same changes have the same hash"
    );
}

#[test]
fn edits_of_other_tensors_lie_beside_each_other() {
    let base = checkpoint("odd");
    let (x, s) = (
        edit_of(&base, 10, cross),
        edit_of(&base, 20, |name| name.contains("attn1")),
    );
    let merged = Edit::combined(&[(&x, 1.0), (&s, 1.0)], &base).unwrap();
    assert_eq!(merged.changes.len(), x.changes.len() + s.changes.len());
    for (_, name) in merged.changes.keys() {
        assert_eq!(
            value(&merged, name),
            value(if cross(name) { &x } else { &s }, name),
            "{name}"
        );
    }
    assert_eq!(merged.about.concepts, ["concept 10", "concept 20"]);
}

#[test]
fn edits_of_the_same_tensors_add_up() {
    let base = checkpoint("odd");
    let (a, b) = (
        edit_of(&base, 10, cross),
        edit_of(&base, 20, |name| name.contains("attn2.to_k")),
    );
    let near = |found: &[f32], expected: &[f32]| {
        found
            .iter()
            .zip(expected)
            .for_each(|(f, e)| assert!((f - e).abs() < 1e-6))
    };
    let both =
        |one: &Edit, other: &Edit| Edit::combined(&[(one, 1.0), (other, 1.0)], &base).unwrap();
    let (ab, ba) = (both(&a, &b), both(&b, &a));
    assert_eq!(
        ab.changes.keys().collect::<Vec<_>>(),
        ba.changes.keys().collect::<Vec<_>>()
    );
    for (_, name) in ab.changes.keys() {
        let old = base.components["unet"].tensors[name].to_f32().unwrap();
        let mut expected = value(&a, name);
        if name.contains("attn2.to_k") {
            let more = value(&b, name);
            expected
                .iter_mut()
                .zip(more.iter().zip(&old))
                .for_each(|(e, (m, o))| *e += m - o);
        }
        near(&value(&ab, name), &expected);
        near(&value(&ba, name), &expected);
    }
    // An edit and its opposite are nothing.
    let mut opposite = Edit {
        about: a.about.clone(),
        changes: BTreeMap::new(),
    };
    for (component, name, _, new) in a.new_values(&base, -1.0).map(Result::unwrap) {
        opposite
            .changes
            .insert((component, name), Change::Value(new));
    }
    let nothing = both(&a, &opposite);
    for (_, name) in nothing.changes.keys() {
        near(
            &value(&nothing, name),
            &base.components["unet"].tensors[name].to_f32().unwrap(),
        );
    }
}

#[test]
fn an_edit_of_another_architecture_is_refused() {
    let (odd, sd1) = (checkpoint("odd"), checkpoint("sd1"));
    let edit = edit_of(&odd, 1, cross);
    let texts = [
        edit.apply(&sd1, 1.0).unwrap_err().to_string(),
        edit.apply_to(&load(&sd1), 1.0)
            .map(drop)
            .unwrap_err()
            .to_string(),
        edit.low_rank(&sd1, 1, 1.0).unwrap_err().to_string(),
        Edit::combined(&[(&edit_of(&sd1, 2, cross), 1.0), (&edit, 1.0)], &sd1)
            .unwrap_err()
            .1
            .to_string(),
    ];
    for text in texts {
        assert!(
            text.contains("does not fit") && text.contains("attn2") && text.contains("tiny"),
            "{text}"
        );
    }
    assert!(
        edit.apply(&sd1, 1.0)
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("--model")
    );
    let with = |component: &str, name: &str, tensor: HostTensor| Edit {
        about: About::default(),
        changes: [(
            (component.to_owned(), name.to_owned()),
            Change::Value(tensor),
        )]
        .into(),
    };
    for (edit, text) in [
        (
            with(
                "unet",
                "conv_out.bias",
                HostTensor::from_f32([5], &[0.0; 5]),
            ),
            "[5] in the edit and [4]",
        ),
        (
            with(
                "unet",
                "conv_out.bias",
                HostTensor::from_f32([2, 2], &[0.0; 4]),
            ),
            "[2, 2]",
        ),
        (
            with("unet", "conv_out.bias", HostTensor::from_i64([4], &[0; 4])),
            "I64",
        ),
        (
            with("unet", "no.such.tensor", HostTensor::from_f32([1], &[0.0])),
            "no.such.tensor",
        ),
        (
            with("text_encoder_2", "x", HostTensor::from_f32([1], &[0.0])),
            "text_encoder_2",
        ),
    ] {
        for error in [
            edit.apply(&odd, 1.0).map(drop).unwrap_err(),
            edit.apply_to(&load(&odd), 1.0).map(drop).unwrap_err(),
        ] {
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

/// The checkpoint with each factor pair added to its base.
fn with_factors(base: &Checkpoint, factors: &[LowRank]) -> BTreeMap<String, Vec<f32>> {
    let all = factors.iter().map(|low| {
        let name = format!("{}.weight", low.module);
        let old = base.components["unet"].tensors[&name].to_f32().unwrap();
        (
            name,
            old.iter()
                .zip(low.delta().unwrap())
                .map(|(o, d)| o + d)
                .collect(),
        )
    });
    all.collect()
}

#[test]
fn low_rank_at_full_rank_is_the_edit() {
    let base = checkpoint("odd");
    // Linear layers, 1x1 and 3x3 convolutions.
    let edit = edit_of(&base, 30, |name| {
        name.ends_with(".weight") && base.components["unet"].tensors[name].shape().len() > 1
    });
    let full = edit.low_rank(&base, 1000, 1.0).unwrap();
    assert_eq!(full.low_rank.len(), edit.changes.len());
    assert!(full.left_out.is_empty() && full.left_out_share() == 0.0);
    assert!(full.error < 1e-7, "{}", full.error);
    for (name, found) in with_factors(&base, &full.low_rank) {
        for (found, expected) in found.iter().zip(value(&edit, &name)) {
            assert!(
                (found - expected).abs() < 1e-5 * 0.01,
                "{name}: {found} {expected}"
            );
        }
    }
    let shapes: BTreeMap<&str, (&[usize], &[usize])> = full
        .low_rank
        .iter()
        .map(|low| (low.module.as_str(), (low.down.shape(), low.up.shape())))
        .collect();
    assert_eq!(shapes["conv_in"], (&[6, 4, 3, 3][..], &[6, 6, 1, 1][..]));
    assert_eq!(
        shapes["down_blocks.0.attentions.0.proj_in"],
        (&[6, 6, 1, 1][..], &[6, 6, 1, 1][..])
    );
    assert_eq!(
        shapes["time_embedding.linear_1"],
        (&[6, 6][..], &[24, 6][..])
    );
    for low in &full.low_rank {
        assert_eq!(
            low.alpha as usize,
            low.rank(),
            "{}: no scale beside the factors",
            low.module
        );
    }
    // Half of the change, and its opposite.
    for strength in [0.5, -1.0] {
        let part = edit.low_rank(&base, 1000, strength).unwrap();
        let (found, old, new) = (
            with_factors(&base, &part.low_rank),
            &base.components["unet"].tensors["conv_in.weight"],
            value(&edit, "conv_in.weight"),
        );
        for ((found, old), new) in found["conv_in.weight"]
            .iter()
            .zip(old.to_f32().unwrap())
            .zip(new)
        {
            assert!(
                (f64::from(*found) - f64::from(old) - strength * f64::from(new - old)).abs() < 1e-6
            );
        }
    }
}

#[test]
fn the_error_falls_with_the_rank_and_is_the_one_reported() {
    let base = checkpoint("odd");
    let edit = edit_of(&base, 40, |name| {
        name.ends_with(".weight") && base.components["unet"].tensors[name].shape().len() > 1
    });
    let mut before = 1.0;
    for rank in [1, 2, 4, 8, 16] {
        let part = edit.low_rank(&base, rank, 1.0).unwrap();
        assert!(
            part.error < before,
            "rank {rank}: {} after {before}",
            part.error
        );
        before = part.error;
        let (mut missed, mut total) = (0.0, 0.0);
        for (name, found) in with_factors(&base, &part.low_rank) {
            let (old, new) = (
                base.components["unet"].tensors[&name].to_f32().unwrap(),
                value(&edit, &name),
            );
            for i in 0..old.len() {
                missed += f64::from(found[i] - new[i]).powi(2);
                total += f64::from(new[i] - old[i]).powi(2);
            }
        }
        assert!(
            (part.error - (missed / total).sqrt()).abs() < 1e-4,
            "rank {rank}: {} {}",
            part.error,
            (missed / total).sqrt()
        );
        assert!(part.low_rank.iter().all(|low| low.rank() <= rank));
    }
    assert!(matches!(
        edit.low_rank(&base, 0, 1.0),
        Err(Error::Model(scumble_nn::Error::Input { .. }))
    ));
}

#[test]
fn what_a_lora_cannot_carry_is_listed_with_its_share() {
    let base = checkpoint("odd");
    let edit = edit_of(&base, 50, |name| {
        name.starts_with("down_blocks.0.resnets.0")
    });
    let full = edit.low_rank(&base, 1000, 1.0).unwrap();
    // The weights of conv1, conv2 and time_emb_proj; their biases and the norms stay behind.
    assert_eq!(full.low_rank.len(), 3);
    let names: Vec<&str> = full
        .left_out
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names.len(), edit.changes.len() - 3);
    assert!(
        names.contains(&"unet down_blocks.0.resnets.0.norm1.weight")
            && names.contains(&"unet down_blocks.0.resnets.0.conv1.bias")
    );
    let squared = |name: &str| -> f64 {
        let old = base.components["unet"].tensors[name].to_f32().unwrap();
        value(&edit, name)
            .iter()
            .zip(old)
            .map(|(n, o)| (f64::from(*n) - f64::from(o)).powi(2))
            .sum()
    };
    let total: f64 = edit.changes.keys().map(|(_, name)| squared(name)).sum();
    for (name, share) in &full.left_out {
        assert!(
            (share - squared(name.strip_prefix("unet ").unwrap()) / total).abs() < 1e-9,
            "{name}"
        );
    }
    let carried: f64 = full
        .low_rank
        .iter()
        .map(|low| squared(&format!("{}.weight", low.module)))
        .sum();
    assert!((full.left_out_share() + carried / total - 1.0).abs() < 1e-9);

    // An edit that changes nothing has nothing to carry and misses nothing.
    let mut idle = Edit::default();
    let old = &base.components["unet"].tensors["conv_out.bias"];
    idle.changes.insert(
        ("unet".into(), "conv_out.bias".into()),
        Change::Value(HostTensor::from_f32([4], &old.to_f32().unwrap())),
    );
    let none = idle.low_rank(&base, 4, 1.0).unwrap();
    assert!(none.low_rank.is_empty() && none.left_out.is_empty() && none.error == 0.0);
    // Numbers that are none have no decomposition, and say so.
    idle.changes.insert(
        ("unet".into(), "conv_in.weight".into()),
        Change::Value(HostTensor::from_f32([6, 4, 3, 3], &[f32::NAN; 216])),
    );
    assert!(idle.low_rank(&base, 4, 1.0).is_err());
}

#[test]
fn an_edited_checkpoint_can_be_exported_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["odd", "sd1", "sd2"] {
        let base = checkpoint(name);
        let edit = edit_of(&base, 60, |n| cross(n) || n.starts_with("conv_in"));
        let edited = edit.apply(&base, 1.0).unwrap();
        let expected = bits(&load(&edited));
        let target = folder.path().join(name);
        write_folder(&edited, &target, Precision::Keep, None).unwrap();
        let read = Checkpoint::open(&target, &OpenOptions::default()).unwrap();
        assert_eq!(bits(&load(&read)), expected, "{name}");
        assert_eq!(read.hash(), edited.hash());
        assert_ne!(read.hash(), base.hash());
        // Unchanged tensors keep their dtype.
        assert_eq!(
            read.components["unet"].tensors["conv_out.bias"].dtype(),
            Dtype::F16
        );
        assert_eq!(
            read.components["unet"].tensors["conv_in.weight"].dtype(),
            Dtype::F32
        );
    }
    let base = checkpoint("sd1");
    let edited = edit_of(&base, 60, cross).apply(&base, 1.0).unwrap();
    let single = folder.path().join("single.safetensors");
    write_single(&edited, &single, Precision::Keep, &BTreeMap::new()).unwrap();
    let read = Checkpoint::open(&single, &OpenOptions::default()).unwrap();
    assert_eq!(bits(&load(&read)), bits(&load(&edited)));
}

#[test]
fn factors_written_as_adapters_are_the_edit() {
    let folder = tempfile::tempdir().unwrap();
    let base = checkpoint("odd");
    let edit = edit_of(&base, 70, |name| cross(name) && name.ends_with(".weight"));
    let full = edit.low_rank(&base, 1000, 1.0).unwrap();
    let near = |path: &std::path::Path| {
        let lora = read_lora(&TensorFile::open(path).unwrap(), &base).unwrap();
        assert_eq!(lora.low_rank.len(), edit.changes.len());
        for (name, found) in with_factors(&base, &lora.low_rank) {
            found
                .iter()
                .zip(value(&edit, &name))
                .for_each(|(f, e)| assert!((f - e).abs() < 1e-6, "{name}"));
        }
    };
    let (kohya, peft) = (
        folder.path().join("kohya.safetensors"),
        folder.path().join("peft.safetensors"),
    );
    let lora = Lora {
        low_rank: full.low_rank,
        ..Lora::default()
    };
    write_kohya(&kohya, &lora, &Spec::of(&base)).unwrap();
    write_peft(&peft, &lora, &BTreeMap::new()).unwrap();
    near(&kohya);
    near(&peft);
}

/// Adam against `torch.optim.Adam` (torch 2.15.0):
///
/// ```python
/// x = torch.tensor([.5, -1.25, 3., .001], requires_grad=True)
/// optimiser = torch.optim.Adam([x], lr=.01)
/// for g in ([.1, -2., 0., 1e-4], [.3, 1., -.5, 1e-4], [-.2, .25, .5, -3e-4]):
///     x.grad = torch.tensor(g); optimiser.step(); print(x.tolist())
/// ```
#[test]
fn adam_steps_as_torch_does() {
    let tensor = |values: [f32; 4]| {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [4]), &Device::flex())
    };
    let mut x = tensor([0.5, -1.25, 3.0, 0.001]);
    let mut moments = Moments::zeros_like(&x);
    let gradients = [
        [0.1, -2.0, 0.0, 1e-4],
        [0.3, 1.0, -0.5, 1e-4],
        [-0.2, 0.25, 0.5, -3e-4],
    ];
    let expected = [
        [0.49, -1.24, 3.0, -0.008_999],
        [0.480_822_2, -1.237_336_6, 3.007_441_3, -0.018_998],
        [0.478_243_17, -1.236_001, 3.006_989_5, -0.016_513_128f32],
    ];
    for (t, (gradient, expected)) in gradients.into_iter().zip(expected).enumerate() {
        x = moments.step(x, tensor(gradient), 0.01, t + 1);
        for (found, expected) in host(&x).iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 2.5e-7 * expected.abs().max(0.1),
                "step {}: {found} {expected}",
                t + 1
            );
        }
    }
}
