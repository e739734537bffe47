//! The arithmetic against LyCORIS itself. The numbers below come from lycoris-lora 4.1.3 with torch
//! 2.15, by
//!
//! ```python
//! def num(shape, s): return torch.tensor([math.sin(0.7 * i + s) for i in range(math.prod(shape))]).reshape(shape)
//! org = torch.nn.Linear(4, 6, bias=False); org.weight.data = num([6, 4], 0.3)          # or Conv2d(4, 6, 3)
//! m = LohaModule("x", org, lora_dim=2, alpha=1, use_tucker=False, weight_decompose=False)
//! # each tensor of the state, in order of name: num(shape, 1), num(shape, 2), ...; dora_scale: linspace(0.5, 1.5)
//! m.load_state_dict(new, strict=False)
//! diff = m.get_weight(org.weight.shape)         # LoCon: m.get_diff_weight(1.0)[0]; with DoRA: apply_weight_decompose(weight + diff, 1) - weight
//! print(diff.double().sum(), diff.double().norm(), diff.flatten()[:4], diff.flatten()[-3:])
//! ```
//!
//! This is what `forward` computes, and so what was trained (compared for the linear layers).
//! `get_diff_weight` of LoHa and LoKr, with which that version merges, multiplies by the scale a
//! second time; ComfyUI and A1111 do it once.

use super::{
    collect::{Change, Pieces, made},
    pieces::split,
};
use crate::files::tensor::HostTensor;

fn numbers(shape: &[usize], start: f64) -> HostTensor {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|i: usize| (0.7 * i as f64 + start).sin() as f32)
        .collect();
    HostTensor::from_f32(shape, &values)
}

struct Case {
    name: &'static str,
    weight: &'static [usize],
    /// Names and shapes, in order of name.
    pieces: &'static [(&'static str, &'static [usize])],
    scale: Option<&'static [usize]>,
    alpha: f32,
    sum: f64,
    norm: f64,
    head: [f32; 4],
    tail: [f32; 3],
}

const LINEAR: &[usize] = &[6, 4];
const KERNEL: &[usize] = &[6, 4, 3, 3];
const LOHA: &[(&str, &[usize])] = &[
    ("hada_w1_a", &[6, 2]),
    ("hada_w1_b", &[2, 4]),
    ("hada_w2_a", &[6, 2]),
    ("hada_w2_b", &[2, 4]),
];
const LORA: &[(&str, &[usize])] = &[("lora_down.weight", &[2, 4]), ("lora_up.weight", &[6, 2])];

