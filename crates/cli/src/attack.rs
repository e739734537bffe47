//! `scumble attack`: tries to bring back what an edit erased.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use burn::tensor::Tensor;
use scumble_attack::{Attack, Case, Checkpoint, Clip, Drawing, Found, Job, Report, attacks, protocol};
use scumble_diffusion::{Guard, Picture, Pipeline, guards::check as check_guards};
use scumble_erase::{Concept, Event, Variant, Wording, World};
use scumble_eval::{Rate, attacked, rates::Z95};
use scumble_report::{Grid, Image, Row, png};
use serde_json::{Map, Value, json};

use crate::{
    args::AttackArgs,
    clip,
    drawing::drawing,
    edits::{self, Loaded},
    failure::{Failure, Outcome},
    guards,
    model::Model,
    options, output,
    progress::{self, Progress},
    prompts::{self, Seeds},
    store::{Found as Folder, RECORD, RunFolder, RunStore, cache_dir, write_file},
};

/// A line for each case.
pub(crate) const LINES: &str = "attack.jsonl";
/// The unedited model, the edited one, and the edited one under attack.
pub(crate) const PICTURE: &str = "attack.png";
/// Single pictures of some cases.
const PICTURES: &str = "pictures";
/// How many cases keep their pictures.
const KEPT: usize = 12;
/// Most cases of one attack.
const MOST: usize = 10_000;
/// Rows and columns of the picture.
const SHOWN: (usize, usize) = (8, 3);

/// Everything that decides the result.
struct Plan {
    attack: &'static Attack,
    variant: Variant,
    options: Map<String, Value>,
    budget: Option<usize>,
    concept: Concept,
    word: String,
    cases: Vec<Case>,
    drawing: Drawing,
    seed: u64,
    /// What the checkpoint is known to draw.
    world: Option<World>,
    /// Whether the miniature's judges know the concept.
    question: Option<attacked::Question>,
    /// How probable a judge must find the concept.
    threshold: f32,
    /// A finding of an earlier attack, to be tried without any search, and its file's hash.
    transfer: Option<(PathBuf, String)>,
    /// The hash of the files of the user's CLIP.
    clip: Option<String>,
    model: String,
    edits: Vec<Value>,
    guards: Vec<Guard>,
}

pub(crate) fn run(args: &AttackArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet);
    let record = perform(args, &progress);
    progress.finish();
    report(args, &record?)?;
    Ok(Outcome::Done)
}

/// Attacks, or finds that it has been done; the run's record.
///
/// # Errors
/// If the arguments do not fit together, or the attack fails.
pub(crate) fn perform(args: &AttackArgs, progress: &Progress) -> Result<Value, Failure> {
    let attack = attacks::named(&args.attack)?;
    if args.budget == Some(0) {
        return Err(Failure::new("--budget 0: an attack needs at least one step").with_hint(format!("a step is {}", attack.step)));
    }
    let quiet = args.print.quiet;
    let model = Model::open(&args.model, None, quiet)?;
    let mut notes = model.checkpoint.notes.clone();
    let mut loaded = edits::open_all(&args.edits.edit, &args.edits.lora, &model, &mut notes)?;
    let world = (model.builtin || args.judge).then(World::emoji);
    let guards = guards::open_all(&args.guard, &[], &mut loaded, world.as_ref())?;
    edits::say(&notes[model.checkpoint.notes.len()..], quiet);
    let base = model.pipeline()?;
    let mut victim = if loaded.is_empty() { base.clone() } else { edits::applied(&loaded, &model, &base)? };
    victim.guards.extend(guards.iter().cloned());
    check_guards(&victim.guards)?;
    let plan = Plan { guards, ..plan(args, attack, &model, &base, &loaded)? };

    let folder = args.output.output_dir.clone().unwrap_or_else(|| plan.default_folder());
    match RunFolder::open(&folder, &plan.hash(), args.output.overwrite)? {
        Folder::Finished(record) => {
            if !quiet {
                output::note(&format!("{} is finished; here is its result", folder.display()));
            }
            Ok(record)
        }
        Folder::ToDo(run) => carry_out(args, &plan, &model, &base, &victim, &run, progress),
    }
}

