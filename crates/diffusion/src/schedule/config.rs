//! Reading a diffusers `scheduler_config.json`.
//!
//! A key absent from the file has diffusers' default. A key that would change the computation in a way that is not
//! implemented is an error by name; a key that no scheduler here reads is passed over, as diffusers passes it over.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Prediction, Schedule, Spacing};
use crate::error::{Error, Result};

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

/// Switches that must be off.
const OFF: [&str; 9] = [
    "rescale_betas_zero_snr",
    "thresholding",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "euler_at_final",
    "shift_terminal",
];

/// Switches that must be on.
const ON: [&str; 2] = ["lower_order_final", "predict_x0"];

/// Keys with the only values that are implemented. diffusers reads the solver names of one class as another's default.
const CHOICES: [(&str, &[&str]); 6] = [
    ("algorithm_type", &["dpmsolver++", "deis"]),
    ("final_sigmas_type", &["zero"]),
    ("interpolation_type", &["linear"]),
    ("solver_type", &["midpoint", "bh2", "logrho"]),
    ("timestep_type", &["discrete"]),
    ("variance_type", &["fixed_small"]),
];

/// diffusers writes `"lambda_min_clipped": -Infinity`, which is Python's JSON and nobody else's; a reader that wants to keep
/// it can hand it over as this string.
const MINUS_INFINITY: &str = "-Infinity";

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
            Some(value) => value.as_bool().ok_or_else(|| self.error(key, format!("expected true or false, found {value}"))),
        }
    }

    fn count(&self, key: &str, default: usize, least: u64) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => match value.as_u64() {
                Some(n) if (least..=MOST_TIMESTEPS).contains(&n) => Ok(n as usize),
                _ => Err(self.error(key, format!("expected a whole number from {least} to {MOST_TIMESTEPS}, found {value}"))),
            },
        }
    }

    fn beta(&self, key: &str, value: &Value) -> Result<f64> {
        let found = value.as_f64().filter(|beta| (0.0..1.0).contains(beta));
        found.ok_or_else(|| self.error(key, format!("expected a number from 0 to below 1, found {value}")))
    }

    fn beta_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |value| self.beta(key, value))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.error(key, format!("expected a name, found {value}"))),
        }
    }

    /// Refuses what would change the computation and is not implemented.
    fn refuse_unsupported(&self) -> Result<()> {
        if let Some(class) = self.text("_class_name")?
            && !CLASSES.contains(&class)
        {
            return Err(self
                .error("_class_name", format!("the noise schedule of `{class}` is not supported"))
                .with_hint(format!("supported are {}", CLASSES.join(", "))));
        }
        for key in OFF {
            if self.get(key).is_some_and(|value| value != &Value::Bool(false)) {
                return Err(self.error(key, format!("{} is not supported, only false", self.map[key])));
            }
        }
        for key in ON {
            if !self.flag(key, true)? {
                return Err(self.error(key, "false is not supported, only true"));
            }
        }
        for (key, values) in CHOICES {
            if let Some(value) = self.text(key)?
                && !values.contains(&value)
            {
                return Err(self.error(key, format!("`{value}` is not supported, only `{}`", values[0])));
            }
        }
        if self.flag("clip_sample", false)? {
            return Err(self
                .error("clip_sample", "true is not supported: latents are not bounded, so clipping them damages pictures")
                .with_hint("set it to false, as diffusers' StableDiffusionPipeline does when it loads such a file"));
        }
        if self.get("solver_order").is_some_and(|order| order != &Value::from(2)) {
            return Err(self.error("solver_order", format!("{} is not supported, only 2", self.map["solver_order"])));
        }
        for key in ["solver_p", "sigma_min", "sigma_max"] {
            if let Some(value) = self.get(key) {
                return Err(self.error(key, format!("{value} is not supported, only null")));
            }
        }
        if let Some(value) = self.get("lambda_min_clipped")
            && value != MINUS_INFINITY
        {
            return Err(self.error("lambda_min_clipped", format!("{value} is not supported, only -Infinity")));
        }
        if self.get("disable_corrector").is_some_and(|list| list.as_array().is_none_or(|list| !list.is_empty())) {
            return Err(self.error("disable_corrector", "is not supported, only an empty list"));
        }
        Ok(())
    }

    /// The betas in `f32`, since that is the precision in which diffusers computes them.
    fn betas(&self, schedule: &str, count: usize) -> Result<Vec<f32>> {
        if let Some(value) = self.get("trained_betas") {
            let list = value.as_array().filter(|list| list.len() == count);
            let list = list.ok_or_else(|| {
                self.error("trained_betas", format!("expected a list of {count} numbers, as many as `num_train_timesteps`"))
            })?;
            return list.iter().map(|beta| Ok(self.beta("trained_betas", beta)? as f32)).collect();
        }
        let (start, end) = (self.beta_or("beta_start", 0.0001)?, self.beta_or("beta_end", 0.02)?);
        match schedule {
            "linear" => Ok(linspace(start as f32, end as f32, count)),
            "scaled_linear" => Ok(linspace(start.sqrt() as f32, end.sqrt() as f32, count).into_iter().map(|b| b * b).collect()),
            "squaredcos_cap_v2" => Ok(cosine(count)),
            other => {
                Err(self
                    .error("beta_schedule", format!("`{other}` is not supported (linear, scaled_linear, squaredcos_cap_v2 are)")))
            }
        }
    }
}

