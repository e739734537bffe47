//! What ARCHITECTURE.md says is absent, is. Lists of exceptions name exactly what there is: what is
//! new has to be argued for, what is gone has to be struck.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use tree::{exactly, none, root, sources};

/// `crates/NAME` of a source.
fn crate_of(file: &str) -> &str {
    file.split('/').nth(1).unwrap_or_default()
}

/// `file:line` of every line of code that `of` picks, test modules left out.
fn lines(of: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (file, code) in sources() {
        found.extend(
            code.lines()
                .enumerate()
                .filter(|(_, line)| of(&file, line))
                .map(|(i, line)| format!("{file}:{}: {}", i + 1, line.trim())),
        );
    }
    found
}

/// The files with such a line.
fn files_with(of: impl Fn(&str) -> bool) -> Vec<String> {
    sources()
        .into_iter()
        .filter(|(_, code)| code.lines().any(&of))
        .map(|(file, _)| file)
        .collect()
}

/// Whether `word` stands in the line as a word.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|found| found == word)
}

#[test]
fn unsafe_code_stands_in_six_files() {
    exactly(
        "unsafe",
        // A policy for pages has a word of this kind, and so has a kind of concept, between quotes.
        files_with(|line| {
            let code = line
                .replace("'unsafe-inline'", "")
                .replace("\"unsafe\"", "");
            has_word(&code, "unsafe")
        }),
        &[
            // glibc's malloc is told not to give memory back.
            "crates/kernels/src/memory.rs",
            // Results that several tasks write: non-overlapping cells of memory that is new.
            "crates/kernels/src/cpu/area.rs",
            // Bounds that were checked before the innermost loop.
            "crates/kernels/src/cpu/gathered.rs",
            "crates/kernels/src/cpu/outer.rs",
            // The `gemm` crate takes pointers.
            "crates/kernels/src/cpu/product.rs",
            // A file is mapped into memory.
            "crates/nn/src/files/safetensors.rs",
        ],
    );
}

#[test]
fn global_state_is_a_flag_a_choice_a_pool_a_counter_and_caches() {
    let statics = lines(|_, line| {
        let line = line
            .trim_start()
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ");
        line.starts_with("static ") || line.contains("thread_local!")
    });
    let name = |line: String| {
        let (file, rest) = line.split_once(':').unwrap();
        format!(
            "{file} {}",
            rest.split("static ")
                .nth(1)
                .unwrap_or(rest)
                .split(':')
                .next()
                .unwrap()
        )
    };
    exactly(
        "static",
        statics.into_iter().map(name),
        &[
            // Ctrl-C was pressed.
            "crates/cli/src/progress.rs INTERRUPTED",
            // The bar on the terminal, which the handler of Ctrl-C answers under.
            "crates/cli/src/progress.rs SHOWN",
            // That the cache cannot be written was said.
            "crates/study/src/store.rs TOLD",
            // The device of this process, chosen once; and what `--version` prints.
            "crates/study/src/device.rs CHOSEN",
            "crates/cli/src/device.rs VERSION",
            // The studio's templates, read once.
            "crates/studio/src/pages/shell.rs PAGES",
            // Buffers to be used again: whoever gets one writes it before reading.
            "crates/kernels/src/cpu/scratch.rs POOL",
            // Numbers for contexts, so that what was made of one is not taken for another's.
            "crates/nn/src/networks/context.rs NEXT",
            // Tables computed once: of bytes, and of the compiled-in vocabulary.
            "crates/nn/src/tokenizer/bytes.rs CHARACTERS",
            "crates/nn/src/tokenizer/mod.rs CORES",
        ],
    );
}

/// The workspace's crates on which a crate depends, beside `dev-dependencies`.
fn edges(manifest: &str) -> BTreeSet<String> {
    let mut edges = BTreeSet::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            counts = line.ends_with("dependencies]") && !line.contains("dev-");
        } else if counts && let Some(name) = line.strip_prefix("scumble-") {
            edges.insert(name.split(['.', ' ', '=']).next().unwrap().to_owned());
        }
    }
    edges
}

