//! Many cases attacked side by side: every step is one pass of the network for all that are still
//! open.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Interpolant, Noise, Prompted, Timestep, TorchRng};
use scumble_erase::{
    Error, Event, Result,
    seeds::stream,
    snapshot::{Snapshot, Stored},
};

use crate::{
    draw,
    found::Found,
    groups,
    job::{Case, Job},
    placed::Placed,
    predict::{Aim, Goal, Noisy},
    prompts::together,
    protocol::{Looks, Notes, Outcome, Start},
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
    /// Keeps all that a continued run needs under names that begin with `at`.
    fn keep(&self, to: &mut Snapshot, at: &str);
    /// Takes over what [`keep`](Self::keep) kept.
    ///
    /// # Errors
    /// If it is missing, of another size or not finite.
    fn restore(&mut self, from: &mut Stored, at: &str) -> Result<()>;
}

/// Which timesteps a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other, from the middle of the first of equal parts to that of the last, clean
    /// to noisy.
    InTurn,
    /// Any, drawn for every step; all cases see the same.
    Random,
    /// Any, drawn for every step and every case.
    RandomEach,
}

/// How cases are searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lockstep {
    /// Tokens in each prompt's places.
    pub tokens: usize,
    /// Rounds; after each, a picture of every open case is drawn, and a case that shows the concept
    /// is closed.
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

/// Searches prefixes for all cases that do not show the concept anyway. Cases share their steps.
///
/// # Errors
/// If a prompt leaves no room, the loss is not finite, a stored state cannot be continued, or the caller interrupts.
pub fn search<S: Search>(
    job: &mut Job<'_>,
    start: &Start,
    plan: Lockstep,
    make: &mut dyn FnMut(usize) -> S,
) -> Result<Outcome> {
    let prompts: Vec<String> = job.prompts();
    let placed = Placed::before(job.victim, &prompts, plan.tokens)?;
    search_at(job, start, plan, &placed, make)
}

/// Whether the cases' prompts leave room for so many tokens in front of them.
///
/// # Errors
/// If one does not.
pub fn fits(job: &Job<'_>, tokens: usize) -> Result<()> {
    Placed::before(job.victim, &job.prompts(), tokens).map(drop)
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
    let base = job.base;
    let concepts: Vec<Prompted> = prompts
        .iter()
        .map(|p| base.prompted(std::slice::from_ref(p)))
        .collect();
    let mut cases: Vec<S> = (0..prompts.len()).map(make).collect();
    let budget = job
        .budget
        .unwrap_or(usize::MAX)
        .min(plan.rounds.saturating_mul(plan.iterations));
    let frame = Frame {
        plan,
        placed,
        concepts,
        start,
    };

    let mut state = State {
        open: start.pre.iter().map(|&pre| !pre).collect(),
        looks: vec![0; prompts.len()],
        done: 0,
    };
    state.restore(job, &mut cases)?;
    job.tell(Event::Stage {
        name: "searching",
        total: budget,
        done: state.done,
    })?;
    while state.done < budget && state.open.iter().any(|&open| open) {
        let round = state.done / plan.iterations;
        let open: Vec<usize> = (0..prompts.len()).filter(|&i| state.open[i]).collect();
        for step in state.done..budget.min((round + 1) * plan.iterations) {
            let mut sum = 0.0;
            for (guidance, group) in groups::by_guidance(job, &open) {
                let aim = Aim::new(
                    base,
                    job.victim,
                    plan.goal,
                    plan.guarded,
                    job.drawing.with_guidance(guidance),
                );
                // A rule of guidance acts by the step that a timestep is met at: one for a batch.
                let most = if plan.order == Order::RandomEach && aim.guided() {
                    1
                } else {
                    groups::BACKWARD
                };
                for group in group.chunks(most) {
                    sum += frame.step(job, &aim, (round, step), group, &mut cases)?;
                }
            }
            state.done = step + 1;
            job.tell(Event::Step {
                done: state.done,
                loss: Some(sum / open.len() as f32),
            })?;
        }
        for i in frame.shown(job, &open, &cases)? {
            state.open[i] = false;
        }
        open.iter().for_each(|&i| state.looks[i] += 1);
        state.keep(job, &cases)?;
    }
    let looks = Looks {
        most: budget.div_ceil(plan.iterations),
        of: state.looks,
    };
    Ok(Outcome {
        found: frame.found(job, &cases),
        budget,
        spent: state.done,
        looks,
        searches: prompts.len(),
        notes: Notes::new(),
    })
}

