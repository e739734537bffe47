//! What is to be done, from what the user typed.

use std::path::PathBuf;

use scumble_diffusion::Pipeline;
use scumble_erase::{
    Captions, Concept, Variant, Wording, World,
    methods::{self, Method},
};
use serde_json::{Map, Value, json};

use crate::{
    args::EraseArgs,
    failure::Failure,
    leco::PromptFile,
    masks::Masks,
    model::Model,
    options, output,
    photos::Photos,
    prompts,
    words::{self, Unknown},
};

/// Everything that decides the result.
pub(super) struct Plan {
    pub(super) concepts: Vec<Concept>,
    pub(super) preserve: Vec<Concept>,
    pub(super) captions: Captions,
    pub(super) photos: Option<Photos>,
    pub(super) masks: Option<Masks>,
    prompts: Option<PromptFile>,
    pub(super) method: &'static Method,
    pub(super) variant: Variant,
    pub(super) options: Map<String, Value>,
    pub(super) seed: u64,
    /// Whether the miniature's judges know what the model draws.
    pub(super) home: bool,
    model_hash: String,
    /// Whether the model reads capitals as small letters, so that `Van Gogh` and `van gogh` are one
    /// run.
    folds: bool,
}

/// The method that the arguments name.
///
/// # Errors
/// If there is none of that name, or several are named.
pub(super) fn method(args: &EraseArgs) -> Result<&'static Method, Failure> {
    if let Some((first, _)) = args.method.split_once([',', ';']) {
        let concept = args.concepts.first().map_or("church", String::as_str);
        return Err(Failure::new(format!("--method {}: `erase` takes one method", args.method)).with_hint(format!(
            "`scumble evaluate --concept \"{concept}\" --method {}` erases with several and compares them; here, --method {}",
            args.method.replace(';', ","),
            first.trim()
        )));
    }
    Ok(methods::named(&args.method)?)
}

impl Plan {
    /// The plan of some arguments, and what is to be said about them.
    ///
    /// # Errors
    /// If they do not fit together, or the model's world does not know a concept.
    pub(super) fn new(
        args: &EraseArgs,
        method: &'static Method,
        model: &Model,
        world: Option<&World>,
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let file = PromptFile::of(args, method.id)?;
        let mut names = concept_names(args, world);
        match &file {
            Some(file) if names.is_empty() => {
                names = file.names(world);
                notes.extend(words::check("", &names, world, Unknown::Allow)?);
            }
            _ if names.is_empty() => {
                return Err(Failure::new("no concept to erase")
                    .with_hint("name one, such as `scumble erase church`"));
            }
            _ if args.template.is_none() => {
                notes.extend(words::check("", &names, world, args.unknown)?);
            }
            _ => {}
        }
        let concepts = match &file {
            Some(file) => file.concepts(&names, world),
            None => worded(args, &names, world, &mut notes)?,
        };
        if concepts.len() > 1 && !method.several {
            return Err(Failure::new(format!(
                "`{}` erases one concept at a time, {} were given",
                method.id,
                concepts.len()
            )));
        }
        let preserve = Concept::apart(&concepts, preserved(args, method, world, &mut notes)?)?;
        let photos = args.pictures.as_deref().map(Photos::read).transpose()?;
        let masks = args.masks.as_deref().zip(photos.as_ref());
        let masks = masks
            .map(|(folder, photos)| Masks::read(folder, photos))
            .transpose()?;
        let mut options = chosen(args)?;
        if let Some(file) = &file {
            options.insert("entries".into(), json!(file.entries));
        }
        let plan = Self {
            concepts,
            preserve,
            captions: captions(args, &names, world, &mut notes)?,
            photos,
            masks,
            prompts: file,
            method,
            variant: args.variant.parse()?,
            options,
            seed: args.seed,
            home: world.is_some(),
            model_hash: model.hash.clone(),
            folds: false,
        };
        Ok((plan, notes))
    }

