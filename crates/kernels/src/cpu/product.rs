//! Small matrix products with free strides, through the `gemm` crate.

use gemm::Parallelism;

/// A matrix somewhere in a slice: its size and how far apart its rows and columns are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl Shape {
    /// Row after row.
    pub(crate) fn rows(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Rows that lie `stride` apart.
    pub(crate) fn strided(rows: usize, columns: usize, stride: usize) -> Self {
        Self {
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// The same numbers, rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// One past the last number.
    fn end(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// `c = keep * c + scale * a b`, where `keep` is 0 or 1, on the calling thread, which is one of
/// several.
///
/// # Panics
/// If the sizes do not agree or a matrix reaches past its slice.
#[expect(
    unsafe_code,
    reason = "gemm takes pointers; the bounds are checked here"
)]
#[expect(
    clippy::too_many_arguments,
    reason = "three matrices, each a slice and a shape"
)]
pub(crate) fn product(
    c: &mut [f32],
    shape_c: Shape,
    keep: bool,
    a: &[f32],
    shape_a: Shape,
    b: &[f32],
    shape_b: Shape,
    scale: f32,
) {
    let (m, n, k) = (shape_c.rows, shape_c.columns, shape_a.columns);
    assert!(
        shape_a.rows == m && shape_b.columns == n && shape_b.rows == k,
        "sizes: {shape_c:?} {shape_a:?} {shape_b:?}"
    );
    assert!(
        shape_c.end() <= c.len() && shape_a.end() <= a.len() && shape_b.end() <= b.len(),
        "a matrix past its slice"
    );
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: every element that the sizes and strides reach lies within its slice, as asserted
    // above; `c` is borrowed exclusively, and its elements do not overlap because its rows are at
    // least as far apart as they are long.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            shape_c.column_stride as isize,
            shape_c.row_stride as isize,
            keep,
            a.as_ptr(),
            shape_a.column_stride as isize,
            shape_a.row_stride as isize,
            b.as_ptr(),
            shape_b.column_stride as isize,
            shape_b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
