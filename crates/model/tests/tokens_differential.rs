//! Tokenizers against the crate `tokenizers` on texts of every kind: what is built from GGUF metadata, what is read from the
//! folder, and the folder's `tokenizer.json` in the hands of the crate agree on every token.

mod common;

use common::*;
use proptest::prelude::*;
use sketchkv_model::{ModelFile, TextStream, Tokenizer};
use std::sync::LazyLock;
use std::time::Instant;

struct Pair {
    name: &'static str,
    gguf: Tokenizer,
    folder: Tokenizer,
    reference: tokenizers::Tokenizer,
    /// The reference that takes special tokens for text.
    literal: tokenizers::Tokenizer,
}

static PAIRS: LazyLock<Vec<Pair>> =
    LazyLock::new(|| TOKENIZERS.into_iter().chain(["qwen3"]).map(pair).collect());

fn pair(name: &'static str) -> Pair {
    let reference = || tokenizers::Tokenizer::from_file(golden(name).join("tokenizer.json")).unwrap();
    let mut literal = reference();
    literal.set_encode_special_tokens(true);
    let gguf = tokenizer(&golden(&format!("{name}.gguf")));
    Pair { name, gguf, folder: tokenizer(&golden(name)), reference: reference(), literal }
}

/// Special tokens of all of them, and what only looks like one.
const SPECIAL: [&str; 22] = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|EOT|>",
    "[INST]",
    "[/INST]",
    "<｜begin▁of▁sentence｜>",
    "<|im_start",
    "<| im_end |>",
    "|>",
    "<<s>",
    "<0x41>",
    "<0x0a>",
    "▁",
    "▁▁",
];
const CONTRACTIONS: [&str; 18] = [
    "'s", "'S", "'t", "'T", "'re", "'RE", "'ve", "'Ve", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "’s",
    "'ſ", "'x",
];
const LINE_ENDS: [&str; 10] =
    ["\n", "\r\n", "\r", "\n\n", "\n\r", " \n", "\u{b}", "\u{c}", "\u{85}", "\u{2028}"];
const EMOJI: [&str; 12] = ["🙂", "👩‍👩‍👧‍👦", "🇳🇴", "🇳", "👍🏽", "🏽", "❤️", "❤", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "☺︎", "🤷🏿‍♀️"];

fn text() -> impl Strategy<Value = String> {
    let scripts = [
        "\\p{Greek}{1,6}",
        "\\p{Cyrillic}{1,6}",
        "\\p{Han}{1,5}",
        "[\\p{Hiragana}\\p{Katakana}]{1,5}",
        "\\p{Hangul}{1,4}",
        "\\p{Arabic}{1,5}",
        "\\p{Hebrew}{1,5}",
        "\\p{Devanagari}{1,6}",
        "\\p{Thai}{1,6}",
        "[\\p{Lt}\\p{Lm}\\p{Lo}]{1,3}",
        "\\p{L}{1,4}",
    ];
    let shapes = [
        "[a-z]{1,9}",
        " ?[A-Z]{0,4}[a-z]{0,5}[A-Z]{0,3}",
        "[a-zA-ZéÉßöÖ]{1,7}",
        "[0-9]{1,9}",
        "[0-9]{1,3}[.,][0-9]{1,4}",
        "\\p{Nd}{1,4}",
        "[\\p{Nl}\\p{No}]{1,3}",
        " {1,9}",
        "[ \t\u{a0}\u{2003}\u{3000}\u{200b}]{1,5}",
        "[\r\n \t]{1,6}",
        "[a-zA-Z\\p{L} .]\\p{M}{1,3}",
        "\\p{M}{1,2}",
        "\\p{P}{1,4}",
        "\\p{S}{1,3}",
        "[-+*/=<>(){}\\[\\]_|\\\\.,:;!?#$%&@^~`'\"\n]{1,6}",
        "\\p{C}{1,2}",
    ];
    let regexes = scripts.into_iter().chain(shapes);
    let regexes = regexes.map(|regex| prop::string::string_regex(regex).unwrap().boxed());
    let lists = [&SPECIAL[..], &CONTRACTIONS, &LINE_ENDS, &EMOJI];
    let lists = lists.map(|list| prop::sample::select(list).prop_map(str::to_owned).boxed());
    let character = any::<char>().prop_map(String::from).boxed();
    let invalid = prop::collection::vec(any::<u8>(), 1..6);
    let invalid = invalid.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).boxed();
    // A list counts for several of the shapes.
    let weighted = regexes.map(|s| (1, s)).chain(lists.map(|s| (4, s))).chain([(2, character), (2, invalid)]);
    let piece = prop::strategy::Union::new_weighted(weighted.collect());
    // U+FDD0 is the mark that `shield` sets.
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat().replace('\u{fdd0}', ""))
}

fn ids(reference: &tokenizers::Tokenizer, text: &str, add_special: bool) -> Vec<u32> {
    reference.encode(text, add_special).unwrap().get_ids().to_vec()
}