#[rustfmt::skip]
const CASES: [Case; 12] = [
    Case { name: "loha", weight: LINEAR, pieces: LOHA, scale: None, alpha: 1.0, sum: 1.3414040077477694, norm: 0.36293304993002284,
        head: [0.041046, 0.108486, 0.090341, 0.016733], tail: [0.007936, 0.073826, 0.080997] },
    Case { name: "loha, tucker", weight: KERNEL, pieces: &[("hada_t1", &[2, 2, 3, 3]), ("hada_t2", &[2, 2, 3, 3]), ("hada_w1_a", &[2, 6]),
            ("hada_w1_b", &[2, 4]), ("hada_w2_a", &[2, 6]), ("hada_w2_b", &[2, 4])], scale: None, alpha: 1.0,
        sum: 0.13200854416936636, norm: 0.07241779048440468,
        head: [0.02089, 0.011171, -0.005184, -0.001025], tail: [-0.001374, -0.000965, 0.001194] },
    Case { name: "loha, convolution", weight: KERNEL, pieces: &[("hada_w1_a", &[6, 2]), ("hada_w1_b", &[2, 36]), ("hada_w2_a", &[6, 2]),
            ("hada_w2_b", &[2, 36])], scale: None, alpha: 1.0, sum: 22.221998311579227, norm: 4.759091883835731,
        head: [0.259111, 0.140088, -0.073687, -0.027332], tail: [0.006453, -0.331366, 0.323493] },
    Case { name: "lokr", weight: LINEAR, pieces: &[("lokr_w1", &[2, 2]), ("lokr_w2_a", &[3, 1]), ("lokr_w2_b", &[1, 2])], scale: None,
        alpha: 0.5, sum: -0.535862925928086, norm: 0.4166939469272961,
        head: [0.053989, -0.202701, 0.063625, -0.238881], tail: [0.045727, -0.00075, 0.002815] },
    Case { name: "lokr, tucker", weight: KERNEL, pieces: &[("lokr_t2", &[1, 1, 3, 3]), ("lokr_w1", &[2, 2]), ("lokr_w2_a", &[1, 3]),
            ("lokr_w2_b", &[1, 2])], scale: None, alpha: 0.5, sum: 0.004642033018171787, norm: 1.9286409925667038,
        head: [-0.040859, -0.048152, -0.032798, -0.002019], tail: [0.343935, 0.145553, -0.121285] },
    Case { name: "lokr, convolution", weight: KERNEL, pieces: &[("lokr_w1", &[2, 2]), ("lokr_w2_a", &[3, 1]), ("lokr_w2_b", &[1, 18])],
        scale: None, alpha: 0.5, sum: 0.03090138896368444, norm: 2.2779671475095142,
        head: [0.053989, -0.202701, -0.364058, -0.354192], tail: [-0.00427, -0.005302, -0.003841] },
    // Both factors whole: the alpha of 100 belongs to a rank of 100, and no reader divides.
    Case { name: "lokr, whole factors", weight: LINEAR, pieces: &[("lokr_w1", &[2, 2]), ("lokr_w2", &[3, 2])], scale: None, alpha: 100.0,
        sum: -3.6693153493106365, norm: 2.6367347789452875,
        head: [0.765147, 0.359628, 0.901718, 0.423818], tail: [-0.476566, -0.041421, -0.029337] },
    Case { name: "locon, tucker", weight: KERNEL, pieces: &[("lora_down.weight", &[2, 4, 1, 1]), ("lora_mid.weight", &[2, 2, 3, 3]),
            ("lora_up.weight", &[6, 2, 1, 1])], scale: None, alpha: 1.0, sum: 0.004830572754144669, norm: 1.5241901754112608,
        head: [-0.040627, -0.019061, 0.011469, 0.036606], tail: [-0.010674, 0.152294, 0.243636] },
    Case { name: "dora by input", weight: LINEAR, pieces: LORA, scale: Some(&[1, 4]), alpha: 1.0, sum: -0.6425092034041882,
        norm: 1.5757293551358524, head: [-0.136714, -0.268309, -0.286204, -0.223554], tail: [-0.127904, 0.161855, 0.212481] },
    Case { name: "dora by output", weight: LINEAR, pieces: LORA, scale: Some(&[6, 1]), alpha: 1.0, sum: -1.1235645487904549,
        norm: 1.4944309316410695, head: [-0.139658, -0.53295, -0.675588, -0.500486], tail: [0.215443, 0.226292, 0.130713] },
    Case { name: "dora, convolution", weight: KERNEL, pieces: &[("lora_down.weight", &[2, 4, 3, 3]), ("lora_up.weight", &[6, 2, 1, 1])],
        scale: Some(&[1, 4, 1, 1]), alpha: 1.0, sum: -0.06895532365888357, norm: 8.737849180008562,
        head: [-0.228875, -0.725789, -0.881353, -0.622403], tail: [0.742224, 0.485963, 0.001147] },
    Case { name: "loha with dora", weight: LINEAR, pieces: LOHA, scale: Some(&[1, 4]), alpha: 1.0, sum: -0.29411300271749496,
        norm: 1.4508742627258162, head: [-0.181446, -0.274481, -0.309223, -0.151307], tail: [-0.257421, 0.043623, 0.216243] },
];

fn pieces(case: &Case) -> Pieces {
    let mut pieces = Pieces {
        alpha: Some(case.alpha),
        ..Pieces::default()
    };
    for (i, (name, shape)) in case.pieces.iter().enumerate() {
        pieces.tensors.insert(
            split(&format!("x.{name}")).unwrap().1,
            numbers(shape, (i + 1) as f64),
        );
    }
    if let Some(shape) = case.scale {
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|i| 0.5 + i as f32 / (n - 1) as f32).collect();
        pieces.tensors.insert(
            split("x.dora_scale").unwrap().1,
            HostTensor::from_f32(shape, &values),
        );
    }
    pieces
}

fn values(change: Change) -> Vec<f32> {
    match change {
        Change::Product(low) => low.delta().unwrap(),
        Change::Whole(diff) => diff.to_f32().unwrap(),
    }
}

