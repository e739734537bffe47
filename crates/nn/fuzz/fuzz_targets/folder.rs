//! Any bytes in place of one file of a diffusers folder; the first byte picks the file.
#![no_main]

use std::{fs, path::Path, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use scumble_nn::files::{Checkpoint, OpenOptions, Source};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../models/emoji-sd");

/// Files that a hostile folder could hold besides the miniature's own.
const MORE: [&str; 3] = [
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "safety_checker/config.json",
    "text_encoder_2/config.json",
];

fuzz_target!(|data: &[u8]| {
    static FOLDER: OnceLock<(tempfile::TempDir, Vec<String>)> = OnceLock::new();
    let (folder, files) = FOLDER.get_or_init(|| {
        let mut files = Source::dir(MODEL).list("").expect("the miniature");
        files.extend(MORE.map(str::to_owned));
        (tempfile::tempdir().expect("a temporary folder"), files)
    });
    let Some((&pick, content)) = data.split_first() else { return };
    let target = &files[usize::from(pick) % files.len()];
    let put = |rel: &str, bytes: &[u8]| {
        let path = folder.path().join(rel);
        fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("room for it");
        fs::write(path, bytes).expect("room for it");
    };
    // An index is looked at only where there is no plain file.
    let hidden = if target == MORE[0] { "unet/diffusion_pytorch_model.safetensors" } else { "" };
    for rel in files.iter().filter(|f| !MORE.contains(&f.as_str())) {
        if rel == hidden {
            let _ = fs::remove_file(folder.path().join(rel));
        } else if !folder.path().join(rel).exists() {
            put(rel, &fs::read(Path::new(MODEL).join(rel)).expect("the miniature"));
        }
    }
    put(target, content);
    let _ = Checkpoint::open(folder.path(), &OpenOptions::default());
    let _ = fs::remove_file(folder.path().join(target));
});
