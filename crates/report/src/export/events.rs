//! TensorBoard's event files: a run for each subject, a scalar for each concept and metric.
//!
//! The format is a sequence of records (TensorFlow's `record_writer.h`): length, masked CRC-32C of
//! it, data, masked CRC-32C of that. The data are `Event` messages of TensorFlow's `event.proto`,
//! of which only a few fields are needed, written here as protocol buffers say.

use std::collections::BTreeMap;

use crate::{
    evaluation::{Evaluation, Row},
    format::slug,
};

/// Name of a run's file: TensorBoard looks for `tfevents` in it, and orders by the seconds that
/// follow.
pub(crate) fn file_name(evaluation: &Evaluation) -> String {
    format!(
        "events.out.tfevents.{:010}.scumble",
        wall_time(&evaluation.created) as u64
    )
}

/// A number at a step of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// What it is: `vae/loss`.
    pub tag: String,
    /// After how many steps.
    pub step: u64,
    /// The number.
    pub value: f32,
}

/// A file of scalars, all written at `time` in seconds since 1970. TensorBoard looks for `tfevents`
/// in its name.
pub fn scalars(time: f64, all: &[Scalar]) -> Vec<u8> {
    let numbers = all.iter();
    let events = numbers.map(|one| scalar(time, &one.tag, one.step, one.value));
    std::iter::once(version(time))
        .chain(events)
        .flat_map(|event| record(&event))
        .collect()
}

/// Every subject's run: the name of its folder, and its file.
pub(crate) fn render(evaluation: &Evaluation) -> Vec<(String, Vec<u8>)> {
    let time = wall_time(&evaluation.created);
    let mut runs: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in evaluation
        .rows
        .iter()
        .filter(|r| r.value.is_some_and(f64::is_finite))
    {
        runs.entry(&row.subject).or_default().push(row);
    }
    let mut names: Vec<String> = Vec::new();
    let mut files = Vec::new();
    for (subject, rows) in runs {
        let wanted = slug(subject);
        let mut name = wanted.clone();
        let mut again = 2;
        while names.contains(&name) {
            name = format!("{wanted}-{again}");
            again += 1;
        }
        names.push(name.clone());
        let one = |row: &&Row| Scalar {
            tag: row.concept.as_ref().map_or_else(
                || row.metric.clone(),
                |concept| format!("{concept}/{}", row.metric),
            ),
            step: 0,
            value: row.value.unwrap_or_default() as f32,
        };
        let all: Vec<Scalar> = rows.iter().map(one).collect();
        files.push((name, scalars(time, &all)));
    }
    files
}

/// `Event { wall_time = 1 (double), file_version = 3 (string) }`, which begins every file.
fn version(time: f64) -> Vec<u8> {
    let mut event = vec![0x09];
    event.extend(time.to_le_bytes());
    field(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time = 1, step = 2 (int64), summary = 5 { value = 1 { tag = 1 (string),
/// simple_value = 2 (float) } } }`; step 0 is not written.
fn scalar(time: f64, tag: &str, step: u64, value: f32) -> Vec<u8> {
    let mut inner = Vec::new();
    field(&mut inner, 1, tag.as_bytes());
    inner.push(0x15);
    inner.extend(value.to_le_bytes());
    let mut summary = Vec::new();
    field(&mut summary, 1, &inner);
    let mut event = vec![0x09];
    event.extend(time.to_le_bytes());
    if step > 0 {
        event.push(2 << 3);
        varint(&mut event, step);
    }
    field(&mut event, 5, &summary);
    event
}

/// A field of bytes: its number with wire type 2, its length, itself.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, the lowest first.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A record of the file.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [
        &length[..],
        &masked(&length).to_le_bytes(),
        data,
        &masked(data).to_le_bytes(),
    ]
    .concat()
}

/// A CRC that may be stored beside what it is of.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: the files are small.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                0x82f6_3b78 ^ (crc >> 1)
            } else {
                crc >> 1
            }
        })
    })
}

/// Seconds since 1970 of `2026-11-23T21:40:00Z`; 0 for any other text.
fn wall_time(text: &str) -> f64 {
    let part = |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<i64>().ok());
    let (Some(year), Some(month), Some(day)) = (part(0..4), part(5..7), part(8..10)) else {
        return 0.0;
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return 0.0;
    }
    // Days since 1970 in the Gregorian calendar, years counted from March so that the leap day is
    // the last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let time = |range| part(range).filter(|x| (0..=60).contains(x)).unwrap_or(0);
    (86_400 * days + 3_600 * time(11..13) + 60 * time(14..16) + time(17..19)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_times_are_the_known_ones() {
        // The check value of CRC-32C in every catalogue of CRCs.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // python3 -c 'from datetime import *; print(datetime(2026, 11, 23, 21, 40, 5,
        // tzinfo=timezone.utc).timestamp())'
        assert_eq!(wall_time("2026-11-23T21:40:05Z"), 1_795_470_005.0);
        assert_eq!(wall_time("2024-02-29T00:00:00Z"), 1_709_164_800.0);
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "0000-01-01",
            "９９９９-01-01",
        ] {
            assert_eq!(wall_time(text), 0.0, "{text}");
        }
    }

    #[test]
    fn the_bytes_are_tensorboards() {
        // from tensorboard.compat.proto import event_pb2, summary_pb2  # tensorboard 2.21.0 from
        // tensorboard.summary.writer.record_writer import RecordWriter S, V = summary_pb2.Summary,
        // summary_pb2.Summary.Value w = RecordWriter(open("golden", "wb"))
        // w.write(event_pb2.Event(wall_time=1795470005.0,
        // file_version="brain.Event:2").SerializeToString()) for tag, x in (("church/target",
        // 0.0625), ("uncond_drift", 0.1), ("ink style/" + "x" * 200, 1.0)):
        //     w.write(event_pb2.Event(wall_time=1795470005.0, summary=S(value=[V(tag=tag, simple_value=x)])).SerializeToString())
        // w.flush(); print(open("golden", "rb").read().hex())
        const GOLDEN: &str = "1800000000000000a37f4b2209000040ad2cc1da411a0d627261696e2e4576656e743a321f2efb852100000000000000017becf6090000\
             40ad2cc1da412a160a140a0d6368757263682f746172676574150000803dea34ceca200000000000000029eda95009000040ad2cc1da41\
             2a150a130a0c756e636f6e645f647269667415cdcccc3d32d12542e9000000000000003533f48909000040ad2cc1da412add010ada010a\
             d201696e6b207374796c652f78787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
             78787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
             78787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
             7878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878150000803fa0115e\
             49";
        let row = |concept: Option<&str>, metric: &str, value: f64| Row {
            subject: "ESD u".into(),
            concept: concept.map(Into::into),
            metric: metric.into(),
            value: Some(value),
            ..Row::default()
        };
        let evaluation = Evaluation {
            created: "2026-11-23T21:40:05Z".into(),
            rows: vec![
                row(Some("church"), "target", 0.0625),
                row(None, "uncond_drift", 0.1),
                row(Some("church"), "others", f64::NAN),
                row(Some("ink style"), &"x".repeat(200), 1.0),
                Row {
                    subject: "esd-u".into(),
                    ..row(None, "seconds", 1.0)
                },
            ],
            ..Evaluation::default()
        };
        let runs = render(&evaluation);
        assert_eq!(
            runs.iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            ["esd-u", "esd-u-2"]
        );
        let hex: String = runs[0].1.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(
            file_name(&evaluation),
            "events.out.tfevents.1795470005.scumble"
        );
    }
}
