//! Who is told how far a run is, and may stop it.

/// Hears of a run's stages and steps, and is asked whether to go on. A library prints nothing: whoever
/// calls it decides who hears this.
pub trait Listener {
    /// A stage of `total` steps begins, of which `done` need no work.
    fn stage(&self, name: &str, total: usize, done: usize);

    /// `done` steps of the stage are done; `message` is what is done now.
    fn step(&self, done: usize, message: Option<String>);

    /// Something worth knowing.
    fn note(&self, text: &str);

    /// Whether somebody asked to stop.
    fn interrupted(&self) -> bool;
}
