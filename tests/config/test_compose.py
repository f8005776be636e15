"""Composing: what a user may write, and the one short error for what makes no sense."""

from __future__ import annotations

import contextlib
import json
import re

import hydra
import pytest
from hydra import version
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_tag

import cnnsweep
from cnnsweep.config import GROUPS, shipped
from cnnsweep.config.compose import PATHS, _prepare, compose, flat
from cnnsweep.config.schema import Config, check_section
from cnnsweep.config.validation import quantity
from cnnsweep.errors import UserError
from cnnsweep.search_space.parsing import parse_space

CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((shipped() / group).glob("[!_]*.yaml"))]
PAIRS = {
    ("model", "text_cnn"): ["space=text_cnn"],
    ("space", "text_cnn"): ["model=text_cnn"],
    ("space", "cnn_rnn"): ["model=cnn_rnn"],
    ("model", "transfer"): ["space=transfer"],
    ("space", "transfer"): ["model=transfer"],
    ("model", "transfer_rnn"): ["space=transfer_rnn"],
    ("space", "transfer_rnn"): ["model=transfer_rnn"],
    ("model", "unet"): ["space=unet", "task=segmentation"],
    ("space", "unet"): ["model=unet", "task=segmentation"],
}
NEEDED = {
    ("data", "npz"): ["data.file=own.npz"],
    ("tracking", "server"): ["tracking.uri=http://localhost:5000"],
    ("job", "function"): ["job.call=own.main"],
    ("job", "hydra"): ["job.call=own.main"],
    ("model", "function"): ["model.call=own.build"],
    ("model", "keras_tuner"): ["model.hypermodel=own.build"],
    ("model", "none"): ["space=none"],
}


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=["=".join(c) for c in CHOICES])
def test_every_shipped_config_composes_and_its_space_can_be_read(group, choice):
    plus = "+" if group == "sweep" else ""
    config = compose([f"{plus}{group}={choice}", *NEEDED.get((group, choice), []), *PAIRS.get((group, choice), [])])
    parse_space(config)


def test_a_config_that_needs_a_value_says_which():
    with pytest.raises(UserError, match=r"data.file: a value is needed \(data.file=...\)"):
        compose(["data=npz"])


def test_overrides_are_converted_to_the_types_of_their_keys():
    config = compose(["training.learning_rate=1", "budget.minutes=2", "limits.parameters=1.5M", "seed=7"])
    assert isinstance(config.training.learning_rate, float)
    assert (config.budget.minutes, config.limits.parameters, config.seed) == (2.0, 1_500_000.0, 7)


@pytest.mark.parametrize(
    ("overrides", "search"),
    [([], "AutoOracle"), (["+sweep=digits"], "AutoOracle"), (["+sweep=text"], "AutoOracle")]
    + [([f"job={job}", "job.call=mine.main"], "RandomOracle") for job in ("function", "hydra")]
    + [(["job=function", "job.call=mine.main", "search=auto"], "AutoOracle"), (["+sweep=smoke"], "RandomOracle")],
)
def test_the_search_where_none_is_chosen(overrides: list[str], search: str) -> None:
    assert compose(overrides).search.target.rpartition(".")[2] == search


def test_overriding_a_searched_key_fixes_it():
    searched = dict(compose().space["model"])
    config = compose(["model.kernel_size=3"])
    assert set(searched) - set(config.space["model"]) == {"kernel_size"}
    assert config.model.kernel_size == 3


def test_a_preset_s_only_searched_key_can_be_fixed():
    config = compose(["+sweep=spoken_digits", "data.dir=x", "space=none", "model.representation=mel"])
    assert parse_space(config).parameters == ()


def test_a_key_is_still_searched_where_its_space_is_overridden_too():
    space = compose(["model.filters=8", "space.model.filters.values=[8,16]"]).space["model"]
    assert space["filters"] == {"values": [8, 16], "per_block": True}


