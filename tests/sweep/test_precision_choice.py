"""The precision of a sweep: settled once for its device, or refused."""

from __future__ import annotations

import json

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.executors.inline import InlineExecutor
from cnnsweep.sweep import precision
from cnnsweep.training.precision import Device

FAST = Device("a fast device", ("float32", "mixed_bfloat16", "mixed_float16"), "mixed_bfloat16", 2.7)
CPU = Device("the CPU (x86_64)", ("float32", "mixed_bfloat16"), "float32")


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """Settle a config for a device; returns the precision, the number of times that it was asked, and what was said."""

    def settled(device, *overrides, plain=False):
        asked, said = [], []
        monkeypatch.setattr(precision, "_is_plain_cpu", lambda _: plain)
        monkeypatch.setattr(precision, "_ask", lambda _, measure: asked.append(measure) or device)
        config = compose([f"tracking.dir={tmp_path}", *overrides])
        return precision.settle(config, InlineExecutor(), said.append).training.precision, asked, said

    return settled


def test_auto_measures_a_device_once(settle, tmp_path):
    assert settle(FAST) == (
        "mixed_bfloat16", [True], ["training in mixed_bfloat16: 2.7 times the speed of float32 on a fast device"],
    )  # fmt: skip
    assert settle(FAST) == ("mixed_bfloat16", [], [])
    assert list(json.loads((tmp_path / "precision.json").read_text()).values()) == ["mixed_bfloat16"]


def test_a_damaged_file_is_measured_again(settle, tmp_path):
    (tmp_path / "precision.json").write_text("{")
    assert settle(CPU) == ("float32", [True], [])


def test_cores_without_instructions_for_it_are_not_asked(settle):
    assert settle(FAST, plain=True) == ("float32", [], [])
    assert settle(FAST, "training.precision=float32") == ("float32", [], [])


def test_a_precision_that_is_named_is_checked(settle):
    assert settle(CPU, "training.precision=mixed_bfloat16")[:2] == ("mixed_bfloat16", [False])
    with pytest.raises(UserError, match=r"mixed_float16: the CPU \(x86_64\) cannot; it can: float32, mixed_bfloat16"):
        settle(CPU, "training.precision=mixed_float16")


def test_searched_precisions_are_checked(settle):
    values = "+space.training.precision.values"
    assert settle(FAST, f"{values}=[float32,mixed_float16]")[:2] == ("float32", [False])
    with pytest.raises(UserError, match="mixed_float16: the CPU"):
        settle(CPU, f"{values}=[float32,mixed_float16]")
    with pytest.raises(UserError, match="auto is no precision to compare; name some of float32, mixed_bfloat16"):
        settle(FAST, f"{values}=[auto,float32]")


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match=r"training.precision.*'bfloat16'.*mixed_bfloat16"):
        compose(["training.precision=bfloat16"])
