//! What the program says of devices: which it was built for, and whose fault a panic is.

use std::{panic::PanicHookInfo, sync::LazyLock};

use scumble_kernels::{DEVICE_KINDS, is_built};
use scumble_study::device::chosen;

use crate::output;

/// What `--version` says: the version, the commit where git knew it, and the devices this binary
/// was built for.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let built = DEVICE_KINDS.into_iter().filter(|kind| is_built(kind));
        let devices: Vec<&str> = std::iter::once("cpu").chain(built).collect();
        let commit = option_env!("SCUMBLE_COMMIT")
            .map(|commit| format!(" ({commit})"))
            .unwrap_or_default();
        format!(
            "{}{commit}\ndevices: {}",
            env!("CARGO_PKG_VERSION"),
            devices.join(", ")
        )
    });
    &VERSION
}

/// What to say of a panic: a device that gave up (out of memory, most often), or a bug.
pub(crate) fn panicked(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("it gave no reason").trim();
    let theirs = info.location().is_some_and(|l| {
        ["cubecl", "cubek", "wgpu", "cudarc"]
            .iter()
            .any(|name| l.file().contains(name))
    });
    match chosen() {
        Some(name) if theirs => {
            let hint = "if it ran out of memory, a smaller --batch or picture needs less; `--device cpu` works everywhere";
            output::error(&format!("--device {name} failed: {text}"), Some(hint));
        }
        _ => output::error(&format!("this is a bug in scumble: {info}"), None),
    }
}
