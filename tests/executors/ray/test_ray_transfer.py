"""Files of a job: to a node, changed there, and back."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from executor_jobs import instant

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.executors.ray import transfer
from cnnsweep.executors.ray.transfer import Package, Receiver, Sender, replace_paths, write_changed


@dataclass(frozen=True)
class Spec:
    folder: Path
    data: Path
    config: Config


class Store:
    """Stands for Ray's object store."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def put(self, piece: bytes) -> tuple[int]:
        self.kept.append(piece)
        return (len(self.kept) - 1,)

    def fetch(self, piece: bytes | tuple[int]) -> bytes:
        return self.kept[piece[0]] if isinstance(piece, tuple) else piece


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A trial whose folder and data are on the driver, and whose config names a file of weights."""
    folder, data, weights = (tmp_path / "driver" / name for name in ("trials/001", "data", "w.h5"))
    (folder / "artifacts").mkdir(parents=True)
    data.mkdir()
    (data / "x.npy").write_bytes(b"0123456789")
    weights.write_bytes(b"weights")
    (folder / "last.npz").write_bytes(b"epoch 1")
    os.link(folder / "last.npz", folder / "best.npz")
    (folder / "artifacts" / "model.txt").write_text("layers")
    for unfinished in (".hidden", "last.npz.77"):
        (folder / unfinished).write_text("half")
    return Spec(folder, data, compose(["model=transfer", "space=none", f"model.weights={weights}", "model.cut=conv1"]))


def moved(package: Package, receiver: Receiver) -> Any:
    """The argument that the job gets on a node."""
    places = receiver.unpack(package)
    return replace_paths(pickle.loads(package.task)[1], lambda path, _: places.get(path))


def test_a_job_s_files_go_to_a_node_and_what_it_changes_comes_back(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PIECE", 4)
    store, home = Store(), tmp_path / "node"
    sender, receiver = Sender(store.put), Receiver(home, store.fetch)
    package = pickle.loads(pickle.dumps(sender.pack(instant, spec)))
    Path(spec.config.model.weights).unlink()  # a node has none of the driver's files
    there = moved(package, receiver)
    assert all(path.is_relative_to(home) for path in (there.folder, there.data, Path(there.config.model.weights)))
    assert there.config.model.cut == spec.config.model.cut
    assert Path(there.config.model.weights).read_bytes() == b"weights"
    assert (there.data / "x.npy").read_bytes() == b"0123456789"
    names = {str(file.relative_to(there.folder)) for file in there.folder.rglob("*") if file.is_file()}
    assert names == {"last.npz", "best.npz", "artifacts/model.txt"}
    assert receiver.changed() == {}

    (there.folder / "last.npz").write_bytes(b"epoch 2")
    (there.folder / "artifacts" / "curves.png").write_bytes(b"curves")
    changed = receiver.changed()
    assert changed == {spec.folder: {"last.npz": [b"epoc", b"h 2"], "artifacts/curves.png": [b"curv", b"es"]}}
    assert receiver.changed() == {}
    write_changed(changed)
    assert (spec.folder / "last.npz").read_bytes() == b"epoch 2"
    assert (spec.folder / "best.npz").read_bytes() == b"epoch 1"
    assert (spec.folder / "artifacts" / "curves.png").read_bytes() == b"curves"
    assert receiver.translate(f"{there.folder}/artifacts") == f"{spec.folder}/artifacts"

    receiver.clear()
    assert not there.folder.exists()
    assert there.data.exists()


def test_data_is_sent_once_and_again_only_when_it_has_changed(spec: Spec, tmp_path: Path) -> None:
    store = Store()
    sender, receivers = Sender(store.put), [Receiver(tmp_path / "node", store.fetch) for _ in range(2)]
    first, second = (moved(sender.pack(instant, spec), receiver) for receiver in receivers)
    assert len(store.kept) == 2, "the data and the weights"
    assert first.data == second.data
    assert first.folder != second.folder
    (spec.data / "x.npy").write_bytes(b"other")
    again = moved(sender.pack(instant, spec), receivers[0])
    assert len(store.kept) == 3
    assert (again.data / "x.npy").read_bytes() == b"other"


def test_a_checkpoint_that_is_the_last_and_the_best_travels_once(spec: Spec) -> None:
    (spec.folder / "last.npz").write_bytes(bytes(10_000))
    assert len(pickle.dumps(Sender(lambda piece: piece).pack(instant, spec).written)) < 11_000


def test_a_folder_that_the_driver_does_not_have_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "features"
    receiver = Receiver(tmp_path / "node", bytes)
    there = moved(Sender(bytes).pack(instant, {"folders": {"max": target}}), receiver)
    assert list(there["folders"]["max"].iterdir()) == []
    (there["folders"]["max"] / "x.npy").write_bytes(b"features")
    write_changed(receiver.changed())
    assert [file.name for file in target.iterdir()] == ["x.npy"]
    assert [file.name for file in target.parent.iterdir()] == ["features"]


def test_what_a_job_removes_is_removed_and_a_new_folder_below_appears_complete(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As checkpoints of which the last and the best are kept: one that is there without all of its files is no such."""
    receiver = Receiver(tmp_path / "node", bytes)
    there = moved(Sender(bytes).pack(instant, spec), receiver).folder / "checkpoints"
    made = spec.folder / "checkpoints"
    for epoch in (1, 2, 3):
        for name in ("state.json", "weights/a"):
            (there / str(epoch) / name).parent.mkdir(parents=True, exist_ok=True)
            (there / str(epoch) / name).write_text(f"epoch {epoch}")
        if epoch > 1:
            shutil.rmtree(there / str(epoch - 1))
        write_changed(receiver.changed())
        assert [path.name for path in made.iterdir()] == [str(epoch)]
        assert (made / str(epoch) / "weights" / "a").read_text() == f"epoch {epoch}"

    (there / "4").mkdir()
    for name in "ab":
        (there / "4" / name).touch()
    shutil.rmtree(there / "3")
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("the driver dies"))
    with pytest.raises(pytest.fail.Exception, match="the driver dies"):
        write_changed(receiver.changed())
    assert [path.name for path in made.iterdir() if path.name.isdigit()] == ["3"]
