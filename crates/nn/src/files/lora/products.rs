//! The arithmetic of adapters: what their factors multiply to.
//!
//! Everything is row-major. A weight is `[out, in]` for a linear layer and `[out, in, kh, kw]` for
//! a convolution; `kernel` is `kh * kw`, or 1. Shapes are checked before anything is allocated:
//! nothing becomes larger than the weight itself.

use crate::files::tensor::HostTensor;

/// A matrix of `rows` rows, and its numbers.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

impl Matrix {
    /// A tensor as a matrix: its first dimension are the rows, all others together the columns.
    pub(super) fn of(tensor: &HostTensor) -> Result<Self, String> {
        let values = tensor
            .to_f32()
            .ok_or_else(|| format!("expected floats, found {tensor:?}"))?;
        match tensor.shape().split_first() {
            Some((&rows, rest)) if rows > 0 && !rest.is_empty() && !values.is_empty() => Ok(Self {
                rows,
                columns: values.len() / rows,
                values,
            }),
            _ => Err(format!("expected a matrix, found {tensor:?}")),
        }
    }

    /// `self other`, the columns of `self` being the rows of `other`.
    pub(super) fn times(&self, other: &Self) -> Result<Self, String> {
        if self.columns != other.rows {
            let (a, b) = ([self.rows, self.columns], [other.rows, other.columns]);
            return Err(format!("factors {a:?} and {b:?} do not multiply"));
        }
        let mut values = vec![0f32; self.rows * other.columns];
        for (row, out) in self
            .values
            .chunks_exact(self.columns)
            .zip(values.chunks_exact_mut(other.columns))
        {
            for (&c, line) in row.iter().zip(other.values.chunks_exact(other.columns)) {
                out.iter_mut().zip(line).for_each(|(o, v)| *o += c * v);
            }
        }
        Ok(Self {
            rows: self.rows,
            columns: other.columns,
            values,
        })
    }

    /// Rows and columns exchanged.
    pub(super) fn transposed(&self) -> Self {
        let values = (0..self.columns)
            .flat_map(|j| (0..self.rows).map(move |i| self.values[i * self.columns + j]))
            .collect();
        Self {
            rows: self.columns,
            columns: self.rows,
            values,
        }
    }
}

/// Refuses a product larger than the weight before it is made.
fn at_most(rows: usize, columns: usize, numbers: usize) -> Result<(), String> {
    match rows.checked_mul(columns) {
        Some(n) if n <= numbers => Ok(()),
        _ => Err(format!(
            "the factors make {rows} x {columns} numbers, the weight has {numbers}"
        )),
    }
}

/// Tucker's form of a kernel: `W[p, r, k] = sum over i, j of up[p, i] core[i, j, k] down[j, r]`.
///
/// **Shapes**: `core` `[i, j, kh, kw]`, `down` `[j, in]`; the result `[i, in * kernel]`, still to
/// be multiplied by `up` `[out, i]`.
pub(super) fn through_core(
    core: &HostTensor,
    down: &Matrix,
    numbers: usize,
) -> Result<Matrix, String> {
    let (&[i, j, ref kernel @ ..], Some(values)) = (core.shape(), core.to_f32()) else {
        return Err(format!(
            "expected a core of at least two dimensions, found {core:?}"
        ));
    };
    let kernel: usize = kernel.iter().product();
    if j != down.rows || i * j * kernel == 0 {
        return Err(format!(
            "the core {:?} does not fit factors of {} rows",
            core.shape(),
            down.rows
        ));
    }
    at_most(i, down.columns * kernel, numbers)?;
    let mut product = vec![0f32; i * down.columns * kernel];
    for (slab, out) in values
        .chunks_exact(j * kernel)
        .zip(product.chunks_exact_mut(down.columns * kernel))
    {
        for (taps, line) in slab
            .chunks_exact(kernel)
            .zip(down.values.chunks_exact(down.columns))
        {
            for (&d, out) in line.iter().zip(out.chunks_exact_mut(kernel)) {
                out.iter_mut().zip(taps).for_each(|(o, c)| *o += c * d);
            }
        }
    }
    Ok(Matrix {
        rows: i,
        columns: down.columns * kernel,
        values: product,
    })
}

/// One half of a LoHa: `a b`, or Tucker's form, where both factors have the rank first.
///
/// **Shapes**: plain `a` `[out, rank]`, `b` `[rank, in * kernel]`; with a core `[rank, rank, kh,
/// kw]`, `a` `[rank, out]`, `b` `[rank, in]`.
pub(super) fn half(
    a: &HostTensor,
    b: &HostTensor,
    core: Option<&HostTensor>,
    numbers: usize,
) -> Result<Matrix, String> {
    let (a, b) = (Matrix::of(a)?, Matrix::of(b)?);
    match core {
        None => {
            at_most(a.rows, b.columns, numbers)?;
            a.times(&b)
        }
        Some(core) => {
            let inner = through_core(core, &b, numbers)?;
            at_most(a.columns, inner.columns, numbers)?;
            a.transposed().times(&inner)
        }
    }
}

