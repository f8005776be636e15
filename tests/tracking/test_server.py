"""Sweeps through a shared MLflow server on PostgreSQL, both of which are killed meanwhile; and unusable servers."""

from __future__ import annotations

import http.server
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_sweeps as real
import yaml
from browser import drawn, posted
from postgres import PASSWORD, Postgres, programs
from tracked_sweeps import settings

import cnnsweep
from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.sweep.catalog import new_id
from cnnsweep.tracking import store
from cnnsweep.tracking.store import connect, expect_artifacts, find_store, open_store
from cnnsweep.ui import server as ui

pytestmark = pytest.mark.timeout(900)  # several starts of servers and drivers, on a machine that may be busy
COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    if (found := programs()) is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    made = Postgres(found)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def server(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """Started with the command of deploy/compose.yaml, its host, port, workers and artifact folder apart."""
    program, command, *options = COMPOSE["services"]["server"]["command"]
    assert (program, command) == ("mlflow", "server")
    folder = tmp_path_factory.mktemp("server")
    destination = "--artifacts-destination="
    options = [f"{destination}{folder}/served" if o.startswith(destination) else o for o in options]
    made = real.Server(folder, database.uri, options=options)
    hosts = (f"127.0.0.1:{made.port}", f"mlflow.example.org:{made.port}", "proxy.example.org")
    values = {"MLFLOW_ALLOWED_HOSTS": ",".join(hosts)}
    values["MLFLOW_ALLOWED_ORIGINS"] = ",".join(
        [*(f"http://{host}" for host in hosts[:2]), "https://proxy.example.org"]
    )
    for name, value in COMPOSE["services"]["server"]["environment"].items():
        if name.startswith("MLFLOW_SERVER_"):
            made.variables[name] = values.get(re.sub(r"\$\{(\w+):.*", r"\1", value), value)
    made.start()
    yield made
    made.kill()


def failures(folder: Path) -> int:
    """The number of times that sending to MLflow began to fail."""
    return (real.sweep_folder(folder) / "log.txt").read_text().count("cnnsweep.tracking: attempt 1:")


def through_an_outage(sweeps: dict[Path, Any], down: Callable[[], None], up: Callable[[], None]) -> None:
    """Break something, wait until all sweeps notice, repair it, wait until they have sent all events."""
    before = {folder: failures(folder) for folder in sweeps}
    down()
    workers = []
    for folder, driver in sweeps.items():
        known = len(real.events(folder))
        real.wait_for(partial(lambda f, n: len(real.events(f)) > n, folder, known), "something to send", driver)
        workers += real.workers(driver.pid)
        for worker in workers:  # training waits here only so that it does not end before the server is back
            worker.suspend()
    for folder, driver in sweeps.items():
        real.wait_for(partial(lambda f: failures(f) > before[f], folder), "a failure to send", driver)
    up()
    for folder, driver in sweeps.items():
        real.wait_for(partial(lambda f: not real.unsent(f), folder), "the events that had waited", driver)
    for worker in workers:
        worker.resume()


@pytest.mark.slow
def test_two_sweeps_at_once_while_database_and_server_are_killed(
    tmp_path: Path, server: real.Server, database: Postgres
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    overrides = (*real.TINY, "training.epochs=30", "budget.trials=2", "tracking=server", f"tracking.uri={server.uri}")
    overrides = (*overrides, "tracking.gallery=1", "tracking.report=true")
    sweeps = {folder: real.start(folder, *overrides, f"seed={seed}") for seed, folder in enumerate(folders)}
    for folder, driver in sweeps.items():
        real.wait_for(partial(lambda f: len(real.events(f)) > 4, folder), "an epoch", driver)
    through_an_outage(sweeps, database.stop, database.start)
    through_an_outage(sweeps, server.kill, server.start)
    assert [driver.wait(real.PATIENCE) for driver in sweeps.values()] == [0, 0], (folders[0] / "output.txt").read_text()

    client = connect(server.uri)
    for folder in folders:
        state = real.state(folder)
        assert [(e.status, len(e.curve)) for e in state.trials.values()] == [("completed", 30)] * 2
        assert real.disagreements(folder, server.uri) == []
        assert real.unsent(folder) == 0
        assert files_differ(folder, client, tmp_path / f"{folder.name}-back") == []
        assert {p.name for p in (folder / "mlruns").iterdir()} & {"artifacts", "mlflow.db"} == set()

    elsewhere = ("tracking=server", f"tracking.uri={server.uri}", f"tracking.dir={tmp_path / 'another'}")
    trials = cnnsweep.trials(real.sweep_folder(folders[0]).name, *elsewhere)
    assert list(trials["epochs"]) == [30, 30]


def files_differ(folder: Path, client: Any, back: Path) -> list[str]:
    """The files on disk that the server does not return unchanged."""
    sweep = real.sweep_folder(folder)
    experiment = client.get_experiment_by_name("cnnsweep")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    found, compared = [], 0
    for run in client.search_runs([experiment.experiment_id], f"tags.`cnnsweep.sweep` = '{sweep.name}'"):
        trial = run.data.tags.get("cnnsweep.trial")
        here = sweep / "trials" / f"{int(trial):03d}" / "artifacts" if trial else sweep
        kept = [p for p in (here if trial else here / "report").rglob("*") if p.is_file()]
        client.download_artifacts(run.info.run_id, "", str(back.joinpath(run.info.run_id).absolute()) + os.sep)
        for path in kept:
            there = back / run.info.run_id / path.relative_to(here)
            compared += 1
            if not there.is_file() or there.read_bytes() != path.read_bytes():
                found.append(f"{trial}: {path.relative_to(here)}")
    assert compared > 3
    return found


@pytest.mark.slow
def test_a_host_name_that_the_server_does_not_allow(server: real.Server, tmp_path: Path) -> None:
    address = server.uri.replace("127.0.0.1", "localhost")
    with pytest.raises(
        UserError, match=rf"does not know itself by that name.*\n.*--allowed-hosts 'localhost:{server.port}'"
    ):
        open_store(settings(tmp_path, address))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("mlflow.example.org:{port}", "http://mlflow.example.org:{port}", 200),
        ("proxy.example.org", "https://proxy.example.org", 200),  # TLS ends at the proxy
        ("mlflow.example.org:{port}", "http://attacker.example", 403),
        ("attacker.example:{port}", "http://attacker.example:{port}", 403),
    ],
    ids=["a-name", "a-proxy", "another-page", "another-name"],
)
def test_the_server_s_page_may_post_under_its_names(server: real.Server, host: str, origin: str, status: int) -> None:
    headers = {"Host": host.format(port=server.port), "Origin": origin.format(port=server.port)}
    address = f"{server.uri}/ajax-api/2.0/mlflow/experiments/search"
    assert posted(address, {"max_results": 1}, headers) == status


