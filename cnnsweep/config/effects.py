"""Keys of a config that are set or searched where they have no effect, each refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnsweep.config import shipped
from cnnsweep.config.schema import Config
from cnnsweep.config.section import Plain
from cnnsweep.config.training import Training

OPTIMISED = (
    "optimizer", "optimizer_settings", "learning_rate", "weight_decay", "warmup_epochs", "schedule",
    "schedule_settings", "gradient_clipping", "clip_by", "ema_momentum", "loss", "loss_settings", "metrics",
    "steps_per_execution",
)  # fmt: skip
"""Keys of `training` for the compilation of a model: of one that is compiled they have no effect."""
LOOP = ("epoch_size", "patience", "min_delta", "target", "class_weights")
"""Keys for the epochs: a loop of the user's own has its own."""


def without_effect(config: Config, names: Sequence[str], why: str) -> Iterator[str]:
    """An error for each of these keys of `training` that is searched, or set to another value than the shipped one."""
    searched, values, usual = config.space.get("training"), config.training.plain(), _shipped()
    for name in names:
        if isinstance(searched, dict) and searched.get(name):
            yield f"space.training.{name}: is searched, but has no effect: {why}"
        elif values[name] != usual[name]:
            yield f"training.{name}: {values[name]} has no effect: {why}"


def _shipped() -> Plain:
    import yaml

    return Training.model_validate(yaml.safe_load((shipped() / "training" / "default.yaml").read_text())).plain()
