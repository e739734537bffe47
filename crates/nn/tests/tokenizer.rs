//! The tokenizer against transformers (golden/tokenizer.py), and against damaged files.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use scumble_nn::Error;
use scumble_nn::tokenizer::{Pad, Tokenizer, TokenizerData};
use serde_json::{Value, json};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/tokenizer.json")).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji-sd/tokenizer")
}

fn emoji_file(name: &str) -> Vec<u8> {
    fs_err::read(folder().join(name)).unwrap()
}

fn emoji() -> Tokenizer {
    let (json, config) = (
        emoji_file("tokenizer.json"),
        emoji_file("tokenizer_config.json"),
    );
    let data = TokenizerData {
        tokenizer_json: Some(&json),
        tokenizer_config: Some(&config),
        ..Default::default()
    };
    Tokenizer::new(&folder(), &data, 32).unwrap()
}

fn clip() -> Tokenizer {
    Tokenizer::clip(Pad::EndOfText, 77).unwrap()
}

/// CLIP's vocabulary as the two files that published folders hold.
fn clip_files() -> (Vec<u8>, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets/clip-vocabulary/bpe_simple_vocab_16e6.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs_err::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let merges: Vec<&str> = text.lines().skip(1).take(48_894).collect();
    let clip = clip();
    let vocab: serde_json::Map<String, Value> = clip
        .vocabulary()
        .map(|(id, token)| (token.into(), id.into()))
        .collect();
    (
        serde_json::to_vec(&vocab).unwrap(),
        format!("#version: 0.2\n{}\n", merges.join("\n")).into_bytes(),
    )
}

fn word(token: &str) -> Value {
    json!({"content": token, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false})
}

