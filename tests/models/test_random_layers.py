"""Random changes of signals and texts: what each does to a batch, in training alone."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsweep.models.random_layers import Gain, Mask, Noise, TimeShift, WordDropout

RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(0, (1.0, 5.0), (200, 40, 2)).astype("float32")


def changed(layer, x):
    return np.asarray(layer(x, training=True))


@pytest.mark.parametrize(
    "layer",
    [TimeShift(0.5, 1), Noise(0.5, 1), Gain(6, 1), Mask(0.5, 1, axis=1)],
    ids=["shift", "noise", "gain", "mask"],
)
def test_signals_change_in_training_alone_and_each_in_its_own_way(layer):
    assert np.asarray(layer(SIGNALS)) is not None
    np.testing.assert_array_equal(np.asarray(layer(SIGNALS, training=False)), SIGNALS)
    same = np.repeat(SIGNALS[:1], 20, axis=0)
    found = changed(layer, same)
    assert found.shape == same.shape
    assert len(np.unique(found.round(4).reshape(20, -1), axis=0)) > 10


def test_a_shift_moves_all_channels_by_whole_steps_and_zeros_follow():
    for before, after in zip(SIGNALS, changed(TimeShift(0.25, 3), SIGNALS), strict=True):
        moves = [by for by in range(-10, 11) if np.array_equal(after, moved(before, by))]
        assert len(moves) == 1


def moved(x, by):
    zeros = np.zeros((abs(by), x.shape[1]), x.dtype)
    return np.concatenate([zeros, x[: len(x) - by]]) if by >= 0 else np.concatenate([x[-by:], zeros])


def test_noise_is_a_share_of_each_channel_s_spread():
    noise = changed(Noise(0.2, 3), SIGNALS) - SIGNALS
    shares = noise.std(axis=1) / SIGNALS.std(axis=1)
    assert 0.19 < shares.max() < 0.28
    assert shares.min() < 0.02
    np.testing.assert_allclose(shares.mean(axis=0), 0.1, atol=0.02)


def test_a_gain_is_in_decibels():
    factors = (changed(Gain(6, 3), SIGNALS) / SIGNALS).mean(axis=(1, 2))
    assert 0.5 < factors.min() < 0.6
    assert 1.7 < factors.max() < 2.0
    np.testing.assert_allclose(20 * np.log10(factors).mean(), 0, atol=0.6)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shape", [(100, 20, 30), (100, 20, 30, 2)])
def test_a_mask_hides_one_span_behind_the_mean(axis, shape):
    x = RNG.normal(3, 1, shape).astype("float32")
    found = changed(Mask(0.5, 3, axis=axis), x)
    spans = []
    for before, after in zip(x, found, strict=True):
        hidden = (after != before).all(axis=tuple(i for i in range(len(shape) - 1) if i != axis - 1))
        np.testing.assert_allclose(after[after != before], before.mean(), rtol=1e-4)
        places = np.flatnonzero(hidden)
        assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
        spans.append(len(places) / shape[axis])
    assert 0.4 < max(spans) <= 0.5
    assert 0.2 < np.mean(spans) < 0.3


def test_words_become_unknown_and_padding_stays():
    texts = np.tile(np.array([[0, 0, 5, 6, 7, 1]], "int32"), (500, 1))
    found = changed(WordDropout(0.3, 3), texts)
    assert (found.dtype, found[:, :2].any()) == (np.int32, False)
    assert set(np.unique(found[:, 2])) == {1, 5}
    np.testing.assert_allclose((found[:, 2:5] == 1).mean(axis=0), 0.3, atol=0.07)
