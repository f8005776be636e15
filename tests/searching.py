"""Driving a search without training: spaces, a made-up score, and workers that take no time."""

from __future__ import annotations

import math
from collections import deque

from cnnsweep.config.objective import Objective

ACCURACY = Objective.of("val_accuracy")
TWO = Objective.of(["val_accuracy", "parameters"])
DISCRETE = {
    "model": {
        "blocks": {"min": 1, "max": 2},
        "filters": {"values": [8, 16, 32], "per_block": True},
        "kernel_size": {"values": [3, 5, 7], "per_block": True},
        "padding": {"values": ["same", "valid"]},
        "pooling": {"values": ["max", "none"]},
        "pool_size": {"values": [2, 3]},
    },
    "training": {"batch_size": {"values": [32, 64]}},
}
"""On 8×8 images some of these cannot be built, and the pool size without a pool makes no difference."""
FLAT = {
    "model": {
        "filters": {"values": [8, 16, 32], "per_block": True},
        "activation": {"values": ["relu", "elu", "gelu"]},
        "dropout": {"min": 0.0, "max": 0.5},
    },
    "training": {"learning_rate": {"min": 1e-4, "max": 1e-1, "log": True}},
}
MIXED = {**FLAT, "training": {**FLAT["training"], "patience": {"min": 5, "max": 50, "log": True}}}
TINY = {"model": {"filters": {"values": [8, 16, 32]}, "pooling": {"values": ["max", "none"]}}}


def score(values):
    """Smooth, 1 at best: a rate near 0.01, little dropout, elu."""
    rate = math.log10(values.get("training.learning_rate", 1e-2)) + 2
    word = values.get("model.activation", "elu") != "elu"
    filters = sum(v for k, v in values.items() if k.startswith("model.filters")) / 1000
    return 1 - 0.2 * rate**2 - values.get("model.dropout", 0) - 0.1 * word - filters


def drive(search, workers=1, most=10_000, fails=lambda number, proposal: False, ahead=False, unit=1):
    """Keep all workers busy, end trials in the order in which they began, and return the proposals in order.

    `unit`: that of losses.
    """
    free, running, proposals = [f"worker{i}" for i in range(workers)], deque(), []
    metric = search.objective.metric
    while True:
        while free and len(proposals) < most and not isinstance(proposal := search.ask(free[0]), str):
            proposals.append(proposal)
            running.append((free.pop(0), len(proposals), proposal))
        if not running:
            return proposals
        if ahead:
            search.prepare()
        worker, number, proposal = running.popleft()
        failed = fails(number, proposal)
        value = score(proposal.values) if metric == "val_accuracy" else unit * (1 - score(proposal.values))
        for epoch in range(1, 3):
            search.report(proposal.id, epoch, {metric: math.nan if failed else value, "loss": 1.0})
        search.end(proposal.id, succeeded=not failed)
        free.append(worker)


def race(search, workers, most=10_000):
    """Run trials epoch by epoch, all workers in turn, as the loop does, on curves that never cross.

    Returns the proposals, the epochs that each reached, and how often a worker had to wait.
    """
    running, proposals, reached, waits = {}, [], {}, 0
    while True:
        for worker in range(workers):
            if worker not in running and len(proposals) < most:
                proposal = search.ask(f"worker{worker}")
                if isinstance(proposal, str):
                    waits += 1
                else:
                    proposals.append(proposal)
                    reached[proposal.id] = reached.get(proposal.continues, 0)
                    running[worker] = proposal
        if not running:
            return proposals, reached, waits
        for worker, proposal in list(running.items()):
            reached[proposal.id] += 1
            epoch = reached[proposal.id]
            keep_on = search.report(proposal.id, epoch, {"val_accuracy": score(proposal.values) - 1 / epoch})
            if not keep_on or epoch == (proposal.epochs or 9):
                search.end(proposal.id, succeeded=True)
                del running[worker]


def new(proposals):
    return [p for p in proposals if p.continues is None]


def signature(problem, proposal):
    return problem.validate(proposal.values).signature


def everything(problem):
    """The signatures of all configurations."""
    return {problem.validate(values).signature for values in problem.space.enumerate()}
