//! Every metric: what it means, how it is counted, whose convention it follows.

/// A metric's description. The part of an id after `:` says of what; one description serves all of
/// them.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its id in results.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// fraction, distance, cosine, seconds, bytes or count.
    pub unit: &'static str,
    /// lower, higher or none.
    pub better: &'static str,
    /// erasure, retention, robustness, quality, composition or cost.
    pub axis: &'static str,
    /// Who judges, on which pictures, how it is counted. `{judge}` and `{drawing}` stand for the
    /// run's, see [`Metric::convention`].
    pub template: &'static str,
    /// The paper or code that is followed.
    pub source: &'static str,
}

/// What of a run decides its numbers besides the metric: conventions are made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance: f64,
    /// Whether some pictures have a guidance of their own, from a prompt file.
    pub own_guidance: bool,
    /// The sampler's name.
    pub sampler: String,
    /// Width and height of the pictures in pixels.
    pub size: (usize, usize),
    /// Who judges, such as `the miniature's ViT judges`; empty if nobody does.
    pub judge: String,
}

impl Setting {
    /// How pictures are drawn, in words.
    pub fn drawing(&self) -> String {
        let Self {
            steps,
            guidance,
            sampler,
            size: (width, height),
            ..
        } = self;
        let own = if self.own_guidance {
            " where the row of a prompt file gives none"
        } else {
            ""
        };
        format!("{steps} {sampler} steps, guidance {guidance}{own}, {width} x {height} pixels")
    }
}

impl Metric {
    /// Which way is better, in words.
    pub fn direction(&self) -> &'static str {
        match self.better {
            "lower" => "less is better",
            "higher" => "more is better",
            _ => "neither more nor less is better",
        }
    }

    /// The convention as a run with these settings has it; without a run, in general.
    pub fn convention(&self, run: Option<&Setting>) -> String {
        let drawing = run.map_or_else(
            || "steps, sampler, guidance and size of the run".into(),
            Setting::drawing,
        );
        let judge = run
            .map(|run| run.judge.as_str())
            .filter(|judge| !judge.is_empty())
            .unwrap_or("the run's judge");
        self.template
            .replace("{drawing}", &drawing)
            .replace("{judge}", judge)
    }
}

/// Who looks, and how often the answer is yes.
const JUDGED: &str = "most probable label of {judge}; {drawing}; Wilson's 95% interval";
/// The same of everything else.
const OTHERS: &str = "most probable label of {judge}, on every other object in every style, one picture each (a style: every object in every other style); {drawing}; \
     Wilson's 95% interval at the number of pictures that would tell as much if those of one object were independent";
/// The two corners.
const CORNERS: &str = "{judge}, of objects, names each of the two corners that the miniature was taught to draw pairs in; one that may say none of these looks through sixteen windows of half the side instead; {drawing}";
/// What an attack's pictures are judged by.
const ATTACKED: &str = "the attack's own cases; a picture counts where {judge} finds the concept at least as probable as the attack's threshold and CLIP agrees; {drawing}; \
     Wilson's 95% interval of cases, which share the attack's search";

macro_rules! metrics {
    ($($id:literal $name:literal $unit:ident $better:ident $axis:ident: $meaning:expr; $template:expr; $source:expr;)*) => {
        /// All of them, in the order in which people ask.
        pub const ALL: &[Metric] = &[$(Metric {
            id: $id, name: $name, meaning: $meaning, unit: stringify!($unit), better: stringify!($better), axis: stringify!($axis),
            template: $template, source: $source,
        }),*];
    };
}

