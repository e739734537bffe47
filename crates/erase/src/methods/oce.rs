//! OCE: orthogonal concept erasure, ICML 2026 (arXiv 2605.28902).
//!
//! Every value matrix `W` of the cross-attention is turned, `W' = Q W`, by the orthogonal `Q` that
//! agrees best with
//!
//! ```text
//! M = -s_e R (I - R_a) + s_g W C_g W^T + s_p sum_k (W k) (W k)^T + lambda W W^T
//! ```
//!
//! where `R` and `R_a` project on what `W` makes of the concept's and the anchor's rows, `C_g` is
//! the mean of `c c^T` over the tokens of captions, and `k` are preserved rows. With `M = U S V^T`
//! that is `Q = U V^T`: what is kept pulls `Q` to the identity, the first term to the mirror image
//! of the concept. Lengths and angles between values are what they were.
//!
//! All terms of `M` lie in the space that `W` can reach, of which there is no more than the text
//! encoder is wide. So `Q` is sought there, and is the identity outside: where the published code
//! leaves the completion to the decomposition, `Q W` is the same.
//!
//! `Q` is to be a rotation. The published code negates its last column if its determinant is
//! negative, which mirrors one of the output's coordinates for all prompts; mirroring the direction
//! of the least singular value is the best rotation. Where a matrix has more rows than columns (the
//! 1280 wide layers of SD 1.x) the published determinant's sign is that of directions which no
//! value has: rounding decides it. There no column is negated.

use faer::{Mat, MatRef};
use scumble_diffusion::{
    options,
    options::{COUNT, Presets, WEIGHT},
    presets,
};
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{
        self, Encoded, EncodedPair, Expand, KEYS_AND_VALUES, Positions, VALUES, subspace,
    },
    concepts::concept::Concept,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
};

/// What it is.
pub const METHOD: Method = Method {
    id: "oce",
    paper: "Orthogonal Concept Erasure (OCE), ICML 2026, arXiv 2605.28902",
    moves: "U-Net: values of the cross-attention",
    needs: "nothing; keeps --preserve and --captions",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(0.1),
    peak_mb: Some(100.0),
    published_evaluations: Some(0),
    fixed: "the published numbers of the kind of concept, preserved rows never lighter than printed; a closed form",
    erase,
};

/// Singular values of M this far apart leave the least one's direction to chance.
const SINGULAR: f64 = 1e-13;

options! {
    /// OCE's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which of the published settings: it decides the four weights and `expand_prompts`.
        pub task: Task,
        /// Further wordings that span the concept and its anchor, for `words`: five for an `object`
        /// or for `art`, or `none`.
        pub expand_prompts: Expand,
        /// What spans the concept.
        pub subspace: Subspace,
        /// Directions of each concept, for `contrast`.
        pub rank: usize where COUNT,
        /// For `contrast`: how much a direction's use by the captions counts against it; 0 ranks by
        /// the concept alone.
        pub whiten: f64 where WEIGHT,
        /// Weight of leaving the concept (`s_e`).
        pub erase_scale: f64 where WEIGHT,
        /// Weight of the captions' tokens (`s_g`).
        pub general_scale: f64 where WEIGHT,
        /// Weight of each preserved prompt (`s_p`).
        pub preserve_scale: f64 where WEIGHT,
        /// Weight of staying as it is.
        pub lambda: f64 where WEIGHT,
        /// Which of two sides is mirrored to make a rotation.
        pub sign: Sign,
        /// Whether keys are turned too.
        pub keys: bool,
    }
}

/// The published settings, of the scripts for SD 1.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// 2000, 10, 0, 10 in the order of the formula, five wordings.
    Object,
    /// 500, 10, 1, 10, five wordings for artists.
    Style,
    /// 3000, 20, 0, 10, five wordings.
    Nudity,
    /// 3500, 50, 5, 10 for ten, 1500, 70, 2.5, 10 for fifty, 800, 70, 2, 10 for a hundred; names
    /// alone.
    Celebrity,
}

/// What is taken for the concept's subspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subspace {
    /// The values of the last words of its prompts, less those of the anchors (published).
    Words,
    /// The directions in which the values of its prompts and of what is left without it differ most
    /// (ours).
    Contrast,
}

/// What is mirrored where the best orthogonal matrix is no rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// The last column of Q (published code).
    Column,
    /// The direction of the least singular value.
    Least,
}