@pytest.mark.slow
def test_the_server_s_page_in_a_browser_of_another_machine(server: real.Server, tmp_path: Path) -> None:
    open_store(settings(tmp_path, server.uri, "looked-at"))
    address = f"http://mlflow.example.org:{server.port}/#/experiments"
    for attempt in range(1, 7):  # on a busy machine the page is reported done before its table is
        page = drawn(address, tmp_path / f"profile-{attempt}", 30 * attempt, {"mlflow.example.org": "127.0.0.1"})
        if "looked-at" in page:
            break
    assert "looked-at" in page


@pytest.mark.slow
def test_a_sweep_straight_into_a_database_with_a_password(
    database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "/" in PASSWORD, "which no pattern for addresses expects in a password"
    uri = f"{database.uri.replace(f'mlflow:{PASSWORD}@', '')}?user=mlflow&password={PASSWORD}"
    where = ("tracking=server", f"tracking.uri='{uri}'", "tracking.experiment=straight")
    one = ("training.epochs=1", "budget.trials=1", "tracking.report=true")
    code, output = real.run(tmp_path, *real.TINY, *one, *where)
    assert code == 0, output
    sweep = real.sweep_folder(tmp_path)
    assert (sweep / "report" / "report.html").is_file(), "made with the password, which only the process has"
    assert "report:  " in output
    assert PASSWORD not in output
    found = subprocess.run(["grep", "-rlaF", PASSWORD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.stdout == "", "a credential is in a file"
    client = connect(uri)
    experiment = client.get_experiment_by_name("straight").experiment_id
    runs = client.search_runs([experiment])
    assert {run.data.tags["cnnsweep.kind"] for run in runs} == {"sweep", "trial"}
    assert PASSWORD not in str([run.to_dictionary() for run in runs])
    for run in runs:
        assert run.info.artifact_uri.startswith((tmp_path / "mlruns" / "artifacts").as_uri())

    local = compose([f"tracking.dir={tmp_path / 'mlruns'}"]).tracking
    for name, value in (("PGUSER", "mlflow"), ("PGPASSWORD", PASSWORD)):
        monkeypatch.setenv(name, value)
    assert ui.find(local, None).sweep == sweep.name
    monkeypatch.setenv("PGPASSWORD", "hushhush")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ui.find(local, None).uri == uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match=r"password authentication failed .*\n.*PGUSER and PGPASSWORD$"):
        ui.find(local, None)


@pytest.mark.slow
def test_writing_files_is_tested_with_one_file(server: real.Server, tmp_path: Path) -> None:
    for _ in "ab":
        open_store(settings(tmp_path, server.uri, "tried"))
    experiment = connect(server.uri).get_experiment_by_name("tried").experiment_id
    assert [p.name for p in (server.served / experiment).rglob("*")] == [store.TEST_FILE]


@pytest.mark.slow
def test_a_wrong_password_of_the_database(database: Postgres, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match="password authentication failed") as caught:
        open_store(settings(tmp_path, database.uri.replace(PASSWORD, "hushhush")))
    assert time.monotonic() - began < 60, "MLflow by itself tries for 100 s"
    assert "hushhush" not in str(caught.value)


class Answer(http.server.BaseHTTPRequestHandler):
    """The answers of a proxy, or of another program."""

    status, body = 200, "<html>welcome</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "<html>welcome</html>", "is no MLflow server"),
        (404, "<html>not found</html>", "is no MLflow server"),
        (401, "who are you", "does not accept the user name and password.*\n.*MLFLOW_TRACKING_PASSWORD"),
        (403, "", "forbids this user"),
        (500, '{"error_code": "INTERNAL_ERROR", "message": "the database is away"}', "the database is away"),
    ],
)
def test_an_answer_that_is_no_mlflow_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: str, expected: str
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    handler = type("Handler", (Answer,), {"status": status, "body": body})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=expected) as caught:
            open_store(settings(tmp_path, f"http://ann:hush@127.0.0.1:{answering.server_port}"))
        answering.shutdown()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("status", [403, None])
