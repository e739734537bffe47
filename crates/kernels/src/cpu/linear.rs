//! `y = x W^T + b` and its gradients.

use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    area::written,
    gathered::{Gathered, product},
    group_norm::sum_rows,
    layer_norm::sum_pairs,
    numbers::Numbers,
    outer::{Outer, outer},
    panels::{Layout, Plain, Store, Way, laid_out},
    pieces,
};

/// Sizes of one product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) input: usize,
    pub(crate) output: usize,
}

/// - x: `[rows, input]`, weight: `[output, input]`, bias: `[output]`; result: `[rows, output]`
pub(crate) fn forward(
    x: &[f32],
    weight: Numbers<'_>,
    room: Option<&Store>,
    bias: Option<&[f32]>,
    s: Sizes,
) -> Vec<f32> {
    if s.rows <= FEW && room.is_none() {
        return dots(x, weight, bias, s);
    }
    let layout = Layout::new(1, s.input, s.output);
    multiply(
        x,
        Plain::Kernel(weight),
        layout,
        room,
        Way::Forward,
        bias,
        s.rows,
    )
}

/// Rows for which laying out the weight would cost more than the product.
const FEW: usize = 4;

/// Each number of the result as a sum over a row of the weight, which is read once and as it lies.
fn dots(x: &[f32], weight: Numbers<'_>, bias: Option<&[f32]>, s: Sizes) -> Vec<f32> {
    let columns: Vec<[f32; FEW]> = (0..s.output)
        .into_par_iter()
        .with_min_len(32)
        .map_init(Vec::new, |wide, n| {
            let mut column = [bias.map_or(0.0, |bias| bias[n]); FEW];
            let range = n * s.input..(n + 1) * s.input;
            let row = match weight {
                Numbers::F32(weight) => &weight[range],
                halves => {
                    wide.resize(s.input, 0.0);
                    halves.widen(range, wide);
                    wide
                }
            };
            for (sum, x) in column.iter_mut().zip(x.chunks_exact(s.input.max(1))) {
                *sum += dot(x, row);
            }
            column
        })
        .collect();
    (0..s.rows)
        .flat_map(|row| columns.iter().map(move |column| column[row]))
        .collect()
}

#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_pairs(a, b, |a, b| a * b)
}

/// The gradient of `x`: `dy W`.
pub(crate) fn grad_x(dy: &[f32], weight: Numbers<'_>, room: Option<&Store>, s: Sizes) -> Vec<f32> {
    multiply(
        dy,
        Plain::Rows(weight),
        Layout::new(1, s.output, s.input),
        room,
        Way::Backward,
        None,
        s.rows,
    )
}

fn multiply(
    x: &[f32],
    plain: Plain<'_>,
    layout: Layout,
    room: Option<&Store>,
    way: Way,
    bias: Option<&[f32]>,
    rows: usize,
) -> Vec<f32> {
    // Every row comes from itself.
    let sources: Vec<u32> = (0..rows as u32).collect();
    laid_out(plain, layout, room, way, |weights| {
        let p = Gathered {
            x,
            sources: &sources,
            weights,
            bias,
            shared: true,
        };
        written(rows * layout.n, layout.n, |y| product(y, p))
    })
}

/// The gradient of the weight: `dy^T x`.
pub(crate) fn grad_weight(dy: &[f32], x: &[f32], s: Sizes) -> Vec<f32> {
    let sources: Vec<u32> = (0..s.rows as u32).collect();
    outer(Outer {
        x,
        dy,
        sources: &sources,
        taps: 1,
        k: s.input,
        n: s.output,
    })
}

/// The gradient of the bias: `dy` summed over rows.
pub(crate) fn grad_bias(dy: &[f32], output: usize) -> Vec<f32> {
    // Blocks of rows are summed in f32 and then added up in order: the same whatever the number of
    // threads.
    let blocks: Vec<Vec<f32>> = dy
        .par_chunks((ROWS * output).max(1))
        .with_min_len(pieces(ROWS * output))
        .map(|dy| {
            let mut sums = vec![0.0; output];
            sum_rows(&mut sums, dy);
            sums
        })
        .collect();
    let mut sums = vec![0.0f64; output];
    for block in &blocks {
        sums.iter_mut()
            .zip(block)
            .for_each(|(sum, part)| *sum += f64::from(*part));
    }
    sums.into_iter().map(|s| s as f32).collect()
}

/// Rows in one block of a bias's gradient.
const ROWS: usize = 64;