/// The presets for a job.
///
/// # Errors
/// If there is no such task.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let task = job.preset("task", Task::Object)?;
    let concepts = job.concepts.len();
    let (expand_prompts, erase_scale, general_scale, preserve_scale) = match (task, concepts) {
        (Task::Object, _) => (Expand::Object, 2000.0, 10.0, 0.0),
        (Task::Style, _) => (Expand::Art, 500.0, 10.0, 1.0),
        (Task::Nudity, _) => (Expand::Object, 3000.0, 20.0, 0.0),
        (Task::Celebrity, 0..=10) => (Expand::None, 3500.0, 50.0, 5.0),
        (Task::Celebrity, 11..=50) => (Expand::None, 1500.0, 70.0, 2.5),
        (Task::Celebrity, _) => (Expand::None, 800.0, 70.0, 2.0),
    };
    Ok(presets! {
        paper: Options {
            task,
            expand_prompts,
            subspace: Subspace::Words,
            rank: 1,
            whiten: 0.0,
            erase_scale,
            general_scale,
            preserve_scale,
            lambda: 10.0,
            sign: Sign::Column,
            keys: false,
        },
        reference: paper,
        // What the user wants kept is kept.
        fixed: paper { sign: Sign::Least, preserve_scale: preserve_scale.max(1.0) },
        small: paper {
            expand_prompts: Expand::None,
            subspace: Subspace::Contrast,
            whiten: 0.3,
            erase_scale: 600.0 / (concepts.max(1) as f64).sqrt(),
            general_scale: 30.0,
            preserve_scale: 1.0,
            sign: Sign::Least,
        },
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, the concepts leave nothing to turn to, M is singular, nothing changes, or the caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(presets, variant)?;
    checks::preserving(job, options.preserve_scale > 0.0, "--set preserve_scale=1")?;
    let whitened = options.subspace == Subspace::Contrast && options.whiten > 0.0;
    checks::captioned(
        job,
        options.general_scale > 0.0 || whitened,
        "--set general_scale=30",
    )?;
    let rows = Rows::of(job, &options)?;
    let layers = closed_form::layers(
        job,
        if options.keys {
            KEYS_AND_VALUES
        } else {
            VALUES
        },
    );
    job.tell(Event::Stage {
        name: "solving",
        total: layers.len(),
        done: 0,
    })?;
    let (mut new, mut worst) = (Vec::with_capacity(layers.len()), 0.0f64);
    for (done, layer) in layers.iter().enumerate() {
        let (turned, condition) = turned(&layer.matrix, &rows, &options)?;
        new.push(turned);
        worst = worst.max(condition);
        job.tell(Event::Step {
            done: done + 1,
            loss: None,
        })?;
    }
    job.tell(Event::Detail(&format!("condition number {worst:.3e}")))?;
    let recorded = closed_form::recorded(job, &options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

/// What the job's prompts come to, for all matrices.
struct Rows {
    /// For `words` `[concepts, width]` at once, for `contrast` the differences of one concept each.
    concepts: Vec<Mat<f64>>,
    /// `[n, width]`.
    anchors: Mat<f64>,
    /// `[n, width]`.
    preserved: Mat<f64>,
    /// The mean of `c c^T`, `[width, width]`.
    general: Mat<f64>,
}

impl Rows {
    fn of(job: &mut Job<'_>, options: &Options) -> Result<Self> {
        let width = job.pipeline.context_width();
        let stack = |parts: Vec<Mat<f64>>| subspace::stacked(&parts, width);
        let mut concepts = Vec::new();
        let mut anchors = Vec::new();
        for concept in job.concepts {
            let contrast = options.subspace == Subspace::Contrast;
            let one = std::slice::from_ref(concept);
            let pairs = match contrast {
                true => closed_form::contrasts(one),
                false => closed_form::expanded(
                    closed_form::prompt_pairs(one, false),
                    options.expand_prompts,
                ),
            };
            let pairs = closed_form::encode_pairs(job, &pairs, 0.0)?;
            if contrast {
                concepts.push(stack(pairs.iter().map(difference).collect()));
            } else {
                concepts.push(stack(pairs.iter().map(|pair| pair.c.word()).collect()));
                anchors.extend(pairs.iter().map(|pair| pair.g.word()));
            }
        }
        if options.subspace == Subspace::Words {
            concepts = vec![stack(concepts)];
        }
        let prompts: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
        let preserved = stack(
            closed_form::encode(job, &prompts)
                .iter()
                .map(Encoded::word)
                .collect(),
        );
        let mut general = Mat::zeros(width, width);
        if options.general_scale > 0.0 || options.whiten > 0.0 {
            let positions = if options.subspace == Subspace::Contrast {
                Positions::All
            } else {
                Positions::Spoken
            };
            let found = closed_form::statistics(job, positions)?;
            if found.count == 0 {
                return Err(Error::input("there is no caption to keep")
                    .with_hint("give some with --captions, or set general_scale and whiten to 0"));
            }
            general = faer::Scale(1.0 / found.count as f64) * found.sum;
        }
        Ok(Self {
            concepts,
            anchors: stack(anchors),
            preserved,
            general,
        })
    }
}

/// What the concept's rows are beyond those of what is left without it.
fn difference(pair: &EncodedPair) -> Mat<f64> {
    let (from, to) = pair.rows(&closed_form::align(&pair.c, &pair.g));
    from - to
}

/// `Q W`, and the condition number of M.
fn turned(matrix: &Mat<f64>, rows: &Rows, options: &Options) -> Result<(Mat<f64>, f64)> {
    let (out, width) = (matrix.nrows(), matrix.ncols());
    if out <= width {
        let (q, condition) = rotation(&agreement(matrix, rows, options)?, options)?;
        return Ok((q * matrix, condition));
    }
    // Outside of what W reaches Q is the identity, up to a sign there that no value sees.
    let reach = matrix.qr().compute_thin_Q();
    let inner = reach.transpose() * matrix;
    let (q, condition) = orthogonal(&agreement(&inner, rows, options)?)?;
    Ok((reach * (q.matrix * inner), condition))
}

/// M.
fn agreement(matrix: &Mat<f64>, rows: &Rows, options: &Options) -> Result<Mat<f64>> {
    let n = matrix.nrows();
    let seen = |inner: &Mat<f64>| matrix * inner * matrix.transpose();
    let general = seen(&rows.general);
    let target = match options.subspace {
        Subspace::Words => subspace::span(&(&rows.concepts[0] * matrix.transpose()))?,
        Subspace::Contrast => contrasts(matrix, &rows.concepts, &general, options)?,
    };
    let anchor = subspace::span(&(&rows.anchors * matrix.transpose()))?;
    if target.ncols() >= n {
        let problem = format!(
            "the concepts span {} directions, and a matrix has {n}",
            target.ncols()
        );
        return Err(Error::input(problem)
            .with_hint("erase fewer concepts at once, or give fewer prompts or a smaller rank"));
    }
    let target = subspace::projector(target.as_ref());
    let away = &target - &target * subspace::projector(anchor.as_ref());
    let kept = matrix * rows.preserved.transpose();
    Ok(faer::Scale(-options.erase_scale) * away
        + faer::Scale(options.general_scale) * general
        + faer::Scale(options.preserve_scale) * (&kept * kept.transpose())
        + faer::Scale(options.lambda) * (matrix * matrix.transpose()))
}

/// An orthonormal basis of the directions in which the values of concepts differ most from what is
/// left without them, in units of how much the captions use each direction.
fn contrasts(
    matrix: &Mat<f64>,
    concepts: &[Mat<f64>],
    general: &Mat<f64>,
    options: &Options,
) -> Result<Mat<f64>> {
    let n = matrix.nrows();
    let units = if options.whiten > 0.0 {
        units(general, 1.0 / options.whiten)?
    } else {
        Mat::identity(n, n)
    };
    let mut directions = Vec::with_capacity(concepts.len());
    for concept in concepts {
        let found = subspace::span(&(concept * matrix.transpose() * &units))?;
        let rank = options.rank.min(found.ncols());
        directions.push(found.get(.., 0..rank).transpose() * &units);
    }
    subspace::span(&subspace::stacked(&directions, n))
}

/// `(A + m trace(A) / n I)^(-1/2)`.
fn units(a: &Mat<f64>, m: f64) -> Result<Mat<f64>> {
    let (values, vectors) = subspace::eigen(a)?;
    let n = values.len();
    let floor = m * values.iter().sum::<f64>() / n as f64;
    let scaled = Mat::from_fn(n, n, |i, j| {
        vectors[(i, j)] / (values[j].max(0.0) + floor).sqrt()
    });
    Ok(scaled * vectors.transpose())
}

/// The orthogonal matrix that agrees best with another, and what is needed to turn it into a
/// rotation.
struct Orthogonal {
    matrix: Mat<f64>,
    /// The left and right directions of the least singular value.
    least: (Mat<f64>, Mat<f64>),
}

/// `U V^T` and the condition number.
fn orthogonal(m: &Mat<f64>) -> Result<(Orthogonal, f64)> {
    let found = subspace::svd(m)?;
    let n = m.nrows();
    let values = found.S().column_vector();
    let (most, least) = (values[0], values[n - 1]);
    let usable = least > most * SINGULAR;
    if !usable {
        return Err(Error::input(
            "what OCE is to agree with is singular: some direction is neither erased nor kept",
        )
        .with_hint("give lambda, general_scale or preserve_scale a larger value"));
    }
    let column = |u: MatRef<'_, f64>| u.get(.., n - 1..n).to_owned();
    let least_directions = (column(found.U()), column(found.V()));
    Ok((
        Orthogonal {
            matrix: found.U() * found.V().transpose(),
            least: least_directions,
        },
        most / least,
    ))
}

/// The same with determinant 1.
fn rotation(m: &Mat<f64>, options: &Options) -> Result<(Mat<f64>, f64)> {
    let (q, condition) = orthogonal(m)?;
    if q.matrix.determinant() >= 0.0 {
        return Ok((q.matrix, condition));
    }
    let n = m.nrows();
    let turned = match options.sign {
        Sign::Least => {
            let (u, v) = &q.least;
            &q.matrix - faer::Scale(2.0) * (u * v.transpose())
        }
        Sign::Column => Mat::from_fn(n, n, |i, j| {
            if j + 1 == n {
                -q.matrix[(i, j)]
            } else {
                q.matrix[(i, j)]
            }
        }),
    };
    Ok((turned, condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, width: usize, seed: u64) -> Mat<f64> {
        let numbers = scumble_diffusion::TorchRng::new(seed).normal(n * width + 16);
        Mat::from_fn(n, width, |i, j| f64::from(numbers[i * width + j]))
    }

    fn options() -> Options {
        Options {
            task: Task::Object,
            expand_prompts: Expand::None,
            subspace: Subspace::Words,
            rank: 1,
            whiten: 0.0,
            erase_scale: 1000.0,
            general_scale: 30.0,
            preserve_scale: 1.0,
            lambda: 10.0,
            sign: Sign::Least,
            keys: false,
        }
    }

    fn rows(concepts: usize) -> Rows {
        let captions = random(40, 12, 3);
        Rows {
            concepts: vec![random(concepts, 12, 1)],
            anchors: random(1, 12, 2),
            preserved: random(2, 12, 4),
            general: faer::Scale(1.0 / 40.0) * (captions.transpose() * &captions),
        }
    }

    fn along(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        let dot: f64 = (0..a.nrows()).map(|i| a[(i, 0)] * b[(i, 0)]).sum();
        dot / (a.norm_l2() * b.norm_l2())
    }

    #[test]
    fn it_is_a_rotation() {
        for (concepts, seed) in [(1, 5), (2, 6), (3, 7)] {
            let m = agreement(&random(9, 12, seed), &rows(concepts), &options()).unwrap();
            for sign in [Sign::Least, Sign::Column] {
                let (q, _) = rotation(&m, &Options { sign, ..options() }).unwrap();
                assert!((q.transpose() * &q - Mat::<f64>::identity(9, 9)).norm_l2() < 1e-12);
                assert!((q.determinant() - 1.0).abs() < 1e-12);
            }
        }
        // Where a sign has to change, the least direction is the cheapest: no rotation agrees
        // better with M.
        let m = agreement(&random(9, 12, 5), &rows(1), &options()).unwrap();
        assert!(
            orthogonal(&m).unwrap().0.matrix.determinant() < 0.0,
            "one direction is mirrored"
        );
        let agrees = |sign| {
            let (q, _) = rotation(&m, &Options { sign, ..options() }).unwrap();
            (0..9)
                .map(|i| (0..9).map(|j| q[(i, j)] * m[(i, j)]).sum::<f64>())
                .sum::<f64>()
        };
        assert!(agrees(Sign::Least) > agrees(Sign::Column));
    }

    #[test]
    fn lengths_and_angles_stay() {
        for out in [9, 12, 20] {
            let w = random(out, 12, 5);
            let (new, condition) = turned(&w, &rows(2), &options()).unwrap();
            assert!(
                (new.transpose() * &new - w.transpose() * &w).norm_l2()
                    < 1e-11 * w.norm_l2().powi(2),
                "{out}"
            );
            assert!((new - w).norm_l2() > 0.1 && condition > 1.0);
        }
    }

    #[test]
    fn nothing_to_erase_is_the_identity() {
        for out in [9, 20] {
            let w = random(out, 12, 5);
            let none = Options {
                erase_scale: 0.0,
                ..options()
            };
            assert!((turned(&w, &rows(2), &none).unwrap().0 - &w).norm_l2() < 1e-12 * w.norm_l2());
            // The more staying weighs, the nearer.
            let change = |lambda: f64| {
                (turned(
                    &w,
                    &rows(1),
                    &Options {
                        lambda,
                        ..options()
                    },
                )
                .unwrap()
                .0 - &w)
                    .norm_l2()
            };
            assert!(change(1e9) < 1e-5 && change(1e9) < change(10.0));
        }
    }

    #[test]
    fn the_concepts_are_mirrored() {
        let strong = Options {
            erase_scale: 1e9,
            ..options()
        };
        let mut rows = rows(2);
        rows.anchors = Mat::zeros(0, 12);
        let w = random(20, 12, 5);
        let (new, _) = turned(&w, &rows, &strong).unwrap();
        for i in 0..2 {
            let concept = rows.concepts[0].row(i).transpose().as_mat().to_owned();
            assert!(along(&(&new * &concept), &(&w * &concept)) < -0.999);
        }
        // What the concepts share with their anchor is not left.
        rows.anchors = rows.concepts[0].clone();
        assert!((turned(&w, &rows, &strong).unwrap().0 - &w).norm_l2() < 1e-6 * w.norm_l2());
    }

    #[test]
    fn outside_of_what_the_matrix_reaches_nothing_matters() {
        // The published way, a decomposition of all of M, of which eight directions are empty.
        let (w, rows) = (random(20, 12, 5), rows(2));
        let found = agreement(&w, &rows, &options()).unwrap().svd().unwrap();
        let published = found.U() * found.V().transpose() * &w;
        assert!(
            (turned(&w, &rows, &options()).unwrap().0 - &published).norm_l2() < 1e-9 * w.norm_l2()
        );
    }

    #[test]
    fn a_contrast_is_the_concepts_own_direction() {
        let w = random(9, 12, 5);
        let own = random(1, 12, 8);
        let weights = random(6, 1, 9);
        // Six rows that differ from their anchors along one direction, in different strength.
        let concepts = vec![&weights * &own];
        let general = &w * w.transpose();
        let contrast = Options {
            subspace: Subspace::Contrast,
            rank: 3,
            ..options()
        };
        let found = contrasts(&w, &concepts, &general, &contrast).unwrap();
        let expected = &w * own.transpose();
        assert_eq!(
            found.ncols(),
            1,
            "rows of rank one have one direction, whatever is asked for"
        );
        assert!(along(&found, &expected).abs() > 1.0 - 1e-12);
        // Whitened, it turns to where the captions are not, and still sees the concept.
        let whitened = Options {
            whiten: 1e3,
            ..contrast
        };
        let found = contrasts(&w, &concepts, &general, &whitened).unwrap();
        let use_of = |x: &Mat<f64>| (x.transpose() * &general * x)[(0, 0)] / x.squared_norm_l2();
        assert!(use_of(&found) < use_of(&expected) && along(&found, &expected).abs() > 0.01);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let w = random(9, 12, 5);
        let error = turned(&w, &rows(9), &options()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("span 9 directions, and a matrix has 9")
                && error.hint().is_some()
        );
        turned(&w, &rows(8), &options()).unwrap();
        let kept_by_nothing = Options {
            lambda: 0.0,
            general_scale: 0.0,
            preserve_scale: 0.0,
            ..options()
        };
        let error = turned(&w, &rows(1), &kept_by_nothing).unwrap_err();
        assert!(
            error.to_string().contains("singular") && error.hint().unwrap().contains("lambda"),
            "{error}"
        );
    }

    /// SD 1.4's sizes, for the clock: `cargo test --workspace --lib oce_at_full_size -- --ignored
    /// --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn oce_at_full_size() {
        let captions = random(2000, 768, 3);
        let rows = Rows {
            concepts: vec![random(100, 768, 1)],
            anchors: random(1, 768, 2),
            preserved: random(100, 768, 4),
            general: faer::Scale(1.0 / 2000.0) * (captions.transpose() * &captions),
        };
        let start = std::time::Instant::now();
        for (out, count) in [(320, 5), (640, 5), (1280, 6)] {
            for i in 0..count {
                turned(&random(out, 768, 10 + i), &rows, &options()).unwrap();
            }
        }
        assert!(
            start.elapsed().as_secs_f64() < 60.0,
            "{:?}",
            start.elapsed()
        );
    }
}
