"""The UI's addresses, and the UI itself started on a real store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import drawn, posted
from real_sweeps import free_port
from tracked_sweeps import empty_store, settings, shared

from cnnsweep import cli
from cnnsweep.config.objective import Objective
from cnnsweep.errors import UserError
from cnnsweep.journal.events import Event, SweepStarted, to_json
from cnnsweep.tracking.store import connect, open_store
from cnnsweep.tracking.tracker import Tracker
from cnnsweep.ui import hosts
from cnnsweep.ui import server as ui

__all__ = ["empty_store", "shared"]

pytestmark = pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated:DeprecationWarning")


def query(address: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(address).fragment.split("?")[1]).items()}


TRIALS = "tags.`cnnsweep.kind` = 'trial'"


@pytest.mark.parametrize(
    ("sweep", "metric", "view", "shown"),
    [
        ("digits-1", "val_accuracy", None,
         {"searchFilter": f"{TRIALS} AND tags.`cnnsweep.sweep` = 'digits-1'",
          "orderByKey": "metrics.`best_val_accuracy`", "orderByAsc": "false"}),
        (None, "val_loss", None,
         {"searchFilter": TRIALS, "orderByKey": "metrics.`best_val_loss`", "orderByAsc": "true"}),
        ("digits-1", "val_loss", "digits-1", {"viewStateShareKey": "digits-1"}),  # MLflow ignores it beside a filter
    ],
)  # fmt: skip
def test_the_address_shows_the_trials_best_first(sweep: Any, metric: str, view: Any, shown: dict[str, str]) -> None:
    address = ui.Target("sqlite:///x", "3", sweep, Objective.of(metric), view).address("http://127.0.0.1:5000/")
    assert address.startswith("http://127.0.0.1:5000/#/experiments/3/runs?")
    assert query(address) == {**shown, "workflowType": "machine_learning", "compareRunsMode": "CHART"}


def test_a_server_is_only_opened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    ui.serve("http://host:5000", lambda base: f"{base}/#/x")
    assert opened == ["http://host:5000/#/x"]
    assert capsys.readouterr().out == "MLflow UI: http://host:5000/#/x\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_at_once_though_the_browser_runs_in_the_foreground(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    stopped: list[str] = []

    @contextlib.contextmanager
    def server(uri: str, **_: Any) -> Iterator[str]:
        try:
            yield "http://127.0.0.1:5000"
        finally:
            stopped.append(uri)

    monkeypatch.setattr(ui, "server", server)
    monkeypatch.setattr("webbrowser.open", lambda _: time.sleep(60))
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    began = time.monotonic()
    try:
        ui.serve("sqlite:///x")
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
    assert stopped == ["sqlite:///x"]
    assert time.monotonic() - began < 30


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"), ui.server("sqlite:///x", port=port):
            pass


def test_a_proxy_for_other_machines_is_not_asked_whether_the_ui_is_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    serve = f"import http.server as s; s.test(s.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
    code = f"import threading; threading.Timer(20, __import__('os')._exit, (0,)).start(); {serve}"
    with (
        (tmp_path / "log").open("wb+") as log,
        subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log) as process,
    ):
        ui._wait(f"http://127.0.0.1:{port}", process, log)
        assert process.poll() is None
        process.kill()


def test_no_database() -> None:
    with pytest.raises(UserError, match="no database"), ui.server("ftp://ann:hush@host"):
        pass


def test_the_store_is_not_on_the_command_line() -> None:
    uri = "postgresql://ann:hush@host/db"
    assert ui._environment(uri, "127.0.0.1", 5000)["MLFLOW_BACKEND_STORE_URI"] == uri


@pytest.mark.parametrize(
    ("host", "given", "accepted", "refused"),
    [
        ("0.0.0.0", {}, ["http://localhost:5", f"http://{socket.gethostname().lower()}:5"], ["http://colleague.example:5"]),
        ("gpu1", {}, ["http://gpu1:5", "http://127.0.0.1:5"], ["http://gpu2:5", "http://gpu1:6"]),
        ("0.0.0.0", {hosts.HOSTS: "proxy.example"}, ["https://proxy.example", "http://localhost:5"], ["https://x.example"]),
        ("127.0.0.1", {hosts.HOSTS: "proxy.example"}, ["https://proxy.example", "http://127.0.0.1:5"], []),
        ("::", {hosts.ORIGINS: "https://a.example"}, ["http://[::1]:5"], ["http://[::]:5"]),
    ],
    ids=["everywhere", "a-name", "a-proxy", "a-proxy-here", "ipv6"],
)  # fmt: skip
def test_hosts_and_origins_that_the_server_accepts(
    host: str, given: dict[str, str], accepted: list[str], refused: list[str]
) -> None:
    found = hosts.variables(host, 5, given)
    names, origins = found[hosts.HOSTS].split(","), found[hosts.ORIGINS].split(",")
    for address in accepted:
        assert address in origins
        assert address.partition("://")[2] in names
    assert not {*refused} & {*origins}
    assert not {address.partition("://")[2] for address in refused} & {*names}
    assert {*given.get(hosts.ORIGINS, "").split(",")} - {""} <= {*origins}
    assert "*" not in "".join(found.values())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_a_server_for_this_machine_alone_keeps_mlflow_s_own_rules(host: str) -> None:
    assert hosts.variables(host, 5000, {}) == {}
    assert hosts.base_address(host, 5000) == hosts.health_address(host, 5000)


@pytest.mark.parametrize("host", hosts.EVERYWHERE)
def test_the_address_that_is_printed_is_one_that_others_can_use(host: str) -> None:
    address = urlsplit(hosts.base_address(host, 5000)).hostname
    assert address not in (None, *hosts.EVERYWHERE)
    assert not hosts.is_local(str(address)), "this machine has no network"
    assert f"{urlsplit(hosts.base_address(host, 5000)).netloc}" in hosts.variables(host, 5000, {})[hosts.HOSTS]


@pytest.fixture(scope="module")
def open_ui(shared: tuple[Path, list[Event], Tracker]) -> Iterator[tuple[ui.Target, str, int]]:
    """The UI on all of this machine's addresses, which others call by a name of their own as well."""
    port = free_port()
    target = ui.find(settings(shared[0], f"sqlite:///{shared[0]}/mlflow.db"), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(hosts.HOSTS, f"colleague.example:{port}")
        with ui.server(target.uri, host="0.0.0.0", port=port) as base:
            yield target, base, port


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [(None, 200), ("colleague.example", 200), ("attacker.example", 403)])
def test_a_page_under_a_name_of_the_server_may_post(
    open_ui: tuple[ui.Target, str, int], name: str | None, status: int
) -> None:
    _, base, port = open_ui
    host = f"{name}:{port}" if name else urlsplit(base).netloc
    headers = {"Host": host, "Origin": f"http://{host}"}
    route = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/runs/search"
    assert posted(route, {"experiment_ids": ["1"], "max_results": 1}, headers) == status


