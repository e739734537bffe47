//! Resizing as the libraries do it whose numbers are to be met, one function for each.
//!
//! The same words stand for different things there: torch's bilinear looks at two neighbours
//! however much a picture shrinks, PIL's looks at all that a new pixel covers, and OpenCV's rounds
//! weights to 11 bits. On a metric these differences are large (Parmar et al. 2022, arXiv
//! 2104.1123).

use scumble_diffusion::Picture;

/// For each new place along a side, the first old one it looks at and the weights of those from
/// there on. Each of the resizings here is two of them, one for each side.
pub(crate) type Windows = Vec<(usize, Vec<f64>)>;

/// A picture's channels in floating point: `[3, height, width]`, row-major.
pub(crate) type Planes = Vec<f32>;

/// The bytes of a picture by channels, `[3, height, width]`; a picture with fewer bytes than its
/// sides promise is black.
pub(crate) fn planes(picture: &Picture) -> Planes {
    let count = picture.width * picture.height;
    if picture.rgb.len() != 3 * count {
        return vec![0.0; 3 * count];
    }
    (0..3)
        .flat_map(|c| picture.rgb.iter().skip(c).step_by(3).map(|&v| f32::from(v)))
        .collect()
}

/// `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, without antialiasing.
pub(crate) fn torch_bilinear(picture: &Picture, width: usize, height: usize) -> Planes {
    let (columns, rows) = (
        neighbours(picture.width, width),
        neighbours(picture.height, height),
    );
    let input = planes(picture);
    let mut out = Vec::with_capacity(3 * width * height);
    if picture.width == 0 || picture.height == 0 {
        return vec![0.0; 3 * width * height];
    }
    for plane in input.chunks_exact(picture.width * picture.height) {
        for &(y0, y1, down) in &rows {
            let (above, below) = (
                &plane[y0 * picture.width..][..picture.width],
                &plane[y1 * picture.width..][..picture.width],
            );
            let row = |line: &[f32], (x0, x1, right): (usize, usize, f32)| {
                (1.0 - right) * line[x0] + right * line[x1]
            };
            out.extend(
                columns
                    .iter()
                    .map(|&at| (1.0 - down) * row(above, at) + down * row(below, at)),
            );
        }
    }
    out
}

/// For each new place, the two old ones it lies between and how far it is on the way.
fn neighbours(old: usize, new: usize) -> Vec<(usize, usize, f32)> {
    let scale = old as f32 / new as f32;
    let one = |at: usize| {
        let place = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
        let first = (place as usize).min(old.saturating_sub(1));
        (
            first,
            (first + 1).min(old.saturating_sub(1)),
            place - first as f32,
        )
    };
    (0..new).map(one).collect()
}

/// PIL's filters, antialiased: a new pixel looks at all that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// The triangle, `BILINEAR`.
    Bilinear,
    /// Keys' cubic kernel (1981) with a = -0.5, `BICUBIC`.
    Bicubic,
}

impl Filter {
    /// How far the kernel reaches.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }

    /// For each new place, the first old one it covers and the weights of those from there on.
    pub(crate) fn windows(self, old: usize, new: usize) -> Windows {
        let scale = old as f64 / new as f64;
        let stretch = scale.max(1.0);
        let support = self.support() * stretch;
        let one = |at: usize| {
            let centre = (at as f64 + 0.5) * scale;
            // As C's conversion to int does, towards zero.
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(old);
            let mut weights: Vec<f64> = (first..end)
                .map(|i| self.at((i as f64 - centre + 0.5) / stretch))
                .collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            (first, weights)
        };
        (0..new).map(one).collect()
    }
}

/// PIL's bicubic on 32-bit floats, `Image.fromarray(channel, "F").resize(size, BICUBIC)`: rows
/// first.
pub(crate) fn pil_bicubic(picture: &Picture, width: usize, height: usize) -> Planes {
    let (w, h) = (picture.width, picture.height);
    if w == 0 || h == 0 {
        return vec![0.0; 3 * width * height];
    }
    let (columns, rows) = (
        Filter::Bicubic.windows(w, width),
        Filter::Bicubic.windows(h, height),
    );
    let mut out = Vec::with_capacity(3 * width * height);
    for plane in planes(picture).chunks_exact(w * h) {
        let mut wide = Vec::with_capacity(width * h);
        for line in plane.chunks_exact(w) {
            wide.extend(
                columns
                    .iter()
                    .map(|(first, weights)| weighted(weights, line[*first..].iter())),
            );
        }
        for (first, weights) in &rows {
            out.extend(
                (0..width)
                    .map(|x| weighted(weights, wide[first * width + x..].iter().step_by(width))),
            );
        }
    }
    out
}

fn weighted<'a>(weights: &[f64], values: impl Iterator<Item = &'a f32>) -> f32 {
    weights
        .iter()
        .zip(values)
        .map(|(weight, &v)| weight * f64::from(v))
        .sum::<f64>() as f32
}

