//! Structure distance and style similarity under the miniature's judges, against transformers.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::path::Path;

use burn::tensor::Device;
use common::{near, picture};
use scumble_diffusion::Picture;
use scumble_eval::{
    Judge,
    structure::{structure_distances, style_similarities},
};
use scumble_nn::files::Source;

fn judge(name: &str) -> Judge {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/emoji-judges")
        .join(name);
    Judge::load(&Source::dir(folder), &Device::flex()).unwrap()
}

fn pictures(list: &[usize]) -> Vec<Picture> {
    list.iter().map(|&k| picture(k, 32, 32)).collect()
}

// Literals: golden/networks.py structure.
#[test]
fn structure_is_tumanyans_over_the_object_judge() {
    let judge = judge("object");
    let (a, b) = (pictures(&[0, 2]), pictures(&[1, 5]));
    let found = structure_distances(&judge, &a, &b).unwrap();
    near(&found, &[0.57907236, 0.5831164], 2e-5);
    near(&structure_distances(&judge, &b, &a).unwrap(), &found, 1e-5);
    assert!(
        structure_distances(&judge, &a, &a)
            .unwrap()
            .iter()
            .all(|v| *v < 1e-10)
    );

    // More pairs than one chunk, and each alone.
    let many = |k: usize| pictures(&(0..40).map(|i| (i + k) % 7).collect::<Vec<_>>());
    let (many_a, many_b) = (many(0), many(3));
    let together = structure_distances(&judge, &many_a, &many_b).unwrap();
    assert_eq!(together.len(), 40);
    for i in [0, 31, 32, 39] {
        near(
            &structure_distances(&judge, &many_a[i..=i], &many_b[i..=i]).unwrap(),
            &together[i..=i],
            1e-5,
        );
    }
    let error = structure_distances(&judge, &a, &b[..1])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "structure-judge compares pairs of pictures, found 2 and 1"
    );
}

#[test]
fn style_is_the_cosine_of_the_style_judges_class_tokens() {
    let judge = judge("style");
    let (a, b) = (pictures(&[0, 2]), pictures(&[1, 5]));
    near(
        &style_similarities(&judge, &a, &b).unwrap(),
        &[0.8147557, 0.91885304],
        2e-5,
    );
    near(
        &style_similarities(&judge, &a, &a).unwrap(),
        &[1.0, 1.0],
        1e-6,
    );
    assert!(style_similarities(&judge, &[], &[]).unwrap().is_empty());
    assert!(style_similarities(&judge, &a, &[]).is_err());
}