/// What stays the same during a search.
struct Frame<'a> {
    plan: Lockstep,
    placed: &'a Placed,
    concepts: Vec<Prompted>,
    start: &'a Start,
}

impl Frame<'_> {
    /// One step of some cases; the sum of their losses.
    fn step<S: Search>(
        &self,
        job: &Job<'_>,
        aim: &Aim<'_>,
        (round, step): (usize, usize),
        group: &[usize],
        cases: &mut [S],
    ) -> Result<f32> {
        let leaves: Vec<Tensor<2>> = group
            .iter()
            .map(|&i| {
                let mut rng = stream(job.seed, "lockstep/leaves").within(i).rng(step);
                cases[i].leaf(&mut rng).autodiff().require_grad()
            })
            .collect();
        let vectors = group
            .iter()
            .zip(&leaves)
            .map(|(&i, leaf)| cases[i].vectors(leaf.clone()).unsqueeze::<3>())
            .collect();
        let mut asked = self
            .placed
            .filled(job.victim, group, &Tensor::cat(vectors, 0))?;
        if self.placed.is_whole() {
            // Rules that look at words shall see those that are tried, not the prompt that is
            // nowhere in them.
            for (text, &i) in asked.texts.iter_mut().zip(group) {
                *text = self.worded(job, i, &cases[i]).unwrap_or_default();
            }
        }
        let noisy = self.noisy(job, (round, step), group)?;
        let concept = together(
            &group
                .iter()
                .map(|&i| self.concepts[i].clone())
                .collect::<Vec<_>>(),
        );
        let wanted = aim.wanted(&noisy, &concept)?;
        let loss = aim.errors(&noisy, &asked, wanted)?.sum();
        let value: f32 = loss.clone().inner().into_scalar();
        if !value.is_finite() {
            return Err(Error::Diverged {
                step: step + 1,
                loss: value,
            });
        }
        let mut gradients = loss.backward();
        for (&i, leaf) in group.iter().zip(&leaves) {
            if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                cases[i].step(gradient, step + 1);
            }
        }
        Ok(value)
    }

    /// The targets of some cases at a step's timestep. Noise depends on the seed, the case's own
    /// seed and the step alone.
    fn noisy(
        &self,
        job: &Job<'_>,
        (round, step): (usize, usize),
        group: &[usize],
    ) -> Result<Noisy> {
        let schedule = &job.victim.schedule;
        let all = schedule.num_train_timesteps();
        let any = stream(job.seed, "lockstep/timesteps");
        let label = |case: usize| match self.plan.order {
            Order::InTurn => ((2 * round + 1) * all / (2 * self.plan.rounds)).min(all - 1),
            Order::Random => any.rng(step).integers(1, 0, all as i64)[0] as usize,
            Order::RandomEach => any.within(case).rng(step).integers(1, 0, all as i64)[0] as usize,
        };
        let t: Vec<Timestep> = group
            .iter()
            .map(|&i| Ok(schedule.timestep(label(i))?))
            .collect::<Result<_>>()?;
        let index: Vec<i64> = group.iter().map(|&i| i as i64).collect();
        let device = job.victim.device();
        let x0 = self.start.targets.clone().select(
            0,
            Tensor::from_data(TensorData::new(index, [group.len()]), device),
        );
        let noises = stream(job.seed, "lockstep/noise");
        let seeds: Vec<u64> = group
            .iter()
            .map(|&i| noises.within(job.cases[i].seed as usize).at(step))
            .collect();
        let noise = Noise::seeds(&seeds).draw(x0.dims(), device);
        Ok(Noisy {
            x: schedule.add_noise(x0.clone(), noise.clone(), &t)?,
            target: schedule.regression_target(x0, noise, &t)?,
            t,
        })
    }

    /// Which of some cases show the concept with what they have found so far.
    fn shown<S: Search>(
        &self,
        job: &mut Job<'_>,
        open: &[usize],
        cases: &[S],
    ) -> Result<Vec<usize>> {
        let Some(shows) = job.shows else {
            return Ok(Vec::new());
        };
        let mut hits = Vec::new();
        for group in open.chunks(groups::BACKWARD) {
            let own: Vec<Case> = group.iter().map(|&i| job.cases[i].clone()).collect();
            let prompted = match group
                .iter()
                .map(|&i| self.worded(job, i, &cases[i]))
                .collect::<Option<Vec<String>>>()
            {
                Some(texts) => job.victim.prompted(&texts),
                None => {
                    let vectors = group
                        .iter()
                        .map(|&i| cases[i].found().unsqueeze::<3>())
                        .collect();
                    self.placed
                        .filled(job.victim, group, &Tensor::cat(vectors, 0))?
                }
            };
            let latents = draw::latents(job.victim, &prompted, &own, job.drawing)?;
            let shown = shows(&draw::pictures(job.victim, &latents));
            hits.extend(
                group
                    .iter()
                    .zip(shown)
                    .filter(|(_, shown)| *shown)
                    .map(|(&i, _)| i),
            );
            // Lets the caller interrupt between groups.
            job.tell(Event::Note(""))?;
        }
        Ok(hits)
    }

    /// A case's prompt with the words found for it, as text: read again, it may come apart into
    /// other tokens.
    fn worded<S: Search>(&self, job: &Job<'_>, case: usize, search: &S) -> Option<String> {
        Some(self.placed.worded(job.victim, case, &search.tokens()?))
    }

    fn found<S: Search>(&self, job: &Job<'_>, cases: &[S]) -> Found {
        let pre = &self.start.pre;
        if cases.iter().all(|case| case.tokens().is_some()) {
            let prompt = |i: usize| {
                if pre[i] {
                    None
                } else {
                    self.worded(job, i, &cases[i])
                }
            };
            let own = |(i, case): (usize, &Case)| Case {
                prompt: prompt(i).unwrap_or_else(|| case.prompt.clone()),
                ..case.clone()
            };
            return Found::Cases(job.cases.iter().enumerate().map(own).collect());
        }
        let one = |i: usize| {
            let found = cases[i].found().unsqueeze::<3>();
            if pre[i] { found.zeros_like() } else { found }
        };
        Found::Prefixes(Tensor::cat((0..cases.len()).map(one).collect(), 0))
    }
}

