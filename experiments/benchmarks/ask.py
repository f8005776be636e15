"""How long an ask takes, in processor time: `python experiments/benchmarks/ask.py [TRIALS [SEARCH ...]]`."""

from __future__ import annotations

import math
import statistics
import sys
import time

from cnnsweep.config import compose
from cnnsweep.objective import Objective
from cnnsweep.problem import pose
from cnnsweep.search import build

SEARCHES = ("random", "bayesian", "hyperband", "asha", "tpe", "gp", "cmaes", "qmc", "nsga2")
ASKS = 10


def value(values: dict) -> float:
    """Made up: a learning rate near 0.002, many filters, little dropout."""
    filters = sum(v for k, v in values.items() if k.startswith("model.filters"))
    return (
        0.9
        - 0.05 * (math.log10(values["training.learning_rate"]) + 2.7) ** 2
        - 0.1 * values["model.dropout"]
        + filters / 3e3
    )


def measure(search: str, trials: int) -> tuple[float, float]:
    """The median and the longest of the asks after so many finished trials, in milliseconds."""
    config = compose(["data=fashion_mnist", f"search={search}", f"budget.trials={trials + ASKS}"])
    asked = build(config, pose(config, (28, 28, 1), 10), Objective.of("val_accuracy"))
    spent = []
    for number in range(trials + ASKS):
        began = time.process_time()
        proposal = asked.ask("slot")
        if isinstance(proposal, str):
            break
        if number >= trials:
            spent.append(1e3 * (time.process_time() - began))
        asked.report(proposal.id, proposal.epochs or 1, {"val_accuracy": value(dict(proposal.values))})
        asked.end(proposal.id, succeeded=True)
    return statistics.median(spent), max(spent)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for name in sys.argv[2:] or SEARCHES:
        middle, most = measure(name, count)
        print(f"{name:<10} {middle:8.1f} ms  longest {most:8.1f} ms", flush=True)
