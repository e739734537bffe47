//! Many cases attacked side by side: every step is one pass of the network for all that are still open.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Noise, Prompted, Timestep, TorchRng};
use scumble_erase::{Error, Event, Result, seeds::stream};
use scumble_nn::files::{HostTensor, Tensors};

use crate::{
    draw,
    found::Found,
    job::{Case, Job},
    placed::Placed,
    predict::{Aim, Goal, Noisy},
    prompts::together,
    protocol::{Notes, Outcome, Start},
};

/// The adversarial tokens of one case, however they are searched for.
pub trait Search {
    /// What this step differentiates with respect to, `[tokens, columns]`.
    fn leaf(&mut self, rng: &mut TorchRng) -> Tensor<2>;
    /// The vectors that a leaf stands for, `[tokens, width]`.
    fn vectors(&self, leaf: Tensor<2>) -> Tensor<2>;
    /// Follows a gradient like the leaf; `step` counts from 1.
    fn step(&mut self, gradient: Tensor<2>, step: usize);
    /// What is found so far as words, where it is words.
    fn tokens(&self) -> Option<Vec<u32>>;
    /// What is found so far as vectors, `[tokens, width]`.
    fn found(&self) -> Tensor<2>;
    /// All that a continued run needs.
    fn state(&self) -> Vec<Tensor<1>>;
    /// Takes over what [`state`](Self::state) gave.
    fn restore(&mut self, state: Vec<Tensor<1>>);
}

/// Which timesteps a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other, from the middle of the first of equal parts to that of the last, clean to noisy.
    InTurn,
    /// Any, drawn for every step.
    Random,
}

/// How cases are searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lockstep {
    /// Tokens in each prompt's places.
    pub tokens: usize,
    /// Rounds; after each, a picture of every open case is drawn, and a case that shows the concept is closed.
    pub rounds: usize,
    /// Steps in a round.
    pub iterations: usize,
    /// The timesteps.
    pub order: Order,
    /// What is to be predicted.
    pub goal: Goal,
    /// Whether the guard's rule is inside the loss, where there is one.
    pub guarded: bool,
}

/// Cases that go through the network at once.
const AT_ONCE: usize = 20;

/// Searches prefixes for all cases that do not show the concept anyway. Cases share their steps.
///
/// # Errors
/// If a prompt leaves no room, the loss is not finite, or the caller interrupts.
pub fn search<S: Search>(job: &mut Job<'_>, start: &Start, plan: Lockstep, make: &mut dyn FnMut(usize) -> S) -> Result<Outcome> {
    let prompts: Vec<String> = job.prompts();
    let placed = Placed::before(job.victim, &prompts, plan.tokens)?;
    search_at(job, start, plan, &placed, make)
}

/// As [`search`], with the places elsewhere in the cases' prompts.
///
/// # Errors
/// As [`search`].
pub fn search_at<S: Search>(
    job: &mut Job<'_>,
    start: &Start,
    plan: Lockstep,
    placed: &Placed,
    make: &mut dyn FnMut(usize) -> S,
) -> Result<Outcome> {
    let prompts: Vec<String> = job.prompts();
    let (base, victim) = (job.base, job.victim);
    let aim = Aim::new(base, victim, plan.goal, plan.guarded, job.drawing);
    let concepts: Vec<Prompted> = prompts.iter().map(|p| base.prompted(std::slice::from_ref(p))).collect();
    let mut cases: Vec<S> = (0..prompts.len()).map(make).collect();
    let budget = job.budget.unwrap_or(usize::MAX).min(plan.rounds.saturating_mul(plan.iterations));

    let mut state = State { open: start.pre.iter().map(|&pre| !pre).collect(), done: 0 };
    state.restore(job, &mut cases)?;
    job.tell(Event::Stage { name: "searching", total: budget, done: state.done })?;
    while state.done < budget && state.open.iter().any(|&open| open) {
        let round = state.done / plan.iterations;
        let open: Vec<usize> = (0..prompts.len()).filter(|&i| state.open[i]).collect();
        for step in state.done..budget.min((round + 1) * plan.iterations) {
            let mut sum = 0.0;
            for group in open.chunks(AT_ONCE) {
                sum += one_step(job, &aim, plan, (round, step), group, placed, &concepts, start, &mut cases)?;
            }
            state.done = step + 1;
            job.tell(Event::Step { done: state.done, loss: Some(sum / open.len() as f32) })?;
        }
        for i in shown(job, placed, &open, &cases)? {
            state.open[i] = false;
        }
        state.keep(job, &cases)?;
    }
    Ok(Outcome { found: found(job, placed, &start.pre, &cases), budget, spent: state.done, notes: Notes::new() })
}

