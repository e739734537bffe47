//! Pictures that are not independent: what hangs together is a cluster, such as the pictures of one
//! prompt and noise after several erasures, or those of one object in six styles, which an edit
//! that loses the object loses together.

use std::collections::BTreeMap;

use super::{
    interval::{Interval, same_length},
    paired::Paired,
    student::quantile as student,
};
use crate::{
    error::{Error, Result},
    rates::{Z95, wilson},
};

/// Which pictures hang together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clusters {
    members: Vec<Vec<usize>>,
    pictures: usize,
}

impl Clusters {
    /// The clusters of pictures with the same key, in the order in which they first occur.
    pub fn by<K: Ord>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut places: BTreeMap<K, usize> = BTreeMap::new();
        let mut all = Self::default();
        for key in keys {
            let next = all.members.len();
            let place = *places.entry(key).or_insert(next);
            if place == next {
                all.members.push(Vec::new());
            }
            all.members[place].push(all.pictures);
            all.pictures += 1;
        }
        all
    }

    /// `n` pictures that have nothing to do with each other.
    pub fn each(n: usize) -> Self {
        Self {
            members: (0..n).map(|i| vec![i]).collect(),
            pictures: n,
        }
    }

    /// How many clusters there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many pictures they hold.
    pub fn pictures(&self) -> usize {
        self.pictures
    }

    /// The positions of each cluster's pictures.
    pub fn members(&self) -> &[Vec<usize>] {
        &self.members
    }

    /// Whether no two pictures hang together. One cluster alone counts as such too: of other
    /// clusters nothing is known, and what is said is about this one.
    fn are_apart(&self) -> bool {
        self.members.len() < 2 || self.members.len() == self.pictures
    }

    /// The mean size of the cluster that a picture lies in.
    fn size(&self) -> f64 {
        self.members
            .iter()
            .map(|m| (m.len() * m.len()) as f64)
            .sum::<f64>()
            / self.pictures as f64
    }

    /// Sums over each cluster of what is above the mean.
    fn sums(&self, hits: &[bool], mean: f64) -> Vec<f64> {
        let one = |i: &usize| f64::from(u8::from(hits[*i])) - mean;
        self.members
            .iter()
            .map(|members| members.iter().map(one).sum())
            .collect()
    }

    /// How many independent pictures would tell as much as these, and the quantile that goes with
    /// them.
    ///
    /// Kish's design effect (1965), `1 + (m - 1) rho`: `m` is [`size`](Self::size), `rho` how much
    /// alike the pictures of a cluster are, from the spread of the clusters' sums. Where few
    /// clusters hold the rarer answer nothing can be known of `rho` (none of 144 is as likely to be
    /// none of 48 three times), so it is drawn towards 1 by as much as `m` more such clusters that
    /// are all alike.
    fn effective(&self, hits: &[bool]) -> (f64, f64) {
        let n = self.pictures as f64;
        if self.are_apart() {
            return (n, Z95);
        }
        let (c, m) = (self.members.len() as f64, self.size());
        let p = hits.iter().filter(|&&hit| hit).count() as f64 / n;
        let rare = p <= 0.5;
        let informative = self
            .members
            .iter()
            .filter(|members| members.iter().any(|&i| hits[i] == rare))
            .count() as f64;
        let alike = if p > 0.0 && p < 1.0 {
            let between = c / (c - 1.0)
                * self.sums(hits, p).iter().map(|sum| sum * sum).sum::<f64>()
                / (n * n);
            ((between / (p * (1.0 - p) / (n - 1.0)) - 1.0) / (m - 1.0)).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let rho = (informative * alike + m) / (informative + m);
        (n / (1.0 + (m - 1.0) * rho), student(self.members.len() - 1))
    }

    /// The correlation of two subjects' sums over clusters; 0 where one of them does not vary.
    fn correlation(&self, first: &[bool], second: &[bool]) -> f64 {
        let n = self.pictures as f64;
        let mean = |hits: &[bool]| hits.iter().filter(|&&hit| hit).count() as f64 / n;
        let (a, b) = (
            self.sums(first, mean(first)),
            self.sums(second, mean(second)),
        );
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let scale = (product(&a, &a) * product(&b, &b)).sqrt();
        if scale > 0.0 {
            (product(&a, &b) / scale).clamp(-1.0, 1.0)
        } else {
            0.0
        }
    }
}

/// A rate and its interval: Wilson's, at the number of independent pictures that would tell as
/// much, with Student's quantile for the number of clusters (Dean and Pagano 2015, "Evaluating
/// confidence interval methods for binomial proportions in clustered surveys").
///
/// The percentile bootstrap is no help here: near 0, which is what erasure aims at, it shrinks to a
/// point.
///
/// # Errors
/// If there are no pictures, or the clusters are of another number of them.
pub fn rate(hits: &[bool], clusters: &Clusters) -> Result<Interval> {
    same_length(hits.len(), clusters.pictures)?;
    if hits.is_empty() {
        return Err(Error::input("a rate needs at least 1 picture, found 0"));
    }
    let value = hits.iter().filter(|&&hit| hit).count() as f64 / hits.len() as f64;
    let (n, z) = clusters.effective(hits);
    let (low, high) = wilson(value, n, z);
    Ok(Interval { value, low, high })
}