/// Hadamard's product of two halves of one shape: LoHa, `(a1 b1) * (a2 b2)` element by element.
pub(super) fn hadamard(first: Matrix, second: &Matrix) -> Result<Matrix, String> {
    if (first.rows, first.columns) != (second.rows, second.columns) {
        let (a, b) = ([first.rows, first.columns], [second.rows, second.columns]);
        return Err(format!(
            "the halves are {a:?} and {b:?}, expected one shape"
        ));
    }
    let values = first
        .values
        .iter()
        .zip(&second.values)
        .map(|(a, b)| a * b)
        .collect();
    Ok(Matrix { values, ..first })
}

/// Kronecker's product: LoKr, `W[a p + c, b q + d] = w1[a, b] w2[c, d]` for `w2` of p rows and q
/// columns (kernels included).
pub(super) fn kronecker(w1: &Matrix, w2: &Matrix, numbers: usize) -> Result<Matrix, String> {
    let too_large = || format!("the factors make more than the weight's {numbers} numbers");
    let rows = w1.rows.checked_mul(w2.rows).ok_or_else(too_large)?;
    let columns = w1.columns.checked_mul(w2.columns).ok_or_else(too_large)?;
    at_most(rows, columns, numbers)?;
    let mut values = Vec::with_capacity(rows * columns);
    for left in w1.values.chunks_exact(w1.columns) {
        for right in w2.values.chunks_exact(w2.columns) {
            left.iter()
                .for_each(|a| values.extend(right.iter().map(|b| a * b)));
        }
    }
    Ok(Matrix {
        rows,
        columns,
        values,
    })
}

/// Along which dimension DoRA keeps magnitudes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// One for each output: PEFT, and LyCORIS with `wd_on_out`.
    Out,
    /// One for each input channel: LyCORIS' other form.
    In,
}

/// The axis of a `dora_scale`: `[out, 1, ...]` or `[1, in, 1, ...]`.
pub(super) fn axis(scale: &HostTensor, weight: &[usize]) -> Result<Axis, String> {
    let (shape, ones) = (scale.shape(), |s: &[usize]| s.iter().all(|&d| d == 1));
    match (shape, weight) {
        ([out, rest @ ..], [o, ..]) if out == o && ones(rest) => Ok(Axis::Out),
        ([1, channels, rest @ ..], [_, i, ..]) if channels == i && ones(rest) => Ok(Axis::In),
        _ => Err(format!(
            "its magnitudes are {shape:?}, the weight is {weight:?}"
        )),
    }
}

/// DoRA (equation 5 of the paper): `m V / |V|` with `V = W + delta`, norms over everything but the
/// axis; returned as a difference to `W`.
///
/// **Shapes**: `base` and `delta` `[out, in, ...]`; `magnitude` one number for each place on the
/// axis.
pub(super) fn decomposed(
    base: &[f32],
    delta: &[f32],
    weight: &[usize],
    magnitude: &[f32],
    axis: Axis,
) -> Result<Vec<f32>, String> {
    let (out, inputs) = (weight[0], weight.get(1).copied().unwrap_or(1));
    let kernel: usize = weight.iter().skip(2).product();
    let place = |at: usize| {
        if axis == Axis::Out {
            at / (inputs * kernel)
        } else {
            at / kernel % inputs
        }
    };
    let places = if axis == Axis::Out { out } else { inputs };
    if magnitude.len() != places {
        return Err(format!("{} magnitudes, expected {places}", magnitude.len()));
    }
    let mut squares = vec![0f64; places];
    for (at, (w, d)) in base.iter().zip(delta).enumerate() {
        squares[place(at)] += f64::from(w + d).powi(2);
    }
    // A column of zeros has no direction, and stays what it is.
    let factor = |(m, s): (&f32, &f64)| {
        if *s > 0.0 {
            f64::from(*m) / s.sqrt()
        } else {
            0.0
        }
    };
    let factors: Vec<f64> = magnitude.iter().zip(&squares).map(factor).collect();
    let new = |(at, (w, d)): (usize, (&f32, &f32))| {
        (f64::from(w + d) * factors[place(at)] - f64::from(*w)) as f32
    };
    Ok(base.iter().zip(delta).enumerate().map(new).collect())
}
