"""A real sweep on the digits, run by the example of docs/python.md, and its report, UI and export."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import drawn
from PIL import Image
from real_sweeps import contents

import cnnsweep
from cnnsweep import cli
from cnnsweep.config.compose import compose
from cnnsweep.tracking.frames import read_results
from cnnsweep.tracking.reader import RestReader, SqlReader, find_sweep
from cnnsweep.tracking.store import connect
from cnnsweep.ui import server as ui

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning"),
]
SMALLER = ("budget.trials=3", "training.epochs=3", "tracking.gallery=1")
ROOT = Path(cnnsweep.__file__).parents[1]
EPOCH = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the page's example was run as a script, on a smaller sweep."""
    folder = tmp_path_factory.mktemp("home")
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert '"budget.trials=5"' in example
    script = example.replace('"budget.trials=5"', ", ".join(f'"{o}"' for o in SMALLER))
    (folder / "example.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "example.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "output.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def best_trial() -> Any:
    return cnnsweep.trials("digits").sort_values(["best_val_accuracy", "trial"], ascending=[False, True]).iloc[0]


def test_a_script_needs_no_main_guard_and_prints_the_result(here: Path) -> None:
    output = (here / "output.txt").read_text()
    trials = cnnsweep.trials("digits")
    assert trials["trial"].tolist() == [1, 2, 3]
    assert set(cnnsweep.curves("digits")["trial"]) == {1, 2, 3}
    assert "'model.blocks': " in output
    assert "model.blocks\n" in output
    assert len(list(here.glob("mlruns/sweeps/digits-*"))) == 1  # workers do not run the script again


def test_the_report_is_made_at_the_end_and_logged(here: Path) -> None:
    (page,) = here.glob("mlruns/sweeps/*/report/report.html")
    best = best_trial()
    text = page.read_text(encoding="utf-8")
    assert f"best val_accuracy<br>trial {best['trial']:03d}, run {best['run_id'][:8]}" in text
    assert best["run_id"] in text
    assert "test images, which the search never saw" in text
    assert "Gallery of the best networks" in text
    assert {"cpu0", "cpu1"} >= set(cnnsweep.trials("digits")["worker"])
    reader = SqlReader(f"sqlite:///{here}/mlruns/mlflow.db")
    logged = {f.path for f in connect(reader.uri).list_artifacts(find_sweep(reader, None).run, "report")}
    assert logged == {"report/report.html", "report/report.md", "report/trials.csv"}


def test_pictures_of_the_best_are_on_its_run(here: Path) -> None:
    client, trials = connect(f"sqlite:///{here}/mlruns/mlflow.db"), cnnsweep.trials("digits")
    best = best_trial()
    files = {Path(f.path).name: f for f in client.list_artifacts(best["run_id"], "gallery")}
    assert {"1_confusion_matrix.png", "3_first_layer_filters.png", "4_feature_maps_block_1.png"} <= set(files)
    assert len([f for f in files if "feature_maps" in f]) == best["model.blocks"]
    assert all(f.file_size > 1000 for f in files.values())
    others = trials[trials["trial"] != best["trial"]]
    assert not [f for run in others["run_id"] for f in client.list_artifacts(run, "gallery")]


def test_the_mlflow_ui_shows_the_trials_in_a_browser(here: Path, tmp_path: Path) -> None:
    found = cnnsweep.trials("digits")
    target = ui.find(compose([]).tracking, "digits")
    chart = "parameters vs. best_val_accuracy"  # which only the saved view has
    with ui.server(target.uri) as base:
        for attempt in range(1, 7):  # on a busy machine the page is reported done before its charts are
            shown = drawn(target.address(base), tmp_path / f"profile-{attempt}", 30 * attempt)
            if chart in shown:
                break
    assert [name for name in found["name"] if name[:5] not in shown] == []
    assert chart in shown


def test_a_browser_draws_every_figure_without_a_network(here: Path, tmp_path: Path) -> None:
    (page,) = here.glob("mlruns/sweeps/*/report/report.html")
    copy = Path(shutil.copy(page, tmp_path))
    shown = drawn(copy.as_uri(), tmp_path / "profile")
    assert shown.count('class="main-svg"') > 0
    assert len(re.findall(r'<div class="plot[^"]*js-plotly-plot"', shown)) == shown.count("data-plot=")
    assert "needs a browser of 2023" not in shown.partition("<script>")[0]


def test_a_trial_trained_again_gives_the_same_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = best_trial()
    assert cli.main(["train", "--from", row["run_id"]]) == 0
    output = capsys.readouterr().out
    client = connect(f"sqlite:///{here}/mlruns/mlflow.db")
    run = client.get_run(re.search(r"run (\w{32})", output)[1])
    before = cnnsweep.curves("digits").query("run_id == @row.run_id")
    for key in EPOCH[1:]:
        again = [p.value for p in sorted(client.get_metric_history(run.info.run_id, key), key=lambda p: p.step)]
        assert again == before[key].tolist(), key
    assert run.data.metrics["best_val_accuracy"] == row["best_val_accuracy"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["cnnsweep.from"] == row["run_id"]
    assert len(cnnsweep.trials("digits")) == 3  # a run of its own, not part of the sweep


def test_a_copy_of_the_folder_is_a_store_of_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(home, copy)
    shutil.rmtree(next(copy.glob("mlruns/sweeps/*/report")))
    before = contents(home)
    monkeypatch.chdir(copy)
    assert cli.main(["report"]) == 0
    (page,) = copy.glob("mlruns/sweeps/*/report/report.html")
    assert "Gallery of the best networks" in page.read_text(encoding="utf-8")
    assert cli.main(["resume", "budget.trials=4"]) == 0, capsys.readouterr().err
    assert cli.main(["train", "--from", best_trial()["run_id"], "training.epochs=1"]) == 0
    assert contents(home) == before

    client = connect(f"sqlite:///{copy}/mlruns/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'cnnsweep'")
    runs = client.search_runs([experiment.experiment_id])
    models = client.search_logged_models([experiment.experiment_id])
    assert {run.data.tags["cnnsweep.kind"] for run in runs} >= {"sweep", "trial", "train"}
    assert models
    for location in [*(run.info.artifact_uri for run in runs), *(model.artifact_location for model in models)]:
        assert location.startswith((copy / "mlruns" / "artifacts").as_uri())
        assert any(Path(location.removeprefix("file://")).iterdir())


def test_any_config_can_be_trained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["model.blocks=1", "model.filters=4", "training.epochs=1", "data.limit=100"]
    assert cli.main(["train", *overrides]) == 0
    assert "epoch   1/1" in capsys.readouterr().out


def test_train_rejects_a_run_that_is_no_trial(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = SqlReader(f"sqlite:///{here}/mlruns/mlflow.db")
    assert cli.main(["train", "--from", find_sweep(reader, None).run]) == 2
    assert "is no trial (sweep)" in capsys.readouterr().err
    assert cli.main(["train", "--from", "f00"]) == 2
    assert "there is no run 'f00'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def exported(home: Path) -> Path:
    folder, before = home / "model", Path.cwd()
    os.chdir(home)
    try:
        assert cli.main(["export", "digits", "export.seeds=2", "--out", str(folder)]) == 0
    finally:
        os.chdir(before)
    return folder


def test_the_exported_model_agrees_with_its_card(exported: Path, here: Path) -> None:
    import keras

    from cnnsweep.data import loading

    card = (exported / "README.md").read_text(encoding="utf-8")
    data = loading.load(compose(["+sweep=digits"]).data, 0)
    model = keras.models.load_model(exported / "model.keras")
    said = model.predict(data.x_test, verbose=0).argmax(axis=1)
    assert f"**{(said == data.y_test).mean():.4f}**" in card
    assert f"| parameters | {model.count_params():,} |" in card
    assert f"Trained on {len(data.x_train) + len(data.x_val):,} images" in card
    assert best_trial()["run_id"] in card
    for label in range(10):
        assert f"| {label} | {(said == data.y_test)[data.y_test == label].mean():.3f} |" in card


def test_files_that_are_not_of_an_export_are_not_replaced(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert cli.main(["export", "digits", "export.seeds=1", "--out", str(tmp_path)]) == 2
    assert "has a file README.md that is not of an export; name another folder" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_it_is_registered_as_the_champion(exported: Path, here: Path) -> None:
    client = connect(f"sqlite:///{here}/mlruns/mlflow.db")
    version = client.get_model_version_by_alias("digits", "champion")
    run = client.get_run(version.run_id)
    assert run.data.tags["cnnsweep.kind"] == "export"
    low, value, high = (run.data.metrics[f"test_accuracy{bound}"] for bound in ("_low", "", "_high"))
    assert low < value < high
    assert len(client.get_metric_history(version.run_id, "seed_test_accuracy")) == 2
    assert len(cnnsweep.trials("digits")) == 3
    assert not (here / "mlflow.db").exists()  # MLflow's default store, in the working directory


def digit(folder: Path) -> tuple[Path, int]:
    """A digit as an image file."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    Image.fromarray((digits.images[0] / 16 * 255).round().astype("uint8")).save(folder / "image.png")
    return folder / "image.png", int(digits.target[0])


def test_predict_and_the_example_name_the_digit(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, label = digit(exported)
    assert cli.main(["predict", str(exported), str(image)]) == 0
    assert re.match(rf".*image\.png: {label} (0\.\d+|1\.0000)  ", capsys.readouterr().out)
    done = subprocess.run(
        [sys.executable, "example.py", "image.png"], cwd=exported, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[1] == str(label)


def test_mlflow_serves_it(exported: Path, here: Path, tmp_path: Path) -> None:
    from real_sweeps import free_port

    image, label = digit(tmp_path)
    pixels = np.asarray(Image.open(image), "float32")[None, ..., None] * 16 / 255
    port = free_port()
    with serving(f"sqlite:///{here}/mlruns/mlflow.db", "models:/digits@champion", port, tmp_path / "log.txt"):
        body = json.dumps({"inputs": pixels.tolist()}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            probabilities = json.load(answer)["predictions"]
    assert np.shape(probabilities) == (1, 10)
    assert np.argmax(probabilities) == label
    assert np.sum(probabilities) == pytest.approx(1, abs=1e-4)


@contextlib.contextmanager
def serving(uri: str, model: str, port: int, log: Path) -> Iterator[None]:
    options = ["-m", model, "--env-manager", "local", "-p", str(port)]
    command = [sys.executable, "-m", "mlflow", "models", "serve", *options]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true",
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            time.sleep(0.3)
        assert process.poll() is None, log.read_text()[-2000:]
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_gives_the_same_frames(here: Path) -> None:
    uri = f"sqlite:///{here}/mlruns/mlflow.db"
    local = read_results(SqlReader(uri), "digits")
    with ui.server(uri) as base:
        remote = read_results(RestReader(base), "digits")
        assert remote.keys == local.keys
        for frame in ("trials", "curves"):
            ours, theirs = getattr(local, frame), getattr(remote, frame)
            assert ours.columns.tolist() == theirs.columns.tolist()
            for column in ours:
                assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist(), column


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["report", "digts"], "no sweep 'digts', did you mean 'digits'"),
        (["export", "digits", "--trial", "9"], "has no trial 9 (it has 1 to 3)"),
        (["report", "tracking.dir=elsewhere"], "there is no MLflow store at"),
        (["export", "export.seeds=0"], "export.seeds: 0 (must be at least 1"),
    ],
)
def test_wrong_input_is_one_clear_error(
    here: Path, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr().err
    assert error in output
    assert len(output.splitlines()) < 5
