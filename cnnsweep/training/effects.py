"""Keys of a config that are set or searched where they have no effect, each refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cnnsweep.config import shipped
from cnnsweep.config.own_code import MODELS
from cnnsweep.config.schema import Config
from cnnsweep.config.section import Plain
from cnnsweep.config.training import Training
from cnnsweep.errors import UserError
from cnnsweep.formatting import counted
from cnnsweep.models.fine_tuning import is_off

OPTIMISED = (
    "optimizer", "optimizer_settings", "learning_rate", "weight_decay", "warmup_epochs", "schedule",
    "schedule_settings", "gradient_clipping", "clip_by", "ema_momentum", "loss", "loss_settings", "metrics",
    "steps_per_execution",
)  # fmt: skip
"""Keys of `training` for the compilation of a model: of one that is compiled they have no effect."""
LOOP = ("epoch_size", "patience", "min_delta", "target", "class_weights")
"""Keys for the epochs: a loop of the user's own has its own."""
OWN_JOBS = {"cnnsweep.training.function.run": "function", "cnnsweep.training.application.run": "application"}
SPECTROGRAM = ("frame", "step", "mels", "axes")
"""Keys of `model` that a waveform, or an embedding, has no use for."""
HARMLESS = ("precision", "deterministic")
"""Keys that say how exact the numbers are, which a training of the user's own may be already."""
NO_DATA = "cnnsweep.data.none.load"
DATA = ("dir", "limit", "validation", "folds", "group", "duplicates", "augment")
SHIPPED = {
    "training": "training/default.yaml",
    "model": "model/cnn1d.yaml",
    "data": "data/_common.yaml",
    "budget": "budget/default.yaml",
}


def check_effects(config: Config) -> None:
    """Raise `UserError` for the first key that is set, or searched, and has no effect beside the others."""
    for fault in _faults(config):
        raise UserError(fault)


def without_effect(config: Config, names: Sequence[str], why: str, group: str = "training") -> Iterator[str]:
    """An error for each of these keys of a group that is searched, or set to another value than the shipped one."""
    values, usual = getattr(config, group).plain(), shipped_values(group)
    for name in names:
        if _entry(config, name, group):
            yield f"space.{group}.{name}: is searched, but has no effect{why}"
        elif values[name] != usual[name]:
            yield f"{group}.{name}: {values[name]} has no effect{why}"


def _faults(config: Config) -> Iterator[str]:
    if own := OWN_JOBS.get(config.job.target):
        names = [name for name in Training.model_fields if name not in HARMLESS or _entry(config, name)]
        names.remove("epochs")
        yield from without_effect(config, names, f": the {own} of job.call trains in its own way, for training.epochs")
        if config.data.target == NO_DATA:
            yield from without_effect(config, DATA, f": the {own} of job.call reads its own data", "data")
        return
    if not any(_possible(config, "patience")):
        yield from without_effect(config, ["min_delta"], " without training.patience")
    if not any(_possible(config, "gradient_clipping")):
        yield from without_effect(config, ["clip_by"], " without training.gradient_clipping")
    yield from _fine_tuning(config)
    yield from _durations(config)
    model = config.model.plain()
    if {*SPECTROGRAM} <= model.keys():
        names = [*(["representation"] if model["embedding"] else []), *SPECTROGRAM]
        if model["embedding"] or {*_possible(config, "representation", "model")} == {"waveform"}:
            yield from without_effect(config, names, ": it is of spectrograms (model.representation)", "model")
        if not any(_possible(config, "embedding", "model")):
            why = " without model.embedding, which is for texts"
            yield from without_effect(config, ["embedding_dropout"], why, "model")


def _fine_tuning(config: Config) -> Iterator[str]:
    on, target = _unfrozen(config), config.model.target
    if not on:
        names = ["unfreeze_epochs", "unfreeze_learning_rate"]
        yield from without_effect(config, names, " without training.unfreeze")
    elif target.startswith("cnnsweep.") and target not in MODELS and ".transfer" not in target:
        yield f"training.unfreeze: {on[0]}, but {target.split('.')[-2]} has no backbone; it needs model=transfer"


def _unfrozen(config: Config) -> list[object]:
    """The values of `training.unfreeze` that are not `none`."""
    possible = [value for value in _possible(config, "unfreeze") if value is not None]
    return [value for value in possible if not (isinstance(value, (str, int, float)) and is_off(value))]


def _durations(config: Config) -> Iterator[str]:
    """What a trial does not live to see, since it has fewer epochs."""
    is_tuned = bool(_unfrozen(config))
    for name in ("epochs", "unfreeze_epochs")[: 1 + is_tuned]:
        epochs, warmup = _largest(config, name), _largest(config, "warmup_epochs")
        if warmup > epochs:
            yield (f"training.warmup_epochs: {warmup:g}, but training.{name} is {epochs:g}: training would end before "
                   "the learning rate is reached")  # fmt: skip
    yield from _late_steps(config, int(_largest(config, "epochs")), _smallest(config, "warmup_epochs"))


def _late_steps(config: Config, epochs: int, warmup: float) -> Iterator[str]:
    """The steps of a schedule, which begins after the warm-up, that come after the last epoch."""
    where, settings = "training.schedule_settings", config.training.schedule_settings
    after = f" after a warm-up of {warmup:g}" if warmup else ""
    late = [epoch for epoch in settings.get("boundaries", []) if warmup + epoch >= epochs]
    if late and "piecewise" in _possible(config, "schedule"):
        yield f"{where}.boundaries: {late[0]:g}{after} is never reached in {counted(epochs, 'epoch')}"
    if settings.get("staircase") is True and warmup + (every := settings.get("decay_epochs") or 1) >= epochs:
        step = f"with staircase the first step comes after epoch {warmup + every:g}"
        yield f"{where}.decay_epochs: {step}, but a trial ends after {epochs}"


def _entry(config: Config, name: str, group: str = "training") -> Mapping[str, object]:
    """The entry of a key in the space; empty where it is not searched."""
    tree = config.space.get(group)
    entry = tree.get(name) if isinstance(tree, Mapping) else None
    return entry if isinstance(entry, Mapping) else {}


def _possible(config: Config, name: str, group: str = "training") -> list[object]:
    """The values that a key can have; of a range its ends."""
    entry = _entry(config, name, group)
    values = entry.get("values")
    ends = [entry[end] for end in ("min", "max") if end in entry]
    return values if isinstance(values, list) else ends or [getattr(config, group).plain()[name]]


def _largest(config: Config, name: str) -> float:
    return max((v for v in _possible(config, name) if isinstance(v, (int, float))), default=0)


def _smallest(config: Config, name: str) -> float:
    return min((v for v in _possible(config, name) if isinstance(v, (int, float))), default=0)


def shipped_values(group: str) -> Plain:
    """The values in the shipped config."""
    import yaml

    found: Plain = yaml.safe_load((shipped() / SHIPPED[group]).read_text(encoding="utf-8"))
    return Training.model_validate(found).plain() if group == "training" else found