def test_a_fixed_key_can_be_searched_from_the_command_line():
    config = compose(["space.training.weight_decay={min: 1e-6, max: 1e-3, log: true}", "space.model.filters=null"])
    searched = [p.name for p in parse_space(config).parameters]
    assert "training.weight_decay" in searched
    assert not any(name.startswith("model.filters") for name in searched)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a config of one's own into ./conf."""

    def write(name, text):
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)

    monkeypatch.chdir(tmp_path)
    return write


def test_an_own_conf_directory_is_found_beside_the_shipped_one(own):
    own("sweep/mine", "# @package _global_\ndefaults:\n  - override /search: grid\nname: mine\n")
    for found in (compose(["+sweep=mine"]), compose(["+sweep=mine"], config_dir="conf")):
        assert (found.name, found.search.target) == ("mine", "cnnsweep.search.grid.GridOracle")
    assert compose(["+sweep=smoke"]).name == "smoke"
    with pytest.raises(UserError, match="there is no directory 'cnf'"):
        compose([], config_dir="cnf")


ODD = """é李 %20a:b\udce9()#,'&=[];{}"!~?$`*+@|<>^%\\"""
"""What a folder's name may hold, but not one of Hydra's values without quotes."""


def test_configs_are_found_in_a_folder_of_any_name(tmp_path, monkeypatch):
    folder = tmp_path / ODD / f"{ODD}own\n{ODD}"
    (folder / "conf" / "sweep").mkdir(parents=True)
    (folder / "conf" / "sweep" / "mine.yaml").write_text("# @package _global_\nname: mine\n")
    assert compose(["+sweep=mine"], config_dir=folder / "conf").name == "mine"
    monkeypatch.chdir(folder)
    assert compose(["+sweep=mine"]).name == "mine"


@pytest.mark.parametrize("key", PATHS)
def test_a_path_is_taken_as_it_is_typed(key):
    parser = OverridesParser.create()
    for path in (ODD, *(f"{odd}own{odd}" for odd in ODD), *(f"\\{odd}\\\\" for odd in ODD)):
        if not path.startswith(("'", '"', "~")):
            assert parser.parse_override(_prepare(f"{key}={path}")).value() == path


def test_a_path_may_be_quoted_and_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", f"/home/{ODD}")
    assert compose(["tracking.dir='a b'"]).tracking.dir == "a b"
    assert compose(["tracking.dir=~/runs"]).tracking.dir == f"/home/{ODD}/runs"


SHIPPED_TWICE = {
    "space/cnn": "model: {blocks: {values: [3, 4]}}\n",
    "sweep/fashion": "# @package _global_\nsearch: {max_failures: 77}\n",
    "search/_common": "max_failures: 77\nlearn_from: null\nstart_with: []\n",
    "config": (shipped() / "config.yaml").read_text() + "search: {max_failures: 77}\n",
}


@pytest.mark.parametrize("name", SHIPPED_TWICE)
def test_ones_own_config_of_a_shipped_name_wins_and_is_named_where_it_does_not_fit(own, tmp_path, name):
    own(name, SHIPPED_TWICE[name])
    preset = ["+sweep=fashion"] if name == "sweep/fashion" else []
    config = compose(preset)
    assert (
        (config.space["model"] == {"blocks": {"values": [3, 4]}})
        if name == "space/cnn"
        else (config.search.max_failures == 77)
    )
    path = tmp_path / "conf" / f"{name}.yaml"
    path.write_text("tracking: [1, 2\n")
    with pytest.raises(UserError, match=f"line 2: .*\nused in place of the shipped .*: {re.escape(str(path))}"):
        compose(preset)


def test_the_configs_of_an_application_are_left_alone_and_ours_stand_in_a_folder_of_theirs(own, tmp_path):
    own("config", "optimizer: adam\n")
    assert compose().name == "digits"
    own("cnnsweep/sweep/mine", "# @package _global_\nname: mine\n")
    assert compose(["+sweep=mine"]).name == "mine"


