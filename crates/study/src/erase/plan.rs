//! What is to be done, from what is wanted.

use std::path::Path;

use scumble_diffusion::Pipeline;
use scumble_erase::{
    Captions, Concept, Edit, Variant, Wording, World,
    methods::{self, Method},
};
use serde_json::{Map, Value, json};

use crate::{
    content,
    failure::Failure,
    folder::slug,
    leco::{PROMPTS_FILE, PromptFile},
    masks::Masks,
    model::Model,
    photos::Photos,
    prompts,
    record::{ErasePlan, UserFiles},
    request::{EraseRequest, Unknown, WordingRequest},
    words,
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

impl Plan {
    /// The plan of a request, and what is to be said about it.
    ///
    /// # Errors
    /// If its parts do not fit together, or the model's world does not know a concept.
    pub(super) fn new(
        request: &EraseRequest,
        model: &Model,
        world: Option<&World>,
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let method = request.method;
        let file = PromptFile::of(request)?;
        let mut names = concept_names(&request.concepts, world);
        match &file {
            Some(file) if names.is_empty() => {
                names = file.names(world);
                notes.extend(words::check("", &names, world, Unknown::Allow)?);
            }
            _ if names.is_empty() => {
                return Err(Failure::new("no concept to erase")
                    .with_hint("name one, such as `scumble erase church`"));
            }
            _ if request.wording.template.is_none() => {
                notes.extend(words::check("", &names, world, request.unknown)?);
            }
            _ => {}
        }
        let concepts = match &file {
            Some(file) => file.concepts(&names, world),
            None => worded(&request.wording, &names, world, &mut notes)?,
        };
        if concepts.len() > 1 && !method.several {
            return Err(Failure::new(format!(
                "`{}` erases one concept at a time, {} were given",
                method.id,
                concepts.len()
            )));
        }
        let preserve = Concept::apart(&concepts, preserved(request, world, &mut notes)?)?;
        let photos = request.pictures.as_deref().map(Photos::read).transpose()?;
        let masks = request.masks.as_deref().zip(photos.as_ref());
        let masks = masks
            .map(|(folder, photos)| Masks::read(folder, photos))
            .transpose()?;
        let mut options = request.options.clone();
        if let Some(file) = &file {
            options.insert("entries".into(), json!(file.entries));
        }
        let plan = Self {
            concepts,
            preserve,
            captions: captions(request.captions.as_deref(), &names, world, &mut notes)?,
            photos,
            masks,
            prompts: file,
            method,
            variant: request.variant,
            options,
            seed: request.seed,
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

    /// Writes into an edit which prompt file it is of, as kohya's LoRAs say it.
    pub(super) fn say_prompt_file(&self, edit: &mut Edit) {
        if let (Some(file), Some(options)) = (&self.prompts, edit.about.options.as_object_mut()) {
            options.insert(PROMPTS_FILE.into(), json!(file.name()));
        }
    }

    /// The concepts' names.
    pub(super) fn names(&self) -> Vec<String> {
        self.concepts.iter().map(|c| c.name.clone()).collect()
    }

    /// What is stored of it. Not in it: what is looked at afterwards, which changes no edit.
    pub(super) fn stored(&self) -> ErasePlan {
        ErasePlan {
            command: "erase".into(),
            model: self.model_hash.clone(),
            method: self.method.id.into(),
            variant: self.variant,
            concepts: self.concepts.clone(),
            preserve: self.preserve.clone(),
            captions: self.captions.about(),
            pictures: self.photos.as_ref().map(|photos| UserFiles {
                n: photos.count(),
                hash: photos.hash.clone(),
            }),
            options: self.options.clone(),
            seed: self.seed,
            masks: self.masks.as_ref().map(|masks| UserFiles {
                n: masks.len(),
                hash: masks.hash.clone(),
            }),
        }
    }

    /// The first 16 hexadecimal digits of its blake3 hash, in which capitals count only where the
    /// model tells them apart.
    pub(super) fn hash(&self) -> String {
        let mut value = json!(self.stored());
        if self.folds {
            for key in ["concepts", "preserve"] {
                value[key] = value[key].to_string().to_lowercase().into();
            }
        }
        content::hash_of_plan(&value)
    }

    /// What its folder is called.
    pub(super) fn folder_name(&self) -> String {
        let concepts = slug(&self.names().join("-"));
        let variant = match self.variant {
            Variant::Fixed => String::new(),
            other => format!("{}-", json!(other).as_str().unwrap_or_default()),
        };
        format!(
            "{}-{variant}{concepts}-{}",
            self.method.id,
            &self.hash()[..8]
        )
    }
}

/// The concepts, each once and as the world calls it.
fn concept_names(typed: &[String], world: Option<&World>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in typed {
        let name = words::canonical(name, world);
        if !names.iter().any(|n| n.eq_ignore_ascii_case(&name)) {
            names.push(name);
        }
    }
    names
}

/// The concepts with their prompts: one anchor for all of them, or one for each.
fn worded(
    wording: &WordingRequest,
    names: &[String],
    world: Option<&World>,
    notes: &mut Vec<String>,
) -> Result<Vec<Concept>, Failure> {
    let anchors = wording.anchors.as_deref().unwrap_or_default();
    if wording.anchors.is_some() && ![1, names.len()].contains(&anchors.len()) {
        return Err(Failure::new(format!(
            "--anchor: {} anchors for {} concepts",
            anchors.len(),
            names.len()
        ))
        .with_hint(
            "`;` separates anchors: give one for all concepts, or one for each in their order",
        ));
    }
    if let Some(kind) = wording.kind {
        notes.extend(words::kind_without_effect(kind, wording, names, world));
    }
    if wording.template.is_none() {
        notes.extend(words::unknown_anchors(anchors, world));
    }
    let concept = |(i, name): (usize, &String)| {
        let wording = Wording {
            template: wording.template.clone(),
            objects: wording.objects.clone(),
            anchor: anchors.get(i).or_else(|| anchors.first()).cloned(),
            from: wording.from.clone(),
            kind: wording.kind,
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
    request: &EraseRequest,
    world: Option<&World>,
    notes: &mut Vec<String>,
) -> Result<Vec<Concept>, Failure> {
    let method = request.method;
    let able = |can: fn(&Method) -> bool| {
        methods::ALL
            .iter()
            .filter(|m| can(m))
            .map(|m| m.id)
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (flag, given) in [
        ("--preserve", !request.preserve.is_empty()),
        ("--captions", request.captions.is_some()),
    ] {
        if given && !method.preserves {
            return Err(
                Failure::new(format!("{flag}: `{}` has no preservation term", method.id))
                    .with_hint(format!("methods that have one: {}", able(|m| m.preserves))),
            );
        }
    }
    if request.pictures.is_some() && !method.pictures {
        return Err(Failure::new(format!(
            "--pictures: `{}` does not learn from pictures",
            method.id
        ))
        .with_hint(format!("methods that do: {}", able(|m| m.pictures))));
    }
    if request.masks.is_some() && !methods::MASKED.contains(&method.id) {
        return Err(Failure::new(format!(
            "--masks: `{}` does not ask where pictures show the concept",
            method.id
        ))
        .with_hint(format!("methods that do: {}", methods::MASKED.join(", "))));
    }
    let names = &request.preserve;
    notes.extend(words::check("--preserve", names, world, request.unknown)?);
    Ok(names
        .iter()
        .map(|name| Concept::new(name, &Wording::default(), world))
        .collect::<Result<_, _>>()?)
}

/// How many captions the compiled-in nouns make where the model's own are not known.
const CAPTIONS: usize = 1000;

/// What the model should go on drawing.
fn captions(
    file: Option<&Path>,
    names: &[String],
    world: Option<&World>,
    notes: &mut Vec<String>,
) -> Result<Captions, Failure> {
    Ok(match (file, world) {
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
