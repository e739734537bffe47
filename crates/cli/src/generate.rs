//! `scumble generate`: pictures from prompts, by the model itself or an edited one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use scumble_diffusion::{Guard, Noise, Picture, Pipeline, Request, Sampler, guards::check as check_guards};
use scumble_erase::World;
use scumble_report::{Parameters, png};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::{
    args::GenerateArgs,
    drawing,
    edits::{self, Loaded},
    failure::{Failure, Outcome},
    guards, miniature,
    model::Model,
    output,
    progress::{self, Progress},
    prompts::{self, Case, Seeds},
    store::{Found, RECORD, RunFolder, write_file},
};

/// Most pictures of one prompt: they may share one block of noise, which is held at once.
const MOST_OF_A_PROMPT: usize = 10_000;

/// Most pictures of one run.
const MOST: usize = 1_000_000;

/// Latent pixels in a batch, about: 16 pictures of the miniature's size, one of 512 x 512.
const BATCH_AREA: usize = 1024;

/// The keyword of our own text in a PNG.
const KEYWORD: &str = "scumble";

/// Everything that decides what the pictures show.
struct Plan {
    pictures: Vec<Shot>,
    n: usize,
    negative_prompt: String,
    /// Height and width in pixels.
    size: [usize; 2],
    steps: usize,
    sampler: Sampler,
    eta: f64,
    model: String,
    edits: Vec<Value>,
    embeddings: Vec<Value>,
    guards: Vec<Guard>,
}