    /// The same, if every prompt fits the model's text encoder.
    ///
    /// # Errors
    /// If one is too long.
    pub(super) fn fitting(self, pipeline: &Pipeline) -> Result<Self, Failure> {
        if let Some(file) = &self.prompts {
            file.fit(pipeline)?;
        }
        for concept in &self.concepts {
            concept.fits(&pipeline.tokenizer)?;
        }
        let ids = |text: &str| pipeline.tokenizer.encode(text).ids;
        let folds = self
            .concepts
            .iter()
            .all(|c| ids(&c.name) == ids(&c.name.to_lowercase()));
        Ok(Self { folds, ..self })
    }

    /// The concepts' names.
    pub(super) fn names(&self) -> Vec<String> {
        self.concepts.iter().map(|c| c.name.clone()).collect()
    }

    /// What is stored of it. Not in it: what is looked at afterwards, which changes no edit.
    pub(super) fn value(&self) -> Value {
        let mut value = json!({
            "command": "erase", "model": self.model_hash, "method": self.method.id, "variant": self.variant,
            "concepts": self.concepts, "preserve": self.preserve, "captions": self.captions.about(),
            "pictures": self.photos.as_ref().map(|photos| json!({ "n": photos.len(), "hash": photos.hash })),
            "options": self.options, "seed": self.seed,
        });
        // Only if there are some: plans of earlier versions keep their hash.
        if let Some(masks) = &self.masks {
            value["masks"] = json!({ "n": masks.len(), "hash": masks.hash });
        }
        value
    }

