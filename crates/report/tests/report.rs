//! The report of whole folders: a good one, an empty one, one with holes, and one that means harm.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use scumble_report::{
    Blur, Evaluation, Options,
    evaluation::{
        Attacked, Concept, Confusion, Count, Curve, Impact, Metric, Missing, Note, Paired, Picture,
        Row, Share, Subject,
    },
    png, report,
};

/// What somebody might call a concept, a subject or a prompt.
const HOSTILE: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "]]></svg></style></title><!--",
    "{{ 7 * 7 }}{% raw %}",
    "\u{202e}txt.exe\u{202d} שלום العربية",
    "a\r\nb\u{0}c\u{7f}\u{2028}|`*_#[x](javascript:alert(1))",
    "https://example.org/x.png",
];

fn row(subject: &str, concept: Option<&str>, metric: &str, value: f64) -> Row {
    Row {
        subject: subject.into(),
        concept: concept.map(Into::into),
        metric: metric.into(),
        value: Some(value),
        n: Some(48),
        low: Some(value - 0.05),
        high: Some(value + 0.05),
        seeds: (1000..1048).collect(),
        hash: "0123456789abcdef".into(),
    }
}

/// An evaluation with one of everything, its names made by `name` from plain ones, and its
/// pictures.
fn evaluation(folder: &Path, name: impl Fn(&str) -> String) -> Evaluation {
    let (church, ids) = (name("church"), ["base", "esd", "uce"].map(&name));
    let kinds = ["base", "edit", "edit"];
    let subject = |(id, kind): (&String, &str)| Subject {
        id: id.clone(),
        label: id.clone(),
        kind: kind.into(),
        concepts: if kind == "base" {
            Vec::new()
        } else {
            vec![church.clone()]
        },
        method: Some(name("method")),
        path: Some(name("path")),
        settings: [(name("key"), name("value").into())].into(),
        seconds: Some(16.0),
        size: Some(2_400_000),
        ..Subject::default()
    };
    let metric = |id: &str, axis: &str, better: &str| Metric {
        id: id.into(),
        name: name(id),
        meaning: name("meaning"),
        unit: "fraction".into(),
        better: better.into(),
        axis: axis.into(),
        convention: name("convention"),
        source: name("source"),
        sensitive: false,
    };
    let mut evaluation = Evaluation {
        format: scumble_report::evaluation::FORMAT.into(),
        version: "0.1.0".into(),
        created: "2026-11-23T21:40:00Z".into(),
        seconds: Some(512.3),
        machine: name("machine"),
        finished: true,
        model: name("emoji-sd"),
        concepts: vec![Concept {
            name: church.clone(),
            kind: Some(name("object")),
        }],
        subjects: ids.iter().zip(kinds).map(subject).collect(),
        metrics: vec![
            metric("target", "erasure", "lower"),
            metric("others", "retention", "higher"),
            metric("near", "retention", "higher"),
            metric("pairs", "composition", "higher"),
            metric("asr", "robustness", "lower"),
        ],
        curves: vec![Curve {
            subject: ids[1].clone(),
            concept: Some(church.clone()),
            metric: "target".into(),
            name: name("judge"),
            thresholds: vec![Some(0.0), None, Some(1.0)],
            values: vec![Some(1.0), Some(0.5), Some(f64::NAN)],
        }],
        confusion: vec![Confusion {
            subject: ids[1].clone(),
            concept: None,
            kind: name("object"),
            labels: vec![name("cat"), name("dog")],
            counts: vec![vec![Some(5), Some(1), Some(2)], vec![None, Some(u64::MAX)]],
            erased: vec![name("bat")],
        }],
        paired: vec![Paired {
            concept: Some(church.clone()),
            metric: "others".into(),
            a: ids[1].clone(),
            b: ids[2].clone(),
            n: Some(186),
            only_a: Some(3),
            only_b: Some(9),
            difference: Some(-0.032),
            low: Some(-0.07),
            high: Some(0.004),
            p: Some(0.146),
            adjusted: Some(0.292),
            tests: Some(2),
            clusters: Some(31),
        }],
        impact: Some(Impact {
            method: name("uce"),
            erased: vec![church.clone(), name("cat")],
            affected: vec![church.clone(), name("cat"), name("ink")],
            before: vec![Some(0.9), Some(0.95)],
            after: vec![vec![Some(0.0), Some(0.5), None]],
            n: Some(12),
            similarity: vec![vec![Some(1.0)]],
        }),
        notes: vec![
            Note {
                text: name("a general note"),
                ..Note::default()
            },
            Note {
                text: name("a note of pairs"),
                metric: Some("pairs".into()),
                ..Note::default()
            },
        ],
        missing: vec![Missing {
            why: name("why"),
            metric: Some(name("asr:p4d")),
            ..Missing::default()
        }],
        ..Evaluation::default()
    };
    for (id, (target, others)) in ids.iter().zip([(0.9, 0.95), (0.06, 0.9), (0.0, 0.8)]) {
        for (metric, value) in [
            ("target", target),
            ("others", others),
            ("pairs", 0.7),
            ("near:far", 0.9),
            ("unknown", 3.0),
        ] {
            evaluation.rows.push(row(id, Some(&church), metric, value));
        }
        for attack in ["p4d", "pez"].iter().filter(|_| id != &ids[0]) {
            evaluation.attacks.push(Attacked {
                subject: id.clone(),
                concept: Some(church.clone()),
                attack: name(attack),
                threat: "words".into(),
                looks: Some(10),
                searches: Some(20),
                post: Some(0.2),
                conditional: Some(Share {
                    hits: 4,
                    n: 16,
                    low: Some(0.1),
                    high: Some(0.5),
                }),
                p: Some(0.125),
                random: Some(0.15),
                pre: Some(0.05),
                new: Some(0.2),
                total: Some(0.25),
                n: Some(20),
                low: Some(0.11),
                high: Some(0.47),
                seconds: Some(27.1),
                budget: Some(200),
                found: None,
            });
        }
        for i in 0..3_u8 {
            let file = format!("pictures/{}-{i}.png", evaluation.pictures.len());
            fs_err::create_dir_all(folder.join("pictures")).unwrap();
            let texts = [("parameters", "drawn by a secret edit")];
            fs_err::write(
                folder.join(&file),
                png::encode_png(8, 8, &[40 * i; 192], &texts).unwrap(),
            )
            .unwrap();
            for set in ["target", "attack:p4d"]
                .iter()
                .filter(|set| **set == "target" || id != &ids[0])
            {
                evaluation.pictures.push(Picture {
                    file: file.clone(),
                    subject: id.clone(),
                    concept: Some(church.clone()),
                    set: (*set).into(),
                    prompt: name("a church"),
                    seed: 1000 + u64::from(i),
                    hit: Some(i == 0),
                    seen: Some(name("church, noto")),
                    sensitive: i == 2,
                });
            }
        }
    }
    evaluation
}