/// One picture.
struct Shot {
    file: String,
    case: Option<u64>,
    /// Which of the prompt's pictures it is.
    k: usize,
    prompt: String,
    seeds: Seeds,
    guidance: f64,
    /// The words that the model does not see.
    lost: Option<String>,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<Outcome, Failure> {
    let cases = cases(args)?;
    check(args)?;
    let quiet = args.print.quiet;
    let model = Model::open(&args.model, None, quiet)?;
    let mut notes = model.checkpoint.notes.clone();
    let mut loaded = edits::open_all(&args.edits.edit, &args.edits.lora, &model, &mut notes)?;
    let world = is_miniature(&model).then(World::emoji);
    let guards = guards::open_all(&args.guard, &args.set, &mut loaded, world.as_ref())?;
    let mut pipeline = model.pipeline()?;
    if !loaded.is_empty() {
        pipeline = edits::applied(&loaded, &model, &pipeline)?;
    }
    pipeline.guards.extend(guards.iter().cloned());
    check_guards(&pipeline.guards)?;
    let embeddings = edits::add_embeddings(&args.embedding, &mut pipeline)?;
    let plan = Plan { guards, ..plan(args, cases, &model, &pipeline, &loaded, embeddings)? };
    edits::say(&notes[model.checkpoint.notes.len()..], quiet);
    notes.extend(plan.warnings(args));

    let folder = args.output.output_dir.clone().unwrap_or_else(|| plan.default_folder(args));
    let Some((run, resumed)) = open_folder(&folder, &plan, args.output.overwrite)? else {
        if !quiet {
            output::note(&format!("{} is finished; here is its result", folder.display()));
        }
        let stored = fs_err::read(folder.join(RECORD))?;
        let record: Value = serde_json::from_slice(&stored).unwrap_or_default();
        report(args, &folder, &record)?;
        return Ok(Outcome::Done);
    };
    progress::listen_for_interrupts()?;
    let progress = Progress::new(quiet);
    let began = Instant::now();
    let mut record = plan.record(args, &model, &loaded, &notes);
    let earlier = if resumed { seconds_of(&folder) } else { 0.0 };
    run.record(&record)?;
    let drawn = draw_all(args, &plan, &model, &pipeline, &loaded, &folder, &progress);
    progress.finish();
    record["seconds"] = json!(earlier + began.elapsed().as_secs_f64());
    record["finished"] = drawn.is_ok().into();
    run.record(&record)?;
    drawn?;
    report(args, &folder, &record)?;
    Ok(Outcome::Done)
}

/// The prompts asked for.
fn cases(args: &GenerateArgs) -> Result<Vec<Case>, Failure> {
    if args.n == 0 || args.n > MOST_OF_A_PROMPT {
        return Err(Failure::new(format!("--n {}: expected 1 to {MOST_OF_A_PROMPT} pictures of each prompt", args.n)));
    }
    let cases = match &args.prompts {
        Some(path) => prompts::read(path, args.seed)?,
        None => {
            let case = |prompt: &String| Case {
                number: None,
                prompt: prompt.clone(),
                seeds: Seeds::Each(args.seed),
                guidance: None,
                labels: vec![],
                scene: None,
            };
            args.prompt.iter().map(case).collect()
        }
    };
    if cases.is_empty() {
        return Err(Failure::new("no prompt to draw")
            .with_hint("give one, such as `scumble generate \"a church in ink style\"`, or --prompts FILE"));
    }
    if cases.len().saturating_mul(args.n) > MOST {
        return Err(Failure::new(format!("{} prompts with --n {} are more than {MOST} pictures", cases.len(), args.n)));
    }
    Ok(cases)
}

/// Refuses numbers that make no picture, before anything is read.
fn check(args: &GenerateArgs) -> Result<(), Failure> {
    let scale = |what: &str, scale: f64| {
        let fine = scale.is_finite() && scale >= 0.0;
        if fine { Ok(()) } else { Err(Failure::new(format!("{what} {scale}: expected a finite number from 0"))) }
    };
    if let Some(guidance) = args.guidance_scale {
        scale("--guidance-scale", guidance)?;
    }
    if !(0.0..=1.0).contains(&args.eta) {
        return Err(Failure::new(format!("--eta {}: expected 0 to 1", args.eta)));
    }
    if args.batch == Some(0) {
        return Err(Failure::new("--batch 0: expected at least 1"));
    }
    Ok(())
}

fn plan(
    args: &GenerateArgs,
    cases: Vec<Case>,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    embeddings: Vec<Value>,
) -> Result<Plan, Failure> {
    let sampler = drawing::sampler(args.sampler.as_deref(), None, args.steps, pipeline)?;
    if args.eta > 0.0 && sampler != Sampler::Ddim {
        return Err(Failure::new(format!("--eta {}: only ddim has it, the sampler is {sampler}", args.eta))
            .with_hint("add --sampler ddim"));
    }
    let [_, _, h, w] = pipeline.latent_shape(1, args.height, args.width)?;
    let factor = pipeline.vae.config.factor();
    let standard = args.guidance_scale.unwrap_or(if is_miniature(model) { 4.0 } else { 7.5 });
    let mut lost: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for case in &cases {
        lost.entry(&case.prompt).or_insert_with(|| pipeline.tokenizer.encode(&case.prompt).lost);
    }
    let mut pictures = Vec::with_capacity(cases.len() * args.n);
    for case in &cases {
        let guidance = case.guidance.unwrap_or(standard);
        for k in 0..args.n {
            let file = match case.number {
                Some(number) => format!("{number}_{k}.png"),
                None => format!("{:05}.png", pictures.len()),
            };
            let (prompt, lost) = (case.prompt.clone(), lost[case.prompt.as_str()].clone());
            pictures.push(Shot { file, case: case.number, k, prompt, seeds: case.seeds, guidance, lost });
        }
    }
    Ok(Plan {
        pictures,
        n: args.n,
        negative_prompt: args.negative_prompt.clone(),
        size: [h * factor, w * factor],
        steps: args.steps,
        sampler,
        eta: args.eta,
        model: model.hash.clone(),
        edits: loaded.iter().map(|one| json!({"hash": one.hash, "strength": one.strength})).collect(),
        embeddings,
        guards: Vec::new(),
    })
}

/// Whether these are the miniature's own weights, built in or from a folder.
fn is_miniature(model: &Model) -> bool {
    let small = || model.checkpoint.unet.tensors.values().map(|t| t.len()).sum::<usize>() < 10_000_000;
    let same = || {
        let own = scumble_nn::files::Checkpoint::read(&miniature::model(), &scumble_nn::files::OpenOptions::default());
        own.is_ok_and(|own| own.hash() == model.hash)
    };
    model.builtin || (small() && same())
}

impl Plan {
    /// What does not name each picture.
    fn settings(&self) -> Value {
        let mut settings = json!({
            "format": 1, "command": "generate", "model": self.model, "edits": self.edits,
            "embeddings": self.embeddings.iter().map(|e| json!({"hash": e["hash"]})).collect::<Vec<_>>(),
            "n": self.n, "negative_prompt": self.negative_prompt, "height": self.size[0], "width": self.size[1],
            "steps": self.steps, "sampler": self.sampler.to_string(), "eta": self.eta,
        });
        if !self.guards.is_empty() {
            settings["guards"] = json!(self.guards);
        }
        settings
    }

    fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.settings().to_string().as_bytes());
        for shot in &self.pictures {
            hash.update(shot.record(self).to_string().as_bytes());
        }
        hash.finalize().to_hex()[..16].to_owned()
    }

    fn default_folder(&self, args: &GenerateArgs) -> PathBuf {
        let stem = args.prompts.as_deref().and_then(Path::file_stem).map(|s| s.to_string_lossy().into_owned());
        let name = stem.unwrap_or_else(|| self.pictures[0].prompt.clone());
        PathBuf::from("scumble-out").join(format!("generate-{}-{}", output::slug(&name), &self.hash()[..8]))
    }

    /// Says which words the model does not see, and returns what was said for the record.
    fn warnings(&self, args: &GenerateArgs) -> Vec<String> {
        const MOST_SAID: usize = 10;
        let cut: BTreeSet<(&str, &str)> =
            self.pictures.iter().filter_map(|shot| Some((shot.prompt.as_str(), shot.lost.as_deref()?))).collect();
        let mut said: Vec<String> = cut
            .iter()
            .take(MOST_SAID)
            .map(|(prompt, lost)| format!("the prompt `{prompt}` is longer than the model reads; it does not see: {lost}"))
            .collect();
        if cut.len() > MOST_SAID {
            said.push(format!(
                "{} more prompts are longer than the model reads; run.json names the lost words",
                cut.len() - MOST_SAID
            ));
        }
        if !args.negative_prompt.is_empty() && self.pictures.iter().any(|shot| shot.guidance <= 1.0) {
            said.push("the negative prompt has no effect where the guidance scale is 1 or less".into());
        }
        said.iter().for_each(|text| output::note(&format!("warning: {text}")));
        said
    }

    /// What run.json holds.
    fn record(&self, args: &GenerateArgs, model: &Model, loaded: &[Loaded], notes: &[String]) -> Value {
        let edits: Vec<Value> = loaded.iter().map(Loaded::record).collect();
        json!({
            "plan_hash": self.hash(), "plan": self.settings(), "finished": false,
            "scumble": env!("CARGO_PKG_VERSION"), "model": model.checkpoint.name, "model_hash": self.model,
            "device": model.device_name, "threads": rayon::current_num_threads(), "seconds": 0.0, "notes": notes,
            "prompts": args.prompts, "edits": edits, "embeddings": self.embeddings,
            "pictures": self.pictures.iter().map(|shot| shot.record(self)).collect::<Vec<_>>(),
        })
    }

    /// How many pictures are drawn at once.
    fn batch(&self, args: &GenerateArgs, factor: usize) -> usize {
        let area = (self.size[0] / factor) * (self.size[1] / factor);
        args.batch.unwrap_or((BATCH_AREA / area.max(1)).clamp(1, 16))
    }
}

impl Shot {
    fn record(&self, plan: &Plan) -> Value {
        let mut record = json!({"file": self.file, "prompt": self.prompt});
        if let Some(number) = self.case {
            record["case_number"] = number.into();
        }
        record["k"] = self.k.into();
        match self.seeds {
            Seeds::Each(seed) => record["seed"] = seed.wrapping_add(self.k as u64).into(),
            Seeds::Block(seed) => {
                record["seed"] = seed.into();
                record["block"] = plan.n.into();
            }
        }
        record["guidance_scale"] = self.guidance.into();
        if let Some(lost) = &self.lost {
            record["lost"] = lost.clone().into();
        }
        record
    }
}

