//! FID's Inception against pytorch-fid and clean-fid, over the true network with weights from a
//! formula.

mod common;

use burn::tensor::{Device, Tensor};
use common::{near, picture, says_spoilt, spoilt, tensors, weights};
use scumble_diffusion::Picture;
use scumble_eval::inception::{Convention, Inception};
use scumble_nn::{
    FidInception,
    files::{HostTensor, Tensors, write},
};

/// Every 256th feature, and the mean of all.
fn fingerprint(features: &[f32]) -> Vec<f32> {
    let mean = features.iter().map(|&v| f64::from(v)).sum::<f64>() / features.len() as f64;
    features
        .iter()
        .copied()
        .step_by(256)
        .chain([mean as f32])
        .collect()
}

// Literals: golden/networks.py inception.
#[test]
fn small_maps_are_pytorch_fids() {
    let network = FidInception::new(&weights(&FidInception::manifest()));
    let picture = picture(0, 99, 83);
    let input: Tensor<4> = Picture::to_batch(&[picture], [0.5; 3], [0.5; 3], &Device::flex());
    let found: Vec<f32> = network.features(input).into_data().iter::<f32>().collect();
    let largest = found.iter().copied().fold(0.0, f32::max);
    let expected = [
        0.037170295,
        1.2633237,
        0.0,
        0.012920314,
        0.0,
        0.50426996,
        0.45083982,
        0.0,
        0.230825,
        4.263399,
    ];
    near(
        &[fingerprint(&found), vec![largest]].concat(),
        &expected,
        2e-5,
    );
}

#[test]
fn resizing_is_both_packages() {
    let at = |planes: &[f32], c: usize, y: usize, x: usize| planes[(c * 299 + y) * 299 + x];
    for (w, h, convention, expected) in [
        (
            40,
            28,
            Convention::LegacyPt,
            [-0.41960782, 0.4148072, 0.89803934, -0.7627518, 0.56292224],
        ),
        (
            40,
            28,
            Convention::Clean,
            [-0.42471868, 0.4047321, 0.9241617, -0.762217, 0.5564474],
        ),
        (
            512,
            400,
            Convention::LegacyPt,
            [-0.41563374, -0.3107481, -0.39765233, -0.7214212, -0.319709],
        ),
        (
            512,
            400,
            Convention::Clean,
            [
                -0.41851604,
                -0.31490958,
                -0.2536795,
                -0.4556554,
                -0.32220227,
            ],
        ),
    ] {
        let p = convention.input(&picture(2, w, h));
        assert_eq!(p.len(), 3 * 299 * 299);
        let found = [
            at(&p, 0, 0, 0),
            at(&p, 1, 10, 200),
            at(&p, 2, 298, 298),
            at(&p, 0, 150, 151),
            at(&p, 1, 77, 3),
        ];
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
                [
                    0.3377445,
                    5.3567066,
                    0.0,
                    1.7616549,
                    0.64152426,
                    3.341177,
                    2.9976103,
                    0.0019941747,
                    1.112642,
                ],
                [
                    0.47904038, 7.636201, 0.0, 2.4031203, 0.9444199, 4.4222393, 4.255777,
                    0.03201673, 1.563629,
                ],
            ],
        ),
        (
            Convention::Clean,
            [
                [
                    0.34627807,
                    5.648133,
                    0.0,
                    1.8753392,
                    0.69087905,
                    3.5269833,
                    3.1579232,
                    0.003747985,
                    1.1689415,
                ],
                [
                    0.35868198,
                    6.2372904,
                    0.0,
                    1.9240333,
                    0.78227514,
                    3.7227895,
                    3.554343,
                    0.022588369,
                    1.2934544,
                ],
            ],
        ),
    ] {
        let together = inception.features(&pictures, convention);
        for (found, expected) in together.iter().zip(expected) {
            near(&fingerprint(found), &expected, 2e-5);
        }
        if convention == Convention::LegacyPt {
            near(
                &inception.features(&pictures[1..], convention)[0],
                &together[1],
                1e-6,
            );
        }
    }
    assert!(inception.features(&[], Convention::Clean).is_empty());
}

#[test]
fn reads_the_published_state_dict_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inception.safetensors");
    let mut state = tensors(&FidInception::manifest());
    state.insert(
        "Conv2d_1a_3x3.bn.num_batches_tracked".into(),
        HostTensor::from_i64([1], &[7]),
    );
    state.insert("fc.bias".into(), HostTensor::from_f32([1008], &[0.0; 1008]));
    state.insert(
        "fc.weight".into(),
        HostTensor::from_f32([1008, 1], &[0.0; 1008]),
    );
    let save = |state: &Tensors| write(&path, state.clone(), &Default::default()).unwrap();
    save(&state);
    Inception::open(&path, &Device::flex()).unwrap();

    state.insert(
        "fc.weight".into(),
        HostTensor::from_f32([1000, 1], &[0.0; 1000]),
    );
    save(&state);
    let error = Inception::open(&path, &Device::flex()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("expected FID's Inception with 1008 classes, found torchvision's"),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("pt_inception-2015-12-05-6726825d.pth")
    );

    state.remove("fc.weight");
    let layer = "Mixed_5b.branch1x1.conv.weight";
    save(&spoilt(state.clone(), layer));
    let error = Inception::open(&path, &Device::flex()).unwrap_err();
    says_spoilt(&error.to_string(), "inception.safetensors", layer);
    state.remove("Mixed_7c.branch_pool.bn.running_var");
    save(&state);
    let error = Inception::open(&path, &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Mixed_7c.branch_pool.bn.running_var"),
        "{error}"
    );
}
