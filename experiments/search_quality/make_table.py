"""Make the table of learning curves: 405 configurations drawn uniformly, and 20 of them again with other seeds.

    CNNSWEEP_DATA_DIR=DIR python experiments/search_quality/make_table.py FOLDER

DIR holds fashion-mnist/. FOLDER keeps the two sweeps; the command goes on with what an earlier one left there.
About 30 minutes on two idle cores. Writes curves.csv.gz beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from problem import SETTINGS  # noqa: E402

import cnnsweep  # noqa: E402
from cnnsweep.journal import journal  # noqa: E402
from cnnsweep.journal.events import SweepStopped  # noqa: E402
from cnnsweep.search.oracle import Oracle  # noqa: E402

TRIALS, AGAIN = 405, 20
TABLE = HERE / "curves.csv.gz"
LISTED = "CNNSWEEP_TABLE_LISTED"


class ListedOracle(Oracle):
    """Proposes the configurations of a JSON file in their order."""

    def draw(self) -> dict[str, Any] | None:
        listed = json.loads(Path(os.environ[LISTED]).read_text())
        number = len(self.proposals)
        return listed[number] if number < len(listed) else None


def sweep(folder: Path, name: str, *overrides: str) -> pd.DataFrame:
    """Run a sweep in a folder of its own, or go on with it; returns its rows."""
    store = f"tracking.dir={folder / name}"
    begun = list((folder / name / "sweeps").glob("*/journal.jsonl"))
    if not begun:
        quiet = ("tracking.gallery=0", "tracking.report=false", "executor=cpu", "executor.workers=2")
        arguments = [*SETTINGS, *quiet, f"name={name}", *overrides, store]
    elif not any(isinstance(event, SweepStopped) for event in journal.read(begun[0])):
        arguments = ["resume", begun[0].parent.name, store]
    else:
        arguments = []
    if arguments:
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        environment = {**os.environ, "PYTHONPATH": paths, LISTED: str(folder / "again.json")}
        subprocess.run([sys.executable, "-m", "cnnsweep", *arguments], check=True, env=environment)
    return rows(name, store)


def rows(name: str, store: str) -> pd.DataFrame:
    """One row a completed trial: searched values, costs, validation accuracy and seconds of every epoch."""
    trials = cnnsweep.trials(name, store)
    trials = trials[trials.status == "completed"].set_index("trial")
    keys = [c for c in trials.columns if c.startswith(("model.", "training."))]
    found = trials[[*keys, "parameters", "mmacs"]]
    curves = cnnsweep.curves(name, store)
    for metric, short in (("val_accuracy", "accuracy"), ("epoch_seconds", "seconds")):
        wide = curves.pivot(index="trial", columns="epoch", values=metric).round(4)
        found = found.join(wide.rename(columns=lambda epoch, short=short: f"{short}.{epoch}"))
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first = sweep(folder, "curves", "search=random", f"budget.trials={TRIALS}")
    last = [c for c in first.columns if c.startswith("accuracy.")][-1]
    ranked = first.sort_values(last, ascending=False)
    chosen = ranked.iloc[np.linspace(0, len(ranked) // 2, AGAIN).astype(int)]
    values = [{k: v for k, v in row.items() if "." in k and pd.notna(v)} for row in _settings(chosen)]
    (folder / "again.json").write_text(json.dumps(values, default=lambda v: v.item()))
    target = "search._target_=make_table.ListedOracle"
    second = sweep(folder, "again", "search=random", target, "seed=1", f"budget.trials={AGAIN}")
    first["again"], second["again"] = 0, chosen.index[second.index - 1]
    table = pd.concat([first, second]).reset_index(drop=True)
    table.to_csv(TABLE, index=False, compression={"method": "gzip", "mtime": 0})
    print(f"{len(first)} configurations, {len(second)} of them twice: {TABLE} ({TABLE.stat().st_size / 1e3:.0f} kB)")


def _settings(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    keys = [c for c in chosen.columns if c.startswith(("model.", "training."))]
    return [dict(zip(keys, row, strict=True)) for row in chosen[keys].astype(object).itertuples(index=False)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
