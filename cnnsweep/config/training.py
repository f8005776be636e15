"""The config of a trial's training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cnnsweep.config.optimizers import OPTIMIZERS, SCHEDULES, settings_of
from cnnsweep.config.section import Plain, Section
from cnnsweep.config.tasks import TARGET, Named
from cnnsweep.config.validation import Float, Int, auto_or_steps, auto_or_truth, choice


class Training(Section):
    """How a trial is trained."""

    epochs: Int = Field(ge=1)
    batch_size: Int = Field(ge=1)
    epoch_size: Int | None = Field(ge=1)
    optimizer: Annotated[str, choice(*OPTIMIZERS)]
    optimizer_settings: Annotated[Plain, BeforeValidator(settings_of("optimizer_settings"))]
    learning_rate: Float = Field(gt=0)
    weight_decay: Float = Field(ge=0)
    warmup_epochs: Float = Field(ge=0)
    schedule: Annotated[str, choice(*SCHEDULES)]
    schedule_settings: Annotated[Plain, BeforeValidator(settings_of("schedule_settings"))]
    gradient_clipping: Float = Field(ge=0)
    clip_by: Literal["global_norm", "norm", "value"]
    ema_momentum: Float = Field(ge=0, lt=1)
    patience: Int | None = Field(ge=1)
    callbacks: list[Plain]
    min_delta: Float = Field(ge=0)
    target: Float | None
    loss: str | Plain
    loss_settings: Plain
    metrics: str | list[Named]
    class_weights: str | dict[str, Float]
    steps_per_execution: Annotated[int | str, BeforeValidator(auto_or_steps)]
    deterministic: Annotated[bool | str, BeforeValidator(auto_or_truth)]
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
    retry_smaller_batch: bool
    unfreeze: str | int | float | None
    unfreeze_epochs: Int = Field(ge=1)
    unfreeze_learning_rate: Float = Field(gt=0)

    def examples(self, count: int) -> int:
        """How many of `count` training examples an epoch has."""
        return min(count, self.epoch_size or count)

    @property
    def policy(self) -> str:
        """Keras' dtype policy; `auto` is float32 until a sweep has settled it for its device."""
        return "float32" if self.precision == "auto" else self.precision

    @property
    def has_user_metrics(self) -> bool:
        """Whether the loss, or a metric, is of the user's own."""
        entries = [self.loss, *(self.metrics if isinstance(self.metrics, list) else [])]
        return any(isinstance(entry, dict) and TARGET in entry for entry in entries)