proptest! {
    #[test]
    fn every_text_has_the_tokens_of_the_reference(text in text()) {
        for Pair { name, gguf, folder, reference, .. } in PAIRS.iter() {
            let (plain, prompt) = (ids(reference, &text, false), ids(reference, &text, true));
            for (tokenizer, kind) in [(gguf, "GGUF"), (folder, "folder")] {
                prop_assert_eq!(&tokenizer.encode(&text).unwrap(), &plain, "{} as {}", name, kind);
                prop_assert_eq!(&tokenizer.encode_prompt(&text).unwrap(), &prompt, "{} as {}", name, kind);
                let (decoded, wanted) = (tokenizer.decode(&plain), reference.decode(&plain, false).unwrap());
                // The reference takes every space off a first token that begins with some; here it is one, the one put there.
                let (found, wanted) = match tokenizer.id("▁") {
                    Some(_) => (decoded.trim_start_matches(' '), wanted.trim_start_matches(' ')),
                    None => (&*decoded, &*wanted),
                };
                prop_assert_eq!(found, wanted, "{} as {}", name, kind);
            }
        }
    }

    /// What a stranger writes holds no special token, and is otherwise what the reference makes of plain text.
    #[test]
    fn special_tokens_in_the_text_of_a_stranger_are_text(text in text()) {
        for Pair { name, gguf, folder, literal, .. } in PAIRS.iter() {
            let wanted = ids(literal, &text, false);
            for (tokenizer, kind) in [(gguf, "GGUF"), (folder, "folder")] {
                let control = |id: &u32| tokenizer.is_special(*id) && tokenizer.token(*id).unwrap() != "<unk>";
                let found = tokenizer.encode_literal(&text).unwrap();
                prop_assert!(!found.iter().any(control), "{} as {}: {:?}", name, kind, found);
                // The reference's unigram models make special tokens of text.
                if !wanted.iter().any(control) && !text.contains("<unk>") {
                    prop_assert_eq!(&found, &wanted, "{} as {}", name, kind);
                }
                let shielded = tokenizer.encode(&tokenizer.shield(&text)).unwrap();
                prop_assert_eq!(&shielded, &found, "{} as {}", name, kind);
            }
        }
    }

    #[test]
    fn a_stream_shows_what_the_whole_decodes_to(text in text(), any in prop::collection::vec(0..300u32, 0..40)) {
        for Pair { name, gguf, folder, .. } in PAIRS.iter() {
            for ids in [gguf.encode(&text).unwrap(), any.clone()] {
                let whole = gguf.decode(&ids);
                prop_assert_eq!(&folder.decode(&ids), &whole, "{}", name);
                let (mut stream, mut shown) = (TextStream::default(), String::new());
                for id in &ids {
                    stream.push(gguf.token_bytes(*id), &mut shown);
                    // What is shown stays: it is how the whole begins.
                    prop_assert!(begins(&whole, &shown), "{}: {:?} of {:?}", name, shown, whole);
                }
                stream.finish(&mut shown);
                prop_assert!(shown == whole || shown.strip_prefix(' ') == Some(&whole), "{}: {:?}", name, shown);
            }
        }
    }
}

/// Whether `shown` is a beginning of `whole`, which may have lost the space before the first word.
fn begins(whole: &str, shown: &str) -> bool {
    whole.starts_with(shown) || shown.strip_prefix(' ').is_some_and(|shown| whole.starts_with(shown))
}

/// Sixteen times the text takes sixteen times as long, or up to forty times where it leaves a processor's caches; a quadratic
/// step somewhere would take 256 times.
#[test]
fn long_runs_take_time_in_proportion_to_their_length() {
    let time = |tokenizer: &Tokenizer, run: &str, bytes: usize| {
        let text = format!("{}x", run.repeat(bytes / run.len()));
        let start = Instant::now();
        tokenizer.encode(&text).unwrap();
        start.elapsed()
    };
    let names = ["gpt2", "llama3", "llama", "qwen2"];
    let more = ["smollm", "tekken", "deepseek-llm", "t5", "unigram"];
    // Of every way to normalize, split and merge, one.
    let wanted = |name: &str| match name.strip_prefix("tokenizers/") {
        Some(name) => more.contains(&name),
        None => names.contains(&name),
    };
    let pairs = PAIRS.iter().filter(|pair| wanted(pair.name));
    for (Pair { name, gguf, .. }, run) in pairs.flat_map(|pair| ["a", " ", "\n", "7"].map(|run| (pair, run)))
    {
        let mut measured = vec![];
        let proportional = (0..5).any(|_| {
            let (short, long) = (time(gguf, run, 1 << 16), time(gguf, run, 1 << 20));
            measured.push((short, long));
            long < 80 * short
        });
        assert!(proportional, "{name} {run:?}: {measured:?} for 64 KiB and 1 MiB");
    }
}

/// A damaged table of characters is refused or used, and nothing panics over it.
#[test]
fn a_damaged_charsmap_is_no_panic() {
    let key = b"tokenizer.ggml.precompiled_charsmap";
    let bytes = std::fs::read(golden("tokenizers/t5.gguf")).unwrap();
    // Behind the key are two types and the length of the array.
    let start = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 16;
    let length = u64::from_le_bytes(bytes[start - 8..start].try_into().unwrap()) as usize;
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    let open = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        change(&mut bytes[start..start + length]);
        std::fs::write(file.path(), bytes).unwrap();
        ModelFile::open(file.path()).and_then(|file| file.tokenizer())
    };
    let characters = (1..0x250).chain(0x2000..0x2200).chain(0x3000..0x3010).chain(0xfb00..0xff20);
    let text: String = characters.filter_map(char::from_u32).collect();
    let mut used = 0;
    for at in 0..length {
        match open(&|map| map[at] ^= [0xff, 0x80, 0x01, 0x10][at / 4 % 4]) {
            Ok(tokenizer) => {
                used += 1;
                tokenizer.encode(&text).unwrap();
            }
            Err(error) => {
                assert!(error.to_string().contains("`tokenizer.ggml.precompiled_charsmap`"), "{error}")
            }
        }
    }
    assert!((1..length).contains(&used), "{used} of {length}");
}