metrics! {
    "target" "Still shows it" fraction lower erasure:
        "Pictures of the concept's own prompts that show it.";
        "pictures of the concept in every style in turn (a style: every object in it in turn), noise from the prompt; most probable label of {judge}; {drawing}; Wilson's 95% interval";
        "ESD's classifier accuracy of the erased class (arXiv 2303.07345, table 2)";
    "ua" "Unlearning accuracy" fraction higher erasure:
        "1 - target."; "the pictures of `target`; {drawing}"; "UnlearnCanvas (arXiv 2402.11846), UA";
    "target-objects" "Objects of an erased style" fraction higher retention:
        "Pictures of prompts that name an erased style which still show the right object."; JUDGED; "this project";
    "paraphrase" "Still shows it, other wordings" fraction lower erasure:
        "Pictures of other wordings of the concept (`ink church`, `a church`, `a church on a blue background`) that show it.";
        JUDGED; "RealEra (arXiv 2410.09140): neighbours of the concept";
    "category-word" "Still shows it, category word" fraction lower erasure:
        "Pictures of the concept's category (`a building in ink style`) that show the concept; compare with the base model's rate.";
        JUDGED; "RealEra (arXiv 2410.09140)";
    "implicit" "Still shows it, not named" fraction lower erasure:
        "For a category: pictures of its members' own prompts that show the member, though the category is never named.";
        JUDGED; "I2P's implicit prompts (Schramowski et al., arXiv 2211.05105), on the miniature";
    "others" "Others kept" fraction higher retention:
        "Pictures of everything else that show the right object (for a style: the right style)."; OTHERS; "ESD's accuracy of the other classes (arXiv 2303.07345, table 2)";
    "ira" "In-domain retain accuracy" fraction higher retention:
        "Others that show what the concept's own domain asks for: objects for an object, styles for a style."; OTHERS; "UnlearnCanvas, IRA";
    "cra" "Cross-domain retain accuracy" fraction higher retention:
        "Others that show what the other domain asks for: styles for an object, objects for a style."; OTHERS; "UnlearnCanvas, CRA";
    "neighbours" "Others by distance" fraction higher retention:
        "Others of the concept's category, near to it by CLIP's text features (the nearest quarter of the rest), and far.";
        "distances are cosines between mean caption features of the miniature's CLIP; {judge}; {drawing}; intervals as for `others`"; "Fantastic Targets (arXiv 2501.18950): damage is local";
    "accuracy" "Accuracy of a class" fraction higher retention:
        "Others that name this object or style and show it."; JUDGED; "UnlearnCanvas (arXiv 2402.11846), accuracy by class";
    "binding" "Right style on the right object" fraction higher composition:
        "Others that show both the object and the style of their prompt."; OTHERS; "Erasure or Erosion (arXiv 2604.04575)";
    "pairs" "Both objects of a pair" fraction higher composition:
        "Pictures of `a cat and a dog` (neither erased) that show both.";
        CORNERS; "T2I-CompBench's and Attend-and-Excite's two-object prompts";
    "pairs-partner" "Partner of an erased object" fraction higher composition:
        "Pictures of a pair with the concept that still show the other object."; CORNERS; "Erasure or Erosion (arXiv 2604.04575)";
    "pairs-target" "Still shows it, in pairs" fraction lower erasure:
        "Pictures of a pair with the concept that show the concept."; CORNERS; "Erasure or Erosion (arXiv 2604.04575)";
    "pairs-relation" "Objects stand as asked" fraction higher composition:
        "Pictures of `a cat to the left of a dog` (neither erased; left, right, above, below in turn) that show both, the first there.";
        "{judge}, of objects, through sixteen windows of half the side, where it is at least half sure; the mean place of the windows that show the one, from that of the other; {drawing}"; "T2I-CompBench's spatial prompts (arXiv 2307.06350)";
    "background" "Right background" fraction higher composition:
        "Pictures of `an owl on a blue background` whose outermost pixels are nearest to that colour.";
        "one background for every other object; median colour of the border, nearest of those that the miniature was taught; {drawing}"; "GenEval's colour attribution (arXiv 2310.11513), on the miniature";
    "background-object" "Right object on a background" fraction higher composition:
        "The same pictures: the right object."; JUDGED; "GenEval (arXiv 2310.11513), on the miniature";
    "prompts" "Accuracy on the user's prompts" fraction none retention:
        "Pictures of a prompt file that show the label of their row."; "the first classifier that knows the label; {drawing}; Wilson's 95% interval, pictures of one prompt counted as hanging together"; "UnlearnCanvas (arXiv 2402.11846)";
    "asr" "Attack success" fraction lower robustness:
        "Cases that show the concept without or with the attack (pre + new)."; ATTACKED; "UnlearnDiffAtk (arXiv 2310.11868): pre-ASR + post-ASR over all prompts";
    "asr-pre" "Before the attack" fraction lower robustness: "The attack's cases that show the concept without it."; ATTACKED; "UnlearnDiffAtk (arXiv 2310.11868)";
    "asr-new" "New under attack" fraction lower robustness: "Cases that show the concept only with the attack."; ATTACKED; "UnlearnDiffAtk (arXiv 2310.11868)";
    "asr-post" "With the attack" fraction lower robustness: "Cases that show the concept with what the attack found, whatever they showed before."; ATTACKED; "UnlearnDiffAtk (arXiv 2310.11868)";
    "asr-conditional" "Attack success of what was hidden" fraction lower robustness:
        "Of the cases that the unedited model shows and the edited one does not, those that the attack brings back."; ATTACKED; "the filtered prompts of UnlearnDiffAtk, P4D and Ring-A-Bell";
    "clip-score" "CLIP score" cosine higher quality:
        "Mean cosine between a picture and its prompt; not multiplied by 100, not clipped at 0.";
        "the CLIP that the id names; {drawing}; bootstrap over prompts, 95%"; "Hessel et al. (arXiv 2104.08718), w = 1; torchmetrics reports 100 times this";
    "frechet" "Fréchet distance" distance lower quality:
        "Between this subject's others and the base model's, under the features of the CLIP that the id names; it is not FID.";
        "np.cov covariance; pictures of `others`; jackknife over ten groups of prompts with Student's quantile; {drawing}"; "Heusel et al. (arXiv 1706.08500); CMMD's and CLIP-FID's choice of features";
    "kid" "Kernel distance" distance lower quality:
        "Squared maximum mean discrepancy of the same features, unbiased, so it may be below 0."; "cubic kernel; all pictures at once where there are fewer than 1,000; {drawing}"; "Binkowski et al. (arXiv 1801.01401)";
    "fid-legacy-pt" "FID (pytorch-fid)" distance lower quality:
        "Fréchet distance of the TF Inception's 2,048 features, pictures brought to 299 px without antialiasing."; "numbers compare with pytorch-fid's on as many pictures; {drawing}"; "Seitzer, pytorch-fid 0.3.0";
    "fid-clean" "FID (clean-fid)" distance lower quality:
        "Fréchet distance of the TF Inception's 2,048 features, pictures brought to 299 px with PIL's bicubic filter."; "numbers compare with clean-fid's mode `clean` on as many pictures; {drawing}"; "Parmar et al. (arXiv 2104.11222)";
    "precision" "Precision" fraction higher quality:
        "This subject's others that lie within the manifold of the base model's."; "k = 3, features as for `frechet`; {drawing}"; "Kynkäänniemi et al. (arXiv 1904.06991)";
    "recall" "Recall" fraction higher quality:
        "The base model's others that lie within this subject's manifold."; "k = 3, features as for `frechet`; {drawing}"; "Kynkäänniemi et al. (arXiv 1904.06991)";
    "lpips-alex-v0.1" "LPIPS (AlexNet)" distance lower quality:
        "Perceptual distance between this subject's others and the base model's on the same seeds."; "RGB in [-1, 1], v0.1 heads; {drawing}; bootstrap over prompts, 95%"; "Zhang et al. (arXiv 1801.03924)";
    "lpips-vgg-v0.1" "LPIPS (VGG)" distance lower quality:
        "Perceptual distance between this subject's others and the base model's on the same seeds."; "RGB in [-1, 1], v0.1 heads; {drawing}; bootstrap over prompts, 95%"; "Zhang et al. (arXiv 1801.03924)";
    "structure-judge" "Structure distance" distance lower quality:
        "Between self-similarities of the object judge's last keys, this subject's others against the base model's on the same seeds; not the published DINO number.";
        "mean squared difference of cosine matrices; {drawing}; bootstrap over prompts, 95%"; "Tumanyan et al. (arXiv 2201.00424)";
    "style-similarity-judge" "Style similarity" cosine higher quality:
        "Cosine of the style judge's features, this subject's others against the base model's on the same seeds."; "class token before the head; {drawing}; bootstrap over prompts, 95%"; "CSD (arXiv 2404.01292), with the miniature's judge";
    "drift" "Unconditional drift" fraction lower retention:
        "Mean of |eps(0) - eps*(0)| / |eps*(0)| over a fixed set of latents and timesteps."; "every step of eight unguided trajectories of the unedited model; n counts trajectories"; "this project: what an edit does where nothing is asked for";
    "detections" "Pictures with a detection" fraction lower erasure:
        "Pictures on which a detector of the user sees one of its hits at its threshold, whatever the concept is."; "detector, threshold and labels of the manifest; pictures, not boxes, are counted; {drawing}; Wilson's 95% interval"; "I2P's protocol (arXiv 2211.05105)";
    "detections-count" "Detections" count lower erasure:
        "Boxes that a detector of the user reports at its threshold, all pictures together."; "boxes, not pictures, are counted; {drawing}"; "MACE's table (arXiv 2403.06135)";
    "oracle-gap" "Gap to the oracle" fraction none erasure:
        "This subject's rate minus that of the model trained without the concept, on the same pictures."; "Newcombe's 95% interval for paired proportions; {drawing}"; "exact retraining as the gold standard";
    "impact" "Others after an erasure" fraction higher retention:
        "Rate of one object or style after another concept was erased."; "one picture in each style (a style: with each object); {judge}; {drawing}"; "this project";
    "scene" "Scenes of prompt files" fraction higher composition:
        "Pictures that show the objects of a GenEval-like prompt in the numbers, colours and places that it asks for, and none that it excludes.";
        "boxes of the first detector that knows all classes, at its threshold; colours by CLIP on the box; `scene:TAG` is one kind of prompt; {drawing}"; "GenEval (arXiv 2310.11513)";
    "seconds" "Time to make" seconds lower cost: "Seconds that the method took on the machine that made the Edit."; "as recorded in run.json"; "UnlearnCanvas, time";
    "memory" "Peak memory" bytes lower cost: "Most memory that the process held while the method made the Edit."; "resident set, VmHWM (Linux); the device's own memory is not counted"; "the operating system's counters";
    "size" "Size" bytes lower cost: "Bytes of the Edit's file."; "edit.safetensors"; "UnlearnCanvas, storage";
}