/// The first rate minus the second on the same pictures. Where pictures are apart this is
/// [`Paired::difference`], Newcombe's method 10; otherwise the same with the intervals of [`rate`]
/// and with the correlation of the clusters' sums.
///
/// # Errors
/// If there are no pictures, or they are not the same.
pub fn difference(first: &[bool], second: &[bool], clusters: &Clusters) -> Result<Interval> {
    same_length(first.len(), second.len())?;
    if clusters.are_apart() {
        return Paired::of(first, second)?.difference();
    }
    let (a, b) = (rate(first, clusters)?, rate(second, clusters)?);
    let phi = clusters.correlation(first, second);
    let ends = |x: f64, y: f64| (x * x - 2.0 * phi * x * y + y * y).max(0.0).sqrt();
    let value = a.value - b.value;
    Ok(Interval {
        value,
        low: (value - ends(a.value - a.low, b.high - b.value)).max(-1.0),
        high: (value + ends(a.high - a.value, b.value - b.low)).min(1.0),
    })
}

/// The exact sign-flip test of two subjects on the same pictures (Fisher 1935, on clusters): how
/// likely the number of pictures that only the first shows is to be as far from that of the second,
/// if which of the two is which were a coin's toss for each cluster. In [0, 1].
///
/// Of pictures that are apart it is McNemar's exact test.
///
/// # Errors
/// If the pictures are not the same.
pub fn sign_flip(first: &[bool], second: &[bool], clusters: &Clusters) -> Result<f64> {
    same_length(first.len(), second.len())?;
    if clusters.are_apart() {
        return Ok(Paired::of(first, second)?.mcnemar());
    }
    same_length(first.len(), clusters.pictures)?;
    let step = |i: &usize| i64::from(first[*i]) - i64::from(second[*i]);
    let sums: Vec<i64> = clusters
        .members
        .iter()
        .map(|members| members.iter().map(step).sum())
        .collect();
    // The distribution of the total over all signs; each sum is at most a cluster's size, so there
    // are few totals.
    let most: usize = sums.iter().map(|sum| sum.unsigned_abs() as usize).sum();
    let mut chance = vec![0.0; 2 * most + 1];
    chance[most] = 1.0;
    for size in sums
        .iter()
        .map(|sum| sum.unsigned_abs() as usize)
        .filter(|&size| size > 0)
    {
        let at = |i: usize, from: &[f64]| from.get(i).copied().unwrap_or(0.0);
        let next: Vec<f64> = (0..chance.len())
            .map(|i| 0.5 * (at(i + size, &chance) + if i >= size { chance[i - size] } else { 0.0 }))
            .collect();
        chance = next;
    }
    let seen = sums.iter().sum::<i64>().unsigned_abs() as usize;
    let tail: f64 = (0..chance.len())
        .filter(|&i| i.abs_diff(most) >= seen)
        .map(|i| chance[i])
        .sum();
    Ok(tail.min(1.0))
}

#[cfg(test)]
mod tests {
    use super::{super::random::SplitMix, *};
    use crate::{near::close, rates::Rate};

    fn spread(hits: &[(usize, usize)], size: usize) -> (Vec<bool>, Clusters) {
        let each =
            |&(hits, times): &(usize, usize)| (0..times * size).map(move |i| i % size < hits);
        let all: Vec<bool> = hits.iter().flat_map(each).collect();
        let n = all.len();
        (all, Clusters::by((0..n).map(|i| i / size)))
    }

    #[test]
    fn pictures_that_are_apart_have_wilsons_interval() {
        for k in [0, 1, 3, 24, 48] {
            let hits: Vec<bool> = (0..48).map(|i| i < k).collect();
            let (low, high) = Rate { hits: k, n: 48 }.wilson(Z95);
            for clusters in [Clusters::each(48), Clusters::by(hits.iter().map(|_| 0))] {
                let found = rate(&hits, &clusters).unwrap();
                close(found.low, low, 1e-12);
                close(found.high, high, 1e-12);
            }
        }
        assert!(
            rate(&[], &Clusters::default()).is_err() && rate(&[true], &Clusters::each(2)).is_err()
        );
    }