def test_a_proxy_that_does_not_know_the_server_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    handler = type("Handler", (Answer,), {"status": status, "body": "Access denied"})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        if status is None:
            proxy.shutdown()
            proxy.server_close()
        monkeypatch.setenv("http_proxy", f"http://ann:hush@127.0.0.1:{proxy.server_port}")
        hint = rf"\nit was asked through the proxy http://\*\*\*@127.0.0.1:{proxy.server_port}; no_proxy=gpu1 asks"
        with pytest.raises(UserError, match=hint):
            find_store(settings(tmp_path, "http://gpu1:5000"))
        if status:
            proxy.shutdown()
            monkeypatch.setenv("no_proxy", "gpu1")
            with pytest.raises(UserError) as caught:
                find_store(settings(tmp_path, "http://gpu1:5000"))
            assert "proxy" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 308])
def test_an_address_from_which_writing_is_not_sent_on(tmp_path: Path, status: int) -> None:
    """As of a proxy that sends clients of http:// on to https://: all that could be checked by reading was fine."""

    class Redirect(Answer):
        def do_GET(self) -> None:
            body = b'{"experiment": {}}'
            self.send_response(200 if self.path.startswith("/tracked") else status)
            self.send_header("Location", f"/tracked{self.path}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http.server.HTTPServer(("127.0.0.1", 0), Redirect) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        if status == 308:
            assert find_store(settings(tmp_path, uri)) == uri
        else:
            with pytest.raises(UserError, match=f"sends its clients on to {uri}/tracked; set tracking.uri="):
                find_store(settings(tmp_path, uri))
        server.shutdown()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("nowhere://bucket/x", "Could not find a registered artifact repository for: nowhere://bucket/x"),
        ("mlflow-artifacts://127.0.0.1:{silent}/1", "no answer within 1 s"),
    ],
)
def test_an_artifact_location_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, location: str, expected: str
) -> None:
    monkeypatch.setattr(store, "ARTIFACT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = location.format(silent=silent.getsockname()[1])
        with pytest.raises(UserError, match=rf"where none can be put \({expected}.*\)\nstart the server with"):
            expect_artifacts("http://127.0.0.1:5000", location)


def test_sweeps_of_one_second_have_ids_of_their_own(tmp_path: Path) -> None:
    """Each machine has a folder of its own, so no folder can tell them apart; in MLflow the id is all there is."""
    places = [settings(tmp_path / machine, "http://gpu1:5000") for machine in "abc"]
    assert len({new_id(place, "fashion") for place in places}) == 3


def test_files_in_a_folder_of_another_machine() -> None:
    with pytest.raises(UserError, match="in /not/here/1, a folder that this machine does not have"):
        expect_artifacts("http://gpu1:5000", "file:///not/here/1")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("ftp://host", r"neither http\(s\)://HOST:PORT nor a database"),
        ("mlruns", "neither http"),
        ("http://", "neither http"),
        ("file:///tmp/x", "neither http"),
        ("http://gpu1:50OO", "is no address"),
        ("gpu1:5000", "did you mean 'http://gpu1:5000'"),
        ("htp://gpu1:5000/", "did you mean 'http://gpu1:5000'"),
        ("http://gpu1:5000/#/experiments/1", "is a page of the server; its address is http://gpu1:5000$"),
    ],
)
def test_a_uri_that_is_no_store_s_address(tmp_path: Path, uri: str, expected: str) -> None:
    with pytest.raises(UserError, match=rf"^tracking.uri: .*{expected}"):
        open_store(settings(tmp_path, uri))