/// The run's folder, and whether pictures in it belong to this plan; `None` if all is done.
fn open_folder(folder: &Path, plan: &Plan, overwrite: bool) -> Result<Option<(RunFolder, bool)>, Failure> {
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::new(format!("--output-dir {}: expected a folder, found a file", folder.display())));
    }
    let hash = plan.hash();
    let old: Value =
        fs_err::read(folder.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let run = match RunFolder::open(folder, &hash, overwrite)? {
        Found::ToDo(run) => run,
        Found::Finished(_) if plan.pictures.iter().all(|shot| folder.join(&shot.file).is_file()) => return Ok(None),
        // Pictures were taken away since: they are drawn again.
        Found::Finished(_) => match RunFolder::open(folder, &hash, true)? {
            Found::ToDo(run) => run,
            Found::Finished(_) => return Ok(None),
        },
    };
    let same = !overwrite && old["plan_hash"] == hash.as_str();
    if !same {
        // Pictures of another plan must not be taken for this one's.
        let of_old = old["pictures"].as_array().into_iter().flatten().filter_map(|p| p["file"].as_str());
        let names: Vec<&str> = of_old.chain(plan.pictures.iter().map(|shot| shot.file.as_str())).collect();
        for name in names {
            // Only plain names of pictures: the record is a file that anybody may have written.
            let path = folder.join(name);
            if name.ends_with(".png") && !name.contains(['/', '\\']) && path.is_file() {
                fs_err::remove_file(path)?;
            }
        }
    }
    Ok(Some((run, same)))
}

