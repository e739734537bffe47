//! FID's Inception against pytorch-fid and clean-fid, over the true network with weights from a formula.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use burn::tensor::{Device, Tensor};
use common::{near, picture, tensors, weights};
use scumble_diffusion::Picture;
use scumble_eval::inception::{Convention, Inception};
use scumble_nn::{
    FidInception,
    files::{HostTensor, Tensors, write},
};

/// Every 256th feature, and the mean of all.
fn fingerprint(features: &[f32]) -> Vec<f32> {
    let mean = features.iter().map(|&v| f64::from(v)).sum::<f64>() / features.len() as f64;
    features.iter().copied().step_by(256).chain([mean as f32]).collect()
}

// Literals: golden/networks.py inception.
#[test]
fn small_maps_are_pytorch_fids() {
    let network = FidInception::new(&weights(&FidInception::manifest()));
    let picture = picture(0, 99, 83);
    let input: Tensor<4> = Picture::to_batch(&[picture], [0.5; 3], [0.5; 3], &Device::flex());
    let found: Vec<f32> = network.features(input).into_data().iter::<f32>().collect();
    let largest = found.iter().copied().fold(0.0, f32::max);
    let expected = [0.0371702947, 1.26332366, 0.0, 0.0129203144, 0.0, 0.504269958, 0.450839818, 0.0, 0.230825007, 4.26339912];
    near(&[fingerprint(&found), vec![largest]].concat(), &expected, 2e-5);
}

#[test]
fn resizing_is_both_packages() {
    let at = |planes: &[f32], c: usize, y: usize, x: usize| planes[(c * 299 + y) * 299 + x];
    for (w, h, convention, expected) in [
        (40, 28, Convention::LegacyPt, [-0.419607818, 0.4148072, 0.898039341, -0.762751818, 0.562922239]),
        (40, 28, Convention::Clean, [-0.424718678, 0.404732108, 0.924161673, -0.762216985, 0.556447387]),
        (512, 400, Convention::LegacyPt, [-0.415633738, -0.3107481, -0.397652328, -0.721421182, -0.319709003]),
        (512, 400, Convention::Clean, [-0.41851604, -0.314909577, -0.253679514, -0.455655396, -0.322202265]),
    ] {
        let p = convention.input(&picture(2, w, h));
        assert_eq!(p.len(), 3 * 299 * 299);
        let found = [at(&p, 0, 0, 0), at(&p, 1, 10, 200), at(&p, 2, 298, 298), at(&p, 0, 150, 151), at(&p, 1, 77, 3)];
        near(&found, &expected, 1e-5);
    }
}

#[test]
fn features_are_both_packages_and_company_makes_no_difference() {
    let inception = Inception::new(&weights(&FidInception::manifest()));
    let pictures = [picture(2, 40, 28), picture(2, 512, 400)];
    for (convention, expected) in [
        (
            Convention::LegacyPt,
            [
                [0.337744504, 5.35670662, 0.0, 1.76165485, 0.641524255, 3.34117699, 2.99761033, 0.00199417467, 1.11264205],
                [0.479040384, 7.6362009, 0.0, 2.40312028, 0.94441992, 4.4222393, 4.25577688, 0.0320167318, 1.56362903],
            ],
        ),
        (
            Convention::Clean,
            [
                [0.346278071, 5.6481328, 0.0, 1.87533915, 0.690879047, 3.52698326, 3.15792322, 0.003747985, 1.1689415],
                [0.358681977, 6.23729038, 0.0, 1.92403328, 0.78227514, 3.72278953, 3.55434299, 0.0225883685, 1.29345441],
            ],
        ),
    ] {
        let together = inception.features(&pictures, convention);
        for (found, expected) in together.iter().zip(expected) {
            near(&fingerprint(found), &expected, 2e-5);
        }
        if convention == Convention::LegacyPt {
            near(&inception.features(&pictures[1..], convention)[0], &together[1], 1e-6);
        }
    }
    assert!(inception.features(&[], Convention::Clean).is_empty());
}

#[test]
fn reads_the_published_state_dict_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inception.safetensors");
    let mut state = tensors(&FidInception::manifest());
    state.insert("Conv2d_1a_3x3.bn.num_batches_tracked".into(), HostTensor::from_i64([1], &[7]));
    state.insert("fc.bias".into(), HostTensor::from_f32([1008], &[0.0; 1008]));
    state.insert("fc.weight".into(), HostTensor::from_f32([1008, 1], &[0.0; 1008]));
    let save = |state: &Tensors| write(&path, state.clone(), &Default::default()).unwrap();
    save(&state);
    Inception::open(&path, &Device::flex()).unwrap();

    state.insert("fc.weight".into(), HostTensor::from_f32([1000, 1], &[0.0; 1000]));
    save(&state);
    let error = Inception::open(&path, &Device::flex()).unwrap_err();
    assert!(error.to_string().ends_with("expected FID's Inception with 1008 classes, found torchvision's"), "{error}");
    assert!(error.hint().unwrap().contains("pt_inception-2015-12-05-6726825d.pth"));

    state.remove("fc.weight");
    state.remove("Mixed_7c.branch_pool.bn.running_var");
    save(&state);
    let error = Inception::open(&path, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("Mixed_7c.branch_pool.bn.running_var"), "{error}");
}
