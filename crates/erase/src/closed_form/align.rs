//! Which position of one prompt corresponds to which of another: by tokens, not by words.

use faer::Mat;

use super::Encoded;

/// What a position of the first prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The start token, or a word that both prompts have, before the difference.
    Before,
    /// A token of the words in which the prompts differ.
    Concept,
    /// A word that both prompts have, after the difference.
    Shared,
    /// The first end token.
    End,
    /// Padding after it.
    Padding,
}

/// A position of the first prompt, the one of the second it corresponds to, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) part: Part,
}

/// Links all positions of two prompts.
///
/// Words that both have correspond one to one, before the difference and after it, and so do the
/// start tokens, the end tokens and the padding. Every token of the first prompt's differing words
/// corresponds to the last of the second's, or to the token before them if the second has none.
///
/// Attention is causal, so positions before the difference have the same rows: a regression that is
/// given their links keeps them. MACE needs that (its prior may weigh nothing, and then nothing
/// else holds the start token, which draws most of the attention); [`align`] leaves them out.
pub(crate) fn align_all(a: &Encoded, b: &Encoded) -> Vec<Link> {
    let (words_a, words_b) = (&a.ids[..=a.last], &b.ids[..=b.last]);
    let prefix = words_a
        .iter()
        .zip(words_b)
        .take_while(|(x, y)| x == y)
        .count();
    let (rest_a, rest_b) = (&words_a[prefix..], &words_b[prefix..]);
    let suffix = rest_a
        .iter()
        .rev()
        .zip(rest_b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    let (middle_a, middle_b) = (rest_a.len() - suffix, rest_b.len() - suffix);
    // The start token is always shared, so there is a token before the difference.
    let stands_in = (prefix + middle_b).saturating_sub(1);
    let before = (0..prefix).map(|i| Link {
        from: i,
        to: i,
        part: Part::Before,
    });
    let concept = (prefix..prefix + middle_a).map(|from| Link {
        from,
        to: stands_in,
        part: Part::Concept,
    });
    let shared = (0..suffix).map(|i| Link {
        from: prefix + middle_a + i,
        to: prefix + middle_b + i,
        part: Part::Shared,
    });
    let end = Link {
        from: a.end(),
        to: b.end(),
        part: Part::End,
    };
    let tokens = a.rows.nrows().min(b.rows.nrows());
    let padding = (1..tokens - a.end().max(b.end()).min(tokens)).map(|i| Link {
        from: a.end() + i,
        to: b.end() + i,
        part: Part::Padding,
    });
    before
        .chain(concept)
        .chain(shared)
        .chain([end])
        .chain(padding)
        .collect()
}

/// The links of [`align_all`] from the first token on in which the prompts differ, for methods that
/// keep the start token and what stands before the difference by terms of their own.
pub(crate) fn align(a: &Encoded, b: &Encoded) -> Vec<Link> {
    align_all(a, b)
        .into_iter()
        .filter(|link| link.part != Part::Before)
        .collect()
}

/// The rows on both sides of some links, `[links, width]` each.
pub(crate) fn linked(a: &Encoded, b: &Encoded, links: &[Link]) -> (Mat<f64>, Mat<f64>) {
    let width = a.rows.ncols();
    let from = Mat::from_fn(links.len(), width, |i, j| a.rows[(links[i].from, j)]);
    let to = Mat::from_fn(links.len(), width, |i, j| b.rows[(links[i].to, j)]);
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(words: &[u32]) -> Encoded {
        let mut ids = vec![900];
        ids.extend(words);
        ids.resize(8, 901);
        Encoded {
            rows: Mat::zeros(8, 2),
            ids,
            last: words.len(),
        }
    }

    fn pairs(a: &[u32], b: &[u32], part: Part) -> Vec<(usize, usize)> {
        align_all(&encoded(a), &encoded(b))
            .iter()
            .filter(|l| l.part == part)
            .map(|l| (l.from, l.to))
            .collect()
    }

    #[test]
    fn what_stands_before_the_difference_is_linked_to_itself() {
        assert_eq!(pairs(&[1, 2, 3], &[1, 4], Part::Before), [(0, 0), (1, 1)]);
        assert_eq!(pairs(&[2], &[], Part::Before), [(0, 0)], "the start token");
        // Every position of the first prompt has one link, but for padding that the other has no
        // room for.
        let links = align_all(&encoded(&[1, 2, 3]), &encoded(&[1, 4]));
        assert_eq!(
            links.iter().map(|l| l.from).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 7]
        );
        assert_eq!(align(&encoded(&[1, 2, 3]), &encoded(&[1, 4])), links[2..]);
    }

    #[test]
    fn tokens_find_their_counterparts() {
        // "a gar bage truck in ink" and "a car in ink": three tokens stand for the concept, two
        // words are shared.
        let (a, b) = ([1, 2, 3, 4, 5, 6], [1, 7, 5, 6]);
        assert_eq!(pairs(&a, &b, Part::Concept), [(2, 2), (3, 2), (4, 2)]);
        assert_eq!(pairs(&a, &b, Part::Shared), [(5, 3), (6, 4)]);
        assert_eq!(pairs(&a, &b, Part::End), [(7, 5)]);
        assert_eq!(pairs(&a, &b, Part::Padding), []);
        // The other way round there is padding left over on one side only.
        assert_eq!(pairs(&b, &[1, 7], Part::Padding), [(6, 4), (7, 5)]);
    }

    #[test]
    fn nothing_in_the_second_prompt_is_the_token_before() {
        assert_eq!(pairs(&[1, 2], &[], Part::Concept), [(1, 0), (2, 0)]);
        assert_eq!(pairs(&[1, 2, 3], &[1, 3], Part::Concept), [(2, 1)]);
        assert_eq!(pairs(&[1, 2, 3], &[1, 3], Part::Shared), [(3, 2)]);
        // The same prompt twice has no concept.
        assert_eq!(pairs(&[1, 2], &[1, 2], Part::Concept), []);
    }
}