#[test]
fn imports_run_downwards() {
    let of = [
        ("kernels", ""),
        ("nn", "kernels"),
        ("diffusion", "nn kernels"),
        ("families", "diffusion nn"),
        ("erase", "families diffusion nn kernels"),
        ("attack", "erase families diffusion nn kernels"),
        ("eval", "erase families diffusion nn kernels"),
        ("report", ""),
        ("train", "erase families diffusion nn"),
        (
            "study",
            "attack diffusion erase eval families kernels nn report train",
        ),
        ("studio", "attack diffusion erase eval report study"),
        (
            "cli",
            "attack diffusion erase eval families kernels nn report studio study train",
        ),
    ];
    let mut found = BTreeMap::new();
    for entry in fs_err::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(manifest) = fs_err::read_to_string(folder.join("Cargo.toml")) else {
            continue;
        };
        found.insert(
            folder.file_name().unwrap().to_string_lossy().into_owned(),
            edges(&manifest),
        );
    }
    let wanted = of.map(|(name, edges)| {
        (
            name.to_owned(),
            edges
                .split_whitespace()
                .map(str::to_owned)
                .collect::<BTreeSet<_>>(),
        )
    });
    let mut problems = Vec::new();
    for (name, edges) in &found {
        let allowed = wanted
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, edges)| edges);
        match allowed {
            Some(allowed) => problems.extend(
                edges
                    .difference(allowed)
                    .map(|to| format!("{name} depends on {to}")),
            ),
            None => problems.push(format!(
                "the crate {name} is not in ARCHITECTURE.md's drawing"
            )),
        }
    }
    none(problems);
    assert_eq!(found.len(), wanted.len());
}

/// What the program is built of, without what is there for other features only.
fn dependencies() -> BTreeSet<String> {
    let tree = [
        "tree",
        "--offline",
        "-p",
        "scumble",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "-e",
        "normal,build",
    ];
    let output = Command::new(env!("CARGO"))
        .args(tree)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).unwrap();
    names
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Crates that open connections, read pickles, or register things behind one's back. The studio
/// listens, with tokio and hyper; nothing speaks to anybody first, and there is nothing to speak
/// secretly with.
#[test]
fn no_dependency_connects_unpickles_or_registers() {
    let unwanted = [
        "reqwest",
        "ureq",
        "curl",
        "isahc",
        "attohttpc",
        "hf-hub",
        "rustls",
        "native-tls",
        "openssl",
        "tungstenite",
        "serde-pickle",
        "pyo3",
        "linkme",
        "inventory",
    ];
    let found = dependencies();
    assert!(found.len() > 100 && found.contains("burn"), "{found:?}");
    let mut problems: Vec<String> = unwanted
        .iter()
        .filter(|name| found.contains(**name))
        .map(|name| format!("depends on {name}"))
        .collect();
    problems.extend(lines(|_, line| {
        has_word(line, "TcpStream") || has_word(line, "UdpSocket") || line.contains("UNSPECIFIED")
    }));
    none(problems);
    exactly(
        "uses the network",
        files_with(|line| line.contains("net::") && has_word(line, "net")),
        // At this machine's own address.
        &["crates/studio/src/lib.rs"],
    );
}

#[test]
fn nobody_but_cli_prints_or_reads_the_environment() {
    // Lints of the workspace see `println!`; these are the other ways.
    let ways = [
        "io::stdout",
        "io::stderr",
        "print!",
        "println!",
        "eprint!",
        "eprintln!",
        "env::var",
        "env::args",
        "env::set_var",
    ];
    none(lines(|file, line| {
        // What Slurm's commands answer.
        let answers = "crates/study/src/submit/slurm.rs";
        crate_of(file) != "cli"
            && !(file.ends_with(answers) && line.contains("output.std"))
            && (ways.iter().any(|way| line.contains(way))
                || has_word(line, "stdout")
                || has_word(line, "stderr"))
    }));
    // In `cli` too results and messages go through one file; the others ask whether there is a
    // terminal, draw the bar and end the process.
    let writes = |line: &str| {
        ["io::stdout()", "io::stderr()"]
            .iter()
            .any(|way| line.contains(way))
            && !line.contains("is_terminal")
    };
    exactly(
        "writes to a terminal",
        files_with(writes),
        &["crates/cli/src/output.rs"],
    );
    exactly(
        "allows printing",
        files_with(|line| line.contains("clippy::print_std")),
        &[],
    );
}

