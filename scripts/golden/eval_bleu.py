#!/usr/bin/env python3
"""Golden BLEU scores and 13a tokens, by sacrebleu itself.

    pip install sacrebleu==2.6.0
    python scripts/golden/eval_bleu.py > crates/eval/tests/golden/bleu.json
"""

import json
import random

import sacrebleu
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "The quick brown fox jumped over a lazy dog, twice!",
    "It cost $3,500.75 (about 1,000-2,000 euros); she said: \"no\".",
    "It's 5 o'clock -- or 17:00 -- in the evening...",
    "e-mail me at a.b@example.org/path?x=1&amp;y=2 &lt;now&gt;",
    "Hyphen-\nated line\nbreaks and <skipped> tags, 3-4 and a-b.",
    "Unicode: déjà vu, naïve café — “quoted” … 東京。 5٫3 ½, 日.本",
    ".,.,..,,  ,.a.,1.,2,.3",
    "   leading and trailing spaces   ",
    "\x1cfile separator\x1f and\u00a0no-break\u2003em space\t tab",
    "[brackets] {braces} ~tilde` ^caret_underscore \\ | % & * + = < > @ #",
    "word",
    "",
    "1.5 2,5 .5 5. a.5 5.a -5 5- 5-5 a-5",
    "Anne Elliot had been a very pretty girl, but her bloom had vanished early.",
    "Anne Elliot was a very pretty girl, but her bloom vanished very early on.",
]


def bleu(result):
    return {
        "score": result.score,
        "precisions": result.precisions,
        "bp": result.bp,
        "sys_len": result.sys_len,
        "ref_len": result.ref_len,
    }


def main():
    rng = random.Random(20240)
    tokenize = Tokenizer13a()
    pairs = [(SENTENCES[i], [SENTENCES[j]]) for i in range(16) for j in (i, (i + 1) % 16, (i + 5) % 16)]
    pairs += [(SENTENCES[1], [SENTENCES[0], SENTENCES[14]]), (SENTENCES[15], [SENTENCES[14], SENTENCES[0]])]
    words = " ".join(SENTENCES).split()
    for _ in range(40):
        reference = rng.choices(words, k=rng.randint(1, 30))
        hypothesis = [w if rng.random() < 0.8 else rng.choice(words) for w in reference]
        hypothesis = hypothesis[: rng.randint(1, len(hypothesis))]
        pairs.append((" ".join(hypothesis), [" ".join(reference)]))
    corpora = []
    for _ in range(6):
        sample = rng.sample([p for p in pairs if len(p[1]) == 1], 12)
        hypotheses, references = [p[0] for p in sample], [p[1] for p in sample]
        second = [rng.choice(SENTENCES) for _ in sample]
        corpora.append((hypotheses, references))
        corpora.append((hypotheses, [r + [s] for r, s in zip(references, second)]))
    golden = {
        "sacrebleu": sacrebleu.__version__,
        "tokens": [[s, tokenize(s.rstrip()).split()] for s in SENTENCES],
        "sentences": [
            {"hypothesis": h, "references": r, **bleu(sacrebleu.sentence_bleu(h, r))} for h, r in pairs
        ],
        "corpora": [
            {"hypotheses": h, "references": r, **bleu(sacrebleu.corpus_bleu(h, [list(s) for s in zip(*r)]))}
            for h, r in corpora
        ],
    }
    print(json.dumps(golden, ensure_ascii=True, indent=1))


if __name__ == "__main__":
    main()
