//! Reading a diffusers `scheduler_config.json`.
//!
//! A key absent from the file has diffusers' default. A key of the schedule that is impossible or
//! asks for something that is not implemented is an error by name. Options of single samplers
//! (`options.rs`) are kept, and are an error where the sampler is used; a key that its class does
//! not read is passed over, as diffusers passes it over.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    NoiseSchedule, Of, Refusal, Spacing,
    options::{ZERO_TERMINAL_SNR, passed_over, reads, unmet},
};
use crate::{
    error::{Error, Result},
    interpolant::Output,
    sampler::Sampler,
};

/// More training timesteps than this is a mistake, or a hostile file.
const MOST_TIMESTEPS: u64 = 100_000;

/// Classes whose schedule is this one, whether or not their sampler is here.
const CLASSES: [&str; 15] = [
    "DDIMScheduler",
    "DDIMInverseScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
];

struct Keys<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::config(self.path, key, problem)
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.error(key, format!("expected true or false, found {value}"))),
        }
    }

    fn count(&self, key: &str, default: usize, least: u64) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_u64() {
                Some(n) if (least..=MOST_TIMESTEPS).contains(&n) => Ok(n as usize),
                _ => Err(self.error(
                    key,
                    format!(
                        "expected a whole number from {least} to {MOST_TIMESTEPS}, found {value}"
                    ),
                )),
            },
        }
    }

    fn beta(&self, key: &str, value: &Value) -> Result<f64> {
        let found = value.as_f64().filter(|beta| (0.0..1.0).contains(beta));
        found.ok_or_else(|| {
            self.error(
                key,
                format!("expected a number from 0 to below 1, found {value}"),
            )
        })
    }

    fn beta_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key)
            .map_or(Ok(default), |value| self.beta(key, value))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or_else(|| self.error(key, format!("expected a name, found {value}"))),
        }
    }

    /// Refuses what would change the computation and is not implemented.
    fn refuse_unsupported(&self) -> Result<()> {
        if let Some(class) = self.text("_class_name")?
            && !CLASSES.contains(&class)
        {
            return Err(self
                .error(
                    "_class_name",
                    format!("the noise schedule of `{class}` is not supported"),
                )
                .with_hint(format!("supported are {}", CLASSES.join(", "))));
        }
        if self.flag("clip_sample", false)? {
            return Err(self
                .error("clip_sample", "true is not supported: latents are not bounded, so clipping them damages pictures")
                .with_hint("set it to false, as diffusers' StableDiffusionPipeline does when it loads such a file"));
        }
        Ok(())
    }

    /// The betas in `f32`, since that is the precision in which diffusers computes them.
    fn betas(&self, schedule: &str, count: usize) -> Result<Vec<f32>> {
        if let Some(value) = self.get("trained_betas") {
            let list = value.as_array().filter(|list| list.len() == count);
            let list = list.ok_or_else(|| {
                self.error(
                    "trained_betas",
                    format!("expected a list of {count} numbers, as many as `num_train_timesteps`"),
                )
            })?;
            return list
                .iter()
                .map(|beta| Ok(self.beta("trained_betas", beta)? as f32))
                .collect();
        }
        let (start, end) = (
            self.beta_or("beta_start", 0.0001)?,
            self.beta_or("beta_end", 0.02)?,
        );
        match schedule {
            "linear" => Ok(linspace(start as f32, end as f32, count)),
            "scaled_linear" => Ok(linspace(start.sqrt() as f32, end.sqrt() as f32, count)
                .into_iter()
                .map(|b| b * b)
                .collect()),
            "squaredcos_cap_v2" => Ok(cosine(count)),
            other => Err(self.error(
                "beta_schedule",
                format!(
                    "`{other}` is not supported (linear, scaled_linear, squaredcos_cap_v2 are)"
                ),
            )),
        }
    }
}

/// Evenly spaced `f32`, computed from both ends as PyTorch does.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| {
            if i < count / 2 {
                start + step * i as f32
            } else {
                end - step * (count - 1 - i) as f32
            }
        })
        .collect()
}

