//! What `--device` names: whether this binary was built for it, and whether this machine has it.
//!
//! A driver may panic where it should answer. Here, before anything is computed, that becomes an error about the flag;
//! later, in the middle of a run, [`panicked`] says whose fault it is.

use std::{
    panic::PanicHookInfo,
    sync::{LazyLock, OnceLock},
};

use burn::tensor::{Device, Tensor};

use crate::{failure::Failure, output};

/// What a device can be beside the CPU: each the name of a cargo feature.
const KINDS: [&str; 4] = ["cuda", "vulkan", "metal", "rocm"];

/// The device of this run, if it is not the CPU.
static CHOSEN: OnceLock<String> = OnceLock::new();

/// What `--version` says: the version and the devices this binary was built for.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let built = KINDS.into_iter().filter(|kind| is_built(kind));
        let devices: Vec<&str> = std::iter::once("cpu").chain(built).collect();
        format!("{}\ndevices: {}", env!("CARGO_PKG_VERSION"), devices.join(", "))
    });
    &VERSION
}

fn is_built(kind: &str) -> bool {
    match kind {
        "cuda" => cfg!(feature = "cuda"),
        "vulkan" => cfg!(feature = "vulkan"),
        "metal" => cfg!(feature = "metal"),
        "rocm" => cfg!(feature = "rocm"),
        _ => false,
    }
}

/// The machine's devices of a kind, discrete cards before integrated ones before software.
fn found(kind: &str) -> Vec<Device> {
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec(),
        #[cfg(feature = "metal")]
        "metal" => Device::enumerate(burn::tensor::DeviceType::Metal).into_vec(),
        #[cfg(feature = "rocm")]
        "rocm" => Device::enumerate(burn::tensor::DeviceType::Rocm).into_vec(),
        _ => Vec::new(),
    }
}

/// The part's own name, for a device that is not the CPU. Opens it.
fn part(device: &Device) -> Option<String> {
    #[cfg(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm"))]
    return device.identity().map(|identity| identity.name);
    #[cfg(not(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm")))]
    {
        let _ = device;
        None
    }
}

/// The device that `--device` names, tried out, and how to call it in a record.
pub(crate) fn open(name: &str) -> Result<(Device, String), Failure> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    if kind == "cpu" && index.is_none() {
        return Ok((Device::flex(), name.to_owned()));
    }
    if !KINDS.contains(&kind) {
        return Err(Failure::new(format!("--device {name}: expected cpu, cuda[:N], vulkan[:N], metal[:N] or rocm[:N]")));
    }
    let number = index.map_or(Ok(0), str::parse::<usize>);
    let number = number.map_err(|_| Failure::new(format!("--device {name}: expected a number after `{kind}:`, counted from 0")))?;
    if !is_built(kind) {
        return Err(Failure::new(format!("--device {name}: this binary was built without {kind}"))
            .with_hint(format!("build scumble with `--features {kind}`; docs/gpu.md says what that needs")));
    }
    let refused = |problem: String| Failure::new(format!("--device {name}: {problem}"));
    let devices = quietly(|| found(kind)).map_err(refused)?;
    let Some(device) = devices.get(number) else {
        let problem = match devices.len() {
            0 => format!("this machine has no {kind} device"),
            n => format!("this machine has {n} {kind} device{}, counted from 0", if n == 1 { "" } else { "s" }),
        };
        return Err(refused(problem).with_hint(match devices.len() {
            0 => format!("is its driver installed? docs/gpu.md names the packages; `--device cpu` needs none ({kind} found nothing)"),
            _ => format!("{kind}:0 is the first"),
        }));
    };
    let part = quietly(|| try_out(device)).and_then(|tried| tried).map_err(refused)?;
    let called = format!("{kind}:{number}{}", part.map(|part| format!(" ({part})")).unwrap_or_default());
    let _ = CHOSEN.set(name.to_owned());
    Ok((device.clone(), called))
}

/// Adds a few numbers there, and asks for the part's name.
fn try_out(device: &Device) -> Result<Option<String>, String> {
    let sum: f32 = Tensor::<1>::from_data([1.0f32, 2.0, 3.0], device).sum().into_scalar();
    if sum == 6.0 { Ok(part(device)) } else { Err(format!("it does not compute: 1 + 2 + 3 is {sum} there")) }
}

/// The result, or what a panic within said; nothing is printed.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        text.unwrap_or("its driver failed").trim().to_owned()
    })
}

/// What to say of a panic: a device that gave up (out of memory, most often), or a bug.
pub(crate) fn panicked(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("it gave no reason").trim();
    let theirs = info.location().is_some_and(|l| ["cubecl", "cubek", "wgpu", "cudarc"].iter().any(|name| l.file().contains(name)));
    match CHOSEN.get() {
        Some(name) if theirs => {
            let hint = "if it ran out of memory, a smaller --batch or picture needs less; `--device cpu` works everywhere";
            output::error(&format!("--device {name} failed: {text}"), Some(hint));
        }
        _ => output::error(&format!("this is a bug in scumble: {info}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        open(name).unwrap_err().to_string()
    }

    #[test]
    fn names_that_are_none() {
        for name in ["tpu", "", "cpu:0", "gpu", "cuda0", "CUDA", ":1"] {
            assert!(message(name).contains("expected cpu"), "{name}");
        }
        for name in ["cuda:", "vulkan:x", "metal:-1", "rocm:1.5", "cuda:0:1", "cuda:99999999999999999999"] {
            assert!(message(name).contains("expected a number"), "{name}");
        }
    }

    #[test]
    fn no_machine_has_that_many() {
        for kind in KINDS {
            let said = message(&format!("{kind}:4096"));
            let expected = if is_built(kind) { "this machine has" } else { "built without" };
            assert!(said.contains(expected) && said.contains(&format!("--device {kind}:4096")), "{said}");
        }
    }

    #[test]
    fn a_panic_of_a_driver_is_an_error() {
        assert_eq!(quietly(|| -> u8 { panic!("no driver") }), Err("no driver".into()));
        assert_eq!(quietly(|| -> u8 { panic!("no {}", "card") }), Err("no card".into()));
        assert_eq!(quietly(|| 3), Ok(3));
    }
}