def test_a_component_of_the_users_own_keeps_keys_that_we_do_not_know(own):
    own("search/mine", "_target_: mine.Oracle\ntemperature: 3\n")
    search = compose(["search=mine"]).search
    assert search.is_custom
    assert search.settings() == {"temperature": 3}
    assert search.argument() == {**search.plain(), "_target_": "mine.Oracle", "temperature": 3}


def test_a_broken_file_of_the_users_is_named(own):
    own("sweep/mine", "name: [1, 2\n")
    with pytest.raises(UserError, match=r"mine.yaml"):
        compose(["+sweep=mine"])


FAULTS = {
    "budget.max_trails=3": r"unknown key 'budget.max_trails', did you mean 'budget.trials'",
    "training.leraning_rate=1": r"did you mean 'training.learning_rate'",
    "reprt=none": r"unknown key 'reprt', did you mean 'tracking.report'\?",
    "dir=x": r"unknown key 'dir', did you mean 'data.dir'\?",
    "model.epochs=3": r"unknown key 'model.epochs', did you mean 'training.epochs'\?",
    "training.lr=0.1": r"unknown key 'training.lr', did you mean 'training.learning_rate'\?",
    "search=[random,grid]": r"cannot use 'search=\[random,grid\]': choose one config \(search=NAME\)",
    "sarch=grid": r"unknown key 'sarch', did you mean 'search'",
    "search=randon": r"unknown search 'randon', did you mean 'random'\? \(one of: asha, auto, bayesian,",
    "+sweep=smok": r"unknown sweep 'smok', did you mean 'smoke'",
    "sweep=smoke": r"\+sweep=NAME, with a plus",
    "+model.zebra=1": r"unknown key 'model.zebra'",
    "+zebra=1": r"unknown key 'zebra'",
    "hydra.run.dir=x": r"unknown key 'hydra.run.dir'",
    "budget.trials=0": r"budget.trials: 0 \(must be at least 1",
    "budget.minutes=0": r"budget.minutes: 0.0 \(must be above 0",
    "budget.epochs=-1": r"budget.epochs: -1 \(must be at least 1",
    "budget.trials=null": r"budget: a sweep needs an end",
    "budget.trials=many": r"budget.trials: 'many' is not a whole number \(at least 1 ",
    "training.epochs=1.5": r"training.epochs: .*1.5",
    "training.learning_rate=nan": r"training.learning_rate: nan \(must be finite and above 0\)",
    "training.learning_rate=inf": r"must be finite",
    "training.target=nan": r"training.target: nan \(must be finite\)",
    "training.optimizer=sdg": r"unknown training.optimizer 'sdg', did you mean 'sgd'",
    "training.steps_per_execution=0": r"training.steps_per_execution: '0' \(auto, or a whole number from 1\)",
    "training.deterministic=maybe": r"training.deterministic: 'maybe'",
    "model.filters=[]": r"model.filters: .*empty list",
    "model.kernel_size=foo": r"model.kernel_size: 'foo' is not a whole number",
    "model.stride=[1,99999999999]": r"model.stride: 99999999999 \(must be at most",
    "model.padding=sane": r"unknown model.padding 'sane', did you mean 'same'",
    "model.filters={a: 1}": r"model.filters: .* is not a whole number",
    "model.blocks=[1,2]": r"model.blocks: ",
    "model.blocks=100000000000000000000": r"model.blocks: 1\d* \(must be at least 1 and at most 100\)",
    "model._target_=null": r"model: needs `_target_`",
    "~model._target_": r"model: needs `_target_`",
    "~model": r"model: a value is needed",
    "model=null": r"'model' is a group: choose one of its configs \(model=NAME\)",
    "training=5": r"'training' is a group",
    "training={a: 1}": r"'training' is a group",
    "space.model.filters=[16,32]": r"^space.model.filters: expected \{values: \[...\]\} or \{min: .., max: ..\}, got",
    "search.start_with={model.blocks: 2}": r"^search.start_with: expected \[\{model.blocks: 2\}\], got",
    "tracking.tags=[vision]": r"^tracking.tags: expected \{key: value\}, got '\[vision\]'",
    "space=[1]": r"cannot use 'space=\[1\]': choose one config",
    "limits=null": r"limits: expected a group of keys, got 'null'",
    "limits.parameters=many": r"limits.parameters: 'many' is not a positive number",
    "data.augment=5": r"data.augment: expected a group of keys, got '5'",
    "data.augment.shift=2": r"data.augment.shift: 2.0 \(must be at least 0 and below 1\)",
    "data.validation=1": r"data.validation: 1.0 \(must be above 0 and below 1\)",
    "tracking.tags=5": r"tracking.tags: expected a group of keys, got '5'",
    "training.epochs=true": r"training.epochs: 'true' is not a number",
    "seed=-1": r"seed: -1 \(must be at least 0",
    "seed=4294967296": r"seed: .* at most 4294967295",
    "seed=1,2": r"cannot use 'seed=1,2': a list is \[16,32\], .*; to search a key: 'space.KEY.values=\[16,32\]'",
    "model.filters=range(1,3)": r"to search a key: 'space.model.filters.values=\[16,32\]'",
    "space.model.filters=choice(16,32)": r"'space.model.filters=choice\(16,32\)': .* 'space.model.filters.values=\[16",
    "space.job.x.values=16,32": r": 'space.job.x.values=\[16,32\]'",
    "search=glob(*)": r"cannot use 'search=glob\(\*\)': choose one config \(search=NAME\)",
    "+sweep=digits,smoke": r"cannot use '\+sweep=digits,smoke': choose one config \(\+sweep=NAME\)",
    "space.seed=${nope}": r"with 'space.seed=\$\{nope\}': Interpolation key 'nope' not found",
    "objective=val_acc": r"unknown objective 'val_acc', did you mean 'val_accuracy'",
    "name=a/b": r"name: 'a/b' \(use letters",
    "name=${nope}": r"Interpolation key 'nope' not found",
    "name=${name}": r"Recursive interpolation",
    "name=${oc.env:NO_SUCH_VARIABLE}": r"'NO_SUCH_VARIABLE' not found",
    "name=é": r"""cannot read 'name=é': .*'KEY="é"'""",
    "budget.trials": r"cannot read 'budget.trials': expected KEY=VALUE",
    "space.model.filters.values=[1": r"cannot read 'space.model.filters.values=\[1'",
    "": r"cannot read ''",
    "=": r"cannot read '='",
    "name=\0": r"cannot read",
}


