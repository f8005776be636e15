"""The optimizer of a config: its class, its schedule with warm-up, gradient clipping and the average of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnsweep.config.optimizers import OPTIMIZERS, chosen
from cnnsweep.config.schema import Training
from cnnsweep.errors import UserError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

CLIPPING = {"global_norm": "global_clipnorm", "norm": "clipnorm", "value": "clipvalue"}
"""The arguments of Keras' optimizers."""


def make_optimizer(training: Training, steps: int, for_training: bool = True) -> keras.optimizers.Optimizer:
    """Return a new optimizer of Keras for epochs of so many steps.

    One that is not `for_training` has the config's learning rate all the time and no average of the weights, so that a
    model that is saved with it loads with Keras alone.
    """
    import keras
    from keras import optimizers

    kind = OPTIMIZERS[training.optimizer]
    make = getattr(optimizers, kind.keras, None)
    if make is None:
        raise UserError(f"training.optimizer: Keras {keras.__version__} has no {kind.keras}; a later one has")
    settings = chosen("optimizer_settings", training.optimizer, training.optimizer_settings)
    if training.optimizer == "muon":
        own = training.optimizer_settings.get("adam_weight_decay", training.weight_decay)
        settings |= {"adam_weight_decay": own or None, "exclude_layers": ["classifier"]}  # as its authors advise
    # AdamW alone does not take None.
    settings["weight_decay"] = training.weight_decay or (0.0 if training.optimizer == "adamw" else None)
    if training.gradient_clipping:
        settings[CLIPPING[training.clip_by]] = training.gradient_clipping
    if training.ema_momentum and for_training:
        settings |= {"use_ema": True, "ema_momentum": training.ema_momentum}
    optimizer: keras.optimizers.Optimizer = make(
        _rate(training, steps) if for_training else training.learning_rate, **settings
    )
    return optimizer


def _rate(training: Training, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    from keras import ops
    from keras.optimizers.schedules import LearningRateSchedule

    warmup = round(training.warmup_epochs * steps)
    after = _schedule(training, steps, max(1, steps * training.epochs - warmup))
    if not warmup:
        return after

    class WarmUp(LearningRateSchedule):
        """A linear rise to the learning rate, then a schedule (Goyal et al. 2017, arXiv 1706.02677)."""

        def __call__(self, step: tf.Tensor) -> tf.Tensor:
            step = ops.cast(step, "float32")
            later = after(ops.maximum(step - warmup, 0.0)) if callable(after) else after
            return ops.where(step < warmup, training.learning_rate * (step + 1) / warmup, later)

        def get_config(self) -> dict[str, Any]:
            return {}

    return WarmUp()


def _schedule(training: Training, steps: int, rest: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The schedule after the warm-up; `rest` steps are left."""
    from keras.optimizers import schedules

    rate, found = training.learning_rate, chosen("schedule_settings", training.schedule, training.schedule_settings)
    for name in ("decay_epochs", "first_decay_epochs"):
        if name in found:
            epochs = found.pop(name)
            found[name.replace("epochs", "steps")] = rest if epochs is None else max(1, round(epochs * steps))
    match training.schedule:
        case "cosine":
            return schedules.CosineDecay(rate, rest, **found)
        case "cosine_restarts":
            return schedules.CosineDecayRestarts(rate, **found)
        case "exponential":
            return schedules.ExponentialDecay(rate, **found)
        case "inverse_time":
            return schedules.InverseTimeDecay(rate, **found)
        case "polynomial":
            return schedules.PolynomialDecay(rate, **found)
        case "piecewise":
            # Keras takes the boundary itself for the value before it.
            boundaries = [round(epoch * steps) - 1 for epoch in found["boundaries"]]
            return schedules.PiecewiseConstantDecay(boundaries, [rate * factor for factor in found["factors"]])
        case _:
            return rate
