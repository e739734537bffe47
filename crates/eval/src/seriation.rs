//! An order in which similar things stand together, for matrices that people look at.

/// Orders `n` things by average-linkage clustering: the two groups that are most similar on average
/// are joined until one is left, each time turned so that the most similar ends meet. `similar` is
/// symmetric.
pub fn order(n: usize, similar: &dyn Fn(usize, usize) -> f64) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    while groups.len() > 1 {
        let (mut best, mut pair) = (f64::NEG_INFINITY, (0, 1));
        for a in 0..groups.len() {
            for b in a + 1..groups.len() {
                let sum: f64 = groups[a]
                    .iter()
                    .flat_map(|&i| groups[b].iter().map(move |&j| similar(i, j)))
                    .sum();
                let mean = sum / (groups[a].len() * groups[b].len()) as f64;
                if mean > best {
                    (best, pair) = (mean, (a, b));
                }
            }
        }
        let right = groups.remove(pair.1);
        let left = std::mem::take(&mut groups[pair.0]);
        groups[pair.0] = joined(left, right, similar);
    }
    groups.pop().unwrap_or_default()
}

fn joined(
    mut left: Vec<usize>,
    mut right: Vec<usize>,
    similar: &dyn Fn(usize, usize) -> f64,
) -> Vec<usize> {
    let ends = |group: &[usize]| [group[0], group[group.len() - 1]];
    let mut best = (f64::NEG_INFINITY, false, false);
    for (turn_left, l) in ends(&left)
        .into_iter()
        .enumerate()
        .map(|(i, l)| (i == 0, l))
    {
        for (turn_right, r) in ends(&right)
            .into_iter()
            .enumerate()
            .map(|(i, r)| (i == 1, r))
        {
            let near = similar(l, r);
            if near > best.0 {
                best = (near, turn_left, turn_right);
            }
        }
    }
    if best.1 {
        left.reverse();
    }
    if best.2 {
        right.reverse();
    }
    left.extend(right);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_line_is_found_in_its_order() {
        let place = [3.0, 0.0, 10.0, 1.0, 11.0, 2.2, 12.3f64];
        let mut found = order(7, &|a, b| -(place[a] - place[b]).abs());
        if found[0] != 1 {
            found.reverse();
        }
        assert_eq!(found, [1, 3, 5, 0, 2, 4, 6]);
        assert!(order(0, &|_, _| 0.0).is_empty());
        assert_eq!(order(1, &|_, _| 0.0), [0]);
    }
}
