//! The transforms of Winograd's F(4x4, 3x3) (Lavin and Gray 2016, arXiv 1509.09308, section 4.2),
//! for sixteen channels side by side.

use multiversion::multiversion;

/// Channels that are transformed together.
pub(crate) const WIDE: usize = 16;

pub(crate) type Wide = [f32; WIDE];

/// `B^T d`.
#[inline(always)]
pub(crate) fn input_transform(d: &[Wide; 6]) -> [Wide; 6] {
    let mut t = [[0.0; WIDE]; 6];
    for l in 0..WIDE {
        let [d0, d1, d2, d3, d4, d5] = [d[0][l], d[1][l], d[2][l], d[3][l], d[4][l], d[5][l]];
        let (even, odd) = (d4 - 4.0 * d2, d3 - 4.0 * d1);
        let (near, far) = (d4 - d2, 2.0 * (d3 - d1));
        t[0][l] = 4.0 * d0 - 5.0 * d2 + d4;
        t[1][l] = even + odd;
        t[2][l] = even - odd;
        t[3][l] = near + far;
        t[4][l] = near - far;
        t[5][l] = 4.0 * d1 - 5.0 * d3 + d5;
    }
    t
}

/// `A^T m`.
#[inline(always)]
pub(crate) fn output_transform(m: &[Wide; 6]) -> [Wide; 4] {
    let mut t = [[0.0; WIDE]; 4];
    for l in 0..WIDE {
        let (sum, difference) = (m[1][l] + m[2][l], m[1][l] - m[2][l]);
        let (far, apart) = (m[3][l] + m[4][l], m[3][l] - m[4][l]);
        t[0][l] = m[0][l] + sum + far;
        t[1][l] = difference + 2.0 * apart;
        t[2][l] = sum + 4.0 * far;
        t[3][l] = difference + 8.0 * apart + m[5][l];
    }
    t
}

/// `G g G^T` for kernels side by side: nine rows of `width` numbers, `apart` from each other, to 36
/// rows, `stride` apart.
#[multiversion(targets(
    "x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn kernel_transform(
    to: &mut [f32],
    stride: usize,
    g: &[f32],
    apart: usize,
    width: usize,
) {
    for column in (0..width).step_by(WIDE) {
        let size = WIDE.min(width - column);
        let mut rows = [[[0.0; WIDE]; 6]; 3];
        for (i, row) in rows.iter_mut().enumerate() {
            let mut three = [[0.0; WIDE]; 3];
            for (j, numbers) in three.iter_mut().enumerate() {
                numbers[..size].copy_from_slice(&g[(3 * i + j) * apart + column..][..size]);
            }
            *row = kernel_row(&three);
        }
        for j in 0..6 {
            let numbers = kernel_row(&[rows[0][j], rows[1][j], rows[2][j]]);
            for (i, numbers) in numbers.iter().enumerate() {
                to[(i * 6 + j) * stride + column..][..size].copy_from_slice(&numbers[..size]);
            }
        }
    }
}

/// `G g`.
#[inline(always)]
fn kernel_row(g: &[Wide; 3]) -> [Wide; 6] {
    let mut t = [[0.0; WIDE]; 6];
    for l in 0..WIDE {
        let [g0, g1, g2] = [g[0][l], g[1][l], g[2][l]];
        let ends = g0 + g2;
        let (quarter, half) = (g0 * (1.0 / 24.0) + g2 * (1.0 / 6.0), g1 * (1.0 / 12.0));
        t[0][l] = g0 * 0.25;
        t[1][l] = (ends + g1) * (-1.0 / 6.0);
        t[2][l] = (ends - g1) * (-1.0 / 6.0);
        t[3][l] = quarter + half;
        t[4][l] = quarter - half;
        t[5][l] = g2;
    }
    t
}