#[test]
fn every_algebra_is_that_of_lycoris() {
    for case in &CASES {
        let weight = numbers(case.weight, 0.3);
        let (change, _) = made("unet", "x", &weight, pieces(case))
            .unwrap_or_else(|(_, problem)| panic!("{}: {problem}", case.name));
        let diff = values(change);
        assert_eq!(diff.len(), weight.len(), "{}", case.name);
        let sum: f64 = diff.iter().map(|v| f64::from(*v)).sum();
        let norm = diff
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(
            (sum - case.sum).abs() < 1e-5 && (norm / case.norm - 1.0).abs() < 1e-5,
            "{}: {sum} {norm}",
            case.name
        );
        let ends = diff[..4].iter().chain(&diff[diff.len() - 3..]);
        for (found, expected) in ends.zip(case.head.iter().chain(&case.tail)) {
            assert!(
                (found - expected).abs() < 2e-6,
                "{}: {found} {expected}",
                case.name
            );
        }
    }
}

/// numpy: kron(w1a @ w1b, w2a @ w2b) * 0.25 with alpha 0.5 and rank 2 of the second factor.
#[test]
fn a_lokr_of_two_products_is_scaled_by_the_second_rank() {
    let mut two = Pieces {
        alpha: Some(0.5),
        ..Pieces::default()
    };
    for (name, shape, values) in [
        ("lokr_w1_a", [2, 1], vec![1.0, 2.0]),
        ("lokr_w1_b", [1, 2], vec![3.0, -1.0]),
        ("lokr_w2_a", [1, 2], vec![1.0, 2.0]),
        ("lokr_w2_b", [2, 1], vec![2.0, 1.0]),
    ] {
        two.tensors.insert(
            split(&format!("x.{name}")).unwrap().1,
            HostTensor::from_f32(shape, &values),
        );
    }
    let (change, _) = made("unet", "x", &numbers(&[2, 2], 0.0), two).unwrap();
    assert_eq!(values(change), [3.0, -1.0, 6.0, -2.0]);
}

#[test]
fn pieces_that_do_not_fit_are_refused_before_they_are_multiplied() {
    let zeros = |shape: &[usize]| HostTensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let loha = |w1_a: &[usize], w1_b: &[usize]| {
        let mut pieces = pieces(&CASES[0]);
        pieces
            .tensors
            .insert(split("x.hada_w1_a").unwrap().1, zeros(w1_a));
        pieces
            .tensors
            .insert(split("x.hada_w1_b").unwrap().1, zeros(w1_b));
        pieces
    };
    for (a, b) in [
        (&[6, 3][..], &[2, 4][..]),
        (&[6, 2], &[2, 5]),
        (&[7, 2], &[2, 4]),
        (&[1 << 20, 1], &[1, 1 << 20]),
        (&[6], &[2, 4]),
        (&[0, 2], &[2, 4]),
    ] {
        let (what, problem) = made("unet", "x", &numbers(LINEAR, 0.3), loha(a, b))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(what, "shape", "{a:?} {b:?}: {problem}");
    }
    let mut half = pieces(&CASES[0]);
    half.tensors.remove(&split("x.hada_w2_b").unwrap().1);
    assert_eq!(
        made("unet", "x", &numbers(LINEAR, 0.3), half)
            .map(|_| ())
            .unwrap_err(),
        ("missing", "the factor hada_w2_b".into())
    );
    let mut both = pieces(&CASES[0]);
    both.tensors.extend(pieces(&CASES[3]).tensors);
    assert!(
        made("unet", "x", &numbers(LINEAR, 0.3), both)
            .map(|_| ())
            .unwrap_err()
            .1
            .contains("more than one kind")
    );
    for shape in [&[4, 1][..], &[6, 2], &[4], &[1, 4, 1]] {
        let mut wrong = pieces(&CASES[8]);
        let n = shape.iter().product();
        wrong.tensors.insert(
            split("x.dora_scale").unwrap().1,
            HostTensor::from_f32(shape, &vec![1.0; n]),
        );
        // A trailing one is the same magnitudes.
        let answer = made("unet", "x", &numbers(LINEAR, 0.3), wrong).map(|_| ());
        assert_eq!(answer.is_ok(), shape == [1, 4, 1], "{shape:?}: {answer:?}");
    }
    assert!(made("unet", "x", &numbers(&[4], 0.3), pieces(&CASES[0])).is_err());
}
