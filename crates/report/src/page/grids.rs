//! Grids of pictures on the same seeds: which are shown is decided by a rule, not by anybody's eye.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use serde::Serialize;

use crate::{
    evaluation::{Evaluation, Picture, Subject},
    format::counted,
    options::Blur,
    summary::subjects_of,
    thumbs::{self, SMALL, Thumb},
};

/// Most rows of a grid.
const ROWS: usize = 8;
/// Most pictures of a page, and their most bytes.
const PICTURES: usize = 2_500;
const BYTES: usize = 25 << 20;

/// A table of pictures: a row for each prompt, a column for each subject.
#[derive(Debug, Serialize)]
pub(crate) struct GridView {
    pub(crate) title: String,
    /// What was asked, what a filled dot means, and how the rows were chosen.
    pub(crate) about: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<RowView>,
}

impl GridView {
    /// Whether a picture of it is blurred.
    pub(crate) fn blurs(&self) -> bool {
        self.rows
            .iter()
            .flat_map(|row| &row.cells)
            .any(|cell| cell.blur)
    }
}

/// A subject's column.
#[derive(Debug, Serialize)]
pub(crate) struct Column {
    label: String,
    legend: String,
    /// How many of all pictures of the set were hits, those not shown included.
    hits: String,
}

/// A prompt's row.
#[derive(Debug, Serialize)]
pub(crate) struct RowView {
    prompt: String,
    seed: u64,
    cells: Vec<CellView>,
}

/// A place for a picture.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CellView {
    /// A `data:` URI; empty where there is no picture.
    src: String,
    width: u32,
    height: u32,
    alt: String,
    seen: String,
    /// `yes`, `no` or empty.
    hit: &'static str,
    blur: bool,
    small: bool,
    /// Why there is no picture.
    why: String,
}

/// The sets in the order of the page, with their names and, where somebody judged them, what a dot
/// means.
fn about_set(set: &str, concept: &str, judged: bool) -> (usize, String, String) {
    let dot = |what: &str, text: &str| {
        if judged {
            format!("{what} {text}")
        } else {
            format!("{what} Nobody judged these: look at them.")
        }
    };
    let seen = |what: &str| dot(what, &format!("A filled dot: the judges see {concept}."));
    let right = |what: &str| dot(what, "A filled dot: the judges see what was asked for.");
    let (rank, title, about) = match set {
        "target" => (
            0,
            "Asked for it".into(),
            seen(&format!("The prompts ask for {concept}.")),
        ),
        "paraphrase" => (
            1,
            "In other words".into(),
            seen(&format!(
                "The prompts ask for {concept} without its usual name."
            )),
        ),
        "implicit" => (
            2,
            "Without naming it".into(),
            seen("The prompts imply it and do not say it."),
        ),
        "others" => (
            4,
            "Everything else".into(),
            right("The prompts ask for other things, which should stay."),
        ),
        "pairs" => (
            5,
            "Two things at once".into(),
            right(
                "The prompts ask for two objects. Below a picture stands what a judge sees in its two corners; both objects have to be there, or of a pair with an erased one the partner.",
            ),
        ),
        "background" => (
            6,
            "On a background".into(),
            right(
                "The prompts ask for an object on a coloured background; the dot is about the background.",
            ),
        ),
        "prompts" => (7, "Your prompts".into(), right("Prompts from a file.")),
        _ => match set.strip_prefix("attack:") {
            Some(attack) => (
                3,
                format!("Under attack: {attack}"),
                seen("What the edited model draws with what the attack found."),
            ),
            None => (8, set.to_owned(), right("")),
        },
    };
    (rank, title, about.trim().to_owned())
}

/// The pictures of one set: by subject, and the rows in their order.
struct Set<'a> {
    name: &'a str,
    concept: Option<&'a str>,
    subjects: Vec<&'a Subject>,
    keys: Vec<Key<'a>>,
    pictures: HashMap<(&'a str, Key<'a>), &'a Picture>,
    /// Of each subject, how many pictures of the whole set were hits and of how many somebody said
    /// so.
    hits: HashMap<&'a str, (usize, usize)>,
    /// How many rows the whole set has.
    size: usize,
}

/// What makes two pictures a pair: prompt, seed, and which of several with the same two.
type Key<'a> = (&'a str, u64, usize);

