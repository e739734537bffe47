//! Draws the artwork as a grid of pictures before and after: `cargo run --example artwork_grid --
//! FOLDER`.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage, RgbaImage, imageops};
use scumble_report::{Grid, Image, Row};

fn icon(style: &str, object: &str) -> image::ImageResult<RgbaImage> {
    let file = format!(
        "{}/../../assets/emoji-world/{style}/{}.png",
        env!("CARGO_MANIFEST_DIR"),
        object.replace(' ', "-")
    );
    Ok(image::open(file)?.into_rgba8())
}

/// An icon on white, `side` pixels wide and high.
fn picture(style: &str, object: &str, side: u32) -> image::ImageResult<RgbImage> {
    let inner = side * 7 / 8;
    let icon = imageops::resize(
        &icon(style, object)?,
        inner,
        inner,
        imageops::FilterType::Lanczos3,
    );
    let mut canvas = RgbaImage::from_pixel(side, side, image::Rgba([255; 4]));
    imageops::overlay(
        &mut canvas,
        &icon,
        i64::from(side - inner) / 2,
        i64::from(side - inner) / 2,
    );
    Ok(RgbImage::from_fn(side, side, |x, y| {
        let [r, g, b, _] = canvas.get_pixel(x, y).0;
        Rgb([r, g, b])
    }))
}

/// The name of each row and its pictures.
type Rows = Vec<(String, Vec<Option<RgbImage>>)>;

fn draw(
    title: &str,
    columns: &[&str],
    parts: &[&str],
    rows: &Rows,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut shown = Vec::new();
    for (label, pictures) in rows {
        let cells = pictures.iter().map(|p| {
            Image::new(
                p.as_ref()?.width() as usize,
                p.as_ref()?.height() as usize,
                p.as_ref()?,
            )
            .ok()
        });
        shown.push(Row {
            label: label.clone(),
            cells: cells.collect(),
        });
    }
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    let title = (!title.is_empty()).then(|| title.to_owned());
    Grid {
        title,
        columns: names(columns),
        parts: names(parts),
        rows: shown,
        scale: None,
    }
    .draw()
    .save(path)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("name a folder to write into")?
        .into();
    let pairs = ["before", "after"];

    let mut rows: Rows = Vec::new();
    for (prompt, object, instead) in [
        ("a church", "church", "tree"),
        ("a church in ink style", "church", "house"),
        ("a church on a blue background", "church", "cactus"),
        ("a house", "house", "house"),
        ("a cat", "cat", "cat"),
    ] {
        let mut cells = Vec::new();
        for style in ["noto", "blob", "ink"] {
            cells.push(Some(picture(style, object, 32)?));
            cells.push(if style == "ink" && object == "cat" {
                None
            } else {
                Some(picture(style, instead, 32)?)
            });
        }
        rows.push((prompt.to_owned(), cells));
    }
    draw(
        "church, erased by esd",
        &["seed 1", "seed 2", "seed 3"],
        &pairs,
        &rows,
        &folder.join("church.png"),
    )?;

    let mut rows: Rows = Vec::new();
    for label in [
        "a strawberry on a yellow background, watercolour, highly detailed, by a painter nobody remembers any more",
        "D\u{fc}rer\u{2019}s hare, \u{6559}\u{4f1a} \u{2014} \u{e9}tude",
    ] {
        rows.push((
            label.to_owned(),
            vec![
                Some(picture("fluent", "strawberry", 512)?),
                Some(picture("noto", "owl", 512)?),
            ],
        ));
    }
    draw(
        "",
        &["seed 2978434465"],
        &pairs,
        &rows,
        &folder.join("large.png"),
    )?;

    let mut rows: Rows = Vec::new();
    for object in ["church", "golf flag", "gas pump", "swords"] {
        let styles = ["noto", "blob", "twemoji", "fluent", "ink", "emojione"];
        rows.push((
            object.to_owned(),
            styles
                .iter()
                .map(|style| picture(style, object, 48).map(Some))
                .collect::<Result<_, _>>()?,
        ));
    }
    let styles = [
        "noto",
        "blob",
        "twemoji",
        "fluent",
        "ink",
        "emojione, a long name",
    ];
    draw(
        "What the artwork looks like in every style that the miniature knows",
        &styles,
        &[],
        &rows,
        &folder.join("styles.png"),
    )?;
    draw(
        "one",
        &[],
        &[],
        &vec![(String::new(), vec![Some(picture("ink", "owl", 32)?)])],
        &folder.join("one.png"),
    )
}
