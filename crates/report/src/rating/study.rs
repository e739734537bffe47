//! The rating page: pictures in an order that a seed shuffles, under ids that say nothing.

use std::path::Path;

use minijinja::context;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::key::{Item, KEY_FORMAT, Key, RATINGS_FORMAT};
use crate::{
    error::Result,
    evaluation::{Evaluation, Picture},
    shell::{Shell, value},
    summary::concepts,
    thumbs::{self, SMALL},
};

/// Most pictures of a page: as many as a person can look at in half an hour.
const PICTURES: usize = 240;
/// Most pictures of one subject and concept.
const EACH: usize = 12;

/// A page and its key.
pub(crate) struct Study {
    pub(crate) html: String,
    pub(crate) key: Vec<u8>,
}

/// A picture of the page. It has nothing of the subject.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    src: String,
    width: u32,
    height: u32,
    small: bool,
    question: String,
}

/// Whether there is anything to rate: pictures that were drawn for prompts that ask for a concept.
pub(crate) fn possible(evaluation: &Evaluation) -> bool {
    evaluation.pictures.iter().any(asked_for)
}

fn asked_for(picture: &Picture) -> bool {
    picture.set == "target" && picture.concept.is_some()
}

/// The same rows of every subject, at equal steps through the concept's own set.
fn chosen(evaluation: &Evaluation) -> Vec<&Picture> {
    let concepts = concepts(evaluation);
    let groups = concepts.len().max(1) * evaluation.subjects.len().max(1);
    let each = (PICTURES / groups).clamp(1, EACH);
    let mut found = Vec::new();
    for concept in concepts {
        for subject in &evaluation.subjects {
            let of = |p: &&Picture| {
                asked_for(p) && p.concept.as_deref() == concept && p.subject == subject.id
            };
            let pictures: Vec<_> = evaluation.pictures.iter().filter(of).collect();
            let k = each.min(pictures.len());
            found.extend((0..k).map(|i| pictures[i * pictures.len() / k]));
        }
    }
    found.truncate(PICTURES);
    found
}

/// Makes the page; `None` where no picture can be shown.
pub(crate) fn study(evaluation: &Evaluation, folder: &Path, seed: u64) -> Result<Option<Study>> {
    let mut pictures: Vec<_> = chosen(evaluation)
        .into_iter()
        .filter_map(|p| Some((p, thumbs::read(folder, &p.file).ok()?)))
        .collect();
    if pictures.is_empty() {
        return Ok(None);
    }
    shuffle(&mut pictures, seed);
    let sensitive = pictures.iter().any(|(p, _)| p.sensitive);
    // The page's name: another picture or another order is another study, whose ratings do not mix
    // with these.
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    pictures
        .iter()
        .for_each(|(_, thumb)| hasher.update(thumb.uri.as_bytes()));
    let study: String = hasher
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let kind = |name: &str| {
        evaluation
            .concepts
            .iter()
            .find(|c| c.name == name)
            .and_then(|c| c.kind.as_deref())
    };
    let (mut shown, mut items) = (Vec::new(), Vec::new());
    for (i, (picture, thumb)) in pictures.into_iter().enumerate() {
        let id = format!("p{:03}", i + 1);
        let concept = picture.concept.clone().unwrap_or_default();
        let question = match kind(&concept) {
            Some("style") => format!("How much does the style of this picture resemble {concept}?"),
            _ => format!("How much does this picture show {concept}?"),
        };
        shown.push(Shown {
            id: id.clone(),
            small: thumb.width.max(thumb.height) <= SMALL,
            src: thumb.uri,
            width: thumb.width,
            height: thumb.height,
            question,
        });
        items.push(Item {
            id,
            subject: picture.subject.clone(),
            concept: picture.concept.clone(),
            file: picture.file.clone(),
        });
    }
    let html = Shell::new("rating.js", "rating.css")
        .render("rating.html", context! { title => "Rating pictures", study => study.clone(), shown => value(&shown), format => RATINGS_FORMAT, sensitive })?;
    let key = Key {
        format: KEY_FORMAT.into(),
        study,
        seed,
        items,
    };
    let mut key = serde_json::to_vec_pretty(&key).map_err(std::io::Error::from)?;
    key.push(b'\n');
    Ok(Some(Study { html, key }))
}

/// Fisher and Yates' shuffle with splitmix64 (Steele and others, 2014).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        items.swap(i, (z % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_everything_and_obeys_its_seed() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..100).collect();
            shuffle(&mut items, seed);
            items
        };
        assert_eq!(shuffled(7), shuffled(7));
        assert_ne!(shuffled(7), shuffled(8));
        assert_ne!(shuffled(0), (0..100).collect::<Vec<_>>());
        let mut back = shuffled(3);
        back.sort_unstable();
        assert_eq!(back, (0..100).collect::<Vec<_>>());
    }
}
