//! What the user's detectors see in pictures from before and after: the concept's own prompts, drawn
//! by the model itself, with the same noise on both sides. Every picture stays in the run's folder.

use std::path::Path;

use scumble_attack::Drawing;
use scumble_diffusion::{Pipeline, Request};
use scumble_eval::{Detector, Rate};
use scumble_report::png;
use serde_json::{Value, json};

use super::plan::Plan;
use crate::{
    detectors,
    drawing::drawing,
    drawn::Drawn,
    failure::Failure,
    folder::write_file,
    host::Host,
    model::Model,
    request::{DrawingRequest, EraseRequest},
};

/// Pictures of each side, where nobody says how many.
const PICTURES: usize = 8;

/// Who is asked, and of how many pictures.
pub(super) struct Asked {
    detectors: Vec<Detector>,
    pictures: usize,
    drawing: Drawing,
}

impl Asked {
    /// Those that a request names.
    ///
    /// # Errors
    /// If one cannot be asked.
    pub(super) fn of(
        request: &EraseRequest,
        model: &Model,
        pipeline: &Pipeline,
    ) -> Result<Option<Self>, Failure> {
        let detectors = detectors::open(&request.detectors, &model.device)?;
        if detectors.is_empty() {
            if request.pictures_judged.is_some()
                || request.detectors.threshold.is_some()
                || request.drawing != DrawingRequest::default()
            {
                return Err(Failure::new(
                    "--n, --threshold and --drawing-steps: there is no detector to ask",
                )
                .with_hint("name one with --detector"));
            }
            return Ok(None);
        }
        Ok(Some(Self {
            detectors,
            pictures: request.pictures_judged.unwrap_or(PICTURES).max(1),
            drawing: drawing(&request.drawing, model, pipeline)?,
        }))
    }

    /// What decides their answers, for a record.
    pub(super) fn settings(&self) -> Value {
        let all = self.detectors.iter().map(detectors::settings);
        json!({
            "detectors": all.collect::<Value>(), "pictures": self.pictures, "drawing": self.drawing,
        })
    }

    /// In how many of one side's pictures all of them see what they look for.
    ///
    /// # Errors
    /// If a picture is broken, a detector fails, or the user interrupts.
    pub(super) fn rate(
        &self,
        plan: &Plan,
        pipeline: &Pipeline,
        side: &str,
        folder: &Path,
        host: Host<'_>,
    ) -> Result<Rate, Failure> {
        let listener = host.listener;
        let stage = format!("drawing {side}, for the detectors");
        listener.stage(&stage, self.pictures, 0);
        let prompts = plan.concepts.iter().flat_map(|concept| &concept.prompts);
        let prompts: Vec<&str> = prompts.map(|prompt| prompt.asks()).collect();
        let places = folder.join("pictures").join(side);
        fs_err::create_dir_all(&places)?;
        let mut hits = 0;
        for i in 0..self.pictures {
            let prompt = prompts[i % prompts.len()].to_owned();
            let Drawing {
                steps,
                guidance,
                sampler,
            } = self.drawing;
            let request = Request {
                sampler,
                ..Request::new(vec![prompt], i as u64, steps, guidance)
            };
            let latents = pipeline.sample(&request, &mut |_| listener.go_on())?;
            if listener.interrupted() {
                return Err(Failure::interrupted());
            }
            let drawn = Drawn::decoded(pipeline, latents);
            if drawn.iter().any(|drawn| !drawn.finite) {
                return Err(Failure::new(format!(
                    "{stage}: picture {i} is of numbers that are not finite"
                ))
                .with_hint("a black picture is not an erased concept"));
            }
            let picture = drawn
                .into_iter()
                .map(|drawn| drawn.picture)
                .collect::<Vec<_>>();
            for p in &picture {
                let bytes = png::encode_png(p.width, p.height, &p.rgb, &[])?;
                write_file(&places.join(format!("{i:05}.png")), &bytes)?;
            }
            let seen = detectors::agreed(&self.detectors, &picture)?;
            hits += usize::from(seen.into_iter().all(|seen| seen));
            listener.step(i + 1, None);
        }
        Ok(Rate {
            hits,
            n: self.pictures,
        })
    }
}