    /// The first 16 hexadecimal digits of its blake3 hash, in which capitals count only where the
    /// model tells them apart.
    pub(super) fn hash(&self) -> String {
        let mut value = self.value();
        if self.folds {
            for key in ["concepts", "preserve"] {
                value[key] = value[key].to_string().to_lowercase().into();
            }
        }
        blake3::hash(value.to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    pub(super) fn default_folder(&self) -> PathBuf {
        let slug = output::slug(&self.names().join("-"));
        let variant = match self.variant {
            Variant::Fixed => String::new(),
            other => format!("{}-", json!(other).as_str().unwrap_or_default()),
        };
        PathBuf::from("scumble-out").join(format!(
            "{}-{variant}{slug}-{}",
            self.method.id,
            &self.hash()[..8]
        ))
    }
}

/// The concepts of all arguments, each once and as the world calls it.
fn concept_names(args: &EraseArgs, world: Option<&World>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in args
        .concepts
        .iter()
        .chain(&args.erase)
        .flat_map(|text| options::listed(text))
    {
        let name = words::canonical(&name, world);
        if !names.iter().any(|n| n.eq_ignore_ascii_case(&name)) {
            names.push(name);
        }
    }
    names
}

/// The concepts with their prompts: one anchor for all of them, or one for each.
fn worded(
    args: &EraseArgs,
    names: &[String],
    world: Option<&World>,
    notes: &mut Vec<String>,
) -> Result<Vec<Concept>, Failure> {
    let anchors = match args.anchor.as_deref() {
        // The empty prompt is an anchor too.
        Some(text) if text.trim().is_empty() => vec![String::new()],
        Some(text) => options::listed(text),
        None => vec![],
    };
    if args.anchor.is_some() && ![1, names.len()].contains(&anchors.len()) {
        return Err(Failure::new(format!(
            "--anchor: {} anchors for {} concepts",
            anchors.len(),
            names.len()
        ))
        .with_hint(
            "`;` separates anchors: give one for all concepts, or one for each in their order",
        ));
    }
    if args.template.is_none() {
        notes.extend(words::unknown_anchors(&anchors, world));
    }
    let concept = |(i, name): (usize, &String)| {
        let wording = Wording {
            template: args.template.clone(),
            objects: args
                .objects
                .iter()
                .flat_map(|o| options::listed(o))
                .collect(),
            anchor: anchors.get(i).or_else(|| anchors.first()).cloned(),
            from: args.from.clone(),
        };
        Concept::new(name, &wording, world)
    };
    Ok(names
        .iter()
        .enumerate()
        .map(concept)
        .collect::<Result<_, _>>()?)
}

/// What the user wants kept, worded like what is erased.
fn preserved(
    args: &EraseArgs,
    method: &Method,
    world: Option<&World>,
    notes: &mut Vec<String>,
) -> Result<Vec<Concept>, Failure> {
    let able = |can: fn(&Method) -> bool| {
        methods::ALL
            .iter()
            .filter(|m| can(m))
            .map(|m| m.id)
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (flag, given) in [
        ("--preserve", !args.preserve.is_empty()),
        ("--captions", args.captions.is_some()),
    ] {
        if given && !method.preserves {
            return Err(
                Failure::new(format!("{flag}: `{}` has no preservation term", method.id))
                    .with_hint(format!("methods that have one: {}", able(|m| m.preserves))),
            );
        }
    }
    if args.pictures.is_some() && !method.pictures {
        return Err(Failure::new(format!(
            "--pictures: `{}` does not learn from pictures",
            method.id
        ))
        .with_hint(format!("methods that do: {}", able(|m| m.pictures))));
    }
    if args.masks.is_some() && !methods::MASKED.contains(&method.id) {
        return Err(Failure::new(format!(
            "--masks: `{}` does not ask where pictures show the concept",
            method.id
        ))
        .with_hint(format!("methods that do: {}", methods::MASKED.join(", "))));
    }
    let names: Vec<String> = args
        .preserve
        .iter()
        .flat_map(|p| options::listed(p))
        .collect();
    notes.extend(words::check("--preserve", &names, world, args.unknown)?);
    Ok(names
        .iter()
        .map(|name| Concept::new(name, &Wording::default(), world))
        .collect::<Result<_, _>>()?)
}

/// How many captions the compiled-in nouns make where the model's own are not known.
const CAPTIONS: usize = 1000;

/// What the model should go on drawing.
fn captions(
    args: &EraseArgs,
    names: &[String],
    world: Option<&World>,
    notes: &mut Vec<String>,
) -> Result<Captions, Failure> {
    Ok(match (&args.captions, world) {
        (Some(path), _) => {
            let lines: Vec<String> = prompts::read(path, 0, notes)?
                .into_iter()
                .map(|case| case.prompt)
                .collect();
            let source = path.file_name().map_or_else(
                || path.display().to_string(),
                |n| n.to_string_lossy().into_owned(),
            );
            let captions = Captions::of_user(source, lines, names);
            if captions.lines.is_empty() {
                return Err(Failure::new(format!(
                    "{}: every prompt shares a word with what is erased",
                    path.display()
                ))
                .with_hint("captions are what the model should go on drawing"));
            }
            captions
        }
        (None, Some(world)) => Captions::of_world(world, names),
        (None, None) => Captions::of_nouns(names, CAPTIONS),
    })
}

/// The method's options: flags first, then `--set`, which reaches every one.
fn chosen(args: &EraseArgs) -> Result<Map<String, Value>, Failure> {
    let mut chosen = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            chosen.insert(key.into(), value);
        }
    };
    put("train_method", args.train_method.clone().map(Value::from));
    put("iterations", args.iterations.map(Value::from));
    put("lr", args.lr.map(Value::from));
    put(
        "eta",
        args.eta
            .or(args.negative_guidance.map(|g| g - 1.0))
            .map(Value::from),
    );
    put("start_guidance", args.start_guidance.map(Value::from));
    put("batch", args.batch.map(Value::from));
    for (flag, value) in [
        ("lr", args.lr),
        ("eta", args.eta),
        ("negative-guidance", args.negative_guidance),
    ] {
        if value.is_some_and(|v| !v.is_finite()) {
            return Err(Failure::new(format!("--{flag}: expected a finite number")));
        }
    }
    chosen.extend(options::of_set(&args.set)?);
    if let Some(name) = chosen.get("train_method").and_then(Value::as_str) {
        let name = scumble_erase::Trainable::named(name)?.name;
        chosen.insert("train_method".into(), name.into());
    }
    Ok(chosen)
}