/// One step of some cases; the sum of their losses.
#[allow(clippy::too_many_arguments)]
fn one_step<S: Search>(
    job: &Job<'_>,
    aim: &Aim<'_>,
    plan: Lockstep,
    (round, step): (usize, usize),
    group: &[usize],
    placed: &Placed,
    concepts: &[Prompted],
    start: &Start,
    cases: &mut [S],
) -> Result<f32> {
    let leaves: Vec<Tensor<2>> = group
        .iter()
        .map(|&i| {
            let mut rng = stream(job.seed, "lockstep/leaves").within(i).rng(step);
            cases[i].leaf(&mut rng).autodiff().require_grad()
        })
        .collect();
    let vectors = group.iter().zip(&leaves).map(|(&i, leaf)| cases[i].vectors(leaf.clone()).unsqueeze::<3>()).collect();
    let asked = placed.filled(job.victim, group, &Tensor::cat(vectors, 0))?;
    let noisy = noisy(job, plan, (round, step), group, start)?;
    let concept = together(&group.iter().map(|&i| concepts[i].clone()).collect::<Vec<_>>());
    let wanted = aim.wanted(&noisy, &concept)?;
    let loss = aim.errors(&noisy, &asked, wanted)?.sum();
    let value: f32 = loss.clone().inner().into_scalar();
    if !value.is_finite() {
        return Err(Error::Diverged { step: step + 1, loss: value });
    }
    let mut gradients = loss.backward();
    for (&i, leaf) in group.iter().zip(&leaves) {
        if let Some(gradient) = leaf.grad_remove(&mut gradients) {
            cases[i].step(gradient, step + 1);
        }
    }
    Ok(value)
}

/// The targets of some cases at a step's timestep. Noise depends on the seed, the case's own seed and the step alone.
fn noisy(job: &Job<'_>, plan: Lockstep, (round, step): (usize, usize), group: &[usize], start: &Start) -> Result<Noisy> {
    let schedule = &job.victim.schedule;
    let all = schedule.num_train_timesteps();
    let label = match plan.order {
        Order::InTurn => ((2 * round + 1) * all / (2 * plan.rounds)).min(all - 1),
        Order::Random => stream(job.seed, "lockstep/timesteps").rng(step).integers(1, 0, all as i64)[0] as usize,
    };
    let t: Vec<Timestep> = vec![schedule.timestep(label)?; group.len()];
    let index: Vec<i64> = group.iter().map(|&i| i as i64).collect();
    let device = job.victim.device();
    let x0 = start.targets.clone().select(0, Tensor::from_data(TensorData::new(index, [group.len()]), device));
    let noises = stream(job.seed, "lockstep/noise");
    let seeds: Vec<u64> = group.iter().map(|&i| noises.within(job.cases[i].seed as usize).at(step)).collect();
    let noise = Noise::seeds(&seeds).draw(x0.dims(), device);
    Ok(Noisy { x: schedule.add_noise(x0, noise.clone(), &t)?, noise, t })
}

