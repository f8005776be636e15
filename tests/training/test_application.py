"""Applications with `@hydra.main` as jobs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config, check_section
from cnnsweep.errors import UserError
from cnnsweep.search_space.parsing import parse_space
from cnnsweep.sweep import discovery
from cnnsweep.training import application
from cnnsweep.trial import Discovered, EpochReport, Inspection, TrialResult, TrialSpec

APP = """
import enum
from dataclasses import dataclass
import hydra
import cnnsweep
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    return cfg.model.rate * cfg.steps if cfg.get("kind") != "it's" else 0.25

@hydra.main(version_base=None, config_path="conf", config_name="config")
def reporting(cfg):
    trial = cnnsweep.current_trial()
    for epoch in range(1, trial.epochs + 1):
        trial.report(epoch, val_accuracy=cfg.model.rate * epoch)
    raise SystemExit(0)

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def failing(cfg):
    raise ValueError("no data")

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def registering(cfg):
    OmegaConf.register_new_resolver("twice", lambda value: 2 * value)
    return cfg.steps

Color = enum.Enum("Color", ["RED", "BLUE"])

@dataclass
class Typed:
    limit: int = 3
    color: Color = Color.RED

ConfigStore.instance().store("typed_values", node=Typed)

@hydra.main(version_base="1.3", config_path=None, config_name="typed_values")
def typed(cfg):
    pass

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def options(cfg):
    return cfg.steps * cfg.get("rate", cfg.get("model", {}).get("rate"))

def plain(cfg):
    pass
"""
TYPED = """
import enum
import pathlib
from dataclasses import dataclass, field
from hydra.core.config_store import ConfigStore
import hydra

class Color(enum.Enum):
    RED = 1
    BLUE = 2

@dataclass
class Conf:
    color: Color = Color.RED
    path: pathlib.Path = pathlib.Path("a")
    limit: int | None = 3
    parts: list[pathlib.Path] = field(default_factory=lambda: [pathlib.Path("b")])

ConfigStore.instance().store("typed", node=Conf)

@hydra.main(version_base="1.3", config_path=None, config_name="typed")
def main(cfg):
    return {"val_accuracy": cfg.color.value, "none": cfg.limit is None}
"""
OLD = """
import functools
import os
import hydra
from wrapping import wrapped

@hydra.main(version_base="1.1", config_path="conf", config_name="old")
@wrapped
def main(cfg):
    return os.path.basename(os.getcwd()) == "hydra"
"""
WRAPPING = """
import functools

def wrapped(function):
    @functools.wraps(function)
    def call(cfg):
        return function(cfg)
    return call
"""


@pytest.fixture(autouse=True)
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An application with a group of configs, in a folder from which it is imported."""
    (tmp_path / "own_app.py").write_text(APP)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [model: small, _self_]\nsteps: 2\nkind: plain\n")
    for name, rate in (("small", 0.1), ("large", 0.2)):
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text(f"rate: {rate}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_app", raising=False)
    return tmp_path


def config(call: str = "main", *overrides: str) -> Config:
    return compose(["job=hydra", f"job.call=own_app.{call}", *overrides])


def discovered(found: Config) -> Discovered:
    with pytest.raises(StopIteration) as end:
        next(application.discover(Inspection(found, (1, 1, 1))))
    return end.value.value  # type: ignore[no-any-return]


def run(found: Config, folder: Path, epochs: int = 1, **values: Any) -> tuple[list[EpochReport], TrialResult]:
    return run_values(found, folder, {f"job.config.{name}": value for name, value in values.items()}, epochs)


def run_values(
    found: Config, folder: Path, keys: dict[str, Any], epochs: int = 1
) -> tuple[list[EpochReport], TrialResult]:
    steps = application.run(TrialSpec(1, keys, found, 7, folder / "trial", folder, epochs))
    reports: list[EpochReport] = []
    try:
        reports.append(next(steps))
        while True:
            reports.append(steps.send(True))
    except StopIteration as end:
        return reports, end.value


