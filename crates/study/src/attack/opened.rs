//! What an attack is made with: the model with its edits and guards, the plan, and the attack's job.

use std::{ops::ControlFlow, path::PathBuf};

use burn::tensor::Tensor;
use scumble_attack::{
    Checkpoint, Clip, Job,
    job::{Likely, Shows},
};
use scumble_diffusion::{Picture, Pipeline, guards::check as check_guards};
use scumble_erase::{Event, Store};
use scumble_eval::ClipModel;
use serde_json::Map;

use super::plan::{Plan, plan};
use crate::{
    clip, edits, failure::Failure, guards, host::Host, model::Model, request::AttackRequest,
    store::RunStore,
};

/// What an attack is made with.
pub(super) struct Opened {
    pub(super) model: Model,
    pub(super) base: Pipeline,
    pub(super) victim: Pipeline,
    pub(super) plan: Plan,
    pub(super) clip: Option<ClipModel>,
}

impl Opened {
    /// Opens the model with its edits and guards, and plans; says what there is to say of them.
    ///
    /// # Errors
    /// If the request's parts do not fit together, or the attack lacks something.
    pub(super) fn of(request: &AttackRequest, host: Host<'_>) -> Result<Self, Failure> {
        let attack = request.attack;
        if request.budget == Some(0) {
            return Err(
                Failure::new("--budget 0: an attack needs at least one step")
                    .with_hint(format!("a step is {}", attack.step)),
            );
        }
        let model = Model::open(&request.model, host)?;
        let mut notes = model.checkpoint.notes.clone();
        let mut loaded = edits::open_all(&request.edits, &request.loras, &model, &mut notes)?;
        let world = model.world(request.judge, host.built_in)?;
        let guards = guards::open_all(&request.guards, &Map::new(), &mut loaded, world.as_ref())?;
        host.say(&notes[model.checkpoint.notes.len()..]);
        let base = model.pipeline()?;
        let mut victim = if loaded.is_empty() {
            base.clone()
        } else {
            edits::applied(&loaded, &model.checkpoint, &base)?
        };
        victim.guards.extend(guards.iter().cloned());
        check_guards(&victim.guards)?;
        let plan = Plan {
            guards,
            ..plan(request, &model, &base, &loaded, host)?
        };
        let idle = guards::without_effect(
            &victim.guards,
            plan.drawing.steps,
            &[plan.drawing.guidance],
            &[],
        );
        idle.iter()
            .for_each(|text| host.listener.note(&format!("warning: {text}")));
        let clip = clip::open(request.clip.as_deref(), &model, host)?;
        let opened = Self {
            model,
            base,
            victim,
            plan,
            clip,
        };
        if opened.plan.transfer.is_none() {
            opened.ready(host)?;
        }
        Ok(opened)
    }

    /// Whether the attack has what it needs, before a folder is made or anything is drawn.
    fn ready(&self, host: Host<'_>) -> Result<(), Failure> {
        let (plan, clip) = (&self.plan, self.clip.as_ref());
        // Whoever judges is only asked for, not asked.
        let shows = |pictures: &[Picture]| vec![false; pictures.len()];
        let likely = |_: Tensor<4>| -> scumble_attack::Result<Tensor<1>> {
            Err(scumble_attack::Error::input("nobody is asked yet"))
        };
        let (judged, gradients) = (plan.is_judged(), plan.has_gradients());
        let judges = (
            judged.then_some(&shows as &Shows<'_>),
            (judged && gradients).then_some(&likely as &Likely<'_>),
        );
        let prepared = clip.map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
        let clip = clip.zip(prepared.as_ref()).map(|(clip, prepared)| Clip {
            network: &clip.network,
            vocabulary: clip.vocabulary,
            prepared,
        });
        let store = RunStore::new(PathBuf::new(), host);
        let mut listen = |_: Event<'_>| ControlFlow::Continue(());
        let job = job(
            plan,
            &self.model,
            [&self.base, &self.victim],
            judges,
            clip,
            &store,
            &mut listen,
        );
        (plan.attack.options)(&job, plan.variant)?;
        Ok((plan.attack.ready)(&job, plan.variant)?)
    }
}

/// The attack as it will be carried out, with these judges, this store and this listener.
pub(super) fn job<'a>(
    plan: &'a Plan,
    model: &'a Model,
    [base, victim]: [&'a Pipeline; 2],
    (shows, likely): (Option<&'a Shows<'a>>, Option<&'a Likely<'a>>),
    clip: Option<Clip<'a>>,
    store: &'a dyn Store,
    listen: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Job<'a> {
    Job {
        base,
        victim,
        checkpoint: Checkpoint {
            name: &model.checkpoint.name,
            hash: &model.hash,
            family: model.checkpoint.family.name(),
        },
        concept: &plan.concept,
        word: &plan.word,
        cases: &plan.cases,
        shows,
        likely,
        clip,
        world: plan.world.as_ref(),
        drawing: plan.drawing,
        profile: model.profile,
        options: plan.options.clone(),
        budget: plan.budget,
        seed: plan.seed,
        store,
        listen,
    }
}