/// Where a search stands after a round.
struct State {
    open: Vec<bool>,
    /// Pictures of each case that a judge has looked at, or would have.
    looks: Vec<usize>,
    done: usize,
}

const KEPT: &str = "lockstep";

impl State {
    fn keep<S: Search>(&self, job: &Job<'_>, cases: &[S]) -> Result<()> {
        let mut snapshot = Snapshot::new();
        snapshot.whole(
            "open",
            &self
                .open
                .iter()
                .map(|&open| u64::from(open))
                .collect::<Vec<_>>(),
        );
        snapshot.whole(
            "looks",
            &self
                .looks
                .iter()
                .map(|&looks| looks as u64)
                .collect::<Vec<_>>(),
        );
        snapshot.count("done", self.done as u64);
        cases
            .iter()
            .enumerate()
            .for_each(|(i, case)| case.keep(&mut snapshot, &i.to_string()));
        snapshot.keep(job.store, KEPT)
    }

    fn restore<S: Search>(&mut self, job: &Job<'_>, cases: &mut [S]) -> Result<()> {
        let Some(mut stored) = Stored::get(job.store, KEPT)? else {
            return Ok(());
        };
        self.open = stored
            .below("open", cases.len(), 2)?
            .iter()
            .map(|&open| open == 1)
            .collect();
        self.looks = stored
            .whole("looks", cases.len())?
            .iter()
            .map(|&looks| looks as usize)
            .collect();
        self.done = stored.count("done")? as usize;
        cases
            .iter_mut()
            .enumerate()
            .try_for_each(|(i, case)| case.restore(&mut stored, &i.to_string()))?;
        stored.end()
    }
}
