"""What the README tells people to write works as it stands there."""

import re
from pathlib import Path

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.search_space.space import read
from cnnsweep.sweep import session

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(beginning):
    """The code block that begins with these words."""
    return next(b for b in re.findall(r"```\w+\n(.*?)```", README, re.DOTALL) if b.startswith(beginning))


def test_the_space_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/space").mkdir(parents=True)
    (tmp_path / "conf/space/mine.yaml").write_text(block("# conf/space/mine.yaml"))
    names = [p.name for p in read(compose(["+sweep=fashion", "space=mine"])).parameters]
    assert "model.filters.4" in names
    assert "data.augment.rotation" in names


@pytest.mark.parametrize("line", block("python -m cnnsweep +sweep=fashion search").splitlines())
def test_the_commands_of_the_readme_compose(line):
    overrides = re.findall(r"'([^']*)'|(\S+)", line.partition("#")[0].removeprefix("python -m cnnsweep"))
    assert read(compose([quoted or plain for quoted, plain in overrides])) is not None


@pytest.mark.slow
def test_the_data_set_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/shapes.yaml").write_text(block("# conf/data/shapes.yaml"))
    (tmp_path / "shapes.py").write_text(block("import numpy"))
    outcome = session.start(compose(["+sweep=smoke", "data=shapes", "executor=inline"]), session.Watcher())
    assert outcome.status == "completed"
    assert outcome.ledger.final["metrics"]["test_accuracy"] > 0.9
