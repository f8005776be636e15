"""The calls to MLflow that bring a run up to date; repeating one changes nothing."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsweep.errors import UserError
from cnnsweep.tracking.locations import artifacts_at
from cnnsweep.tracking.run_updates import RunUpdate
from cnnsweep.tracking.store import connect, find_experiment

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LASTING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
"""MLflow's error codes that another attempt does not cure."""
REFUSED = re.compile(
    r"(?s)(INTERNAL_ERROR: )?('[\w-]+' codec can't encode|A string literal cannot contain NUL)|.*/9h9h\)$"
)
"""Messages with other codes: of a value that is no text, or one that does not fit (SQLAlchemy's DataError)."""
MISTAKES = (LookupError, TypeError, AttributeError, ValueError, FileNotFoundError, NotADirectoryError)
PER_BATCH, PER_PAGE = 800, 500
NAME_LENGTH, TAG_LENGTH = 250, 8000
"""What the databases of MLflow have room for."""
_log = logging.getLogger("cnnsweep.tracking")


class RunWriter:
    """The runs of one sweep in one store.

    `runs` has the run id of each trial's number, the sweep's own under None; new ones are added to it. `doubtful` says
    that an earlier attempt may have created runs that are not in it, which are then looked up by their tags.
    """

    def __init__(self, uri: str, experiment: str, runs: MutableMapping[int | None, str], doubtful: bool = True) -> None:
        self.doubtful = doubtful
        self._uri = uri
        self._name = experiment
        self._runs = runs
        self._client: MlflowClient
        self._experiment = ""
        self._locations: dict[str, str] = {}  # of the artifacts of each run that has not ended

    def open(self) -> None:
        """Connect; where the store does not know the sweep's run (another store), start from nothing."""
        self._client = connect(self._uri)
        from mlflow.exceptions import MlflowException

        self._experiment = find_experiment(self._client, self._name)
        if None in self._runs:
            try:
                self._client.get_run(self._runs[None])
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._runs.clear()

    def problem(self) -> Exception | None:
        """Why the store does not answer a small question, or has the experiment no more; None where all is well."""
        try:
            find_experiment(self._client, self._name)
        except Exception as error:
            return error
        return None

    def send(self, update: RunUpdate) -> None:
        """Bring a run up to date, creating it where it does not exist."""
        if self.doubtful and update.trial not in self._runs:
            self._look_up(update.tags.get("cnnsweep.sweep", ""))
        created = update.trial not in self._runs
        run = self._create(update) if created else self._runs[update.trial]
        self._log_values(run, update, with_tags=not created)
        self._log_artifacts(run, update)
        if update.data:
            self._log_data(run, update.data)
        if update.model and update.model.exists():
            self._log_model(run, update.tags["cnnsweep.final"], update.model)
        if update.status == "RUNNING" and not created:
            self._client.update_run(run, status="RUNNING")
        elif update.status not in (None, "RUNNING"):
            self._client.set_terminated(run, update.status, update.time)
            self._locations.pop(run, None)

    def _create(self, update: RunUpdate) -> str:
        if update.trial is not None and None not in self._runs:
            raise LookupError("the sweep has no run")
        if update.name is None:
            raise LookupError("there is no run")
        parent = {} if update.trial is None else {"mlflow.parentRunId": self._runs[None]}
        start = update.start or update.time
        tags, name = _tags(update) | parent, update.name[:NAME_LENGTH]
        info = self._client.create_run(self._experiment, start, tags, name).info
        self._locations[info.run_id] = info.artifact_uri
        self._runs[update.trial] = info.run_id
        return str(info.run_id)

    def _look_up(self, sweep: str) -> None:
        """Add the runs that an earlier attempt created: all where none is known, else the latest."""
        from mlflow.utils import get_results_from_paginated_fn as every_page

        wanted, search = f"tags.`cnnsweep.sweep` = '{sweep}'", self._client.search_runs
        experiments, order = [self._experiment], ["start_time DESC"]
        most = PER_PAGE if self._runs else None
        for run in every_page(lambda n, page: search(experiments, wanted, 1, n, order, page), PER_PAGE, most):
            trial = run.data.tags.get("cnnsweep.trial")
            self._runs.setdefault(None if trial is None else int(trial), run.info.run_id)
        self.doubtful = False

    def _log_values(self, run: str, update: RunUpdate, with_tags: bool) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(key, value, time, step) for key, value, time, step in update.metrics]
        params = [Param(key, value) for key, value in update.params.items()]
        tags = [RunTag(key, value) for key, value in _tags(update).items()] if with_tags else []
        # The client would also obey MLFLOW_ENABLE_ASYNC_LOGGING, which loses errors, and MLFLOW_ACTIVE_MODEL_ID.
        store = self._client._tracking_client.store
        while params or tags or metrics:
            store.log_batch(run, metrics[:PER_BATCH], params[:100], tags[:100])
            metrics, params, tags = metrics[PER_BATCH:], params[100:], tags[100:]

    def _log_artifacts(self, run: str, update: RunUpdate) -> None:
        folders = [folder for folder in update.folders if folder.is_dir()]
        if not (update.texts or update.curves or folders):
            return
        if run not in self._locations:
            self._locations[run] = self._client.get_run(run).info.artifact_uri
        files = artifacts_at(self._uri, self._locations[run])
        with tempfile.TemporaryDirectory() as made:
            for name, content in update.texts.items():
                Path(made, name).write_text(content, encoding="utf-8")
            if update.curves:
                from cnnsweep.training.pictures import save_curves

                try:
                    save_curves(update.curves, Path(made, "curves.png"))
                except Exception as error:  # a picture is not worth the numbers
                    _log.warning("no learning curves: %s", error)
            for folder in (Path(made), *folders):
                files.log_artifacts(str(folder))

    def _log_data(self, run: str, data: Mapping[str, object]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        name, digest, source = (str(data.get(key, "unknown")) for key in ("name", "digest", "source"))
        rest = {key: value for key, value in data.items() if key not in ("name", "digest", "source")}
        profile = json.dumps(rest) if rest else None
        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source}), profile=profile)
        self._client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _log_model(self, run: str, mark: str, folder: Path) -> None:
        from mlflow.entities import LoggedModelOutput

        tags = {"cnnsweep.final": mark}
        wanted = f"source_run_id = '{run}' AND tags.`cnnsweep.final` = '{mark}'"
        model = next(iter(self._client.search_logged_models([self._experiment], wanted)), None)
        if model is None:
            model = self._client.create_logged_model(self._experiment, "model", run, tags, model_type="keras")
        if model.status != "READY":
            artifacts_at(self._uri, model.artifact_location).log_artifacts(str(folder))
            self._client.finalize_logged_model(model.model_id, "READY")
        outputs = self._client.get_run(run).outputs
        if model.model_id not in {output.model_id for output in (outputs and outputs.model_outputs) or ()}:
            self._client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])  # MLflow refuses it a second time
        self._client.set_tag(run, "cnnsweep.model_uri", f"models:/{model.model_id}", synchronous=True)


