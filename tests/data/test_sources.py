"""What holds for every source of data: the same splits again, after saving, and on a node of a cluster."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import small_sources
from executor_jobs import instant

from cnnsweep.data.loading import load
from cnnsweep.data.storage import ARRAYS, DESCRIPTION, open_saved
from cnnsweep.executors.ray.transfer import Receiver, Sender, replace_paths
from cnnsweep.trial import TrialSpec

pytest.importorskip("av")
pytest.importorskip("soundfile")


def assert_same(first, second):
    for key in (*DESCRIPTION, "decoding", "input_shape"):
        assert getattr(first, key) == getattr(second, key), key
    for key in ARRAYS:
        np.testing.assert_array_equal(getattr(first, key), getattr(second, key), key)


@pytest.mark.parametrize("source", small_sources.SOURCES)
def test_a_source_gives_the_same_data_again_and_on_every_node(source, tmp_path):
    config, data = small_sources.loaded(tmp_path, source)
    assert {*np.unique(data.y_train)} == {*range(data.classes)}
    assert min(len(data.x_train), len(data.x_val), len(data.x_test)) > 0
    assert_same(load(config.data, config.seed, config.task), data)
    other = load(config.data, config.seed + 1, config.task)
    assert (other.digest != data.digest) or np.array_equal(other.x_val, data.x_val)
    assert_same(open_saved(tmp_path / "data"), data)

    kept: list[bytes] = []
    sender = Sender(lambda piece: (kept.append(piece), (len(kept) - 1,))[1])
    receiver = Receiver(tmp_path / "node", lambda piece: kept[piece[0]] if isinstance(piece, tuple) else piece)
    spec = TrialSpec(1, {}, config, 0, tmp_path / "trial", tmp_path / "data", 1)
    spec.folder.mkdir()
    package = sender.pack(instant, spec)
    places = receiver.unpack(package)
    moved = replace_paths(pickle.loads(package.task)[1], lambda path, _: places.get(path))
    assert moved.data.is_relative_to(tmp_path / "node")
    assert_same(open_saved(moved.data), data)