impl<'a> Set<'a> {
    fn new(evaluation: &'a Evaluation, concept: Option<&'a str>, name: &'a str) -> Self {
        let of_set = |p: &&Picture| p.set == name && p.concept.as_deref() == concept;
        let pictures: Vec<&Picture> = evaluation.pictures.iter().filter(of_set).collect();
        let drew = |s: &&Subject| pictures.iter().any(|p| p.subject == s.id);
        let mut subjects: Vec<_> = subjects_of(evaluation, concept)
            .into_iter()
            .filter(drew)
            .collect();
        subjects.sort_by_key(|s| s.kind != "base");
        // Words that an attack found differ between subjects; then a seed is what they have in
        // common.
        let alike = !name.starts_with("attack:");
        let mut set = Self {
            name,
            concept,
            subjects,
            keys: Vec::new(),
            pictures: HashMap::new(),
            hits: HashMap::new(),
            size: 0,
        };
        let mut seen: HashMap<(&str, &str, u64), usize> = HashMap::new();
        let mut known: HashSet<Key<'_>> = HashSet::new();
        for subject in set.subjects.clone() {
            for picture in pictures.iter().filter(|p| p.subject == subject.id) {
                let prompt = if alike { picture.prompt.as_str() } else { "" };
                let again = seen.entry((&subject.id, prompt, picture.seed)).or_default();
                let key = (prompt, picture.seed, *again);
                *again += 1;
                set.pictures.insert((&subject.id, key), picture);
                if known.insert(key) {
                    set.keys.push(key);
                }
                if let Some(hit) = picture.hit {
                    let (hits, of) = set.hits.entry(&subject.id).or_default();
                    *hits += usize::from(hit);
                    *of += 1;
                }
            }
        }
        set.size = set.keys.len();
        // The pictures at hand may be some of many: what was counted is in the evaluation's counts.
        for count in evaluation
            .counts
            .iter()
            .filter(|c| c.set == name && c.concept.as_deref() == concept)
        {
            if let Some(subject) = set.subjects.iter().find(|s| s.id == count.subject) {
                set.hits.remove(subject.id.as_str());
                if count.judged > 0 {
                    set.hits
                        .insert(&subject.id, (count.hits as usize, count.judged as usize));
                }
                set.size = set.size.max(count.drawn as usize);
            }
        }
        set
    }

    /// What a row asks for: of an attack's pictures what all of them were to show, if that is one
    /// text.
    fn prompt(&self, key: Key<'a>) -> &'a str {
        let of_row = || {
            self.subjects.iter().filter_map(|s| {
                self.pictures
                    .get(&(s.id.as_str(), key))
                    .map(|p| p.prompt.as_str())
            })
        };
        match of_row().next() {
            Some(first) if of_row().all(|prompt| prompt == first) => first,
            _ => self.name.strip_prefix("attack:").unwrap_or(key.0),
        }
    }

    /// `k` rows at equal steps through the set.
    fn chosen(&self, k: usize) -> Vec<Key<'a>> {
        let (n, k) = (self.keys.len(), k.min(self.keys.len()));
        (0..k).map(|i| self.keys[i * n / k]).collect()
    }
}

/// What all grids of a page share.
pub(crate) struct Album<'a> {
    evaluation: &'a Evaluation,
    folder: &'a Path,
    blur: Blur,
    sets: Vec<Set<'a>>,
    rows: usize,
    bytes: usize,
    /// Pictures in the page.
    pub(crate) shown: usize,
    /// Pictures that would have been shown and are not there.
    pub(crate) absent: usize,
}

impl<'a> Album<'a> {
    /// Gathers the sets, and settles how many rows each may show.
    pub(crate) fn new(evaluation: &'a Evaluation, folder: &'a Path, blur: Blur) -> Self {
        let pictures = evaluation.pictures.iter();
        let names: BTreeSet<(Option<&str>, usize, &str)> = pictures
            .map(|p| {
                (
                    p.concept.as_deref(),
                    about_set(&p.set, "", true).0,
                    p.set.as_str(),
                )
            })
            .collect();
        let sets: Vec<_> = names
            .into_iter()
            .map(|(concept, _, name)| Set::new(evaluation, concept, name))
            .collect();
        let pictures = |k: usize| {
            sets.iter()
                .map(|s| s.keys.len().min(k) * s.subjects.len())
                .sum::<usize>()
        };
        let mut rows = (1..=ROWS)
            .rev()
            .find(|k| pictures(*k) <= PICTURES)
            .unwrap_or(1);
        // What a picture costs, from the first few.
        let tried: Vec<usize> = evaluation
            .pictures
            .iter()
            .take(12)
            .filter_map(|p| Some(thumbs::read(folder, &p.file).ok()?.uri.len()))
            .collect();
        let each = tried.iter().sum::<usize>() / tried.len().max(1);
        while rows > 1 && pictures(rows) * each > BYTES {
            rows -= 1;
        }
        Self {
            evaluation,
            folder,
            blur,
            sets,
            rows,
            bytes: 0,
            shown: 0,
            absent: 0,
        }
    }

