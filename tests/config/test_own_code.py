"""Objectives of code of the user's own."""

from __future__ import annotations

from typing import Any

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.objective import Objective
from cnnsweep.config.own_code import read
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError

OWN = ("job=function", "job.call=own.main")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("val_rmse", [("val_rmse", "min")]),
        ("val_f1_score", [("val_f1_score", "max")]),
        ({"tokens": "max"}, [("tokens", "max")]),
        ({"neg_log_loss": "max"}, [("neg_log_loss", "max")]),
        ({"val_loss": "max"}, [("val_loss", "max")]),
        (["val_accuracy", {"latency": "min"}], [("val_accuracy", "max"), ("latency", "min")]),
    ],
)
def test_the_direction_is_known_by_the_name_or_given(value: Any, expected: list[tuple[str, str]]) -> None:
    found = read(value)
    assert [(o.metric, o.direction) for o in Objective.of(found).all] == expected
    assert read(found) == found  # as a journal has it


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("tokens", r"is tokens better the larger or the smaller\? say objective=\{tokens: max\}"),
        ("neg_mean_squared_error", r"is neg_mean_squared_error better the larger or the smaller\?"),
        ("brier_score", r"is brier_score better the larger or the smaller\?"),
        ({"tokens": "up"}, "unknown direction of objective tokens 'up'"),
        (["val_f1", "val_f1"], "val_f1 is given twice"),
        ("a=b", "'a=b' cannot be a metric's name"),
    ],
)
def test_what_makes_no_sense_is_refused(value: Any, error: str) -> None:
    with pytest.raises(UserError, match=error):
        read(value)


def test_only_code_of_the_users_own_may_have_any_objective() -> None:
    config = compose([*OWN, "objective={tokens: max}"])
    assert Config.from_plain(config.plain()) == config
    with pytest.raises(UserError, match="unknown objective 'tokens'"):
        compose(["objective=tokens"])
