//! What a training wrote down: losses and measurements, as CSV, as TensorBoard's events, and for the
//! page.

use std::{collections::BTreeMap, path::Path};

use scumble_report::{Curve, Over, Scalar, scalars};

use crate::{
    failure::{Failure, Result},
    folder::write_file,
    record::Measurement,
};

/// Losses are kept as the mean of so many steps.
const EVERY: usize = 10;
/// The most points of a curve that are shown.
const SHOWN: usize = 400;

const LOSSES: &str = "losses.csv";
const MEASURED: &str = "measured.csv";
const EVENTS: &str = "events.out.tfevents.0000000000.scumble";

/// What the share of right answers is called that are given with this confidence.
pub(super) fn when_sure(confidence: f64) -> String {
    format!("right when {:.1}% sure", 100.0 * confidence)
}

/// That confidence.
fn sure(name: &str) -> Option<f64> {
    let percent = name.strip_prefix("right when ")?.strip_suffix("% sure")?;
    Some(percent.parse::<f64>().ok()? / 100.0)
}

/// A row of losses: the mean of the steps up to this one.
#[derive(Clone, Debug, PartialEq)]
struct Loss {
    part: String,
    step: usize,
    loss: f64,
    lr: f64,
}

/// Everything that was written down.
#[derive(Default)]
pub(super) struct Diary {
    losses: Vec<Loss>,
    measured: Vec<Measurement>,
    /// The steps since the last row.
    sum: f64,
    count: usize,
}

impl Diary {
    /// What an earlier run of the same training wrote, if it can be read.
    pub(super) fn open(folder: &Path) -> Self {
        let rows = |file: &str| -> Vec<csv::StringRecord> {
            let reader = csv::Reader::from_path(folder.join(file));
            reader.map_or_else(|_| Vec::new(), |mut r| r.records().flatten().collect())
        };
        let losses = rows(LOSSES).into_iter().filter_map(|row| {
            Some(Loss {
                part: row.get(0)?.to_owned(),
                step: row.get(1)?.parse().ok()?,
                loss: row.get(2)?.parse().ok()?,
                lr: row.get(3)?.parse().ok()?,
            })
        });
        let measured = rows(MEASURED).into_iter().filter_map(|row| {
            Some(Measurement {
                part: row.get(0)?.to_owned(),
                step: row.get(1)?.parse().ok()?,
                name: row.get(2)?.to_owned(),
                value: row.get(3)?.parse().ok()?,
            })
        });
        Self {
            losses: losses.collect(),
            measured: measured.collect(),
            ..Self::default()
        }
    }

    /// A part goes on after `done` steps: what was written of later ones happens again.
    pub(super) fn goes_on(&mut self, part: &str, done: usize) {
        self.losses
            .retain(|row| row.part != part || row.step <= done);
        self.measured
            .retain(|row| row.part != part || row.step <= done);
        (self.sum, self.count) = (0.0, 0);
    }

    /// The loss of one step.
    pub(super) fn loss(&mut self, part: &str, step: usize, loss: f64, lr: f64) {
        (self.sum, self.count) = (self.sum + loss, self.count + 1);
        if step.is_multiple_of(EVERY) {
            self.losses.push(Loss {
                part: part.to_owned(),
                step,
                loss: self.sum / self.count as f64,
                lr,
            });
            (self.sum, self.count) = (0.0, 0);
        }
    }

    /// A number that was measured.
    pub(super) fn measured(&mut self, measurement: Measurement) {
        self.measured.push(measurement);
    }

    /// The last of every measured number.
    pub(super) fn last(&self) -> Vec<Measurement> {
        let mut last: BTreeMap<(&str, &str), &Measurement> = BTreeMap::new();
        for one in &self.measured {
            last.insert((&one.part, &one.name), one);
        }
        last.into_values().cloned().collect()
    }

    /// A part's last loss.
    pub(super) fn last_loss(&self, part: &str) -> Option<f64> {
        let mut rows = self.losses.iter().rev();
        rows.find(|row| row.part == part).map(|row| row.loss)
    }

