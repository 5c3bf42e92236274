"""Small tokenizers of every kind the engine builds, trained on the repository's own text, and a torture test.

Every kind exists twice: as a `tokenizer.json` that transformers loads, and as the GGUF metadata that the engine
builds the same tokenizer from.
"""

import io
import json
import tempfile
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

REPOSITORY = Path(__file__).resolve().parents[2]
SPLIT = {
    # As published in the tokenizer.json of Llama 3 and Qwen2.
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # As published in those of Qwen3.5, Mistral Nemo and GPT-4o; one after the other in those of DeepSeek.
    "qwen35": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek-llm": [
        r"[\r\n]",
        "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+",
        "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
        r"\s+$",
        "[一-龥ࠀ-一가-퟿]+",
    ],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"],
}
SPECIAL = {
    "gpt-2": ["<|endoftext|>"],
    "smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama-bpe": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "qwen35": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "tekken": ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
    "gpt-4o": ["<|endoftext|>", "<|im_end|>"],
    "deepseek-llm": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"],
    "deepseek-coder": ["<｜begin▁of▁sentence｜>", "<|EOT|>"],
}
# Begin and end of text, where the model has them.
BEGIN_END = {
    "gpt-2": ("<|endoftext|>", "<|endoftext|>"),
    "smollm": ("<|im_start|>", "<|im_end|>"),
    "llama-bpe": ("<|begin_of_text|>", "<|end_of_text|>"),
    "qwen2": (None, "<|im_end|>"),
    "llama": ("<s>", "</s>"),
    "qwen35": (None, "<|im_end|>"),
    "tekken": ("<s>", "</s>"),
    "gpt-4o": ("<|endoftext|>", "<|endoftext|>"),
    "deepseek-llm": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek-coder": ("<｜begin▁of▁sentence｜>", "<|EOT|>"),
    "t5": (None, "</s>"),
    "unigram": ("<s>", "</s>"),
}

TORTURE = [
    "",
    " ",
    "Hello",
    " Hello",
    "  Hello  world  ",
    "Hello, world! It's 3 o'clock; we'LL see WE'VE DON'T.",
    "tabs\tand\nnew\r\nlines\n\n\n  indented\n\t\tmore\n ",
    "    four spaces\n        eight\n",
    "def f(x: int) -> str:\n    return f\"{x!r:>10}\"  # comment\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
    "<html lang=\"en\"><body class='a-b'>&amp; 5 < 6</body></html>",
    "0 1 12 123 1234 12345 3.14159 -7e-10 0xDEADBEEF 1,000,000 ½ Ⅷ ٣٤ 五",
    "déjà vu, naïve café, Ærøskøbing, Straße, ﬁne",
    "e\u0301 versus \u00e9; A\u030a versus \u00c5; \ud55c versus \u1112\u1161\u11ab",
    "Здравствуй, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم",
    "你好，世界！ こんにちは 世界 안녕하세요 สวัสดีชาวโลก नमस्ते",
    "emoji 🙂🙃 👩‍👩‍👧‍👦 🇳🇴🇯🇵 👍🏽 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "zero\u200bwidth\u200djoin\ufeffbom soft\u00adhyphen nb\u00a0space em\u2003space ideographic\u3000space",
    "control \x00 \x01 \x07 \x1b[31m \x7f \x85 \u2028 \u2029 end",
    "rare: \U00010348 \U0001d400 \U000e0041 \ufffd \uffff \U0010ffff",
    "…—–‘’“”«»„‟•·°§¶†‡€£¥",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!!!???...---___***###@@@$$$%%%^^^&&&(((((())))))",
    "\n",
    "\n\n",
    " \n \n ",
    "a\u0300\u0301\u0302\u0303\u0304 zalgo",
    "▁under▁score▁ and <0x41> as text",
    "Special <|endoftext|> inside <|im_start|>user\nhi<|im_end|> text <|eot_id|><|begin_of_text|>x",
    "Special <s> inside </s> text <unk>y <s>",
    "<|endoftext|><|endoftext|> <|im_end|>\n<|im_end|>",
    "almost <|endoftext| > <|im_start <|im_end||>",
    "https://example.org/a/b?c=d&e=f#g user@example.org C:\\path\\file.txt",
    "SELECT * FROM t WHERE a <> 'b' -- comment;",
    "She was then in her twenty-seventh year; and Sir Walter's vanity was not less than it had been.",
]


def corpus():
    text = (REPOSITORY / "data/persuasion.txt").read_text("utf-8")[:120_000]
    text += (REPOSITORY / "data/jargon.txt").read_text("utf-8")[:60_000]
    return text.splitlines(keepends=True) + [line + "\n" for line in TORTURE for _ in range(3)]


