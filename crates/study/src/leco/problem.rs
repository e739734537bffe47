//! How the readers of prompt files say what is wrong.

/// What is wrong with a file, and a hint.
pub(super) type Problem = (String, Option<&'static str>);
