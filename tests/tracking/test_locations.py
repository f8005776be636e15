"""A SQLite store that was moved or copied: its files are found beside it, and the old place is left alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_sweeps import contents
from tracked_sweeps import empty_store, events_of, follow, named, results, settings, sweep_event

from cnnsweep.config.compose import compose
from cnnsweep.config.trust import trusted_by
from cnnsweep.journal.events import BestTested, GalleryDrawn, SweepResumed
from cnnsweep.report import report
from cnnsweep.sweep.resume import _changed
from cnnsweep.tracking.locations import database_file, local_folder, present, settle
from cnnsweep.tracking.store import connect, open_store
from cnnsweep.tracking.stored_trials import find_trial

__all__ = ["empty_store"]
SWEEP = "fake-20260101-000000"
BEST = 4
"""A completed trial."""
EVENTS = events_of(SWEEP)
EVENTS.insert(-1, GalleryDrawn(trial=BEST, folder=f"trials/{BEST:03d}/artifacts/gallery", time=8999.0))


@pytest.fixture(scope="module")
def first_place(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a sweep, where it was made."""
    old = tmp_path_factory.mktemp("one") / "mlruns"
    sweep = old / "sweeps" / SWEEP
    pictures = sweep / "trials" / f"{BEST:03d}" / "artifacts" / "gallery"
    pictures.mkdir(parents=True)
    (pictures / "1_matrix.png").write_bytes(b"a picture")
    (old / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    follow(open_store(settings(old)), sweep, EVENTS)
    return old


@pytest.fixture(params=["mv", "cp"])
def stores(request: pytest.FixtureRequest, first_place: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The old folder of a store, and the one to which it was moved or copied."""
    new, hidden = tmp_path / "two ü" / "mlruns", first_place.with_name("hidden")
    shutil.copytree(first_place, new)
    if request.param == "mv":
        first_place.rename(hidden)
    before = contents(first_place)
    yield first_place, new
    after = contents(first_place)
    if request.param == "mv":
        hidden.rename(first_place)
    assert after == before, "something was written where the store was"


def test_the_report_finds_its_pictures(stores: tuple[Path, Path]) -> None:
    _, new = stores
    (gallery,) = report._galleries(results(new))
    assert [caption for caption, _ in gallery[1]] == ["matrix"]


def test_a_trial_is_found_with_its_config(stores: tuple[Path, Path]) -> None:
    _, new = stores
    run = results(new).trials["run_id"].iloc[0]
    assert find_trial(run, compose([]).replace(tracking=settings(new)), [], trusted_by()).sweep == SWEEP


def test_a_resumed_sweep_logs_to_the_new_place(stores: tuple[Path, Path]) -> None:
    _, new = stores
    sweep = new / "sweeps" / SWEEP
    (sweep / "best" / "artifacts").mkdir(parents=True)
    (sweep / "best" / "artifacts" / "late.txt").write_text("drawn after the move")
    config = compose([])
    resumed = SweepResumed(budget=config.budget.plain(), executor=config.executor.plain(), time=9001.0)
    tested = BestTested(trial=1, epoch=5, folder="best", metrics={"test_accuracy": 0.9}, images=10, time=9002.0)
    follow(open_store(settings(new)), sweep, [*EVENTS, resumed, tested])
    assert len(list((new / "artifacts").rglob("late.txt"))) == 1
    found = results(new)
    assert [f.path for f in connect(found.reader.uri).list_artifacts(found.sweep.run) if "late" in f.path] == [
        "late.txt"
    ]


def test_a_store_that_cannot_be_written_is_read_beside_itself(stores: tuple[Path, Path]) -> None:
    old, new = stores
    uri = f"sqlite:///file:{new.as_uri().removeprefix('file://')}/mlflow.db?mode=ro&uri=true"
    assert database_file(uri) == new / "mlflow.db"
    before = (new / "mlflow.db").read_bytes()
    settle(uri)
    recorded = f"{(old / 'artifacts').as_uri()}/tests/4f/artifacts"
    assert local_folder(uri, recorded) == new / "artifacts" / "tests" / "4f" / "artifacts"
    assert (new / "mlflow.db").read_bytes() == before


def test_a_database_that_is_copied_without_its_files_writes_none_beside_the_first(
    empty_store: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    (old / "mlflow.db").write_bytes((empty_store / "mlflow.db").read_bytes())
    open_store(settings(old))
    (new / "mlflow.db").write_bytes((old / "mlflow.db").read_bytes())
    before = contents(old)
    follow(open_store(settings(new)), new / "sweep", events_of())
    assert contents(old) == before
    assert len(list((new / "artifacts").rglob("config.yaml"))) == 6


@pytest.mark.parametrize("rest", ["", "/4f/artifacts", "/models/m-1/artifacts"], ids=["experiment", "run", "model"])
def test_a_location_beside_the_store_is_kept_through_a_link(tmp_path: Path, rest: str) -> None:
    (tmp_path / "store" / "artifacts" / "tests").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "store")
    location = f"{(tmp_path / 'store' / 'artifacts').as_uri()}/tests{rest}"
    for name in ("store", "link"):
        assert present(f"sqlite:///{tmp_path / name}/mlflow.db", location) == location
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = f"sqlite:///{tmp_path}/moved/mlflow.db"
    assert present(moved, location) == f"{(tmp_path / 'moved' / 'artifacts').as_uri()}/tests{rest}"


@pytest.mark.parametrize(
    "location",
    ["s3://bucket/artifacts/tests", "mlflow-artifacts:/artifacts/tests", "file:///elsewhere/artifacts/others",
     "file:///elsewhere/tests", "dbfs:/artifacts/tests/4f/artifacts"],
)  # fmt: skip
def test_locations_that_are_not_the_store_s_are_kept(tmp_path: Path, location: str) -> None:
    (tmp_path / "artifacts" / "tests").mkdir(parents=True)
    assert present(f"sqlite:///{tmp_path}/mlflow.db", location) == location


@pytest.mark.parametrize("uri", ["postgresql://host/db", "http://host:5000", "sqlite://", "sqlite:///:memory:"])
def test_other_stores_have_nothing_beside_them(uri: str) -> None:
    assert present(uri, "file:///srv/artifacts/tests") == "file:///srv/artifacts/tests"
    settle(uri)


def test_the_caches_of_a_resumed_sweep_move_with_its_store(tmp_path: Path) -> None:
    """The shipped configs put them into tracking.dir, and the journal has the path that this was at the beginning."""
    overrides = ("model=transfer", "space=transfer", "data=image_folder", f"tracking.dir={tmp_path}/old")
    started = named(sweep_event(), "fake", *overrides)
    changed = _changed([started], [f"tracking.dir={tmp_path}/new"], None)
    assert [changed.plain()[section]["cache"] for section in ("data", "model")] == [f"{tmp_path}/new/cache"] * 2
    assert changed.tracking.dir == f"{tmp_path}/new"