@pytest.mark.slow
def test_a_colleague_s_browser_shows_the_trials(open_ui: tuple[ui.Target, str, int], tmp_path: Path) -> None:
    target, _, port = open_ui
    address = target.address(f"http://colleague.example:{port}")
    for attempt in range(1, 7):  # on a busy machine the page is reported done before its table is
        shown = drawn(address, tmp_path / f"profile-{attempt}", 30 * attempt, {"colleague.example": "127.0.0.1"})
        if "005 · " in shown:
            break
    assert [number for number in ("001 · ", "002 · ", "005 · ") if number not in shown] == []


@pytest.fixture
def sweeps(tmp_path: Path) -> Path:
    for age, (id_, name) in enumerate([("digits-2", "digits"), ("fashion-9", "fashion"), ("digits-1", "digits")]):
        journal = tmp_path / "sweeps" / id_ / "journal.jsonl"
        journal.parent.mkdir(parents=True)
        config = {"objective": "val_loss", "tracking": {"uri": None, "experiment": "tests"}}
        event = SweepStarted(id=id_, sweep=name, format=1, config=config)
        journal.write_text(json.dumps(to_json(event)) + "\n{cut off")
        os.utime(journal, (1000 - age, 1000 - age))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [(None, "digits-2"), ("digits", "digits-2"), ("digits-1", "digits-1"), ("fashion", "fashion-9"), ("all", None)],
)
def test_sweep_by_id_by_name_or_the_latest(sweeps: Path, name: str | None, found: str | None) -> None:
    sweep, config = ui._find_here(sweeps, name)
    assert (sweep, config["objective"]) == (found, "val_loss")


