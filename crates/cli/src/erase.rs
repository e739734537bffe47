//! `scumble erase`: from a concept's name to an edit, with pictures and numbers from before and after.

use std::{ops::ControlFlow, path::PathBuf, time::Instant};

use scumble_diffusion::Pipeline;
use scumble_erase::{Captions, Change, Concept, Edit, Event, Job, Variant, Wording, World, drift, methods};
use scumble_eval::{Rate, Rates};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    args::EraseArgs,
    failure::{Failure, Outcome},
    grid,
    judging::{Judging, pooled},
    memory,
    model::Model,
    output,
    photos::Photos,
    progress::{self, Progress},
    store::{Found, RunFolder, RunStore},
};

/// The file of a run that holds its edit.
pub(crate) const EDIT: &str = "edit.safetensors";
const GRID: &str = "before-after.png";

/// Everything that decides the result.
struct Plan {
    concepts: Vec<Concept>,
    preserve: Vec<Concept>,
    captions: Captions,
    photos: Option<Photos>,
    method: &'static methods::Method,
    variant: Variant,
    options: Map<String, Value>,
    seed: u64,
    judge: bool,
    /// Whether the miniature's judges know what the model draws.
    home: bool,
    model_hash: String,
}

pub(crate) fn run(args: &EraseArgs) -> Result<Outcome, Failure> {
    progress::listen_for_interrupts()?;
    let progress = Progress::new(args.print.quiet);
    let finished = perform(args, &progress);
    progress.finish();
    let (result, details) = finished?;
    report(args, &result, &details)?;
    Ok(Outcome::Done)
}

/// Erases, or finds that it has been done; the result and its details.
///
/// # Errors
/// If the arguments do not fit together, or the method fails.
pub(crate) fn perform(args: &EraseArgs, progress: &Progress) -> Result<(Value, Value), Failure> {
    let names = concept_names(args)?;
    let method = methods::named(&args.method)?;
    let quiet = args.print.quiet;
    let model = Model::open(&args.model, None, quiet)?;
    // Prompts are worded, and pictures judged, in the miniature's world: only there are the judges at home.
    let home = model.builtin || args.judge;
    let world = World::emoji();
    let wording = Wording {
        template: args.template.clone(),
        objects: args.objects.iter().flat_map(|o| crate::options::listed(o)).collect(),
        anchor: args.anchor.clone(),
        from: args.from.clone(),
    };
    let world = home.then_some(&world);
    let concepts: Vec<Concept> = names.iter().map(|name| Concept::new(name, &wording, world)).collect::<Result<_, _>>()?;
    let preserve = Concept::apart(&concepts, preserved(args, method, world)?)?;
    if concepts.len() > 1 && !method.several {
        return Err(Failure::new(format!("`{}` erases one concept at a time, {} were given", method.id, concepts.len())));
    }
    let plan = Plan {
        concepts,
        preserve,
        captions: captions(args, &names, world)?,
        photos: args.pictures.as_deref().map(Photos::read).transpose()?,
        method,
        variant: args.variant.parse()?,
        options: options(args)?,
        seed: args.seed,
        judge: home && !args.no_judge,
        home,
        model_hash: model.hash.clone(),
    };
    let pipeline = model.pipeline()?;
    for concept in &plan.concepts {
        concept.fits(&pipeline.tokenizer)?;
    }

    let folder = args.output.output_dir.clone().unwrap_or_else(|| plan.default_folder());
    match RunFolder::open(&folder, &plan.hash(), args.output.overwrite)? {
        Found::Finished(record) => {
            if !quiet {
                output::note(&format!("{} is finished; here is its result", folder.display()));
            }
            Ok((record["result"].clone(), record["details"].clone()))
        }
        Found::ToDo(run) => carry_out(args, &plan, &model, &pipeline, &run, progress),
    }
}