    #[test]
    fn one_edit_judged_three_times_tells_what_one_does() {
        for k in [0, 3, 24, 48] {
            let (thrice, clusters) = spread(&[(3, k), (0, 48 - k)], 3);
            let (low, high) = wilson(k as f64 / 48.0, 48.0, student(47));
            let found = rate(&thrice, &clusters).unwrap();
            close(found.low, low, 1e-9);
            close(found.high, high, 1e-9);
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_benches() {
        // cd bench; python3 -c "from clustered import rate for g in ([[1,0,0]]*12 + [[0,0,0]]*36,
        // [[1,1,0]]*5 + [[1,0,0]]*4 + [[0,0,0]]*39, [[0]*6]*2 + [[1]*6]*25 + [[1,1,1,1,1,0]]*4):
        // print(rate(g))"
        for (groups, size, expected) in [
            (&[(1, 12), (0, 36)][..], 3, (0.043065351, 0.155149018)),
            (
                &[(2, 5), (1, 4), (0, 39)][..],
                3,
                (0.047462955, 0.188807908),
            ),
            (
                &[(0, 2), (6, 25), (5, 4)][..],
                6,
                (0.767177273, 0.971639262),
            ),
        ] {
            let (hits, clusters) = spread(groups, size);
            let found = rate(&hits, &clusters).unwrap();
            close(found.low, expected.0, 1e-8);
            close(found.high, expected.1, 1e-8);
        }
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // 48 prompts and noises with three erasures each, a true rate of 6%, two pictures of a cell
        // half alike.
        let mut random = SplitMix::new(5);
        let mut shows = |likely: usize| random.below(10_000) < likely;
        let clusters = Clusters::by((0..144).map(|i| i / 3));
        let (mut held, mut naive) = (0, 0);
        for _ in 0..600 {
            let mut hits = Vec::new();
            for _ in 0..48 {
                let shared = shows(600);
                hits.extend((0..3).map(|_| if shows(7071) { shared } else { shows(600) }));
            }
            let found = rate(&hits, &clusters).unwrap();
            held += usize::from((found.low..=found.high).contains(&0.06));
            let (low, high) = Rate {
                hits: hits.iter().filter(|&&hit| hit).count(),
                n: 144,
            }
            .wilson(Z95);
            naive += usize::from((low..=high).contains(&0.06));
        }
        assert!(held >= 564 && naive < 540, "{held} and {naive} of 600");
    }

    #[test]
    fn differences_of_whole_objects_are_wider_and_agree_where_pictures_are_apart() {
        // Both lose two of 31 objects in all six styles; the second loses another.
        let first: Vec<bool> = (0..186).map(|i| i / 6 >= 2).collect();
        let second: Vec<bool> = (0..186).map(|i| i / 6 >= 3).collect();
        let objects = Clusters::by((0..186).map(|i| i / 6));
        let (wide, narrow) = (
            difference(&first, &second, &objects).unwrap(),
            difference(&first, &second, &Clusters::each(186)).unwrap(),
        );
        assert!(wide.low < 0.0 && narrow.low > 0.0, "{wide:?} {narrow:?}");
        assert_eq!(wide.value, narrow.value);
        let mirrored = difference(&second, &first, &objects).unwrap();
        close(mirrored.low, -wide.high, 1e-12);
        // One object that is lost in six styles is one thing lost, not six.
        close(
            sign_flip(&first, &second, &Clusters::each(186)).unwrap(),
            0.03125,
            1e-12,
        );
        assert_eq!(sign_flip(&first, &second, &objects).unwrap(), 1.0);
    }

    #[test]
    fn signs_are_flipped_exactly() {
        let test = |sums: &[i64]| {
            let (mut a, mut b, mut keys) = (Vec::new(), Vec::new(), Vec::new());
            for (k, &sum) in sums.iter().enumerate() {
                // A picture that both show, so that clusters differ in size.
                a.push(true);
                b.push(true);
                keys.push(k);
                for _ in 0..sum.unsigned_abs() {
                    a.push(sum > 0);
                    b.push(sum < 0);
                    keys.push(k);
                }
            }
            sign_flip(&a, &b, &Clusters::by(keys)).unwrap()
        };
        // By hand: of the 16 ways of four threes two are as far; of 3, 3, -1 the totals 7 5 1 -1 1
        // -1 -5 -7, of which four are 5 or more.
        close(test(&[3, 3, 3, 3]), 2.0 / 16.0, 1e-12);
        close(test(&[3, 3, -1]), 0.5, 1e-12);
        // scipy.stats.binomtest(1, 10, .5).pvalue
        close(test(&[1, 1, 1, 1, 1, 1, 1, 1, 1, -1]), 0.021484375, 1e-12);
        assert_eq!((test(&[3, -3, 0]), test(&[0, 0])), (1.0, 1.0));
    }

    #[test]
    fn clusters_keep_the_order_of_pictures() {
        let clusters = Clusters::by(["b", "a", "b", "c"]);
        assert_eq!(clusters.members(), [vec![0, 2], vec![1], vec![3]]);
        assert_eq!(
            (clusters.len(), clusters.pictures(), clusters.is_empty()),
            (3, 4, false)
        );
        assert_eq!(Clusters::by([7, 8, 9]), Clusters::each(3));
    }
}