/// PIL's resizing of pictures of eight bits, to the bit: weights of 22 bits, rounded to bytes after
/// each of the two passes.
///
/// Rows come first, as in every Pillow before 13. Pillow 13 takes columns first where a picture
/// loses more of its height than of its width, so that single bytes differ by a few there;
/// published numbers are from before.
pub(crate) fn pil(picture: &Picture, width: usize, height: usize, filter: Filter) -> Picture {
    let (w, h) = (picture.width, picture.height);
    if (w, h) == (width, height) {
        return picture.clone();
    }
    if w == 0 || h == 0 || picture.rgb.len() != 3 * w * h {
        return Picture {
            width,
            height,
            rgb: vec![0; 3 * width * height],
        };
    }
    let fixed = |old: usize, new: usize| -> Vec<(usize, Vec<i64>)> {
        let round = |weight: f64| (weight * f64::from(1 << 22) + 0.5f64.copysign(weight)) as i64;
        filter
            .windows(old, new)
            .into_iter()
            .map(|(first, weights)| (first, weights.into_iter().map(round).collect()))
            .collect()
    };
    let byte = |weights: &[i64], values: &mut dyn Iterator<Item = &u8>| {
        let sum: i64 = weights
            .iter()
            .zip(values)
            .map(|(weight, &v)| weight * i64::from(v))
            .sum();
        ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
    };
    let mut rgb = picture.rgb.clone();
    if w != width {
        let columns = fixed(w, width);
        let mut wide = Vec::with_capacity(3 * width * h);
        for line in rgb.chunks_exact(3 * w) {
            for (first, weights) in &columns {
                wide.extend(
                    (0..3).map(|c| byte(weights, &mut line[3 * first + c..].iter().step_by(3))),
                );
            }
        }
        rgb = wide;
    }
    if h != height {
        let mut high = Vec::with_capacity(3 * width * height);
        for (first, weights) in fixed(h, height) {
            high.extend((0..3 * width).map(|x| {
                byte(
                    &weights,
                    &mut rgb[3 * width * first + x..].iter().step_by(3 * width),
                )
            }));
        }
        rgb = high;
    }
    Picture { width, height, rgb }
}

/// OpenCV's `cv2.resize(.., INTER_LINEAR)` of pictures of eight bits, to the bit: two neighbours,
/// weights of 11 bits.
pub(crate) fn opencv_linear(picture: &Picture, width: usize, height: usize) -> Picture {
    let (w, h) = (picture.width, picture.height);
    if (w, h) == (width, height) {
        return picture.clone();
    }
    if w == 0 || h == 0 || picture.rgb.len() != 3 * w * h {
        return Picture {
            width,
            height,
            rgb: vec![0; 3 * width * height],
        };
    }
    let line = |y: usize| &picture.rgb[3 * w * y..][..3 * w];
    // At the left and right border it takes the border's pixel whole, at the upper and lower one
    // twice with two weights: the sums are equal, their rounding is not.
    let columns: Vec<_> = places(w, width)
        .map(|(at, right)| match at {
            ..0 => (0, 0, 2048, 0),
            at if at as usize + 1 >= w => (w - 1, w - 1, 2048, 0),
            at => (
                at as usize,
                at as usize + 1,
                fixed_11(1.0 - right),
                fixed_11(right),
            ),
        })
        .collect();
    let across = |y: usize| -> Vec<i32> {
        let line = line(y);
        let one = |&(a, b, left, right): &(usize, usize, i32, i32)| {
            (0..3).map(move |c| {
                left * i32::from(line[3 * a + c]) + right * i32::from(line[3 * b + c])
            })
        };
        columns.iter().flat_map(one).collect()
    };
    let inside = |y: isize| y.clamp(0, h as isize - 1) as usize;
    let mut rgb = Vec::with_capacity(3 * width * height);
    let mut known: [Option<(usize, Vec<i32>)>; 2] = [None, None];
    for (at, down) in places(h, height) {
        for (slot, y) in [(0, inside(at)), (1, inside(at + 1))] {
            if known[slot].as_ref().is_none_or(|(there, _)| *there != y) {
                known[slot] = Some((y, across(y)));
            }
        }
        let (upper, lower) = (fixed_11(1.0 - down), fixed_11(down));
        if let [Some((_, above)), Some((_, below))] = &known {
            let byte = |(a, b): (&i32, &i32)| {
                (((upper * (a >> 4)) >> 16) + ((lower * (b >> 4)) >> 16) + 2) >> 2
            };
            rgb.extend(
                above
                    .iter()
                    .zip(below)
                    .map(|pair| byte(pair).clamp(0, 255) as u8),
            );
        }
    }
    Picture { width, height, rgb }
}

/// The weights of [`opencv_linear`].
pub(crate) fn opencv_windows(old: usize, new: usize) -> Windows {
    let share = |weight: f32| f64::from(fixed_11(weight)) / 2048.0;
    let one = |(at, way): (isize, f32)| match at {
        ..0 => (0, vec![1.0]),
        at if at as usize + 1 >= old => (old.saturating_sub(1), vec![1.0]),
        at => (at as usize, vec![share(1.0 - way), share(way)]),
    };
    places(old, new).map(one).collect()
}

