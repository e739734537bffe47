//! How much memory this process has held, and how much is free.

const STATUS: &str = "/proc/self/status";

/// Begins to count anew, where the system can (Linux from 4.0).
pub(crate) fn forget_peak() {
    let _ = fs_err::write("/proc/self/clear_refs", "5");
}

/// The most bytes that were resident at once since then; `None` where the system does not say.
pub(crate) fn peak() -> Option<u64> {
    bytes(STATUS, "VmHWM:")
}

/// The bytes that a new program could have, where the system says.
pub fn free() -> Option<u64> {
    bytes("/proc/meminfo", "MemAvailable:")
}

/// What a line of one of the system's files says, which counts in kB.
fn bytes(file: &str, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_allocation_is_seen() {
        let before = peak().unwrap();
        let block = vec![1u8; 64 << 20];
        assert!(peak().unwrap() >= before.max(block.len() as u64));
    }
}
