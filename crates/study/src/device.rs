//! What `--device` names: whether this binary was built for it, and whether this machine has it.
//!
//! A driver may panic where it should answer. Here, before anything is computed, that becomes an
//! error about the flag; later, in the middle of a run, [`chosen`] says whose fault it may be.

use std::sync::OnceLock;

use burn::tensor::Device;
use scumble_kernels::{DEVICE_KINDS, device_name, devices, is_built, trial};

use crate::failure::Failure;

/// The device of this run, if it is not the CPU.
static CHOSEN: OnceLock<String> = OnceLock::new();

/// The device that `--device` names, tried out, and how to call it in a record.
///
/// # Errors
/// If there is no such device here, or it does not compute what the CPU does.
pub fn open(name: &str) -> Result<(Device, String), Failure> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    if kind == "cpu" && index.is_none() {
        return Ok((Device::flex(), name.to_owned()));
    }
    if !DEVICE_KINDS.contains(&kind) {
        return Err(Failure::new(format!(
            "--device {name}: expected cpu, cuda[:N], vulkan[:N], metal[:N] or rocm[:N]"
        )));
    }
    let number = index.map_or(Ok(0), str::parse::<usize>);
    let number = number.map_err(|_| {
        Failure::new(format!(
            "--device {name}: expected a number after `{kind}:`, counted from 0"
        ))
    })?;
    if !is_built(kind) {
        return Err(Failure::new(format!(
            "--device {name}: this binary was built without {kind}"
        ))
        .with_hint(format!(
            "build scumble with `--features {kind}`; docs/gpu.md says what that needs"
        )));
    }
    let refused = |problem: String| Failure::new(format!("--device {name}: {problem}"));
    let here = quietly(|| devices(kind)).map_err(refused)?;
    let Some(device) = here.get(number) else {
        let problem = match here.len() {
            0 => format!("this machine has no {kind} device"),
            n => format!(
                "this machine has {n} {kind} device{}, counted from 0",
                if n == 1 { "" } else { "s" }
            ),
        };
        return Err(refused(problem).with_hint(match here.len() {
            0 => format!(
                "is its driver installed? docs/gpu.md names the packages; `--device cpu` needs none ({kind} found nothing)"
            ),
            _ => format!("{kind}:0 is the first"),
        }));
    };
    let part = quietly(|| try_out(device))
        .and_then(|tried| tried)
        .map_err(refused)?;
    let called = format!(
        "{kind}:{number}{}",
        part.map(|part| format!(" ({part})")).unwrap_or_default()
    );
    let _ = CHOSEN.set(name.to_owned());
    Ok((device.clone(), called))
}

/// How far a device may be from the CPU in the trial; rounding alone leaves a thousandth of it.
const TOLERANCE: f32 = 1e-3;

/// Computes a little there, and asks for the part's name.
fn try_out(device: &Device) -> Result<Option<String>, String> {
    let (name, off) = (device_name(device), trial(device));
    if off <= TOLERANCE {
        return Ok(name);
    }
    let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
    Err(format!(
        "the device{name} does not compute what the CPU does: off by {off:.0e} of the largest number in a small trial"
    ))
}

/// The result, or what a panic within said; nothing is printed.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(payload.downcast_ref::<&str>().copied());
        text.unwrap_or("its driver failed").trim().to_owned()
    })
}

/// What `--device` named, if it is not the CPU: whom a panic may come from.
pub fn chosen() -> Option<&'static str> {
    CHOSEN.get().map(String::as_str)
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
        for name in [
            "cuda:",
            "vulkan:x",
            "metal:-1",
            "rocm:1.5",
            "cuda:0:1",
            "cuda:99999999999999999999",
        ] {
            assert!(message(name).contains("expected a number"), "{name}");
        }
    }

    #[test]
    fn no_machine_has_that_many() {
        for kind in DEVICE_KINDS {
            let said = message(&format!("{kind}:4096"));
            let expected = if is_built(kind) {
                "this machine has"
            } else {
                "built without"
            };
            assert!(
                said.contains(expected) && said.contains(&format!("--device {kind}:4096")),
                "{said}"
            );
        }
    }

    #[test]
    fn a_panic_of_a_driver_is_an_error() {
        assert_eq!(
            quietly(|| -> u8 { panic!("no driver") }),
            Err("no driver".into())
        );
        assert_eq!(
            quietly(|| -> u8 { panic!("no {}", "card") }),
            Err("no card".into())
        );
        assert_eq!(quietly(|| 3), Ok(3));
    }
}
