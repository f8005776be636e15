"""How long an ask takes, in processor time: `python experiments/benchmarks/ask.py [TRIALS [SEARCH ...]] [--workers N]`.

TRIALS were asked for before, of which all but those of the other workers have ended. Slow searches make their
proposals ahead, while workers are busy; that time is shown beside what a free worker waits.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import deque

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.search.oracle import Oracle, Proposal
from cnnsweep.search.registry import build, searches
from cnnsweep.search_space.problem import make_problem

ASKS = 20


def value(values: dict) -> float:
    """Made up: a learning rate near 0.002, many filters, little dropout."""
    filters = sum(v for k, v in values.items() if k.startswith("model.filters"))
    return (
        0.9
        - 0.05 * (math.log10(values["training.learning_rate"]) + 2.7) ** 2
        - 0.1 * values["model.dropout"]
        + filters / 3e3
    )


def measure(search: str, trials: int, workers: int) -> tuple[list[float], list[float]]:
    """Milliseconds made ahead, and milliseconds that a worker waited, for each ask after so many trials."""
    config = compose(["data=fashion_mnist", f"search={search}", f"budget.trials={trials + ASKS}"])
    asked = build(config, make_problem(config, (28, 28, 1), 10), Objective.of("val_accuracy"))
    running: deque[Proposal] = deque()
    ahead, waited = [], []
    for number in range(trials + ASKS):
        began = time.process_time()
        proposal = asked.ask(f"worker {number % workers}")
        if isinstance(proposal, str):
            break
        if number > trials:
            waited.append(1e3 * (time.process_time() - began))
        if number >= trials:
            began = time.process_time()
            asked.prepare()
            ahead.append(1e3 * (time.process_time() - began))
        running.append(proposal)
        if len(running) == workers:
            train(asked, running.popleft())
    return ahead[:-1], waited


def train(asked: Oracle, trial: Proposal) -> None:
    """Report a trial's epochs until it is to end."""
    reached = asked.curves.reached(asked.origin(trial.id))
    for epoch in range(reached + 1, (trial.epochs or 1) + 1):
        if not asked.report(trial.id, epoch, {"val_accuracy": value(dict(trial.values))}):
            break
    asked.end(trial.id, succeeded=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="?", type=int, default=200)
    parser.add_argument("searches", nargs="*")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_intermixed_args()
    for name in options.searches or [name for name in searches() if name != "grid"]:
        ahead, waited = measure(name, options.trials, options.workers)
        texts = [f"{statistics.median(found):7.1f} ms (longest {max(found):6.1f})" for found in (ahead, waited)]
        print(f"{name:<10} ahead {texts[0]}   a free worker waits {texts[1]}", flush=True)
