//! Lists the artwork of the emoji world, which is compiled in: `STYLE/OBJECT.png` and its bytes.

#![allow(
    clippy::print_stdout,
    reason = "this is how a build script speaks to cargo"
)]

use std::{env, error::Error, fmt::Write as _, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../assets/emoji-world");
    println!("cargo::rerun-if-changed={}", root.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut pieces = Vec::new();
    for style in fs_err::read_dir(&root)? {
        let style = style?;
        if !style.file_type()?.is_dir() {
            continue;
        }
        for piece in fs_err::read_dir(style.path())? {
            let path = piece?.path();
            let (Some(style), Some(name)) = (
                style.file_name().to_str().map(str::to_owned),
                path.file_stem(),
            ) else {
                continue;
            };
            pieces.push((
                format!("{style}/{}", name.to_string_lossy()),
                path.canonicalize()?,
            ));
        }
    }
    pieces.sort();
    let mut list = String::from("&[\n");
    for (name, path) in pieces {
        writeln!(list, "    ({name:?}, include_bytes!({path:?}).as_slice()),")?;
    }
    list.push(']');
    fs_err::write(Path::new(&env::var("OUT_DIR")?).join("artwork.rs"), list)?;
    Ok(())
}
