"""Keras callbacks of the user's own, called as `fit` calls them."""

from __future__ import annotations

from collections.abc import Sequence
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
    (found,) = faults([entry])
    assert fault in found


def faults(entries: list[dict[str, Any]], *overrides: str, network: Sequence[str] = NETWORK) -> list[str]:
    config = compose([*network, *overrides])
    config = config.replace(training=config.training.replace(callbacks=entries))
    with pytest.raises(StopIteration) as end:
        next(callbacks.check(Inspection(config, (8, 8, 1), 10)))
    return [*end.value.value]


PLATEAU = {"_target_": "keras.callbacks.ReduceLROnPlateau", "monitor": "val_loss"}
STOPPING = {"_target_": "keras.callbacks.EarlyStopping", "monitor": "val_los", "mode": "min"}
OWN: dict[str, Any] = {"_target_": "own_callbacks.Noting"}
OWN_MODEL = ("space=none", "model=function", "model.call=own_models.compiled")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("training.schedule=cosine", "needs training.schedule=constant; it is cosine"),
        ("training.warmup_epochs=0.5", "needs training.warmup_epochs=0; it is 0.5"),
        ("space.training.schedule.values=[constant, cosine]", "needs training.schedule=constant; it is searched"),
        ("space.training.warmup_epochs={min: 0, max: 1}", "needs training.warmup_epochs=0; it is searched"),
    ],
)
def test_one_that_sets_the_learning_rate_needs_a_constant_one(override: str, fault: str) -> None:
    assert faults([OWN, PLATEAU], override) == [
        f"training.callbacks.1: ReduceLROnPlateau sets the learning rate, which {fault}"
    ]
    assert faults([PLATEAU]) == []
    assert faults([PLATEAU], override, network=OWN_MODEL) == []


def test_a_monitor_is_a_metric_of_trials() -> None:
    assert faults([STOPPING]) == [
        "unknown training.callbacks.0: monitor 'val_los', did you mean 'val_loss'? (one of: accuracy, epoch_seconds, "
        "learning_rate, loss, val_accuracy, val_loss)"
    ]
    assert faults([OWN, STOPPING]) == []  # which may add one of this name
    assert faults([STOPPING], network=OWN_MODEL) == []


def test_a_text_is_no_schedule_of_a_callback() -> None:
    entry = {"_target_": "keras.callbacks.LearningRateScheduler", "schedule": "my.f"}
    (found,) = faults([entry])
    assert found.startswith("training.callbacks.0: schedule is 'my.f', keras.callbacks.LearningRateScheduler takes a")
