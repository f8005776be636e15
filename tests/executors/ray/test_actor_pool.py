"""A cluster that is lost: whichever call meets it, the sweep is told so in one way."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from grpc import RpcError

from cnnsweep.executors.base import ExecutorGoneError
from cnnsweep.executors.ray import actor_pool, cluster
from cnnsweep.executors.ray.actor import ActorSettings
from cnnsweep.executors.ray.actor_pool import ActorPool, RemoteActor
from cnnsweep.executors.ray.cluster import Node

LOST = {
    "noticed": (False, Exception("Ray Client is not connected. Please connect by calling `ray.init`.")),
    "not noticed yet": (True, ConnectionError("Failed during this or a previous request.")),
    "a call is broken": (True, RpcError("Stream removed")),
    "asking fails": (OSError("the channel is closed"), Exception("Ray Client is not connected.")),
}


def lost_pool(monkeypatch: pytest.MonkeyPatch, there: object, error: Exception) -> tuple[ActorPool, RemoteActor]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    def is_initialized() -> object:
        if isinstance(there, Exception):
            raise there
        return there

    monkeypatch.setattr(cluster, "head", lambda: None)
    pool = ActorPool(ActorSettings("sweep", {}, {}, (), "."), 1.0, 0.0)
    fake = SimpleNamespace(is_initialized=is_initialized, wait=fail, get=fail, exceptions=pool._ray.exceptions)
    monkeypatch.setattr(pool, "_ray", fake)
    calls = SimpleNamespace(kill=SimpleNamespace(remote=fail), step=SimpleNamespace(remote=fail))
    remote = RemoteActor(calls, Node("1", "head", 1, 0))  # type: ignore[arg-type]
    pool._calls["a call"] = remote  # type: ignore[index]
    return pool, remote


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("call", ["kill", "kill a waiting job", "order", "collect", "read"])
def test_a_cluster_that_is_lost_is_told_in_one_way(monkeypatch: pytest.MonkeyPatch, lost: str, call: str) -> None:
    pool, remote = lost_pool(monkeypatch, *LOST[lost])
    remote.asked = call == "kill"
    if call == "read":
        monkeypatch.setattr(pool._ray, "wait", lambda refs, **_: (refs, []))
    calls = {
        "order": lambda: pool.order(remote, True),
        "collect": lambda: pool.collect(0),
        "read": lambda: pool.collect(0),
    }
    with pytest.raises(ExecutorGoneError, match=r"^the Ray cluster does not answer any more$"):
        calls.get(call, lambda: pool.kill(remote, "too slow"))()


def test_a_head_that_does_not_answer_for_a_while_is_a_lost_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = lost_pool(monkeypatch, True, OSError("a question to the head would block"))
    pool._calls.clear()
    monkeypatch.setattr(pool, "_head", ("127.0.0.1", 1))
    assert pool.collect(0) == []
    pool._looked, pool._heard = 0.0, time.monotonic() - actor_pool.SILENT - 1
    with pytest.raises(ExecutorGoneError, match=r"^the Ray cluster does not answer any more$"):
        pool.collect(0)


def test_a_question_about_nodes_that_breaks_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, _ = lost_pool(monkeypatch, True, RpcError("Stream removed"))
    pool._calls.clear()
    asked: list[int] = []

    def alive() -> list[Node]:
        asked.append(1)
        raise RpcError("Stream removed")

    monkeypatch.setattr(cluster, "alive", alive)
    assert pool.collect(0) == []
    assert asked == [1]


def test_other_errors_are_those_that_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, remote = lost_pool(monkeypatch, True, TypeError("no such argument"))
    with pytest.raises(TypeError, match="no such argument"):
        pool.kill(remote, "too slow")