def test_an_application_with_hydra_may_compose_a_sweep_and_keeps_its_own_state(tmp_path):
    (tmp_path / "mine.yaml").write_text("rate: 3")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        assert compose(["search=grid"]).seed == 0
        assert hydra.compose("mine").rate == 3
        assert not version.base_at_least("1.3")


@pytest.mark.parametrize("override", FAULTS)
def test_an_override_that_makes_no_sense_is_one_short_error(override):
    with pytest.raises(UserError, match=FAULTS[override]) as caught:
        compose([override])
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable() or "\0" in override


@pytest.mark.parametrize("override", [["+sweep=smoke"], 5, {"seed": 1}, None])
@pytest.mark.parametrize("function", [cnnsweep.run, cnnsweep.trials, cnnsweep.curves])
def test_an_override_that_is_no_string_is_a_clear_error_in_python(function, override):
    with pytest.raises(UserError, match=r"overrides are strings, as in run\(.*; got " + re.escape(repr(override)[:9])):
        function("name=a", override)


@pytest.mark.parametrize("group", ["job", "model"])
def test_a_key_of_ones_own_that_is_set_like_a_known_one_is_answered_with_how_it_is_added(group):
    with pytest.raises(UserError, match=rf"'units' .*; a key of your own is added with a plus: \+{group}.units=VALUE$"):
        compose([f"{group}=function", f"{group}.call=own.main", f"{group}.units=3"])
    assert compose([f"{group}=function", f"{group}.call=own.main", f"+{group}.units=3"])