    /// Writes all of it.
    pub(super) fn keep(&self, folder: &Path) -> Result<()> {
        let problem = |e: csv::Error| Failure::new(format!("{LOSSES}: {e}"));
        let mut losses = csv::Writer::from_writer(Vec::new());
        losses
            .write_record(["part", "step", "loss", "share of lr"])
            .map_err(problem)?;
        for row in &self.losses {
            let numbers = [
                row.step.to_string(),
                format!("{:.6}", row.loss),
                format!("{:.4}", row.lr),
            ];
            let fields = std::iter::once(row.part.clone()).chain(numbers);
            losses.write_record(fields).map_err(problem)?;
        }
        let mut measured = csv::Writer::from_writer(Vec::new());
        measured
            .write_record(["part", "step", "name", "value"])
            .map_err(problem)?;
        for row in &self.measured {
            let fields = [
                &row.part,
                &row.step.to_string(),
                &row.name,
                &row.value.to_string(),
            ];
            measured.write_record(fields).map_err(problem)?;
        }
        for (file, writer) in [(LOSSES, losses), (MEASURED, measured)] {
            let bytes = writer
                .into_inner()
                .map_err(|e| Failure::new(e.to_string()))?;
            write_file(&folder.join(file), &bytes)?;
        }
        write_file(&folder.join(EVENTS), &scalars(0.0, &self.scalars()))
    }

    fn scalars(&self) -> Vec<Scalar> {
        let losses = self.losses.iter().map(|row| Scalar {
            tag: format!("{}/loss", row.part),
            step: row.step as u64,
            value: row.loss as f32,
        });
        let measured = self.measured.iter().map(|row| Scalar {
            tag: format!("{}/{}", row.part, row.name),
            step: row.step as u64,
            value: row.value as f32,
        });
        losses.chain(measured).collect()
    }

    /// A curve for each part's loss and each measured number, in the order in which they began, and one for each
    /// judge's right answers over its confidence.
    pub(super) fn curves(&self) -> Vec<Curve> {
        let mut curves: Vec<Curve> = Vec::new();
        let mut add = |name: String, unit: &'static str, over: Over, at: (f64, f64)| match curves
            .iter_mut()
            .find(|curve| curve.name == name)
        {
            Some(curve) => curve.points.push(at),
            None => curves.push(Curve {
                name,
                unit,
                over,
                points: vec![at],
            }),
        };
        for row in &self.losses {
            let at = (row.step as f64, row.loss);
            add(format!("{}: loss", row.part), "", Over::Steps, at);
        }
        for row in &self.measured {
            let name = format!("{}: {}", row.part, row.name);
            let at = (row.step as f64, row.value);
            match sure(&row.name) {
                Some(confidence) => add(
                    format!("{}: right answers, by confidence", row.part),
                    "fraction",
                    Over::Confidence,
                    (confidence, row.value),
                ),
                None if row.name.starts_with("right") => add(name, "fraction", Over::Steps, at),
                None => add(name, "", Over::Steps, at),
            }
        }
        // One number is no curve.
        curves.retain(|curve| curve.points.len() > 1);
        for curve in &mut curves {
            let every = curve.points.len().div_ceil(SHOWN).max(1);
            curve.points = curve.points.chunks(every).map(mean).collect();
        }
        curves
    }
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let last = points.last().map_or(0.0, |(step, _)| *step);
    (last, points.iter().map(|(_, value)| value).sum::<f64>() / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_again_goes_on_where_the_training_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut diary = Diary::default();
        for step in 1..=40 {
            diary.loss("vae", step, f64::from(step as u32), 1.0);
        }
        let measured = |step, value| Measurement {
            part: "vae".into(),
            step,
            name: "right".into(),
            value,
        };
        diary.measured(measured(20, 0.5));
        diary.measured(measured(40, 0.75));
        diary.keep(folder.path()).unwrap();
        let mut again = Diary::open(folder.path());
        assert_eq!(again.losses, diary.losses);
        assert_eq!(again.losses[0].loss, 5.5);
        assert_eq!(again.last(), [measured(40, 0.75)]);
        again.goes_on("vae", 25);
        assert_eq!(again.losses.last().map(|row| row.step), Some(20));
        assert_eq!(again.last(), [measured(20, 0.5)]);
        assert_eq!(again.curves().len(), 1);
    }
}