/// `special_tokens_map.json` of the published folders.
fn special_map(pad: &str) -> Vec<u8> {
    let (start, end) = (word("<|startoftext|>"), word("<|endoftext|>"));
    json!({"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad})
        .to_string()
        .into_bytes()
}

/// Every prompt of a case: the ids, their padding, what is lost.
#[track_caller]
fn same(tokenizer: &Tokenizer, prompts: &Value, case: &Value) {
    assert_eq!(json!(tokenizer.vocab_size()), case["vocab_size"]);
    assert_eq!(json!(tokenizer.pad_id()), case["pad"]);
    assert_eq!(json!(tokenizer.context()), case["context"]);
    let (prompts, rows) = (
        prompts.as_array().unwrap(),
        case["rows"].as_array().unwrap(),
    );
    assert_eq!(prompts.len(), rows.len());
    for (prompt, row) in prompts.iter().zip(rows) {
        let ours = tokenizer.encode(prompt.as_str().unwrap());
        assert_eq!(json!(ours.ids[..ours.length]), row["ids"], "{prompt}");
        assert_eq!(ours.ids.len(), tokenizer.context());
        assert!(
            ours.ids[ours.length..]
                .iter()
                .all(|&id| id == tokenizer.pad_id())
        );
        assert_eq!(json!(ours.lost), row["lost"], "{prompt}");
    }
}

#[test]
fn built_in_vocabulary_is_that_of_the_published_folders() {
    let golden = golden();
    same(&clip(), &golden["prompts"], &golden["sd1"]);
    same(
        &Tokenizer::clip(Pad::Zero, 77).unwrap(),
        &golden["prompts"],
        &golden["sd2"],
    );
    let clip = clip();
    assert_eq!((clip.start_id(), clip.end_id()), (49406, 49407));
    for pair in golden["decoded"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(pair[0].clone()).unwrap();
        assert_eq!(json!(clip.decode(&ids)), pair[1]);
    }
    assert_eq!(clip.decode(&[320, 1 << 30, 2368]), "a cat");
    let vocabulary: Vec<(u32, &str)> = clip.vocabulary().collect();
    assert_eq!(
        (vocabulary.len(), vocabulary[0], vocabulary[2368]),
        (49408, (0, "!"), (2368, "cat</w>"))
    );
}

#[test]
fn clip_from_files_pads_as_its_family_does() {
    let golden = golden();
    let (vocab, merges) = clip_files();
    let plain = TokenizerData {
        vocab_json: Some(&vocab),
        merges: Some(&merges),
        ..Default::default()
    };
    same(
        &Tokenizer::new(Path::new("m"), &plain, 77).unwrap(),
        &golden["prompts"],
        &golden["plain"],
    );

    // SD 2.x: tokenizer_config.json still has SD 1.x's pad token; special_tokens_map.json overrides
    // it.
    let typed = |token: &str| {
        let mut word = word(token);
        word["__type"] = "AddedToken".into();
        word
    };
    let config = json!({"bos_token": typed("<|startoftext|>"), "eos_token": typed("<|endoftext|>"), "pad_token": "<|endoftext|>",
        "unk_token": typed("<|endoftext|>"), "tokenizer_class": "CLIPTokenizer", "model_max_length": 77});
    let config = config.to_string().into_bytes();
    for (pad, case) in [("<|endoftext|>", "sd1"), ("!", "sd2")] {
        let map = special_map(pad);
        let data = TokenizerData {
            tokenizer_config: Some(&config),
            special_tokens_map: Some(&map),
            ..plain
        };
        same(
            &Tokenizer::new(Path::new("m"), &data, 77).unwrap(),
            &golden["prompts"],
            &golden[case],
        );
    }
    // An older folder with a word added, in which the special tokens are listed among the added
    // ones.
    let map = special_map("<|endoftext|>");
    let added = json!({"<cat-toy>": 49408, "<|startoftext|>": 49406, "<|endoftext|>": 49407})
        .to_string()
        .into_bytes();
    let data = TokenizerData {
        special_tokens_map: Some(&map),
        added_tokens: Some(&added),
        ..plain
    };
    same(
        &Tokenizer::new(Path::new("m"), &data, 77).unwrap(),
        &golden["added"]["prompts"],
        &golden["added"],
    );
    // A pad token may be an object, too.
    let map = json!({"pad_token": {"content": "!"}})
        .to_string()
        .into_bytes();
    let data = TokenizerData {
        special_tokens_map: Some(&map),
        ..plain
    };
    assert_eq!(
        Tokenizer::new(Path::new("m"), &data, 77).unwrap().pad_id(),
        0
    );
}

/// SDXL's first tokenizer pads with its end token, its second with id 0: as published, and as
/// transformers writes it today. transformers itself gives SD 2.x's ids for the second
/// (`case(CLIPTokenizer.from_pretrained(folder)) == golden["sd2"]` in golden/tokenizer.py).
#[test]
fn the_two_tokenizers_of_sdxl_pad_differently() {
    let golden = golden();
    let (vocab, merges) = clip_files();
    let plain = TokenizerData {
        vocab_json: Some(&vocab),
        merges: Some(&merges),
        ..Default::default()
    };
    let typed = |token: &str| {
        let mut word = word(token);
        word["__type"] = "AddedToken".into();
        word
    };
    for (pad, case) in [("<|endoftext|>", "sd1"), ("!", "sd2")] {
        let published = json!({"add_prefix_space": false, "bos_token": typed("<|startoftext|>"), "clean_up_tokenization_spaces": true,
            "do_lower_case": true, "eos_token": typed("<|endoftext|>"), "errors": "replace", "model_max_length": 77, "pad_token": pad,
            "tokenizer_class": "CLIPTokenizer", "unk_token": typed("<|endoftext|>")});
        let (config, map) = (published.to_string().into_bytes(), special_map(pad));
        let data = TokenizerData {
            tokenizer_config: Some(&config),
            special_tokens_map: Some(&map),
            ..plain
        };
        same(
            &Tokenizer::new(Path::new("tokenizer"), &data, 77).unwrap(),
            &golden["prompts"],
            &golden[case],
        );
    }
    let entry = |token: &str, normalized: bool| {
        let mut word = word(token);
        word["normalized"] = normalized.into();
        word["special"] = true.into();
        word
    };
    let today = json!({"add_prefix_space": false, "added_tokens_decoder": {"0": entry("!", false), "49406": entry("<|startoftext|>", true),
            "49407": entry("<|endoftext|>", true)}, "bos_token": "<|startoftext|>", "clean_up_tokenization_spaces": true,
        "do_lower_case": true, "eos_token": "<|endoftext|>", "errors": "replace", "model_max_length": 77, "pad_token": "!",
        "tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>"});
    let config = today.to_string().into_bytes();
    let data = TokenizerData {
        tokenizer_config: Some(&config),
        ..plain
    };
    same(
        &Tokenizer::new(Path::new("tokenizer_2"), &data, 77).unwrap(),
        &golden["prompts"],
        &golden["sd2"],
    );
}

#[test]
fn miniature_reads_the_same_from_both_kinds_of_files() {
    let golden = golden();
    same(&emoji(), &golden["prompts"], &golden["emoji"]);
    let (vocab, merges) = (emoji_file("vocab.json"), emoji_file("merges.txt"));
    // Line ends of Windows, and no config: the defaults are CLIP's.
    let merges = String::from_utf8(merges)
        .unwrap()
        .replace('\n', "\r\n")
        .into_bytes();
    let data = TokenizerData {
        vocab_json: Some(&vocab),
        merges: Some(&merges),
        ..Default::default()
    };
    same(
        &Tokenizer::new(&folder(), &data, 32).unwrap(),
        &golden["prompts"],
        &golden["emoji"],
    );
}

#[test]
fn length_counts_start_and_end_and_a_long_prompt_keeps_its_beginning() {
    let clip = clip();
    let empty = clip.encode("");
    assert_eq!((empty.length, empty.ids.len(), empty.lost), (2, 77, None));
    let exact = clip.encode(&"cat ".repeat(75));
    assert_eq!((exact.length, exact.lost), (77, None));
    let long = clip.encode(&format!("{}a Red, church", "cat ".repeat(74)));
    assert_eq!((long.length, long.ids[75], long.ids[76]), (77, 320, 49407));
    assert_eq!(long.lost.as_deref(), Some("red , church"));
    let tight = Tokenizer::clip(Pad::Zero, 3).unwrap().encode("cat dog");
    assert_eq!(
        (tight.ids, tight.lost.as_deref()),
        (vec![49406, 2368, 49407], Some("dog"))
    );
}

#[test]
fn spans_are_whole_words_by_tokens() {
    let clip = clip();
    let span = |prompt: &str, phrase: &str| clip.span(prompt, phrase).unwrap();
    assert_eq!(span("a car in a cart, Car!", "car"), [2..3, 7..8]);
    assert_eq!(
        span("a painting by Van Gogh and van  gogh's brother", "van gogh"),
        [4..6, 7..9]
    );
    assert!(span("a cat", "dog").is_empty());
    // A word of several tokens is not found in the end of a longer one, nor at its start.
    let pieces = clip.tokens("grutkowski");
    let (first, last) = (clip.decode(&pieces[..1]), clip.decode(&pieces[2..]));
    assert_eq!(
        (pieces.len(), clip.tokens(&last)),
        (3, pieces[2..].to_vec()),
        "the ending is a word by itself, too"
    );
    assert!(span("grutkowski", &first).is_empty() && span("grutkowski", &last).is_empty());
    assert_eq!(
        span(&format!("grutkowski {last}"), &last),
        std::slice::from_ref(&(4..5))
    );
    // Punctuation is a word; what is beyond the context is not there; occurrences do not overlap.
    assert_eq!(span("a-b, a-b", "a-b"), [1..4, 5..8]);
    assert_eq!(span("a a a a a", "a a"), [1..3, 3..5]);
    assert!(span(&format!("{}dog", "cat ".repeat(75)), "dog").is_empty());
    assert_eq!(
        span(&format!("{}dog", "cat ".repeat(74)), "dog"),
        std::slice::from_ref(&(75..76))
    );
    for empty in ["", "  \n"] {
        assert!(matches!(
            clip.span("a cat", empty),
            Err(Error::Input { .. })
        ));
    }
}

#[test]
fn new_words_are_those_of_diffusers() {
    let golden = golden();
    let mut with = clip();
    assert_eq!(with.add_token("<church-x>", 3).unwrap(), 49408..49411);
    assert_eq!(with.add_token("Birdish", 1).unwrap(), 49411..49412);
    let case = &golden["inversion"];
    // In one prompt we differ on purpose: diffusers expands a word in small letters only and loses
    // vectors elsewhere.
    let mut case = case.clone();
    assert_eq!(case["prompts"][1], "<church-x><church-x>, a <CHURCH-X>!");
    let row = case["rows"][1]["ids"].as_array_mut().unwrap();
    let last = row.iter().rposition(|id| *id == 49408).unwrap();
    row.splice(last + 1..last + 1, [json!(49409), json!(49410)]);
    same(&with, &case["prompts"], &case);
    assert_eq!(
        with.span("a <church-x> and <church-x>", "<church-x>")
            .unwrap(),
        [2..5, 6..9]
    );
    assert_eq!(
        with.span("un<church-x>ed church", "church").unwrap(),
        std::slice::from_ref(&(6..7))
    );

    let before = with.vocab_size();
    for taken in [
        "<church-x>",
        "<CHURCH-x>",
        "birdish",
        "cat",
        "Cat",
        "ca",
        "<|endoftext|>",
        "<church-x>_2",
    ] {
        let error = with.add_token(taken, 1).unwrap_err();
        assert!(error.to_string().contains("already"), "{taken}: {error}");
    }
    for (bad, vectors) in [
        ("", 1),
        ("a word", 1),
        ("<y>", 0),
        ("<y>", 76),
        ("<y>", usize::MAX),
    ] {
        assert!(
            matches!(with.add_token(bad, vectors), Err(Error::Input { .. })),
            "{bad} {vectors}"
        );
    }
    assert_eq!(with.vocab_size(), before);
    assert_eq!(with.add_token("<y>", 75).unwrap().len(), 75);
    assert_eq!(with.encode("<y>").length, 77);
    // The clone that shares the vocabulary has not changed.
    assert_eq!(clip().vocab_size(), 49408);
    assert_eq!(clip().decode(&with.tokens("<y>")), "");
}

#[test]
fn any_text_has_tokens() {
    let (clip, emoji) = (clip(), emoji());
    // Long runs of every class, which are one word each.
    for run in [
        "a",
        "é",
        "7",
        "?",
        " ",
        "\u{301}",
        "世",
        "🐱",
        "<|endoftext|>",
        "'s",
        "\0",
    ] {
        let text = run.repeat(20_000);
        for tokenizer in [&clip, &emoji] {
            let encoded = tokenizer.encode(&text);
            assert_eq!(encoded.ids.len(), tokenizer.context());
        }
    }
    // Every character there is, each beside letters, in pieces: what is lost of the text is white
    // space and case only.
    let all: Vec<char> = (0..=0x10_ffffu32).filter_map(char::from_u32).collect();
    for piece in all.chunks(997) {
        let text: String = piece.iter().flat_map(|c| [*c, 'a', ' ']).collect();
        let decoded = emoji.decode(&emoji.tokens(&text));
        assert_eq!(
            decoded.matches('\u{fffd}').count(),
            text.matches('\u{fffd}').count()
        );
        assert!(decoded.matches('a').count() >= piece.len());
    }
}

/// What a reader says about damaged files.
#[track_caller]
fn refused(data: &TokenizerData, file: &str, words: &str) {
    let error = Tokenizer::new(Path::new("model/tokenizer"), data, 32)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("model/tokenizer{file}: ")) && error.contains(words),
        "{error}"
    );
}