/// Runs the plan from wherever an earlier run of it stopped.
fn carry_out(
    args: &EraseArgs,
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    run: &RunFolder,
    progress: &Progress,
) -> Result<(Value, Value), Failure> {
    let mut record = json!({
        "plan_hash": plan.hash(), "plan": plan.value(), "finished": false,
        "scumble": env!("CARGO_PKG_VERSION"), "model": model.checkpoint.name, "notes": model.checkpoint.notes,
        "device": model.device_name, "threads": rayon::current_num_threads(),
    });
    let edit_path = run.path.join(EDIT);
    let (edit, cost) = match earlier_edit(run)? {
        Some(found) => found,
        None => {
            let (edit, cost) = make_edit(plan, model, pipeline, run, &record, progress)?;
            edit.save(&edit_path)?;
            record["cost"] = json!(cost);
            run.record(&record)?;
            run.forget_state()?;
            (edit, cost)
        }
    };
    // The drift takes 160 evaluations of the U-Net: a second on the miniature, half an hour on a full-size model without a GPU.
    let (rates, moved) = match args.no_judge {
        true if is_miniature(pipeline) => (None, Some(drift::unconditional(pipeline, &edit.apply_to(pipeline, 1.0)?)?)),
        true => (None, None),
        false => before_and_after(plan, model, pipeline, &edit, run, progress)?,
    };

    let result = result(plan, &edit_path, cost, rates.as_ref(), moved);
    let details = details(plan, &edit, &edit_path, rates.as_ref());
    record["finished"] = json!(true);
    record["cost"] = json!(cost);
    record["options"] = edit.about.options.clone();
    record["result"] = result.clone();
    record["details"] = details.clone();
    run.record(&record)?;
    Ok((result, details))
}

/// What the edit did: rates where the plan has a judge, the unconditional drift, and the picture of both sides in the run's folder.
fn before_and_after(
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    edit: &Edit,
    run: &RunFolder,
    progress: &Progress,
) -> Result<(Option<Both>, Option<f64>), Failure> {
    let edited = edit.apply_to(pipeline, 1.0)?;
    let names: Vec<String> = plan.concepts.iter().map(|c| c.name.clone()).collect();
    let rates = if plan.judge {
        let judging = Judging::new(&names, &model.device)?;
        let content = format!("{}/{}", plan.model_hash, edit.content_hash());
        let before = judging.rates(pipeline, &plan.model_hash, "judging before", progress)?;
        let after = judging.rates(&edited, &content, "judging after", progress)?;
        Some((before, after))
    } else {
        None
    };
    let moved = drift::unconditional(pipeline, &edited)?;
    let prompts = grid::prompts(&plan.concepts, plan.judge);
    let title = format!("{} erased with {}", names.join(", "), plan.method.id);
    let guidance = if is_miniature(pipeline) { 4.0 } else { 7.5 };
    let picture = grid::draw(title, &prompts, pipeline, &edited, guidance, progress)?;
    crate::store::write_file(&run.path.join(GRID), &picture)?;
    Ok((rates, Some(moved)))
}

/// What making an edit took, interrupted parts included.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Cost {
    seconds: f64,
    /// Sample-evaluations of the U-Net, a training sample counting 3; what was found in the cache counts nothing.
    evaluations: u64,
    /// The most bytes that the process held meanwhile, where the system says.
    #[serde(default)]
    memory: Option<u64>,
}

/// The edit of a run that was interrupted after it, with what it cost.
fn earlier_edit(run: &RunFolder) -> Result<Option<(Edit, Cost)>, Failure> {
    let path = run.path.join(EDIT);
    let Ok(record) = fs_err::read(run.path.join(crate::store::RECORD)) else { return Ok(None) };
    let record: Value = serde_json::from_slice(&record).unwrap_or(Value::Null);
    match serde_json::from_value(record["cost"].clone()) {
        Ok(cost) if path.is_file() => Ok(Some((Edit::open(&path)?, cost))),
        _ => Ok(None),
    }
}

