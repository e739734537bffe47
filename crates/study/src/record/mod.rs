//! `run.json`: what a run was to do and what came of it, as types. Read with care, for anybody may have
//! written it, and whatever version of the program.
//!
//! The keys and their order are those of the first version: what came later is optional, and what a
//! run does not have is left out or null as it always was. `scumble` is the version that wrote it.

mod attack;
mod erase;
mod evaluate;
mod generate;
mod present;
mod train;

use std::path::Path;

use scumble_nn::files::source::{parse_object, read_file};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub(crate) use self::attack::FailedAttack;
pub use self::{
    attack::{
        AttackOutcome, AttackPlan, AttackResult, Conditional, Line, McNemar, PictureFiles,
        Probabilities, ShowCounts, Transfer,
    },
    erase::{
        BeforeAfter, ConceptRates, Cost, Details, EraseOutcome, ErasePlan, EraseResult, Estimate,
        OneConcept, PictureByPicture, PictureCounts, Sides, UserFiles,
    },
    evaluate::{AttackSettings, EvaluateOutcome, EvaluatePlan, ImpactPlan, SubjectPlan},
    generate::{
        ContentHash, EditRecord, EditStrength, EmbeddingRecord, GenerateOutcome, GeneratePlan,
        PictureRecord, SizeOfPicture,
    },
    train::{Measurement, TrainOutcome, TrainPlan, TunedPlan},
};
use crate::failure::Failure;
pub use erase::bytes_in_words;

/// Longest record read, in bytes.
const LONGEST: u64 = 1 << 30;

/// What a hint says of every damaged record.
const HINT: &str =
    "it is not what scumble wrote; give another --output-dir, or --overwrite to replace it";

/// A run: what it is known by, its plan, and what came of it (`B`, whose keys stand beside these).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Record<P, B> {
    /// The hash of the plan: runs of one hash are the same run.
    pub plan_hash: Option<String>,
    /// Everything that decides the result.
    pub plan: P,
    /// Whether all of it is done.
    pub finished: bool,
    /// The version of the program that wrote it.
    pub scumble: String,
    /// What came of it.
    #[serde(flatten)]
    pub body: B,
}

/// The record of an erasure.
pub type EraseRun = Record<ErasePlan, EraseOutcome>;
/// The record of drawn pictures.
pub type GenerateRun = Record<GeneratePlan, GenerateOutcome>;
/// The record of an attack.
pub type AttackRun = Record<AttackPlan, AttackOutcome>;
/// The record of an evaluation.
pub type EvaluateRun = Record<EvaluatePlan, EvaluateOutcome>;

/// The record of a training.
pub type TrainRun = Record<TrainPlan, TrainOutcome>;

/// What every record holds, whatever the command.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Head {
    /// The hash of the plan.
    pub plan_hash: Option<String>,
    /// Whether the run is done; null counts as not.
    pub finished: Option<bool>,
    /// The version of the program that wrote it.
    pub scumble: Option<String>,
}

/// The plan's place in a record.
#[derive(Deserialize)]
#[serde(default)]
struct Planned<P: Default> {
    plan: P,
}

impl<P: Default> Default for Planned<P> {
    fn default() -> Self {
        Self { plan: P::default() }
    }
}

impl<P: DeserializeOwned + Default, B: DeserializeOwned> Record<P, B> {
    /// The record in a file; `None` if there is none.
    ///
    /// # Errors
    /// If it is no JSON object, or a field is not what it should be; the error names the file and the field.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        object(path)?
            .map(|record| Self::of(path, record))
            .transpose()
    }

    /// The record in a file, if it is of this command: a folder may hold what another one wrote. One
    /// that does not say is taken for this one's.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn of_command(path: &Path, command: &str) -> Result<Option<Self>, Failure> {
        let record = object(path)?.filter(|record| {
            let said = record.get("plan").and_then(|plan| plan.get("command"));
            said.is_none_or(|said| said == command)
        });
        record.map(|record| Self::of(path, record)).transpose()
    }

    /// The record that an object is.
    ///
    /// # Errors
    /// If a field is not what it should be; the error names `path` and the field.
    pub(crate) fn of(path: &Path, record: Map<String, Value>) -> Result<Self, Failure> {
        let head: Head = parsed(path, &record)?;
        let Planned { plan } = parsed(path, &record)?;
        Ok(Self {
            plan_hash: head.plan_hash,
            plan,
            finished: head.finished.unwrap_or(false),
            scumble: head.scumble.unwrap_or_default(),
            body: parsed(path, &record)?,
        })
    }
}

