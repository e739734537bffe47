//! What a run notes of where and when it ran.

/// The time, as RFC 3339 has it, in UTC.
pub(crate) fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Computes with so many threads, as many as there are cores if `None`. This thread is one of them:
/// otherwise it would sleep and be woken at every parallel loop. Who asks first decides.
pub(crate) fn use_threads(threads: Option<u16>) {
    let pool = rayon::ThreadPoolBuilder::new()
        .use_current_thread()
        .num_threads(threads.unwrap_or(0).into());
    let _ = pool.build_global();
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