def test_a_sweep_that_does_not_exist(sweeps: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'fashion'"):
        ui._find_here(sweeps, "fashon")
    with pytest.raises(UserError, match=r"there is no sweep in .*sweeps yet"):
        ui.find(settings(sweeps / "sweeps"), None)


@pytest.mark.parametrize("line", ["", "[1]", "{}", '{"event": []}', "{cut off"])
def test_a_damaged_journal_is_passed_over(sweeps: Path, line: str) -> None:
    (sweeps / "sweeps" / "digits-2" / "journal.jsonl").write_text(f"{line}\n")
    assert ui._find_here(sweeps, "digits")[0] == "digits-1"


def test_command_opens_the_latest_sweep(sweeps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []
    open_store(settings(sweeps))
    monkeypatch.setattr(ui, "serve", lambda uri, page, **_: shown.append((uri, page("http://h"))))
    assert cli.main(["ui", f"tracking.dir={sweeps}", "--no-browser"]) == 0
    ((uri, shown_address),) = shown
    assert uri == f"sqlite:///{sweeps}/mlflow.db"
    assert "digits-2" in query(shown_address)["searchFilter"]
    assert query(shown_address)["orderByAsc"] == "true"


def test_a_sweep_in_a_store_that_is_named_needs_no_folder(tmp_path: Path) -> None:
    """As with a server: another machine ran the sweep, and this one knows the store alone."""
    uri = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    elsewhere = settings(tmp_path / "empty", uri)
    open_store(elsewhere)
    client = connect(uri)
    config = {"objective": "val_loss", "space": {"training": {"dropout": {"min": 0.0, "max": 0.5}}}}
    experiment = client.create_experiment("others", artifact_location=(tmp_path / "files").as_uri())
    for number in (1, 2):
        tags = {"cnnsweep.kind": "sweep", "cnnsweep.sweep": f"digits-{number}"}
        run = client.create_run(experiment, number, tags).info.run_id
        client.log_param(run, "name", "digits")
        client.log_param(run, "objective", "val_loss")
        client.log_dict(run, config, "config.yaml")
    assert ui.find(elsewhere, None) == ui.find(elsewhere, "digits")
    found = ui.find(elsewhere, "digits-1")
    assert found == ui.Target(uri, experiment, "digits-1", Objective.of("val_loss"))
    assert ui.find(elsewhere, "all").sweep is None
    with pytest.raises(UserError, match="did you mean 'digits-1'"):
        ui.find(elsewhere, "digist-1")


@pytest.mark.parametrize("variable", ["MLFLOW_STATIC_PREFIX=/mlflow", "MLFLOW_ARTIFACTS_ONLY=true"])
def test_settings_of_another_server_are_not_the_ui_s(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """As MLflow's own command line reads them, with which the UI is started."""
    from mlflow.cli import server as command

    monkeypatch.setenv(*variable.split("="))
    monkeypatch.setattr(os, "environ", ui._environment("sqlite:///x", "127.0.0.1", 5000))
    given = command.make_context("server", []).params
    assert (given["static_prefix"], given["artifacts_only"], given["backend_store_uri"]) == (None, False, "sqlite:///x")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_runs_until_it_is_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    handle = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a job in the background ignores SIGINT
    code = f"import signal, sys; {handle}; from cnnsweep.ui.server import serve; serve(sys.argv[1], open_browser=False)"
    command = [sys.executable, "-u", "-c", code, open_store(settings(tmp_path))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout
    base = process.stdout.readline().removeprefix("MLflow UI: ").strip()
    with urllib.request.urlopen(f"{base}/health", timeout=60) as answer:
        assert answer.status == 200
    body = json.dumps({"experiment_ids": ["1"], "max_results": 1}).encode()
    request = urllib.request.Request(f"{base}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=90)
    assert (process.returncode, errors) == (0, "")
    assert not {"mlartifacts", "mlruns"} & set(os.listdir(tmp_path))
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{base}/health", timeout=5)
