//! The options of single samplers in a scheduler's configuration: what each class of diffusers 0.42
//! reads, and which of its values are implemented.
//!
//! A configuration may hold options of other classes, left over from a change of scheduler;
//! diffusers passes them over, and so are they here. An option that a class has matters when its
//! sampler is used, not before.

use serde_json::{Map, Value};

use crate::sampler::Sampler;

/// Values of an option that are implemented.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// Both true and false.
    Flag,
    /// Only false.
    False,
    /// Only true.
    True,
    /// Only null.
    Null,
    /// Only these names; null is the class's default.
    Names(&'static [&'static str]),
    /// Only this number.
    Number(u64),
    /// Only -Infinity, which Python's JSON has and ours reads as a string.
    MinusInfinity,
    /// Only an empty list.
    Empty,
}
use Takes::*;

type Known = (&'static str, Takes);

/// The key of a schedule whose last timestep has no signal (Lin et al. 2023, arXiv:2305.08891).
pub(super) const ZERO_TERMINAL_SNR: &str = "rescale_betas_zero_snr";

const ZERO_SNR: Known = (ZERO_TERMINAL_SNR, Flag);
const THRESHOLDING: Known = ("thresholding", False);
const EXPONENTIAL: Known = ("use_exponential_sigmas", False);
const BETA: Known = ("use_beta_sigmas", False);
const FLOW: Known = ("use_flow_sigmas", False);
const SHIFTING: Known = ("use_dynamic_shifting", False);
const FINAL_SIGMA: Known = ("final_sigmas_type", Names(&["zero"]));
const SIGMA_MIN: Known = ("sigma_min", Null);
const SIGMA_MAX: Known = ("sigma_max", Null);
const ORDER: Known = ("solver_order", Number(2));
const LAST_LOWER: Known = ("lower_order_final", True);

/// What a sampler's class reads beside the schedule, and what of it is implemented.
fn options(sampler: Sampler) -> &'static [Known] {
    match sampler {
        Sampler::Ddim => &[ZERO_SNR, THRESHOLDING],
        Sampler::Ddpm => &[
            ZERO_SNR,
            THRESHOLDING,
            ("variance_type", Names(&["fixed_small"])),
        ],
        Sampler::Pndm => &[],
        Sampler::Lms => &[EXPONENTIAL, BETA],
        Sampler::Euler => &[
            ZERO_SNR,
            EXPONENTIAL,
            BETA,
            FINAL_SIGMA,
            SIGMA_MIN,
            SIGMA_MAX,
            ("interpolation_type", Names(&["linear"])),
            ("timestep_type", Names(&["discrete"])),
        ],
        Sampler::EulerAncestral => &[ZERO_SNR],
        Sampler::DpmPp2m | Sampler::DpmPp2mKarras => &[
            ZERO_SNR,
            THRESHOLDING,
            EXPONENTIAL,
            BETA,
            FLOW,
            SHIFTING,
            FINAL_SIGMA,
            ORDER,
            LAST_LOWER,
            ("euler_at_final", False),
            ("use_lu_lambdas", False),
            ("lambda_min_clipped", MinusInfinity),
            // The class takes `deis`, and the names of other classes' solvers, for its defaults.
            ("algorithm_type", Names(&["dpmsolver++", "deis"])),
            ("solver_type", Names(&["midpoint", "logrho", "bh1", "bh2"])),
            // Values that do not begin like this are never asked for.
            (
                "variance_type",
                Names(&[
                    "fixed_small",
                    "fixed_small_log",
                    "fixed_large",
                    "fixed_large_log",
                ]),
            ),
        ],
        Sampler::Heun => &[],
        Sampler::UniPc => &[
            ZERO_SNR,
            THRESHOLDING,
            EXPONENTIAL,
            BETA,
            FLOW,
            SHIFTING,
            FINAL_SIGMA,
            SIGMA_MIN,
            SIGMA_MAX,
            ORDER,
            LAST_LOWER,
            ("shift_terminal", Null),
            ("predict_x0", True),
            (
                "solver_type",
                Names(&["bh2", "bh1", "midpoint", "heun", "logrho"]),
            ),
            ("disable_corrector", Empty),
            ("solver_p", Null),
        ],
    }
}

/// What is wrong with a value; `None` if it is implemented.
fn problem(takes: Takes, value: &Value) -> Option<String> {
    let (fine, only) = match takes {
        Flag => (value.is_boolean(), "true or false".to_owned()),
        False => (value == &Value::Bool(false), "false".to_owned()),
        True => (value == &Value::Bool(true), "true".to_owned()),
        Null => (false, "null".to_owned()),
        Names(names) => (
            value.as_str().is_some_and(|v| names.contains(&v)),
            format!("`{}`", names[0]),
        ),
        Number(n) => (value.as_f64() == Some(n as f64), n.to_string()),
        MinusInfinity => (value == "-Infinity", "-Infinity".to_owned()),
        Empty => (
            value.as_array().is_some_and(Vec::is_empty),
            "an empty list".to_owned(),
        ),
    };
    (!fine).then(|| format!("{value} is not supported, only {only}"))
}

/// The options of a sampler's class that ask for something else than is implemented: key and
/// problem.
pub(super) fn unmet(sampler: Sampler, config: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let asked = |key: &str| config.get(key).filter(|value| !value.is_null());
    options(sampler)
        .iter()
        .filter_map(|(key, takes)| Some((*key, problem(*takes, asked(key)?)?)))
        .collect()
}

/// Whether a sampler's class reads an option.
pub(super) fn reads(sampler: Sampler, key: &str) -> bool {
    options(sampler).iter().any(|(known, _)| *known == key)
}

/// Options that would matter to another class and are none of this sampler's own, with their
/// values.
pub(super) fn passed_over(
    sampler: Sampler,
    config: &Map<String, Value>,
) -> Vec<(&'static str, &Value)> {
    let own: Vec<&str> = options(sampler).iter().map(|(key, _)| *key).collect();
    let mut found: Vec<(&'static str, &Value)> = Vec::new();
    for (key, takes) in Sampler::ALL.into_iter().flat_map(options) {
        if let Some(value) = config.get(*key).filter(|value| !value.is_null())
            && !own.contains(key)
            && !found.iter().any(|(known, _)| known == key)
            && (problem(*takes, value).is_some()
                || value == &Value::Bool(true) && matches!(takes, Flag))
        {
            found.push((key, value));
        }
    }
    found
}