/// Runs the method. The cost of interrupted parts is kept beside its state and added up.
fn make_edit(
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    run: &RunFolder,
    record: &Value,
    progress: &Progress,
) -> Result<(Edit, Cost), Failure> {
    let store = RunStore::new(&run.path);
    let bill = run.path.join("state").join("cost.json");
    let before: Cost = fs_err::read_to_string(&bill).ok().and_then(|s| serde_json::from_str(&s).ok()).unwrap_or_default();
    memory::forget_peak();
    let (began, asked) = (Instant::now(), pipeline.unet.weights.evaluations().so_far());
    // The folder becomes this plan's once the method has accepted its options and begins to work.
    let mut claimed = Ok(());
    let mut listen = |event: Event<'_>| {
        if matches!(event, Event::Stage { done: 0, .. }) && claimed.is_ok() {
            claimed = run.record(record);
        }
        match event {
            Event::Note(text) => progress.note(text),
            Event::Stage { name, total, done } => progress.stage(name, total, done),
            Event::Step { done, loss } => progress.step(done, loss.map(|l| format!("loss {l:.4}"))),
        }
        if progress::interrupted() || claimed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let pictures = plan.photos.as_ref().map(|photos| photos.batch(pipeline)).transpose()?;
    // Judges are loaded when somebody counts.
    let judges = std::cell::OnceCell::new();
    let count = |edited: &Pipeline, prompt: &str, attributes: &[String], n: usize, seed: u64| {
        if judges.get().is_none() {
            let loaded = crate::judging::miniature_judges(&model.device)
                .map_err(|_| scumble_erase::Error::input("the miniature's judges cannot be loaded"))?;
            let _ = judges.set(loaded);
        }
        let judges = judges.get().ok_or_else(|| scumble_erase::Error::input("the miniature's judges cannot be loaded"))?;
        crate::judging::count_attributes(judges, edited, prompt, attributes, n, seed)
    };
    let mut job = Job {
        pipeline,
        base: &model.checkpoint.name,
        base_hash: &model.hash,
        family: model.checkpoint.family.name(),
        miniature: is_miniature(pipeline),
        concepts: &plan.concepts,
        preserve: &plan.preserve,
        captions: &plan.captions,
        pictures: pictures.as_ref(),
        count: plan.home.then_some(&count),
        options: plan.options.clone(),
        seed: plan.seed,
        store: &store,
        listen: &mut listen,
    };
    let made = (plan.method.erase)(&mut job, plan.variant);
    claimed?;
    let cost = Cost {
        seconds: before.seconds + began.elapsed().as_secs_f64(),
        evaluations: before.evaluations + pipeline.unet.weights.evaluations().so_far() - asked,
        memory: memory::peak().max(before.memory),
    };
    if made.is_err() && store.state.is_dir() {
        crate::store::write_file(&bill, json!(cost).to_string().as_bytes())?;
    }
    Ok((made?, cost))
}

/// Whether a model is of the miniature's size, where guidance and step sizes of real checkpoints do not fit.
pub(crate) fn is_miniature(pipeline: &Pipeline) -> bool {
    pipeline.unet.config.block_out_channels.iter().sum::<usize>() < 640
}

impl Plan {
    fn value(&self) -> Value {
        json!({
            "command": "erase", "model": self.model_hash, "method": self.method.id, "variant": self.variant,
            "concepts": self.concepts, "preserve": self.preserve, "captions": self.captions.about(),
            "pictures": self.photos.as_ref().map(|photos| json!({ "n": photos.len(), "hash": photos.hash })),
            "options": self.options, "seed": self.seed, "judge": self.judge,
        })
    }