/// Evenly spaced `f32`, computed from both ends as PyTorch does.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    (0..count).map(|i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 }).collect()
}

/// The cosine schedule of Nichol and Dhariwal 2021 (arXiv:2102.09672, equation 17), betas capped at 0.999.
fn cosine(count: usize) -> Vec<f32> {
    let alpha_bar = |i: usize| ((i as f64 / count as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    (0..count).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999) as f32).collect()
}

impl Schedule {
    /// Reads a schedule from the value of a `scheduler_config.json`; `path` is for the error messages.
    ///
    /// `clip_sample` counts as false where the file does not mention it.
    ///
    /// # Errors
    /// If a key is impossible, or asks for something that is not implemented.
    pub fn from_config(path: &Path, config: &Value) -> Result<Self> {
        let map = config
            .as_object()
            .ok_or_else(|| scumble_nn::Error::file(path, "expected a JSON object with a scheduler's configuration"))?;
        let keys = Keys { path, map };
        keys.refuse_unsupported()?;

        let prediction = match keys.text("prediction_type")? {
            None | Some("epsilon") => Prediction::Epsilon,
            Some("v_prediction") => Prediction::V,
            Some(other) => {
                return Err(keys.error("prediction_type", format!("`{other}` is not supported (epsilon, v_prediction are)")));
            }
        };
        let timestep_spacing = match keys.text("timestep_spacing")? {
            None => None,
            Some("leading") => Some(Spacing::Leading),
            Some("trailing") => Some(Spacing::Trailing),
            Some("linspace") => Some(Spacing::Linspace),
            Some(other) => {
                return Err(keys.error("timestep_spacing", format!("`{other}` is not one of leading, trailing, linspace")));
            }
        };

        let count = keys.count("num_train_timesteps", 1000, 2)?;
        let beta_schedule = keys.text("beta_schedule")?.unwrap_or("linear");
        let mut product = 1.0;
        let mut alphas_cumprod = Vec::with_capacity(count);
        for beta in keys.betas(beta_schedule, count)? {
            // PyTorch accumulates in f64 and rounds each partial product to f32.
            product *= f64::from(1.0 - beta);
            alphas_cumprod.push(f64::from(product as f32));
        }
        // Samplers divide by alpha_bar and by differences of noise levels.
        let usable = alphas_cumprod[0] < 1.0 && alphas_cumprod.iter().all(|&a| a >= f64::from(f32::MIN_POSITIVE));
        if !usable || alphas_cumprod.windows(2).any(|pair| pair[1] >= pair[0]) {
            let key = if keys.get("trained_betas").is_some() { "trained_betas" } else { "beta_schedule" };
            return Err(keys.error(key, "the noise must grow at every timestep and leave some signal at the last one"));
        }
        let steps_offset = keys.count("steps_offset", 0, 0)?;
        if steps_offset >= count {
            return Err(
                keys.error("steps_offset", format!("expected less than `num_train_timesteps` ({count}), found {steps_offset}"))
            );
        }
        Ok(Self {
            alphas_cumprod,
            prediction,
            steps_offset,
            set_alpha_to_one: keys.get("set_alpha_to_one").map(|_| keys.flag("set_alpha_to_one", true)).transpose()?,
            skip_prk_steps: keys.flag("skip_prk_steps", false)?,
            timestep_spacing,
            use_karras_sigmas: keys.flag("use_karras_sigmas", false)?,
            cosine: beta_schedule == "squaredcos_cap_v2",
        })
    }
}
