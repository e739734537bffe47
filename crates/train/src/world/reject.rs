//! Pictures that show none of the world's objects: what a judge has to refuse.
//!
//! A classifier that has only seen objects gives every blot one of their names, and a search for its
//! yes finds the blots. Here are blots made of the artwork itself: so that what is refused is not told
//! by its colours.

use scumble_diffusion::{Picture, TorchRng};
use scumble_erase::seeds::{Stream, stream};

use super::{artwork::Artwork, dice::Dice, scene::Scenes, window::Window};

/// Pictures without an object, by number.
pub(crate) struct Reject {
    stream: Stream,
}

impl Reject {
    /// The pictures of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            stream: stream(seed, "train/reject"),
        }
    }

    /// Picture `i`, of `side` pixels, and through what it is looked at.
    pub(crate) fn at(
        &self,
        i: usize,
        scenes: &Scenes,
        artwork: &Artwork,
        side: usize,
    ) -> (Picture, Option<Window>) {
        let rng = self.stream.rng(i);
        let mut dice = Dice::new(rng);
        let any = |dice: &mut Dice| scenes.at(1_000_000_000 + dice.below(1_000_000_000));
        let scene = any(&mut dice);
        let a = scene.draw(artwork, side);
        let drawn = |dice: &mut Dice| any(dice).draw(artwork, side);
        // A place beside what stands there.
        if dice.chance(0.25)
            && let Some(window) = Window::beside(&scene.placed, &mut dice)
        {
            return (a, Some(window));
        }
        let picture = match dice.below(6) {
            0 => shuffled(&a, side / 8, &mut dice),
            1 => blurred(&a, side / 5 + dice.below(side / 8)),
            2 => fragment(&a, &mut dice),
            3 => {
                let b = drawn(&mut dice);
                let c = drawn(&mut dice);
                blended(&[&a, &b, &c])
            }
            4 => mixed(&shuffled(&a, side / 4, &mut dice), &mut dice),
            _ => mixed(&blurred(&a, side / 6), &mut dice),
        };
        (picture, None)
    }
}

fn mapped(of: &Picture, value: impl Fn(usize, usize, usize) -> f32) -> Picture {
    let (width, height) = (of.width, of.height);
    let mut rgb = Vec::with_capacity(of.rgb.len());
    for y in 0..height {
        for x in 0..width {
            rgb.extend((0..3).map(|c| value(x, y, c).clamp(0.0, 255.0).round() as u8));
        }
    }
    Picture { width, height, rgb }
}

fn pixel(of: &Picture, x: usize, y: usize, c: usize) -> f32 {
    f32::from(of.rgb[3 * (y * of.width + x) + c])
}

/// Its patches in another order.
fn shuffled(a: &Picture, patch: usize, dice: &mut Dice) -> Picture {
    let patch = patch.max(1);
    let across = a.width / patch;
    let mut order: Vec<usize> = (0..across * across).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, dice.below(i + 1));
    }
    mapped(a, |x, y, c| {
        let at = (y / patch).min(across - 1) * across + (x / patch).min(across - 1);
        let from = order[at];
        let (u, v) = (from % across * patch, from / across * patch);
        pixel(
            a,
            (u + x % patch).min(a.width - 1),
            (v + y % patch).min(a.height - 1),
            c,
        )
    })
}

/// Means over squares of so many pixels on either axis: colours without a shape.
fn blurred(a: &Picture, width: usize) -> Picture {
    let half = (width / 2).max(1) as i64;
    let mean = |along: &dyn Fn(usize) -> f32, at: usize, n: usize| {
        let range = (at as i64 - half).max(0)..(at as i64 + half + 1).min(n as i64);
        let count = range.end - range.start;
        range.map(|i| along(i as usize)).sum::<f32>() / count as f32
    };
    let rows = mapped(a, |x, y, c| mean(&|u| pixel(a, u, y, c), x, a.width));
    mapped(&rows, |x, y, c| {
        mean(&|v| pixel(&rows, x, v, c), y, a.height)
    })
}

/// A small part of it, as large as the whole: a leg is no dog.
fn fragment(a: &Picture, dice: &mut Dice) -> Picture {
    let part = a.width as f32 * dice.between(0.16, 0.26);
    let room = a.width as f32 - part - 1.0;
    let (left, top) = (dice.between(0.0, room), dice.between(0.0, room));
    let step = part / a.width as f32;
    mapped(a, |x, y, c| {
        let (u, v) = (left + x as f32 * step, top + y as f32 * step);
        let (iu, iv) = (u as usize, v as usize);
        let (fu, fv) = (u - iu as f32, v - iv as f32);
        let row = |v: usize| pixel(a, iu, v, c) * (1.0 - fu) + pixel(a, iu + 1, v, c) * fu;
        row(iv) * (1.0 - fv) + row(iv + 1) * fv
    })
}

/// The mean of several.
fn blended(all: &[&Picture]) -> Picture {
    let first = all[0];
    mapped(first, |x, y, c| {
        all.iter().map(|p| pixel(p, x, y, c)).sum::<f32>() / all.len() as f32
    })
}

/// With noise over it.
fn mixed(a: &Picture, dice: &mut Dice) -> Picture {
    let strength = dice.between(20.0, 90.0);
    let noise = TorchRng::new(dice.below(1 << 30) as u64).normal(a.rgb.len().max(16));
    mapped(a, |x, y, c| {
        pixel(a, x, y, c) + strength * noise[3 * (y * a.width + x) + c]
    })
}
