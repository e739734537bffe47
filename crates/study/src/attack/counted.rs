//! What an attack will take at most: the attack, run on an outline of the model, where nobody ever says
//! that the concept is back.

use burn::tensor::Tensor;
use scumble_attack::{
    Clip,
    job::{Likely, Shows},
    protocol,
};
use scumble_diffusion::{Picture, Pipeline};
use scumble_erase::Event;

use super::opened::{Opened, job};
use crate::{
    estimate::{self, Counted, Counting, Patience},
    failure::Failure,
    host::Host,
};

/// What the attack asks of an outline.
///
/// # Errors
/// If the attack refuses the job, only tries what was found before, or the user interrupts.
pub(super) fn counted(opened: &Opened, host: Host<'_>) -> Result<Counted, Failure> {
    let plan = &opened.plan;
    if plan.transfer.is_some() {
        return Err(Failure::new(
            "--transfer draws each case once and searches for nothing",
        ));
    }
    let outline = Pipeline::new(opened.base.outline());
    let mut victim = outline.clone();
    victim.guards.clone_from(&opened.victim.guards);
    // The unedited model's pictures show the concept, as attacks want them to that learn from them;
    // those of the edited one are black and show nothing.
    black(&mut victim)?;
    let shows = |pictures: &[Picture]| -> Vec<bool> {
        let lit = |picture: &Picture| picture.rgb.iter().any(|&v| v > 0);
        pictures.iter().map(lit).collect()
    };
    let likely = |pictures: Tensor<4>| -> scumble_attack::Result<Tensor<1>> {
        let [n, c, h, w] = pictures.dims();
        Ok(pictures.reshape([n, c * h * w]).mean_dim(1).reshape([n]))
    };
    let (judged, gradients) = (plan.is_judged(), plan.has_gradients());
    let judges = (
        judged.then_some(&shows as &Shows<'_>),
        (judged && gradients).then_some(&likely as &Likely<'_>),
    );
    let clip = opened.clip.as_ref();
    let prepared = clip.map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
    let clip = clip.zip(prepared.as_ref()).map(|(clip, prepared)| Clip {
        network: &clip.network,
        vocabulary: clip.vocabulary,
        prepared,
    });
    let (store, patience) = (Counting::default(), Patience::new());
    let mut listen = |event: Event<'_>| patience.hears(&event, host.listener);
    let mut job = job(
        plan,
        &opened.model,
        [&outline, &victim],
        judges,
        clip,
        &store,
        &mut listen,
    );
    let came = protocol::run(plan.attack, &mut job, plan.variant);
    if host.listener.interrupted() {
        return Err(Failure::interrupted());
    }
    if let Err(error) = came
        && patience.share() >= 1.0
    {
        return Err(error.into());
    }
    Ok(Counted {
        denoiser: outline.denoiser.weights.evaluations().asked(),
        prompts: estimate::prompts(&outline),
        numbers: 0,
        moved: Vec::new(),
        kept: (store.bytes() as f64 * estimate::larger(&opened.base, &outline)?) as u64,
        share: patience.share(),
    })
}

/// Lets a model draw nothing but black.
fn black(model: &mut Pipeline) -> Result<(), Failure> {
    let weights = &mut model.autoencoder.weights;
    for (name, value) in [("weight", 0.0), ("bias", -10.0)] {
        let name = format!("decoder.conv_out.{name}");
        if let Some(weight) = weights.get(&name) {
            let flat = weight.flat().zeros_like() + value;
            weights.replace(&name, flat)?;
        }
    }
    Ok(())
}