#[test]
fn damaged_vocabularies_and_merges_are_refused() {
    let (vocab, merges) = (emoji_file("vocab.json"), emoji_file("merges.txt"));
    let map: serde_json::Map<String, Value> = serde_json::from_slice(&vocab).unwrap();
    let with_vocab = |edit: &dyn Fn(&mut serde_json::Map<String, Value>), words: &str| {
        let mut map = map.clone();
        edit(&mut map);
        let vocab = serde_json::to_vec(&map).unwrap();
        refused(
            &TokenizerData {
                vocab_json: Some(&vocab),
                merges: Some(&merges),
                ..Default::default()
            },
            "/vocab.json",
            words,
        );
    };
    with_vocab(&|m| drop(m.insert("!".into(), json!(1_000_000))), "hole");
    with_vocab(&|m| drop(m.insert("new".into(), json!(5))), "same id 5");
    with_vocab(
        &|m| drop(m.insert("!".into(), json!(1u64 << 32))),
        "expected an id",
    );
    with_vocab(&|m| drop(m.insert("!".into(), json!(-1))), "expected an id");
    with_vocab(
        &|m| drop(m.insert("!".into(), json!("0"))),
        "expected an id",
    );
    with_vocab(
        &|m| drop(m.insert("!".into(), json!(0.5))),
        "expected an id",
    );
    with_vocab(&|m| m.clear(), "not a CLIP vocabulary");
    let renamed = |from: &'static str| {
        move |m: &mut serde_json::Map<String, Value>| {
            let id = m.remove(from).unwrap();
            m.insert("<renamed>".into(), id);
        }
    };
    with_vocab(
        &renamed("<|startoftext|>"),
        "start token `<|startoftext|>` is not in the vocabulary",
    );
    with_vocab(
        &renamed("<|endoftext|>"),
        "token `<|endoftext|>` is not in the vocabulary",
    );

    for (bad, words) in [
        (&b"[1]"[..], "object"),
        (b"{\"a\": ", "JSON"),
        (b"\xff", "JSON"),
        (b"{\"\xff\": 0}", "JSON"),
        (b"", "JSON"),
    ] {
        refused(
            &TokenizerData {
                vocab_json: Some(bad),
                merges: Some(&merges),
                ..Default::default()
            },
            "/vocab.json",
            words,
        );
    }
    for (bad, words) in [
        (&b"#version: 0.2\na b c\n"[..], "line 2"),
        (b"ab\n", "line 1"),
        (b"a \n", "line 1"),
        (b"a b\n\xff\xfe c\n", "not UTF-8 in line 2"),
        (
            b"s t\nzz zz\n",
            "merge 2 (`zz zz`): `zz` is not in the vocabulary",
        ),
        (b"z q\n", "`zq` is not in the vocabulary"),
    ] {
        refused(
            &TokenizerData {
                vocab_json: Some(&vocab),
                merges: Some(bad),
                ..Default::default()
            },
            "/merges.txt",
            words,
        );
    }
    refused(
        &TokenizerData {
            vocab_json: Some(&vocab),
            ..Default::default()
        },
        "",
        "expected tokenizer.json",
    );
    refused(&TokenizerData::default(), "", "expected tokenizer.json");
}