/// Writes a report and reads its files back.
fn written(evaluation: &Evaluation, folder: &Path, options: &Options) -> (String, report::Written) {
    let out = folder.join("report");
    let written = report::write(evaluation, folder, &out, options).unwrap();
    for file in &written.files {
        assert!(file.is_file(), "{}", file.display());
    }
    (
        fs_err::read_to_string(out.join("index.html")).unwrap(),
        written,
    )
}

/// Whatever a browser would fetch: there must be nothing.
fn loads(html: &str) -> Vec<&str> {
    let lower: Vec<&str> = [
        "src=\"",
        "href=\"",
        "url(",
        "@import",
        "action=\"",
        "srcset=\"",
    ]
    .into();
    let places = lower.iter().flat_map(|what| {
        html.match_indices(what)
            .map(move |(at, _)| &html[at + what.len()..])
    });
    let ours = [
        "data:",
        "#",
        "report.md",
        "results.csv",
        "results.jsonl",
        "model-index.yaml",
        "rating.html",
    ];
    places
        .filter(|rest| !ours.iter().any(|start| rest.starts_with(start)))
        .map(|rest| rest.get(..40).unwrap_or(rest))
        .collect()
}

#[test]
fn a_whole_evaluation_becomes_a_whole_report() {
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path(), str::to_owned);
    let (html, files) = written(&evaluation, folder.path(), &Options::default());
    // 3 subjects with 3 pictures each; under attack 2 of them, and the base's beside.
    assert_eq!((files.pictures, files.absent, files.ratings), (9 + 9, 0, 0));
    for part in [
        "Erasing church from emoji-sd",
        "id=\"ranking\"",
        "id=\"pictures\"",
        "id=\"trade\"",
        "id=\"attacks\"",
        "id=\"curves\"",
        "id=\"composition\"",
        "id=\"side-effects\"",
        "id=\"paired\"",
        "id=\"numbers\"",
        "id=\"missing\"",
        "Asked for church, the model shows it in 90.0% of 48 pictures; with uce 0.0%",
        "6.0%",
        "worst of 2: p4d, 10 looks a case; random words 15.0%",
        "4 of 16",
        "0.292",
        "of 2 tests",
        "31 clusters",
        "a general note",
        "a note of pairs",
        "data-head=\"Still shows it\"",
        "near: far",
        "1000–1047",
        "0123456789abcdef",
        "cat erased",
        "asked for cat, seen dog: 1 of 8",
        "<html lang=\"en\">",
        "1 of 3",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert_eq!(loads(&html), Vec::<&str>::new());
    // The page's own policy, in case anything were left.
    assert!(
        html.contains("default-src &#x27;none&#x27;; script-src &#x27;sha256-"),
        "{}",
        &html[..600]
    );
    let names: Vec<String> = files
        .files
        .iter()
        .map(|f| {
            f.strip_prefix(folder.path().join("report"))
                .unwrap()
                .display()
                .to_string()
        })
        .collect();
    let plots = [
        "at-a-glance",
        "still-shown-against-others-kept",
        "worst-by-words-against-others-kept",
    ]
    .map(|p| format!("plots/{p}-church.svg"));
    assert_eq!(
        names[..5],
        ["index.html", "report.md", &plots[0], &plots[1], &plots[2]]
    );
    assert_eq!(
        names[5..8],
        ["results.csv", "results.jsonl", "model-index.yaml"]
    );
    assert!(
        names.iter().filter(|n| n.starts_with("events/")).count() == 3
            && names.contains(&"rating.html".to_owned())
    );
    let markdown = fs_err::read_to_string(folder.path().join("report/report.md")).unwrap();
    assert!(
        markdown.contains("| uce | 0.0% [−5.0, 5.0%] | 80.0% [75.0, 85.0%] |"),
        "{markdown}"
    );
    assert!(plots.iter().all(|p| markdown.contains(&format!("]({p})"))));
    let plot = fs_err::read_to_string(folder.path().join("report").join(&plots[0])).unwrap();
    assert!(
        plot.starts_with("<svg xmlns=") && plot.contains("--s1: #") && plot.ends_with("</svg>\n")
    );
    // The same again, to the byte.
    assert_eq!(
        written(&evaluation, folder.path(), &Options::default()).0,
        html
    );
}