/// The old place before each new one, and how far it is on the way to the next.
fn places(old: usize, new: usize) -> impl Iterator<Item = (isize, f32)> {
    let scale = old as f64 / new as f64;
    (0..new).map(move |at| {
        let place = ((at as f64 + 0.5) * scale - 0.5) as f32;
        (place.floor() as isize, place - place.floor())
    })
}

/// Rounded to even, as `cvRound` does.
fn fixed_11(weight: f32) -> i32 {
    (weight * 2048.0).round_ties_even() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        let byte = |i: usize| (i * 37 % 256) as u8;
        Picture {
            width,
            height,
            rgb: (0..3 * width * height).map(byte).collect(),
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let p = picture(7, 5);
        assert_eq!(torch_bilinear(&p, 7, 5), planes(&p));
        assert!(
            pil_bicubic(&p, 7, 5)
                .iter()
                .zip(planes(&p))
                .all(|(a, b)| (a - b).abs() < 1e-4)
        );
    }

    /// FNV-1a over the bytes: one changed pixel changes it.
    fn hash(picture: &Picture) -> u32 {
        picture.rgb.iter().fold(0x811c_9dc5, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    }

    // def fnv(b): h = 0x811c9dc5; for x in b.tobytes(): h = ((h ^ x) * 0x01000193) & 0xffffffff;
    // return h p = (np.arange(3*w*h) * 37 % 256).astype(np.uint8).reshape(h, w, 3)
    // fnv(np.asarray(Image.fromarray(p).resize((W, H), filter))), fnv(cv2.resize(p, (W, H),
    // interpolation=cv2.INTER_LINEAR))
    #[test]
    fn bytes_are_pils_and_opencvs() {
        for (w, h, width, height, bilinear, bicubic, opencv) in BYTES {
            let p = picture(w, h);
            assert_eq!(
                hash(&pil(&p, width, height, Filter::Bilinear)),
                bilinear,
                "{w} x {h}"
            );
            assert_eq!(
                hash(&pil(&p, width, height, Filter::Bicubic)),
                bicubic,
                "{w} x {h}"
            );
            assert_eq!(hash(&opencv_linear(&p, width, height)), opencv, "{w} x {h}");
        }
    }
    const BYTES: [(usize, usize, usize, usize, u32, u32, u32); 5] = [
        (9, 4, 31, 22, 0x8cf92edb, 0x1a4e9d71, 0x660acc0c),
        (50, 41, 20, 12, 0x6bb0ef47, 0x36c2845, 0x3a78c1ae),
        (64, 64, 32, 32, 0x69e621b5, 0x5b13e0db, 0x88538dc5),
        (41, 47, 12, 17, 0xf4df6216, 0xb9abb451, 0x71ef6f45),
        (33, 7, 33, 50, 0x42a93909, 0xff3691c, 0xfaa73283),
    ];

    #[test]
    fn any_size_fits() {
        for (w, h) in [(1, 1), (3, 200), (0, 0), (0, 4), (5, 0)] {
            let p = picture(w, h);
            for resized in [torch_bilinear(&p, 11, 6), pil_bicubic(&p, 11, 6)] {
                assert!(
                    resized.len() == 3 * 66 && resized.iter().all(|v| v.is_finite()),
                    "{w} x {h}"
                );
            }
            for resized in [pil(&p, 11, 6, Filter::Bilinear), opencv_linear(&p, 11, 6)] {
                assert_eq!(
                    (resized.width, resized.height, resized.rgb.len()),
                    (11, 6, 198),
                    "{w} x {h}"
                );
            }
        }
        let torn = Picture {
            width: 4,
            height: 4,
            rgb: vec![9; 5],
        };
        assert_eq!(torch_bilinear(&torn, 2, 2), vec![0.0; 12]);
    }

    // p = (np.arange(3*9*4) * 37 % 256).astype(np.uint8).reshape(4, 9, 3)
    // torch.nn.functional.interpolate(torch.from_numpy(p.astype(np.float32)).permute(2,0,1)[None],
    // size=(2, 4), mode="bilinear")[0, 1] np.asarray(Image.fromarray(p[:, :, 1].astype(np.float32),
    // mode="F").resize((4, 2), Image.BICUBIC))
    #[test]
    fn shrinking_is_torchs_and_pils() {
        let p = picture(9, 4);
        let middle = |planes: Planes| planes[8..16].to_vec();
        let near = |found: Vec<f32>, expected: [f32; 8]| {
            assert!(
                found
                    .iter()
                    .zip(expected)
                    .all(|(a, b)| (a - b).abs() < 2e-4),
                "{found:?}"
            );
        };
        near(middle(torch_bilinear(&p, 4, 2)), TORCH);
        near(middle(pil_bicubic(&p, 4, 2)), PIL);
    }
    const TORCH: [f32; 8] = [
        93.875, 103.625, 81.375, 75.125, 139.875, 69.625, 31.375, 185.125,
    ];
    const PIL: [f32; 8] = [
        94.27124, 136.4247, 130.8494, 107.6993, 158.8859, 122.5079, 93.53262, 157.5834,
    ];
}
