//! Prompt sets, detectors and metrics.
