//! What the tests of this crate share: tiny models, a store in memory, and one way to run an
//! erasure.
#![allow(dead_code, reason = "each test uses some of it")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    rc::Rc,
};

use burn::tensor::{Device, Tensor};
use scumble_diffusion::Pipeline;
use scumble_erase::{
    Captions, Concept, ConceptPrompt, Edit, Event, Job, Profile, Result, Store, Variant,
    job::Count, methods::named,
};
use scumble_families as families;
use scumble_nn::files::{Checkpoint, HostTensor, OpenOptions, Tensors};
use serde_json::Value;

/// The small model `NAME` of crates/nn/tests/golden/networks, or `sdxl` of crates/diffusion's.
pub(crate) fn checkpoint(name: &str) -> Checkpoint {
    let golden = if name == "sdxl" {
        "../diffusion/tests/golden"
    } else {
        "../nn/tests/golden/networks"
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(golden)
        .join(name)
        .join("model");
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

pub(crate) fn pipeline(name: &str) -> Pipeline {
    families::load(&checkpoint(name), &Device::flex()).unwrap()
}

pub(crate) fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    x.clone().into_data().iter::<f32>().collect()
}

/// Every number of a model.
pub(crate) fn bits(pipeline: &Pipeline) -> BTreeMap<String, Vec<u32>> {
    let parts = pipeline.component_names().into_iter();
    let all = parts.flat_map(|part| {
        pipeline
            .weights(part)
            .unwrap()
            .iter()
            .map(move |(name, w)| (format!("{part}.{name}"), w))
    });
    all.map(|(name, w)| {
        (
            name,
            host(&w.flat()).into_iter().map(f32::to_bits).collect(),
        )
    })
    .collect()
}

/// A concept of one prompt.
pub(crate) fn concept(erase: &str, anchor: Option<&str>, from: Option<&str>) -> Concept {
    let prompt = ConceptPrompt {
        erase: erase.into(),
        anchor: anchor.map(Into::into),
        from: from.map(Into::into),
    };
    Concept {
        name: erase.into(),
        prompts: vec![prompt],
        kind: None,
    }
}

/// A store in memory that counts; clones share everything, [`beside`](Self::beside) only the cache.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) own: Rc<RefCell<BTreeMap<String, Tensors>>>,
    pub(crate) shared: Rc<RefCell<BTreeMap<String, Tensors>>>,
    pub(crate) recorded: Rc<Cell<usize>>,
    pub(crate) found: Rc<Cell<usize>>,
}

impl Memory {
    /// The store of another job with the same cache.
    pub(crate) fn beside(&self) -> Self {
        Self {
            own: Rc::default(),
            ..self.clone()
        }
    }

    /// The recorded groups.
    pub(crate) fn groups(&self) -> Vec<Tensors> {
        self.shared.borrow().values().cloned().collect()
    }
}

impl Store for Memory {
    fn get(&self, name: &str) -> Result<Option<Tensors>> {
        Ok(self.own.borrow().get(name).cloned())
    }

    fn put(&self, name: &str, tensors: Tensors) -> Result<()> {
        self.own.borrow_mut().insert(name.into(), tensors);
        Ok(())
    }

    fn get_shared(&self, hash: &str) -> Result<Option<Tensors>> {
        let found = self.shared.borrow().get(hash).cloned();
        self.found
            .set(self.found.get() + usize::from(found.is_some()));
        Ok(found)
    }

    fn put_shared(&self, hash: &str, tensors: Tensors) -> Result<()> {
        self.recorded.set(self.recorded.get() + 1);
        self.shared.borrow_mut().insert(hash.into(), tensors);
        Ok(())
    }
}

/// One erasure; the fields are what tests vary.
#[derive(Clone)]
pub(crate) struct Run<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) method: &'static str,
    pub(crate) variant: Variant,
    pub(crate) concepts: Vec<Concept>,
    pub(crate) preserve: Vec<Concept>,
    pub(crate) captions: Captions,
    pub(crate) pictures: Option<Tensor<4>>,
    pub(crate) masks: Option<Tensor<4>>,
    pub(crate) options: Value,
    pub(crate) profile: Profile,
    pub(crate) seed: u64,
    pub(crate) store: Memory,
}

impl<'a> Run<'a> {
    pub(crate) fn new(pipeline: &'a Pipeline, concepts: Vec<Concept>, options: Value) -> Self {
        Self::of("esd", pipeline, concepts, options)
    }