/// The command whose run the record at `path` is; `None` if there is none or it does not say.
///
/// # Errors
/// As [`Record::read`].
pub fn command(path: &Path) -> Result<Option<String>, Failure> {
    let said = object(path)?.and_then(|record| {
        let command = record.get("plan")?.get("command")?;
        Some(command.as_str()?.to_owned())
    });
    Ok(said)
}

/// What the record at `path` says that every record says; `None` if there is none.
///
/// # Errors
/// As [`Record::read`].
pub fn head(path: &Path) -> Result<Option<Head>, Failure> {
    object(path)?
        .map(|record| parsed(path, &record))
        .transpose()
}

/// The object in a file; `None` if there is no file.
///
/// # Errors
/// If it cannot be read or is no JSON object.
pub(crate) fn object(path: &Path) -> Result<Option<Map<String, Value>>, Failure> {
    match fs_err::metadata(path) {
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
        Ok(_) => {}
    }
    let bytes = read_file(path, LONGEST)?;
    match parse_object(path, &bytes).map_err(|e| Failure::from(e).with_hint(HINT))? {
        Value::Object(record) => Ok(Some(record)),
        _ => Err(missing(path, "record")),
    }
}

/// A value of a file that a run keeps for itself; `None` if there is none.
///
/// # Errors
/// As [`Record::read`].
pub fn state<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    object(path)?
        .map(|record| parsed(path, &record))
        .transpose()
}

/// The fields of a record; those that it does not know are passed over.
pub(crate) fn parsed<T: DeserializeOwned>(
    path: &Path,
    record: &Map<String, Value>,
) -> Result<T, Failure> {
    let of = |record: &Map<String, Value>| T::deserialize(record).map_err(|e| e.to_string());
    of(record).map_err(|problem| {
        let file = path.display();
        let failure = match culprit(record, &of, &problem) {
            Some(name) => Failure::new(format!("{file}: `{name}`: {problem}")),
            None => Failure::new(format!("{file}: {problem}")),
        };
        failure.with_hint(HINT)
    })
}

/// What reads a record of its fields; a problem in words.
type Reader<'a, T> = dyn Fn(&Map<String, Value>) -> Result<T, String> + 'a;

/// The field that a problem is about: fields are read one after the other, so the problem stays the
/// same without any other and does not without this one.
fn culprit<T>(record: &Map<String, Value>, of: &Reader<'_, T>, problem: &str) -> Option<String> {
    if problem.starts_with("missing field") {
        // It names the field itself.
        return None;
    }
    let found = record.keys().find(|key| {
        let mut without = record.clone();
        without.shift_remove(*key);
        of(&without).err().as_deref() != Some(problem)
    });
    found.cloned()
}

