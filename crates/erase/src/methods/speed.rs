//! SPEED: "Scalable, Precise, and Efficient Concept Erasure for Diffusion Models", ICLR 2026 (arXiv
//! 2503.07392).
//!
//! Every value matrix `W` of the cross-attention gets an addition that what is kept cannot see:
//!
//! ```text
//! W' = W + W (C_at - C_tt) P Q M,   M = (C_tt P + lambda I)^-1,   Q = I - M K (K^T P M K)^-1 K^T P
//! ```
//!
//! `C_tt` and `C_at` are the means of `t t^T` and `a t^T` over the concept's rows `t` and the
//! anchor's `a`. `P` projects on what the rows of the retain set do not use: the eigenvectors of
//! their covariance below a threshold. The columns of `K` are kept exactly: the start token and
//! three centroids of the empty prompt's other rows.
//!
//! The retain set is refined for every matrix, since what is never reached needs no protection:
//! rows stay that the edit without `P`, `W (C_at - C_tt) (C_tt + I)^-1`, moves more than the mean,
//! and of each some perturbations along the direction that `W` sees least, chosen the same way.
//!
//! For nudity the published script edits all rows but the start token's, keeps nothing but the
//! empty prompt, and weakens the equalities by a ridge: `(K^T P M K + ridge I)^-1`.
//!
//! With `P = N N^T` the addition is `Y N^T`, where `Y = (B N - L (N^T K)^T) m`, `B = W (C_at -
//! C_tt)` and `m = (N^T C_tt N + lambda I)^-1`. That is the same with a symmetric matrix to invert,
//! and it needs no care where `P K` has fewer directions than `K`.

use faer::{
    Mat, MatRef,
    linalg::solvers::{Llt, Solve},
};
use scumble_diffusion::{
    TorchRng, options,
    options::{Presets, WEIGHT, whole},
    presets,
};
use serde::{Deserialize, Serialize};

use crate::{
    checks,
    closed_form::{self, KEYS_AND_VALUES, Positions, VALUES, regression, subspace},
    concepts::concept::Concept,
    edit::Edit,
    error::{Error, Result},
    job::{Event, Job},
    methods::{Method, Variant},
    seeds::stream,
};

/// What it is.
pub const METHOD: Method = Method {
    id: "speed",
    paper: "SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models, ICLR 2026, arXiv 2503.07392",
    moves: "U-Net: values of the cross-attention; on the miniature keys too",
    needs: "nothing; keeps --preserve and --captions",
    several: true,
    preserves: true,
    pictures: false,
    seconds: Some(0.3),
    peak_mb: Some(110.0),
    published_evaluations: Some(0),
    fixed: "the published numbers; a closed form",
    erase,
};

/// Rounds of k-means at most; a few dozen rows settle much sooner.
const ROUNDS: usize = 100;

options! {
    /// SPEED's options.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct Options {
        /// Which of the published settings: it decides `rows`, `retained`, `lambda`, `threshold`,
        /// `filter` and `ridge`.
        pub task: Task,
        /// Which rows of a prompt are edited.
        pub rows: EditedRows,
        /// Which rows of a caption are kept.
        pub retained: RetainedRows,
        /// Weight of a small change (`s`).
        pub lambda: f64 where WEIGHT,
        /// How far past the anchor the concept's rows go, as a part of their distance.
        pub overshoot: f64 where WEIGHT,
        /// Directions that the retain set uses less than this, in its mean of `k k^T`, are free.
        pub threshold: f64 where WEIGHT,
        /// Whether the retain set is refined.
        pub refine: bool,
        /// Whether a refined set leaves out the rows that the edit hardly moves, or only adds
        /// perturbations.
        pub filter: bool,
        /// Perturbations of each row of the refined set.
        pub perturbations: usize where whole(0, 10_000),
        /// Centroids of the empty prompt that are kept exactly, beside its start token.
        pub centroids: usize,
        /// How much the equalities may give way; 0 for not at all.
        pub ridge: f64 where WEIGHT,
        /// Whether keys are edited too.
        pub keys: bool,
    }
}