fn plan(
    args: &AttackArgs,
    attack: &'static Attack,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
) -> Result<Plan, Failure> {
    let home = model.builtin || args.judge;
    let world = World::emoji();
    let name = concept_name(args, loaded)?;
    let concept = Concept::new(&name, &Wording::default(), home.then_some(&world))?;
    concept.fits(&pipeline.tokenizer)?;
    let n = args.n.unwrap_or(attack.cases);
    if n == 0 || n > MOST {
        return Err(Failure::new(format!("--n {n}: expected 1 to {MOST} pictures")));
    }
    let known = home.then(|| attacked::cases(&world, &name, n)).flatten();
    let asked: Vec<String> = concept.asked().collect();
    let cases = match (&args.prompts, known) {
        (Some(path), _) => of_file(path, args.n, args.seed)?,
        (None, Some(known)) => known.into_iter().map(|(prompt, seed)| Case { prompt, seed }).collect(),
        (None, None) => (0..n).map(|i| Case { prompt: asked[i % asked.len()].clone(), seed: i as u64 }).collect(),
    };
    let word = args.word.clone().or_else(|| attacked::word(&world, &name).filter(|_| home)).unwrap_or_else(|| name.clone());
    Ok(Plan {
        attack,
        variant: args.variant.parse()?,
        options: options::of_set(&args.set)?,
        budget: args.budget,
        question: home.then(|| attacked::Question::about(&world, &name)).flatten(),
        threshold: threshold(args)?,
        world: home.then_some(world),
        concept,
        word,
        cases,
        drawing: drawing(&args.drawing, model, pipeline)?,
        seed: args.seed,
        transfer: args.transfer.as_deref().map(finding).transpose()?,
        clip: args.clip.as_deref().map(clip::hash).transpose()?,
        model: model.hash.clone(),
        edits: loaded.iter().map(|one| json!({"hash": one.hash, "strength": one.strength})).collect(),
        guards: Vec::new(),
    })
}

/// What was erased: what the user says, or what the edits say about themselves.
fn concept_name(args: &AttackArgs, loaded: &[Loaded]) -> Result<String, Failure> {
    let said = || args.guard.iter().find_map(|guard| guard.split_once('=')).map(|(_, text)| text.to_owned());
    let own = || loaded.iter().flat_map(|one| one.edit.about.concepts.first()).next().cloned().or_else(said);
    args.concept.clone().map(|name| name.trim().to_owned()).or_else(own).ok_or_else(|| {
        Failure::new("no concept to bring back").with_hint("name one with --concept, or give an --edit that says what it erased")
    })
}

/// The cases of a prompt file; each row is one picture.
fn of_file(path: &Path, n: Option<usize>, seed: u64) -> Result<Vec<Case>, Failure> {
    let rows = prompts::read(path, seed)?;
    let case = |row: prompts::Case| {
        let (Seeds::Each(seed) | Seeds::Block(seed)) = row.seeds;
        Case { prompt: row.prompt, seed }
    };
    let cases: Vec<Case> = rows.into_iter().map(case).take(n.unwrap_or(MOST)).collect();
    if cases.is_empty() {
        return Err(Failure::new(format!("--prompts {}: holds no prompt", path.display())));
    }
    Ok(cases)
}

fn threshold(args: &AttackArgs) -> Result<f32, Failure> {
    match args.threshold.unwrap_or(attacked::THRESHOLD) {
        given if given > 0.0 && given <= 1.0 => Ok(given),
        given => Err(Failure::new(format!("--threshold {given}: expected a probability above 0, up to 1"))),
    }
}

