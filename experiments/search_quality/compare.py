"""Which search finds better networks for less? All of them on the surrogate, over 30 seeds.

    python experiments/search_quality/compare.py FOLDER [--seeds 30] [--workers 2] [SEARCH ...]

A SEARCH is one of ours with its settings ("hyperband", "hyperband search.factor=2") or one of the others as
contenders.py names them; without any, all. FOLDER keeps what was simulated, and what is there is not simulated again.
Writes results-WORKERS.md and .png beside this file.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy.stats import t as student

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from contenders import OTHERS, contender  # noqa: E402
from problem import EPOCHS  # noqa: E402
from simulator import Simulator  # noqa: E402
from surrogate import surrogate  # noqa: E402

TRAININGS = 60
AT = (2, 5, 10, 15, 20, 40, 60)
NEAR = 0.5
DEFAULT = "auto"
OURS = (
    "random",
    "qmc",
    "bayesian search.initial_points=20",
    "tpe",
    DEFAULT,
    "gp",
    "cmaes",
    "nsga2",
    "hyperband",
    "asha",
    "asha search.variant=stopping",
    "asha search.sampler=tpe",
    "asha search.variant=stopping search.min_epochs=3 search.factor=2 search.sampler=gp",
)


SHOWN = {
    DEFAULT: "#1f6fb2",
    "random": "#222222",
    "tpe": "#2c9f45",
    "hyperband": "#d9822b",
    "bayesian search.initial_points=20": "#7b4fb5",
    "Optuna TPE + Hyperband": "#2c9f45",
    "KerasTuner Hyperband": "#d9822b",
    "one epoch, then the best": "#c23b3b",
}
"""Drawn in colour; all others are grey."""


def simulate(name: str, workers: int, seed: int, folder: Path) -> Path:
    """Run one search once, or find that it was: what was found after each epoch, when, and how long its asks took."""
    path = folder / f"{name} {workers} {seed}.npz".replace(" ", "_")
    if not path.exists():
        began = time.process_time()
        history = Simulator(surrogate(), workers, seed).run(contender(name)(seed), TRAININGS)
        spent = time.process_time() - began
        arrays = {"found": history.found, "seconds": history.seconds, "idle": history.idle}
        np.savez(path, trials=history.trials, spent=spent, **arrays)
    return path


class Result:
    """What the seeds of one search found."""

    def __init__(self, name: str, paths: list[Path], best: float, workers: int) -> None:
        runs = [np.load(path) for path in paths]
        self.name, self.seeds = name, len(runs)
        self.trials = np.mean([run["trials"] for run in runs])
        self.idle = np.mean([run["idle"] / (workers * run["seconds"][-1]) for run in runs])
        self.milliseconds = 1e3 * np.mean([run["spent"] / run["trials"] for run in runs])
        self.regret = np.array([_padded(100 * (best - run["found"])) for run in runs])
        unit = surrogate().training_seconds / workers / EPOCHS
        clock = [np.searchsorted(run["seconds"], unit * np.arange(1, self.regret.shape[1] + 1)) for run in runs]
        self.timed = np.array([r[np.maximum(c, 1) - 1] for r, c in zip(self.regret, clock, strict=True)])

    def mean(self, trainings: float, timed: bool = False) -> tuple[float, float]:
        """The mean regret in points, and half the width of its 95% interval."""
        column = (self.timed if timed else self.regret)[:, round(trainings * EPOCHS) - 1]
        return float(column.mean()), float(_half(column))

    def near(self) -> tuple[float, int]:
        """The median over seeds of the trainings until within `NEAR` points for good, and how many seeds got there."""
        within = self.regret <= NEAR
        lasting = np.logical_and.accumulate(within[:, ::-1], axis=1)[:, ::-1]
        first = np.where(lasting.any(1), lasting.argmax(1) + 1, np.inf) / EPOCHS
        return float(np.median(first)), int(lasting.any(1).sum())


def _padded(regret: np.ndarray) -> np.ndarray:
    return np.concatenate([regret, np.full(TRAININGS * EPOCHS, regret[-1])])[: TRAININGS * EPOCHS]


def _half(column: np.ndarray) -> float:
    return student.ppf(0.975, len(column) - 1) * column.std(ddof=1) / np.sqrt(len(column))


def gap(ours: Result, other: Result, trainings: int) -> tuple[float, float]:
    """How far ours is behind, seed by seed, in points, and half the width of the 95% interval of that."""
    seeds, column = min(ours.seeds, other.seeds), round(trainings * EPOCHS) - 1
    behind = ours.regret[:seeds, column] - other.regret[:seeds, column]
    return float(behind.mean()), float(_half(behind))


def table(results: list[Result], timed: bool = False) -> str:
    head = ["search", *map(str, AT), f"within {NEAR}", "trials", "idle", "ms a trial"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    for r in sorted(results, key=lambda r: r.mean(20)[0]):
        points = ["{:.2f} ± {:.2f}".format(*r.mean(at, timed)) for at in AT]
        median, reached = r.near()
        near = f"{median:.0f} ({reached}/{r.seeds})" if np.isfinite(median) else f"– ({reached}/{r.seeds})"
        rest = [near, f"{r.trials:.0f}", f"{r.idle:.0%}", f"{r.milliseconds:.0f}"]
        lines.append("| " + " | ".join([r.name, *points, *rest]) + " |")
    return "\n".join(lines)


def verdict(results: list[Result], default: str) -> str:
    """Whether the default search meets the bars, with the figures."""
    by_name = {r.name: r for r in results}
    ours, random = by_name[default], by_name["random"]
    target = random.mean(60)[0]
    reached = np.flatnonzero(ours.regret.mean(0) <= target)
    cost = f"{(reached[0] + 1) / EPOCHS:.1f}" if len(reached) else "more than 60"
    lines = [f"- `{default}` reaches what random search reaches at 60 trainings ({target:.2f}) after {cost} (bar: 15)."]
    for at in (10, 20, 40):
        gaps = {r.name: gap(ours, r, at) for r in results if r is not ours}
        behind = [f"{name} by {g:.2f} ± {h:.2f}" for name, (g, h) in gaps.items() if g > h]
        lines.append(f"- At {at} trainings it is behind: {', '.join(behind) or 'nothing by more than the interval'}.")
    return "\n".join(lines)


def plot(results: list[Result], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), dpi=110)
    at = np.arange(1, TRAININGS * EPOCHS + 1) / EPOCHS
    for r in sorted(results, key=lambda r: r.mean(20)[0]):
        mean, half = r.regret.mean(0), np.array([_half(c) for c in r.regret.T])
        style = {"color": SHOWN.get(r.name, "0.8"), "linestyle": "--" if r.name in OTHERS else "-"}
        shown = {"label": r.name, "linewidth": 1.8, "zorder": 3} if r.name in SHOWN else {"linewidth": 0.9, "zorder": 1}
        axes.plot(at, mean, **style, **shown)
        if r.name in (DEFAULT, "random"):
            axes.fill_between(at, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0, zorder=2)
    axes.set(xscale="log", yscale="log", xlim=(1, TRAININGS), ylim=(1, 30))
    axes.set(xlabel="epochs trained, in full trainings' worth", ylabel="regret (points of accuracy)")
    for axis, ticks in ((axes.xaxis, (1, 2, 5, 10, 20, 40, 60)), (axes.yaxis, (1, 2, 3, 5, 10, 20))):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_formatter("")
    axes.legend(fontsize=9, frameon=False)
    axes.grid(alpha=0.2)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("searches", nargs="*")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_intermixed_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = options.searches or [*OURS, *OTHERS]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = {
            pool.submit(simulate, name, options.workers, seed, options.folder): name
            for seed in range(options.seeds)
            for name in names
        }
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            print(f"\r{done}/{len(jobs)} {jobs[job]:40}", end="", file=sys.stderr)
    best, _ = surrogate().best()
    seeds = range(options.seeds)
    paths = {n: [simulate(n, options.workers, s, options.folder) for s in seeds] for n in names}
    results = [Result(name, found, best, options.workers) for name, found in paths.items()]
    text = (
        f"Best: {best:.4f}. Regret in points, mean ± half the 95% interval over {options.seeds} seeds,"
        f" {options.workers} workers.\n\nAfter so many full trainings' worth of epochs:\n\n{table(results)}\n\n"
        f"By the clock, in full trainings of {options.workers} busy workers:\n\n{table(results, timed=True)}\n"
    )
    if DEFAULT in names and "random" in names:
        text += f"\n{verdict(results, DEFAULT)}\n"
    (HERE / f"results-{options.workers}.md").write_text(text)
    plot(results, HERE / f"results-{options.workers}.png")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