/// The published settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A few instances or styles.
    Few,
    /// Many celebrities: lambda 0.05, threshold 1e-4, no filter; give `--anchor person`, and the
    /// others to keep.
    Celebrity,
    /// Nudity: lambda 0.7, ridge 0.5, all rows, and nothing kept but the empty prompt.
    Nudity,
}

/// Which rows are edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditedRows {
    /// The last word (published).
    Last,
    /// From the first token in which the concept's captions and what is left without it differ
    /// (ours).
    Aligned,
    /// All but the start token's, each with the same position of the anchor's prompt (published for
    /// nudity).
    All,
}

/// Which rows of a caption are retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetainedRows {
    /// The last word (published).
    Last,
    /// All, padding too.
    All,
    /// No caption: those of the empty prompt but its start token (published for nudity).
    Empty,
}

/// The presets for a job.
///
/// # Errors
/// If there is no such task.
pub fn presets(job: &Job<'_>) -> Result<Presets<Options>> {
    let task = job.preset("task", Task::Few)?;
    let few = Options {
        task,
        rows: EditedRows::Last,
        retained: RetainedRows::Last,
        lambda: 1.0,
        overshoot: 0.0,
        threshold: 0.1,
        refine: true,
        filter: true,
        perturbations: 10,
        centroids: 3,
        ridge: 0.0,
        keys: false,
    };
    Ok(match task {
        Task::Few => presets! {
            paper: few,
            reference: paper,
            fixed: paper,
            small: paper {
                rows: EditedRows::Aligned,
                retained: RetainedRows::All,
                lambda: 0.1,
                overshoot: 0.5,
                refine: false,
                keys: true,
            },
        },
        Task::Celebrity => Presets::same(Options {
            lambda: 0.05,
            threshold: 1e-4,
            filter: false,
            ..few
        }),
        Task::Nudity => Presets::same(Options {
            rows: EditedRows::All,
            retained: RetainedRows::Empty,
            lambda: 0.7,
            ridge: 0.5,
            ..few
        }),
    })
}

/// Erases the job's concepts.
///
/// # Errors
/// If an option is impossible, there is nothing to retain or no free direction, the system is singular, nothing changes, or the
/// caller interrupts.
pub fn erase(job: &mut Job<'_>, variant: Variant) -> Result<Edit> {
    let options: Options = job.options(presets, variant)?;
    checks::captioned(
        job,
        options.retained != RetainedRows::Empty,
        "--set retained=last or retained=all",
    )?;
    let parts = Parts::of(job, &options)?;
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
    let retained = if options.refine {
        Retained::Refined(parts.plain()?)
    } else {
        Retained::All(free(&parts.covariance_of_all(), options.threshold)?)
    };
    let (mut new, mut worst, mut room) = (Vec::with_capacity(layers.len()), 0.0f64, Vec::new());
    for (index, layer) in layers.iter().enumerate() {
        let basis = match &retained {
            Retained::All(basis) => basis.clone(),
            Retained::Refined(plain) => {
                let seed = stream(job.seed, "speed/perturbations").at(index);
                free(
                    &parts.refined(&layer.matrix, plain, &options, seed)?,
                    options.threshold,
                )?
            }
        };
        let (addition, condition) = parts.addition(&layer.matrix, basis.as_ref())?;
        worst = worst.max(condition);
        room.push(basis.ncols());
        new.push(&layer.matrix + addition);
        job.tell(Event::Step {
            done: index + 1,
            loss: None,
        })?;
    }
    let (least, most) = (
        room.iter().min().copied().unwrap_or(0),
        room.iter().max().copied().unwrap_or(0),
    );
    let width = parts.targets.nrows();
    job.tell(Event::Detail(&format!(
        "condition number {worst:.3e}; {least} to {most} of {width} directions are free"
    )))?;
    let recorded = closed_form::recorded(job, &options)?;
    closed_form::finish(job, METHOD.id, recorded, &layers, new)
}

/// What leaves directions free.
enum Retained {
    /// The whole retain set, so that all matrices have the same basis of them.
    All(Mat<f64>),
    /// The set refined for each matrix by this: see [`Parts::plain`].
    Refined(Llt<f64>),
}

