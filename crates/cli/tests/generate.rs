//! `scumble generate`: seeds, names, running again, and everything that may change a model.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use scumble_erase::Edit;
use scumble_nn::files::{
    Diff, Embedding, EmbeddingLayout, HostTensor, Lora, Spec, write, write_delta, write_embedding,
    write_kohya,
};
use support::{apart, copy, edit, folder, line, miniature, picture, pixels, root, scumble};

const FAST: [&str; 4] = ["--steps", "3", "--sampler", "ddim"];

fn generate(folder: &Path, words: &[&str]) -> support::Ended {
    scumble(folder, ["generate"].iter().chain(&FAST).chain(words))
}

#[test]
fn the_result_as_an_object() {
    let here = folder();
    let words = [
        "a church",
        "a dog",
        "--n",
        "2",
        "--seed",
        "7",
        "--json",
        "--negative-prompt",
        "noto style",
        "--output-dir",
        "out",
    ];
    let made = generate(here.path(), &words).json();
    let pictures = made["pictures"].as_array().unwrap();
    let field = |name: &str| pictures.iter().map(|p| p[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("seed"), [7, 8, 7, 8]);
    assert_eq!(field("prompt"), ["a church", "a church", "a dog", "a dog"]);
    assert_eq!(
        (&made["output_dir"], &made["sampler"], &made["steps"]),
        (&"out".into(), &"ddim".into(), &3.into())
    );
    let files: Vec<&Path> = pictures
        .iter()
        .map(|p| Path::new(p["file"].as_str().unwrap()))
        .collect();
    assert!(files.iter().all(|f| f.is_absolute() && f.is_file()));
    assert_eq!(files[3].file_name().unwrap(), "00003.png");

    let texts = scumble_report::png::read_text(&fs_err::read(files[1]).unwrap()).unwrap();
    assert_eq!(texts[0].0, "parameters");
    assert!(
        texts[0]
            .1
            .starts_with("a church\nNegative prompt: noto style\nSteps: 3, Sampler: DDIM, CFG scale: 4, Seed: 8, Size: 32x32")
    );
    let own: serde_json::Value = serde_json::from_str(&texts[1].1).unwrap();
    assert_eq!(
        (
            texts[1].0.as_str(),
            &own["picture"]["seed"],
            &own["model_hash"]
        ),
        ("scumble", &8.into(), &made["model_hash"])
    );

    // Without --json: the paths, one a line, and a folder of its own name for the same plan every
    // time.
    let plain = generate(here.path(), &["A Church!", "--quiet"]).done();
    assert_eq!(plain.stdout.lines().count(), 1);
    assert!(
        plain.stdout.starts_with("scumble-out/generate-a-church-"),
        "{plain:?}"
    );
    assert_eq!(
        generate(here.path(), &["A Church!", "--quiet"])
            .done()
            .stdout,
        plain.stdout
    );
}

#[test]
fn the_same_plan_continues_and_another_is_refused() {
    let here = folder();
    let out = here.path().join("out");
    let words = ["a church", "--n", "3", "--output-dir", "out"];
    generate(here.path(), &words).done();
    let file = |name: &str| fs_err::read(out.join(name)).unwrap();
    let first: Vec<Vec<u8>> = ["00000.png", "00001.png", "00002.png"].map(file).into();
    let stored: serde_json::Value = serde_json::from_slice(&file("run.json")).unwrap();
    assert_eq!(stored["finished"], true);

    let again = generate(here.path(), &words).done();
    assert!(again.stderr.contains("is finished"), "{again:?}");
    assert_eq!(again.stdout.lines().count(), 3);
    // A picture that was lost is drawn again, the others are left alone.
    fs_err::write(out.join("00000.png"), "mark").unwrap();
    fs_err::remove_file(out.join("00001.png")).unwrap();
    generate(here.path(), &words).done();
    assert_eq!(
        (file("00000.png"), file("00001.png")),
        (b"mark".to_vec(), first[1].clone())
    );

    generate(here.path(), &["a dog", "--output-dir", "out"])
        .refused(&["another plan", "--overwrite"]);
    fs_err::write(out.join("mine.txt"), "mine").unwrap();
    generate(
        here.path(),
        &["a dog", "--output-dir", "out", "--overwrite"],
    )
    .done();
    assert!(!out.join("00002.png").exists() && out.join("mine.txt").exists());
    assert_ne!(file("00000.png"), first[0]);

    // A folder with other people's pictures.
    fs_err::create_dir(here.path().join("album")).unwrap();
    fs_err::write(here.path().join("album/00000.png"), "a photograph").unwrap();
    generate(here.path(), &["a dog", "--output-dir", "album"]).refused(&["album", "--overwrite"]);
    assert_eq!(
        fs_err::read(here.path().join("album/00000.png")).unwrap(),
        b"a photograph"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_what_is_finished() {
    let here = folder();
    let words = [
        "generate",
        "a church",
        "--n",
        "6",
        "--batch",
        "1",
        "--steps",
        "20",
        "--output-dir",
        "out",
    ];
    let mut child = support::command(here.path())
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let first = here.path().join("out/00000.png");
    for _ in 0..600 {
        if first.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let kept = fs_err::read(&first).unwrap();
    let made = |name: &str| here.path().join("out").join(name).exists();
    assert!(!made("00005.png"), "it was not interrupted in time");
    let record: serde_json::Value =
        serde_json::from_slice(&fs_err::read(here.path().join("out/run.json")).unwrap()).unwrap();
    assert_eq!(record["finished"], false);
    scumble(here.path(), words).done();
    assert!(made("00005.png"));
    assert_eq!(fs_err::read(&first).unwrap(), kept);
}

#[test]
fn prompt_files_in_every_form() {
    let here = folder();
    let csv = "\u{feff},case_number,prompt,evaluation_seed,evaluation_guidance\n0,41,a church,5,3\n1,7,\"a dog, please\",6,\n";
    fs_err::write(here.path().join("p.csv"), csv).unwrap();
    let made = generate(
        here.path(),
        &[
            "--prompts",
            "p.csv",
            "--n",
            "3",
            "--output-dir",
            "csv",
            "--json",
        ],
    )
    .json();
    let names: Vec<String> = made["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            p["file"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        names,
        [
            "41_0.png", "41_1.png", "41_2.png", "7_0.png", "7_1.png", "7_2.png"
        ]
    );
    assert_eq!(
        (
            &made["pictures"][1]["seed"],
            &made["pictures"][1]["guidance_scale"]
        ),
        (&5.into(), &3.0.into())
    );
    assert_eq!(made["pictures"][4]["guidance_scale"], 4.0);

    fs_err::write(here.path().join("p.txt"), "a church\n\na dog\n").unwrap();
    generate(
        here.path(),
        &["--prompts", "p.txt", "--seed", "9", "--output-dir", "txt"],
    )
    .done();
    generate(
        here.path(),
        &["a church", "--seed", "9", "--output-dir", "line"],
    )
    .done();
    assert_eq!(
        pixels(&here.path().join("txt/0_0.png")),
        pixels(&here.path().join("line/00000.png"))
    );
    assert!(here.path().join("txt/1_0.png").exists());

    fs_err::write(
        here.path().join("p.jsonl"),
        "{\"prompt\": \"a church\", \"evaluation_seed\": 5, \"case_number\": 3}\n",
    )
    .unwrap();
    generate(
        here.path(),
        &[
            "--prompts",
            "p.jsonl",
            "--guidance-scale",
            "3",
            "--output-dir",
            "jsonl",
        ],
    )
    .done();
    assert!(here.path().join("jsonl/3_0.png").exists());
}

#[test]
fn pictures_do_not_depend_on_the_batch() {
    let here = folder();
    fs_err::write(
        here.path().join("p.csv"),
        "case_number,prompt,evaluation_seed\n0,a church,5\n1,a dog,6\n",
    )
    .unwrap();
    // A sampler that draws noise in every step, and sizes whose blocks are not whole sixteens.
    for (i, size) in [["32", "32"], ["36", "20"]].iter().enumerate() {
        let mut drawn = Vec::new();
        for batch in ["1", "2", "16"] {
            let out = format!("{i}-{batch}");
            let mut words = vec![
                "generate",
                "--prompts",
                "p.csv",
                "--n",
                "3",
                "--sampler",
                "euler-a",
                "--steps",
                "4",
                "-q",
            ];
            words.extend([
                "--width",
                size[0],
                "--height",
                size[1],
                "--batch",
                batch,
                "--output-dir",
                &out,
            ]);
            scumble(here.path(), words).done();
            drawn.push(
                ["0_0", "0_2", "1_1"]
                    .map(|name| here.path().join(&out).join(format!("{name}.png"))),
            );
        }
        for other in &drawn[1..] {
            for (a, b) in drawn[0].iter().zip(other) {
                assert!(apart(a, b) <= 1, "{a:?} {b:?}");
            }
        }
        assert!(
            apart(&drawn[0][0], &drawn[0][1]) > 20,
            "the pictures of a row differ"
        );
    }
}

#[test]
fn lost_words_are_named() {
    let here = folder();
    let long = "a house and an owl and a church and a dog and a cat and a house and a tree and a fish and a car and a rocket and a crown in ink style";
    let made = generate(here.path(), &[long, "--json"]);
    assert!(
        made.stderr.contains("warning") && made.stderr.contains("ink style"),
        "{made:?}"
    );
    let lost = made.json()["pictures"][0]["lost"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(lost.ends_with("in ink style"), "{lost}");
    assert_eq!(
        generate(here.path(), &["a church", "--json"]).json()["pictures"][0].get("lost"),
        None
    );
}

#[test]
fn edits_in_every_form_change_the_picture() {
    let here = folder();
    let base = miniature();
    let path = |name: &str| here.path().join(name);
    let change = edit(&base, "unet", 0.25, |name| {
        name.ends_with("attn2.to_v.weight")
    });
    change.save(&path("a:b.safetensors")).unwrap();
    fs_err::create_dir(path("run")).unwrap();
    change.save(&path("run/edit.safetensors")).unwrap();
    let values: Vec<(String, String, HostTensor, HostTensor)> =
        change.new_values(&base, 1.0).map(Result::unwrap).collect();
    let none = BTreeMap::new();
    write(
        path("partial.safetensors"),
        values
            .iter()
            .map(|(_, name, _, new)| (format!("unet.{name}"), new.clone())),
        &none,
    )
    .unwrap();
    let diff = |old: &HostTensor, new: &HostTensor| {
        let difference: Vec<f32> = new
            .to_f32()
            .unwrap()
            .iter()
            .zip(old.to_f32().unwrap())
            .map(|(n, o)| n - o)
            .collect();
        HostTensor::from_f32(new.shape(), &difference)
    };
    let diffs = values.iter().map(|(c, name, old, new)| Diff {
        component: c.clone(),
        name: name.clone(),
        diff: diff(old, new),
    });
    let diffs: Vec<Diff> = diffs.collect();
    write_delta(&path("delta.safetensors"), &diffs, &base, &Spec::of(&base)).unwrap();
    let low = change.low_rank(&base, 4, 1.0).unwrap();
    let lora = Lora {
        low_rank: low.low_rank,
        diffs: Vec::new(),
        notes: Vec::new(),
    };
    write_kohya(&path("lora.safetensors"), &lora, &Spec::of(&base)).unwrap();

    let plain = picture(here.path(), "plain", &[]);
    let edited = picture(here.path(), "edited", &["--edit", "a:b.safetensors"]);
    assert!(apart(&plain, &edited) > 30);
    let same = |name: &str, words: &[&str]| {
        assert!(
            apart(&edited, &picture(here.path(), name, words)) <= 2,
            "{name}"
        )
    };
    same("run-folder", &["--edit", "run"]);
    same("partial", &["--edit", "partial.safetensors"]);
    same("delta", &["--edit", "delta.safetensors"]);
    same("lora", &["--lora", "lora.safetensors"]);
    same("lora-as-edit", &["--edit", "lora.safetensors:1"]);
    same(
        "halves",
        &["--edit", "run:0.5", "--lora", "lora.safetensors:0.5"],
    );
    same(
        "two and minus one",
        &["--edit", "run:2", "--edit", "run:-1.0"],
    );
    assert_eq!(
        pixels(&picture(here.path(), "none", &["--edit", "run:0"])),
        pixels(&plain)
    );

    // A text encoder alone in a folder.
    let text = path("text");
    copy(&root().join("models/emoji-sd/text_encoder"), &text);
    let change = edit(&base, "text_encoder", 0.1, |name| {
        name.ends_with("layers.0.mlp.fc1.weight")
    });
    let edited = change.apply(&base, 1.0).unwrap();
    write(
        text.join("model.safetensors"),
        edited.components["text_encoder"].tensors.clone(),
        &none,
    )
    .unwrap();
    change.save(&path("text.safetensors")).unwrap();
    let drawn = picture(here.path(), "text-folder", &["--edit", "text"]);
    assert!(apart(&plain, &drawn) > 5);
    assert!(
        apart(
            &drawn,
            &picture(here.path(), "text-edit", &["--edit", "text.safetensors"])
        ) <= 1
    );
}

#[test]
fn an_edit_of_another_model_is_said_or_refused() {
    let here = folder();
    let mut change = edit(&miniature(), "unet", 0.1, |name| {
        name.ends_with("attn2.to_k.weight")
    });
    change.about.base_hash = "0123456789abcdef".into();
    change.about.base = "elsewhere".into();
    change.save(&here.path().join("e.safetensors")).unwrap();
    let made = generate(here.path(), &["a dog", "--edit", "e.safetensors"]).done();
    assert!(
        made.stderr.contains("made on elsewhere (0123456789)"),
        "{made:?}"
    );
    let model = support::golden("sd1").join("model");
    let words = [
        "a dog",
        "--edit",
        "e.safetensors",
        "--model",
        model.to_str().unwrap(),
        "--width",
        "16",
        "--height",
        "16",
    ];
    generate(here.path(), &words).refused(&[
        "e.safetensors",
        "does not fit this model",
        "attn2.to_k",
    ]);

    let empty = Edit {
        about: change.about.clone(),
        changes: BTreeMap::new(),
    };
    empty.save(&here.path().join("empty.safetensors")).unwrap();
    generate(here.path(), &["a dog", "--edit", "empty.safetensors"]).done();
}

#[test]
fn an_embedding_is_a_word() {
    let here = folder();
    let base = miniature();
    let table =
        &base.components["text_encoder"].tensors["text_model.embeddings.token_embedding.weight"];
    let vocabulary: BTreeMap<String, usize> =
        serde_json::from_slice(base.tokenizers["tokenizer"].get("vocab.json").unwrap()).unwrap();
    let row = |word: &str| {
        table
            .rows(vocabulary[word]..vocabulary[word] + 1)
            .unwrap()
            .to_f32()
            .unwrap()
    };
    let save = |name: &str, token: &str, vectors: Vec<Vec<f32>>| {
        let embedding = Embedding::one(token, vectors);
        write_embedding(
            &here.path().join(name),
            &embedding,
            EmbeddingLayout::Diffusers,
        )
        .unwrap();
    };
    save("one.safetensors", "<thing>", vec![row("church</w>")]);
    save(
        "two.safetensors",
        "<two>",
        vec![row("ink</w>"), row("church</w>")],
    );
    generate(
        here.path(),
        &[
            "a church in ink style",
            "an ink church",
            "--output-dir",
            "words",
        ],
    )
    .done();
    let words = [
        "a <thing> in ink style",
        "an <two>",
        "--embedding",
        "one.safetensors",
        "--embedding",
        "two.safetensors",
    ];
    generate(
        here.path(),
        &[&words[..], &["--output-dir", "new"]].concat(),
    )
    .done();
    for name in ["00000.png", "00001.png"] {
        assert_eq!(
            pixels(&here.path().join("words").join(name)),
            pixels(&here.path().join("new").join(name)),
            "{name}"
        );
    }
    generate(
        here.path(),
        &[
            "a dog",
            "--embedding",
            "one.safetensors",
            "--embedding",
            "one.safetensors",
        ],
    )
    .refused(&["<thing>", "already"]);
    save("wide.safetensors", "<wide>", vec![vec![0.0; 768]]);
    generate(here.path(), &["a dog", "--embedding", "wide.safetensors"])
        .refused(&["wide.safetensors", "768"]);
    line(here.path(), "generate dog --edit one.safetensors").refused(&["--embedding"]);
}

#[test]
fn a_whole_checkpoint_is_what_the_model_has_become() {
    let here = folder();
    let base = miniature();
    let own = edit(&base, "unet", 0.05, |name| {
        name.contains("attn2.to_v.weight")
    });
    own.save(&here.path().join("edit.safetensors")).unwrap();
    let exported = "export edit.safetensors --to diffusers --output-dir whole --quiet";
    line(here.path(), exported).done();
    let drawn = |named: &str, out: &str| {
        let words = ["a church", "--edit", named, "--output-dir", out, "--quiet"];
        generate(here.path(), &words).done();
        pixels(&here.path().join(out).join("00000.png"))
    };
    assert_eq!(drawn("whole", "a"), drawn("edit.safetensors", "b"));
    // Half of it is half of the change, as with any edit.
    let half = drawn("whole:0.5", "c");
    assert_eq!(half, drawn("edit.safetensors:0.5", "d"));
    assert_ne!(half, drawn("whole", "e"));

    let refused = |named: &str, words: &[&str]| {
        generate(here.path(), &["a church", "--edit", named]).refused(words);
    };
    copy(
        &root().join("models/emoji-sd"),
        &here.path().join("unchanged"),
    );
    refused("unchanged", &["same numbers", "unchanged"]);
    let vocabulary = here.path().join("whole/tokenizer/vocab.json");
    let text = fs_err::read_to_string(&vocabulary).unwrap();
    fs_err::write(&vocabulary, text.replacen("\"!\": 0", "\"!!!!\": 0", 1)).unwrap();
    refused("whole", &["another tokenizer", "--oracle"]);
}
