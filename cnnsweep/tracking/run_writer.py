"""The calls to MLflow: one run's write, sent so that sending it again changes nothing."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cnnsweep.tracking.run_updates import Write
from cnnsweep.tracking.store import connect, find_experiment

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

LASTING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
"""MLflow's error codes that another attempt does not cure."""
MISTAKES = (LookupError, TypeError, AttributeError, ValueError, FileNotFoundError, NotADirectoryError)
PER_BATCH = 800
_log = logging.getLogger("cnnsweep.tracking")


class Known(Protocol):
    """The runs that exist already, by trial number; None is the sweep's own."""

    runs: dict[int | None, str]

    def note_run(self, trial: int | None, run: str) -> None: ...
    def forget(self) -> None: ...


class Runs:
    """The runs of one sweep in one store."""

    def __init__(self, uri: str, experiment: str, known: Known) -> None:
        self.doubtful = True
        """An earlier attempt may have created a run without our learning of it: look before creating."""
        self._uri = uri
        self._name = experiment
        self._known = known
        self._client: MlflowClient
        self._experiment = ""
        self._places: dict[str, str] = {}

    def open(self) -> None:
        """Connect; where the store knows nothing of the sweep's run (another store), start from nothing."""
        self._client = connect(self._uri)
        from mlflow.exceptions import MlflowException

        self._experiment = find_experiment(self._client, self._name)
        if None in self._known.runs:
            try:
                self._client.get_run(self._known.runs[None])
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._known.forget()

    def answers(self) -> bool:
        """Whether the store answers a small question."""
        try:
            return bool(find_experiment(self._client, self._name))
        except Exception:
            return False

    def send(self, write: Write) -> None:
        """Bring a run up to date, creating it where it does not exist."""
        if self.doubtful and write.trial not in self._known.runs:
            self._look_around(write.tags.get("cnnsweep.sweep", ""))
        created = write.trial not in self._known.runs
        run = self._create(write) if created else self._known.runs[write.trial]
        self._log_values(run, write, created)
        self._log_artifacts(run, write)
        if write.data:
            self._log_data(run, write.data)
        if write.model and write.model.exists():
            self._log_model(run, write, write.model)
        if write.status == "RUNNING" and not created:
            self._client.update_run(run, status="RUNNING")
        elif write.status not in (None, "RUNNING"):
            self._client.set_terminated(run, write.status, write.ended)
            self._places.pop(run, None)

    def _create(self, write: Write) -> str:
        if write.name is None:
            raise LookupError(f"trial {write.trial} has no run")
        parent = {} if write.trial is None else {"mlflow.parentRunId": self._known.runs[None]}
        tags = {**write.tags, **parent}
        info = self._client.create_run(self._experiment, write.began, tags, write.name).info
        self._places[info.run_id] = info.artifact_uri
        self._known.note_run(write.trial, info.run_id)
        return str(info.run_id)

    def _look_around(self, sweep: str) -> None:
        """Take note of runs that an earlier attempt created: all where none is known, else the latest."""
        page: str | None = None
        every = not self._known.runs
        wanted = f"tags.`cnnsweep.sweep` = '{sweep}'"
        while True:
            found = self._client.search_runs([self._experiment], wanted, 1, 500, ["start_time DESC"], page)
            for run in found:
                trial = run.data.tags.get("cnnsweep.trial")
                if (number := None if trial is None else int(trial)) not in self._known.runs:
                    self._known.note_run(number, run.info.run_id)
            page = found.token if every else None
            if not page:
                break
        self.doubtful = False

    def _log_values(self, run: str, write: Write, created: bool) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(key, value, time, step) for key, value, time, step in write.metrics]
        params = [Param(key, value) for key, value in write.params.items()]
        tags = [] if created else [RunTag(key, value) for key, value in write.tags.items()]
        while params or tags or metrics:
            self._client.log_batch(run, metrics[:PER_BATCH], params[:100], tags[:100])
            metrics, params, tags = metrics[PER_BATCH:], params[100:], tags[100:]

    def _log_artifacts(self, run: str, write: Write) -> None:
        folders = [folder for folder in write.folders if folder.is_dir()]
        if not (write.texts or write.curves or folders):
            return
        repository = self._repository(run)
        with tempfile.TemporaryDirectory() as made:
            for name, content in write.texts.items():
                Path(made, name).write_text(content, encoding="utf-8")
            if write.curves:
                _draw(write.curves, Path(made, "curves.png"))
            for folder in (Path(made), *folders):
                repository.log_artifacts(str(folder))

    def _repository(self, run: str) -> ArtifactRepository:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if run not in self._places:
            self._places[run] = self._client.get_run(run).info.artifact_uri
        return get_artifact_repository(self._places[run], tracking_uri=self._uri)

    def _log_data(self, run: str, data: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        name, digest, source = (str(data.get(key, "unknown")) for key in ("name", "digest", "source"))
        rest = {key: value for key, value in data.items() if key not in ("name", "digest", "source")}
        dataset = Dataset(
            name,
            digest[:36],
            "local",
            json.dumps({"uri": source}),
            profile=json.dumps(rest) if rest else None,
        )
        self._client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _log_model(self, run: str, write: Write, folder: Path) -> None:
        from mlflow.entities import LoggedModelOutput

        mark = write.tags["cnnsweep.final"]
        wanted = f"source_run_id = '{run}' AND tags.`cnnsweep.final` = '{mark}'"
        model = next(iter(self._client.search_logged_models([self._experiment], wanted)), None)
        if model is None:
            model = self._client.create_logged_model(
                self._experiment, "model", run, {"cnnsweep.final": mark}, model_type="keras"
            )
        if model.status != "READY":
            self._client.log_model_artifacts(model.model_id, str(folder))
            self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
        self._client.set_tag(run, "cnnsweep.model_uri", f"models:/{model.model_id}")


def is_lasting(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in LASTING
    return isinstance(error, MISTAKES)


def _draw(columns: Mapping[str, list[float]], path: Path) -> None:
    from cnnsweep.training import curve_plot as sketch

    try:
        sketch.save_curves(columns, path)
    except Exception as error:  # a picture is not worth the numbers
        _log.warning("no learning curves: %s", error)