/// What the job's prompts come to, for all matrices.
struct Parts {
    /// `C_tt`, `[width, width]`.
    targets: Mat<f64>,
    /// `C_at - C_tt`, `[width, width]`.
    moves: Mat<f64>,
    lambda: f64,
    /// How much what is kept exactly may give way.
    ridge: f64,
    /// What is kept exactly, `[n, width]`.
    fixed: Mat<f64>,
    /// What the user wants kept, `[n, width]`: never left out.
    preserved: Mat<f64>,
    /// What the captions want kept, `[n, width]`.
    retained: Mat<f64>,
}

impl Parts {
    fn of(job: &mut Job<'_>, options: &Options) -> Result<Self> {
        let width = job.pipeline.context_width();
        let aligned = options.rows == EditedRows::Aligned;
        let pairs = if aligned {
            closed_form::contrasts(job.concepts)
        } else {
            closed_form::prompt_pairs(job.concepts, false)
        };
        let pairs = closed_form::encode_pairs(job, &pairs, 0.0)?;
        let rows = pairs.iter().map(|pair| match options.rows {
            EditedRows::Last => (pair.c.word(), pair.g.word()),
            EditedRows::Aligned => pair.rows(&closed_form::align(&pair.c, &pair.g)),
            EditedRows::All => (
                pair.c.at(1..pair.c.rows.nrows()),
                pair.g.at(1..pair.g.rows.nrows()),
            ),
        });
        let (t, a): (Vec<_>, Vec<_>) = rows.unzip();
        let (t, a) = (subspace::stacked(&t, width), subspace::stacked(&a, width));
        // The published mean is over concepts; ours, of aligned rows, over all of them.
        let count = if options.rows == EditedRows::Aligned {
            t.nrows()
        } else {
            pairs.len()
        };
        let mean = 1.0 / count.max(1) as f64;

        let empty = closed_form::encode(job, &[String::new()]);
        let fixed = empty.iter().map(|empty| {
            let others = empty.at(1..empty.rows.nrows());
            subspace::stacked(
                &[empty.at(0..1), centroids(&others, options.centroids)],
                width,
            )
        });
        let fixed = subspace::stacked(&fixed.collect::<Vec<_>>(), width);
        let prompts: Vec<String> = job.preserve.iter().flat_map(Concept::asked).collect();
        let all = options.retained != RetainedRows::Last;
        let preserved = closed_form::encode(job, &prompts)
            .into_iter()
            .map(|p| if all { p.rows } else { p.word() });
        let preserved = subspace::stacked(&preserved.collect::<Vec<_>>(), width);
        let retained = match options.retained {
            RetainedRows::Last => closed_form::caption_rows(job, Positions::LastWord)?,
            RetainedRows::All => closed_form::caption_rows(job, Positions::All)?,
            RetainedRows::Empty => subspace::stacked(
                &empty
                    .iter()
                    .map(|empty| empty.at(1..empty.rows.nrows()))
                    .collect::<Vec<_>>(),
                width,
            ),
        };
        if retained.nrows() + preserved.nrows() == 0 {
            return Err(Error::input("the retain set is empty").with_hint(
                "say what to keep with --preserve or --captions; without it UCE is the same",
            ));
        }
        Ok(Self {
            moves: faer::Scale((1.0 + options.overshoot) * mean) * ((&a - &t).transpose() * &t),
            targets: faer::Scale(mean) * (t.transpose() * &t),
            lambda: options.lambda,
            ridge: options.ridge,
            fixed,
            preserved,
            retained,
        })
    }

    /// The mean of `k k^T` of the whole retain set.
    fn covariance_of_all(&self) -> Mat<f64> {
        let n = self.retained.nrows() + self.preserved.nrows();
        let sum = self.retained.transpose() * &self.retained
            + self.preserved.transpose() * &self.preserved;
        faer::Scale(1.0 / n.max(1) as f64) * sum
    }

    /// What the edit without the projection divides by, the same for all matrices: `C_tt + I`,
    /// whatever lambda is.
    fn plain(&self) -> Result<Llt<f64>> {
        Ok(regression::factor(&regression::ridge(&self.targets, 1.0), 1.0)?.0)
    }

