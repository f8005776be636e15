"""Signals and videos: from arrays of the user's own, and those that are made."""

from __future__ import annotations

import data_sets
import numpy as np
import pytest

from cnnsweep.data import storage
from cnnsweep.data.arrays import Arrays
from cnnsweep.data.loading import load
from cnnsweep.errors import UserError


def npz(tmp_path, kind, x, y=None):
    y = np.arange(len(x)) % 2 if y is None else y
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[::-1], y_test=y[::-1])
    return load(data_sets.config("cnnsweep.data.npz.load", file=str(tmp_path / "own.npz"), kind=kind), 0)


def test_signals_of_ones_own_are_scaled_by_their_spread(tmp_path):
    x = np.random.default_rng(0).normal(0, 5, (20, 30, 3))
    data = npz(tmp_path, "signal", x)
    assert (data.kind, data.input_shape, data.x_train.dtype) == ("signal", (30, 3), np.float32)
    assert data.scale == pytest.approx(1 / data.x_train.std())  # without the signals that validate
    assert npz(tmp_path, "signal", 1e-13 * x).scale == pytest.approx(1e13 * data.scale)
    constant = np.full((20, 30, 1), 0.1, np.float32)
    constant[0] = np.nextafter(np.float32(0.1), np.float32(1))  # but for rounding
    assert npz(tmp_path, "signal", constant).scale == npz(tmp_path, "signal", 0.1 + 1e-15 * x).scale == 1
    storage.save(data, tmp_path / "saved")
    assert storage.open_saved(tmp_path / "saved").kind == "signal"


def test_videos_of_ones_own(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 4, 6, 5, 1), np.uint8)
    data = npz(tmp_path, "video", x)
    assert (data.kind, data.input_shape, data.scale) == ("video", (4, 6, 5, 1), 1 / 255)
    assert "16 training, 4 validation, 20 test videos, 4×6×5×1" in data.describe()
    assert npz(tmp_path, "video", x.astype("int64")).digest == data.digest


@pytest.mark.parametrize(
    ("kind", "x", "message"),
    [
        ("signal", np.zeros((20, 30)), r"shape \(20, 30\), expected \(signals, steps, channels\)"),
        (
            "signal",
            np.arange(1200).reshape(20, 30, 2) * [1e36, 1],
            r"channel 1 goes from 0 to 1.198e\+39, beyond .*unit$",
        ),
        (
            "signal",
            np.arange(1200).reshape(20, 30, 2) + np.array([0, 10**10]),
            r"channel 2 goes from 10000000001 to 10000001199, where networks compute in steps of 1024: subtract",
        ),
        ("signal", np.full((20, 30, 1), np.inf), r"NaN or infinity in 20 of 20 signals, first in signal 0"),
        ("video", np.zeros((20, 4, 6, 5), np.uint8), r"expected \(videos, frames, height, width, channels\)"),
        ("video", np.zeros((20, 4, 6, 5, 1)), r"dtype float64, expected whole numbers"),
        ("video", np.full((20, 4, 6, 5, 1), 4095, np.uint16), r"x_train: values from 4095 to 4095, expected 0 to 255"),
        ("video", np.full((20, 4, 6, 5, 1), -1), r"x_train: values from -1 to -1, expected 0 to 255"),
    ],
    ids=[
        "no channels",
        "beyond float32",
        "lost in float32",
        "infinite",
        "no frames",
        "numbers",
        "of 12 bits",
        "below zero",
    ],
)
def test_what_is_no_signal_or_video_is_refused(tmp_path, kind, x, message):
    with pytest.raises(UserError, match=message):
        npz(tmp_path, kind, x)


def test_made_signals_are_as_many_of_each_shape():
    data = load(data_sets.config("cnnsweep.data.made_signals.load"), 0)
    assert (data.kind, data.input_shape, len(data.x_test)) == ("signal", (256, 1), 400)
    assert data_sets.counts(data, "test").tolist() == [100] * 4


def test_the_mean_frame_of_a_moving_digit_does_not_tell_its_direction():
    data = load(data_sets.config("cnnsweep.data.moving_digits.load"), 0)
    assert (data.kind, data.input_shape, data.classes) == ("video", (6, 8, 16, 1), 10)
    left, right = data.x_test[0], data.x_test[1]
    assert data.y_test[1] == data.y_test[0] + 1
    np.testing.assert_array_equal(left, right[::-1])


def test_a_users_own_loader_says_what_its_inputs_are():
    x = np.zeros((8, 5, 2), np.float32)
    arrays = Arrays(x, np.arange(8) % 2, None, None, (), "memory", kind="signal")
    assert arrays.splits == ("train",)