    fn hash(&self) -> String {
        blake3::hash(self.value().to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    fn default_folder(&self) -> PathBuf {
        let concept: Vec<&str> = self.concepts.iter().map(|c| c.name.as_str()).collect();
        let slug = crate::output::slug(&concept.join("-"));
        PathBuf::from("scumble-out").join(format!("{}-{slug}-{}", self.method.id, &self.hash()[..8]))
    }
}

/// The concepts of all arguments, each once.
fn concept_names(args: &EraseArgs) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for name in args.concepts.iter().chain(&args.erase).flat_map(|text| crate::options::listed(text)) {
        if !names.iter().any(|n| n.eq_ignore_ascii_case(&name)) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(Failure::new("no concept to erase").with_hint("name one, such as `scumble erase church`"));
    }
    Ok(names)
}

/// What the user wants kept, worded like what is erased.
fn preserved(args: &EraseArgs, method: &methods::Method, world: Option<&World>) -> Result<Vec<Concept>, Failure> {
    let able =
        |can: fn(&methods::Method) -> bool| methods::ALL.iter().filter(|m| can(m)).map(|m| m.id).collect::<Vec<_>>().join(", ");
    for (flag, given) in [("--preserve", !args.preserve.is_empty()), ("--captions", args.captions.is_some())] {
        if given && !method.preserves {
            return Err(Failure::new(format!("{flag}: `{}` has no preservation term", method.id))
                .with_hint(format!("methods that have one: {}", able(|m| m.preserves))));
        }
    }
    if args.pictures.is_some() && !method.pictures {
        return Err(Failure::new(format!("--pictures: `{}` does not learn from pictures", method.id))
            .with_hint(format!("methods that do: {}", able(|m| m.pictures))));
    }
    let names = args.preserve.iter().flat_map(|p| crate::options::listed(p));
    Ok(names.map(|name| Concept::new(&name, &Wording::default(), world)).collect::<Result<_, _>>()?)
}

/// How many captions the compiled-in nouns make where the model's own are not known.
const CAPTIONS: usize = 1000;

/// What the model should go on drawing.
fn captions(args: &EraseArgs, names: &[String], world: Option<&World>) -> Result<Captions, Failure> {
    Ok(match (&args.captions, world) {
        (Some(path), _) => {
            let lines: Vec<String> = crate::prompts::read(path, 0)?.into_iter().map(|case| case.prompt).collect();
            let source = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
            let captions = Captions::of_user(source, lines, names);
            if captions.lines.is_empty() {
                return Err(Failure::new(format!("{}: every prompt shares a word with what is erased", path.display()))
                    .with_hint("captions are what the model should go on drawing"));
            }
            captions
        }
        (None, Some(world)) => Captions::of_world(world, names),
        (None, None) => Captions::of_nouns(names, CAPTIONS),
    })
}

/// The method's options: flags first, then `--set`, which reaches every one.
fn options(args: &EraseArgs) -> Result<Map<String, Value>, Failure> {
    let mut options = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            options.insert(key.into(), value);
        }
    };
    put("train_method", args.train_method.clone().map(Value::from));
    put("iterations", args.iterations.map(Value::from));
    put("lr", args.lr.map(Value::from));
    put("eta", args.eta.or(args.negative_guidance.map(|g| g - 1.0)).map(Value::from));
    put("start_guidance", args.start_guidance.map(Value::from));
    put("batch", args.batch.map(Value::from));
    for (flag, value) in [("lr", args.lr), ("eta", args.eta), ("negative-guidance", args.negative_guidance)] {
        if value.is_some_and(|v| !v.is_finite()) {
            return Err(Failure::new(format!("--{flag}: expected a finite number")));
        }
    }
    options.extend(crate::options::of_set(&args.set)?);
    if let Some(name) = options.get("train_method").and_then(Value::as_str) {
        let name = scumble_erase::Trainable::named(name)?.name;
        options.insert("train_method".into(), name.into());
    }
    Ok(options)
}

type Both = (Vec<Option<Rates>>, Vec<Option<Rates>>);

/// The one object that `--json` prints.
fn result(plan: &Plan, edit: &std::path::Path, cost: Cost, rates: Option<&Both>, drift: Option<f64>) -> Value {
    let fractions = |r: &Rates| json!({ "target": fraction(r.target), "others": fraction(r.others) });
    let names: Vec<&str> = plan.concepts.iter().map(|c| c.name.as_str()).collect();
    let known = |side: &[Option<Rates>]| -> Option<Rates> {
        let known: Vec<Rates> = side.iter().flatten().copied().collect();
        (!known.is_empty()).then(|| pooled(&known))
    };
    let (before, after) = rates.map_or((None, None), |(b, a)| (known(b), known(a)));
    let mut result = json!({
        "method": plan.method.id,
        "concept": names.join("; "),
        "edit": edit,
        "seconds": cost.seconds,
        "before": before.as_ref().map(fractions),
        "after": after.as_ref().map(fractions),
        "n": before.map(|r| json!({ "target": r.target.n, "others": r.others.n })),
        "uncond_drift": drift,
        "evaluations": cost.evaluations,
    });
    if let (true, Some((b, a))) = (names.len() > 1, rates) {
        let list = names.iter().zip(b.iter().zip(a)).map(|(name, (b, a))| {
            json!({
                "concept": name, "before": b.as_ref().map(fractions), "after": a.as_ref().map(fractions),
                "n": b.map(|r| json!({ "target": r.target.n, "others": r.others.n })),
            })
        });
        result["concepts"] = list.collect();
        // Several concepts: the mean over concepts rather than over pictures.
        for (key, side) in [("before", b), ("after", a)] {
            let known: Vec<&Rates> = side.iter().flatten().collect();
            if !known.is_empty() {
                let mean = |pick: &dyn Fn(&Rates) -> Rate| {
                    known.iter().map(|r| pick(r)).filter(|r| r.n > 0).map(Rate::fraction).sum::<f64>()
                        / known.iter().filter(|r| pick(r).n > 0).count().max(1) as f64
                };
                result[key] = json!({ "target": mean(&|r| r.target), "others": mean(&|r| r.others) });
            }
        }
    }
    result
}

