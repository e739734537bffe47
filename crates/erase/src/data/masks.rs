//! Where pictures show a concept: masks from the network's own cross-attention, and masks brought
//! to the size of a layer.

use burn::tensor::{Int, Tensor, TensorData};
use scumble_diffusion::{Conditioning, Noise, Pipeline};
use scumble_nn::{Context, Watch};

use crate::{error::Result, seeds::stream};

/// The shares of the schedule at which the attention is looked at: late enough that the picture is
/// there, early enough that the prompt still matters.
const LOOKS: [f64; 3] = [0.3, 0.5, 0.7];
/// Fewer places than these say little: of small latents a finer layer is taken.
const FEWEST: usize = 64;
/// Pictures that go through the network at once.
const AT_ONCE: usize = 8;

/// Where the frozen network looks at marked words of a picture's prompt, 1 or 0, `[n, 1, h, w]`.
///
/// The mean over the layers of a quarter of the latents' side (16 x 16 in SD 1.x, as Receler and
/// Prompt-to-Prompt take), over heads, marked tokens and three noise levels; brought to 0 to 1 for
/// each picture; 1 from `threshold` on.
///
/// # Shapes
/// - latents: `[n, channels, h, w]`
/// - hidden: `[n, tokens, width]`, the prompts of the pictures
/// - marks: `[n, tokens]`, 1 at the words
///
/// # Errors
/// If the schedule has no such timesteps.
pub(crate) fn attended(
    frozen: &Pipeline,
    latents: &Tensor<4>,
    asks: &Conditioning,
    marks: &Tensor<2>,
    threshold: f64,
    seed: u64,
) -> Result<Tensor<4>> {
    let [n, _, h, w] = latents.dims();
    let mut parts = Vec::new();
    for from in (0..n).step_by(AT_ONCE) {
        let count = AT_ONCE.min(n - from);
        let (x0, context) = (
            latents.clone().narrow(0, from, count),
            Context::from(asks.narrow(from, count)),
        );
        let marks = marks.clone().narrow(0, from, count);
        let mut sum: Option<Tensor<2>> = None;
        for (i, share) in LOOKS.into_iter().enumerate() {
            let t = frozen
                .schedule
                .timestep((frozen.schedule.num_train_timesteps() as f64 * share) as usize)?;
            let seeds: Vec<u64> = (0..count)
                .map(|k| stream(seed, "masks/noise").within(i).at(from + k))
                .collect();
            let noise = Noise::seeds(&seeds).draw(x0.dims(), frozen.device());
            let x = frozen
                .schedule
                .add_noise(x0.clone(), noise, &vec![t; count])?;
            let mut watch = Watch::maps();
            frozen.predict(x, &vec![t; count], &context, Some(&mut watch))?;
            let found = mean_map(watch.maps, &marks, h * w);
            sum = Some(sum.map_or(found.clone(), |sum| sum + found));
        }
        parts.extend(sum);
    }
    let map = Tensor::cat(parts, 0);
    let [lh, lw] = sides([h, w], map.dims()[1]);
    let least = map.clone().min_dim(1);
    let range = (map.clone().max_dim(1) - least.clone()).clamp_min(f32::MIN_POSITIVE);
    let mask = ((map - least) / range)
        .greater_equal_elem(threshold)
        .float();
    Ok(mask.reshape([n, 1, lh, lw]))
}

/// The mean attention on marked tokens, `[n, places]`, over heads and the layers whose number of
/// places is nearest to a sixteenth of the latents'.
fn mean_map(maps: Vec<Tensor<4>>, marks: &Tensor<2>, places: usize) -> Tensor<2> {
    let wanted = (places / 16).max(FEWEST.min(places));
    let size = maps
        .iter()
        .map(|map| map.dims()[2])
        .min_by_key(|&size| size.abs_diff(wanted))
        .unwrap_or(places);
    let [n, tokens] = marks.dims();
    let marks = marks.clone().reshape([n, tokens, 1]);
    let chosen = maps.into_iter().filter(|map| map.dims()[2] == size);
    // [n, heads, places, tokens] to [n, places, tokens] to [n, places]
    let one = |map: Tensor<4>| {
        map.mean_dim(1)
            .reshape([n, size, tokens])
            .matmul(marks.clone())
            .reshape([n, size])
    };
    chosen
        .map(one)
        .reduce(|a, b| a + b)
        .unwrap_or_else(|| Tensor::ones([n, size], &marks.device()))
}

/// Height and width of a layer of so many places under latents `[h, w]`: both sides are halved,
/// rounding up, from layer to layer.
pub(crate) fn sides([mut h, mut w]: [usize; 2], places: usize) -> [usize; 2] {
    while h * w > places && (h > 1 || w > 1) {
        (h, w) = (h.div_ceil(2), w.div_ceil(2));
    }
    [h, w]
}

/// A mask `[n, 1, h, w]` with other sides, nearest neighbours as `interpolate(mode="nearest")`
/// takes them: row `floor(i h / to)`.
pub(crate) fn resized(mask: &Tensor<4>, [to_h, to_w]: [usize; 2]) -> Tensor<4> {
    let [_, _, h, w] = mask.dims();
    let index = |from: usize, to: usize| {
        let rows: Vec<i64> = (0..to).map(|i| (i * from / to) as i64).collect();
        Tensor::<1, Int>::from_data(TensorData::new(rows, [to]), &mask.device())
    };
    mask.clone()
        .select(2, index(h, to_h))
        .select(3, index(w, to_w))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    /// `torch.nn.functional.interpolate(torch.arange(12.).view(1, 1, 3, 4), size=(2, 3),
    /// mode="nearest")`
    #[test]
    fn masks_are_resized_as_torch_does() {
        let mask = tensor(&(0..12).map(|i| i as f32).collect::<Vec<_>>(), [1, 1, 3, 4]);
        assert_eq!(host(resized(&mask, [2, 3])), [0.0, 1.0, 2.0, 4.0, 5.0, 6.0]);
        assert_eq!(host(resized(&mask, [3, 4])), host(mask));
    }

    #[test]
    fn layers_have_the_sides_of_the_network() {
        assert_eq!(sides([64, 64], 256), [16, 16]);
        assert_eq!(sides([64, 96], 384), [16, 24]);
        assert_eq!(sides([9, 5], 9 * 5), [9, 5]);
        assert_eq!(sides([9, 5], 15), [5, 3]);
        assert_eq!(sides([8, 8], 16), [4, 4]);
    }

    #[test]
    fn attention_counts_marked_tokens_of_the_right_layers() {
        // Latents of 16 x 16: the layers of 8 x 8 count, not those of 4 x 4.
        let even = |places: usize, value: f32| {
            // Two heads, three tokens; the second token has it all at the first place.
            let mut map = vec![0.0; 2 * places * 3];
            (map[1], map[places * 3 + 1]) = (value, value);
            tensor(&map, [1, 2, places, 3])
        };
        let marks = tensor(&[0.0, 1.0, 0.0], [1, 3]);
        let found = host(mean_map(
            vec![even(64, 0.5), even(16, 9.0), even(64, 0.25)],
            &marks,
            256,
        ));
        assert_eq!((found.len(), found[0], found[1]), (64, 0.75, 0.0));
        let others = tensor(&[1.0, 0.0, 1.0], [1, 3]);
        assert_eq!(
            host(mean_map(vec![even(64, 0.5)], &others, 256))
                .iter()
                .sum::<f32>(),
            0.0
        );
    }
}