def test_its_config_is_read_with_the_overrides_of_the_job() -> None:
    found = discovered(config("main", "job.overrides=['model=large','steps=3']"))
    assert found.values["config"] == {"model": {"rate": 0.2}, "steps": 3, "kind": "plain"}
    assert found.values["groups"] == {"model": "large"}


def test_what_is_given_in_the_sweeps_words_is_given_to_it() -> None:
    found = discovered(config("main", "job.groups.model=large", "job.config.kind=odd"))
    assert found.values["config"] == {"model": {"rate": 0.2}, "steps": 2, "kind": "odd"}
    assert found.values["overrides"] == ["model=large", "kind='odd'"]


SEARCHED = "space.job.groups.model={values: [small, deep]}"


def test_the_options_of_a_group_are_searched_and_keys_under_the_options_that_have_them(tmp_path: Path) -> None:
    (tmp_path / "conf" / "model" / "deep.yaml").write_text("_target_: own_app.Deep\nrate: 0.3\nlayers: {width: 4}\n")
    space = ["space.job.config.model.layers.width={values: [4, 8]}", "space.job.config.steps={values: [1, 2]}"]
    asked = config("main", SEARCHED, *space)
    found = discovery._with_application(asked, discovered(asked))
    parameters = parse_space(found).by_name
    assert parameters["job.groups.model"].choices == ("small", "deep")
    assert parameters["job.config.model.layers.width"].when == (("job.groups.model", ("deep",)),)
    assert parameters["job.config.steps"].when == ()
    values = {"job.groups.model": "deep", "job.config.model.layers.width": 8, "job.config.steps": 1}
    reports, _ = run_values(found.with_values(values), tmp_path, values)
    assert reports[0].metrics["val_accuracy"] == pytest.approx(0.3)
    assert "model=deep" in (tmp_path / "trial" / "hydra" / ".hydra" / "overrides.yaml").read_text()
    assert Config.from_plain(found.plain()) == found  # as a journal has it


@pytest.mark.parametrize(
    ("space", "fault"),
    {
        "space.job.groups.modl={values: [small]}": "unknown group of the application 'modl', did you mean 'model'?",
        "space.job.groups.model={values: [smal]}": "unknown option of the application's group model 'smal', did",
        "space.job.groups.model={min: 1, max: 2}": "space.job.groups.model: expected {values: [large, small]}, got",
    }.items(),
)
def test_a_group_that_cannot_be_searched_is_refused_before_the_first_trial(space: str, fault: str) -> None:
    assert fault in (discovered(config("main", space)).fault or "")


def test_a_group_without_a_default_may_be_searched(tmp_path: Path) -> None:
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [{model: '???'}, _self_]\nsteps: 2\n")
    found = discovered(config("main", "space.job.groups.model.values=[large, small]", "job.config.model.rate=3"))
    assert found.fault is None
    assert (found.values["groups"], found.values["config"]) == ({"model": "large"}, {"model": {"rate": 3}, "steps": 2})
    assert found.values["overrides"] == ["model.rate=3"]


def test_what_only_some_options_have_is_given_and_searched_under_these(tmp_path: Path) -> None:
    """A value of a key that one option alone has ended the sweep, and so did the group that it brings its trials."""
    (tmp_path / "conf" / "model" / "part").mkdir()
    for name in ("plain", "fine"):
        (tmp_path / "conf" / "model" / "part" / f"{name}.yaml").write_text(f"is_{name}: 1\nsize: 2\n")
    (tmp_path / "conf" / "model" / "deep.yaml").write_text("defaults: [part: plain]\nrate: 0.3\nlayers: 3\n")
    space = ["space.job.groups.model/part.values=[plain, fine]", "space.job.config.model.part.is_fine.values=[5]"]
    given = ["job.config.model.layers=7", "job.config.steps=3"]
    asked = config("main", SEARCHED, *space, *given)
    found = discovery._with_application(asked, discovered(asked))
    by_name = parse_space(found).by_name
    of_model = ("job.groups.model", ("deep",))
    assert by_name["job.groups.model/part"].when == (of_model,)
    assert by_name["job.config.model.part.is_fine"].when[-1] == ("job.groups.model/part", ("fine",))
    assert (by_name["job.config.model.layers"].choices, by_name["job.config.model.layers"].when) == ((7,), (of_model,))
    job = found.job.plain()
    assert job["overrides"] == ["steps=3"]
    assert job["config"] == {"model": {"layers": 7, "part": {"is_fine": 1}}, "steps": 3, "kind": "plain"}
    assert job["groups"] == {"model": "small", "model/part": "plain"}


