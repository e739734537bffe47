//! A tiny model is trained, from the tokenizer to the judges: it loads, draws, and comes out alike
//! however often its training was stopped.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, ops::ControlFlow, path::Path};

use burn::tensor::Device;
use scumble_diffusion::{Picture, Pipeline, Request};
use scumble_erase::{Error, Result};
use scumble_nn::files::{Checkpoint, OpenOptions};
use scumble_train::{
    Bin, EmojiWorld, Examples, HELD_OUT, Job, Part, PictureFolder, Recipe, Trained, Watcher,
    enough, train,
};

/// Hears of everything and stops after so many steps.
struct Counting {
    steps: usize,
    stop_after: usize,
    losses: Vec<(String, f64)>,
    looks: usize,
}

impl Counting {
    fn until(stop_after: usize) -> Self {
        Self {
            steps: 0,
            stop_after,
            losses: Vec::new(),
            looks: 0,
        }
    }
}

impl Watcher for Counting {
    fn stage(&mut self, _: &str, _: usize, _: usize) {}

    fn step(&mut self, _: usize, _: f64, _: &str) -> ControlFlow<()> {
        self.steps += 1;
        match self.steps >= self.stop_after {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn loss(&mut self, part: &str, _: usize, loss: f64, _: f64) {
        self.losses.push((part.to_owned(), loss));
    }

    fn wants_look(&mut self, _: &str, step: usize) -> bool {
        step == 2
    }

    fn reconstructions(&mut self, _: usize, before: &[Picture], after: &[Picture]) -> Result<()> {
        assert_eq!(before.len(), after.len());
        self.looks += 1;
        Ok(())
    }

    fn model(&mut self, _: usize, model: &Pipeline) -> Result<()> {
        let request = Request::new(vec!["a church".into()], 0, 2, 2.0);
        let latents = model.sample(&request, &mut |_| ControlFlow::Continue(()))?;
        assert_eq!(model.decode(latents).dims(), [1, 3, 16, 16]);
        self.looks += 1;
        Ok(())
    }

    fn reliability(&mut self, _: &str, _: usize, bins: &[Bin]) {
        assert!(bins.iter().all(|bin| bin.count > 0 && bin.right <= 1.0));
        self.looks += 1;
    }

    fn measured(&mut self, _: &str, _: usize, _: &str, value: f64) {
        assert!(value.is_finite());
        self.looks += 1;
    }
}

/// Every part with a few hundred to a few thousand numbers.
fn tiny(folder: &Path) -> Recipe {
    let path = folder.join("tiny.toml");
    fs_err::write(&path, include_str!("tiny.toml")).unwrap();
    Recipe::read(&path).unwrap()
}

fn run(
    recipe: &Recipe,
    folder: &Path,
    parts: &[Part],
    stop_after: usize,
) -> (Counting, Result<Vec<Trained>>) {
    let data = EmojiWorld::new(recipe.side, &[], 0).unwrap();
    let device = Device::flex();
    let job = Job::new(recipe, &data, folder, parts, &device);
    let mut heard = Counting::until(stop_after);
    let trained = train(&job, &mut heard);
    (heard, trained)
}

const WEIGHTS: [&str; 7] = [
    "clip/model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "judges/object/model.safetensors",
    "judges/object/second/model.safetensors",
    "judges/style/model.safetensors",
];

#[test]
fn a_whole_model_is_made_and_a_stopped_training_makes_the_same_one() {
    let place = tempfile::tempdir().unwrap();
    let recipe = tiny(place.path());
    let at_once = place.path().join("at once");
    let (heard, trained) = run(&recipe, &at_once, &Part::ALL, usize::MAX);
    let trained = trained.unwrap();
    assert_eq!(
        trained.iter().map(|t| t.part).collect::<Vec<_>>(),
        Part::ALL
    );
    assert_eq!(
        trained.iter().map(|t| t.steps).collect::<Vec<_>>(),
        [0, 3, 3, 4, 9]
    );
    assert!(heard.looks >= 5 && heard.losses.iter().all(|(_, loss)| loss.is_finite()));

    let checkpoint = Checkpoint::open(&at_once, &OpenOptions::default()).unwrap();
    let pipeline = scumble_families::load(&checkpoint, &Device::flex()).unwrap();
    Counting::until(1).model(0, &pipeline).unwrap();

    // Stopped after every second step, and taken up again each time.
    let in_pieces = place.path().join("in pieces");
    let mut runs = 0;
    loop {
        runs += 1;
        match run(&recipe, &in_pieces, &Part::ALL, 2).1 {
            Ok(_) => break,
            Err(Error::Interrupted) => assert!(runs < 100, "it never ends"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(runs > 4, "{runs}");
    for file in WEIGHTS {
        let read = |folder: &Path| fs_err::read(folder.join(file)).unwrap();
        assert!(read(&at_once) == read(&in_pieces), "{file} differs");
    }
}

#[test]
fn more_time_goes_on_and_the_same_time_does_nothing() {
    let place = tempfile::tempdir().unwrap();
    let recipe = tiny(place.path());
    let data = EmojiWorld::new(recipe.side, &[], 0).unwrap();
    let device = Device::flex();
    let steps = |seconds: Option<f64>| {
        let mut job = Job::new(&recipe, &data, place.path(), &[Part::Vae], &device);
        job.seconds = seconds;
        let mut heard = Counting::until(usize::MAX);
        let trained = train(&job, &mut heard).unwrap();
        assert!(enough(&job, &trained));
        (heard.losses.len(), trained[0].steps)
    };
    // The first step is longer than that.
    assert_eq!(steps(Some(1e-6)), (1, 1));
    assert_eq!(steps(Some(1e-6)), (0, 1));
    assert_eq!(steps(Some(3600.0)), (2, 3));
    assert_eq!(
        steps(Some(1e-6)),
        (0, 3),
        "all of the recipe's steps are done"
    );
    assert_eq!(steps(None), (0, 3));
}

#[test]
fn what_is_held_out_of_a_folder_is_not_learned_from() {
    let place = tempfile::tempdir().unwrap();
    let folder = |count: usize| {
        let here = place.path().join(format!("of {count}"));
        fs_err::create_dir(&here).unwrap();
        let mut list = String::new();
        for i in 0..count {
            fs_err::write(here.join(format!("{i}.png")), "").unwrap();
            let label = if i % 4 == 0 { "rare" } else { "often" };
            list += &format!(
                "{{\"file_name\": \"{i}.png\", \"text\": \"{label} {i}\", \"label\": \"{label}\"}}\n"
            );
        }
        fs_err::write(here.join("metadata.jsonl"), list).unwrap();
        PictureFolder::open(&here, 16, &[]).unwrap()
    };
    let data = folder(80);
    let (learned, held_out) = (data.count().unwrap(), data.held_out().unwrap());
    assert_eq!(
        (learned, held_out),
        (80 - 4, 4),
        "three of 60 and one of 20"
    );
    let captions = |from: usize, n: usize| -> BTreeSet<String> {
        (from..from + n).map(|i| data.caption(i)).collect()
    };
    let (learned, held_out) = (captions(0, 500), captions(HELD_OUT, 500));
    assert_eq!((learned.len(), held_out.len()), (76, 4));
    assert!(learned.is_disjoint(&held_out));
    assert_eq!(held_out.iter().filter(|c| c.starts_with("rare")).count(), 1);
    // Too few of each class to hold any back.
    let few = folder(10);
    assert_eq!((few.count(), few.held_out()), (Some(10), Some(0)));
    assert_eq!(few.caption(HELD_OUT + 3), few.caption(3));
}

#[test]
fn a_batch_in_parts_is_the_same_to_rounding() {
    let place = tempfile::tempdir().unwrap();
    let mut recipe = tiny(place.path());
    let parts = [Part::Judge];
    let (whole, _) = run(&recipe, &place.path().join("whole"), &parts, usize::MAX);
    recipe.judge.training.micro_batch = Some(1);
    let (split, _) = run(&recipe, &place.path().join("split"), &parts, usize::MAX);
    assert_eq!(whole.losses.len(), split.losses.len());
    for ((_, a), (_, b)) in whole.losses.iter().zip(&split.losses) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn losses_fall_and_one_that_is_not_finite_ends_the_training_where_it_was_good() {
    let place = tempfile::tempdir().unwrap();
    let mut recipe = tiny(place.path());
    recipe.vae.training.steps = 60;
    let (heard, _) = run(
        &recipe,
        &place.path().join("good"),
        &[Part::Vae],
        usize::MAX,
    );
    let mean =
        |losses: &[(String, f64)]| losses.iter().map(|(_, l)| l).sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&heard.losses[..10]), mean(&heard.losses[50..]));
    assert!(last < 0.8 * first, "{first} {last}");

    recipe.vae.training.lr = 1e30;
    recipe.vae.training.decay = 0.0;
    let bad = place.path().join("bad");
    match run(&recipe, &bad, &[Part::Vae], usize::MAX).1 {
        Err(Error::Diverged { step, .. }) => assert!(step > 1, "{step}"),
        other => panic!("{other:?}"),
    }
    assert!(!bad.join("vae/config.json").exists());
}

#[test]
fn a_part_says_what_it_needs() {
    let place = tempfile::tempdir().unwrap();
    let recipe = tiny(place.path());
    let error = run(&recipe, place.path(), &[Part::Denoiser], usize::MAX)
        .1
        .unwrap_err();
    assert!(error.to_string().contains("tokenizer"), "{error}");
    assert!(error.hint().unwrap().contains("--part tokenizer"));
}

#[test]
fn a_folder_of_pictures_is_learned_from_and_its_faults_are_named() {
    let place = tempfile::tempdir().unwrap();
    let recipe = tiny(place.path());
    let data = place.path().join("data");
    fs_err::create_dir_all(&data).unwrap();
    let world = EmojiWorld::new(16, &[], 0).unwrap();
    let mut lines = String::new();
    for i in 0..6 {
        let picture = world.picture(i).unwrap();
        image::save_buffer(
            data.join(format!("{i}.png")),
            &picture.rgb,
            16,
            16,
            image::ColorType::Rgb8,
        )
        .unwrap();
        let label = if i < 3 { "early" } else { "late" };
        lines += &format!(
            "{{\"file_name\": \"{i}.png\", \"text\": \"{}\", \"label\": \"{label}\"}}\n",
            world.caption(i)
        );
    }
    let list = data.join("metadata.jsonl");
    fs_err::write(&list, &lines).unwrap();
    let folder = PictureFolder::open(&data, 16, &[]).unwrap();
    assert_eq!(folder.count(), Some(6));
    assert_eq!(folder.picture(3).unwrap(), world.picture(3).unwrap());
    assert_eq!(folder.questions()[0].labels, ["early", "late"]);
    let device = Device::flex();
    let out = place.path().join("out");
    let job = Job::new(&recipe, &folder, &out, &Part::ALL, &device);
    train(&job, &mut Counting::until(usize::MAX)).unwrap();
    assert!(out.join("judges/label/model.safetensors").exists());

    let says = |content: &str, without: &[&str], named: &str| {
        fs_err::write(&list, content).unwrap();
        let without: Vec<String> = without.iter().map(|&w| w.to_owned()).collect();
        let error = PictureFolder::open(&data, 16, &without)
            .unwrap_err()
            .to_string();
        assert!(error.contains(named), "{error}");
    };
    says("not json\n", &[], "line 1");
    says(
        "{\"file_name\": \"0.png\", \"text\": \" \"}\n",
        &[],
        "no caption",
    );
    says(
        "{\"file_name\": \"../tiny.toml\", \"text\": \"a\"}\n",
        &[],
        "../tiny.toml",
    );
    says(
        "{\"file_name\": \"absent.png\", \"text\": \"a\"}\n",
        &[],
        "absent.png",
    );
    says("\n", &[], "no picture");
    says(&lines, &["zeppelin"], "--without zeppelin");
    fs_err::write(data.join("0.png"), b"\x89PNG\r\n\x1a\n broken").unwrap();
    fs_err::write(&list, &lines).unwrap();
    let broken = PictureFolder::open(&data, 16, &[]).unwrap();
    let error = broken.picture(0).unwrap_err().to_string();
    assert!(error.contains("0.png"), "{error}");
    fs_err::remove_file(&list).unwrap();
    let error = PictureFolder::open(&data, 16, &[]).unwrap_err();
    assert!(error.to_string().contains("captions"), "{error}");
}