    /// The mean of `k k^T` of the refined retain set of one matrix.
    fn refined(
        &self,
        matrix: &Mat<f64>,
        plain: &Llt<f64>,
        options: &Options,
        seed: u64,
    ) -> Result<Mat<f64>> {
        // The edit without the projection, as a map of rows: k -> edit k.
        let edit = plain.solve((matrix * &self.moves).transpose());
        let moved = &self.retained * &edit;
        let lengths: Vec<f64> = (0..moved.nrows())
            .map(|i| moved.row(i).squared_norm_l2().sqrt())
            .collect();
        let kept = if options.filter {
            above_mean(&lengths)
        } else {
            (0..lengths.len()).collect()
        };

        let (_, seen) = subspace::eigen(&(matrix.transpose() * matrix))?;
        let blind = seen.get(.., 0..1).to_owned();
        let slip = blind.transpose() * &edit;
        let slip_squared = slip.squared_norm_l2();
        let along = &moved * slip.transpose();
        let shifts: Vec<f64> = TorchRng::new(seed)
            .normal((kept.len() * options.perturbations).max(16))
            .into_iter()
            .map(f64::from)
            .collect();
        let candidates: Vec<(usize, f64)> = (0..kept.len() * options.perturbations)
            .map(|at| (at / options.perturbations, shifts[at]))
            .collect();
        let reaches: Vec<f64> = candidates
            .iter()
            .map(|&(at, z)| {
                let i = kept[at];
                (lengths[i].powi(2) + 2.0 * z * along[(i, 0)] + z * z * slip_squared)
                    .max(0.0)
                    .sqrt()
            })
            .collect();

        // The sum over (k + z b)(k + z b)^T without making the rows: k k^T counts as often as k is
        // used, the rest is two products.
        let (mut uses, mut first, mut second) = (vec![1.0; kept.len()], vec![0.0; kept.len()], 0.0);
        let chosen = above_mean(&reaches);
        for &at in &chosen {
            let (row, z) = candidates[at];
            uses[row] += 1.0;
            first[row] += z;
            second += z * z;
        }
        let width = self.targets.nrows();
        let rows = Mat::from_fn(kept.len(), width, |i, j| self.retained[(kept[i], j)]);
        let weighted = Mat::from_fn(kept.len(), width, |i, j| uses[i] * rows[(i, j)]);
        let shifted = rows.transpose() * Mat::from_fn(kept.len(), 1, |i, _| first[i]);
        let cross = &shifted * blind.transpose();
        let sum = rows.transpose() * weighted
            + &cross
            + cross.transpose()
            + faer::Scale(second) * (&blind * blind.transpose())
            + self.preserved.transpose() * &self.preserved;
        let count = kept.len() + chosen.len() + self.preserved.nrows();
        Ok(faer::Scale(1.0 / count.max(1) as f64) * sum)
    }

    /// What is added to a matrix, given an orthonormal basis of the free directions, and the
    /// condition number.
    fn addition(&self, matrix: &Mat<f64>, basis: MatRef<'_, f64>) -> Result<(Mat<f64>, f64)> {
        let inner = regression::ridge(&(basis.transpose() * &self.targets * basis), self.lambda);
        let (factor, condition) = regression::factor(&inner, self.lambda)?;
        // All transposed, so that solving from the left will do.
        let mut wanted = (matrix * &self.moves * basis).transpose().to_owned();
        // Without a ridge any basis of what is fixed demands the same; with one the rows' own
        // lengths count.
        let fixed = match self.ridge == 0.0 {
            true => subspace::span(&(&self.fixed * basis))?,
            false => (&self.fixed * basis).transpose().to_owned(),
        };
        if fixed.ncols() > 0 {
            let reached = factor.solve(&fixed);
            let inner = regression::ridge(&(fixed.transpose() * &reached), self.ridge);
            let (constraint, _) = regression::factor(&inner, self.lambda)?;
            let multiplier = constraint.solve(reached.transpose() * &wanted);
            wanted -= fixed * multiplier;
        }
        Ok((
            factor.solve(wanted).transpose() * basis.transpose(),
            condition,
        ))
    }
}

