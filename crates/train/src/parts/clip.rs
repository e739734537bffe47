//! CLIP (Radford et al. 2021, arXiv 2103.00020): pictures and captions into one space, so that each
//! is nearest to its own. Its text tower is the model's text encoder.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData, activation::log_softmax};
use rayon::prelude::*;
use scumble_diffusion::Picture;
use scumble_erase::Result;
use scumble_families::sd::SD;
use scumble_nn::{Clip, ClipText, Weights, config::ClipConfig, tokenizer::Tokenizer};

use super::{measured_on, tokenizer};
use crate::{
    fit::{Fit, Outcome},
    init::Init,
    job::Job,
    layout::{CLIP_MEAN, CLIP_STD, MODEL},
    part::CONFIG,
    watcher::Watcher,
};

/// The largest scale of the logits, as in the paper (2.5).
const LARGEST_SCALE: f64 = 100.0;
/// Held-out pictures that it is measured on at once.
const MEASURED: usize = 64;

/// Trains it and writes `clip/` and `text_encoder/`.
pub(crate) fn train(job: &Job<'_>, watcher: &mut dyn Watcher) -> Result<Outcome> {
    let tokenizer = tokenizer::read(job)?;
    let layout = job.layout();
    let sizes = job.recipe.text_sizes(tokenizer.vocab_size());
    let config = sizes.clip_config(job.recipe.side, job.recipe.clip.patch_size);
    let network = ClipConfig::read(&layout.at("clip/config.json"), &config)?;
    let init = Init::Transformer {
        layers: job.recipe.clip.num_hidden_layers,
    };
    let mut weights = init.weights(&Clip::manifest(&network), job.seed, job.device);
    let training = &job.recipe.clip.training;
    let mut fit = Fit::new("clip", training, &weights, job, job.most)?;
    let outcome = fit.run(
        &mut weights,
        watcher,
        &mut |weights, _, numbers| {
            let (captions, pictures) = batch(job, numbers)?;
            let logits = logits(&network, weights, &tokenizer, &captions, &pictures, job);
            Ok(contrastive(logits, &captions))
        },
        &mut |weights, step, watcher| {
            // Of fewer captions it is easier to find the right one.
            let (numbers, of) = measured_on(job.data, MEASURED, MEASURED);
            let (captions, pictures) = batch(job, numbers)?;
            let logits = logits(&network, weights, &tokenizer, &captions, &pictures, job);
            watcher.measured(
                "clip",
                step,
                &format!("right caption of {MEASURED}{of}"),
                accuracy(logits, &captions),
            );
            Ok(())
        },
    )?;
    layout.json("clip/config.json", &config)?;
    layout.json(
        "clip/preprocessor_config.json",
        &job.recipe.clip_preprocessor(),
    )?;
    layout.weights("clip/model.safetensors", &weights)?;
    let encoder = SD.id_of(scumble_families::Part::TextEncoder);
    layout.json(&format!("{encoder}/{CONFIG}"), &sizes.config())?;
    let names = ClipText::manifest(&network.text);
    layout.some(&format!("{encoder}/{MODEL}"), names.keys(), &weights)?;
    Ok(outcome)
}

/// The captions and pictures of these examples: number `2 i` and the one after it are twins.
fn batch(job: &Job<'_>, numbers: Range<usize>) -> Result<(Vec<String>, Vec<Picture>)> {
    let pairs = numbers.start / 2..numbers.end.div_ceil(2);
    let drawn = pairs.into_par_iter().map(|i| job.data.twins(i));
    let drawn: Vec<_> = drawn.collect::<Result<_>>()?;
    let both = drawn.into_iter().flatten().skip(numbers.start % 2);
    let (pictures, captions) = both.take(numbers.len()).unzip();
    Ok((captions, pictures))
}

/// How near every picture is to every caption, `[pictures, captions]`, times the scale.
fn logits(
    config: &ClipConfig,
    weights: &Weights,
    tokenizer: &Tokenizer,
    captions: &[String],
    pictures: &[Picture],
    job: &Job<'_>,
) -> Tensor<2> {
    let network = Clip::new(config, weights);
    let ids: Vec<Vec<u32>> = captions.iter().map(|c| tokenizer.encode(c).ids).collect();
    let texts = network.text_features(&ids);
    let [mean, std] = [CLIP_MEAN, CLIP_STD].map(|three| three.map(|x| x as f32));
    let pictures = Picture::to_batch(pictures, mean, std, job.device);
    let pictures = network.image_features(pictures);
    let scale = weights.get("logit_scale").map(|weight| weight.flat());
    let scale = scale
        .expect("in the manifest")
        .exp()
        .clamp_max(LARGEST_SCALE);
    pictures.matmul(texts.transpose()) * scale.reshape([1, 1])
}

/// The symmetric cross-entropy of the paper's figure 3. Pictures of one batch may have the same
/// caption; each is then as right as the other.
fn contrastive(logits: Tensor<2>, captions: &[String]) -> Tensor<1> {
    let n = captions.len();
    let mut targets = Vec::with_capacity(n * n);
    for a in captions {
        let same: Vec<bool> = captions.iter().map(|b| a == b).collect();
        let share = 1.0 / same.iter().filter(|same| **same).count() as f32;
        targets.extend(same.iter().map(|&same| if same { share } else { 0.0 }));
    }
    let device = logits.device();
    // Symmetric, as being the same caption is.
    let targets = Tensor::<2>::from_data(TensorData::new(targets, [n, n]), &device);
    let entropy = |logits: Tensor<2>| (log_softmax(logits, 1) * targets.clone()).sum();
    (entropy(logits.clone()) + entropy(logits.transpose())) * (-0.5 / n as f64)
}

/// The share of pictures whose nearest caption is their own, or one of the same words.
fn accuracy(logits: Tensor<2>, captions: &[String]) -> f64 {
    let n = captions.len();
    let rows: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let right = rows.chunks_exact(n).zip(captions).filter(|(row, caption)| {
        let best = (0..n).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best.is_some_and(|best| captions[best] == **caption)
    });
    right.count() as f64 / n as f64
}
