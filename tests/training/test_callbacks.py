"""Keras callbacks of the user's own, called as `fit` calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import own_callbacks
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.training import callbacks
from cnnsweep.training.train import train
from cnnsweep.trial import Inspection, TrialResult, TrialSpec

NETWORK = ("space=none", "model.blocks=1", "model.filters=2", "training.batch_size=32", "training.precision=float32")


def run(digits: Path, folder: Path, **entry: Any) -> TrialResult:
    config = compose(NETWORK)
    config = config.replace(training=config.training.replace(callbacks=[entry]))
    steps = train(TrialSpec(1, {}, config, 1, folder, digits, 3))
    own_callbacks.EVENTS.clear()
    try:
        next(steps)
        while True:
            steps.send(True)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def test_a_callback_is_called_as_in_one_training(digits: Path, tmp_path: Path) -> None:
    result = run(digits, tmp_path, _target_="own_callbacks.Noting")
    events = own_callbacks.EVENTS
    epochs = [("epoch", n) for n in range(3)]
    assert [e for e in events if e[0] in ("begin", "epoch", "end")] == [("begin", 3), *epochs, ("end",)]
    assert [e for e in events if e[0] == "ended"] == [("ended", n, True) for n in range(3)]
    assert events[1:3] == [("epoch", 0), ("batch", 0)]
    assert ("validated",) in events
    assert (result.status, result.reason) == ("completed", None)


def test_a_callback_may_stop_the_trial(digits: Path, tmp_path: Path) -> None:
    result = run(digits, tmp_path, _target_="own_callbacks.Noting", stop=2)
    assert (result.status, result.epochs) == ("completed", 2)
    assert result.reason == "stopped by a callback after epoch 2"


def test_a_callback_that_raises_fails_its_trial(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no room for the log"):
        run(digits, tmp_path, _target_="own_callbacks.Raising")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"_target_": "own_callback.Noting"}, "training.callbacks.0._target_: cannot import 'own_callback.Noting'"),
        (
            {"_target_": "own_callbacks.Notin"},
            "has no class or function 'Notin', did you mean 'Noting'?",
        ),
        (
            {"_target_": "own_callbacks.Noting", "stpo": 1},
            "callbacks.0: own_callbacks.Noting cannot be made: ",
        ),
        ({"_target_": "math.sqrt", "x": 1}, "training.callbacks.0: math.sqrt cannot be made: "),
        ({"stop": 1}, "training.callbacks.0: expected {_target_: module.Class, …}, got '{'stop': 1}'"),
    ],
)
def test_what_cannot_be_made_is_found_before_the_first_trial(entry: dict[str, Any], fault: str) -> None:
    config = compose(NETWORK)
    config = config.replace(training=config.training.replace(callbacks=[entry]))
    with pytest.raises(StopIteration) as end:
        next(callbacks.check(Inspection(config, (8, 8, 1), 10)))
    (found,) = end.value.value
    assert fault in found
