"""How long an ask takes, in processor time: `python experiments/benchmarks/ask.py [TRIALS [SEARCH ...]]`.

Slow searches make their proposals ahead, while workers are busy; that time is shown beside what a free worker waits.
"""

from __future__ import annotations

import math
import statistics
import sys
import time

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.search.registry import build, searches
from cnnsweep.search_space.problem import make_problem

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


def measure(search: str, trials: int) -> tuple[list[float], list[float]]:
    """Milliseconds made ahead, and milliseconds that a worker waited, for each ask after so many finished trials."""
    config = compose(["data=fashion_mnist", f"search={search}", f"budget.trials={trials + ASKS}"])
    asked = build(config, make_problem(config, (28, 28, 1), 10), Objective.of("val_accuracy"))
    ahead, waited = [], []
    for number in range(trials + ASKS):
        began = time.process_time()
        proposal = asked.ask("worker")
        if isinstance(proposal, str):
            break
        if number > trials:
            waited.append(1e3 * (time.process_time() - began))
        if number >= trials:
            began = time.process_time()
            asked.prepare()
            ahead.append(1e3 * (time.process_time() - began))
        asked.report(proposal.id, proposal.epochs or 1, {"val_accuracy": value(dict(proposal.values))})
        asked.end(proposal.id, succeeded=True)
    return ahead[:-1], waited


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for name in sys.argv[2:] or [name for name in searches() if name != "grid"]:
        ahead, waited = measure(name, count)
        texts = [f"{statistics.median(found):7.1f} ms (longest {max(found):6.1f})" for found in (ahead, waited)]
        print(f"{name:<10} ahead {texts[0]}   a free worker waits {texts[1]}", flush=True)