@pytest.mark.parametrize("options", [["--config-name=other"], ["steps=9", "-cn", "other"], ["--config-dir", "more"]])
def test_its_configs_may_be_where_options_of_its_command_line_say(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "conf" / "other.yaml").write_text("steps: 7\nrate: 1\n")
    (tmp_path / "more" / "model").mkdir(parents=True)
    (tmp_path / "more" / "model" / "small.yaml").write_text("rate: 4\n")
    (tmp_path / "more" / "model" / "third.yaml").write_text("rate: 4\n")
    overrides = [*options, *(["model=third"] if "more" in options else [])]
    found = discovery._with_application(asked := config("options", f"job.overrides={overrides}"), discovered(asked))
    assert found.job.plain()["config"].get("rate") == (None if "more" in options else 1)
    reports, _ = run(found, tmp_path)
    expected = {"--config-name=other": 7.0, "steps=9": 9.0, "--config-dir": 8.0}
    assert reports[0].metrics["val_accuracy"] == expected[options[0]]


def test_what_it_returns_is_the_objective(tmp_path: Path) -> None:
    reports, result = run(config(), tmp_path, **{"model.rate": 0.5, "steps": 4})
    assert [(r.epoch, r.metrics["val_accuracy"]) for r in reports] == [(1, 2.0)]
    assert result.status == "completed"
    assert "model.rate=0.5" in (tmp_path / "trial" / "hydra" / ".hydra" / "overrides.yaml").read_text()


def test_text_is_given_in_hydras_grammar(tmp_path: Path) -> None:
    reports, _ = run(config(), tmp_path, kind="it's")
    assert reports[0].metrics["val_accuracy"] == 0.25


def test_it_may_report_epochs_itself(tmp_path: Path) -> None:
    reports, result = run(config("reporting"), tmp_path, epochs=3)
    assert [r.epoch for r in reports] == [1, 2, 3]
    assert (result.status, result.reason) == ("completed", None)


def test_what_it_raises_is_raised_and_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    before, handlers = list(sys.argv), list(logging.getLogger().handlers)
    with pytest.raises(ValueError, match="no data"):
        run(config("failing"), tmp_path)
    assert sys.argv == before
    assert logging.getLogger().handlers == handlers
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_a_resolver_can_be_registered_in_each_trial(tmp_path: Path) -> None:
    for number in ("1", "2"):  # the trials of one worker process
        assert run(config("registering"), tmp_path / number)[1].status == "completed"


def other_app(folder: Path, name: str, text: str) -> Config:
    """An application in a module of its own."""
    (folder / f"{name}.py").write_text(text)
    return compose(["job=hydra", f"job.call={name}.main"])


def test_values_of_structured_configs_are_plain_data(tmp_path: Path) -> None:
    """Enums and paths ended the sweep: a journal cannot hold them."""
    found = other_app(tmp_path, "typed_app", TYPED)
    assert discovered(found).values["config"] == {"color": "RED", "path": "a", "limit": 3, "parts": ["b"]}
    reports, _ = run(found, tmp_path, color="BLUE")
    assert reports[0].metrics["val_accuracy"] == 2.0


