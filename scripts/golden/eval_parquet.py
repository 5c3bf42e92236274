#!/usr/bin/env python3
"""A parquet file as datasets are published: by pyarrow, compressed, with other columns, nulls and several row groups.

    pip install pyarrow
    python scripts/golden/eval_parquet.py
"""

import pathlib

import pyarrow
import pyarrow.parquet

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/eval/tests/golden/text.parquet"
TEXTS = ["The first text.", None, "Zwei: naïve 𝄞 — ok.", "", "line\nbreaks\n"] + [f"Text {i}." for i in range(20)]

table = pyarrow.table({"id": list(range(len(TEXTS))), "text": TEXTS, "score": [0.5] * len(TEXTS)})
pyarrow.parquet.write_table(table, OUT, compression="zstd", row_group_size=10)
numbers = pyarrow.table({"text": [1, 2, 3]})
pyarrow.parquet.write_table(numbers, OUT.with_name("numbers.parquet"), compression="snappy")
