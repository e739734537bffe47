//! LPIPS against the package that defines it, over the true networks with weights from a formula.

mod common;

use burn::tensor::Device;
use common::{near, picture, says_spoilt, spoilt, tensors};
use scumble_diffusion::Picture;
use scumble_eval::Lpips;
use scumble_nn::{
    AlexNet, Manifest, Vgg16,
    files::{HostTensor, Tensors, write},
};

fn with_heads(mut manifest: Manifest, channels: [usize; 5]) -> Tensors {
    for (layer, channels) in channels.into_iter().enumerate() {
        manifest.insert(
            format!("lin{layer}.model.1.weight"),
            vec![1, channels, 1, 1],
        );
    }
    tensors(&manifest)
}

fn alex() -> Tensors {
    with_heads(AlexNet::manifest(), AlexNet::CHANNELS)
}

fn pairs(width: usize, height: usize) -> [Vec<Picture>; 2] {
    [[0, 2, 5], [1, 3, 1]].map(|list| {
        list.into_iter()
            .map(|k| picture(k, width, height))
            .collect()
    })
}

// Literals: golden/networks.py lpips.
#[test]
fn alex_is_the_packages() {
    let lpips = Lpips::of("formula", alex(), &Device::flex()).unwrap();
    assert_eq!(lpips.id(), "lpips-alex-v0.1");
    let [a, b] = pairs(64, 64);
    near(
        &lpips.distances(&a, &b).unwrap(),
        &[0.84675556, 0.7606116, 0.93117976],
        2e-5,
    );
    let [c, d] = pairs(45, 33);
    near(
        &lpips.distances(&c, &d).unwrap(),
        &[0.961083, 0.75407267, 0.9258824],
        2e-5,
    );

    // Sizes mixed, and each pair alone.
    let mixed =
        |a: &[Picture], b: &[Picture]| vec![a[0].clone(), b[1].clone(), a[2].clone(), b[0].clone()];
    let (first, second) = (mixed(&a, &c), mixed(&b, &d));
    let together = lpips.distances(&first, &second).unwrap();
    for i in 0..4 {
        near(
            &lpips.distances(&first[i..=i], &second[i..=i]).unwrap(),
            &together[i..=i],
            1e-6,
        );
    }
    near(
        &lpips.distances(&b, &a).unwrap(),
        &lpips.distances(&a, &b).unwrap(),
        1e-6,
    );
    assert_eq!(lpips.distances(&a, &a).unwrap(), [0.0; 3]);
    assert!(lpips.distances(&[], &[]).unwrap().is_empty());
}

#[test]
fn vgg_is_the_packages() {
    let lpips = Lpips::of(
        "formula",
        with_heads(Vgg16::manifest(), Vgg16::CHANNELS),
        &Device::flex(),
    )
    .unwrap();
    assert_eq!(lpips.id(), "lpips-vgg-v0.1");
    let [a, b] = pairs(64, 64);
    near(
        &lpips.distances(&a, &b).unwrap(),
        &[0.74860084, 0.6412487, 0.74312145],
        2e-5,
    );
    let [a, b] = pairs(45, 33);
    near(
        &lpips.distances(&a, &b).unwrap(),
        &[0.8307769, 0.67593426, 0.7810345],
        2e-5,
    );
}

#[test]
fn one_file_or_two_under_either_names() {
    let dir = tempfile::tempdir().unwrap();
    let save = |name: &str, tensors: &Tensors| {
        let path = dir.path().join(name);
        write(&path, tensors.clone(), &Default::default()).unwrap();
        path
    };
    let (mut backbone, heads): (Tensors, Tensors) = alex()
        .into_iter()
        .partition(|(name, _)| name.starts_with("features"));
    // The package's module: slices, each head twice, two constants.
    let slice = |layer: usize| [0, 3, 6, 8, 10].iter().position(|&l| l == layer).unwrap() + 1;
    let mut module: Tensors = backbone
        .iter()
        .map(|(name, tensor)| {
            let rest = name.strip_prefix("features.").unwrap();
            let layer = rest.split_once('.').unwrap().0.parse().unwrap();
            (format!("net.slice{}.{rest}", slice(layer)), tensor.clone())
        })
        .collect();
    module.extend(
        heads
            .iter()
            .map(|(name, tensor)| (name.replace("lin", "lins."), tensor.clone())),
    );
    module.extend(heads.clone());
    module.insert(
        "scaling_layer.shift".into(),
        HostTensor::from_f32([1, 3, 1, 1], &[-0.030, -0.088, -0.188]),
    );
    // torchvision's file has the classifier too.
    backbone.insert(
        "classifier.6.bias".into(),
        HostTensor::from_f32([1], &[0.0]),
    );

    let [a, b] = pairs(40, 40);
    let expected = Lpips::of("formula", alex(), &Device::flex())
        .unwrap()
        .distances(&a, &b)
        .unwrap();
    let two = [
        save("alexnet.safetensors", &backbone),
        save("heads.safetensors", &heads),
    ];
    for files in [&two[..], &[save("lpips.safetensors", &module)]] {
        let lpips = Lpips::open(files, &Device::flex()).unwrap();
        assert_eq!(lpips.distances(&a, &b).unwrap(), expected);
    }

    let broken = [
        save(
            "broken.safetensors",
            &spoilt(backbone.clone(), "features.3.bias"),
        ),
        two[1].clone(),
    ];
    let error = Lpips::open(&broken, &Device::flex()).unwrap_err();
    says_spoilt(&error.to_string(), "broken.safetensors", "features.3.bias");
    let error = Lpips::open(&two[..1], &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("alexnet.safetensors") && error.contains("lin0.model.1.weight"),
        "{error}"
    );
    let error = Lpips::open(&two[1..], &Device::flex()).unwrap_err();
    assert!(
        error.to_string().contains("features.0.weight") && error.hint().is_some(),
        "{error}"
    );
    let mut other = heads.clone();
    other.insert(
        "lin3.model.1.weight".into(),
        HostTensor::from_f32([1, 256, 1, 1], &[0.5; 256]),
    );
    let twice = [
        two[0].clone(),
        two[1].clone(),
        save("other.safetensors", &other),
    ];
    let error = Lpips::open(&twice, &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("other.safetensors")
            && error.contains("`lin3.model.1.weight` is there twice"),
        "{error}"
    );
}

#[test]
fn refuses_pairs_that_are_none() {
    let lpips = Lpips::of("formula", alex(), &Device::flex()).unwrap();
    let error = |a: &[Picture], b: &[Picture]| lpips.distances(a, b).unwrap_err().to_string();
    let p = |w, h| vec![picture(0, w, h)];
    assert_eq!(
        error(&p(40, 40), &[]),
        "lpips-alex-v0.1 compares pairs of pictures, found 1 and 0"
    );
    assert!(error(&p(40, 40), &p(40, 41)).contains("40 x 40 and 40 x 41 at 0"));
    assert!(error(&p(40, 30), &p(40, 30)).contains("at least 31 pixels"));
    assert_eq!(lpips.distances(&p(31, 31), &p(31, 31)).unwrap(), [0.0]);
}
