"""Which search finds better networks in less time? All of them on learning curves of a table, over 30 seeds.

    python experiments/search_quality/compare.py FOLDER [--table short] [--rows] [--seeds 30] [SEARCH ...]

A SEARCH is one of ours with its settings ("hyperband", "hyperband search.factor=2") or one of the others as
contenders.py names them; without any, all but "KerasTuner Bayesian", of which one run takes over 12 minutes. --rows:
the table's own rows instead of the surrogate; --help has the other options. FOLDER keeps what was simulated, and what
is there is not simulated again. Writes results-TABLE-WORKERS.md and .png beside this file.
"""

from __future__ import annotations

import argparse
import os
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

TRAININGS = 60
MOMENTS = np.round(np.arange(1, 10 * TRAININGS + 1) / 10, 1)
AT = (1, 2, 5, 10, 20, 40, 60)
"""Moments that are compared, in full trainings' worth of seconds."""
BARS = (5, 10, 20, 40)
DEFAULT = "auto"
PEERS = (
    "KerasTuner random",
    "KerasTuner Hyperband",
    "Optuna TPE + Hyperband",
    "Ray Tune ASHA",
    "one epoch, then the best",
)
OURS = ("random", "qmc", "tpe", DEFAULT, "gp", "hyperband", "asha", "asha search.sampler=tpe")

SHOWN = {
    DEFAULT: "#1f6fb2",
    "random": "#222222",
    "gp": "#7b4fb5",
    "Optuna TPE + Hyperband": "#2c9f45",
    "KerasTuner Hyperband": "#d9822b",
    "Ray Tune ASHA": "#0f8b8d",
    "one epoch, then the best": "#c23b3b",
}
"""Drawn in colour; all others are grey."""


def simulate(name: str, seed: int, folder: Path, workers: int, trainings: int) -> Path:
    """Run one search once, or find that it was: what was found when, and how long its asks took."""
    from contenders import contender
    from simulator import Simulator
    from surrogate import surrogate

    path = folder / f"{name} {workers} {seed}.npz".replace(" ", "_")
    if not path.exists():
        began, unit = time.process_time(), surrogate().training_seconds / workers
        history = Simulator(surrogate(), workers, seed).run(contender(name)(seed), trainings * unit)
        spent = time.process_time() - began
        found = [history.after(at * unit) for at in MOMENTS]
        np.savez(
            path, found=found, trials=history.trials, spent=spent, idle=history.idle / (trainings * unit * workers)
        )
    return path


class Result:
    """What the seeds of one search found."""

    def __init__(self, name: str, paths: list[Path], best: float) -> None:
        runs = [np.load(path) for path in paths]
        self.name, self.seeds = name, len(runs)
        self.trials, self.idle = (float(np.mean([run[key] for run in runs])) for key in ("trials", "idle"))
        self.milliseconds = 1e3 * np.mean([run["spent"] / run["trials"] for run in runs])
        self.regret = np.array([100 * (best - run["found"]) for run in runs])

    def mean(self, trainings: float) -> tuple[float, float]:
        """The mean regret in points, and half the width of its 95% interval."""
        column = self.regret[:, np.searchsorted(MOMENTS, trainings)]
        return float(column.mean()), float(_half(column))


def _half(column: np.ndarray) -> float:
    return student.ppf(0.975, len(column) - 1) * column.std(ddof=1) / np.sqrt(len(column))


def table(results: list[Result], trainings: int) -> str:
    moments = [at for at in AT if at <= trainings]
    head = ["search", *map(str, moments), "trials", "idle", "ms a trial"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * (len(head) - 1)]
    for r in sorted(results, key=lambda r: r.mean(20)[0]):
        points = ["{:.2f} ± {:.2f}".format(*r.mean(at)) for at in moments]
        rest = [f"{r.trials:.0f}", f"{r.idle:.0%}", f"{r.milliseconds:.0f}"]
        lines.append("| " + " | ".join([r.name, *points, *rest]) + " |")
    return "\n".join(lines)


