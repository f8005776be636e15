"""A function `build(hp)` or a `HyperModel` as written for KerasTuner, and the space that it asks for."""

from __future__ import annotations

import inspect
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cnnsweep.config.components import configured_by, find
from cnnsweep.config.schema import ModelConfig
from cnnsweep.config.section import Plain
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import Network
from cnnsweep.models import own
from cnnsweep.models.hp_ranges import range_of, tried
from cnnsweep.models.keras_sizes import measure_model
from cnnsweep.models.own_fit import OwnFit, late
from cnnsweep.search_space.space import Value, Values
from cnnsweep.trial import Discovered, Inspection

if TYPE_CHECKING:
    import keras
    from keras_tuner import HyperParameters
    from keras_tuner.engine.hyperparameters import HyperParameter

SECONDS = 60.0
"""For finding out which hyperparameters are asked for under which values of others."""
Build = Callable[[Any], Any]


class HyperModelConfig(ModelConfig):
    """The config of a hypermodel; conf/model/keras_tuner.yaml explains the keys."""

    hypermodel: str
    discover: str | None
    hp: Plain = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)


@configured_by(HyperModelConfig)
def build(
    model: HyperModelConfig,
    input_shape: Sequence[int],
    classes: int,
    *,
    scale: float = 1.0,
    augment: Sequence[keras.layers.Layer] = (),
    seed: int = 0,  # noqa: ARG001
) -> keras.Model:
    """Build the model of the hyperparameters' values. Raises UserError for one that the space does not have."""
    made, new = _ask(model, input_shape, classes)
    if new and model.discover is None:
        raise UserError(late(model.hypermodel, new))
    return own.finish(made, f"model.hypermodel: {model.hypermodel}", input_shape, classes, scale, augment)


def measure(model: HyperModelConfig, input_shape: Sequence[int], classes: int) -> Network:
    """The sizes of the network, which is built for that; one that asks for more than the space has fails its trial."""

    def finished() -> keras.Model:
        made, _ = _ask(model, input_shape, classes)
        return own.finish(made, f"model.hypermodel: {model.hypermodel}", input_shape, classes)

    return measure_model(finished, input_shape)


def _ask(model: HyperModelConfig, input_shape: Sequence[int], classes: int) -> tuple[object, list[str]]:
    """The model of the values, and the hyperparameters that it asks for without one, which get their defaults."""
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.values = {model.names.get(key, key): value for key, value in model.hp.items()}
    known = set(hp.values)
    made = builder(model.hypermodel, input_shape, classes)(hp)
    return made, sorted({p.name for p in hp.space if type(p).__name__ != "Fixed"} - known)


def builder(path: str, input_shape: Sequence[int], classes: int) -> Build:
    """The function from `hp` to a model: the one that is named, or a HyperModel's. A class of these gets the shapes."""
    import keras_tuner

    found = _find(path, input_shape, classes)
    found = found.build if isinstance(found, keras_tuner.HyperModel) else found
    if not callable(found):
        raise UserError(f"model.hypermodel: {path} is {type(found).__name__}, expected a function build(hp) or a "
                        "HyperModel")  # fmt: skip
    try:
        inspect.signature(found).bind("hp")
    except TypeError as error:
        raise UserError(f"model.hypermodel: {path}{inspect.signature(found)} cannot be called with (hp)") from error
    made: Build = found
    return made


def _find(path: str, input_shape: Sequence[int], classes: int) -> Any:
    found = find("model.hypermodel", path)
    if isinstance(found, type):
        known = {"input_shape": own.shape_for(input_shape), "classes": classes}
        found = own.call("model.hypermodel", found, {}, known)
    return found


def own_fit(model: HyperModelConfig, input_shape: Sequence[int], classes: int) -> OwnFit | None:
    """The training of a HyperModel that has a `fit` of its own; None where Keras' is meant."""
    fit = _fit_of(model.hypermodel, input_shape, classes)
    values = {model.names.get(key, key): value for key, value in model.hp.items()}
    return None if fit is None else OwnFit(model.hypermodel, fit, values)


def _fit_of(path: str, input_shape: Sequence[int], classes: int) -> Callable[..., object] | None:
    import keras_tuner

    found = _find(path, input_shape, classes)
    is_own = isinstance(found, keras_tuner.HyperModel) and type(found).fit is not keras_tuner.HyperModel.fit
    return found.fit if is_own else None