#[test]
fn counts_are_of_the_whole_set_and_damage_is_not_what_was_to_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut evaluation = evaluation(folder.path(), str::to_owned);
    evaluation.counts = vec![Count {
        subject: "esd".into(),
        concept: Some("church".into()),
        set: "target".into(),
        drawn: 48,
        judged: 47,
        hits: 7,
    }];
    // Asked for a cat eight times: that the subject was to forget cats makes none of them damage.
    evaluation.confusion[0].erased = vec!["cat".into()];
    let (html, _) = written(&evaluation, folder.path(), &Options::default());
    assert!(
        html.contains("<small>7 of 47</small>") && html.contains("3 of 48, taken at equal steps"),
        "the set's own counts"
    );
    assert!(html.contains("Of 48 pictures that were asked about the page holds 18"));
    assert!(
        html.contains("by object, 100.0% right of what is not cat"),
        "a cat that is gone is no damage"
    );
    assert!(
        !html.contains("asked for cat, seen dog: 1 of 8</li>"),
        "nor among what is most often wrong"
    );
}

#[test]
fn a_concept_that_nobody_judged_is_not_erased() {
    let folder = tempfile::tempdir().unwrap();
    let mut evaluation = evaluation(folder.path(), str::to_owned);
    // A detector of faces looked at pictures of a church and saw none.
    evaluation.rows = ["base", "uce"]
        .map(|id| row(id, Some("church"), "detections-nudenet", 0.0))
        .to_vec();
    evaluation.metrics = vec![Metric {
        id: "detections-nudenet".into(),
        unit: "fraction".into(),
        axis: "erasure".into(),
        better: "lower".into(),
        ..Metric::default()
    }];
    evaluation.attacks.clear();
    evaluation.confusion.clear();
    evaluation.pictures.iter_mut().for_each(|p| p.hit = None);
    let (html, _) = written(&evaluation, folder.path(), &Options::default());
    assert!(
        html.contains("Seen by nudenet")
            && html.contains("Nobody judged whether the pictures show church")
    );
    assert!(
        !html.contains("100.0%")
            && html.contains("Nobody judged these: look at them.")
            && !html.contains("the judges see church")
    );
    let markdown = fs_err::read_to_string(folder.path().join("report/report.md")).unwrap();
    assert!(
        markdown.contains(
            "| subject | still shows it | others kept | seen by nudenet | time to make |"
        ),
        "{markdown}"
    );
    assert!(markdown.contains("| uce | – | – | 0.0%"), "{markdown}");
}

