//! Adversarial rows: vectors in the place of the hidden states that follow a prompt's words. They
//! never pass the text encoder, so they reach the U-Net as it cannot be reached by any prompt
//! (Receler).

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Conditioning, Pipeline, TorchRng};

use crate::{
    data::bank::Examples,
    error::{Error, Result},
    training::adam::{Adam, Moments},
    training::negative_guidance,
    training::snapshot::{Snapshot, Stored},
};

/// Rows that are being learnt, with their moments: one set for all prompts.
#[derive(Clone, Debug)]
pub(crate) struct HiddenRows {
    /// `[rows * width]`
    values: Tensor<1>,
    moments: Moments,
    /// Steps taken.
    step: usize,
    width: usize,
}

impl HiddenRows {
    /// `rows` rows, uniform in [0, 1) times `scale`.
    pub(crate) fn fresh(pipeline: &Pipeline, rows: usize, scale: f64, seed: u64) -> Self {
        let width = pipeline.context_width();
        let values = TorchRng::new(seed).uniform(rows * width);
        let values =
            Tensor::<1>::from_data(TensorData::new(values, [rows * width]), pipeline.device())
                * scale;
        Self {
            moments: Moments::zeros_like(&values),
            values,
            step: 0,
            width,
        }
    }

    /// Prompts with these rows behind their words, as many as fit; `ends` are for each the position
    /// behind its last word.
    pub(crate) fn behind(&self, asked: &Conditioning, ends: &[usize]) -> Conditioning {
        asked.with_tokens(place(&asked.tokens, ends, &self.values, self.width))
    }

    /// Adam steps on the rows: the edited model, asked with them, is to predict what the frozen one
    /// predicts for the prompt.
    ///
    /// `next` gives the examples of a step with their hidden states and ends.
    ///
    /// # Errors
    /// If the loss is not finite, or `next` fails.
    pub(crate) fn attack(
        &mut self,
        edited: &Pipeline,
        adam: Adam,
        lr: f64,
        steps: usize,
        next: &mut dyn FnMut(usize) -> Result<(Examples, Conditioning, Vec<usize>)>,
    ) -> Result<()> {
        let edited = edited.without_gradients();
        for k in 0..steps {
            let (examples, asked, ends) = next(k)?;
            let leaf = self.values.clone().autodiff().require_grad();
            let context = asked.with_tokens(place(&asked.tokens, &ends, &leaf, self.width));
            let loss = negative_guidance::loss(&edited, &examples, &context, &examples.raw_prompt)?;
            let value: f32 = loss.clone().inner().into_scalar();
            if !value.is_finite() {
                return Err(Error::Diverged {
                    step: self.step + 1,
                    loss: value,
                });
            }
            let mut gradients = loss.backward();
            let Some(gradient) = leaf.grad_remove(&mut gradients) else {
                continue;
            };
            self.step += 1;
            self.values =
                self.moments
                    .step_with(adam, self.values.clone(), gradient, lr, self.step);
        }
        Ok(())
    }

    /// Everything, for a store.
    pub(crate) fn stored(&self) -> Snapshot {
        let mut stored = Snapshot::new();
        stored.tensor("rows", &self.values);
        stored.moments("rows", &self.moments);
        stored.count("rows.step", self.step as u64);
        stored
    }

    /// The same back, over fresh rows of the same shape.
    ///
    /// # Errors
    /// If that is not the state of such rows.
    pub(crate) fn restored(mut self, mut stored: Stored) -> Result<Self> {
        let (count, device) = (self.values.dims()[0], self.values.device());
        self.values = stored.tensor("rows", count, &device)?;
        self.moments = stored.moments("rows", count, &device)?;
        self.step = stored.count("rows.step")? as usize;
        stored.end()?;
        Ok(self)
    }
}

fn place(hidden: &Tensor<3>, ends: &[usize], rows: &Tensor<1>, width: usize) -> Tensor<3> {
    let tokens = hidden.dims()[1];
    let count = rows.dims()[0] / width;
    let rows: Tensor<3> = rows.clone().reshape([1, count, width]);
    let one = |(i, &end): (usize, &usize)| {
        let own = hidden.clone().narrow(0, i, 1);
        let end = end.min(tokens);
        let fit = count.min(tokens - end);
        let parts = [(0, end), (end + fit, tokens - end - fit)]
            .map(|(from, n)| (n > 0).then(|| own.clone().narrow(1, from, n)));
        let [before, after] = parts;
        let placed = (fit > 0).then(|| rows.clone().narrow(1, 0, fit));
        Tensor::cat([before, placed, after].into_iter().flatten().collect(), 1)
    };
    Tensor::cat(ends.iter().enumerate().map(one).collect(), 0)
}