/// Which of some cases show the concept with what they have found so far.
fn shown<S: Search>(job: &mut Job<'_>, placed: &Placed, open: &[usize], cases: &[S]) -> Result<Vec<usize>> {
    let Some(shows) = job.shows else { return Ok(Vec::new()) };
    let mut hits = Vec::new();
    for group in open.chunks(AT_ONCE) {
        let seeds: Vec<u64> = group.iter().map(|&i| job.cases[i].seed).collect();
        let prompted = match group.iter().map(|&i| worded(job, placed, i, &cases[i])).collect::<Option<Vec<String>>>() {
            Some(texts) => job.victim.prompted(&texts),
            None => {
                let vectors = group.iter().map(|&i| cases[i].found().unsqueeze::<3>()).collect();
                placed.filled(job.victim, group, &Tensor::cat(vectors, 0))?
            }
        };
        let latents = draw::latents(job.victim, &prompted, &seeds, job.drawing)?;
        let shown = shows(&draw::pictures(job.victim, &latents));
        hits.extend(group.iter().zip(shown).filter(|(_, shown)| *shown).map(|(&i, _)| i));
        // Lets the caller interrupt between groups.
        job.tell(Event::Note(""))?;
    }
    Ok(hits)
}

/// A case's prompt with the words found for it, as text: read again, it may come apart into other tokens.
fn worded<S: Search>(job: &Job<'_>, placed: &Placed, case: usize, search: &S) -> Option<String> {
    Some(placed.worded(job.victim, case, &search.tokens()?))
}

fn found<S: Search>(job: &Job<'_>, placed: &Placed, pre: &[bool], cases: &[S]) -> Found {
    if cases.iter().all(|case| case.tokens().is_some()) {
        let prompt = |i: usize| if pre[i] { None } else { worded(job, placed, i, &cases[i]) };
        let own = |(i, case): (usize, &Case)| Case { prompt: prompt(i).unwrap_or_else(|| case.prompt.clone()), seed: case.seed };
        return Found::Cases(job.cases.iter().enumerate().map(own).collect());
    }
    let one = |i: usize| {
        let found = cases[i].found().unsqueeze::<3>();
        if pre[i] { found.zeros_like() } else { found }
    };
    Found::Prefixes(Tensor::cat((0..cases.len()).map(one).collect(), 0))
}

/// Where a search stands after a round.
struct State {
    open: Vec<bool>,
    done: usize,
}

const KEPT: &str = "lockstep";

impl State {
    fn keep<S: Search>(&self, job: &Job<'_>, cases: &[S]) -> Result<()> {
        let open: Vec<f32> = self.open.iter().map(|&open| f32::from(u8::from(open))).collect();
        let mut tensors = Tensors::from([
            ("open".to_owned(), HostTensor::from_f32([open.len()], &open)),
            ("done".to_owned(), HostTensor::from_f32([1], &[self.done as f32])),
        ]);
        for (i, case) in cases.iter().enumerate() {
            for (j, part) in case.state().into_iter().enumerate() {
                tensors.insert(format!("{i}.{j}"), scumble_erase::train::to_host(part));
            }
        }
        job.store.put(KEPT, tensors)
    }

    fn restore<S: Search>(&mut self, job: &Job<'_>, cases: &mut [S]) -> Result<()> {
        let Some(mut kept) = job.store.get(KEPT)? else { return Ok(()) };
        let mut floats = |name: &str| kept.remove(name).and_then(|host| host.to_f32());
        let (Some(open), Some(done)) = (floats("open"), floats("done")) else { return Ok(()) };
        if open.len() != cases.len() {
            return Ok(());
        }
        self.open = open.iter().map(|&open| open > 0.0).collect();
        self.done = done.first().map_or(0, |&done| done as usize);
        for (i, case) in cases.iter_mut().enumerate() {
            let device = case.found().device();
            let parts = (0..case.state().len())
                .map_while(|j| Some(Tensor::<1>::from_floats(floats(&format!("{i}.{j}"))?.as_slice(), &device)));
            let parts = parts.collect();
            case.restore(parts);
        }
        Ok(())
    }
}
