"""How well does the surrogate predict configurations that it has not seen? And how well the model of `search=auto`?

python experiments/search_quality/check.py        about three minutes
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from problem import problem  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402
from surrogate import Surrogate, Table, held_out, read_table  # noqa: E402

from cnnsweep.search.curve_model import Ensemble, encode  # noqa: E402
from cnnsweep.search.prior import expected_error  # noqa: E402

PARTS = 24


def rank_correlation(table: Table, known: int) -> float:
    """Of what `search=auto` predicts from so many configurations with what the others came to, over random parts."""
    x = np.array([encode(problem(), values) for values in table.values])
    y, found = np.log(1 - table.accuracy[:, -1]), []
    for seed in range(PARTS):
        rng = np.random.default_rng(seed)
        seen, unseen = np.split(rng.permutation(len(y)), [known])
        model = Ensemble(x[seen], y[seen], np.zeros(known), rng)
        found.append(spearmanr(model.predict(x[unseen])[0], y[unseen])[0])
    return float(np.mean(found))


def main() -> None:
    table = read_table()
    fitted = Surrogate(table)
    print(f"{len(table.values)} configurations, {len(table.noise)} pairs")
    for name, value in held_out(table).items():
        print(f"{name:28} {value:.2f}")
    halves = np.array_split(np.argsort(-table.level), 2)
    for pairs, name in zip(halves, ("better", "weaker"), strict=True):
        noise = 100 * table.noise[pairs].std(axis=0)
        print(f"{f'noise of a seed, {name} half':28} {' '.join(f'{n:.0f}' for n in noise)} % of the error")
    for kind, name in ((False, "plain"), (True, "normalised")):
        alike = [i for i, values in enumerate(table.values) if values.get("model.batch_norm", False) == kind]
        first, last = table.accuracy[alike, 0], table.accuracy[alike, -1]
        if alike:
            print(f"{f'first and last epoch, {name}':28} {spearmanr(first, last)[0]:.2f}")
    expected = [expected_error(problem(), values) for values in table.values]
    print(f"{'rules of thumb':28} {spearmanr(expected, -table.accuracy[:, -1])[0]:.2f}")
    for known in (8, 15, 30, 60):
        print(f"{f'auto, {known} known':28} {rank_correlation(table, known):.2f}")
    best, values = fitted.best()
    top = np.sort(table.accuracy[:, -1])[::-1][:5]
    print(f"best {best:.4f} (table: {top}) {values}")


if __name__ == "__main__":
    main()
