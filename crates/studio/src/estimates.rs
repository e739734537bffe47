//! What a run would take, asked before it is queued.

use std::sync::TryLockError;

use scumble_study::{Failure, attack, erase};

use crate::{
    app::{App, Unheard},
    forms::Work,
};

/// What some work will take, in a line.
///
/// # Errors
/// If it cannot be done or foretold, or another estimate is being made: it keeps the machine busy.
pub(crate) fn estimate(app: &App, work: &Work) -> Result<String, Failure> {
    let _one = match app.estimating.try_lock() {
        Ok(one) => one,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Err(Failure::new("another estimate is being made").with_hint(
                "wait for it, or queue the run: it says what it takes before it begins",
            ));
        }
    };
    let silent = Unheard(app);
    let host = app.place.heard_by(&silent);
    match work {
        Work::Erase(form) => Ok(erase::estimate(&form.request(&app.folder)?, host)?.to_string()),
        Work::Attack(form) => {
            let found = attack::estimate(&form.request(&app.folder)?, host)?;
            Ok(format!("at most {found}"))
        }
        Work::Evaluate(_) | Work::Export(_) => {
            Err(Failure::new("only erasures and attacks have an estimate"))
        }
    }
}
