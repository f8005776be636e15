"""The README and the pages under docs/: commands compose, examples run, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.sweep import session

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("list", "resume", "ui", "report", "export", "predict", "train")
"""Their arguments are not a config to search."""
STAND_INS = {"PATH": "images", "FILE": "imagenet", "SWEEP": "digits", "DIR": "folder"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def overrides() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [line.removeprefix("python -m cnnsweep ") for line in lines if line.startswith("python -m cnnsweep ")]
    return sorted({command for command in commands if command.split()[0] not in COMMANDS})


@pytest.mark.parametrize("command", overrides())
def test_the_commands_of_the_pages_compose(command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if word != "plan" and not word.startswith("-")]
    for name, stand_in in STAND_INS.items():
        words = [re.sub(rf"={name}$", f"={stand_in}", word) for word in words if word != "plan.json"]
    assert parse_space(compose(words)) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]
    assert not missing


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 920


def test_the_space_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/space").mkdir(parents=True)
    (tmp_path / "conf/space/mine.yaml").write_text(blocks(ROOT / "docs/spaces.md", "yaml")[0])
    names = [p.name for p in parse_space(compose(["+sweep=fashion", "space=mine"])).parameters]
    assert {"model.filters.4", "data.augment.rotation"} <= set(names)


def test_the_preset_of_the_pages_fixes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/sweep").mkdir(parents=True)
    preset, searched = blocks(ROOT / "docs/spaces.md", "yaml")[1], []
    for content in (preset, re.sub("space: .*", "", preset)):
        (tmp_path / "conf/sweep/mine.yaml").write_text(content)
        config = compose(["+sweep=mine"])
        assert config.model.plain()["kernel_size"] == 5
        searched.append(any("kernel_size" in p.name for p in parse_space(config).parameters))
    assert searched == [False, True]


@pytest.mark.slow
def test_the_data_set_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs/extending.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/shapes.yaml").write_text(blocks(page, "yaml")[0])
    (tmp_path / "shapes.py").write_text(blocks(page, "python")[0])
    outcome = session.start(compose(["+sweep=smoke", "data=shapes", "executor=inline"]), session.Watcher())
    assert outcome.status == "completed"
    assert outcome.state.final.metrics["test_accuracy"] > 0.9
