//! The command line of scumble.
fn main() {}
