//! Concept erasure: concepts, edits, trajectories and one file per method.