/// That a field which a finished run has is not there.
pub fn missing(path: &Path, name: &str) -> Failure {
    Failure::new(format!("{}: `{name}`: is missing", path.display())).with_hint(HINT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        assert!(EraseRun::read(&path).unwrap().is_none());
        for (text, said) in [
            ("{\"finished\": tr", "run.json"),
            ("[1]", "run.json"),
            (
                "{\"plan_hash\": 3}",
                "`plan_hash`: invalid type: integer `3`",
            ),
            (
                "{\"finished\": \"yes\"}",
                "`finished`: invalid type: string \"yes\"",
            ),
            ("{\"plan\": {\"seed\": -1}}", "`plan`: invalid value"),
            (
                "{\"threads\": 2, \"cost\": {\"seconds\": \"x\"}}",
                "`cost`: invalid type",
            ),
            (
                "{\"finished\": true, \"result\": {\"method\": \"uce\", \"edit\": 3}}",
                "`result`: invalid type",
            ),
        ] {
            fs_err::write(&path, text).unwrap();
            let error = EraseRun::read(&path).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("run.json") && text.contains(said), "{text}");
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("--overwrite"))
            );
        }
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        // As of 2026-11-23: no memory, no details of pictures, no notes.
        let old = json!({
            "plan_hash": "0123456789abcdef",
            "plan": {"command": "erase", "model": "m", "method": "esd", "variant": "fixed", "seed": 0, "options": {},
                     "concepts": [{"name": "church", "prompts": []}], "preserve": []},
            "finished": true, "scumble": "0.0.1", "threads": 2, "something": "new",
            "cost": {"seconds": 1.5, "evaluations": 3},
            "result": {"method": "esd", "concept": "church", "edit": "run/edit.safetensors", "seconds": 1.5,
                       "before": {"target": 0.5, "others": null}, "after": null, "evaluations": 3},
        });
        fs_err::write(&path, old.to_string()).unwrap();
        let read = EraseRun::read(&path).unwrap().unwrap();
        assert!(read.finished && read.plan.concepts[0].name == "church");
        let result = read.body.result.unwrap();
        assert_eq!(result.before.unwrap().target, Some(0.5));
        assert_eq!(
            (result.memory, read.body.cost.unwrap().memory),
            (None, None)
        );
        let head = head(&path).unwrap().unwrap();
        assert_eq!(head.plan_hash.as_deref(), Some("0123456789abcdef"));
        // What is there of another command is no damage.
        assert!(EraseRun::of_command(&path, "erase").unwrap().is_some());
        assert!(AttackRun::of_command(&path, "attack").unwrap().is_none());
        assert!(
            AttackRun::of_command(&folder.path().join("none"), "attack")
                .unwrap()
                .is_none()
        );
    }

    fn keys(record: &impl Serialize) -> Vec<String> {
        let object = json!(record);
        object.as_object().unwrap().keys().cloned().collect()
    }

    /// Other programs read these files: a key keeps its name and its place.
    #[test]
    fn keys_stand_where_they_always_did() {
        let head = ["plan_hash", "plan", "finished", "scumble"];
        let with = |rest: &[&'static str]| [&head, rest].concat();
        let begun = EraseRun::default();
        assert_eq!(keys(&begun), with(&["model", "notes", "device", "threads"]));
        let mut done = begun;
        done.body.cost = Some(Cost::default());
        done.body.options = Some(json!({}));
        done.body.result = Some(EraseResult::default());
        done.body.details = Some(Details::default());
        let own = [
            "model", "notes", "device", "threads", "cost", "options", "result", "details",
        ];
        assert_eq!(keys(&done), with(&own));
        assert_eq!(
            keys(&EraseResult::default()),
            [
                "method",
                "concept",
                "edit",
                "seconds",
                "before",
                "after",
                "n",
                "uncond_drift",
                "evaluations",
                "memory",
                "estimate"
            ]
        );
        let begun = AttackRun::default();
        assert_eq!(keys(&begun), with(&["model", "device", "threads"]));
        let mut done = begun;
        done.body = AttackOutcome {
            seconds: Some(1.0),
            pictures: Some(vec![]),
            options: Some(json!({})),
            found: Some("found.json".into()),
            // Of nobody: null.
            transfer: Some(None),
            spent: Some(0),
            evaluations: Some(0),
            shown: Some(None),
            lines: Some(vec![]),
            notes: Some(Map::new()),
            result: Some(AttackResult::default()),
            ..done.body
        };
        let own = [
            "model",
            "device",
            "threads",
            "seconds",
            "pictures",
            "options",
            "found",
            "transfer",
            "spent",
            "evaluations",
            "shown",
            "lines",
            "notes",
            "result",
        ];
        assert_eq!(keys(&done), with(&own));
        // Null and absent are told apart when they are read, too.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        fs_err::write(&path, json!(done).to_string()).unwrap();
        assert_eq!(AttackRun::read(&path).unwrap().unwrap(), done);
        let own = [
            "model",
            "model_hash",
            "device",
            "threads",
            "seconds",
            "notes",
            "prompts",
            "edits",
            "embeddings",
            "pictures",
        ];
        assert_eq!(keys(&GenerateRun::default()), with(&own));
        let own = ["created", "device", "threads", "seconds"];
        assert_eq!(keys(&EvaluateRun::default()), with(&own));
    }
}
