"""The types of the config's sections. Values stand in conf/, never here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SerializeAsAny

from cnnsweep.config import objective, own_code, tasks
from cnnsweep.config.augment import Augment
from cnnsweep.config.components import config_type
from cnnsweep.config.inputs import NOUNS, refuse_input
from cnnsweep.config.section import Plain, Section, replaced
from cnnsweep.config.training import Training
from cnnsweep.config.validation import (
    Float,
    Int,
    Quantity,
    sweep_name,
    tags,
    validate,
)  # fmt: skip
from cnnsweep.errors import UserError


class Component(Section):
    """A section that configures a class or function, which `_target_` names."""

    target: str = Field(alias="_target_")

    @property
    def is_custom(self) -> bool:
        """True for a user's own component, which may have any keys."""
        return self.model_config["extra"] == "allow"

    def argument(self) -> Any:
        """Return what the component's functions are called with: this section, a mapping for a user's own."""
        return self.plain() if self.is_custom else self

    def settings(self) -> Plain:
        """Return the keys that are declared by the component itself, as keyword arguments for its class."""
        base = {name for kind in BASES for name in kind.model_fields if isinstance(self, kind)}
        return {name: value for name, value in self.plain().items() if name not in base and name != "_target_"}


class DataConfig(Component):
    """Keys that every data source has."""

    dir: str | None
    limit: Int | None = Field(gt=0)
    validation: Float = Field(gt=0, lt=1)
    folds: Int | None = Field(ge=2, le=20)
    group: str | None
    duplicates: Literal["report", "refuse", "remove"]
    augment: Augment


class ModelConfig(Component):
    """Keys that every model family has; each names a function, or is null."""

    takes: ClassVar[tuple[str, ...]] = tuple(NOUNS)  # the kinds of input
    fits: ClassVar[tuple[tasks.Task, ...]] = ("classification", "multi_label", "regression")  # the tasks

    layers: str | None = None
    measure: str | None = None
    check: str | None = None
    prepare: str | None = None
    fit: str | None = None

    def check_input(self, kind: str) -> None:
        """Raise UserError where the network takes no inputs of this kind."""
        refuse_input(kind, self.takes)

    @property
    def title(self) -> str:
        """What kind of network it is, for a model card, as it begins a sentence: "a convolutional network"."""
        return "a network"

    def describe(self, values: Mapping[str, object]) -> str:
        """The network in a few characters: its searched values, else those of its training, or the family's name."""
        found = {name: v for name, v in values.items() if name.startswith("model.")} or values
        return " ".join(_brief(name, v) for name, v in found.items()) or self.target.split(".")[-1]


def _brief(name: str, value: object) -> str:
    """
    >>> _brief("model.hp.dropout", True), _brief("job.fast", False), _brief("job.rate", 0.00123)
    ('dropout', 'no fast', '0.00123')
    """
    if isinstance(value, bool):
        return f"{'' if value else 'no '}{name.rpartition('.')[2]}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class JobConfig(Component):
    """Keys that every job has: `_target_` is the generator function that a worker runs for each trial."""

    check: str | None = None
    """Names a job that finds what is wrong before the first trial."""

    @property
    def own(self) -> Plain:
        """The keys of the user's own, which `job._target_` does not declare."""
        return dict(self.model_extra or {})


class SearchConfig(Component):
    """Keys that every search has."""

    max_failures: Int | None = Field(ge=1)
    start_with: Any
    learn_from: str | None


class ExecutorConfig(Component):
    """Keys that every executor has."""

    trial_minutes: Float | None = Field(gt=0)
    hang_minutes: Float | None = Field(gt=0)
    grace_seconds: Float = Field(ge=0)


BASES = (JobConfig, DataConfig, ModelConfig, SearchConfig, ExecutorConfig)


class CustomData(DataConfig, extra="allow"):
    dir: str | None = None
    limit: Int | None = Field(None, gt=0)
    validation: Float = Field(0.1, gt=0, lt=1)
    folds: Int | None = Field(None, ge=2, le=20)
    group: str | None = None
    duplicates: Literal["report", "refuse", "remove"] = "report"
    augment: Augment = Augment.off()


class CustomJob(JobConfig, extra="allow"):
    """A job of the user's own."""


class CustomModel(ModelConfig, extra="allow"):
    """A model family of the user's own."""

    fits: ClassVar[tuple[tasks.Task, ...]] = (*tasks.LABELS,)


class CustomSearch(SearchConfig, extra="allow"):
    max_failures: Int | None = Field(None, ge=1)
    start_with: Any = ()
    learn_from: str | None = None


