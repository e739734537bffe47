//! Whether a method's options fit together and to its job.

use scumble_diffusion::{Sampler, options::unfit};

use crate::{
    error::{Error, Result},
    job::Job,
};

/// Checks that what is kept with a weight has examples in a step.
///
/// # Errors
/// If it has none.
pub(crate) fn retained(retain: f64, batch: usize) -> Result<()> {
    if retain > 0.0 && batch == 0 {
        let expected = "at least 1 where retain is not 0";
        return Err(unfit("retain_batch", batch, expected).into());
    }
    Ok(())
}

/// Checks that the user's pictures, which show one concept, are given for one.
///
/// # Errors
/// If they are not.
pub(crate) fn pictures_of_one(job: &Job<'_>) -> Result<()> {
    if job.pictures.is_some() && job.concepts.len() > 1 {
        return Err(Error::input(format!(
            "the pictures show one concept, {} were given",
            job.concepts.len()
        ))
        .with_hint("erase one at a time, or let the model draw the pictures"));
    }
    Ok(())
}

/// Checks the name of a sampler, and that it is one that reads a share of fresh noise.
///
/// # Errors
/// If there is no such sampler, or the share is another sampler's.
pub(crate) fn sampling(sampler: &str, eta: f64) -> Result<()> {
    let sampler: Sampler = sampler.parse()?;
    if eta > 0.0 && sampler != Sampler::Ddim {
        return Err(Error::input(format!(
            "sampling_eta is {eta}, and {sampler} does not read it"
        ))
        .with_hint("it is DDIM's share of fresh noise: --set sampler=ddim"));
    }
    Ok(())
}

/// Checks that what the user wants preserved is, with the options as they are.
///
/// # Errors
/// If it would not be; the hint says which options it takes.
pub(crate) fn preserving(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    effective("--preserve", does || job.preserve.is_empty(), takes)
}

/// Checks that captions which the user gave count, with the options as they are.
///
/// # Errors
/// If they would not; the hint says which options it takes.
pub(crate) fn captioned(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    effective("--captions", does || !job.captions.given, takes)
}

/// Both, where the same options decide.
///
/// # Errors
/// As [`preserving`] and [`captioned`].
pub(crate) fn keeping(job: &Job<'_>, does: bool, takes: &str) -> Result<()> {
    preserving(job, does, takes)?;
    captioned(job, does, takes)
}

fn effective(flag: &str, fine: bool, takes: &str) -> Result<()> {
    if fine {
        return Ok(());
    }
    Err(
        Error::input(format!("{flag} has no effect with these options"))
            .with_hint(format!("it takes {takes}")),
    )
}
