//! Reading a diffusers `scheduler_config.json` of a flow-matching scheduler.
//!
//! As for [`NoiseSchedule`](crate::noise_schedule::NoiseSchedule): an absent key has diffusers'
//! default, a key that would change the computation and is not implemented is an error by name, and
//! a key that these schedulers do not read is passed over.

use std::path::Path;

use serde_json::{Map, Value};

use super::{DynamicShift, FlowMatching, Shift, Spacing, TimeShift};
use crate::error::{Error, Result};

/// More training timesteps than this is a mistake, or a hostile file.
const MOST_TIMESTEPS: u64 = 100_000;

/// A larger number of tokens is a mistake.
const MOST_TOKENS: u64 = 1 << 24;

const EULER: &str = "FlowMatchEulerDiscreteScheduler";
const HEUN: &str = "FlowMatchHeunDiscreteScheduler";

/// Switches that must be off.
const OFF: [&str; 3] = ["invert_sigmas", "use_beta_sigmas", "stochastic_sampling"];

struct Keys<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::config(self.path, key, problem)
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let value = self.get(key).map_or(Some(false), Value::as_bool);
        value.ok_or_else(|| {
            self.error(
                key,
                format!("expected true or false, found {}", self.map[key]),
            )
        })
    }

    fn count(&self, key: &str, default: usize, least: u64, most: u64) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let found = value.as_u64().filter(|n| (least..=most).contains(n));
        found.map(|n| n as usize).ok_or_else(|| {
            self.error(
                key,
                format!("expected a whole number from {least} to {most}, found {value}"),
            )
        })
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_f64()
            .filter(|n| n.is_finite())
            .ok_or_else(|| self.error(key, format!("expected a number, found {value}")))
    }

    fn positive(&self, key: &str, default: f64) -> Result<f64> {
        match self.number(key, default)? {
            n if n > 0.0 => Ok(n),
            n => Err(self.error(key, format!("expected a positive number, found {n}"))),
        }
    }

    fn dynamic(&self) -> Result<DynamicShift> {
        let shift = DynamicShift {
            base_shift: self.number("base_shift", 0.5)?,
            max_shift: self.number("max_shift", 1.15)?,
            base_image_seq_len: self.count("base_image_seq_len", 256, 1, MOST_TOKENS)?,
            max_image_seq_len: self.count("max_image_seq_len", 4096, 1, MOST_TOKENS)?,
            time_shift_type: match self
                .get("time_shift_type")
                .map(|v| v.as_str().unwrap_or_default())
            {
                None | Some("exponential") => TimeShift::Exponential,
                Some("linear") => TimeShift::Linear,
                Some(other) => {
                    return Err(self.error(
                        "time_shift_type",
                        format!("`{other}` is not supported (exponential, linear are)"),
                    ));
                }
            },
        };
        if shift.max_image_seq_len <= shift.base_image_seq_len {
            let problem = format!(
                "expected more than `base_image_seq_len` ({}), found {}",
                shift.base_image_seq_len, shift.max_image_seq_len
            );
            return Err(self.error("max_image_seq_len", problem));
        }
        Ok(shift)
    }
}

impl FlowMatching {
    /// Reads the value of a `scheduler_config.json`; `path` is for the error messages.
    ///
    /// # Errors
    /// If it is another scheduler's, a key is impossible, or asks for something that is not implemented.
    pub fn from_config(path: &Path, config: &Value) -> Result<Self> {
        let map = config.as_object().ok_or_else(|| {
            Error::file(
                path,
                "expected a JSON object with a scheduler's configuration",
            )
        })?;
        let keys = Keys { path, map };
        let class = keys
            .get("_class_name")
            .map(|v| v.as_str().unwrap_or_default())
            .unwrap_or(EULER);
        if ![EULER, HEUN].contains(&class) {
            return Err(keys
                .error(
                    "_class_name",
                    format!("`{class}` is no flow-matching scheduler that is supported"),
                )
                .with_hint(format!("supported are {EULER} and {HEUN}")));
        }
        let num_train_timesteps = keys.count("num_train_timesteps", 1000, 2, MOST_TIMESTEPS)?;
        let fixed = Shift::Static(keys.positive("shift", 1.0)?);
        if class == HEUN {
            // It reads nothing else.
            return Ok(Self {
                num_train_timesteps,
                shift: fixed,
                spacing: Spacing::Uniform,
                shift_terminal: None,
            });
        }
        for key in OFF {
            if keys.flag(key)? {
                return Err(keys.error(key, "true is not supported, only false"));
            }
        }
        let spacing = match (
            keys.flag("use_karras_sigmas")?,
            keys.flag("use_exponential_sigmas")?,
        ) {
            (false, false) => Spacing::Uniform,
            (true, false) => Spacing::Karras,
            (false, true) => Spacing::Exponential,
            (true, true) => {
                return Err(keys.error(
                    "use_exponential_sigmas",
                    "expected false beside `use_karras_sigmas`",
                ));
            }
        };
        // 0 is no terminal level to diffusers.
        let shift_terminal = match keys.number("shift_terminal", 0.0)? {
            0.0 => None,
            n if n > 0.0 && n < 1.0 => Some(n),
            n => {
                return Err(keys.error(
                    "shift_terminal",
                    format!("expected a number from 0 to below 1, found {n}"),
                ));
            }
        };
        let shift = if keys.flag("use_dynamic_shifting")? {
            Shift::Dynamic(keys.dynamic()?)
        } else {
            fixed
        };
        Ok(Self {
            num_train_timesteps,
            shift,
            spacing,
            shift_terminal,
        })
    }
}