/// The cosine schedule of Nichol and Dhariwal 2021 (arXiv:2102.09672, equation 17), betas capped at
/// 0.999.
fn cosine(count: usize) -> Vec<f32> {
    let alpha_bar = |i: usize| {
        ((i as f64 / count as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
            .cos()
            .powi(2)
    };
    (0..count)
        .map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32)
        .collect()
}

impl NoiseSchedule {
    /// Reads a schedule from the value of a `scheduler_config.json`; `path` is for the error
    /// messages.
    ///
    /// `clip_sample` counts as false where the file does not mention it.
    ///
    /// # Errors
    /// If a key is impossible, or asks for something that is not implemented.
    pub fn from_config(path: &Path, config: &Value) -> Result<Self> {
        let map = config.as_object().ok_or_else(|| {
            Error::file(
                path,
                "expected a JSON object with a scheduler's configuration",
            )
        })?;
        let keys = Keys { path, map };
        keys.refuse_unsupported()?;
        let own = Sampler::default_for(path, config).ok();
        let refusal = |sampler: Sampler| {
            let (key, problem) = unmet(sampler, map).into_iter().next()?;
            Some(Refusal {
                of: Of::Sampler(sampler),
                problem: keys.error(key, problem).to_string(),
                hint: format!("choose another sampler than {sampler} with --sampler, such as ddim"),
            })
        };
        let refusals: Vec<Refusal> = Sampler::ALL.into_iter().filter_map(refusal).collect();
        // A schedule without signal at its end is the model's, not its sampler's: it was trained
        // that way, whichever sampler draws.
        let zero_snr = own.is_none_or(|own| reads(own, ZERO_TERMINAL_SNR))
            && keys.flag(ZERO_TERMINAL_SNR, false)?;

        let output = match keys.text("prediction_type")? {
            None | Some("epsilon") => Output::Epsilon,
            Some("v_prediction") => Output::V,
            Some(other) => {
                return Err(keys.error(
                    "prediction_type",
                    format!("`{other}` is not supported (epsilon, v_prediction are)"),
                ));
            }
        };
        let timestep_spacing = match keys.text("timestep_spacing")? {
            None => None,
            Some("leading") => Some(Spacing::Leading),
            Some("trailing") => Some(Spacing::Trailing),
            Some("linspace") => Some(Spacing::Linspace),
            Some(other) => {
                return Err(keys.error(
                    "timestep_spacing",
                    format!("`{other}` is not one of leading, trailing, linspace"),
                ));
            }
        };

        let count = keys.count("num_train_timesteps", 1000, 2)?;
        let beta_schedule = keys.text("beta_schedule")?.unwrap_or("linear");
        let betas = keys.betas(beta_schedule, count)?;
        let betas = if zero_snr { rescaled(&betas) } else { betas };
        let mut alphas_cumprod: Vec<f64> = cumprod(&betas).map(f64::from).collect();
        if zero_snr && let Some(last) = alphas_cumprod.last_mut() {
            *last = ALMOST_ZERO;
        }
        // Samplers divide by alpha_bar and by differences of noise levels.
        let usable = alphas_cumprod[0] < 1.0
            && alphas_cumprod
                .iter()
                .all(|&a| a >= f64::from(f32::MIN_POSITIVE));
        if !usable || alphas_cumprod.windows(2).any(|pair| pair[1] >= pair[0]) {
            let key = if keys.get("trained_betas").is_some() {
                "trained_betas"
            } else {
                "beta_schedule"
            };
            return Err(keys.error(
                key,
                "the noise must grow at every timestep and leave some signal at the last one",
            ));
        }
        let steps_offset = keys.count("steps_offset", 0, 0)?;
        if steps_offset >= count {
            return Err(keys.error(
                "steps_offset",
                format!("expected less than `num_train_timesteps` ({count}), found {steps_offset}"),
            ));
        }
        Ok(Self {
            alphas_cumprod,
            output,
            steps_offset,
            set_alpha_to_one: keys
                .get("set_alpha_to_one")
                .map(|_| keys.flag("set_alpha_to_one", true))
                .transpose()?,
            skip_prk_steps: keys.flag("skip_prk_steps", false)?,
            timestep_spacing,
            use_karras_sigmas: keys.flag("use_karras_sigmas", false)?,
            cosine: beta_schedule == "squaredcos_cap_v2",
            bh1: keys
                .text("solver_type")
                .is_ok_and(|kind| kind == Some("bh1")),
            refusals,
        })
    }

    /// The schedule of a configuration that [`from_config`](Self::from_config) refuses, for what
    /// needs none: everything that asks it for a timestep or samples by it gets the error.
    ///
    /// Its numbers are Stable Diffusion's.
    #[must_use]
    pub fn refused(error: &Error) -> Self {
        let betas: Vec<f32> = linspace(0.00085f64.sqrt() as f32, 0.012f64.sqrt() as f32, 1000)
            .into_iter()
            .map(|b| b * b)
            .collect();
        let hint = error
            .hint()
            .unwrap_or("methods that never ask for a timestep still work on this model")
            .to_owned();
        Self {
            alphas_cumprod: cumprod(&betas).map(f64::from).collect(),
            output: Output::Epsilon,
            steps_offset: 1,
            set_alpha_to_one: None,
            skip_prk_steps: true,
            timestep_spacing: None,
            use_karras_sigmas: false,
            cosine: false,
            bh1: false,
            refusals: vec![Refusal {
                of: Of::Everything,
                problem: error.to_string(),
                hint,
            }],
        }
    }

    /// What diffusers passes over in a configuration, and so is passed over here: options that its
    /// class does not have but another would obey.
    pub fn passed_over(config: &Value) -> Vec<String> {
        let (Some(map), Ok(own)) = (
            config.as_object(),
            Sampler::default_for(Path::new(""), config),
        ) else {
            return Vec::new();
        };
        let class = map
            .get("_class_name")
            .and_then(Value::as_str)
            .unwrap_or("DDIMScheduler");
        let line = |(key, value): (&str, &Value)| {
            format!("scheduler: {class} has no option `{key}`, so {value} is passed over")
        };
        passed_over(own, map).into_iter().map(line).collect()
    }
}

/// The signal that is left at the last timestep of such a schedule, for samplers divide by it: as in
/// diffusers' Euler and multistep schedulers. Its DDIM keeps 0 itself, and so does ours.
pub(super) const ALMOST_ZERO: f64 = 1.0 / (1 << 24) as f64;

/// `alpha_bar` of every timestep: PyTorch accumulates in f64 and rounds each partial product to f32.
fn cumprod(betas: &[f32]) -> impl Iterator<Item = f32> + '_ {
    betas.iter().scan(1.0, |product, beta| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    })
}

/// Betas whose last timestep has no signal (Lin et al. 2023, algorithm 1): the square roots of
/// `alpha_bar` are shifted so that the last is 0 and scaled so that the first stays. In `f32`, as
/// diffusers computes them.
fn rescaled(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumprod(betas).map(f32::sqrt).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let bars: Vec<f32> = roots
        .iter()
        .map(|root| ((root - last) * (first / (first - last))).powi(2))
        .collect();
    let alphas = std::iter::once(bars[0]).chain(bars.windows(2).map(|pair| pair[1] / pair[0]));
    alphas.map(|alpha| 1.0 - alpha).collect()
}
