//! How alike two pictures are laid out, and how alike they are drawn, by what a judge's network
//! makes of them.

use burn::tensor::Tensor;
use scumble_diffusion::Picture;

use crate::{
    error::{Error, Result},
    judge::Judge,
};

/// Pairs that go through the network at once.
const CHUNK: usize = 32;

/// The name of [`structure_distances`] over the miniature's object judge.
pub const STRUCTURE: &str = "structure-judge";

/// The name of [`style_similarities`] over the miniature's style judge.
pub const STYLE: &str = "style-similarity-judge";

/// The structure distance of each pair (Tumanyan et al. 2022, arXiv 2201.00424): the mean squared
/// difference of the two pictures' self-similarities, which are the cosines between the keys of a
/// ViT's last layer, of every token with every other, the class token included. 0 for equal
/// pictures, at most 4.
///
/// Published numbers use DINO's ViT-B/8, these the judge's network, so they compare among
/// themselves only.
///
/// # Errors
/// If there are more pictures of one than of the other.
pub fn structure_distances(judge: &Judge, a: &[Picture], b: &[Picture]) -> Result<Vec<f32>> {
    pairwise(STRUCTURE, a, b, |a, b| {
        let apart = self_similarity(judge.keys(a)) - self_similarity(judge.keys(b));
        let [n, tokens, _] = apart.dims();
        apart
            .powi_scalar(2)
            .reshape([n, tokens * tokens])
            .mean_dim(1)
            .reshape([n])
    })
}

/// The cosine of the two class tokens of each pair: 1 for equal pictures.
///
/// # Errors
/// If there are more pictures of one than of the other.
pub fn style_similarities(judge: &Judge, a: &[Picture], b: &[Picture]) -> Result<Vec<f32>> {
    pairwise(STYLE, a, b, |a, b| {
        let (a, b) = (judge.features(a), judge.features(b));
        let n = a.dims()[0];
        let dot = |x: &Tensor<2>, y: &Tensor<2>| (x.clone() * y.clone()).sum_dim(1);
        (dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).reshape([n])
    })
}

/// Cosines between tokens, `[n, tokens, width]` to `[n, tokens, tokens]`.
fn self_similarity(keys: Tensor<3>) -> Tensor<3> {
    let norms = keys.clone().powi_scalar(2).sum_dim(2).sqrt();
    let products = keys.clone().matmul(keys.swap_dims(1, 2));
    products / norms.clone().matmul(norms.swap_dims(1, 2)).clamp_min(1e-8)
}

fn pairwise(
    name: &str,
    a: &[Picture],
    b: &[Picture],
    compare: impl Fn(&[Picture], &[Picture]) -> Tensor<1>,
) -> Result<Vec<f32>> {
    if a.len() != b.len() {
        return Err(Error::input(format!(
            "{name} compares pairs of pictures, found {} and {}",
            a.len(),
            b.len()
        )));
    }
    let chunks = a.chunks(CHUNK).zip(b.chunks(CHUNK));
    Ok(chunks
        .flat_map(|(a, b)| compare(a, b).into_data().iter::<f32>().collect::<Vec<_>>())
        .collect())
}