fn seconds_of(folder: &Path) -> f64 {
    let record: Option<Value> = fs_err::read(folder.join(RECORD)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    record.and_then(|r| r["seconds"].as_f64()).filter(|s| s.is_finite()).unwrap_or(0.0)
}

/// Draws every picture that is not there yet.
fn draw_all(
    args: &GenerateArgs,
    plan: &Plan,
    model: &Model,
    pipeline: &Pipeline,
    loaded: &[Loaded],
    folder: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    let missing: Vec<&Shot> = plan.pictures.iter().filter(|shot| !folder.join(&shot.file).is_file()).collect();
    let mut done = plan.pictures.len() - missing.len();
    progress.stage("drawing", plan.pictures.len(), done);
    let about = About::new(plan, model, loaded)?;
    let batch = plan.batch(args, pipeline.vae.config.factor());
    for shots in missing.chunk_by(|a, b| a.guidance == b.guidance).flat_map(|same| same.chunks(batch)) {
        let request = Request {
            prompts: shots.iter().map(|shot| shot.prompt.clone()).collect(),
            negative_prompt: plan.negative_prompt.clone(),
            height: Some(plan.size[0]),
            width: Some(plan.size[1]),
            steps: plan.steps,
            guidance_scale: shots[0].guidance,
            sampler: Some(plan.sampler),
            eta: plan.eta,
            noise: noise(shots, plan.n),
            latents: None,
        };
        let latents = pipeline.sample(&request, &mut |step| {
            progress.step(done, Some(format!("step {}/{}", step.index.0 + 1, step.len)));
            if progress::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if progress::interrupted() {
            return Err(Failure::interrupted());
        }
        for (shot, picture) in shots.iter().zip(Picture::from_batch(pipeline.decode(latents))) {
            let (text, own) = about.texts(plan, shot);
            let texts = [(Parameters::KEYWORD, text.as_str()), (KEYWORD, own.as_str())];
            let file = png::encode_png(picture.width, picture.height, &picture.rgb, &texts)
                .map_err(|e| Failure::new(format!("{}: {e}", shot.file)))?;
            write_file(&folder.join(&shot.file), &file)?;
        }
        done += shots.len();
        progress.step(done, None);
    }
    Ok(())
}

/// The generators of a batch. A block is drawn as a whole, whatever part of it is in the batch.
fn noise(shots: &[&Shot], n: usize) -> Noise {
    let parts =
        shots.chunk_by(|a, b| a.case == b.case && a.seeds == b.seeds && a.k + 1 == b.k && matches!(a.seeds, Seeds::Block(_)));
    parts.fold(Noise::seeds(&[]), |all, part| {
        all.and(match part[0].seeds {
            Seeds::Each(seed) => Noise::block(seed.wrapping_add(part[0].k as u64), 1),
            Seeds::Block(seed) => Noise::part_of_block(seed, n, part[0].k..part[0].k + part.len()),
        })
    })
}

/// What every picture says about where it came from.
struct About {
    model: String,
    sha256: Option<String>,
    model_hash: String,
    edits: Vec<Value>,
    extra: Vec<(String, String)>,
}

impl About {
    fn new(plan: &Plan, model: &Model, loaded: &[Loaded]) -> Result<Self, Failure> {
        let path = Path::new(&model.checkpoint.name);
        let name = path.file_stem().map_or_else(|| model.checkpoint.name.clone(), |s| s.to_string_lossy().into_owned());
        // A1111 knows checkpoints by the SHA-256 of their file.
        let sha256 = if !model.builtin && path.is_file() { Some(sha256(path)?[..10].to_owned()) } else { None };
        let erased: Vec<&str> = loaded.iter().flat_map(|one| &one.edit.about.concepts).map(String::as_str).collect();
        let mut extra = Vec::new();
        if !erased.is_empty() {
            extra.push(("Erased".to_owned(), erased.join("; ")));
        }
        for (one, record) in loaded.iter().zip(&plan.edits) {
            let hash = edits::short(record["hash"].as_str().unwrap_or_default());
            extra.push(("Edit".to_owned(), format!("{hash} x {}", one.strength)));
        }
        for guard in &plan.guards {
            extra.push(("Guard".to_owned(), format!("{} {}", guard.id, guard.texts.join("; "))));
        }
        let records = loaded.iter().map(Loaded::record).collect();
        Ok(Self { model: name, sha256, model_hash: plan.model.clone(), edits: records, extra })
    }

    /// The text that A1111 reads, and ours.
    fn texts(&self, plan: &Plan, shot: &Shot) -> (String, String) {
        let record = shot.record(plan);
        let parameters = Parameters {
            prompt: shot.prompt.clone(),
            negative_prompt: plan.negative_prompt.clone(),
            steps: plan.steps,
            sampler: plan.sampler.to_string(),
            guidance_scale: shot.guidance,
            seed: record["seed"].as_u64().unwrap_or_default(),
            width: plan.size[1],
            height: plan.size[0],
            model_hash: self.sha256.clone(),
            model: Some(self.model.clone()),
            extra: self.extra.clone(),
        };
        let mut own = json!({
            "scumble": env!("CARGO_PKG_VERSION"), "picture": record, "negative_prompt": plan.negative_prompt, "steps": plan.steps,
            "sampler": plan.sampler.to_string(), "eta": plan.eta, "height": plan.size[0], "width": plan.size[1],
            "model": self.model, "model_hash": self.model_hash, "edits": self.edits, "embeddings": plan.embeddings,
        });
        if !plan.guards.is_empty() {
            own["guards"] = json!(plan.guards);
        }
        (parameters.text(), own.to_string())
    }
}

fn sha256(path: &Path) -> Result<String, Failure> {
    let mut file = fs_err::File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Prints the paths of the pictures, or one object that says everything about them.
fn report(args: &GenerateArgs, folder: &Path, record: &Value) -> Result<(), Failure> {
    let pictures = record["pictures"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !args.print.json {
        for picture in pictures {
            output::data(&folder.join(picture["file"].as_str().unwrap_or_default()).display().to_string())?;
        }
        return Ok(());
    }
    // Whole paths, so that they hold wherever the reader stands.
    let whole = std::path::absolute(folder)?;
    let pictures: Vec<Value> = pictures
        .iter()
        .map(|picture| {
            let mut picture = picture.clone();
            picture["file"] = whole.join(picture["file"].as_str().unwrap_or_default()).display().to_string().into();
            picture
        })
        .collect();
    let plan = &record["plan"];
    output::json(&json!({
        "pictures": pictures, "output_dir": folder, "model": record["model"], "model_hash": record["model_hash"],
        "edits": record["edits"], "guards": record["plan"]["guards"], "sampler": plan["sampler"], "steps": plan["steps"], "negative_prompt": plan["negative_prompt"],
        "width": plan["width"], "height": plan["height"], "seconds": record["seconds"], "notes": record["notes"],
    }))
}