class CustomExecutor(ExecutorConfig, extra="allow"):
    trial_minutes: Float | None = Field(None, gt=0)
    hang_minutes: Float | None = Field(None, gt=0)
    grace_seconds: Float = Field(30.0, ge=0)


class Limits(Section):
    """The largest networks that may be proposed; null: no limit."""

    parameters: Quantity
    mmacs: Quantity
    activation_mb: Quantity


class Tracking(Section):
    """The MLflow store, and what is logged there."""

    uri: str | None
    dir: str
    experiment: str
    tags: Annotated[Plain, AfterValidator(tags)]
    gallery: Int = Field(ge=0)
    report: bool


class Budget(Section):
    """The end of a sweep: the first of these limits that is reached."""

    trials: Int | None = Field(ge=1)
    minutes: Float | None = Field(gt=0)
    epochs: Int | None = Field(ge=1)
    finalists: Int | None = Field(ge=1)
    replicates: Int | None = Field(ge=1)


class Export(Section):
    """The final training of the best network."""

    seeds: Int = Field(ge=1, le=100)


class Config(Section):
    """A checked config: one complete, trainable network, and how it is searched."""

    name: Annotated[str, AfterValidator(sweep_name)]
    seed: int = Field(ge=0, le=2**32 - 1)
    backend: Literal["tensorflow", "jax", "torch", "none"]
    task: tasks.Task
    objective: str | list[str]
    limits: Limits
    job: SerializeAsAny[JobConfig]
    data: SerializeAsAny[DataConfig]
    model: SerializeAsAny[ModelConfig]
    space: Plain
    search: SerializeAsAny[SearchConfig]
    training: Training
    executor: SerializeAsAny[ExecutorConfig]
    tracking: Tracking
    budget: Budget
    export: Export

    @property
    def trains_networks(self) -> bool:
        """False where trials run code of the user's own: then there is no network to test, to draw or to export."""
        return self.job.target == own_code.NETWORKS

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Config:
        """Check plain nested data and return the config. Raises `UserError` for the first fault."""
        found = {**plain, "space": plain.get("space") or {}}
        found |= {name: check_section(name, plain[name]) for name in SECTIONS if name in plain}
        if "objective" in plain and isinstance(training := found.get("training"), Training):
            task, space = plain.get("task"), found["space"]
            if own_code.is_run_by(plain):
                found["objective"] = own_code.read(plain["objective"], task, training.metrics)
            else:
                found["objective"] = objective.check(plain["objective"], task, training.plain(), space)
        config = validate("", cls, found)
        tasks.check_fit(config.task, config.model.target, config.model.fits, bool(config.data.augment.active))
        if config.budget.trials is config.budget.minutes is config.budget.epochs is None:
            raise UserError("budget: a sweep needs an end; set at least one of budget.trials, .minutes, .epochs")
        return config

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return a copy with searched keys replaced; `model.filters.2` is block 2's entry of a list.

        The values are not checked again: the space was checked when it was read.
        """
        tree: Plain = {}
        for name, value in values.items():
            *path, last = name.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
        return self.replace(**{name: replaced(getattr(self, name), changes) for name, changes in tree.items()})


SECTIONS: dict[str, type[Section]] = {
    "limits": Limits,
    "job": CustomJob,
    "data": CustomData,
    "model": CustomModel,
    "search": CustomSearch,
    "training": Training,
    "executor": CustomExecutor,
    "tracking": Tracking,
    "budget": Budget,
    "export": Export,
}


def check_section(name: str, values: object) -> Section:
    """Check one section of a config by its type, a component's by the type that belongs to its `_target_`."""
    kind = SECTIONS[name]
    if issubclass(kind, Component) and isinstance(values, Mapping):
        target = values.get("_target_")
        if not isinstance(target, str):
            raise UserError(f"{name}: needs `_target_`, the class or function that it configures")
        kind = config_type(name, target) or kind
    return validate(name, kind, values)


def check_value(config: Config, name: str, value: object) -> object:
    """Return a value as the config holds it, 16 for 16.0 or "16" where a key takes whole numbers.

    Raises `UserError` where the key cannot have it: no searched value can have a wrong type or be out of bounds later.
    """
    section, *path, last = name.split(".")
    changed = node = getattr(config, section).plain()
    for part in path:
        node = node[part]
    node[last] = value
    node = check_section(section, changed).plain()
    for part in path:
        node = node[part]
    return node[last]