    /// As [`new`](Self::new), with another method.
    pub(crate) fn of(
        method: &'static str,
        pipeline: &'a Pipeline,
        concepts: Vec<Concept>,
        options: Value,
    ) -> Self {
        let lines = ["a dog", "a cat on a table", "a red car", "the moon"]
            .map(String::from)
            .to_vec();
        Self {
            method,
            variant: Variant::Fixed,
            pipeline,
            concepts,
            preserve: Vec::new(),
            captions: Captions {
                source: "test".into(),
                lines,
                given: false,
            },
            pictures: None,
            masks: None,
            options,
            profile: Profile::SD,
            seed: 7,
            store: Memory::default(),
        }
    }

    /// Erases until the listener breaks.
    pub(crate) fn listened(
        &self,
        listen: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Edit> {
        self.run(listen, None)
    }

    /// Erases with somebody who counts pictures.
    pub(crate) fn counted(&self, count: Option<&Count<'_>>) -> Result<Edit> {
        self.run(&mut |_| ControlFlow::Continue(()), count)
    }

    fn run(
        &self,
        listen: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        count: Option<&Count<'_>>,
    ) -> Result<Edit> {
        let mut job = Job {
            pipeline: self.pipeline,
            base: "tiny",
            base_hash: "hash of tiny",
            family: "stable-diffusion-custom",
            profile: self.profile,
            concepts: &self.concepts,
            preserve: &self.preserve,
            captions: &self.captions,
            encoded: Default::default(),
            pictures: self.pictures.as_ref(),
            masks: self.masks.as_ref(),
            count,
            options: self.options.as_object().unwrap().clone(),
            seed: self.seed,
            store: &self.store,
            listen,
        };
        (named(self.method)?.erase)(&mut job, self.variant)
    }

    pub(crate) fn erase(&self) -> Result<Edit> {
        self.listened(&mut |_| ControlFlow::Continue(()))
    }

    /// The edit and the loss of every step.
    pub(crate) fn losses(&self) -> Result<(Edit, Vec<f32>)> {
        let mut losses = Vec::new();
        let edit = self.listened(&mut |event| {
            if let Event::Step {
                loss: Some(loss), ..
            } = event
            {
                losses.push(loss);
            }
            ControlFlow::Continue(())
        })?;
        Ok((edit, losses))
    }
}

/// Interrupts an erasure after so many losses, and sees that each state of which `read` says that
/// it is read again is refused, with its name and the tensor's, where a tensor is missing, has
/// another size or is not finite.
pub(crate) fn refuses_damage(run: &Run<'_>, stop: usize, read: &dyn Fn(&str) -> bool) {
    let mut seen = 0;
    let stopped = run.listened(&mut |event| {
        seen += usize::from(matches!(event, Event::Step { loss: Some(_), .. }));
        if seen == stop {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(stopped.is_err(), "{}: not interrupted", run.method);
    let whole = run.store.own.borrow().clone();
    assert!(whole.keys().any(|state| read(state)), "{:?}", whole.keys());
    for (state, tensors) in whole.iter().filter(|(state, _)| read(state)) {
        // The first and the last of each kind: `value.`, `m.`, `carried.` and so on.
        let kind = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
        let names: Vec<&String> = tensors.keys().collect();
        let ends = |i: usize| {
            let next = |j: Option<usize>| j.and_then(|j| names.get(j)).map(|name| kind(name));
            let own = Some(kind(names[i]));
            next(i.checked_sub(1)) != own || next(i.checked_add(1)) != own
        };
        for (i, (name, host)) in tensors.iter().enumerate() {
            if !ends(i) {
                continue;
            }
            let n = host.len();
            let mut broken = vec![None];
            if host.is_float() {
                broken.push(Some(HostTensor::from_f32([n + 1], &vec![0.0; n + 1])));
                broken.push(Some(HostTensor::from_f32([n], &vec![f32::NAN; n])));
            } else {
                broken.push(Some(HostTensor::from_i64([n + 1], &vec![0; n + 1])));
            }
            for tensor in broken {
                let mut damaged = tensors.clone();
                match tensor {
                    Some(tensor) => damaged.insert(name.clone(), tensor),
                    None => damaged.remove(name),
                };
                *run.store.own.borrow_mut() = whole.clone();
                run.store.own.borrow_mut().insert(state.clone(), damaged);
                let error = run.erase().map(drop).unwrap_err();
                let message = error.to_string();
                assert!(
                    message.contains(&format!("`{state}`"))
                        && message.contains(&format!("`{name}`")),
                    "{} {state} {name}: {message}",
                    run.method
                );
                assert!(
                    error
                        .hint()
                        .is_some_and(|hint| hint.contains("--overwrite")),
                    "{message}"
                );
            }
        }
    }
    *run.store.own.borrow_mut() = whole;
    run.erase().unwrap();
}
