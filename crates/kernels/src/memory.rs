//! How the process holds on to memory.

/// Keeps freed memory for the next step instead of giving it back to the system, which would have
/// to be asked, and would clear it, again and again. For programs; call it once, before the work.
/// Does nothing but on Linux with glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "glibc's settings are a C function")]
    // SAFETY: mallopt takes two integers and changes only how malloc works from now on.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
