"""Layers that change signals and texts at random in training; a model that is saved is built without them."""

from __future__ import annotations

import keras
from keras import ops, random

from cnnsweep.data.text_decoding import PADDING, UNKNOWN


class RandomChange(keras.layers.Layer):
    """A change of this strength for each example of a batch, in training alone."""

    def __init__(self, strength: float, seed: int, **options: object) -> None:
        super().__init__(**options)
        self.strength = strength
        self.generator = random.SeedGenerator(seed)

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return self.change(inputs) if training else inputs

    def change(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """The batch, changed."""
        raise NotImplementedError

    def compute_output_spec(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:  # noqa: ARG002
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def drawn(self, x: keras.KerasTensor, low: float = 0.0, high: float = 1.0) -> keras.KerasTensor:
        """A number for each example: (batch, 1, …, 1)."""
        shape = (ops.shape(x)[0], *(1,) * (len(x.shape) - 1))
        return random.uniform(shape, low, high, "float32", seed=self.generator)


class TimeShift(RandomChange):
    """Moves a signal (batch, steps, channels) earlier or later, by up to this share of its steps; zeros follow."""

    def change(self, x: keras.KerasTensor) -> keras.KerasTensor:
        steps = x.shape[1]
        moved = ops.cast(ops.round(self.drawn(x, -self.strength, self.strength) * steps), "int32")
        source = ops.reshape(ops.arange(steps, dtype="int32"), (1, -1, 1)) - moved
        found = ops.take_along_axis(x, ops.broadcast_to(ops.clip(source, 0, steps - 1), ops.shape(x)), axis=1)
        return ops.where((source >= 0) & (source < steps), found, 0)


class Noise(RandomChange):
    """Adds Gaussian noise, of up to this share of each channel's standard deviation, to (batch, steps, channels)."""

    def change(self, x: keras.KerasTensor) -> keras.KerasTensor:
        size = self.drawn(x, 0.0, self.strength) * ops.std(x, axis=1, keepdims=True)
        return x + size * random.normal(ops.shape(x), dtype=x.dtype, seed=self.generator)


class Gain(RandomChange):
    """Makes signals louder or softer, by up to so many decibels."""

    def change(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x * 10 ** (self.drawn(x, -self.strength, self.strength) / 20)


class Mask(RandomChange):
    """Replaces a span of up to this share of an axis, 1 (time) or 2 (frequencies), by the example's mean.

    The masks of SpecAugment (Park et al. 2019, arXiv 1904.08779), whose spectrograms have a mean of zero.
    """

    def __init__(self, strength: float, seed: int, axis: int, **options: object) -> None:
        super().__init__(strength, seed, **options)
        self.axis = axis

    def change(self, x: keras.KerasTensor) -> keras.KerasTensor:
        size = x.shape[self.axis]
        width = self.drawn(x, 0.0, self.strength) * size
        start = self.drawn(x) * (size - width)
        places = ops.reshape(
            ops.arange(size, dtype="float32"), [-1 if i == self.axis else 1 for i in range(len(x.shape))]
        )
        hidden = (places >= ops.round(start)) & (places < ops.round(start + width))
        return ops.where(hidden, ops.mean(x, axis=tuple(range(1, len(x.shape))), keepdims=True), x)


class WordDropout(RandomChange):
    """Makes this share of the words of texts (batch, words) unknown; padding stays."""

    def change(self, x: keras.KerasTensor) -> keras.KerasTensor:
        lost = random.uniform(ops.shape(x), seed=self.generator) < self.strength
        return ops.where(lost & (x != PADDING), UNKNOWN, x)