fn fraction(rate: Rate) -> Value {
    if rate.n == 0 { Value::Null } else { json!(rate.fraction()) }
}

/// What the text output says beside the result.
fn details(plan: &Plan, edit: &Edit, path: &std::path::Path, rates: Option<&Both>) -> Value {
    let objects = rates.map(|(b, a)| {
        let of = |side: &[Option<Rates>]| side.iter().flatten().find_map(|r| r.target_objects).map(|r| json!(r));
        json!({ "before": of(b), "after": of(a) })
    });
    let numbers: usize = edit
        .changes
        .values()
        .map(|c| match c {
            Change::Value(v) | Change::Added(v) | Change::Difference(v) => v.len(),
            Change::LowRank(low) => low.down.len() + low.up.len(),
        })
        .sum();
    let guard = edit.about.guard.as_ref().map(crate::guards::describe);
    json!({
        "guard": guard, "tensors": edit.changes.len(), "numbers": numbers, "target_objects": objects,
        "grid": path.with_file_name(GRID).exists().then(|| path.with_file_name(GRID)), "options": edit.about.options, "judged": plan.judge,
        "rates": rates.map(|(b, a)| json!({ "before": b, "after": a })),
    })
}

/// Prints a result, new or stored.
fn report(args: &EraseArgs, result: &Value, details: &Value) -> Result<(), Failure> {
    if args.print.json {
        return output::json(result);
    }
    let percent = |v: &Value| v.as_f64().map_or("-".into(), |f| format!("{:.0}%", 100.0 * f));
    let concept = result["concept"].as_str().unwrap_or_default();
    let mut lines = vec![match details["guard"].as_str() {
        Some(guard) => format!("{concept}: guarded by {guard}"),
        None => format!(
            "{concept}: {} tensors, {:.1} M numbers changed in {:.0} s with {}",
            details["tensors"],
            details["numbers"].as_f64().unwrap_or(0.0) / 1e6,
            result["seconds"].as_f64().unwrap_or(0.0),
            result["method"].as_str().unwrap_or_default(),
        ),
    }];
    if result["before"].is_null() {
        let why = if details["judged"] == true { "no judge knows this concept" } else { "not judged" };
        lines.push(format!("  before and after: {why}"));
    } else {
        lines.push(format!("  {:22} {:>8} {:>8}", "", "before", "after"));
        let rows = [("shows the concept", "target"), ("others still right", "others")];
        for (label, key) in rows {
            let n = result["n"][key].as_u64().unwrap_or(0);
            lines.push(format!(
                "  {label:22} {:>8} {:>8}   of {n} pictures",
                percent(&result["before"][key]),
                percent(&result["after"][key])
            ));
        }
        for side in result["concepts"].as_array().into_iter().flatten() {
            lines.push(format!(
                "    {:20} {:>8} {:>8}   others {} {}",
                side["concept"].as_str().unwrap_or_default(),
                percent(&side["before"]["target"]),
                percent(&side["after"]["target"]),
                percent(&side["before"]["others"]),
                percent(&side["after"]["others"]),
            ));
        }
        if let (Some(b), Some(a)) = (rate(&details["target_objects"]["before"]), rate(&details["target_objects"]["after"])) {
            lines.push(format!(
                "  {:22} {:>8} {:>8}   in prompts that name the style",
                "objects still right",
                percent(&b),
                percent(&a)
            ));
        }
    }
    if let Some(drift) = result["uncond_drift"].as_f64() {
        lines.push(format!("  {:22} {:>17.2}%", "unconditional drift", 100.0 * drift));
    }
    lines.push(format!("edit      {}", result["edit"].as_str().unwrap_or_default()));
    if let Some(grid) = details["grid"].as_str() {
        lines.push(format!("pictures  {grid}"));
    }
    output::data(&lines.join("\n"))
}

fn rate(value: &Value) -> Option<Value> {
    let (hits, n) = (value["hits"].as_f64()?, value["n"].as_f64()?);
    Some(json!(hits / n))
}