#[test]
fn another_pipeline_in_tokenizer_json_is_refused_by_name() {
    let good: Value = serde_json::from_slice(&emoji_file("tokenizer.json")).unwrap();
    let with = |edit: &dyn Fn(&mut Value), key: &str| {
        let mut file = good.clone();
        edit(&mut file);
        let file = serde_json::to_vec(&file).unwrap();
        refused(
            &TokenizerData {
                tokenizer_json: Some(&file),
                ..Default::default()
            },
            "/tokenizer.json",
            &format!("`{key}"),
        );
    };
    with(
        &|f| f["normalizer"]["normalizers"][1]["pattern"]["Regex"] = json!("(a+)+$"),
        "normalizer",
    );
    with(
        &|f| drop(f["normalizer"]["normalizers"].as_array_mut().unwrap().pop()),
        "normalizer",
    );
    with(&|f| f["normalizer"] = Value::Null, "normalizer");
    with(
        &|f| f["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(x+x+)+y"),
        "pre_tokenizer",
    );
    with(
        &|f| f["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true),
        "pre_tokenizer",
    );
    with(
        &|f| f["pre_tokenizer"] = json!({"type": "Whitespace"}),
        "pre_tokenizer",
    );
    with(
        &|f| f["post_processor"] = json!({"type": "BertProcessing"}),
        "post_processor",
    );
    with(
        &|f| f["post_processor"]["cls"][0] = json!("<s>"),
        "post_processor",
    );
    with(&|f| f["model"]["type"] = json!("WordPiece"), "model.type");
    with(
        &|f| f["model"]["end_of_word_suffix"] = Value::Null,
        "model.end_of_word_suffix",
    );
    with(
        &|f| f["model"]["continuing_subword_prefix"] = json!("##"),
        "model.continuing_subword_prefix",
    );
    with(&|f| f["model"]["dropout"] = json!(0.1), "model.dropout");
    with(
        &|f| f["model"]["byte_fallback"] = json!(true),
        "model.byte_fallback",
    );
    with(
        &|f| f["model"]["ignore_merges"] = json!(true),
        "model.ignore_merges",
    );
    with(
        &|f| f["model"]["vocab"] = json!([["a", 0.0]]),
        "model.vocab",
    );
    with(&|f| f["model"]["merges"] = json!([["a"]]), "model.merges");
    with(&|f| f["model"] = Value::Null, "model.");
    with(&|f| f["added_tokens"] = json!("x"), "added_tokens");
    with(
        &|f| f["added_tokens"][0]["content"] = Value::Null,
        "added_tokens",
    );

    // Older files: merges as lines, transformers 4's split, another post-processor.
    let mut older = good.clone();
    let lines = good["model"]["merges"].as_array().unwrap().iter();
    older["model"]["merges"] = lines
        .map(|m| format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
        .collect();
    older["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
        json!(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+");
    older["post_processor"] = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|startoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}]});
    let older = serde_json::to_vec(&older).unwrap();
    let data = TokenizerData {
        tokenizer_json: Some(&older),
        ..Default::default()
    };
    let golden = golden();
    same(
        &Tokenizer::new(&folder(), &data, 32).unwrap(),
        &golden["prompts"],
        &golden["emoji"],
    );

    // With both kinds of files there is a way out.
    let (vocab, merges) = (emoji_file("vocab.json"), emoji_file("merges.txt"));
    let data = TokenizerData {
        tokenizer_json: Some(br#"{"model": {}}"#),
        vocab_json: Some(&vocab),
        merges: Some(&merges),
        ..Default::default()
    };
    assert!(
        Tokenizer::new(&folder(), &data, 32)
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("vocab.json")
    );
}

#[test]
fn configurations_that_contradict_the_vocabulary_are_refused() {
    let (vocab, merges) = (emoji_file("vocab.json"), emoji_file("merges.txt"));
    let files = TokenizerData {
        vocab_json: Some(&vocab),
        merges: Some(&merges),
        ..Default::default()
    };
    let config = |text: Value, file: &str, words: &str| {
        let text = text.to_string().into_bytes();
        refused(
            &TokenizerData {
                tokenizer_config: Some(&text),
                ..files
            },
            file,
            words,
        );
    };
    config(json!([]), "/tokenizer_config.json", "object");
    config(
        json!({"pad_token": 7}),
        "/tokenizer_config.json",
        "pad_token",
    );
    config(
        json!({"pad_token": {"content": 7}}),
        "/tokenizer_config.json",
        "pad_token",
    );
    config(
        json!({"pad_token": "<pad>"}),
        "/vocab.json",
        "the pad token `<pad>` is not in the vocabulary",
    );
    config(
        json!({"bos_token": "<s>"}),
        "/vocab.json",
        "the start token `<s>`",
    );
    config(
        json!({"tokenizer_class": "RobertaTokenizer"}),
        "/tokenizer_config.json",
        "RobertaTokenizer",
    );
    config(
        json!({"added_tokens_decoder": {"900": {"content": "<x>"}}}),
        "/vocab.json",
        "`<x>` has id 900, expected 726",
    );
    config(
        json!({"added_tokens_decoder": {"0": {"content": "<x>"}}}),
        "/vocab.json",
        "`<x>` has id 0, expected 726",
    );
    config(
        json!({"added_tokens_decoder": {"x": {"content": "<x>"}}}),
        "/tokenizer_config.json",
        "found `x`",
    );
    config(
        json!({"added_tokens_decoder": 1}),
        "/tokenizer_config.json",
        "added_tokens_decoder",
    );
    refused(
        &TokenizerData {
            special_tokens_map: Some(b"{"),
            ..files
        },
        "/special_tokens_map.json",
        "JSON",
    );
    refused(
        &TokenizerData {
            added_tokens: Some(br#"{"<x>": "1"}"#),
            ..files
        },
        "/added_tokens.json",
        "expected an id",
    );
    refused(
        &TokenizerData {
            added_tokens: Some(br#"{"": 1}"#),
            ..files
        },
        "/added_tokens.json",
        "expected a token",
    );
    refused(
        &TokenizerData {
            added_tokens: Some(br#"{"<x>": 4294967295}"#),
            ..files
        },
        "/vocab.json",
        "expected 726",
    );

    // Words that somebody added before saving are read back, with a task or without.
    let text = json!({"pad_token": "<pad>", "added_tokens_decoder": {
        "727": {"content": "<y>", "normalized": true}, "726": {"content": "<pad>", "special": true}}});
    let text = text.to_string().into_bytes();
    let tokenizer = Tokenizer::new(
        &folder(),
        &TokenizerData {
            tokenizer_config: Some(&text),
            ..files
        },
        32,
    )
    .unwrap();
    assert_eq!((tokenizer.pad_id(), tokenizer.vocab_size()), (726, 728));
    assert_eq!(tokenizer.tokens("<Y>"), [727]);

    // Words of several vectors, as diffusers saves them; the ids need not follow each other.
    let text = json!({"added_tokens_decoder": {
        "726": {"content": "<two>", "normalized": true}, "727": {"content": "<one>", "normalized": true},
        "728": {"content": "<two>_1", "normalized": true}, "729": {"content": "<two>_3", "normalized": true}}});
    let text = text.to_string().into_bytes();
    let tokenizer = Tokenizer::new(
        &folder(),
        &TokenizerData {
            tokenizer_config: Some(&text),
            ..files
        },
        32,
    )
    .unwrap();
    assert_eq!(tokenizer.tokens("<two>"), [726, 728]);
    assert_eq!(
        tokenizer.tokens("<two> <one> <two>"),
        [726, 728, 727, 726, 728]
    );
    // Written out they are there once.
    assert_eq!(tokenizer.tokens("<two> <two>_1"), [726, 728]);
    assert_eq!(tokenizer.tokens("<two>_3"), [729]);
    let mut more = tokenizer.clone();
    assert_eq!(more.add_token("<three>", 3).unwrap(), 730..733);
    assert_eq!(more.tokens("<three> <two>"), [730, 731, 732, 726, 728]);

    for context in [0, 2, usize::MAX] {
        let error = Tokenizer::new(Path::new("m"), &files, context)
            .unwrap_err()
            .to_string();
        assert!(error.contains("context of 3"), "{error}");
        assert!(Tokenizer::clip(Pad::Zero, context).is_err());
    }
}

#[test]
fn one_tokenizer_serves_several_threads() {
    fn needs<T: Clone + Send + Sync>(_: &T) {}
    let clip = clip();
    needs(&clip);
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| clip.encode("a church")))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(all[0], all[1]);
}
