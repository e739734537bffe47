//! Scenes: what objects a picture shows, how many, of which colour, and where they are relative to
//! each other.
//!
//! The protocol is GenEval's (Ghosh, Hajishirzi, Schmidt 2023, arXiv 2310.11513): a prompt says
//! what its picture must include and what it must not, a detector of boxes finds objects, and a
//! picture is right if all of it is met. The detector is the user's instead of Mask2Former; colours
//! are told by CLIP on the box, where the published code blanks out what is not the object's mask.

/// Words that a colour may be.
pub const COLOURS: [&str; 10] = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
];
/// Centres that are nearer to each other than this, in sums of the boxes' sides, stand in no
/// relation.
const MARGIN: f32 = 0.1;
/// A direction counts where it has at least this share of the distance.
const SHARE: f32 = 0.5;

/// A box that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Position in the detector's labels.
    pub label: usize,
    /// Left, top, width and height in pixels.
    pub area: [f32; 4],
    /// Position in [`COLOURS`], where somebody looked.
    pub colour: Option<usize>,
}

/// Where one object is, seen from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its centre is to the left.
    Left,
    /// Its centre is to the right.
    Right,
    /// Its centre is higher.
    Above,
    /// Its centre is lower.
    Below,
}

impl Side {
    /// The words of prompt files.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "left of" => Some(Self::Left),
            "right of" => Some(Self::Right),
            "above" => Some(Self::Above),
            "below" => Some(Self::Below),
            _ => None,
        }
    }

    /// Whether `a` is on this side of `b`.
    pub fn holds(self, a: [f32; 4], b: [f32; 4]) -> bool {
        let offset = [0, 1].map(|k| (a[k] + a[k + 2] / 2.0) - (b[k] + b[k + 2] / 2.0));
        let beyond = [0, 1].map(|k| {
            (offset[k].abs() - MARGIN * (a[k + 2] + b[k + 2]))
                .max(0.0)
                .copysign(offset[k])
        });
        let length = offset[0].hypot(offset[1]);
        if beyond == [0.0, 0.0] || length == 0.0 {
            return false;
        }
        let share = beyond.map(|v| v / length);
        match self {
            Self::Left => share[0] < -SHARE,
            Self::Right => share[0] > SHARE,
            Self::Above => share[1] < -SHARE,
            Self::Below => share[1] > SHARE,
        }
    }
}

/// Objects of one kind that a picture must, or must not, show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// The detector's label.
    pub class: String,
    /// How many of them.
    pub count: usize,
    /// All of one colour.
    pub colour: Option<String>,
    /// On a side of the objects that the entry of the list at this position asks for.
    pub place: Option<(Side, usize)>,
}

/// What a picture must show and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// All of these.
    pub include: Vec<Thing>,
    /// None of these, in such numbers.
    pub exclude: Vec<Thing>,
}

