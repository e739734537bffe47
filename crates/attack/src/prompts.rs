//! Encoded prompts, several as one.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Conditioning, Prompted};

/// One prompt `n` times.
pub fn repeated(prompt: &Prompted, n: usize) -> Prompted {
    together(&vec![prompt.clone(); n])
}

/// Several batches of prompts, one after the other; at least one.
pub fn together(batches: &[Prompted]) -> Prompted {
    Prompted {
        texts: batches.iter().flat_map(|b| b.texts.clone()).collect(),
        embedded: Tensor::cat(batches.iter().map(|b| b.embedded.clone()).collect(), 0),
        conditioning: Conditioning::cat(batches.iter().map(|b| b.conditioning.clone()).collect()),
        lengths: batches.iter().flat_map(|b| b.lengths.clone()).collect(),
    }
}

/// Some of a batch's prompts, in this order.
pub fn rows(batch: &Prompted, which: &[usize]) -> Prompted {
    let index: Vec<i64> = which.iter().map(|&i| i as i64).collect();
    let index = Tensor::from_data(
        TensorData::new(index, [which.len()]),
        &batch.embedded.device(),
    );
    Prompted {
        texts: which.iter().map(|&i| batch.texts[i].clone()).collect(),
        embedded: batch.embedded.clone().select(0, index),
        conditioning: batch.conditioning.select(which),
        lengths: which.iter().map(|&i| batch.lengths[i]).collect(),
    }
}

/// Of two batches of equal length, row by row: `yes` where `which` says so, `no` elsewhere.
pub fn either(which: &[bool], yes: &Prompted, no: &Prompted) -> Prompted {
    let n = which.len();
    let index: Vec<usize> = which
        .iter()
        .enumerate()
        .map(|(i, &w)| if w { i } else { n + i })
        .collect();
    rows(&together(&[yes.clone(), no.clone()]), &index)
}