/// A denoiser is asked through `Model::predict` and `Denoiser`, so that hooks, precision and the
/// meaning of the answer have one home.
#[test]
fn nobody_builds_or_asks_a_denoiser_by_hand() {
    let ways = [
        "UNet::new",
        "unet_network",
        "try_forward",
        "forward_watched",
    ];
    none(lines(|file, line| {
        !["diffusion", "nn"].contains(&crate_of(file))
            && (ways.iter().any(|way| line.contains(way))
                || has_word(line, "denoiser") && line.contains(".forward(")
                || has_word(line, "UNet"))
    }));
    // The test sees what it forbids where it is allowed.
    assert!(
        !lines(|file, line| crate_of(file) == "diffusion" && line.contains("try_forward"))
            .is_empty()
    );
}

/// A method is one paper's. What two of them need lies below both.
#[test]
fn no_method_imports_a_method() {
    let methods: Vec<String> = fs_err::read_dir(root().join("crates/erase/src/methods"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "mod")
        .collect();
    assert!(methods.len() > 20, "{methods:?}");
    let names = |line: &str| {
        let line = line.split("//").next().unwrap_or_default().trim();
        methods.iter().any(|name| {
            line.contains(&format!("methods::{name}::")) || line.starts_with(&format!("{name}::"))
        })
    };
    none(lines(|file, line| {
        file.starts_with("crates/erase/src") && !file.ends_with("methods/mod.rs") && names(line)
    }));
}

/// What is typed is understood once, at the door: commands ask each other by requests.
#[test]
fn arguments_are_parsed_in_one_place() {
    exactly(
        "parses arguments",
        files_with(|line| line.contains("parse_from(") || line.contains("Args::parse(")),
        &["crates/cli/src/main.rs"],
    );
    // A library of requests knows no parser of arguments, and no bar on a terminal.
    let manifest = fs_err::read_to_string(root().join("crates/study/Cargo.toml")).unwrap();
    for unwanted in ["clap", "indicatif", "ctrlc"] {
        assert!(
            !has_word(&manifest, unwanted),
            "study depends on {unwanted}"
        );
    }
}

#[test]
fn files_are_read_through_fs_err() {
    // clippy.toml forbids the functions and types of std::fs; these are the exceptions.
    exactly(
        "std::fs",
        files_with(|line| has_word(line, "fs")),
        &[
            // The permissions of a temporary file before it is renamed.
            "crates/nn/src/files/export.rs",
            "crates/nn/src/files/safetensors.rs",
            "crates/report/src/folder.rs",
            // Locks.
            "crates/studio/src/jobs.rs",
            "crates/study/src/folder.rs",
            // Which file it is, by its number.
            "crates/study/src/hashed.rs",
        ],
    );
    let banned = fs_err::read_to_string(root().join("clippy.toml")).unwrap();
    for name in [
        "std::fs::File",
        "std::fs::OpenOptions",
        "std::fs::copy",
        "std::fs::remove_file",
        "std::fs::metadata",
    ] {
        assert!(
            banned.contains(&format!("\"{name}\"")),
            "clippy.toml does not forbid {name}"
        );
    }
}

#[test]
fn methods_and_attacks_touch_no_files() {
    none(lines(|file, line| {
        let of_them = file.starts_with("crates/erase/src/methods/")
            || file.starts_with("crates/attack/src/attacks/");
        of_them
            && (["fs_err", "std::fs", "std::path", "tempfile"]
                .iter()
                .any(|way| line.contains(way)))
    }));
}

/// Purposes of random streams: two draws under one name would see the same numbers.
#[test]
fn every_random_stream_has_a_name_of_its_own() {
    let mut at: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, code) in sources() {
        for (start, way) in ["stream(", "purpose: \""]
            .iter()
            .flat_map(|way| code.match_indices(*way))
        {
            let before = code[..start].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' {
                continue;
            }
            let from = start + way.trim_end_matches('"').len();
            // The arguments up to the bracket that closes them; a name is the literal among them.
            let mut open = 1;
            let end = code[from..].find(|c| {
                open += i32::from(c == '(')
                    - i32::from(c == ')' || (way.starts_with("purpose") && c == ','));
                open == 0
            });
            let Some(name) = code[from..][..end.unwrap_or(0)].split('"').nth(1) else {
                continue;
            };
            let line = code[..start].lines().count().max(1);
            at.entry(name.to_owned())
                .or_default()
                .push(format!("{file}:{line}"));
        }
    }
    assert!(
        at.len() > 50,
        "only {} streams were found: are they still made as before?",
        at.len()
    );
    none(
        at.into_iter()
            .filter(|(_, at)| at.len() > 1)
            .map(|(name, at)| format!("\"{name}\": {}", at.join(", ")))
            .collect(),
    );
}