def verdict(results: list[Result]) -> str:
    """The default search's regret as a share of the best peer's, and when it reaches what random search does at 60."""
    by_name = {r.name: r for r in results}
    ours, lines = by_name[DEFAULT], []
    for at in BARS:
        name, peer = min(((n, by_name[n].mean(at)[0]) for n in PEERS), key=lambda pair: pair[1])
        mean = ours.mean(at)[0]
        lines.append(f"- At {at} its regret is {mean / peer:.2f} of the best peer's ({mean:.2f}; {name}: {peer:.2f}).")
    target = by_name["random"].mean(60)[0]
    reached = MOMENTS[ours.regret.mean(0) <= target]
    cost = f"{reached[0]:.1f}" if len(reached) else "more than 60"
    return "\n".join([*lines, f"- It reaches what random search has after 60 ({target:.2f}) after {cost}."])


def plot(results: list[Result], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), dpi=110)
    for r in sorted(results, key=lambda r: r.mean(20)[0]):
        mean, half = r.regret.mean(0), np.array([_half(c) for c in r.regret.T])
        style = {"color": SHOWN.get(r.name, "0.8"), "linestyle": "--" if r.name in PEERS else "-"}
        shown = {"label": r.name, "linewidth": 1.8, "zorder": 3} if r.name in SHOWN else {"linewidth": 0.9, "zorder": 1}
        axes.plot(MOMENTS, mean, **style, **shown)
        if r.name in (DEFAULT, "random"):
            axes.fill_between(
                MOMENTS, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0, zorder=2
            )
    axes.set(xscale="log", yscale="log", xlim=(1, TRAININGS), ylim=(0.2, 30))
    axes.set(xlabel="seconds, in full trainings' worth", ylabel="regret (points of accuracy)")
    for axis, ticks in ((axes.xaxis, (1, 2, 5, 10, 20, 40, 60)), (axes.yaxis, (0.2, 0.5, 1, 2, 3, 5, 10, 20))):
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
    parser.add_argument("--table", choices=("short", "long", "mnist", "sentences", "fashion"), default="short")
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trainings", type=int, default=TRAININGS, help="how long a search is, in trainings' seconds")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_intermixed_args()
    os.environ.update(CNNSWEEP_TABLE=options.table, CNNSWEEP_ROWS="1" if options.rows else "")
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    kind = f"{options.table}{'-rows' if options.rows else ''}"
    folder = options.folder / (kind if options.trainings == TRAININGS else f"{kind}-{options.trainings}")
    folder.mkdir(parents=True, exist_ok=True)
    names, seeds = options.searches or [*OURS, *PEERS], range(options.seeds)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        given = options.workers, options.trainings
        jobs = [pool.submit(simulate, name, seed, folder, *given) for seed in seeds for name in names]
        for done, job in enumerate(as_completed(jobs), 1):
            print(f"\r{done}/{len(jobs)} {job.result().name:60}", end="", file=sys.stderr)
    from surrogate import surrogate

    best, _ = surrogate().best()
    paths = {n: [simulate(n, s, folder, *given) for s in seeds] for n in names}
    results = [Result(name, found, best) for name, found in paths.items()]
    text = (
        f"Best: {best:.4f}. Regret in points, mean ± half the 95% interval over {options.seeds} seeds,"
        f" {options.workers} workers, after so many full trainings' worth of seconds"
        f" ({surrogate().training_seconds:.1f} s each):\n\n{table(results, options.trainings)}\n"
    )
    if options.trainings == TRAININGS and {*PEERS, DEFAULT, "random"} <= {*names}:
        text += f"\n`{DEFAULT}`:\n\n{verdict(results)}\n"
        (HERE / f"results-{kind}-{options.workers}.md").write_text(text)
        plot(results, HERE / f"results-{kind}-{options.workers}.png")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