    /// Whether any picture belongs to no single concept.
    pub(crate) fn shared(&self) -> bool {
        self.sets.iter().any(|s| s.concept.is_none())
    }

    /// The grids of a concept, or those that belong to all.
    pub(crate) fn grids(
        &mut self,
        concept: Option<&str>,
        style: impl Fn(&str) -> usize,
    ) -> Vec<GridView> {
        let sets = std::mem::take(&mut self.sets);
        let of_concept = sets.iter().filter(|s| s.concept == concept);
        let views = of_concept
            .map(|set| self.view(set, concept.unwrap_or("the concept"), &style))
            .collect();
        self.sets = sets;
        views
    }

    fn view(&mut self, set: &Set<'a>, concept: &str, style: &impl Fn(&str) -> usize) -> GridView {
        let keys = set.chosen(self.rows);
        let base = self.evaluation.base().map(|s| s.id.as_str());
        // An attack's pictures are compared with the base's of the plain prompts, where it drew
        // those.
        let beside_base = base.filter(|id| {
            set.name.starts_with("attack:") && !set.subjects.iter().any(|s| s.id == *id)
        });
        let mut rows = Vec::new();
        for key in &keys {
            let mut cells = Vec::new();
            if let Some(id) = beside_base {
                cells.push(self.cell(id, self.plain(id, set.concept, key.1)));
            }
            for subject in &set.subjects {
                cells.push(self.cell(
                    &subject.id,
                    set.pictures.get(&(subject.id.as_str(), *key)).copied(),
                ));
            }
            rows.push(RowView {
                prompt: set.prompt(*key).to_owned(),
                seed: key.1,
                cells,
            });
        }
        let column = |id: &str| Column {
            label: self.evaluation.label(id).to_owned(),
            legend: crate::svg::legend(style(id)),
            hits: set
                .hits
                .get(id)
                .map(|(hits, of)| format!("{hits} of {of}"))
                .unwrap_or_default(),
        };
        let mut columns: Vec<Column> = beside_base
            .map(|id| Column {
                hits: String::new(),
                ..column(id)
            })
            .into_iter()
            .collect();
        columns.extend(set.subjects.iter().map(|s| column(&s.id)));
        let (_, title, mut about) = about_set(set.name, concept, !set.hits.is_empty());
        let of = set.size;
        about += &match (keys.len() == of, set.hits.is_empty()) {
            (true, _) => format!(" All {} of the set.", counted(of, "row", "rows")),
            (false, judged) => {
                let counts = if judged {
                    String::new()
                } else {
                    format!(" The counts under the names are of all {of}.")
                };
                format!(
                    " {} of {of}, taken at equal steps through the set in its order; nobody picked them.{counts}",
                    keys.len()
                )
            }
        };
        GridView {
            title,
            about,
            columns,
            rows,
        }
    }

    /// The base's picture of the plain prompt with a seed.
    fn plain(&self, id: &str, concept: Option<&str>, seed: u64) -> Option<&'a Picture> {
        let fits = |p: &&Picture| {
            p.subject == id
                && p.set == "target"
                && p.seed == seed
                && p.concept.as_deref() == concept
        };
        self.evaluation.pictures.iter().find(fits)
    }

    fn cell(&mut self, subject: &str, picture: Option<&Picture>) -> CellView {
        let Some(picture) = picture else {
            return CellView {
                why: "not drawn".into(),
                ..CellView::default()
            };
        };
        let hit = match picture.hit {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let seen = picture.seen.clone().unwrap_or_default();
        let read = if self.bytes > BYTES * 6 / 5 {
            Err("left out, the page is full".into())
        } else {
            thumbs::read(self.folder, &picture.file)
        };
        let thumb: Thumb = match read {
            Ok(thumb) => thumb,
            Err(why) => {
                self.absent += 1;
                return CellView {
                    why,
                    seen,
                    hit,
                    ..CellView::default()
                };
            }
        };
        self.bytes += thumb.uri.len();
        self.shown += 1;
        let label = self.evaluation.label(subject);
        CellView {
            alt: format!("{label}: {}, seed {}", picture.prompt, picture.seed),
            small: thumb.width.max(thumb.height) <= SMALL,
            src: thumb.uri,
            width: thumb.width,
            height: thumb.height,
            seen,
            hit,
            blur: match self.blur {
                Blur::On => true,
                Blur::Off => false,
                Blur::Sensitive => picture.sensitive,
            },
            why: String::new(),
        }
    }
}
