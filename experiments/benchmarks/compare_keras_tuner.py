"""KerasTuner's documented examples through KerasTuner itself and through cnnsweep: trials an hour, and a kill.

    pip install tensorboard      # which KerasTuner asks for where it is given a callback
    python experiments/benchmarks/compare_keras_tuner.py [--out FILE.md] [--only resnet,guide]

HyperResNet and HyperXception, and two models of its guides (tuner_models.py; a third, with a fit of its own, by
--only fit), on scikit-learn's handwritten digits: the same data, random search, the same numbers of trials and epochs.
Then the guide's model is killed in the middle (SIGKILL, with all its processes), at an epoch's end and some time after
it, and started again as each says: KerasTuner by the same script with overwrite=False, cnnsweep by `resume`. Ten
minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BATCH = 64
KILLS = (0.0, 0.2, 0.4)
"""Seconds from the end of the epoch with which half of them are done."""


class Example(NamedTuple):
    """One of KerasTuner's, with its budget and the hyperparameters that are fixed to keep it small."""

    name: str
    hypermodel: str
    trials: int
    epochs: int
    images: int | None = None
    fixed: dict[str, Any] = {}  # noqa: RUF012


EXAMPLES = {
    "resnet": Example("HyperResNet", "keras_tuner.applications.HyperResNet", 1, 1, 200,
                      {"version": "v2", "conv3_depth": 4, "conv4_depth": 6}),
    "xception": Example("HyperXception", "keras_tuner.applications.HyperXception", 2, 1, 200),
    "guide": Example("build(hp) with a loop over layers", "tuner_models.guide", 4, 4),
    "scopes": Example("build(hp) with conditional scopes", "tuner_models.scopes", 4, 4),
    "fit": Example("HyperModel with a fit of its own", "tuner_models.Fit", 4, 4),
    "killed": Example("build(hp), killed", "tuner_models.guide", 6, 10),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One sweep, or one that was killed and went on."""

    seconds: float
    """Of the commands, from start to end."""
    span: float
    """From the first training's begin to the last one's end."""
    epochs: int
    finished: int
    """Trials in the result."""
    best: float
    before: int = 0
    """Trials that were finished before the kill."""
    error: str = ""
    """With which the command ended that was to go on."""

    def an_hour(self) -> float:
        return 3600 * self.finished / self.span


def through_keras_tuner(example: Example, folder: Path) -> None:
    """As its guide says to; what is there is loaded, since `overwrite` is False."""
    import keras
    import keras_tuner

    from cnnsweep.config.compose import compose
    from cnnsweep.data.loading import load
    from cnnsweep.models.hypermodel import _find

    data = load(compose(["data=digits", *_limit(example)]).data, 0)
    hypermodel = _find(example.hypermodel, data.input_shape, data.classes)
    hp = keras_tuner.HyperParameters()
    for name, value in example.fixed.items():
        hp.Fixed(name, value)
    tuner = keras_tuner.RandomSearch(
        hypermodel, objective="val_accuracy", max_trials=example.trials, hyperparameters=hp, seed=0, directory=folder,
        project_name="kt", overwrite=False,
    )  # fmt: skip
    y, y_val = (keras.utils.to_categorical(labels, 10) for labels in (data.y_train, data.y_val))
    tuner.search(
        data.x_train * data.scale, y, validation_data=(data.x_val * data.scale, y_val), epochs=example.epochs,
        batch_size=BATCH, verbose=0, callbacks=[_log(folder)],
    )  # fmt: skip


def _log(folder: Path) -> Any:
    import tuner_models

    return tuner_models.Log(str(folder / "log.jsonl"))


def _limit(example: Example) -> list[str]:
    return [f"data.limit={example.images}"] if example.images else []


def command(tool: str, key: str, folder: Path, again: bool) -> list[str]:
    example, python = EXAMPLES[key], sys.executable
    if tool == "KerasTuner":
        return [python, str(HERE / "compare_keras_tuner.py"), "--case", key, "--folder", str(folder)]
    if again:
        return [python, "-m", "cnnsweep", "resume", "--trust"]
    callback = f"{{_target_: tuner_models.Log, path: '{folder / 'log.jsonl'}'}}"
    return [
        python, "-m", "cnnsweep", "model=keras_tuner", f"model.hypermodel={example.hypermodel}", "data=digits",
        "search=random", f"budget.trials={example.trials}", f"training.epochs={example.epochs}", "executor=cpu",
        f"training.batch_size={BATCH}", "training.precision=float32", "tracking.report=false", "tracking.gallery=0",
        f"training.callbacks=[{callback}]", *_limit(example),
        *(f"model.hp.{name}={value}" for name, value in example.fixed.items()),
    ]  # fmt: skip


def run(tool: str, key: str, folder: Path, kill_after: float | None = None) -> Run:
    """Run one example in a new folder; kill it so many seconds after half of its epochs, and start it again."""
    folder.mkdir()
    shutil.copy(HERE / "tuner_models.py", folder)
    began, before, example = time.monotonic(), 0, EXAMPLES[key]
    process = _start(command(tool, key, folder, again=False), folder)
    if kill_after is not None:
        while _epochs(folder) < example.trials * example.epochs // 2 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(kill_after)
        kill(process.pid)
        before = len(results(folder))
        process = _start(command(tool, key, folder, again=True), folder)
    error = (folder / "output.txt").read_text().strip().splitlines()[-1] if process.wait() else ""
    if error and kill_after is None:
        raise SystemExit(f"{tool} {key}: {error}")
    times, found = [time for _, time, _ in entries(folder)], [] if error else results(folder)
    span = max(times) - min(times)
    best = max(found, default=0.0)
    return Run(time.monotonic() - began, span, _epochs(folder), len(found), best, before, error)


def _start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    paths = [ROOT, folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(words, cwd=folder, env=variables, stdout=output, stderr=output)


def kill(pid: int) -> None:
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    parent.wait()


def entries(folder: Path) -> list[tuple[str, float, int]]:
    path = folder / "log.jsonl"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _epochs(folder: Path) -> int:
    return sum(event == "epoch" for event, _, _ in entries(folder))


def results(folder: Path) -> list[float]:
    """The objective of each trial that is finished, as the tool has stored it."""
    stored = [json.loads(path.read_text()) for path in folder.glob("kt/trial_*/trial.json")]
    found = [trial["score"] for trial in stored if trial["status"] == "COMPLETED"]
    for journal in folder.glob("mlruns/sweeps/*/journal.jsonl"):
        best: dict[int, float] = {}
        for line in journal.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "epoch":
                value = event["metrics"]["val_accuracy"]
                best[event["trial"]] = max(value, best.get(event["trial"], 0.0))
            elif event["event"] == "end" and event["status"] == "completed":
                found.append(best[event["trial"]])
    return found


def report(found: dict[str, dict[str, Run]], killed: dict[tuple[str, float], Run]) -> str:
    lines = [
        "# KerasTuner's examples through KerasTuner itself and through cnnsweep",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"`python experiments/benchmarks/compare_keras_tuner.py`; {time.strftime('%Y-%m-%d')}. scikit-learn's digits, "
        f"batches of {BATCH}, random search; cnnsweep with a worker for each core, each trial logged to MLflow.",
        "",
        "| example | trials × epochs | KerasTuner: trials an hour | command, s | best | cnnsweep: trials an hour "
        "| command, s | best |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, runs in found.items():
        e = EXAMPLES[key]
        cells = [f"{r.an_hour():,.0f} | {r.seconds:.0f} | {r.best:.3f}" for r in runs.values()]
        lines.append(f"| {e.name} | {e.trials} × {e.epochs} | {' | '.join(cells)} |")
    lines += [
        "",
        "*Trials an hour*: from the first training's begin to the last one's end. *Command*: the whole of it, with "
        "imports; cnnsweep's finds out the space, evaluates the best network on the test set and saves it.",
    ]
    if killed:
        e = EXAMPLES["killed"]
        lines += [
            "",
            f"The guide's model, {e.trials} × {e.epochs}, killed some time after half of the epochs were done, and "
            "started again:",
            "",
            "| | killed after, s | finished before | in the result | best | epochs trained | of these more than once |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for (tool, after), r in killed.items():
            again = "" if r.error else r.epochs - e.trials * e.epochs
            there = f"none: {r.error}" if r.error else r.finished
            lines.append(f"| {tool} | {after} | {r.before} | {there} | {r.best:.3f} | {r.epochs} | {again} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="resnet,xception,guide,scopes,killed", help="some of " + ", ".join(EXAMPLES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=EXAMPLES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        through_keras_tuner(EXAMPLES[arguments.case], arguments.folder)
        return
    found: dict[str, dict[str, Run]] = {}
    killed: dict[tuple[str, float], Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for key in arguments.only.split(","):
            for tool, after in itertools.product(("KerasTuner", "cnnsweep"), KILLS if key == "killed" else (None,)):
                made = run(tool, key, Path(folder) / f"{key}-{tool}-{after}", after)
                print(tool, key, made, file=sys.stderr)
                if after is None:
                    found.setdefault(key, {})[tool] = made
                else:
                    killed[tool, after] = made
    text = report(found, killed)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