def asking(path: str, input_shape: Sequence[int], classes: int) -> Build:
    """The function from `hp` to a model, which asks for the hyperparameters of the HyperModel's own fit too."""
    build, fit = builder(path, input_shape, classes), _fit_of(path, input_shape, classes)
    if fit is None:
        return build

    def build_and_ask(hp: HyperParameters) -> keras.Model:
        model = build(hp)
        OwnFit(path, fit, hp.values).ask(hp, model, input_shape)
        return model

    return build_and_ask


def discover(inspection: Inspection) -> Generator[None, bool, Discovered]:
    """A job: build the model with different values, and note which hyperparameters are asked for."""
    model = inspection.config.model
    try:
        place = str(model.plain()["hypermodel"]), inspection.input_shape, inspection.classes
        return Explorer(asking(*place), model.plain()["hp"]).explore()
    except UserError as error:
        return Discovered(fault=str(error))
    yield


class Explorer:
    """Finds the hyperparameters of a `build(hp)`, and the values of others under which each is asked for.

    KerasTuner learns of conditions from `conditional_scope` alone; here those that are plain Python are found too
    (`for i in range(hp.Int("layers", 1, 3)): hp.Int(f"units_{i}", …)`), by trying the values of one at a time. Those
    that are `given` keep their values.
    """

    def __init__(self, function: Build, given: Values | None = None) -> None:
        self._build, self._given = function, given or {}
        self._answers: dict[frozenset[tuple[str, Value]], tuple[set[str], set[str]] | None] = {}
        """Of a build: all names, and those that count under its values; None where it failed."""
        self._found: dict[str, HyperParameter] = {}
        self._when: dict[str, dict[str, list[Value]]] = {}
        self._several: set[str] = set()
        self._error: Exception | None = None
        self._deadline = time.monotonic() + SECONDS

    def explore(self) -> Discovered:
        """Raises UserError where the model cannot be built with its default values, or not twice alike."""
        base, which = self._asked({}), "given" if self._given else "default"
        if self._error is not None:
            kind, text = type(self._error).__name__, str(self._error).strip().partition("\n")[0]
            raise UserError(f"model.hypermodel: with the {which} values: {kind}: {text[:300]}") from self._error
        self._answers.clear()
        if other := (base or set()) ^ (self._asked({}) or set()):
            raise UserError(f"model.hypermodel: of two builds with the {which} values one alone asks for "
                            f"{', '.join(sorted(other))}: what it asks for may depend on hp alone")  # fmt: skip
        waiting: deque[tuple[Values, str]] = deque(({}, name) for name in base or ())
        while waiting and time.monotonic() < self._deadline:
            context, name = waiting.popleft()
            waiting.extend(({**context, name: value}, new) for new, value in self._vary(context, name))
        late = [name for _, name in waiting if len(tried(self._found[name])[0]) > 1]
        self._drop_alternatives()
        uniform = [name for name, p in self._found.items() if "min" in range_of(p) and p.sampling == "reverse_log"]
        notes = [f"not tried within {SECONDS:.0f} s, whether others depend on: {', '.join(late)}"] if late else []
        notes += [f"drawn uniformly, not by reverse_log: {', '.join(uniform)}"] if uniform else []
        if self._several:
            notes.append(
                f"asked for with several ranges, of which the first counts: {', '.join(sorted(self._several))}"
            )
        keys = _keys(self._found)
        return Discovered(
            {keys[name]: p.default for name, p in self._found.items()},
            {keys[name]: self._entry(p, keys) for name, p in self._found.items()},
            {key: name for name, key in keys.items() if key != name},
            tuple(notes),
        )

    def _vary(self, context: Mapping[str, Value], name: str) -> list[tuple[str, Value]]:
        """Try the values of one; return the new hyperparameters, each with a value under which it is asked for."""
        values, complete = tried(self._found[name])
        if len(values) < 2 or _key(name) in self._given:
            return []
        before, asked = set(self._found), {}
        numbers = not isinstance(values[0], (str, bool))
        for value in (values[0], values[-1]) if numbers else values:
            asked[value] = self._asked({**context, name: value})
        known = [names for names in asked.values() if names is not None]
        if numbers and complete and any(names != known[0] for names in known):
            asked = {
                value: asked[value] if value in asked else self._asked({**context, name: value}) for value in values
            }
        for other in set().union(*(names for names in asked.values() if names is not None)) - {name}:
            present = [value for value, names in asked.items() if names is None or other in names]
            if complete and len(present) < len(asked):
                self._when.setdefault(other, {}).setdefault(name, present)
        first = {new: value for value, names in reversed(asked.items()) for new in names or ()}
        return [(new, first[new]) for new in self._found if new not in before]

    def _drop_alternatives(self) -> None:
        """Leave out conditions of `if a or b`: each alone is none, and both would be `a and b`."""
        for name, conditions in self._when.items():
            for other in [other for other in conditions if self._counts_without(name, other)]:
                del conditions[other]

    def _counts_without(self, name: str, other: str) -> bool:
        """Whether it is asked for where its other conditions hold and this one does not."""
        if other not in self._found or _key(other) in self._given:
            return False
        context: dict[str, Value] = {}
        for each, allowed in self._when[name].items():
            if each != other:
                self._satisfy(each, allowed[-1], context)
        for value in tried(self._found[other])[0]:
            if value not in self._when[name][other] and time.monotonic() < self._deadline:
                self._satisfy(other, value, values := dict(context))
                if name in (self._answer(values) or ((), ()))[1]:
                    return True
        return False

    def _satisfy(self, name: str, value: Value, context: dict[str, Value]) -> None:
        """Put a value into a context, and values of others under which it is asked for."""
        if name in self._found and name not in context and _key(name) not in self._given:
            context[name] = value
            for other, allowed in self._when.get(name, {}).items():
                self._satisfy(other, allowed[-1], context)

    def _asked(self, values: Mapping[str, Value]) -> set[str] | None:
        """The names that a build asks for; None where it fails, which is all that can then be said of these values."""
        answer = self._answer(values)
        return None if answer is None else answer[0]

    def _answer(self, values: Mapping[str, Value]) -> tuple[set[str], set[str]] | None:
        import keras_tuner

        others = {name: value for name, value in values.items() if value != self._found[name].default}
        if (key := frozenset(others.items())) in self._answers:  # the same build
            return self._answers[key]
        hp = keras_tuner.HyperParameters()
        hp.values, self._error = {**self._given, **values}, None
        try:
            self._build(hp)
        except UserError:
            raise
        except Exception as error:  # such a network is invalid, and each proposal is looked at by itself
            self._error = error
        asked = [p for p in hp.space if type(p).__name__ != "Fixed"]
        for p in asked:
            if range_of(self._found.setdefault(p.name, p)) != range_of(p):
                self._several.add(p.name)
            for condition in p.conditions:
                allowed = self._when.setdefault(p.name, {}).setdefault(condition.name, [])
                allowed += [value for value in condition.values if value not in allowed]
        names = {p.name for p in asked}, {p.name for p in asked if hp.is_active(p)}
        self._answers[key] = None if self._error is not None else names
        return self._answers[key]

    def _entry(self, p: HyperParameter, keys: Mapping[str, str]) -> Plain:
        conditions = {other: values for other, values in self._when.get(p.name, {}).items() if other in keys}
        when = {f"model.hp.{keys[other]}": values for other, values in conditions.items()}
        return {**range_of(p), **({"when": when} if when else {})}


def _keys(names: Iterable[str]) -> dict[str, str]:
    """The keys of hyperparameters by name. Raises UserError for two names of one key."""
    names_of: dict[str, str] = {}
    for name in names:
        if (other := names_of.setdefault(key := _key(name), name)) != name:
            both = f"the hyperparameters '{other}' and '{name}' would both be model.hp.{key}"
            signs = "letters, digits, spaces and / _ - : stay in a key, all else becomes _"
            raise UserError(f"model.hypermodel: {both}: rename one ({signs})")
    return {name: key for key, name in names_of.items()}


def _key(name: str) -> str:
    """The config's key for a hyperparameter: without the signs that keys and MLflow's params cannot have.

    >>> _key("cnn/units"), _key("rate (%)"), _key("0")
    ('cnn/units', 'rate ___', 'hp_0')
    """
    key = re.sub(r"[^/\w\- :]|//+", "_", name).strip("/ ")
    return f"hp_{key}" if key.isdigit() else key
