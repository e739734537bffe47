//! The pictures that an attack leaves: all of them, and one sheet.

use std::path::Path;

use scumble_attack::{Found, Report};
use scumble_report::{Grid, Image, Row, png};

use super::plan::Plan;
use crate::{
    failure::Failure,
    folder::write_file,
    record::{Line, PictureFiles},
};

/// Single pictures of every case.
const PICTURES: &str = "pictures";
/// Most cases on the sheet.
const SHOWN: usize = 16;

/// Writes the pictures of every case; what was written.
pub(super) fn keep(folder: &Path, came: &Report) -> Result<Vec<PictureFiles>, Failure> {
    fs_err::create_dir_all(folder.join(PICTURES))?;
    let keep = |i: usize, side: usize, name: &str| -> Result<String, Failure> {
        let picture = &came.pictures[side][i];
        let file = format!("{PICTURES}/{i:05}-{name}.png");
        write_file(
            &folder.join(&file),
            &png::encode_png(picture.width, picture.height, &picture.rgb, &[])?,
        )?;
        Ok(file)
    };
    let one = |case: usize| {
        Ok(PictureFiles {
            case,
            unedited: keep(case, 0, "unedited")?,
            edited: keep(case, 1, "edited")?,
            attacked: keep(case, 2, "attacked")?,
        })
    };
    (0..came.pictures[0].len()).map(one).collect()
}

/// What became of a case, for people.
pub fn fate(line: &Line) -> &'static str {
    match (line.pre, line.post) {
        (Some(false), Some(true)) => "came back",
        (Some(true), _) => "shown anyway",
        (Some(false), Some(false)) => "stayed away",
        _ => "not judged",
    }
}

/// Cases in the order in which people want to see them: what came back, what was shown anyway, the
/// rest.
pub fn ordered(lines: &[Line]) -> Vec<usize> {
    let rank = |i: usize| match fate(&lines[i]) {
        "came back" => 0,
        "shown anyway" => 1,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|&i| rank(i));
    order
}

/// The pictures of the three sides, a row for each case with what became of it and what it was
/// asked with; what came back first.
pub(super) fn sheet(plan: &Plan, came: &Report, lines: &[Line]) -> Result<Vec<u8>, Failure> {
    let mut rows = Vec::new();
    for i in ordered(lines).into_iter().take(SHOWN) {
        let mut cells = Vec::new();
        for side in &came.pictures {
            cells.push(
                side.get(i)
                    .map(|p| Image::new(p.width, p.height, &p.rgb))
                    .transpose()?,
            );
        }
        let asked = match &came.found {
            Found::Revival(_) => format!(
                "{}, {}",
                plan.cases[i].prompt,
                lines[i].found.as_deref().unwrap_or_default()
            ),
            _ => lines[i]
                .found
                .as_ref()
                .unwrap_or(&plan.cases[i].prompt)
                .clone(),
        };
        rows.push(Row {
            label: format!("{}: {asked}", fate(&lines[i])),
            cells,
        });
    }
    let shown = rows.len();
    let (all, name) = (plan.cases.len(), &plan.concept.name);
    let counted = came
        .counts()
        .map(|counts| format!("{} of {} came back", counts.new, counts.n - counts.pre));
    let title = format!(
        "{name} under {}{}",
        plan.attack.id,
        counted.map(|text| format!(": {text}")).unwrap_or_default()
    );
    let some = if shown < all {
        format!("{shown} of {all} cases, what came back first")
    } else {
        String::new()
    };
    let grid = Grid {
        title: Some(title),
        columns: if some.is_empty() {
            Vec::new()
        } else {
            vec![some]
        },
        parts: ["unedited", "edited", "attacked"]
            .map(String::from)
            .to_vec(),
        rows,
        scale: None,
    };
    let drawn = grid.draw();
    Ok(png::encode_png(
        drawn.width() as usize,
        drawn.height() as usize,
        drawn.as_raw(),
        &[],
    )?)
}