@pytest.mark.parametrize(
    ("override", "value"),
    {
        "null": None,
        "[null,true]": [None, True],
        "[{a: null}]": [{"a": None}],
        r"'\\d\\ it\'s'": r"\\d\\ it's",
    }.items(),
)
def test_what_is_given_arrives_as_it_is(override: str, value: object) -> None:
    """null became the text "None", and a backslash two."""
    assert discovered(config("main", f"job.config.kind={override}")).values["config"]["kind"] == value


def test_no_classes_of_an_application_are_in_the_sweeps_config() -> None:
    found = discovered(config("main", "job.config.kind=[{_target_: a.B, rate: 1}]"))
    assert found.values["config"]["kind"] == [{"rate": 1}]


def test_a_group_can_be_left_out(tmp_path: Path) -> None:
    assert discovered(config("main", "job.groups.model=null")).values["config"] == {"steps": 2, "kind": "plain"}


def test_it_runs_as_the_version_of_hydra_for_which_it_is_written(tmp_path: Path) -> None:
    """Before 1.2 it runs in its output folder, and its defaults list needs no `override` for Hydra's own groups."""
    (tmp_path / "wrapping.py").write_text(WRAPPING)
    (tmp_path / "conf" / "old.yaml").write_text("defaults: [_self_, hydra/job_logging: stdout]\nsteps: 2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Hydra's, of the version
        found = other_app(tmp_path, "old_app", OLD)
        assert discovered(found).values["config"] == {"steps": 2}
        reports, _ = run(found, tmp_path)
    assert reports[0].metrics["val_accuracy"] == 1.0


def test_it_runs_once_whatever_its_config_says_and_the_folder_is_called(tmp_path: Path) -> None:
    (tmp_path / "conf" / "config.yaml").write_text(
        "rate: 1\nhydra: {mode: MULTIRUN, sweeper: {params: {rate: '2,3'}}}\n"
    )
    found = other_app(tmp_path, "swept_app", APP.replace("cfg.model.rate", "cfg.rate").replace(" * cfg.steps", ""))
    reports, _ = run(found.with_values({}), tmp_path / "it's")
    assert reports[0].metrics["val_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("call", "overrides", "fault"),
    [
        ("plain", [], "job.call: own_app.plain is no function with @hydra.main; for another function: job=function"),
        ("mian", [], "'own_app' has no class or function 'mian', did you mean 'main'?"),
        ("main", ["job.overrides=['model=huge']"], "job.call: the application's config cannot be composed: "),
        ("main", ["job.config.stepz=3"], "it has no 'stepz' (in job.overrides, '+stepz=VALUE' adds one)"),
        ("main", ["job.overrides=['steps: 3']"], "'steps: 3' is no override, such as KEY=VALUE"),
        (
            "main",
            ["job.overrides=['steps=1,2']"],
            "(a list is [a,b]; to search a key: space.job.config.KEY.values=[a,b])",
        ),
        (
            "typed",
            ["space.job.config.limit={min: 1.0, max: 5}"],
            "override limit=1.0: Value '1.0' of type 'float' could",
        ),
        (
            "typed",
            ["space.job.config.color.values=[RED, GREEN]"],
            "override color='GREEN': Invalid value 'GREEN', expect",
        ),
        ("main", ["job.overrides=['-m']"], "job.overrides: '-m' has no use in a sweep (of options, only --config-name"),
        ("main", ["job.overrides=['--config-dir=mor']"], "--config-dir: there is no directory 'mor'"),
        ("main", ["job.overrides=['-cn']"], "job.overrides: argument -cn/--config-name: expected one argument"),
    ],
)
def test_an_application_that_cannot_be_run_is_refused(call: str, overrides: list[str], fault: str) -> None:
    assert fault in (discovered(config(call, *overrides)).fault or "")


def test_a_key_that_its_config_lacks_cannot_be_searched() -> None:
    found = config("main", "space.job.config.step={min: 1, max: 5}")
    job = found.job.plain() | {"discover": None, **discovered(found).values}
    with pytest.raises(UserError, match=r"space.job.config.step: the config has no key .*did you mean"):
        parse_space(found.replace(job=check_section("job", job)))
