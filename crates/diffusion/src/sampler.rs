//! The samplers by name.

use std::{fmt, path::Path, str::FromStr};

use serde_json::Value;

use crate::error::{Error, Result};

/// The samplers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sampler {
    /// Song et al. 2020, arXiv:2010.02502.
    Ddim,
    /// Ho et al. 2020, arXiv:2006.11239.
    Ddpm,
    /// Liu et al. 2022, arXiv:2202.09778; PLMS where the configuration says `skip_prk_steps`.
    Pndm,
    /// The linear multistep method on the ODE of Karras et al. 2022, arXiv:2206.00364.
    Lms,
    /// Karras et al. 2022, arXiv:2206.00364, without churn.
    Euler,
    /// Euler with the noise of DDPM, Song et al. 2020, arXiv:2011.13456.
    EulerAncestral,
    /// Lu et al. 2022, arXiv:2211.01095.
    DpmPp2m,
    /// The same at the noise levels of Karras et al. 2022.
    DpmPp2mKarras,
    /// Zhao et al. 2023, arXiv:2302.04867.
    UniPc,
    /// Karras et al. 2022, arXiv:2206.00364, of second order; on the straight lines of flow matching
    /// alone.
    Heun,
}

impl Sampler {
    /// Every sampler that follows a noise schedule.
    pub const ALL: [Self; 9] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Lms,
        Self::Euler,
        Self::EulerAncestral,
        Self::DpmPp2m,
        Self::DpmPp2mKarras,
        Self::UniPc,
    ];

    /// Every sampler of flow matching. DDIM's step is Euler's there.
    pub(crate) const FLOW: [Self; 3] = [Self::Euler, Self::Heun, Self::Ddim];

    /// The name first, then the other spellings users know.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Ddim => &["ddim"],
            Self::Ddpm => &["ddpm"],
            Self::Pndm => &["pndm", "plms"],
            Self::Lms => &["lms", "k_lms"],
            Self::Euler => &["euler", "k_euler"],
            Self::EulerAncestral => &["euler-a", "euler_a", "k_euler_a", "euler-ancestral"],
            Self::DpmPp2m => &[
                "dpm++2m",
                "dpmpp-2m",
                "dpmpp_2m",
                "k_dpmpp_2m",
                "dpmsolver++",
            ],
            Self::DpmPp2mKarras => &[
                "dpm++2m-karras",
                "dpmpp-2m-karras",
                "dpmpp_2m_karras",
                "dpmsolver++-karras",
            ],
            Self::UniPc => &["unipc"],
            Self::Heun => &["heun"],
        }
    }

    /// The sampler that a `scheduler_config.json` names in `_class_name`; DDIM if it names none.
    ///
    /// # Errors
    /// If it names a scheduler whose sampler is not here.
    pub fn default_for(path: &Path, config: &Value) -> Result<Self> {
        let Some(class) = config.get("_class_name").and_then(Value::as_str) else {
            return Ok(Self::Ddim);
        };
        Ok(match class {
            "DDIMScheduler" => Self::Ddim,
            "DDPMScheduler" => Self::Ddpm,
            "PNDMScheduler" => Self::Pndm,
            "LMSDiscreteScheduler" => Self::Lms,
            "EulerDiscreteScheduler" => Self::Euler,
            "EulerAncestralDiscreteScheduler" => Self::EulerAncestral,
            "DPMSolverMultistepScheduler"
                if config.get("use_karras_sigmas") == Some(&Value::Bool(true)) =>
            {
                Self::DpmPp2mKarras
            }
            "DPMSolverMultistepScheduler" => Self::DpmPp2m,
            "UniPCMultistepScheduler" => Self::UniPc,
            "FlowMatchEulerDiscreteScheduler" => Self::Euler,
            "FlowMatchHeunDiscreteScheduler" => Self::Heun,
            _ => {
                return Err(Error::config(
                    path,
                    "_class_name",
                    format!("there is no sampler for `{class}`"),
                )
                .with_hint(format!("choose one of {}", name_list())));
            }
        })
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.names()[0])
    }
}

impl FromStr for Sampler {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |name: &str| name.to_lowercase().replace('_', "-");
        let wanted = plain(text.trim());
        let found = Self::ALL
            .into_iter()
            .chain(Self::FLOW)
            .find(|sampler| sampler.names().iter().any(|name| plain(name) == wanted));
        found.ok_or_else(|| {
            Error::input(format!("there is no sampler `{text}`"))
                .with_hint(format!("choose one of {}", name_list()))
        })
    }
}

fn name_list() -> String {
    Sampler::ALL.map(|sampler| sampler.to_string()).join(", ")
}
