//! Prompts as rows of hidden states, in f64.

use burn::tensor::Tensor;
use faer::Mat;
use scumble_nn::files::{HostTensor, Tensors};

use super::{encoded::Encoded, regression::add_products, subspace::stacked};
use crate::{
    error::Result,
    job::{Event, Job},
};

/// Prompts that go through the text encoder at once.
const AT_ONCE: usize = 16;

/// Prompts through the text encoders of the frozen model, each once for a job.
///
/// The empty prompt is encoded like any other, also where guidance would ask with zeros in its place
/// (SDXL): a concept that nothing stands in for goes to what the encoders make of no words.
pub(crate) fn encode(job: &mut Job<'_>, prompts: &[String]) -> Vec<Encoded> {
    let Some(new) = job.encoded.missing(prompts) else {
        return encode_anew(job, prompts);
    };
    let rows = encode_anew(job, &new);
    job.encoded.keep(new, rows);
    job.encoded.of(prompts)
}

/// The same, whatever has been encoded before.
fn encode_anew(job: &Job<'_>, prompts: &[String]) -> Vec<Encoded> {
    let encode = |part: &[String]| {
        let ids: Vec<Vec<u32>> = part
            .iter()
            .map(|prompt| job.pipeline.tokenizer.encode(prompt).ids)
            .collect();
        as_rows(job, part, job.pipeline.text_network().forward(&ids).tokens)
    };
    prompts.chunks(AT_ONCE).flat_map(encode).collect()
}

/// As [`encode_anew`], without the padding behind the longest of some prompts. Attention is causal, so
/// no row before depends on it, and prompts are short.
fn encode_spoken(job: &Job<'_>, prompts: &[String]) -> Vec<Encoded> {
    let encode = |part: &[String]| {
        let encoded: Vec<_> = part
            .iter()
            .map(|prompt| job.pipeline.tokenizer.encode(prompt))
            .collect();
        let longest = encoded
            .iter()
            .map(|prompt| prompt.length)
            .max()
            .unwrap_or(0);
        let ids: Vec<Vec<u32>> = encoded
            .iter()
            .map(|prompt| prompt.ids[..longest].to_vec())
            .collect();
        as_rows(job, part, job.pipeline.text_network().forward(&ids).tokens)
    };
    prompts.chunks(4 * AT_ONCE).flat_map(encode).collect()
}

/// Hidden states of prompts, `[n, tokens, width]`, one prompt each.
fn as_rows(job: &Job<'_>, prompts: &[String], hidden: Tensor<3>) -> Vec<Encoded> {
    let [_, tokens, width] = hidden.dims();
    let numbers: Vec<f32> = hidden.into_data().iter::<f32>().collect();
    let one = |(rows, prompt): (&[f32], &String)| {
        let encoded = job.pipeline.tokenizer.encode(prompt);
        let rows = Mat::from_fn(tokens, width, |i, j| f64::from(rows[i * width + j]));
        Encoded {
            rows,
            last: encoded.length.saturating_sub(2),
            ids: encoded.ids,
        }
    };
    numbers
        .chunks_exact(tokens * width)
        .zip(prompts)
        .map(one)
        .collect()
}

/// Which positions of a caption count in its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// All of them, padding too (the published caches of MACE, which TRCE uses).
    All,
    /// From the start to the first end token (OCE).
    Spoken,
    /// The last word (SPEED).
    LastWord,
}

/// Sums over the rows of the job's captions.
#[derive(Clone, Debug)]
pub(crate) struct Statistics {
    /// The sum of `k k^T`, `[width, width]`.
    pub(crate) sum: Mat<f64>,
    /// How many rows.
    pub(crate) count: usize,
    /// Of how many captions.
    pub(crate) captions: usize,
}

