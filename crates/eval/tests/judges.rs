//! The judges of the miniature against transformers, and on the artwork that they ought to know.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::{Rgb, RgbImage, RgbaImage, imageops};
use scumble_diffusion::Picture;
use scumble_erase::World;
use scumble_eval::{Judge, Judges, JudgingSet, Rate};
use scumble_nn::files::{Source, TensorFile};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn judge(name: &str) -> Judge {
    Judge::load(
        &Source::dir(root().join("models/emoji-judges").join(name)),
        &Device::flex(),
    )
    .unwrap()
}

fn judges() -> Judges {
    Judges {
        object: judge("object"),
        style: judge("style"),
    }
}

/// A piece of artwork on white, as `world.py` places it: `inner` of 32 pixels, in the middle.
fn drawn(style: &str, object: &str, inner: u32) -> Picture {
    let file = root()
        .join("assets/emoji-world")
        .join(style)
        .join(object.replace(' ', "-") + ".png");
    let icon: RgbaImage = image::open(file).unwrap().into_rgba8();
    let icon = imageops::resize(&icon, inner, inner, imageops::FilterType::Lanczos3);
    let mut canvas = RgbImage::from_pixel(32, 32, Rgb([255; 3]));
    let corner = (32 - inner) / 2;
    for (x, y, pixel) in icon.enumerate_pixels() {
        let alpha = f32::from(pixel[3]) / 255.0;
        for (under, over) in canvas
            .get_pixel_mut(x + corner, y + corner)
            .0
            .iter_mut()
            .zip(pixel.0)
        {
            *under = (f32::from(*under) * (1.0 - alpha) + f32::from(over) * alpha).round() as u8;
        }
    }
    Picture {
        width: 32,
        height: 32,
        rgb: canvas.into_raw(),
    }
}

fn rate(hits: impl Iterator<Item = bool>) -> Rate {
    let mut rate = Rate::default();
    hits.for_each(|hit| rate.add(hit));
    rate
}

#[test]
fn names_the_artwork() {
    let (world, judges) = (World::emoji(), judges());
    assert_eq!(judges.object.labels(), world.objects);
    assert_eq!(judges.style.labels(), world.styles);
    let pieces: Vec<_> = world
        .styles
        .iter()
        .flat_map(|s| world.objects.iter().map(move |o| (s, o)))
        .collect();
    let pictures: Vec<_> = pieces
        .iter()
        .map(|(style, object)| drawn(style, object, 28))
        .collect();
    let objects = judges.object.classify(&pictures);
    let styles = judges.style.classify(&pictures);
    let right = rate(
        objects
            .iter()
            .zip(&pieces)
            .map(|(verdict, piece)| verdict.label == *piece.1),
    );
    let styled = rate(
        styles
            .iter()
            .zip(&pieces)
            .map(|(verdict, piece)| verdict.label == *piece.0),
    );
    // Measured: 190 objects and 188 styles.
    assert_eq!((right.n, styled.n), (192, 192));
    assert!(
        right.fraction() > 0.95 && styled.fraction() > 0.95,
        "{right:?} {styled:?}"
    );
    assert!(
        objects
            .iter()
            .chain(&styles)
            .all(|v| v.probability > 1.0 / 32.0 && v.probability <= 1.0)
    );
}

/// The numbers that `golden/judges.py` wrote under a name, and their shape.
fn golden(name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = TensorFile::open(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/judges.safetensors"),
    )
    .unwrap();
    let tensor = &file.tensors[name];
    (tensor.shape().to_vec(), tensor.to_f32().unwrap())
}

#[track_caller]
fn close(ours: &[Vec<f32>], theirs: &[f32], tolerance: f32) {
    let ours: Vec<f32> = ours.concat();
    assert_eq!(ours.len(), theirs.len());
    let worst = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < tolerance, "{worst} apart");
}

