"""How well does the surrogate predict configurations that it has not seen? And how well the model of `search=gp`?

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

from cnnsweep.search import gp  # noqa: E402

PARTS = 24


def rank_correlation(table: Table, known: int) -> float:
    """Of what `search=gp` predicts from so many configurations with what the others came to, over random parts."""
    space, scores, found = problem().space, -table.accuracy[:, -1], []
    for seed in range(PARTS):
        order = np.random.default_rng(seed).permutation(len(scores))
        seen, unseen = order[:known], order[known:]
        y = gp._levelled(list(scores[seen]))
        model = gp._fit(space, [table.values[i] for i in seen], y, [], 0)
        predicted = model.predict(gp._matrix(space, [table.values[i] for i in unseen]))
        found.append(spearmanr(predicted, scores[unseen])[0])
    return float(np.mean(found))


def main() -> None:
    table = read_table()
    fitted = Surrogate(table)
    print(f"{len(table.values)} configurations, {len(table.noise)} pairs")
    for name, value in held_out(table).items():
        print(f"{name:28} {value:.2f}")
    for kind, name in ((False, "plain"), (True, "normalised")):
        noise = 100 * table.noise[table.normalised == kind].std(axis=0)
        print(f"{f'noise of a seed, {name}':28} {' '.join(f'{n:.2f}' for n in noise)}")
    for kind, name in ((False, "plain"), (True, "normalised")):
        alike = [i for i, values in enumerate(table.values) if values["model.batch_norm"] == kind]
        first, last = table.accuracy[alike, 0], table.accuracy[alike, -1]
        print(f"{f'first and last epoch, {name}':28} {spearmanr(first, last)[0]:.2f}")
    prior = gp.SPREAD
    for known in (8, 15, 30, 60):
        gp.SPREAD = prior
        with_prior = rank_correlation(table, known)
        gp.SPREAD = 1e6
        print(f"{f'gp, {known} known':28} {with_prior:.2f}, without the prior {rank_correlation(table, known):.2f}")
    best, values = fitted.best()
    top = np.sort(table.accuracy[:, -1])[::-1][:5]
    print(f"best {best:.4f} (table: {top}) {values}")


if __name__ == "__main__":
    main()
