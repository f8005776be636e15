"""Random changes of the training data: layers that come first in a network, and mixtures of its images.

Their random numbers derive from the trial's seed. The state of the layers is kept in checkpoints; that of mixtures
begins again with each epoch.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cnnsweep.config.augment import MIXING, Augment
from cnnsweep.models.keras_layers import layer_seed

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


Make = Mapping[str, Callable[[float, int], "keras.layers.Layer | list[keras.layers.Layer]"]]
"""The layers of each change, from its strength and a seed."""


def augmentation(
    augment: Augment, seed: int, scale: float, kind: str = "image", shape: Sequence[int] = ()
) -> list[keras.layers.Layer]:
    """Return the layers of a config for data of a kind, such as images whose values times `scale` are 0..1.

    The frames of a video, `shape` (frames, height, width, channels), are all changed alike.
    """
    chosen = [name for name in augment.on if name not in MIXING]
    if not chosen:
        return []
    make = _of_images(scale) if kind in ("image", "video") else _of_sequences()
    made = [make[name](getattr(augment, name), layer_seed(seed, f"augment {name}")) for name in chosen]
    layers = [layer for found in made for layer in (found if isinstance(found, list) else [found])]
    _let_jax_compile(layers)
    return _on_all_frames(layers, shape) if kind == "video" else layers


def _let_jax_compile(layers: Sequence[keras.layers.Layer]) -> None:
    """Say that layers can be compiled, which Keras denies of some: it would start each operation of a step by itself.

    Not of AugMix, which would choose its operations once, while it is compiled.
    """
    import keras

    if keras.backend.backend() == "jax":
        for layer in layers:
            if not isinstance(layer, keras.layers.AugMix):
                for part in layer._flatten_layers():
                    part.supports_jit = True


def _on_all_frames(layers: Sequence[keras.layers.Layer], shape: Sequence[int]) -> list[keras.layers.Layer]:
    """Layers for images, on videos: their frames become channels of one image."""
    from keras import layers as kl

    frames, height, width, channels = shape
    before = [kl.Permute((2, 3, 1, 4)), kl.Reshape((height, width, frames * channels))]
    after = [kl.Reshape((height, width, frames, channels)), kl.Permute((3, 1, 2, 4))]
    return [*before, *layers, *after]


def _of_sequences() -> Make:
    from cnnsweep.models import random_layers as rl

    return {
        "shift": lambda share, seed: rl.TimeShift(share, seed, name="shift"),
        "noise": lambda share, seed: rl.Noise(share, seed, name="noise"),
        "gain": lambda decibels, seed: rl.Gain(decibels, seed, name="gain"),
        "time_mask": lambda share, seed: rl.Mask(share, seed, axis=1, name="time_mask"),
        "frequency_mask": lambda share, seed: rl.Mask(share, seed, axis=2, name="frequency_mask"),
        "word_dropout": lambda share, seed: rl.WordDropout(share, seed, name="word_dropout"),
    }


def _of_images(scale: float) -> Make:
    from keras import layers as kl

    values = {"value_range": (0.0, 1 / scale)}
    return {
        "flip": lambda _, seed: kl.RandomFlip("horizontal", seed=seed),
        "shift": lambda share, seed: kl.RandomTranslation(share, share, fill_mode="constant", seed=seed),
        "rotation": lambda share, seed: kl.RandomRotation(share, fill_mode="constant", seed=seed),
        "zoom": lambda share, seed: kl.RandomZoom(share, fill_mode="constant", seed=seed),
        "contrast": lambda share, seed: kl.RandomContrast(share, seed=seed, **values),
        "brightness": lambda share, seed: kl.RandomBrightness(share, seed=seed, **values),
        "saturation": lambda share, seed: [
            kl.Rescaling(scale, name="before_saturation"),  # Keras' layer is right for 0..1 alone
            kl.RandomSaturation((0.5 - share / 2, 0.5 + share / 2), (0, 1), seed=seed),  # 0.5 changes nothing
            kl.Rescaling(1 / scale, name="after_saturation"),
        ],
        "hue": lambda share, seed: kl.RandomHue(share, seed=seed, **values),
        "erasing": lambda share, seed: kl.RandomErasing((share, share), seed=seed, **values),
        "rand_augment": lambda share, seed: kl.RandAugment(factor=share, seed=seed, **values),
        "aug_mix": lambda share, seed: kl.AugMix(factor=share, seed=seed, **values),
    }


class Labels(NamedTuple):
    """The labels of mixtures of two images."""

    first: tf.Tensor
    second: tf.Tensor
    share: tf.Tensor
    """Of the first image in the mixture: (batch,)."""
    order: tf.Tensor
    """Which image of the batch is the second one: (batch,)."""


class Mixer:
    """MixUp, CutMix, or for each batch one of them."""

    def __init__(self, augment: Augment) -> None:
        from keras import layers as kl
        from keras.random import SeedGenerator

        self.layers: list[keras.layers.Layer] = []
        if augment.mix_up:
            self.layers.append(kl.MixUp(augment.mix_up, seed=0, dtype="float32"))
        if augment.cut_mix:
            self.layers.append(kl.CutMix((augment.cut_mix, augment.cut_mix), seed=0, dtype="float32"))
        self.coin = SeedGenerator(0)

    def begin(self, seed: int, epoch: int, batch: int = 0) -> None:
        """Begin an epoch of a trial, or a later batch of it, whose random numbers derive from its seed and these."""
        for number, generator in enumerate((self.coin, *(layer.generator for layer in self.layers))):
            generator.state.assign([layer_seed(seed, f"mixing {number}"), (epoch << 20) + (batch << 4)])

    def mix(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Labels]:
        """Return the mixtures of a batch, and their labels."""
        from keras import ops
        from keras import random as keras_random

        images = ops.cast(images, "float32")
        found = [self._mixed(layer, images) for layer in self.layers]
        mixed, order, share = found[0]
        if len(found) > 1:
            first = keras_random.uniform((), seed=self.coin) < 0.5
            mixed, order, share = (ops.where(first, a, b) for a, b in zip(*found, strict=True))
        return mixed, Labels(labels, ops.take(labels, order, axis=0), share, order)

    def _mixed(self, layer: keras.layers.Layer, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        from keras import ops

        drawn = layer.get_random_transformation(images, training=True)
        mixed = layer.transform_images(images, drawn, training=True)
        share = ops.reshape(ops.cast(drawn["mix_weight"], "float32"), [-1])
        if "batch_masks" in drawn:  # Keras' share for CutMix is of a rectangle that does not end at whole pixels
            share = 1 - ops.mean(ops.cast(drawn["batch_masks"], "float32"), axis=(1, 2, 3))
        return mixed, ops.cast(drawn["permutation_order"], "int32"), share


class Mixing:
    """A model of Keras that trains on mixtures: the loss is that of both labels, weighted by their shares.

    For losses that are linear in the labels, such as cross-entropy, this is the loss of the mixed labels.
    """

    mixer: Mixer

    def compute_loss(
        self,
        x: tf.Tensor = None,
        y: tf.Tensor = None,
        y_pred: tf.Tensor = None,
        sample_weight: tf.Tensor = None,
        training: bool = True,
    ) -> tf.Tensor:
        if isinstance(y, Labels):
            from keras import ops

            shares = ops.concatenate([y.share, 1 - y.share]) * 2  # as the mean is over twice as many
            if sample_weight is not None:  # each label has that of its own image
                shares *= ops.concatenate([sample_weight, ops.take(sample_weight, y.order, axis=0)])
            y, y_pred = ops.concatenate([y.first, y.second]), ops.concatenate([y_pred, y_pred])
            sample_weight = shares
        return super().compute_loss(x, y, y_pred, sample_weight, training)  # type: ignore[misc]

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor = None
    ) -> tf.Tensor:
        """Measure by the labels with the larger shares."""
        if isinstance(y, Labels):
            from keras import ops

            is_first = ops.reshape(y.share >= 0.5, [-1] + [1] * (len(y.first.shape) - 1))
            y = ops.where(is_first, y.first, y.second)
        return super().compute_metrics(x, y, y_pred, sample_weight)  # type: ignore[misc]


class MixingStep(Mixing):
    """One that makes the mixtures within a training step."""

    def train_step(self, data: object) -> tf.Tensor:
        from keras.utils import unpack_x_y_sample_weight

        images, labels, weights = unpack_x_y_sample_weight(data)
        mixed, labels = self.mixer.mix(images, labels)
        return super().train_step((mixed, labels, weights))  # type: ignore[misc]


def use_mixing(model: keras.Model, augment: Augment) -> None:
    """Let a model train on mixtures of images, where a config has some.

    They are made within a step; with JAX, whose steps have no state, by `mixed` before.
    """
    import keras

    if any(name in MIXING for name in augment.on):
        kind, step = type(model), Mixing if keras.backend.backend() == "jax" else MixingStep
        model.__class__ = type(f"Mixing{kind.__name__}", (step, kind), {})
        model.mixer = Mixer(augment)
        if model.compiled:
            model.jit_compile = jit_compile(model)


def jit_compile(model: keras.Model) -> bool | str:
    """The argument of `compile`: XLA has no Beta distribution in TensorFlow."""
    return False if isinstance(model, MixingStep) else "auto"


def mixes_before(model: keras.Model) -> bool:
    """Whether a model takes the batches that `mixed` returns."""
    return isinstance(model, Mixing) and not isinstance(model, MixingStep)


def mixed(model: keras.Model, batches: keras.utils.PyDataset, seed: int, epoch: int) -> keras.utils.PyDataset:
    """The mixtures of an epoch's batches of images, labels and, where there are any, weights.

    Each is the same however often Keras asks for it, and from whichever thread: at first it looks at one more.
    """
    import keras

    lock = threading.Lock()

    class Mixed(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> tuple[object, ...]:
            images, labels, *weights = batches[index]
            with lock:
                model.mixer.begin(seed, epoch, index)
                return *model.mixer.mix(images, labels), *weights

    return Mixed()


def begin_epoch(model: keras.Model, seed: int, epoch: int) -> None:
    """Let the random numbers of an epoch derive from the trial's seed and the epoch alone."""
    random.seed(layer_seed(seed, "aug_mix"))  # Keras draws the operations of AugMix with it while it traces a step
    if isinstance(model, Mixing):
        model.mixer.begin(seed, epoch)