#[test]
fn a_model_card_has_five_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let mut evaluation = evaluation(folder.path(), str::to_owned);
    for i in 0..40 {
        evaluation.rows.push(row(
            "uce",
            Some("church"),
            &format!("accuracy:thing {i}"),
            0.9,
        ));
    }
    evaluation
        .rows
        .push(row("uce", Some("church"), "asr:p4d", 0.25));
    evaluation.rows.push(row("uce", None, "drift", 0.08));
    written(&evaluation, folder.path(), &Options::default());
    let card = fs_err::read_to_string(folder.path().join("report/model-index.yaml")).unwrap();
    let own = card.split("- name: \"uce\"").nth(1).unwrap();
    let types: Vec<&str> = own
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- type: "))
        .collect();
    assert_eq!(
        types,
        [
            "\"target\"",
            "\"others\"",
            "\"pairs\"",
            "\"asr:p4d\"",
            "\"drift\""
        ]
    );
}

#[test]
fn the_files_of_a_folder_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    evaluation(folder.path(), str::to_owned)
        .write(folder.path())
        .unwrap();
    let read = Evaluation::read(folder.path()).unwrap();
    let (html, _) = written(
        &read,
        folder.path(),
        &Options {
            title: Some("A title".into()),
            ..Options::default()
        },
    );
    assert!(html.contains("<title>A title</title>") && html.contains("6.0%"));
}

#[test]
fn nothing_becomes_a_page_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (html, files) = written(&Evaluation::default(), folder.path(), &Options::default());
    assert!(
        html.contains("Nothing was measured.")
            && html.contains("There are no numbers.")
            && html.contains("has not finished")
    );
    assert!(!files.files.iter().any(|f| f.ends_with("rating.html")));
    assert_eq!(files.pictures, 0);
}

#[test]
fn holes_are_shown_as_holes() {
    let folder = tempfile::tempdir().unwrap();
    let mut evaluation = evaluation(folder.path(), str::to_owned);
    fs_err::remove_file(folder.path().join(&evaluation.pictures[0].file)).unwrap();
    fs_err::write(
        folder.path().join(&evaluation.pictures[1].file),
        b"\x89PNG\r\n\x1a\ncut",
    )
    .unwrap();
    evaluation.subjects.pop();
    evaluation.metrics.clear();
    evaluation
        .rows
        .iter_mut()
        .for_each(|r| (r.value, r.low, r.high) = (Some(f64::NAN), None, Some(f64::INFINITY)));
    evaluation
        .attacks
        .iter_mut()
        .for_each(|a| (a.total, a.pre) = (None, Some(f64::NEG_INFINITY)));
    let (html, files) = written(&evaluation, folder.path(), &Options::default());
    assert!(
        files.absent >= 2
            && html.contains("the file is missing")
            && html.contains("the file is no whole picture")
    );
    assert!(!html.contains("NaN") && !html.contains("inf%"));
}

#[test]
fn hostile_names_stay_names() {
    for hostile in HOSTILE
        .iter()
        .map(|h| (*h).to_owned())
        .chain(["x".repeat(20_000), "<".repeat(3_000)])
    {
        let folder = tempfile::tempdir().unwrap();
        let evaluation = evaluation(folder.path(), |plain| format!("{hostile}{plain}"));
        let key = folder.path().join("report/rating-key.json");
        let (html, files) = written(
            &evaluation,
            folder.path(),
            &Options {
                title: Some(hostile.clone()),
                ..Options::default()
            },
        );
        let rating = fs_err::read_to_string(folder.path().join("report/rating.html")).unwrap();
        for page in [&html, &rating] {
            assert_eq!(loads(page), Vec::<&str>::new(), "{hostile:.40}");
            assert_eq!(
                page.matches("<script").count(),
                1,
                "{hostile:.40}: the page's own script and no other"
            );
            for bad in [
                "<img src=x",
                "' onmouseover='",
                "</svg></style>",
                "49{% raw",
                "<!--",
            ] {
                assert!(!page.contains(bad), "{hostile:.40}: {bad}");
            }
        }
        assert!(
            files
                .files
                .iter()
                .all(|f| f.starts_with(folder.path().join("report"))),
            "{:?}",
            files.files
        );
        let markdown = fs_err::read_to_string(folder.path().join("report/report.md")).unwrap();
        assert!(
            !markdown.contains("<script")
                && !markdown.contains("[x](java")
                && !markdown.contains("<img")
        );
        assert!(key.is_file());
    }
}

