//! What a run notes of where and when it ran.

/// The time, as RFC 3339 has it, in UTC.
pub(crate) fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// What the program runs on.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{} {}, {cores} cores, {} threads",
        std::env::consts::ARCH,
        std::env::consts::OS,
        rayon::current_num_threads()
    )
}