/// The file that an earlier attack found, and its hash.
fn finding(path: &Path) -> Result<(PathBuf, String), Failure> {
    let file = if path.is_dir() {
        let record: Value =
            fs_err::read(path.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let name = record["found"].as_str().filter(|name| !name.contains(['/', '\\'])).map(|name| path.join(name));
        name.ok_or_else(|| {
            Failure::new(format!("--transfer {}: is not the folder of a finished attack that found something", path.display()))
        })?
    } else {
        path.to_owned()
    };
    let bytes = fs_err::read(&file).map_err(|e| Failure::from(e).of("--transfer"))?;
    Ok((file, blake3::hash(&bytes).to_hex().to_string()))
}

impl Plan {
    fn value(&self) -> Value {
        json!({
            "command": "attack", "model": self.model, "edits": self.edits, "guards": self.guards, "attack": self.attack.id, "variant": self.variant,
            "concept": self.concept, "word": self.word, "cases": self.cases, "clip": self.clip, "drawing": self.drawing,
            "sampler": self.drawing.sampler.map(|s| s.to_string()), "options": self.options, "budget": self.budget,
            "seed": self.seed, "threshold": self.question.as_ref().map(|_| self.threshold), "transfer": self.transfer.as_ref().map(|(_, hash)| hash),
        })
    }

    fn hash(&self) -> String {
        blake3::hash(self.value().to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    fn default_folder(&self) -> PathBuf {
        let name = format!("attack-{}-{}-{}", self.attack.id, output::slug(&self.concept.name), &self.hash()[..8]);
        PathBuf::from("scumble-out").join(name)
    }
}

/// Runs the plan from wherever an earlier run of it stopped; the run's record.
fn carry_out(
    args: &AttackArgs,
    plan: &Plan,
    model: &Model,
    base: &Pipeline,
    victim: &Pipeline,
    run: &RunFolder,
    progress: &Progress,
) -> Result<Value, Failure> {
    let mut record = json!({
        "plan_hash": plan.hash(), "plan": plan.value(), "finished": false,
        "scumble": env!("CARGO_PKG_VERSION"), "model": model.checkpoint.name, "device": model.device_name,
        "threads": rayon::current_num_threads(),
    });
    let earlier: Value =
        fs_err::read(run.path.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let seconds_before = earlier["seconds"].as_f64().filter(|s| s.is_finite()).unwrap_or(0.0);
    let (began, asked) = (Instant::now(), base.unet.weights.evaluations().so_far());
    let judged =
        plan.question.as_ref().map(|question| Ok::<_, Failure>((question, crate::judging::miniature_judges(&model.device)?)));
    let judged = judged.transpose()?;
    let clip = clip::open(args.clip.as_deref(), model)?;
    let witness = plan
        .question
        .as_ref()
        .zip(clip.as_ref())
        .filter(|_| model.builtin)
        .map(|(question, clip)| question.witness(clip, &|caption| base.tokenizer.encode(caption).ids));
    let shows = judged.as_ref().map(|(question, judges)| {
        |pictures: &[Picture]| -> Vec<bool> {
            let sure = question.probabilities(judges, pictures).into_iter().map(|p| p >= plan.threshold);
            match witness.as_ref().zip(clip.as_ref()) {
                Some((witness, clip)) => sure.zip(witness.agrees(clip, pictures)).map(|(a, b)| a && b).collect(),
                None => sure.collect(),
            }
        }
    });
    let likely = judged.as_ref().map(|(question, judges)| {
        |pictures: Tensor<4>| question.log_probability(judges, pictures).map_err(|e| scumble_attack::Error::input(e.to_string()))
    });
    let prepared = clip.as_ref().map(|clip| |pictures: &[Picture]| clip.prepared(pictures));
    let store = RunStore { state: run.path.join("state"), shared: cache_dir().join("tensors") };
    let mut claimed = Ok(());
    let mut listen = |event: Event<'_>| {
        if matches!(event, Event::Stage { done: 0, .. }) && claimed.is_ok() {
            record["seconds"] = json!(seconds_before + began.elapsed().as_secs_f64());
            claimed = run.record(&record);
        }
        match event {
            Event::Note("") => {}
            Event::Note(text) => progress.note(text),
            Event::Stage { name, total, done } => progress.stage(name, total, done),
            Event::Step { done, loss } => progress.step(done, loss.map(|l| format!("loss {l:.4}"))),
        }
        if progress::interrupted() || claimed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut job = Job {
        base,
        victim,
        checkpoint: Checkpoint { name: &model.checkpoint.name, hash: &model.hash, family: model.checkpoint.family.name() },
        concept: &plan.concept,
        word: &plan.word,
        cases: &plan.cases,
        shows: shows.as_ref().map(|shows| shows as &scumble_attack::job::Shows<'_>),
        likely: likely.as_ref().map(|likely| likely as &scumble_attack::job::Likely<'_>),
        clip: clip.as_ref().zip(prepared.as_ref()).map(|(clip, prepared)| Clip {
            network: &clip.network,
            vocabulary: clip.vocabulary,
            prepared,
        }),
        world: plan.world.as_ref(),
        drawing: plan.drawing,
        miniature: crate::erase::is_miniature(base),
        options: plan.options.clone(),
        budget: plan.budget,
        seed: plan.seed,
        store: &store,
        listen: &mut listen,
    };
    let chosen = (plan.attack.options)(&job, plan.variant)?;
    let came = match &plan.transfer {
        Some((file, _)) => {
            let found = Found::open(file, base.text_encoder.config.hidden_size, base.device())
                .map_err(|e| Failure::from(e).of("--transfer"))?;
            protocol::replay(found, &mut job)
        }
        None => protocol::run(plan.attack, &mut job, plan.variant),
    };
    claimed?;
    let seconds = seconds_before + began.elapsed().as_secs_f64();
    record["seconds"] = json!(seconds);
    let came = match came {
        Ok(came) => came,
        Err(error) => {
            if store.state.is_dir() {
                run.record(&record)?;
            }
            return Err(error.into());
        }
    };
    let found = came.found.save(&run.path)?;
    let seen =
        judged.as_ref().map(|(question, judges)| came.pictures.each_ref().map(|side| question.probabilities(judges, side)));
    let lines = lines(plan, &came, seen.as_ref());
    let text: String = lines.iter().map(|line| line.to_string() + "\n").collect();
    write_file(&run.path.join(LINES), text.as_bytes())?;
    write_file(&run.path.join(PICTURE), &picture(plan, &came)?)?;
    record["pictures"] = json!(keep_pictures(&run.path, &came)?);
    record["finished"] = json!(true);
    record["options"] = chosen;
    record["found"] = json!(found);
    record["spent"] = json!(came.spent);
    record["evaluations"] = json!(base.unet.weights.evaluations().so_far() - asked);
    record["shown"] = json!(came.shown.as_ref().map(|[base, pre, post]| {
        let count = |side: &[bool]| side.iter().filter(|&&hit| hit).count();
        json!({ "unedited": count(base), "edited": count(pre), "attacked": count(post) })
    }));
    record["lines"] = json!(lines);
    record["notes"] = json!(came.notes);
    record["result"] = result(args, plan, &came, Some(run.path.join(found)), seconds);
    run.record(&record)?;
    run.forget_state()?;
    Ok(record)
}

/// The object that `--json` prints last.
fn result(args: &AttackArgs, plan: &Plan, came: &Report, found: Option<PathBuf>, seconds: f64) -> Value {
    let n = plan.cases.len();
    let counts = came.counts();
    let fraction = |hits: usize| Rate { hits, n }.fraction();
    let interval = counts.map(|(pre, new)| Rate { hits: pre + new, n }.wilson(Z95));
    let guards = args.guard.iter().map(|guard| format!("guard {guard}"));
    let edits: Vec<String> = args.edits.edit.iter().chain(&args.edits.lora).cloned().chain(guards).collect();
    json!({
        "attack": plan.attack.id,
        "edit": (!edits.is_empty()).then(|| edits.join(" + ")),
        "concept": plan.concept.name,
        "pre": counts.map(|(pre, _)| fraction(pre)),
        "new": counts.map(|(_, new)| fraction(new)),
        "total": counts.map(|(pre, new)| fraction(pre + new)),
        "n": n,
        "interval": interval.map(|(low, high)| json!([low, high])),
        "seeds": plan.cases.iter().map(|case| case.seed).collect::<Vec<_>>(),
        "budget": came.budget,
        "found": found,
        "seconds": seconds,
    })
}

/// What is said of each case.
fn lines(plan: &Plan, came: &Report, seen: Option<&[Vec<f32>; 3]>) -> Vec<Value> {
    let line = |(i, case): (usize, &Case)| {
        let found = match &came.found {
            Found::Cases(cases) => json!(cases[i].prompt),
            Found::Revival(trials) => json!(trials[i].to_string()),
            Found::Word(word) => {
                scumble_attack::job::reworded(&case.prompt, &plan.word, &word.token).map_or(Value::Null, Value::from)
            }
            _ => Value::Null,
        };
        let seed = match &came.found {
            Found::Cases(cases) => cases[i].seed,
            _ => case.seed,
        };
        json!({
            "case": i, "prompt": case.prompt, "seed": case.seed,
            "unedited": came.shown.as_ref().map(|shown| shown[0][i]),
            "pre": came.shown.as_ref().map(|shown| shown[1][i]),
            "post": came.shown.as_ref().map(|shown| shown[2][i]),
            "probability": seen.map(|seen| json!({"unedited": seen[0][i], "pre": seen[1][i], "post": seen[2][i]})),
            "found": found, "found_seed": seed,
        })
    };
    plan.cases.iter().enumerate().map(line).collect()
}

/// Writes the pictures of some cases, at equal steps through all of them; what was written.
fn keep_pictures(folder: &Path, came: &Report) -> Result<Vec<Value>, Failure> {
    let n = came.pictures[0].len();
    fs_err::create_dir_all(folder.join(PICTURES))?;
    let keep = |i: usize, side: usize, name: &str| -> Result<String, Failure> {
        let picture = &came.pictures[side][i];
        let file = format!("{PICTURES}/{i:05}-{name}.png");
        write_file(&folder.join(&file), &png::encode_png(picture.width, picture.height, &picture.rgb, &[])?)?;
        Ok(file)
    };
    let kept = n.min(KEPT);
    let one = |k: usize| {
        let i = k * n / kept;
        Ok(
            json!({"case": i, "unedited": keep(i, 0, "unedited")?, "edited": keep(i, 1, "edited")?, "attacked": keep(i, 2, "attacked")?}),
        )
    };
    (0..kept).map(one).collect()
}

/// The pictures of the three sides, a row for each prompt.
fn picture(plan: &Plan, came: &Report) -> Result<Vec<u8>, Failure> {
    let mut prompts: Vec<(&str, Vec<usize>)> = Vec::new();
    for (i, case) in plan.cases.iter().enumerate() {
        match prompts.iter_mut().find(|(prompt, _)| *prompt == case.prompt) {
            Some((_, rows)) => rows.push(i),
            None => prompts.push((&case.prompt, vec![i])),
        }
    }
    let columns = prompts.iter().map(|(_, rows)| rows.len()).max().unwrap_or(1).min(SHOWN.1);
    let mut rows = Vec::new();
    for (prompt, cases) in prompts.iter().take(SHOWN.0) {
        let mut cells = Vec::new();
        for column in 0..columns {
            for side in &came.pictures {
                let picture = cases.get(column).map(|&i| &side[i]);
                cells.push(picture.map(|p| Image::new(p.width, p.height, &p.rgb)).transpose()?);
            }
        }
        rows.push(Row { label: (*prompt).to_owned(), cells });
    }
    let grid = Grid {
        title: Some(format!("{} under {}", plan.concept.name, plan.attack.id)),
        columns: (1..=columns).map(|k| format!("picture {k}")).collect(),
        parts: ["unedited", "edited", "attacked"].map(String::from).to_vec(),
        rows,
        scale: None,
    };
    let drawn = grid.draw();
    Ok(png::encode_png(drawn.width() as usize, drawn.height() as usize, drawn.as_raw(), &[])?)
}

/// Prints a record's result, new or stored.
fn report(args: &AttackArgs, record: &Value) -> Result<(), Failure> {
    let result = &record["result"];
    if args.print.json {
        for line in record["lines"].as_array().into_iter().flatten() {
            output::json(line)?;
        }
        return output::json(result);
    }
    let percent = |v: &Value| v.as_f64().map_or("-".into(), |f| format!("{:.0}%", 100.0 * f));
    let (n, shown) = (&result["n"], &record["shown"]);
    let mut lines = vec![format!(
        "{} against {}: {} steps in {:.0} s",
        result["attack"].as_str().unwrap_or_default(),
        result["edit"].as_str().unwrap_or("the model itself"),
        record["spent"],
        result["seconds"].as_f64().unwrap_or(0.0),
    )];
    if shown.is_null() {
        lines.push(format!("  {n} pictures; no judge knows `{}`: look at them", result["concept"].as_str().unwrap_or_default()));
    } else {
        let interval = format!("[{}, {}]", percent(&result["interval"][0]), percent(&result["interval"][1]));
        for (label, value, beside) in [
            ("unedited", shown["unedited"].as_f64().zip(n.as_f64()).map(|(hits, n)| json!(hits / n)), ""),
            ("edited", Some(result["pre"].clone()), ""),
            ("new under attack", Some(result["new"].clone()), ""),
            ("together", Some(result["total"].clone()), interval.as_str()),
        ] {
            lines.push(format!("  {label:18} {:>6}  {beside}", percent(&value.unwrap_or_default())).trim_end().to_owned());
        }
        lines.push(format!("  of {n} pictures that ask for `{}`", result["concept"].as_str().unwrap_or_default()));
    }
    for (name, note) in record["notes"].as_object().into_iter().flatten() {
        match output::columns(note) {
            Some(table) => {
                lines.extend(std::iter::once(format!("  {name}")).chain(table.into_iter().map(|row| format!("    {row}"))))
            }
            None => lines.push(format!("  {name}: {note}")),
        }
    }
    if let Some(found) = result["found"].as_str() {
        lines.push(format!("found     {found}"));
        let folder = Path::new(found).parent().unwrap_or(Path::new("."));
        lines.push(format!("pictures  {}", folder.join(PICTURE).display()));
    }
    output::data(&lines.join("\n"))
}
