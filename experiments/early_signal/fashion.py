"""Rank correlations of each epoch's validation with the last one's, from a table of ../search_quality.

    python experiments/early_signal/fashion.py [short|long]

Its configurations were trained on Fashion-MNIST with a cosine and validated with Keras' moving averages and with
statistics computed again. Trains nothing.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from measure import table

TABLES = Path(__file__).parents[1] / "search_quality"

if __name__ == "__main__":
    with gzip.open(TABLES / f"{sys.argv[1] if len(sys.argv) > 1 else 'short'}.jsonl.gz", "rt") as file:
        rows = [row for row in map(json.loads, file) if not row["again"]]
    curves = [{"moving": row["moving"], "computed again": row["accuracy"]} for row in rows]
    print(table([{"values": row["values"], "cosine": curve} for row, curve in zip(rows, curves, strict=True)]))
