//! Both judges of a world, and what they count.

use scumble_diffusion::Picture;

use crate::{
    error::{Error, Result},
    judge::{Judge, Verdict},
    judging::{Case, JudgingSet, Kind, Role},
    rates::{Rate, Rates},
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
    /// If there are more or fewer pictures than cases, or a judge does not know the label it is asked about.
    pub fn judge(&self, set: &JudgingSet, pictures: &[Picture]) -> Result<Rates> {
        if set.cases.len() != pictures.len() {
            return Err(Error::input(format!("expected {} pictures to judge, found {}", set.cases.len(), pictures.len())));
        }
        let hits = self.hits(set, pictures)?;
        let rate = |role| Rate::count(set.cases.iter().zip(&hits).filter(|(case, _)| case.role == role).map(|(_, hit)| *hit));
        Ok(Rates { target: rate(Role::Target), others: rate(Role::Other), target_objects: self.objects(set, pictures)? })
    }

    /// Whether each picture shows what its case accepts.
    fn hits(&self, set: &JudgingSet, pictures: &[Picture]) -> Result<Vec<bool>> {
        let mut hits = vec![false; pictures.len()];
        for kind in [Kind::Object, Kind::Style] {
            let asked: Vec<usize> = (0..pictures.len()).filter(|&i| set.cases[i].judge == kind).collect();
            for &i in &asked {
                self.expect_labels(kind, &set.cases[i].accepted)?;
            }
            for (&i, verdict) in asked.iter().zip(self.ask(kind, pictures, &asked)) {
                hits[i] = set.cases[i].accepted.contains(&verdict.label);
            }
        }
        Ok(hits)
    }

    /// How many prompts that name an erased style still show their object; `None` where no style is erased.
    fn objects(&self, set: &JudgingSet, pictures: &[Picture]) -> Result<Option<Rate>> {
        let named = |case: &Case| case.object.clone().filter(|_| case.role == Role::Target);
        let (asked, objects): (Vec<usize>, Vec<String>) =
            set.cases.iter().enumerate().filter_map(|(i, case)| Some((i, named(case)?))).unzip();
        self.expect_labels(Kind::Object, &objects)?;
        let verdicts = self.ask(Kind::Object, pictures, &asked);
        let hits = verdicts.iter().zip(&objects).map(|(verdict, object)| verdict.label == *object);
        Ok((!asked.is_empty()).then(|| Rate::count(hits)))
    }

    fn of(&self, kind: Kind) -> &Judge {
        match kind {
            Kind::Object => &self.object,
            Kind::Style => &self.style,
        }
    }

    fn ask(&self, kind: Kind, pictures: &[Picture], asked: &[usize]) -> Vec<Verdict> {
        let shown: Vec<Picture> = asked.iter().map(|&i| pictures[i].clone()).collect();
        self.of(kind).classify(&shown)
    }

    /// A judge that has no word for the answer would count every picture as a miss.
    fn expect_labels(&self, kind: Kind, labels: &[String]) -> Result<()> {
        let judge = self.of(kind);
        match labels.iter().find(|label| !judge.labels().contains(label)) {
            None => Ok(()),
            Some(label) => Err(Error::input(format!("the judge does not know the label `{label}`"))
                .with_hint(format!("it knows {}", judge.labels().join(", ")))),
        }
    }
}