/// The statistics of the job's captions, computed once for a text encoder and a list of captions
/// and kept for every job.
///
/// # Errors
/// If the caller interrupts or the store fails.
pub(crate) fn statistics(job: &mut Job<'_>, positions: Positions) -> Result<Statistics> {
    let width = job.pipeline.context_width();
    let content = format!(
        "statistics-1/{}/{}/{positions:?}",
        job.base_hash,
        job.captions.hash()
    );
    let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
    if let Some(found) = job
        .store
        .get_shared(&hash)?
        .and_then(|stored| read(&stored, width))
    {
        let (sum, count) = found;
        return Ok(Statistics {
            sum,
            count,
            captions: job.captions.lines.len().max(1),
        });
    }
    let (mut sum, mut count) = (Mat::<f64>::zeros(width, width), 0);
    over_captions(job, positions, &mut |rows| {
        count += rows.nrows();
        add_products(&mut sum, rows.as_ref(), rows.as_ref(), 1.0);
    })?;
    let found = Statistics {
        sum,
        count,
        captions: job.captions.lines.len().max(1),
    };
    job.store.put_shared(&hash, write(&found))?;
    Ok(found)
}

/// The rows of the job's captions themselves, `[n, width]`, kept like the [`statistics`].
///
/// # Errors
/// As [`statistics`].
pub(crate) fn caption_rows(job: &mut Job<'_>, positions: Positions) -> Result<Mat<f64>> {
    let width = job.pipeline.context_width();
    let content = format!(
        "rows-1/{}/{}/{positions:?}",
        job.base_hash,
        job.captions.hash()
    );
    let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
    let stored = job
        .store
        .get_shared(&hash)?
        .and_then(|stored| stored.get("rows")?.to_f32());
    let numbers = match stored.filter(|numbers| numbers.len() % width == 0) {
        Some(numbers) => numbers,
        None => {
            // The encoder's numbers are f32, so nothing is lost.
            let mut numbers = Vec::new();
            over_captions(job, positions, &mut |rows| {
                numbers
                    .extend((0..rows.nrows() * width).map(|i| rows[(i / width, i % width)] as f32));
            })?;
            let rows = HostTensor::from_f32([numbers.len() / width, width], &numbers);
            job.store
                .put_shared(&hash, Tensors::from([("rows".to_owned(), rows)]))?;
            numbers
        }
    };
    Ok(Mat::from_fn(numbers.len() / width, width, |i, j| {
        f64::from(numbers[i * width + j])
    }))
}

/// Shows the chosen rows of all captions, those of some captions at a time, `[n, width]`.
fn over_captions(
    job: &mut Job<'_>,
    positions: Positions,
    see: &mut dyn FnMut(Mat<f64>),
) -> Result<()> {
    let (lines, width) = (job.captions.lines.clone(), job.pipeline.context_width());
    job.tell(Event::Stage {
        name: "encoding captions",
        total: lines.len(),
        done: 0,
    })?;
    let mut done = 0;
    for part in lines.chunks(4 * AT_ONCE) {
        let captions = if positions == Positions::All {
            encode_anew(job, part)
        } else {
            encode_spoken(job, part)
        };
        let chosen = captions.into_iter().map(|caption| match positions {
            Positions::All => caption.rows,
            Positions::Spoken => caption.at(0..caption.end() + 1),
            Positions::LastWord => caption.word(),
        });
        see(stacked(&chosen.collect::<Vec<_>>(), width));
        done += part.len();
        job.tell(Event::Step { done, loss: None })?;
    }
    Ok(())
}

/// f64 has no place in a checkpoint's tensors, so its bits go as integers.
fn write(statistics: &Statistics) -> Tensors {
    let n = statistics.sum.nrows();
    let bits: Vec<i64> = (0..n * n)
        .map(|i| statistics.sum[(i / n, i % n)].to_bits() as i64)
        .collect();
    let count = HostTensor::from_i64([1], &[statistics.count as i64]);
    Tensors::from([
        ("sum".to_owned(), HostTensor::from_i64([n, n], &bits)),
        ("count".to_owned(), count),
    ])
}

fn read(stored: &Tensors, width: usize) -> Option<(Mat<f64>, usize)> {
    let bits = stored
        .get("sum")
        .filter(|sum| sum.shape() == [width, width])?
        .to_i64()?;
    let count = usize::try_from(*stored.get("count")?.to_i64()?.first()?).ok()?;
    let sum = Mat::from_fn(width, width, |i, j| {
        f64::from_bits(bits[i * width + j] as u64)
    });
    Some((sum, count))
}
