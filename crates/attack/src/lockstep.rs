//! Many cases attacked side by side: every step is one pass of the network for all that are still
//! open.

use burn::tensor::{Tensor, TensorData};
use scumble_diffusion::{Interpolant, Noise, Prompted, Timestep};
use scumble_erase::{
    Error, Event, Result,
    seeds::stream,
    training::snapshot::{Snapshot, Stored},
};

use crate::{
    closest::Closest,
    draw,
    found::Found,
    groups,
    job::{Case, Job},
    placed::Placed,
    predict::{Aim, Noisy},
    prompts::together,
    protocol::{Looks, Notes, Outcome, Start},
};

pub(crate) use crate::search::{Lockstep, Order, Search, Stop};

/// Searches prefixes for all cases that do not show the concept anyway. Cases share their steps.
///
/// # Errors
/// If a prompt leaves no room, the loss is not finite, a stored state cannot be continued, or the caller interrupts.
pub(crate) fn search<S: Search>(
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
pub(crate) fn fits(job: &Job<'_>, tokens: usize) -> Result<()> {
    Placed::before(job.victim, &job.prompts(), tokens).map(drop)
}

/// As [`search`], with the places elsewhere in the cases' prompts.
///
/// # Errors
/// As [`search`].
pub(crate) fn search_at<S: Search>(
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
        closest: match plan.stop {
            Stop::FirstHit => None,
            Stop::Closest { .. } => Some(Closest::new(
                job,
                &draw::pictures(base, &start.targets),
                plan.tokens,
            )?),
        },
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
        match &mut state.closest {
            None => {
                for i in frame.shown(job, &open, &cases)? {
                    state.open[i] = false;
                    if let Some(words) = frame.worded(job, i, &cases[i]) {
                        job.tell(Event::Detail(&format!("it is back: {words}")))?;
                    }
                }
                open.iter().for_each(|&i| state.looks[i] += 1);
            }
            Some(closest) => {
                for group in open.chunks(groups::BACKWARD) {
                    let latents = frame.drawn(job, group, &cases)?;
                    let pictures = draw::pictures(job.victim, &latents);
                    let words = |i: usize| cases[i].tokens();
                    closest.look(job, group, &pictures, &words)?;
                    // Lets the caller interrupt between groups.
                    job.tell(Event::Note(""))?;
                }
            }
        }
        state.keep(job, &cases)?;
    }
    let (found, looks) = match (&state.closest, plan.stop) {
        (Some(closest), Stop::Closest { pictures }) => frame.judged(job, closest, pictures)?,
        _ => {
            let looks = Looks {
                most: budget.div_ceil(plan.iterations),
                of: state.looks,
            };
            (frame.found(job, &cases), looks)
        }
    };
    Ok(Outcome {
        found,
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

    /// Latents of some cases with what they have found so far.
    fn drawn<S: Search>(&self, job: &Job<'_>, group: &[usize], cases: &[S]) -> Result<Tensor<4>> {
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
        draw::latents(job.victim, &prompted, &own, job.drawing)
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
            let latents = self.drawn(job, group, cases)?;
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

    /// The cases with the words that were kept of them. The judge sees up to `pictures` of each,
    /// the first with the case's own noise, and a case has the noise of the first that shows the
    /// concept.
    fn judged(
        &self,
        job: &mut Job<'_>,
        closest: &Closest<'_>,
        pictures: usize,
    ) -> Result<(Found, Looks)> {
        let mut cases = job.cases.to_vec();
        for (i, case) in cases.iter_mut().enumerate() {
            if let Some(words) = closest.words(i) {
                case.prompt = self.placed.worded(job.victim, i, words);
            }
        }
        let Some(shows) = job.shows else {
            let looks = Looks::once(cases.len());
            return Ok((Found::Cases(cases), looks));
        };
        let noises = stream(job.seed, "lockstep/pictures");
        let mut looks = Looks {
            most: pictures,
            of: vec![0; cases.len()],
        };
        let mut open: Vec<usize> = (0..cases.len()).filter(|&i| !self.start.pre[i]).collect();
        for k in 0..pictures {
            let mut tried: Vec<Case> = open.iter().map(|&i| cases[i].clone()).collect();
            if k > 0 {
                for (&i, case) in open.iter().zip(&mut tried) {
                    case.seed = noises.within(i).at(k);
                }
            }
            let shown = draw::shown(job, &tried, shows)?;
            let mut left = Vec::new();
            for ((i, case), shown) in open.into_iter().zip(tried).zip(shown) {
                looks.of[i] += 1;
                if shown {
                    cases[i] = case;
                } else {
                    left.push(i);
                }
            }
            open = left;
        }
        Ok((Found::Cases(cases), looks))
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
struct State<'a> {
    open: Vec<bool>,
    /// Pictures of each case that a judge has looked at, or would have.
    looks: Vec<usize>,
    done: usize,
    /// The words kept so far, where a CLIP chooses them.
    closest: Option<Closest<'a>>,
}

const KEPT: &str = "lockstep";

impl State<'_> {
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
        if let Some(closest) = &self.closest {
            closest.keep(&mut snapshot);
        }
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
        if let Some(closest) = &mut self.closest {
            closest.restore(job, &mut stored)?;
        }
        stored.end()
    }
}
