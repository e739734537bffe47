//! Pictures seen from nearer or farther, with prompts that say so (Ablating Concepts' code, for
//! objects): two of three times a picture is made smaller, down to a third, and laid anywhere on an
//! empty one; otherwise it is enlarged 1.2 to 1.4 times, and a part of it is taken. Whether it is
//! mirrored is the toss of a coin.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Pipeline, TorchRng};
use serde::{Deserialize, Serialize};

/// What is done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// Nothing.
    None,
    /// It may be mirrored.
    Flip,
    /// That, and made smaller or larger.
    Resize,
}

/// The share of pictures that are made smaller.
const SMALLER: f32 = 0.66;
/// Below this size a picture's prompt says that it is far away.
const FAR: f64 = 0.6;

/// One picture's change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    mirrored: bool,
    /// Its new side, in shares of its old one.
    scale: f64,
    /// Where the smaller one lies within the larger, in shares of the room there is, down and
    /// right.
    at: [f64; 2],
    /// What the concept's prompt begins with.
    pub(crate) says: &'static str,
}

impl Change {
    /// A random one.
    pub(crate) fn drawn(how: Augment, rng: &mut TorchRng) -> Self {
        let u = rng.uniform(6);
        let share = |i: usize| f64::from(u[i]);
        let mirrored = how != Augment::None && u[0] < 0.5;
        let scale = match how {
            Augment::Resize if u[1] < SMALLER => 1.0 / 3.0 + share(2) * 2.0 / 3.0,
            Augment::Resize => 1.2 + share(2) * 0.2,
            _ => 1.0,
        };
        let one_of = |two: [&'static str; 2]| two[usize::from(u[5] >= 0.5)];
        let says = match scale {
            s if s < FAR => one_of(["a far away ", "very small "]),
            s if s > 1.0 => one_of(["zoomed in ", "close up "]),
            _ => "",
        };
        Self {
            mirrored,
            scale,
            at: [share(3), share(4)],
            says,
        }
    }

    /// The changed picture's latents, and where they are valid: 1 inside the smaller picture, but
    /// for one latent pixel at each of its sides, 0 elsewhere. A picture that keeps its size is
    /// valid everywhere (the published code leaves out its rim too).
    ///
    /// # Shapes
    /// - latents, result: `[1, channels, h, w]`; the mask `[1, 1, h, w]`
    pub(crate) fn apply(&self, pipeline: &Pipeline, latents: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [_, _, lh, lw] = latents.dims();
        let device = latents.device();
        // Latents of a mirrored picture are nearly the mirrored latents.
        let latents = if self.mirrored {
            latents.flip([3])
        } else {
            latents
        };
        if self.scale == 1.0 {
            return (latents, Tensor::ones([1, 1, lh, lw], &device));
        }
        let picture = pipeline.decode(latents).clamp(-1.0, 1.0);
        let [_, _, h, w] = picture.dims();
        let (nh, nw) = (scaled(h, self.scale), scaled(w, self.scale));
        let resized = resized(picture, nh, nw);
        let offset = |room: usize, share: f64| ((room + 1) as f64 * share) as usize;
        if self.scale > 1.0 {
            let (top, left) = (
                offset(nh - h, self.at[0]).min(nh - h),
                offset(nw - w, self.at[1]).min(nw - w),
            );
            let part = resized.narrow(2, top, h).narrow(3, left, w);
            return (
                pipeline.encode_pictures(part),
                Tensor::ones([1, 1, lh, lw], &device),
            );
        }
        let (top, left) = (
            offset(h - nh, self.at[0]).min(h - nh),
            offset(w - nw, self.at[1]).min(w - nw),
        );
        let laid = Tensor::<4>::zeros([1, 3, h, w], &device)
            .slice_assign([0..1, 0..3, top..top + nh, left..left + nw], resized);
        let factor = h / lh;
        let inner = |from: usize, side: usize, most: usize| -> std::ops::Range<usize> {
            let (first, last) = (
                from / factor + 1,
                ((from + side) / factor).saturating_sub(1),
            );
            // Something has to be left of a picture of few latent pixels.
            if first < last {
                first..last
            } else {
                (from / factor).min(most - 1)..(from / factor + 1).min(most)
            }
        };
        let (rows, columns) = (inner(top, nh, lh), inner(left, nw, lw));
        let mask: Vec<f32> = (0..lh * lw)
            .map(|i| {
                f32::from(u8::from(
                    rows.contains(&(i / lw)) && columns.contains(&(i % lw)),
                ))
            })
            .collect();
        (
            pipeline.encode_pictures(laid),
            Tensor::from_data(TensorData::new(mask, [1, 1, lh, lw]), &device),
        )
    }
}

fn scaled(side: usize, scale: f64) -> usize {
    ((side as f64 * scale).round() as usize).max(1)
}

/// A picture `[1, 3, h, w]` at another size, `[1, 3, height, width]`, as Pillow resizes with
/// `LANCZOS`.
fn resized(picture: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let [n, channels, h, w] = picture.dims();
    let device = picture.device();
    let flat = picture.reshape([n * channels, h, w]);
    let rows = lanczos(h, height, &device)
        .reshape([1, height, h])
        .repeat_dim(0, n * channels);
    let columns = lanczos(w, width, &device)
        .transpose()
        .reshape([1, w, width])
        .repeat_dim(0, n * channels);
    rows.matmul(flat)
        .matmul(columns)
        .reshape([n, channels, height, width])
}

/// The weights of `from` places in each of `to`, `[to, from]`: sinc windowed by its own main lobe
/// three times as wide, as wide as the coarser of both grids asks for, each row adding up to 1.
fn lanczos(from: usize, to: usize, device: &burn::tensor::Device) -> Tensor<2> {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let sinc = |x: f64| {
        if x == 0.0 {
            1.0
        } else {
            (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x)
        }
    };
    let kernel = |x: f64| {
        if x.abs() < 3.0 {
            sinc(x) * sinc(x / 3.0)
        } else {
            0.0
        }
    };
    let mut weights = vec![0.0f32; from * to];
    for row in 0..to {
        let centre = (row as f64 + 0.5) * scale;
        let first = (centre - 3.0 * wide + 0.5).max(0.0) as usize;
        let last = ((centre + 3.0 * wide + 0.5) as usize).min(from);
        let own: Vec<f64> = (first..last)
            .map(|i| kernel((i as f64 + 0.5 - centre) / wide))
            .collect();
        let sum: f64 = own.iter().sum();
        for (i, weight) in (first..last).zip(own) {
            weights[row * from + i] = (weight / sum) as f32;
        }
    }
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    // Expected numbers: Pillow 13.0. x = np.sin(np.arange(12) * .7).astype(np.float32).reshape(3,
    // 4) np.array(Image.fromarray(x).resize((5, 2), Image.LANCZOS)).flatten(); ....resize((2, 5),
    // Image.LANCZOS)
    #[test]
    fn pictures_are_resized_as_pillow_does() {
        let values: Vec<f32> = (0..12).map(|i| (f64::from(i) * 0.7).sin() as f32).collect();
        let picture =
            Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape([1, 1, 3, 4]);
        let read = |h: usize, w: usize| {
            resized(picture.clone(), h, w)
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>()
        };
        for (h, w, expected) in [(2, 5, PILLOW_2X5.as_slice()), (5, 2, PILLOW_5X2.as_slice())] {
            for (found, expected) in read(h, w).into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{h}x{w}: {found} {expected}"
                );
            }
        }
    }

    const PILLOW_2X5: [f32; 10] = [
        0.1799086, 0.2456464, 0.2867087, 0.1782393, 0.07409109, -0.2745548, -0.2237652, -0.1069236,
        0.06568362, 0.1798296,
    ];
    const PILLOW_5X2: [f32; 10] = [
        0.4191337,
        1.20936,
        0.2538681,
        0.15156,
        -0.06206677,
        -0.9332682,
        -0.2408707,
        0.04387596,
        -0.2682272,
        1.05975,
    ];

    #[test]
    fn changes_are_as_often_as_published() {
        let mut rng = TorchRng::new(5);
        let all: Vec<Change> = (0..4000)
            .map(|_| Change::drawn(Augment::Resize, &mut rng))
            .collect();
        let share = |of: &dyn Fn(&Change) -> bool| {
            all.iter().filter(|c| of(c)).count() as f64 / all.len() as f64
        };
        assert!((share(&|c| c.scale <= 1.0) - 0.66).abs() < 0.03);
        assert!((share(&|c| c.mirrored) - 0.5).abs() < 0.03);
        assert!(all.iter().all(
            |c| (c.scale >= 1.0 / 3.0 && c.scale <= 1.0) || (c.scale >= 1.2 && c.scale <= 1.4)
        ));
        for change in &all {
            let expected: &[&str] = match change.scale {
                s if s < 0.6 => &["a far away ", "very small "],
                s if s > 1.0 => &["zoomed in ", "close up "],
                _ => &[""],
            };
            assert!(expected.contains(&change.says), "{change:?}");
        }
        assert!((0..50).all(|_| Change::drawn(Augment::Flip, &mut rng).scale == 1.0));
        assert!((0..50).all(|_| !Change::drawn(Augment::None, &mut rng).mirrored));
    }
}