/// What a family calls its components and tensors is asked of it: roles, not patterns of names.
#[test]
fn family_names_stand_in_families_and_nn_only() {
    let names = [
        "\"sdxl\"",
        "\"unet\"",
        "\"vae\"",
        "\"transformer\"",
        "\"text_encoder",
        "text_encoder_2",
        "text_model",
        "attn1",
        "attn2",
        "transformer_blocks",
        "encoder.layers",
        "self_attn",
        "q_proj",
        "up_blocks",
        "down_blocks",
        "mid_block",
    ];
    let words = ["to_q", "to_k", "to_v", "to_out"];
    let found = lines(|file, line| {
        !["nn", "families"].contains(&crate_of(file))
            && (names.iter().any(|name| line.contains(name))
                || words.iter().any(|word| has_word(line, word)))
    });
    exactly(
        "names of a family",
        found
            .into_iter()
            .map(|line| line.split(':').next().unwrap().to_owned()),
        &[
            // The files of the compiled-in model.
            "crates/cli/src/miniature.rs",
        ],
    );
}

#[test]
fn tensors_carry_no_type_of_hardware() {
    // Operations are put into Burn's graph in one place.
    exactly(
        "generic over backends",
        files_with(|line| {
            has_word(line, "Backend") && line.contains(": Backend") || line.contains("impl Backend")
        }),
        &["crates/kernels/src/ops.rs"],
    );
}

#[test]
fn readers_have_fuzz_targets() {
    let listed: BTreeSet<String> = fs_err::read_dir(root().join("crates/nn/fuzz/fuzz_targets"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let manifest = fs_err::read_to_string(root().join("crates/nn/fuzz/Cargo.toml")).unwrap();
    for target in [
        "config",
        "embedding",
        "folder",
        "identify",
        "lora",
        "partial",
        "safetensors",
        "single_file",
    ] {
        assert!(
            listed.contains(target) && manifest.contains(&format!("name = \"{target}\"")),
            "no fuzz target {target}"
        );
    }
    // The others read thousands of damaged files in a test of their own.
    let readers = fs_err::read_to_string(root().join("crates/study/src/readers.rs")).unwrap();
    for reader in [
        "prompts::read(",
        "leco::read(",
        "Manifest::read(",
        "npz::read(",
        "EraseRun::read(",
        "Evaluation::read(",
        "Ratings::read(",
        "photos::picture(",
    ] {
        assert!(readers.contains(reader), "{reader} reads no damaged files");
    }
    // What a stranger's file says is no reason to panic: the lint against unwrap is on, and nobody
    // turns it off.
    none(lines(|_, line| {
        line.contains("clippy::unwrap_used") || line.contains("clippy::indexing_slicing")
    }));
    let lints = fs_err::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(lints.contains("unwrap_used = \"warn\"") && lints.contains("unsafe_code = \"deny\""));
}
