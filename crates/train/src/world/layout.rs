//! Where the objects of a scene stand. Lengths are shares of the picture's side.

use scumble_erase::Relation;

use super::{dice::Dice, placed::Placed};

/// Where a single object stands, if a caption says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Left,
    Right,
    Top,
    Bottom,
}

impl Spot {
    pub(super) const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Top, Self::Bottom];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Left => "on the left",
            Self::Right => "on the right",
            Self::Top => "at the top",
            Self::Bottom => "at the bottom",
        }
    }
}

/// An object of this size with its corner in a square box.
fn inside(object: usize, side: f32, [left, top, width]: [f32; 3], dice: &mut Dice) -> Placed {
    let room = (width - side).max(0.0);
    Placed {
        object,
        side,
        left: left + dice.between(0.0, room),
        top: top + dice.between(0.0, room),
        mirrored: dice.chance(0.5),
    }
}

/// One object anywhere, its size in this range.
pub(super) fn single(object: usize, (low, high): (f32, f32), dice: &mut Dice) -> Placed {
    let side = dice.between(low, high);
    inside(object, side, [0.0, 0.0, 1.0], dice)
}

/// One object at one of the sides.
pub(super) fn at(object: usize, spot: Spot, dice: &mut Dice) -> Placed {
    let side = dice.between(0.42, 0.54);
    let mut placed = inside(object, side, [0.0, 0.0, 1.0], dice);
    let near = dice.between(0.0, 0.06);
    match spot {
        Spot::Left => placed.left = near,
        Spot::Right => placed.left = 1.0 - side - near,
        Spot::Top => placed.top = near,
        Spot::Bottom => placed.top = 1.0 - side - near,
    }
    placed
}

/// Two objects, each in its half of the picture, and now and then a little nearer to the middle of
/// the other axis than a diagonal would have it.
pub(super) fn pair(
    [first, second]: [usize; 2],
    relation: Relation,
    dice: &mut Dice,
) -> Vec<Placed> {
    let mut both = Vec::new();
    for (object, second) in [(first, false), (second, true)] {
        let side = dice.between(0.42, 0.5);
        let along = dice.between(0.0, 0.5 - side) + if second { 0.5 } else { 0.0 };
        let across = dice.between(0.0, 1.0 - side);
        // Right and below are left and above with the halves exchanged.
        let along = match relation {
            Relation::Left | Relation::Above => along,
            Relation::Right | Relation::Below => 1.0 - side - along,
        };
        let (left, top) = match relation {
            Relation::Left | Relation::Right => (along, across),
            Relation::Above | Relation::Below => (across, along),
        };
        both.push(Placed {
            object,
            side,
            left,
            top,
            mirrored: dice.chance(0.5),
        });
    }
    both
}

/// Several of one kind, in the quarters of the picture.
pub(super) fn several(object: usize, count: usize, dice: &mut Dice) -> Vec<Placed> {
    let mut quarters = [[0.0, 0.0], [0.5, 0.5], [0.5, 0.0], [0.0, 0.5]];
    // Two stand on either diagonal, three leave out any quarter.
    if dice.chance(0.5) {
        quarters.swap(0, 2);
        quarters.swap(1, 3);
    }
    let taken = quarters.into_iter().take(count);
    taken
        .map(|[left, top]| {
            let side = dice.between(0.4, 0.48);
            inside(object, side, [left, top, 0.5], dice)
        })
        .collect()
}