def _tags(update: RunUpdate) -> dict[str, str]:
    """A run's tags, cut where they are too long: a command line has no limit."""
    return {k: v if len(v) <= TAG_LENGTH else f"{v[: TAG_LENGTH - 2]} …" for k, v in update.tags.items()}


def is_lasting(error: Exception) -> bool:
    """True where another attempt would fail in the same way."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in LASTING or bool(REFUSED.match(str(error)))
    return isinstance(error, MISTAKES)


class SingleRun:
    """A run outside any sweep, as `train` and `export` log it; raises UserError where the store refuses something."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.began = now()
        self._runs: dict[int | None, str] = {}
        self._writer = RunWriter(uri, experiment, self._runs, doubtful=False)
        self._writer.open()

    @property
    def id(self) -> str:
        """The run's id, once something was sent."""
        return self._runs[None]

    def send(self, **parts: Any) -> None:
        """Write fields of a `RunUpdate`; the first time there must be a `name`."""
        from mlflow.exceptions import MlflowException

        try:
            self._writer.send(RunUpdate(None, now(), start=self.began, **parts))
        except MlflowException as error:
            raise UserError(f"the run cannot be logged to MLflow: {str(error).splitlines()[0]}") from error


def now() -> int:
    """Milliseconds since 1970, as all times in MLflow."""
    return round(time.time() * 1000)
