"""Whether an MLflow server can be used: asked before any training, each fault with what to do about it."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnsweep.errors import UserError
from cnnsweep.tracking.credentials import redact

ANSWER_SECONDS = 5
ARTIFACT_SECONDS = 30
PROBE = "cnnsweep.txt"
"""A small file beside the runs' folders. It stays: not every store lets its users remove what they put there."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or write http://USER:PASSWORD@HOST:PORT"


def expect_server(uri: str, experiment: str) -> None:
    """Raise UserError unless an MLflow server answers at `uri` and lets us in."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    endpoint = "/api/2.0/mlflow/experiments/get-by-name"
    try:
        answer = http_request(
            get_default_host_creds(uri),
            endpoint,
            "GET",
            max_retries=0,
            raise_on_status=False,
            timeout=ANSWER_SECONDS,
            params={"experiment_name": experiment},
        )
    except (MlflowException, OSError) as error:
        raise UserError(
            f"tracking.uri: no answer from {uri} within {ANSWER_SECONDS} s ({_reason(error)})\n"
            "start it (mlflow server), correct the address, or use tracking=local"
        ) from None
    if answer.status_code == 200 and _json(answer).keys() & {"experiment"}:
        return
    if answer.status_code == 404 and _json(answer).get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        return
    raise UserError(f"tracking.uri: {_refusal(uri, answer)}")


def _refusal(uri: str, answer: Any) -> str:
    if answer.status_code == 401:
        return f"{uri} does not accept the user name and password (401)\n{CREDENTIALS}"
    if answer.status_code == 403 and "Host header" in answer.text:
        host = urllib.parse.urlsplit(uri).netloc
        return f"{uri} does not know itself by that name (403)\nstart it with --allowed-hosts '{host}' among the others"
    if answer.status_code == 403:
        return f"{uri} forbids this user to read experiments (403)\n{CREDENTIALS}"
    if message := _json(answer).get("message"):
        return f"{uri} answers with an error ({answer.status_code}): {_line(str(message))}"
    return f"what answers at {uri} is no MLflow server (status {answer.status_code}); correct the host, port or path"


def expect_artifacts(uri: str, location: str) -> None:
    """Raise UserError unless files can be put where the experiment's runs keep theirs; puts one."""
    place = redact(location)
    advice = "start the server with --artifacts-destination PLACE, then it passes the files on (for new experiments)"
    local = _path(location)
    if local and not local.is_dir() and urllib.parse.urlsplit(uri).hostname not in LOOPBACK:
        raise UserError(
            f"tracking.uri: {uri} wants the files of its runs in {local}, a folder that this machine does not have\n"
            f"mount it here, or {advice}; an experiment keeps its place: set tracking.experiment to a new one"
        )
    fault = _within(ARTIFACT_SECONDS, lambda: _put(uri, location))
    if fault is not None:
        raise UserError(
            f"tracking.uri: {uri} keeps the files of its runs in {place}, where none can be put ({_reason(fault)})\n"
            f"{advice}; or install and configure on this machine what {urllib.parse.urlsplit(location).scheme}: needs"
        )


def _put(uri: str, location: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory() as made:
        file = Path(made, PROBE)
        file.write_text("Written before a sweep begins, to see whether files can be put here.\n", encoding="utf-8")
        get_artifact_repository(location, tracking_uri=uri).log_artifact(str(file))


def _within(seconds: float, action: Callable[[], None]) -> Exception | None:
    """What `action` raises, or a TimeoutError; stores' own libraries try for minutes."""
    faults: list[Exception] = []

    def work() -> None:
        try:
            action()
        except Exception as error:
            faults.append(error)

    thread = threading.Thread(target=work, name="probe", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return TimeoutError(f"no answer within {seconds:g} s")
    return faults[0] if faults else None


def _path(location: str) -> Path | None:
    parts = urllib.parse.urlsplit(location)
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme in ("", "file") else None


def _json(answer: Any) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = answer.json()
        if isinstance(found, dict):
            return found
    return {}


def _reason(error: Exception) -> str:
    """What is at the bottom of a connection's nested errors.

    >>> _reason(ValueError("Max retries exceeded (Caused by X(Y: failed: [Errno 111] Connection refused))"))
    '[Errno 111] Connection refused'
    """
    told = str(error)
    found = re.search(r"\[Errno -?\d+\] [\w ]+|CERTIFICATE_VERIFY_FAILED[\w: ,'-]*|timed out", told)
    return found[0] if found else _line(told) or type(error).__name__


def _line(text: str) -> str:
    return (redact(text).strip().splitlines() or [""])[0][:200]
