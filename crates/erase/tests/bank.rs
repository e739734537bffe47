//! Recording trajectories and measuring drift, stopped in the middle and taken up again.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use common::{Memory, host, pipeline};
use scumble_diffusion::Pipeline;
use scumble_erase::{
    Captions, Error, Event, Job, Profile, Result,
    data::bank::{Bank, Path, Sampling},
    drift,
};
use scumble_nn::files::{HostTensor, Tensors};

const STEPS: usize = 6;

fn paths() -> Vec<Path> {
    (0..3)
        .map(|seed| Path {
            prompt: "a church".into(),
            also: vec!["a house".into()],
            seed,
        })
        .collect()
}

/// Records until `listen` breaks; with the evaluations of the U-Net that it took.
fn record(
    model: &Pipeline,
    paths: &[Path],
    store: &Memory,
    listen: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> (Result<Bank>, u64) {
    let captions = Captions {
        source: "test".into(),
        lines: vec![],
        given: false,
    };
    let asked = model.denoiser.weights.evaluations().so_far();
    let mut job = Job {
        pipeline: model,
        base: "tiny",
        base_hash: "hash of tiny",
        family: "stable-diffusion-custom",
        profile: Profile::SD,
        concepts: &[],
        preserve: &[],
        captions: &captions,
        encoded: Default::default(),
        pictures: None,
        masks: None,
        count: None,
        options: serde_json::Map::new(),
        seed: 0,
        store,
        listen,
    };
    let bank = Bank::record(
        &mut job,
        paths,
        Sampling {
            steps: STEPS,
            guidance: 3.0,
        },
    );
    (bank, model.denoiser.weights.evaluations().so_far() - asked)
}

fn numbers(bank: &Bank) -> Vec<Vec<u32>> {
    let all = bank.examples(&(0..bank.len()).collect::<Vec<_>>());
    let bits = |x: &Tensor<4>| host(x).into_iter().map(f32::to_bits).collect();
    [&all.x, &all.raw_prompt, &all.raw_empty, &all.raw_also[0]]
        .map(bits)
        .to_vec()
}

/// Stopped after every number of steps there is, it goes on after that step, with the same bits and
/// no evaluation made twice.
#[test]
fn a_stopped_recording_goes_on_where_it_stopped() {
    let model = pipeline("odd");
    let (whole, cost) = record(&model, &paths(), &Memory::default(), &mut |_| {
        ControlFlow::Continue(())
    });
    let whole = numbers(&whole.unwrap());
    let mut seen = Vec::new();
    for stop in 1..=12 {
        let store = Memory::default();
        let (mut steps, mut last) = (0, 0);
        let (stopped, first) = record(&model, &paths(), &store, &mut |event| {
            if let Event::Step { done, .. } = event {
                (steps, last) = (steps + 1, done);
            }
            if steps == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let Err(Error::Interrupted) = stopped else {
            assert!(stopped.is_ok() && stop > STEPS, "not stopped at {stop}");
            break;
        };
        let mut begun = None;
        let (bank, second) = record(&model, &paths(), &store, &mut |event| {
            if let Event::Stage { done, total, .. } = event {
                assert_eq!(total, 3 * STEPS);
                begun = Some(done);
            }
            ControlFlow::Continue(())
        });
        assert_eq!(numbers(&bank.unwrap()), whole, "stopped at {stop}");
        assert_eq!(begun, Some(last), "it says where it goes on");
        assert_eq!(
            first + second,
            cost,
            "stopped at {stop}, something was computed twice"
        );
        seen.push(last);
    }
    assert!(
        seen.len() >= STEPS && seen.windows(2).all(|pair| pair[0] <= pair[1]),
        "{seen:?}"
    );
}

/// What another job, or another bank of this one, left under the name is left alone; what is
/// damaged is an error.
#[test]
fn only_its_own_steps_are_taken_up() {
    let model = pipeline("odd");
    let store = Memory::default();
    let stop = |steps: usize| {
        let mut seen = 0;
        move |event: Event<'_>| {
            seen += usize::from(matches!(event, Event::Step { .. }));
            if seen == steps {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    };
    let others: Vec<Path> = paths()
        .into_iter()
        .map(|path| Path {
            prompt: "a dog".into(),
            ..path
        })
        .collect();
    assert!(record(&model, &others, &store, &mut stop(2)).0.is_err());
    let fresh = record(&model, &paths(), &Memory::default(), &mut |_| {
        ControlFlow::Continue(())
    });
    let mut begun = None;
    let (bank, cost) = record(&model, &paths(), &store, &mut |event| {
        if let Event::Stage { done, .. } = event {
            begun = Some(done);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(
        (numbers(&bank.unwrap()), cost, begun),
        (numbers(&fresh.0.unwrap()), fresh.1, Some(0))
    );

    let damages: [fn(&mut Tensors); 3] = [
        |state| drop(state.remove("eps.1")),
        |state| drop(state.insert("t".into(), HostTensor::from_f32([1], &[1.0]))),
        |state| drop(state.insert("x".into(), HostTensor::from_f32([2], &[1.0, 2.0]))),
    ];
    for damage in damages {
        let store = Memory::default();
        assert!(record(&model, &paths(), &store, &mut stop(3)).0.is_err());
        store.own.borrow_mut().values_mut().for_each(damage);
        let again = record(&model, &paths(), &store, &mut |_| ControlFlow::Continue(())).0;
        // Without the last of its kinds it is a recording of other prompts, which is begun anew;
        // anything else is said.
        match again {
            Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
            Ok(bank) => assert_eq!(
                numbers(&bank),
                numbers(
                    &record(&model, &paths(), &Memory::default(), &mut |_| {
                        ControlFlow::Continue(())
                    })
                    .0
                    .unwrap()
                )
            ),
        }
    }
}

#[test]
fn drift_can_be_stopped() {
    let model = pipeline("odd");
    let mut edited = model.clone();
    let name = edited
        .denoiser
        .weights
        .iter()
        .map(|(name, _)| name.to_owned())
        .find(|name| name.contains("attn2.to_v"))
        .unwrap();
    let values = edited.denoiser.weights.get(&name).unwrap().flat() * 1.5;
    edited.denoiser.weights.replace(&name, values).unwrap();
    let mut told = Vec::new();
    let whole = drift::unconditional_while(&model, &edited, &mut |done| {
        told.push(done);
        ControlFlow::Continue(())
    });
    assert_eq!(
        whole.unwrap().unwrap(),
        drift::unconditional(&model, &edited).unwrap()
    );
    assert_eq!(told.last(), Some(&drift::EVALUATIONS));
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{told:?}");
    for stop in [told[0], told[1], told[told.len() / 2]] {
        let asked = model.denoiser.weights.evaluations().so_far();
        let stopped = drift::unconditional_while(&model, &edited, &mut |done| {
            if done >= stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(stopped.unwrap(), None);
        let spent = model.denoiser.weights.evaluations().so_far() - asked;
        assert!(
            spent <= stop as u64,
            "{spent} evaluations after a stop at {stop}"
        );
    }
}