@pytest.mark.parametrize("overrides", [("job.y=3",), ("search=random", "search.y=3"), ("tracking.y=3",), ("y=3",)])
def test_no_plus_is_advised_where_it_does_not_help(overrides):
    with pytest.raises(UserError, match=r"unknown key") as caught:
        compose(overrides)
    assert "plus" not in str(caught.value)


def test_a_group_of_an_application_may_have_a_slash_or_a_package():
    """Hydra took the key for a group of cnnsweep's configs."""
    space = ["space.job.groups.model/encoder.values=[a, b]", "space.job.groups.x/y={values: [c]}"]
    config = compose(["job=hydra", "job.call=a.main", "job.groups.x@y.z=null", "job.groups.m/n=small", *space])
    assert config.job.plain()["groups"] == {"x@y.z": None, "m/n": "small"}
    assert config.space["job"]["groups"] == {"model/encoder": {"values": ["a", "b"]}, "x/y": {"values": ["c"]}}


def test_what_is_for_an_application_is_answered_with_how_it_is_written():
    with pytest.raises(UserError, match=r"'width' not found; a key of the application's config is \\\$\{KEY\}$"):
        compose(["job=hydra", "job.call=a.main", "job.config.rate=${width}"])
    with pytest.raises(UserError, match=r"^job.overrides: 'rate=1' is not a list, such as \[a,b\]$"):
        compose(["job=hydra", "job.call=a.main", "job.overrides='rate=1'"])
    job = compose(["job=hydra", "job.call=a.main", r"job.config.rate=\${width}"]).job.plain()
    assert job["config"] == {"rate": "${width}"}


@pytest.mark.parametrize("content", ["seed: 3", "", "defaults: [override /data: digits]", "\ufeff# @package _global_"])
def test_a_preset_without_its_first_line_is_answered_with_it(tmp_path, content):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"^\+sweep=mine: .* begins with the line '# @package _global_'"):
        compose(["+sweep=mine"], tmp_path)