/// An orthonormal basis of the directions that rows with this mean of `k k^T` use less than a
/// threshold.
fn free(covariance: &Mat<f64>, threshold: f64) -> Result<Mat<f64>> {
    let (values, vectors) = subspace::eigen(covariance)?;
    let count = values
        .iter()
        .take_while(|value| value.max(0.0) < threshold)
        .count();
    if count == 0 {
        return Err(Error::input(format!(
            "the retain set uses every direction more than threshold {threshold}"
        ))
        .with_hint("give threshold a larger value, or retain fewer captions"));
    }
    Ok(vectors.get(.., 0..count).to_owned())
}

/// The places of the numbers that are not below their mean.
fn above_mean(numbers: &[f64]) -> Vec<usize> {
    let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
    (0..numbers.len()).filter(|&i| numbers[i] >= mean).collect()
}

/// The centroids of rows, `[n, width]`, by Lloyd's rounds from rows that lie evenly apart in the
/// prompt.
fn centroids(rows: &Mat<f64>, n: usize) -> Mat<f64> {
    let (count, width) = (rows.nrows(), rows.ncols());
    let n = n.min(count);
    let mut centres = Mat::from_fn(n, width, |i, j| rows[(i * count / n, j)]);
    let mut places = vec![usize::MAX; count];
    for _ in 0..ROUNDS {
        let nearest = |i: usize| {
            let far = |c: usize| {
                (0..width)
                    .map(|j| (rows[(i, j)] - centres[(c, j)]).powi(2))
                    .sum::<f64>()
            };
            (0..n)
                .min_by(|&a, &b| far(a).total_cmp(&far(b)))
                .unwrap_or(0)
        };
        let found: Vec<usize> = (0..count).map(nearest).collect();
        if found == places {
            break;
        }
        places = found;
        for c in 0..n {
            let members: Vec<usize> = (0..count).filter(|&i| places[i] == c).collect();
            if !members.is_empty() {
                for j in 0..width {
                    centres[(c, j)] =
                        members.iter().map(|&i| rows[(i, j)]).sum::<f64>() / members.len() as f64;
                }
            }
        }
    }
    centres
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, width: usize, seed: u64) -> Mat<f64> {
        let numbers = TorchRng::new(seed).normal(n * width + 16);
        Mat::from_fn(n, width, |i, j| f64::from(numbers[i * width + j]))
    }

    fn options() -> Options {
        Options {
            task: Task::Few,
            rows: EditedRows::Last,
            retained: RetainedRows::Last,
            lambda: 0.3,
            overshoot: 0.0,
            threshold: 0.1,
            refine: true,
            filter: true,
            perturbations: 10,
            centroids: 3,
            ridge: 0.0,
            keys: false,
        }
    }

    /// Rows of 12 numbers: two concepts, five kept rows, four of which are equalities.
    fn parts(lambda: f64) -> (Parts, Mat<f64>, Mat<f64>) {
        let (t, a) = (random(2, 12, 1), random(2, 12, 2));
        let parts = Parts {
            targets: t.transpose() * &t,
            moves: (&a - &t).transpose() * &t,
            lambda,
            ridge: 0.0,
            fixed: random(4, 12, 3),
            preserved: random(1, 12, 4),
            retained: random(5, 12, 5),
        };
        (parts, t, a)
    }

    #[test]
    fn the_free_directions_are_those_that_nothing_kept_uses() {
        let (parts, ..) = parts(0.3);
        let basis = free(&parts.covariance_of_all(), 1e-9).unwrap();
        assert_eq!(basis.ncols(), 12 - 6);
        let p = subspace::projector(basis.as_ref());
        assert!((&p * &p - &p).norm_l2() < 1e-13, "idempotent");
        assert!(
            (&parts.retained * &p).norm_l2() < 1e-6 && (&parts.preserved * &p).norm_l2() < 1e-6
        );
        // A smaller threshold frees less, and none frees nothing.
        let error = free(&parts.covariance_of_all(), 0.0).unwrap_err();
        assert!(error.to_string().contains("threshold 0") && error.hint().is_some());
        assert_eq!(free(&parts.covariance_of_all(), 1e9).unwrap().ncols(), 12);
    }

    #[test]
    fn the_addition_is_the_printed_one() {
        let (mut parts, ..) = parts(0.3);
        let w = random(7, 12, 6);
        let basis = free(&parts.covariance_of_all(), 2.0).unwrap();
        for ridge in [0.5, 0.0] {
            parts.ridge = ridge;
            let p = subspace::projector(basis.as_ref());
            let k = parts.fixed.transpose().to_owned();
            let inverse = |a: &Mat<f64>| {
                a.partial_piv_lu()
                    .solve(Mat::<f64>::identity(a.nrows(), a.nrows()))
            };
            let m = inverse(&regression::ridge(&(&parts.targets * &p), parts.lambda));
            let core = inverse(&regression::ridge(&(k.transpose() * &p * &m * &k), ridge));
            let q = Mat::<f64>::identity(12, 12) - &m * &k * core * k.transpose() * &p;
            let printed = &w * &parts.moves * &p * q * m;
            let (found, condition) = parts.addition(&w, basis.as_ref()).unwrap();
            assert!(
                (&found - &printed).norm_l2() < 1e-9 * printed.norm_l2(),
                "{}",
                (&found - &printed).norm_l2()
            );
            assert!(printed.norm_l2() > 0.1 && condition > 1.0);
            // What is fixed stays unless it may give way, and nothing happens outside of the free
            // directions.
            assert_eq!((&found * &k).norm_l2() < 1e-10, ridge == 0.0);
            assert!((&found * &p - &found).norm_l2() < 1e-12);
        }
    }

    #[test]
    fn lambda_goes_from_nothing_to_everything() {
        let w = random(7, 12, 6);
        let all = Mat::<f64>::identity(12, 12);
        let size = |lambda: f64| {
            parts(lambda)
                .0
                .addition(&w, all.as_ref())
                .unwrap()
                .0
                .norm_l2()
        };
        assert!(size(1e12) < 1e-9 && (size(1e6) / size(1e7) - 10.0).abs() < 0.01);
        // Without a price both concepts become their anchors, one or several at once, although four
        // rows are equalities.
        let (free_of_charge, t, a) = parts(1e-9);
        let new = &w + free_of_charge.addition(&w, all.as_ref()).unwrap().0;
        assert!((&t * new.transpose() - &a * w.transpose()).norm_l2() < 1e-5);
        // With no lambda and fewer rows than directions there is no unique edit.
        let error = parts(0.0).0.addition(&w, all.as_ref()).unwrap_err();
        assert!(error.to_string().contains("lambda 0") && error.hint().is_some());
        // Where what is fixed has no part in the free directions, there is nothing left to demand.
        let mut kept = parts(0.3).0;
        kept.retained = kept.fixed.clone();
        let basis = free(&kept.covariance_of_all(), 1e-9).unwrap();
        let (found, _) = kept.addition(&w, basis.as_ref()).unwrap();
        assert!((&kept.fixed * found.transpose()).norm_l2() < 1e-9 && found.norm_l2() > 0.1);
    }

    #[test]
    fn the_refined_set_is_that_of_its_rows() {
        let (mut parts, ..) = parts(0.3);
        parts.retained = random(9, 12, 8);
        let w = random(20, 12, 6);
        let options = options();
        let found = parts
            .refined(&w, &parts.plain().unwrap(), &options, 77)
            .unwrap();

        // The rows one by one.
        // The published edit without the projection divides by C_tt + I at every lambda.
        let inverse = regression::ridge(&parts.targets, 1.0)
            .partial_piv_lu()
            .solve(Mat::<f64>::identity(12, 12));
        let edit = &w * &parts.moves * inverse;
        let reach = |row: &Mat<f64>| (row * edit.transpose()).norm_l2();
        let row = |i: usize| parts.retained.get(i..i + 1, ..).to_owned();
        let mean = (0..9).map(|i| reach(&row(i))).sum::<f64>() / 9.0;
        let kept: Vec<Mat<f64>> = (0..9).map(row).filter(|r| reach(r) >= mean).collect();
        assert!(kept.len() > 1 && kept.len() < 9);
        let blind = w
            .thin_svd()
            .unwrap()
            .V()
            .get(.., 11..12)
            .transpose()
            .to_owned();
        let draws = TorchRng::new(77).normal((kept.len() * 10).max(16));
        // The sign of a singular vector is free; the eigenvectors' is what the seed's numbers refer
        // to.
        let sets = [1.0, -1.0].map(|sign| {
            let candidates: Vec<Mat<f64>> = (0..kept.len() * 10)
                .map(|at| &kept[at / 10] + faer::Scale(sign * f64::from(draws[at])) * &blind)
                .collect();
            let mean = candidates.iter().map(reach).sum::<f64>() / candidates.len() as f64;
            let chosen: Vec<Mat<f64>> = candidates
                .into_iter()
                .filter(|r| reach(r) >= mean)
                .collect();
            let all: Vec<Mat<f64>> = kept
                .iter()
                .cloned()
                .chain(chosen)
                .chain([parts.preserved.clone()])
                .collect();
            let all = subspace::stacked(&all, 12);
            faer::Scale(1.0 / all.nrows() as f64) * (all.transpose() * &all)
        });
        assert!(
            sets.iter().any(|set| (set - &found).norm_l2() < 1e-9),
            "one of the two signs"
        );
        assert!(
            (parts
                .refined(&w, &parts.plain().unwrap(), &options, 78)
                .unwrap()
                - &found)
                .norm_l2()
                > 1e-6,
            "another seed, other perturbations"
        );
        // Without the filter all rows, and perturbations of all; without those, the mean of what is
        // retained.
        let unfiltered = Options {
            filter: false,
            perturbations: 0,
            ..options.clone()
        };
        let found = parts
            .refined(&w, &parts.plain().unwrap(), &unfiltered, 77)
            .unwrap();
        assert!((found - parts.covariance_of_all()).norm_l2() < 1e-9);
        // Without perturbations the rows alone.
        let plain = parts
            .refined(
                &w,
                &parts.plain().unwrap(),
                &Options {
                    perturbations: 0,
                    ..options
                },
                77,
            )
            .unwrap();
        let all = subspace::stacked(
            &kept
                .into_iter()
                .chain([parts.preserved.clone()])
                .collect::<Vec<_>>(),
            12,
        );
        assert!(
            (faer::Scale(1.0 / all.nrows() as f64) * (all.transpose() * &all) - plain).norm_l2()
                < 1e-9
        );
    }

    #[test]
    fn centroids_find_groups() {
        // Three groups in one prompt, in stretches of unequal length.
        let group = |i: usize| [0.0, 10.0, 20.0][usize::from(i > 2) + usize::from(i > 8)];
        let rows = Mat::from_fn(12, 2, |i, j| group(i) + 0.01 * (i % 3) as f64 + j as f64);
        let mut found: Vec<f64> = (0..3)
            .map(|c| centroids(&rows, 3)[(c, 0)].round())
            .collect();
        found.sort_by(f64::total_cmp);
        assert_eq!(found, [0.0, 10.0, 20.0]);
        assert_eq!(centroids(&rows, 40).nrows(), 12, "never more than rows");
        assert_eq!(centroids(&rows, 0).nrows(), 0);
    }

    /// SD 1.4's sizes, for the clock: `cargo test --workspace --lib speed_at_full_size -- --ignored
    /// --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn speed_at_full_size() {
        let t = random(1, 768, 1);
        let parts = Parts {
            targets: t.transpose() * &t,
            moves: (random(1, 768, 2) - &t).transpose() * &t,
            lambda: 1.0,
            ridge: 0.0,
            fixed: random(4, 768, 3),
            preserved: random(1, 768, 4),
            retained: random(1000, 300, 5) * random(300, 768, 7),
        };
        let start = std::time::Instant::now();
        let plain = parts.plain().unwrap();
        for (out, count) in [(320, 5), (640, 5), (1280, 6)] {
            for i in 0..count {
                let w = random(out, 768, 10 + i);
                let covariance = parts.refined(&w, &plain, &options(), i).unwrap();
                parts
                    .addition(&w, free(&covariance, 0.1).unwrap().as_ref())
                    .unwrap();
            }
        }
        assert!(
            start.elapsed().as_secs_f64() < 15.0,
            "{:?}",
            start.elapsed()
        );
    }
}
