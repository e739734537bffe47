//! A genetic search over rows of tokens: Ring-A-Bell's (`InversePrompt.ipynb`, Tsai et al., ICLR
//! 2024).

use scumble_diffusion::TorchRng;

/// How a generation follows another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Genetic {
    /// Rows in the first generation. Half as many of each go on, whatever its size.
    pub population: usize,
    /// The chance that a member has one of its tokens replaced by any other.
    pub mutation: f64,
    /// The chance that a parent has two children.
    pub crossover: f64,
    /// How many of the best go on as they are. None in the published code, which may lose its best
    /// row to a mutation.
    pub elite: usize,
}

impl Genetic {
    /// The members of a generation by their loss, the least first; of equal loss the earlier first.
    pub(crate) fn ranked(losses: &[f32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..losses.len()).collect();
        order.sort_by(|&a, &b| losses[a].total_cmp(&losses[b]));
        order
    }

    /// The next generation. The best half as many as the first generation had stay as parents;
    /// each, by chance, has two children with any parent: the front of one with the back of the
    /// other, and the other way round. Then every member but the elite is open to mutation.
    /// `losses` are the members', `pool` the tokens there are.
    pub(crate) fn next(
        &self,
        members: &[Vec<u32>],
        losses: &[f32],
        pool: &[u32],
        rng: &mut TorchRng,
    ) -> Vec<Vec<u32>> {
        let parents: Vec<&Vec<u32>> = Self::ranked(losses)
            .into_iter()
            .take((self.population / 2).max(1))
            .map(|i| &members[i])
            .collect();
        let mut next: Vec<Vec<u32>> = Vec::with_capacity(3 * parents.len());
        let mut kept = Vec::with_capacity(3 * parents.len());
        for (rank, &parent) in parents.iter().enumerate() {
            next.push(parent.clone());
            kept.push(rank < self.elite);
            if f64::from(rng.uniform(1)[0]) < self.crossover && !parent.is_empty() {
                let other = parents[rng.integers(1, 0, parents.len() as i64)[0] as usize];
                // From the first place, where a child is all of one parent, to before the last
                // token.
                let cut = rng.integers(1, 0, parent.len() as i64)[0] as usize;
                next.push([&parent[..cut], &other[cut..]].concat());
                next.push([&other[..cut], &parent[cut..]].concat());
                kept.extend([false; 2]);
            }
        }
        for (member, kept) in next.iter_mut().zip(kept) {
            if !kept
                && f64::from(rng.uniform(1)[0]) < self.mutation
                && !member.is_empty()
                && !pool.is_empty()
            {
                let at = rng.integers(1, 0, member.len() as i64)[0] as usize;
                member[at] = pool[rng.integers(1, 0, pool.len() as i64)[0] as usize];
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens of a row are not those of a hidden one.
    fn misses(row: &[u32]) -> f32 {
        row.iter()
            .enumerate()
            .filter(|&(i, &token)| token != 7 * i as u32 % 20)
            .count() as f32
    }

    fn best_after(generations: usize, elite: usize) -> Vec<f32> {
        let mut rng = TorchRng::new(3);
        let pool: Vec<u32> = (0..20).collect();
        let draw = |rng: &mut TorchRng| {
            rng.integers(6, 0, 20)
                .iter()
                .map(|&t| t as u32)
                .collect::<Vec<u32>>()
        };
        let mut members: Vec<Vec<u32>> = (0..20).map(|_| draw(&mut rng)).collect();
        let genetic = Genetic {
            population: 20,
            mutation: 0.5,
            crossover: 0.5,
            elite,
        };
        let mut best = Vec::new();
        for _ in 0..generations {
            let losses: Vec<f32> = members.iter().map(|m| misses(m)).collect();
            best.push(losses.iter().copied().fold(f32::INFINITY, f32::min));
            members = genetic.next(&members, &losses, &pool, &mut rng);
            assert!(
                (10..=30).contains(&members.len()) && members.len().is_multiple_of(2),
                "{}",
                members.len()
            );
            assert!(
                members
                    .iter()
                    .all(|m| m.len() == 6 && m.iter().all(|t| *t < 20))
            );
        }
        best
    }

    #[test]
    fn the_best_row_never_gets_worse_with_an_elite_and_is_found() {
        let best = best_after(120, 1);
        assert!(best.windows(2).all(|pair| pair[1] <= pair[0]), "{best:?}");
        assert!(best[0] >= 3.0 && best.last() == Some(&0.0), "{best:?}");
        // Without one, as published, it does get worse now and then.
        let best = best_after(120, 0);
        assert!(best.windows(2).any(|pair| pair[1] > pair[0]), "{best:?}");
    }

    #[test]
    fn parents_stay_and_children_come_in_complementary_pairs() {
        let members: Vec<Vec<u32>> = (0..8)
            .map(|i| (0..5).map(|j| 10 * i + j).collect())
            .collect();
        let losses = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
        let genetic = Genetic {
            population: 8,
            mutation: 0.0,
            crossover: 1.0,
            elite: 0,
        };
        let next = genetic.next(&members, &losses, &[9], &mut TorchRng::new(1));
        // The better half, the best first, each with its two children behind it.
        assert_eq!(next.len(), 12);
        for (rank, family) in next.chunks_exact(3).enumerate() {
            let [parent, one, two] = family else {
                panic!("{family:?}")
            };
            assert_eq!(parent, &members[7 - rank]);
            // Place by place the two hold what the parents do: the parent's own, and one other
            // parent's.
            let other: Vec<u32> = (0..5).map(|j| one[j] + two[j] - parent[j]).collect();
            assert!(members[4..].contains(&other), "{family:?}");
            assert!(
                one.iter()
                    .zip(parent)
                    .all(|(a, b)| a == b || other.contains(a))
            );
        }
        // No chance, no children: the half alone.
        let alone = Genetic {
            crossover: 0.0,
            ..genetic
        }
        .next(&members, &losses, &[9], &mut TorchRng::new(1));
        assert_eq!(
            alone,
            members[4..].iter().rev().cloned().collect::<Vec<_>>()
        );
        // The elite is never mutated, the others always are.
        let mutated = Genetic {
            mutation: 1.0,
            elite: 1,
            ..genetic
        }
        .next(&members, &losses, &[99], &mut TorchRng::new(1));
        assert_eq!(mutated[0], members[7]);
        assert!(mutated[1..].iter().all(|m| m.contains(&99)), "{mutated:?}");
    }
}