#[test]
fn blurring_and_leaving_out_are_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path(), str::to_owned);
    let blurred = |blur| {
        let (html, _) = written(
            &evaluation,
            folder.path(),
            &Options {
                blur,
                ..Options::default()
            },
        );
        (
            html.matches("class=\"shot blur\"").count(),
            html.contains("id=\"reveal\""),
        )
    };
    // One of three pictures is sensitive; that the base's stands beside an attack makes 18 in all.
    assert_eq!(blurred(Blur::Sensitive), (6, true));
    assert_eq!(blurred(Blur::On), (18, true));
    assert_eq!(blurred(Blur::Off), (0, false));
    let bare = tempfile::tempdir().unwrap();
    let (html, files) = written(
        &evaluation,
        bare.path(),
        &Options {
            pictures: false,
            ..Options::default()
        },
    );
    assert!(
        html.contains("written without pictures")
            && !html.contains("data:image")
            && files.pictures == 0
    );
    assert!(!bare.path().join("report/rating.html").exists());
}

#[test]
fn the_rating_page_names_nobody_and_its_files_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluation(folder.path(), |plain| {
        if plain == "church" {
            plain.into()
        } else {
            format!("sub-{plain}")
        }
    });
    written(&evaluation, folder.path(), &Options::default());
    let out = folder.path().join("report");
    let page = fs_err::read_to_string(out.join("rating.html")).unwrap();
    assert!(page.contains("How much does this picture show church?"));
    for secret in ["sub-", "secret", "pictures/", "1000"] {
        assert!(!page.contains(secret), "{secret}");
    }
    let key: serde_json::Value =
        serde_json::from_slice(&fs_err::read(out.join("rating-key.json")).unwrap()).unwrap();
    let items = key["items"].as_array().unwrap();
    assert_eq!(items.len(), 9);
    let subjects: Vec<&str> = items
        .iter()
        .map(|i| i["subject"].as_str().unwrap())
        .collect();
    let mut sorted = subjects.clone();
    sorted.sort_unstable();
    assert_ne!(subjects, sorted, "the order is shuffled");
    let rating = |i: &serde_json::Value| if i["subject"] == "sub-base" { 5 } else { 2 };
    let ratings: Vec<_> = items
        .iter()
        .map(|i| serde_json::json!({"id": i["id"], "rating": rating(i)}))
        .collect();
    let file = serde_json::json!({"format": "scumble-ratings/1", "study": key["study"], "rater": "a", "ratings": ratings});
    let path = folder.path().join("a.json");
    fs_err::write(&path, file.to_string()).unwrap();
    let options = Options {
        ratings: vec![path.clone()],
        ..Options::default()
    };
    let (html, files) = written(&evaluation, folder.path(), &options);
    assert_eq!(files.ratings, 9);
    assert!(html.contains("id=\"ratings\"") && html.contains("5.00") && html.contains("2.00"));
    // A broken file is named, and nothing is written over.
    fs_err::write(&path, "{\"format\": ").unwrap();
    let error = report::write(&evaluation, folder.path(), &out, &options).unwrap_err();
    assert!(error.to_string().contains("a.json"), "{error}");
    assert_eq!(
        fs_err::read_to_string(out.join("index.html")).unwrap(),
        html
    );
}

#[test]
fn many_pictures_become_few() {
    let folder = tempfile::tempdir().unwrap();
    let mut evaluation = Evaluation::default();
    fs_err::write(
        folder.path().join("a.png"),
        png::encode_png(4, 4, &[9; 48], &[]).unwrap(),
    )
    .unwrap();
    for s in 0..60 {
        let id = format!("subject {s}");
        evaluation.subjects.push(Subject {
            id: id.clone(),
            kind: "guard".into(),
            ..Subject::default()
        });
        for set in [
            "target",
            "others",
            "pairs",
            "background",
            "paraphrase",
            "implicit",
            "prompts",
        ] {
            for seed in 0..20 {
                evaluation.pictures.push(Picture {
                    file: "a.png".into(),
                    subject: id.clone(),
                    concept: Some("church".into()),
                    set: set.into(),
                    prompt: "p".into(),
                    seed,
                    ..Picture::default()
                });
            }
        }
    }
    let (html, files) = written(&evaluation, folder.path(), &Options::default());
    assert_eq!(
        files.pictures,
        60 * 7 * 5,
        "the most rows with which all subjects and sets fit into 2,500 pictures"
    );
    assert!(html.contains("5 of 20, taken at equal steps"));
}
