//! `--model org/name`: what has been downloaded already is found, and nothing is fetched.

mod support;

use std::path::Path;

use support::{command, copy, ended, folder, golden};

fn inspect(here: &Path, model: &str, set: &[(&str, &Path)]) -> support::Ended {
    let mut command = command(here);
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME",
        "XDG_CACHE_HOME",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", here.join("nobody"));
    command.envs(set.iter().copied());
    command.args([
        "generate",
        "a church",
        "--steps",
        "2",
        "--json",
        "--overwrite",
        "--output-dir",
        "out",
        "--model",
        model,
    ]);
    ended(command)
}

#[test]
fn a_downloaded_model_is_found_by_its_name() {
    let home = folder();
    let here = home.path();
    let hub = here.join("home/.cache/huggingface/hub");
    let model = hub.join("models--tiny--odd-model");
    copy(
        &golden("odd").join("model"),
        &model.join("snapshots/0123abc"),
    );
    fs_err::create_dir_all(model.join("refs")).unwrap();
    fs_err::write(model.join("refs/main"), "0123abc").unwrap();
    let home_folder = here.join("home");
    let hf_home = home_folder.join(".cache/huggingface");
    for set in [
        ("HOME", &home_folder),
        ("HF_HOME", &hf_home),
        ("HF_HUB_CACHE", &hub),
    ] {
        let set = [(set.0, set.1.as_path())];
        let found = inspect(here, "tiny/odd-model", &set).done();
        assert!(found.stderr.contains("snapshots/0123abc"), "{found:?}");
    }
    let set = [("HF_HUB_CACHE", hub.as_path())];
    for name in [
        "https://huggingface.co/tiny/odd-model",
        "https://huggingface.co/tiny/odd-model/tree/main",
    ] {
        inspect(here, name, &set).done();
    }
    inspect(here, &model.display().to_string(), &[]).done();
    // `inspect` finds it too, and says the same where there is none.
    let sheet = |name: &str| {
        let mut command = command(here);
        command
            .env("HF_HUB_CACHE", &hub)
            .args(["inspect", name, "--json"]);
        ended(command)
    };
    let found = sheet("tiny/odd-model").done().json();
    assert_eq!(
        found,
        sheet(&model.join("snapshots/0123abc").display().to_string())
            .done()
            .json()
    );
    sheet("tiny/other").refused(&["tiny/other", "hf download tiny/other"]);
    sheet("nowhere").refused(&["nowhere", "no such file"]);
    inspect(here, "tiny/other", &set).refused(&["tiny/other", "hf download tiny/other"]);
    inspect(here, "https://huggingface.co/tiny/other", &set).refused(&["hf download tiny/other"]);
    inspect(here, "https://example.org/model.safetensors", &set)
        .refused(&["never uses the network"]);
    inspect(here, "nowhere", &set).refused(&["nowhere", "no such file"]);
    fs_err::remove_dir_all(model.join("snapshots/0123abc")).unwrap();
    inspect(here, "tiny/odd-model", &set).refused(&["no snapshot"]);
}