def byte_level(kind, size, across=None):
    """A byte-level BPE tokenizer with the splits of `kind`.

    Where `across` is given, it is trained on these lines without any split: its merges go across the ends of words, so that
    a word which ends elsewhere has other tokens.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind in ("llama-bpe", "tekken")))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind in SPLIT:
        patterns = [SPLIT[kind]] if isinstance(SPLIT[kind], str) else SPLIT[kind]
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        if kind.startswith("deepseek"):
            steps.append(pre_tokenizers.Digits(individual_digits=True))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif kind == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    else:
        tokenizer.pre_tokenizer = words
    if kind in ("qwen2", "qwen35"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL[kind],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    splits = tokenizer.pre_tokenizer
    if across:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.train_from_iterator(across or corpus(), trainer)
    tokenizer.pre_tokenizer = splits
    if kind in ("llama-bpe", "tekken", "deepseek-llm", "deepseek-coder"):
        add_begin(tokenizer, BEGIN_END[kind][0])
    return tokenizer


def add_begin(tokenizer, begin):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )


def add_end(tokenizer, end):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )


def sentence_piece(size):
    """A SentencePiece BPE model with byte fallback: the tokenizer as Llama 2 and Mistral bring it, tokens, scores, types."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.rstrip("\n") for line in corpus() if "\0" not in line),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        character_coverage=0.999,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    tokens = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    scores = [processor.get_score(i) for i in range(len(tokens))]
    # Types of GGUF: normal, unknown, control, byte.
    types = [
        2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1
        for i in range(len(tokens))
    ]
    from transformers.convert_slow_tokenizer import generate_merges

    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocabulary, dict(zip(tokens, scores)))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    # A space before every piece of text, also one that begins with a space.
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    add_begin(tokenizer, "<s>")
    return tokenizer, processor, tokens, scores, types


# Characters that the unigram tokenizers replace before anything else; in T5 and XLM-R these are some thousands.
CHARSMAP = {
    "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u2003": " ", "\u3000": " ", "\u200b": " ", "\u00ad": "", "\x07": "",
    "\ufb01": "fi", "\u2026": "...", "\u00bd": "1\u20442", "\u2167": "VIII", "\uff0c": ",", "\uff01": "!",
    "e\u0301": "\u00e9", "A\u030a": "\u00c5",
}


def sentence_piece_unigram(size, collapse):
    """A SentencePiece unigram model: the tokenizer as transformers has it, and what GGUF holds of it.

    With `collapse` it is one like T5's, which replaces characters and makes one space of several; without, one with
    byte fallback that takes text as it is.
    """
    model = io.BytesIO()
    rules = tempfile.NamedTemporaryFile("w", suffix=".tsv")
    rules.writelines(
        " ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new) + "\n" for old, new in CHARSMAP.items()
    )
    rules.flush()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line.rstrip("\n") for line in corpus() if "\0" not in line),
        model_writer=model,
        model_type="unigram",
        vocab_size=size,
        byte_fallback=not collapse,
        character_coverage=0.995,
        remove_extra_whitespaces=collapse,
        allow_whitespace_only_pieces=not collapse,
        split_digits=True,
        pad_id=0 if collapse else -1,
        eos_id=1 if collapse else 2,
        unk_id=2 if collapse else 0,
        bos_id=-1 if collapse else 1,
        num_threads=1,
        minloglevel=2,
        **({"normalization_rule_tsv": rules.name} if collapse else {"normalization_rule_name": "identity"}),
    )
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    tokens = [piece.piece for piece in proto.pieces]
    # Types of GGUF are those of SentencePiece.
    types = [piece.type for piece in proto.pieces]
    scores = [piece.score for piece in proto.pieces]
    unknown = proto.trainer_spec.unk_id
    charsmap = proto.normalizer_spec.precompiled_charsmap
    tokenizer = Tokenizer(models.Unigram(list(zip(tokens, scores)), unknown, byte_fallback=not collapse))
    if collapse:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
        spaces = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Metaspace(prepend_scheme="first", split=False), decoders.ByteFallback(), decoders.Fuse()]
        )
    special = [token for token, kind in zip(tokens, types) if kind in (2, 3)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    if collapse:
        add_end(tokenizer, "</s>")
    else:
        add_begin(tokenizer, "<s>")
    metadata = {"tokens": tokens, "scores": scores, "types": types, "unknown": unknown, "charsmap": charsmap, "collapse": collapse}
    return tokenizer, metadata


def merges_of(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [m if isinstance(m, str) else " ".join(m) for m in merges]


def tokens_of(tokenizer):
    return [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]


def save(tokenizer, kind, folder, template=None):
    """What transformers needs beside the model."""
    (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n", "utf-8")
    begin, end = BEGIN_END[kind]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
    }
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def expectations(folder, texts=TORTURE):
    """Ids that transformers gives for the torture texts, without and with the tokens it adds by itself."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    cases = []
    for text in texts:
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        cases.append({"text": text, "ids": plain, "prompt": tokenizer(text)["input_ids"]})
    return cases