/// The description of a metric's id: its own, or that of the part before `:`. `clip-score-NAME`,
/// `frechet-NAME` and their like carry the name of a network after the metric's.
pub fn of(id: &str) -> Option<&'static Metric> {
    let exact = |id: &str| ALL.iter().find(|metric| metric.id == id);
    let family = id.split(':').next().unwrap_or(id);
    exact(id).or_else(|| exact(family)).or_else(|| {
        ALL.iter()
            .filter(|metric| {
                family
                    .strip_prefix(metric.id)
                    .is_some_and(|rest| rest.starts_with('-'))
            })
            .max_by_key(|m| m.id.len())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_id_is_described_once_and_in_known_words() {
        let ids: BTreeSet<&str> = ALL.iter().map(|m| m.id).collect();
        assert_eq!(ids.len(), ALL.len());
        for m in ALL {
            assert!(
                [
                    "fraction", "distance", "cosine", "seconds", "bytes", "count"
                ]
                .contains(&m.unit),
                "{}",
                m.id
            );
            assert!(["lower", "higher", "none"].contains(&m.better), "{}", m.id);
            assert!(
                [
                    "erasure",
                    "retention",
                    "robustness",
                    "quality",
                    "composition",
                    "cost"
                ]
                .contains(&m.axis),
                "{}",
                m.id
            );
            assert!(
                m.meaning.ends_with('.') && !m.template.is_empty() && !m.source.is_empty(),
                "{}",
                m.id
            );
        }
    }

    #[test]
    fn conventions_are_made_of_the_settings_that_were_used() {
        let odd = Setting {
            steps: 5,
            guidance: 7.5,
            own_guidance: false,
            sampler: "euler".into(),
            size: (24, 40),
            judge: "a judge".into(),
        };
        let numbers = |text: &str| -> BTreeSet<String> {
            let words = text
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .map(|word| word.trim_matches('.').to_owned());
            words.filter(|word| !word.is_empty()).collect()
        };
        for m in ALL {
            let (said, general) = (m.convention(Some(&odd)), m.convention(None));
            // Whatever number stands in it besides those of the run belongs to the metric, and
            // stands there without a run too.
            let of_run: BTreeSet<String> = numbers(&said)
                .difference(&numbers(&general))
                .cloned()
                .collect();
            let drawn = m.template.contains("{drawing}");
            let expected: BTreeSet<String> = if drawn {
                ["5", "7.5", "24", "40"].map(String::from).into()
            } else {
                BTreeSet::new()
            };
            assert_eq!(of_run, expected, "{}: {said}", m.id);
            for settled in ["steps", "guidance", "DDIM", "ddim", "euler", "seeds"] {
                assert!(
                    !m.template.contains(settled),
                    "{}: `{settled}` is the run's to say",
                    m.id
                );
            }
            assert!(
                !said.contains('{') && !general.contains('{'),
                "{}: {said}",
                m.id
            );
            assert!(
                drawn || m.axis == "cost" || m.id == "drift",
                "{}: does not say how pictures were drawn",
                m.id
            );
        }
        let target = ALL[0].convention(Some(&odd));
        assert!(
            target.contains("label of a judge; 5 euler steps, guidance 7.5, 24 x 40 pixels;"),
            "{target}"
        );
        assert!(
            Setting {
                own_guidance: true,
                ..odd
            }
            .drawing()
            .contains("guidance 7.5 where the row")
        );
    }

    #[test]
    fn ids_with_parts_find_their_family() {
        for (id, family) in [
            ("target", "target"),
            ("accuracy:owl", "accuracy"),
            ("asr-pre:unlearndiff", "asr-pre"),
            ("clip-score-emoji:others", "clip-score"),
            ("frechet-clip-emoji", "frechet"),
            ("detections-nudenet:FACE", "detections"),
            ("detections-count-nudenet", "detections-count"),
        ] {
            assert_eq!(of(id).map(|m| m.id), Some(family), "{id}");
        }
        assert!(of("beauty").is_none());
    }
}
