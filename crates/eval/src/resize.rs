//! Resizing as the libraries do it whose numbers are to be met, one function for each.
//!
//! The same words stand for different things there: torch's bilinear looks at two neighbours however much a picture shrinks, PIL's looks at
//! all that a new pixel covers, and OpenCV's rounds weights to 11 bits. On a metric these differences are large (Parmar et al. 2022,
//! arXiv 2104.11222).

use scumble_diffusion::Picture;

/// A picture's channels in floating point: `[3, height, width]`, row-major.
pub(crate) type Planes = Vec<f32>;

/// The bytes of a picture by channels, `[3, height, width]`; a picture with fewer bytes than its sides promise is black.
pub(crate) fn planes(picture: &Picture) -> Planes {
    let count = picture.width * picture.height;
    if picture.rgb.len() != 3 * count {
        return vec![0.0; 3 * count];
    }
    (0..3).flat_map(|c| picture.rgb.iter().skip(c).step_by(3).map(|&v| f32::from(v))).collect()
}

/// `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, without antialiasing.
pub(crate) fn torch_bilinear(picture: &Picture, width: usize, height: usize) -> Planes {
    let (columns, rows) = (neighbours(picture.width, width), neighbours(picture.height, height));
    let input = planes(picture);
    let mut out = Vec::with_capacity(3 * width * height);
    if picture.width == 0 || picture.height == 0 {
        return vec![0.0; 3 * width * height];
    }
    for plane in input.chunks_exact(picture.width * picture.height) {
        for &(y0, y1, down) in &rows {
            let (above, below) = (&plane[y0 * picture.width..][..picture.width], &plane[y1 * picture.width..][..picture.width]);
            let row = |line: &[f32], (x0, x1, right): (usize, usize, f32)| (1.0 - right) * line[x0] + right * line[x1];
            out.extend(columns.iter().map(|&at| (1.0 - down) * row(above, at) + down * row(below, at)));
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
        (first, (first + 1).min(old.saturating_sub(1)), place - first as f32)
    };
    (0..new).map(one).collect()
}

/// PIL's bicubic (a = -0.5) on 32-bit floats, `Image.fromarray(channel, "F").resize(size, BICUBIC)`: antialiased, rows first.
pub(crate) fn pil_bicubic(picture: &Picture, width: usize, height: usize) -> Planes {
    let (w, h) = (picture.width, picture.height);
    if w == 0 || h == 0 {
        return vec![0.0; 3 * width * height];
    }
    let (columns, rows) = (windows(w, width), windows(h, height));
    let mut out = Vec::with_capacity(3 * width * height);
    for plane in planes(picture).chunks_exact(w * h) {
        let mut wide = Vec::with_capacity(width * h);
        for line in plane.chunks_exact(w) {
            wide.extend(columns.iter().map(|(first, weights)| weighted(weights, line[*first..].iter())));
        }
        for (first, weights) in &rows {
            out.extend((0..width).map(|x| weighted(weights, wide[first * width + x..].iter().step_by(width))));
        }
    }
    out
}

fn weighted<'a>(weights: &[f64], values: impl Iterator<Item = &'a f32>) -> f32 {
    weights.iter().zip(values).map(|(weight, &v)| weight * f64::from(v)).sum::<f64>() as f32
}

/// For each new place, the first old one it covers and the weights of those from there on.
fn windows(old: usize, new: usize) -> Vec<(usize, Vec<f64>)> {
    let scale = old as f64 / new as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let one = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        // As C's conversion to int does, towards zero.
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(old);
        let mut weights: Vec<f64> = (first..end).map(|i| cubic((i as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        (first, weights)
    };
    (0..new).map(one).collect()
}

/// Keys' cubic kernel (1981) with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        let byte = |i: usize| (i * 37 % 256) as u8;
        Picture { width, height, rgb: (0..3 * width * height).map(byte).collect() }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let p = picture(7, 5);
        assert_eq!(torch_bilinear(&p, 7, 5), planes(&p));
        assert!(pil_bicubic(&p, 7, 5).iter().zip(planes(&p)).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn any_size_fits() {
        for (w, h) in [(1, 1), (3, 200), (0, 0), (0, 4), (5, 0)] {
            let p = picture(w, h);
            for resized in [torch_bilinear(&p, 11, 6), pil_bicubic(&p, 11, 6)] {
                assert!(resized.len() == 3 * 66 && resized.iter().all(|v| v.is_finite()), "{w} x {h}");
            }
        }
        let torn = Picture { width: 4, height: 4, rgb: vec![9; 5] };
        assert_eq!(torch_bilinear(&torn, 2, 2), vec![0.0; 12]);
    }

    // p = (np.arange(3*9*4) * 37 % 256).astype(np.uint8).reshape(4, 9, 3)
    // torch.nn.functional.interpolate(torch.from_numpy(p.astype(np.float32)).permute(2,0,1)[None], size=(2, 4), mode="bilinear")[0, 1]
    // np.asarray(Image.fromarray(p[:, :, 1].astype(np.float32), mode="F").resize((4, 2), Image.BICUBIC))
    #[test]
    fn shrinking_is_torchs_and_pils() {
        let p = picture(9, 4);
        let middle = |planes: Planes| planes[8..16].to_vec();
        let near = |found: Vec<f32>, expected: [f32; 8]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-4), "{found:?}");
        };
        near(middle(torch_bilinear(&p, 4, 2)), TORCH);
        near(middle(pil_bicubic(&p, 4, 2)), PIL);
    }
    const TORCH: [f32; 8] = [93.875, 103.625, 81.375, 75.125, 139.875, 69.625, 31.375, 185.125];
    const PIL: [f32; 8] = [94.27124, 136.4247, 130.8494, 107.6993, 158.8859, 122.5079, 93.53262, 157.5834];
}
