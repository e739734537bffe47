//! Both judges of a world, and what they count.

use scumble_diffusion::Picture;

use crate::{
    error::{Error, Result},
    judge::Judge,
    judging::{Answer, JudgingSet, Kind, Role},
    rates::Rates,
};

/// Who says what a picture shows.
#[derive(Debug)]
pub struct Judges {
    /// Names the object.
    pub object: Judge,
    /// Names the style.
    pub style: Judge,
}

impl Judges {
    /// Counts what the pictures of a set show; they are in the set's order.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    pub fn judge(&self, set: &JudgingSet, pictures: &[Picture]) -> Result<Rates> {
        self.count(set, &self.answers(pictures))
    }

    /// What both judges see on each picture.
    pub fn answers(&self, pictures: &[Picture]) -> Vec<Answer> {
        let (objects, styles) = (
            self.object.classify(pictures),
            self.style.classify(pictures),
        );
        objects
            .into_iter()
            .zip(styles)
            .map(|(object, style)| Answer {
                object: object.label,
                style: style.label,
            })
            .collect()
    }

    /// Counts answers about the pictures of a set; they are in the set's order.
    ///
    /// # Errors
    /// If there are more or fewer answers than cases, or a judge does not know the label it is asked about.
    pub fn count(&self, set: &JudgingSet, answers: &[Answer]) -> Result<Rates> {
        if set.cases.len() != answers.len() {
            return Err(Error::input(format!(
                "expected {} judged pictures, found {}",
                set.cases.len(),
                answers.len()
            )));
        }
        let mut rates = Rates::default();
        for (case, answer) in set.cases.iter().zip(answers) {
            self.expect_labels(case.judge, &case.accepted)?;
            let seen = match case.judge {
                Kind::Object => &answer.object,
                Kind::Style => &answer.style,
            };
            let hit = case.accepted.contains(seen);
            match case.role {
                Role::Target => rates.target.add(hit),
                Role::Other => {
                    rates.others.add(hit);
                    rates.other_objects.add(answer.object == case.names.object);
                    rates.other_styles.add(answer.style == case.names.style);
                }
            }
            // Prompts that name an erased style should still show their object.
            if let (Some(object), Role::Target) = (&case.object, case.role) {
                self.expect_labels(Kind::Object, std::slice::from_ref(object))?;
                rates
                    .target_objects
                    .get_or_insert_default()
                    .add(answer.object == *object);
            }
        }
        Ok(rates)
    }

    /// The judge that answers this kind of question.
    pub fn of(&self, kind: Kind) -> &Judge {
        match kind {
            Kind::Object => &self.object,
            Kind::Style => &self.style,
        }
    }

    /// A judge that has no word for the answer would count every picture as a miss.
    fn expect_labels(&self, kind: Kind, labels: &[String]) -> Result<()> {
        let judge = self.of(kind);
        match labels.iter().find(|label| !judge.labels().contains(label)) {
            None => Ok(()),
            Some(label) => Err(Error::input(format!(
                "the judge does not know the label `{label}`"
            ))
            .with_hint(format!("it knows {}", judge.labels().join(", ")))),
        }
    }
}
