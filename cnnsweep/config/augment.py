"""The config of random changes of the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from cnnsweep.config.inputs import NOUNS
from cnnsweep.config.section import Section
from cnnsweep.config.tasks import REGION_LOSSES
from cnnsweep.config.validation import Float
from cnnsweep.errors import UserError

COLOUR = ("saturation", "hue")
"""Of images with three channels only."""
MIXING = ("mix_up", "cut_mix")
"""These mix two images, and their labels with them."""
SPECTRAL = ("frequency_mask",)
"""Of spectrograms only."""
OF_KIND: Mapping[str, tuple[str, ...]] = {
    "image": ("flip", "shift", "rotation", "zoom", "contrast", "brightness", "saturation", "hue", "erasing",
              "rand_augment", "aug_mix", *MIXING),
    "video": ("flip", "shift", "rotation", "zoom", "contrast", "brightness", "erasing"),
    "signal": ("shift", "noise", "gain", "time_mask", *SPECTRAL),
    "text": ("word_dropout",),
}  # fmt: skip
"""The changes for each kind of data."""
WORK = {"rand_augment": 22, "aug_mix": 9, "hue": 4, "saturation": 4}
"""Of those that are not one pass over the images, how many they are about as much work as."""


class Augment(Section):
    """Random changes of the training data; 0 or false: off."""

    flip: bool
    shift: Float = Field(ge=0, lt=1)
    rotation: Float = Field(ge=0, le=1)
    zoom: Float = Field(ge=0, lt=1)
    contrast: Float = Field(ge=0, le=1)
    brightness: Float = Field(ge=0, le=1)
    saturation: Float = Field(ge=0, le=1)
    hue: Float = Field(ge=0, le=1)
    erasing: Float = Field(ge=0, le=1)
    rand_augment: Float = Field(ge=0, le=1)
    aug_mix: Float = Field(ge=0, le=1)
    mix_up: Float = Field(ge=0, le=1)
    cut_mix: Float = Field(ge=0, le=1)
    noise: Float = Field(ge=0, le=10)
    gain: Float = Field(ge=0, le=60)
    time_mask: Float = Field(ge=0, lt=1)
    frequency_mask: Float = Field(ge=0, lt=1)
    word_dropout: Float = Field(ge=0, lt=1)

    @classmethod
    def off(cls) -> Augment:
        """No changes."""
        return cls.model_validate(dict.fromkeys(cls.model_fields, 0) | {"flip": False})

    @property
    def on(self) -> tuple[str, ...]:
        """The changes that are on."""
        return tuple(name for name in type(self).model_fields if getattr(self, name))

    @property
    def active(self) -> int:
        """The number of changes that are on."""
        return len(self.on)

    @property
    def work(self) -> int:
        """The passes over the data that they are about as much work as."""
        return sum(WORK.get(name, 1) for name in self.on)


def refuse_change(name: str, kind: str) -> None:
    """Raise UserError where data of this kind cannot be changed in this way."""
    have = OF_KIND.get(kind, ())
    if name not in have:
        nouns = " and ".join(NOUNS[other] for other, changes in OF_KIND.items() if name in changes)
        possible = f"; {NOUNS[kind]} can have {', '.join(have)}" if have else ""
        raise UserError(f"data.augment.{name}: changes {nouns}, but the data are {NOUNS[kind]}: set it to 0{possible}")


def check_mixing(changes: Sequence[str], loss: object) -> None:
    """Raise `UserError` for mixtures of images with a loss that is one number for a batch."""
    if changes and loss in REGION_LOSSES:
        raise UserError(
            f"data.augment.{changes[0]}: {loss} is one number for a batch, in which the two labels of a mixture cannot "
            f"have their shares; choose another training.loss or set data.augment.{changes[0]}=0"
        )