def test_a_config_with_the_other_suffix_of_yaml_is_named(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yml").write_text("defaults: [cnn]")
    with pytest.raises(UserError, match=r"mine\.yml' is not read: name it mine\.yaml$"):
        compose(["model=mine"], tmp_path)


def test_a_preset_with_a_function_takes_keys_of_ones_own_too(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("# @package _global_\ndefaults: [override /job: function]\n")
    with pytest.raises(UserError, match=r"unknown key 'job.y'.*: \+job.y=VALUE"):
        compose(["+sweep=mine", "job.y=3"], tmp_path)


def test_a_key_of_another_choice_of_its_group_is_answered_with_the_keys_of_the_chosen_one():
    with pytest.raises(UserError, match=r"unknown key of executor=ray 'workers' \(one of: trial_minutes, .*, address,"):
        compose(["executor=ray", "executor.workers=1"])
    with pytest.raises(UserError, match=r"unknown key of executor=ray 'adress', did you mean 'address'\?"):
        compose(["executor=ray", "executor.adress=x"])


def tagged(name):
    return check_section("tracking", {**compose().tracking.plain(), "tags": {name: "x"}})


@pytest.mark.parametrize(
    "name", ["a//b", "owner@lab", "", "a" * 251, "/a", "a/../b", ".", "../a", "a\n", "[a]", "cnnsweep.kind"]
)
def test_a_tag_that_mlflow_does_not_take_is_refused(name):
    with pytest.raises(UserError, match=r"tracking.tags: '[^']*' cannot be a tag's name"):
        tagged(name)
    if name not in ("a\n", "cnnsweep.kind"):
        with pytest.raises(MlflowException):
            _validate_tag(name, "x")


@pytest.mark.parametrize("name", ["a/b", "Größe: 3 .x-y_z", "a" * 250, "mlflow.note.content", 3])
def test_a_tag_that_mlflow_takes_is_taken(name):
    (found,) = tagged(name).tags
    _validate_tag(found, "x")


@pytest.mark.parametrize("key", ["n//a", "C#", "[x]"])
def test_a_searched_key_that_mlflow_does_not_take_is_refused(key):
    own = {"model": {"_target_": "mine.build", key: 1}, "space": {"model": {key: {"values": [1, 2]}}}}
    with pytest.raises(UserError, match=rf"space.model.{re.escape(key)}: MLflow takes no param with this name"):
        parse_space(Config.from_plain({**compose().plain(), **own}))


@pytest.mark.parametrize("override", ["name=" + "a" * 100_000, "a" * 100_000 + "=1", "seed=" + "[" * 2000 + "]" * 2000])
def test_a_very_long_override_is_a_short_error(override):
    with pytest.raises(UserError) as caught:
        compose([override])
    assert len(str(caught.value)) < 600


KEYS = st.sampled_from(
    ["seed", "name", "model", "model.filters", "model.blocks", "training.learning_rate", "data.augment", "limits",
     "limits.mmacs", "space", "space.model", "space.model.filters", "space.model.filters.values", "budget.trials",
     "tracking.tags", "search", "+sweep", "~model", "++x.y", "hydra.verbose", "defaults", "a@b", ""]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "1", "-1", "null", "true", "nan", ".inf", "1e999", "9" * 400, "[]", "{}", "[1,[2]]", "{a: {b: 1}}", "???",
     "..", "/", "${seed}", "${", "${a.b}", "${oc.env:HOME}", "${oc.decode:[}", "'", '"', "\\", "\n", "é", "🎉", "1,2",
     "choice(1,2)", "glob(*)", "cnn", "_self_", "!!python/object:os.system"]
)  # fmt: skip
OVERRIDES = st.one_of(st.text(max_size=20), st.builds("{}={}".format, KEYS, VALUES | st.text(max_size=10)))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(OVERRIDES, min_size=1, max_size=2))
def test_no_override_can_raise_anything_but_a_user_error(overrides):
    with contextlib.suppress(UserError):
        parse_space(compose(overrides))


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.lists(st.integers()), st.booleans()))
def test_a_quantity_is_a_positive_number_or_an_error(value):
    with contextlib.suppress(ValueError):
        parsed = quantity(value)
        assert parsed is None if value is None else 0 < parsed < float("inf")


def test_units_multiply():
    parsed = [quantity(text) for text in ("250k", "250K", "1.5M", "2G", "1e3", 7)]
    assert parsed == [250e3, 250e3, 1.5e6, 2e9, 1e3, 7]


def test_a_config_cannot_be_changed_and_survives_json():
    config = compose()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
    assert Config.from_plain(json.loads(json.dumps(config.plain()))) == config
    assert {"seed", "model.filters", "data.augment.flip", "limits.mmacs"} <= set(dict(flat(config.plain())))


def test_values_replace_keys_and_entries_of_blocks():
    config = compose(["model.filters=[4,5,6]", "space=none"])
    changed = config.with_values(
        {"model.blocks": 3, "model.filters.2": 9, "data.augment.shift": 0.5, "training.epochs": 7}
    )
    assert (changed.model.filters, changed.model.blocks) == ([4, 9, 6], 3)
    assert (changed.data.augment.shift, changed.training.epochs, config.training.epochs) == (0.5, 7, 10)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "digits"),
        (["data=npz", "data.file=my.npz"], "npz"),
        (["data=fashion_mnist"], "fashion_mnist"),
        (["data._target_=my_data.flowers"], "flowers"),
        (["data=npz", "data.file=my.npz", "name=mine"], "mine"),
    ],
)
def test_a_sweep_without_a_name_has_that_of_its_data(overrides: list[str], name: str) -> None:
    assert compose(overrides).name == name