#[test]
fn scores_are_transformers() {
    let bytes = |values: &[f32]| values.iter().map(|&v| v as u8).collect::<Vec<u8>>();
    let (_, values) = golden("pictures");
    let small: Vec<_> = values
        .chunks(32 * 32 * 3)
        .map(|v| Picture {
            width: 32,
            height: 32,
            rgb: bytes(v),
        })
        .collect();
    let (shape, values) = golden("large");
    let large = [Picture {
        width: shape[1],
        height: shape[0],
        rgb: bytes(&values),
    }];
    for name in ["object", "style"] {
        let judge = judge(name);
        close(&judge.logits(&small), &golden(name).1, 1e-4);
        // PIL rounds to bytes between its two passes, so some of the resized picture's values
        // differ by one.
        close(
            &judge.logits(&large),
            &golden(&format!("large_{name}")).1,
            0.02,
        );
    }
}

#[test]
fn company_makes_no_difference() {
    let judge = judge("object");
    // 70 pictures are more than one chunk; the last is of another size.
    let world = World::emoji();
    let mut pictures: Vec<_> = (0..70)
        .map(|i| drawn("noto", &world.objects[i % 32], 20 + (i / 8) as u32))
        .collect();
    pictures.push(Picture {
        width: 5,
        height: 9,
        rgb: (0..135).collect(),
    });
    let together = judge.logits(&pictures);
    assert_eq!(together.len(), 71);
    for i in [0, 1, 63, 64, 69, 70] {
        close(&judge.logits(&pictures[i..=i]), &together[i], 1e-5);
    }
    assert!(judge.classify(&[]).is_empty());
}

#[test]
fn counts_what_the_pictures_of_a_set_show() {
    let (world, judges) = (World::emoji(), judges());
    // Pictures as a perfect model would draw them, apart from those of churches, which show houses.
    let show = |set: &JudgingSet| -> Vec<Picture> {
        let piece = |prompt: &str| {
            let (object, style) = prompt
                .trim_end_matches(" style")
                .split_once(" in ")
                .unwrap();
            let object = object.split_once(' ').unwrap().1;
            let object = match object {
                "church" => "house",
                "weapon" => "dagger",
                object => object,
            };
            drawn(style, object, 28)
        };
        set.cases.iter().map(|case| piece(&case.prompt)).collect()
    };
    let rates = |concept: &str| {
        let set = JudgingSet::for_concept(&world, concept).unwrap();
        judges.judge(&set, &show(&set)).unwrap()
    };
    let church = rates("church");
    assert_eq!(
        (church.target, church.target_objects),
        (Rate { hits: 0, n: 48 }, None)
    );
    assert!(
        church.others.n == 186 && church.others.fraction() > 0.95,
        "{church:?}"
    );

    let weapon = rates("weapon");
    assert!(
        weapon.target == Rate { hits: 48, n: 48 } && weapon.others.n == 174,
        "{weapon:?}"
    );

    let ink = rates("ink style");
    assert!(ink.target.fraction() > 0.9 && ink.target.n == 48, "{ink:?}");
    // Two of the 48 name the church.
    let objects = ink.target_objects.unwrap();
    assert!(
        objects.n == 48 && objects.hits <= 46 && objects.hits >= 42,
        "{ink:?}"
    );
    assert!(
        ink.others.n == 160 && ink.others.fraction() > 0.9,
        "{ink:?}"
    );
}

#[test]
fn refuses_what_does_not_fit() {
    let judges = judges();
    let set = JudgingSet::for_concept(&World::emoji(), "church").unwrap();
    let error = judges.judge(&set, &[]).unwrap_err();
    assert_eq!(error.to_string(), "expected 234 judged pictures, found 0");

    let mut world = World::emoji();
    world.objects[2] = "lighthouse".into();
    let set = JudgingSet::for_concept(&world, "lighthouse").unwrap();
    let pictures = vec![
        Picture {
            width: 1,
            height: 1,
            rgb: vec![0; 3]
        };
        set.cases.len()
    ];
    let error = judges.judge(&set, &pictures).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the judge does not know the label `lighthouse`"
    );
    assert!(error.hint().unwrap().contains("church"));

    let missing = Judge::load(&Source::dir("/nowhere"), &Device::flex()).unwrap_err();
    assert!(missing.to_string().contains("config.json"), "{missing}");
}
