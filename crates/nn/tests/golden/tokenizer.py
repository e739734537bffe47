"""Writes tokenizer.json beside it: what transformers 5.23 makes of prompts (diffusers 0.42 for new words).

    OMP_NUM_THREADS=1 python crates/nn/tests/golden/tokenizer.py        # in the root of the repository
"""

import gzip
import json
import shutil
import tempfile
import warnings
from pathlib import Path

from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTokenizer

warnings.simplefilter("ignore")
HERE = Path(__file__).parent
ROOT = HERE.parents[3]

PROMPTS = [
    "", " ", "a church in noto style", "A Photo of a CHURCH", "  two   spaces\tand\ttabs\nand\r\nlines  ",
    "don't we've they're I'll he'd I'm it's the dogs' 'tis 'S", "it\u2019s a \u201cquoted\u201d church\u2026",
    "2023 1,000,000 3.14 x86_64 4k 8K 16:9 \u00bd \u2167 \u0663", "wow!!! what?! (really) [yes] {no} <maybe> #tag @you 50% $5 a+b=c ~^|\\/`",
    "!", "!!", "hello!world! !", "art by Greg Rutkowski, trending on artstation, highly detailed, 8k, octane render",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m A\u030angstro\u0308m \u017dluti\u010dk\u00fd k\u016f\u0148",
    "\u0130stanbul I\u0307 \u1e9eSTRASSE \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03a3 \u212a \u2126 \ufb01",
    "\u4e16\u754c\u306e\u6559\u4f1a \u30c6\u30b9\u30c8 \uc548\ub155 \u0437\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f431\U0001f436 a cat \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd",
    "zero\u200bwidth\u200djoin\ufefffeff soft\u00adhyphen nbsp\u00a0here \u2003em\u3000wide \u0085 nel \u2028ls",
    "control\x00null \x1f unit \x7f del \x0b vt \x0c ff", "\ufffd \ue000 \U0010fffd \U000e0041", "e\u0301\u0302\u0303 \u0301alone \u1100\u1161\u11a8",
    "a <|endoftext|> b", "<|startoftext|>a cat<|endoftext|>", "a <|ENDOFTEXT|> b <|StartOfText|>", "<|endoftext|>!x<|endoftext|", "endoftext",
    "literal </w> and w>", "a_b__c --- -- a-b --no-flag", "https://example.com/a?b=c&d=%20", "(masterpiece:1.2), [bad:0.5] ((best))",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "a" * 300, "1" * 100, "?" * 200, "word " * 90,
    "an oil painting of a quiet street, " * 12, "\u6559" * 60, "\U0001f431" * 50, " ".join(f"w{i}" for i in range(60)),
    "a church " * 37 + "a", "x" * 74 + " " + "y z " * 80, "gas pump golf flag tweMoji emojione fluent ink blob", "cat,dog;bird:fish.owl", "\t\n",
]

ADDED = ["a <cat-toy> and <CAT-TOY>s", "a <|endoftext|> <|ENDOFTEXT|> <|startoftext|> <|STARTOFTEXT|>"]

DECODED = [[320, 2368], [49406, 518, 267, 49407, 0], [95], [0, 256], [320, 320, 49407, 320]]

SPECIAL = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
START, END = {"content": "<|startoftext|>", **SPECIAL}, {"content": "<|endoftext|>", **SPECIAL}


def clip_files(folder):
    lines = gzip.open(ROOT / "assets/clip-vocabulary/bpe_simple_vocab_16e6.txt.gz").read().decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in order]
    letters = [chr(b) for b in order] + [chr(256 + i) for i in range(len(rest))]
    words = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    return folder


def special_files(folder, pad):
    """As published: SD 2.x names its pad token in special_tokens_map.json only."""
    config = {"bos_token": {"__type": "AddedToken", **START}, "eos_token": {"__type": "AddedToken", **END}, "model_max_length": 77,
              "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer", "unk_token": {"__type": "AddedToken", **END}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}))
    return folder


def encode(tokenizer, prompts):
    """ids without pads, and what diffusers reports as cut off."""
    rows = []
    for prompt in prompts:
        n = tokenizer.model_max_length
        out = tokenizer(prompt, padding="max_length", max_length=n, truncation=True)
        ids, length = out.input_ids, sum(out.attention_mask)
        assert len(ids) == n and all(i == tokenizer.pad_token_id for i in ids[length:])
        whole = tokenizer(prompt, padding=False, truncation=False).input_ids
        rows.append({"ids": ids[:length], "lost": tokenizer.decode(whole[n - 1 : -1]) if len(whole) > n else None})
    return rows


def case(tokenizer, prompts=PROMPTS):
    return {"vocab_size": len(tokenizer), "pad": tokenizer.pad_token_id, "context": tokenizer.model_max_length, "rows": encode(tokenizer, prompts)}


with tempfile.TemporaryDirectory() as temp:
    temp = Path(temp)
    plain = clip_files(temp / "plain")
    sd1 = special_files(clip_files(temp / "sd1"), "<|endoftext|>")
    sd2 = special_files(clip_files(temp / "sd2"), "!")
    emoji = temp / "emoji"
    shutil.copytree(ROOT / "models/emoji-sd/tokenizer", emoji)
    (emoji / "tokenizer.json").unlink()

    tokenizer = CLIPTokenizer.from_pretrained(sd1)
    golden = {"prompts": PROMPTS, "sd1": case(tokenizer), "sd2": case(CLIPTokenizer.from_pretrained(sd2))}
    golden["decoded"] = [[ids, tokenizer.decode(ids)] for ids in DECODED]
    files = CLIPTokenizer(vocab=str(plain / "vocab.json"), merges=str(plain / "merges.txt"), model_max_length=77)
    golden["plain"] = case(files)
    golden["emoji"] = case(CLIPTokenizer.from_pretrained(emoji))
    assert golden["emoji"] == case(CLIPTokenizer.from_pretrained(ROOT / "models/emoji-sd/tokenizer"))

    # An older folder, saved after a word was added.
    old = special_files(clip_files(temp / "old"), "<|endoftext|>")
    (old / "added_tokens.json").write_text(json.dumps({"<cat-toy>": 49408, "<|startoftext|>": 49406, "<|endoftext|>": 49407}))
    golden["added"] = case(CLIPTokenizer.from_pretrained(old), ADDED)
    golden["added"]["prompts"] = ADDED

    # Textual inversion: a word of three vectors and one of one, as diffusers' load_textual_inversion adds them.
    tokenizer.add_tokens(["<church-x>", "<church-x>_1", "<church-x>_2"])
    tokenizer.add_tokens(["Birdish"])
    words = ["a photo of <church-x> in snow", "<church-x><church-x>, a <CHURCH-X>!", "a birdish and BIRDISH birdishness", "x <church-x>_1 y",
             "un<church-x>ed \u00e9" + " a" * 70]
    mixin = TextualInversionLoaderMixin()
    golden["inversion"] = {"prompts": words, **case(tokenizer, [mixin.maybe_convert_prompt(w, tokenizer) for w in words])}
    text = json.dumps(golden, separators=(",", ":"))
    (HERE / "tokenizer.json").write_text(text)
    print(len(text), "bytes,", len(PROMPTS), "prompts")
