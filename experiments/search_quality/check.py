"""How well does the surrogate predict configurations that it has not seen?

python experiments/search_quality/check.py        about a minute
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from surrogate import Surrogate, held_out, read_table  # noqa: E402


def main() -> None:
    table = read_table()
    fitted = Surrogate(table)
    print(f"{len(table.values)} configurations, {len(table.noise)} pairs")
    for name, value in held_out(table).items():
        print(f"{name:28} {value:.2f}")
    for kind, name in ((False, "plain"), (True, "normalised")):
        noise = 100 * table.noise[table.normalised == kind].std(axis=0)
        print(f"{f'noise of a seed, {name}':28} {' '.join(f'{n:.2f}' for n in noise)}")
    best, values = fitted.best()
    top = np.sort(table.accuracy[:, -1])[::-1][:5]
    print(f"best {best:.4f} (table: {top}) {values}")


if __name__ == "__main__":
    main()