impl Scene {
    /// Every class that it names.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.include
            .iter()
            .chain(&self.exclude)
            .map(|thing| thing.class.as_str())
    }

    /// Whether boxes, the surest first, are such a scene; `None` where a colour is asked for that
    /// nobody looked for.
    pub(crate) fn is_met(&self, boxes: &[Found], labels: &[String]) -> Option<bool> {
        let all = |class: &str| {
            boxes
                .iter()
                .filter(|found| labels.get(found.label).is_some_and(|l| l == class))
                .collect::<Vec<_>>()
        };
        let chosen: Vec<Vec<&Found>> = self
            .include
            .iter()
            .map(|thing| all(&thing.class).into_iter().take(thing.count).collect())
            .collect();
        for (thing, own) in self.include.iter().zip(&chosen) {
            if own.len() < thing.count {
                return Some(false);
            }
            if let Some(colour) = &thing.colour {
                let seen: Vec<usize> = own
                    .iter()
                    .map(|found| found.colour)
                    .collect::<Option<_>>()?;
                if !seen
                    .iter()
                    .all(|&k| COLOURS.get(k) == Some(&colour.as_str()))
                {
                    return Some(false);
                }
            }
            if let Some((side, other)) = thing.place {
                let others = chosen.get(other)?;
                if !own
                    .iter()
                    .all(|a| others.iter().all(|b| side.holds(a.area, b.area)))
                {
                    return Some(false);
                }
            }
        }
        Some(
            self.exclude
                .iter()
                .all(|thing| all(&thing.class).len() < thing.count),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(class: &str, count: usize) -> Thing {
        Thing {
            class: class.into(),
            count,
            colour: None,
            place: None,
        }
    }

    fn found(label: usize, x: f32, y: f32) -> Found {
        Found {
            label,
            area: [x, y, 10.0, 10.0],
            colour: None,
        }
    }

    fn labels() -> Vec<String> {
        ["bench", "dog"].map(String::from).to_vec()
    }

    #[test]
    fn objects_are_counted_and_too_many_are_refused() {
        let exactly_two = Scene {
            include: vec![thing("dog", 2)],
            exclude: vec![thing("dog", 3)],
        };
        let dogs = |n: usize| {
            (0..n)
                .map(|i| found(1, 20.0 * i as f32, 0.0))
                .collect::<Vec<_>>()
        };
        let met: Vec<Option<bool>> = (0..5)
            .map(|n| exactly_two.is_met(&dogs(n), &labels()))
            .collect();
        assert_eq!(met, [false, false, true, false, false].map(Some));
        let both = Scene {
            include: vec![thing("dog", 1), thing("bench", 1)],
            exclude: vec![],
        };
        assert_eq!(both.is_met(&dogs(1), &labels()), Some(false));
        assert_eq!(
            both.is_met(&[found(0, 0.0, 0.0), found(1, 50.0, 0.0)], &labels()),
            Some(true)
        );
    }

    #[test]
    fn sides_need_a_clear_distance() {
        let at = |x: f32, y: f32| [x, y, 10.0, 10.0];
        assert!(
            Side::Left.holds(at(0.0, 0.0), at(40.0, 0.0))
                && !Side::Right.holds(at(0.0, 0.0), at(40.0, 0.0))
        );
        assert!(
            Side::Above.holds(at(0.0, 0.0), at(5.0, 40.0))
                && !Side::Below.holds(at(0.0, 0.0), at(5.0, 40.0))
        );
        // Two sides tenths of 10 + 10 apart: no relation.
        assert!(!Side::Left.holds(at(0.0, 0.0), at(2.0, 0.0)));
        assert!(!Side::Left.holds(at(0.0, 0.0), at(0.0, 0.0)));
        // Diagonally both hold.
        assert!(
            Side::Left.holds(at(0.0, 0.0), at(90.0, 90.0))
                && Side::Above.holds(at(0.0, 0.0), at(90.0, 90.0))
        );
    }

    #[test]
    fn places_and_colours() {
        let scene = |side| Scene {
            include: vec![
                thing("bench", 1),
                Thing {
                    place: Some((side, 0)),
                    ..thing("dog", 1)
                },
            ],
            exclude: vec![],
        };
        let boxes = [found(0, 0.0, 0.0), found(1, 50.0, 0.0)];
        assert_eq!(scene(Side::Right).is_met(&boxes, &labels()), Some(true));
        assert_eq!(scene(Side::Left).is_met(&boxes, &labels()), Some(false));
        let red = Scene {
            include: vec![Thing {
                colour: Some("red".into()),
                ..thing("dog", 1)
            }],
            exclude: vec![],
        };
        let painted = |k: usize| {
            [Found {
                colour: Some(k),
                ..found(1, 0.0, 0.0)
            }]
        };
        assert_eq!(
            (
                red.is_met(&painted(0), &labels()),
                red.is_met(&painted(4), &labels())
            ),
            (Some(true), Some(false))
        );
        assert_eq!(
            red.is_met(&[found(1, 0.0, 0.0)], &labels()),
            None,
            "nobody looked at colours"
        );
    }
}
