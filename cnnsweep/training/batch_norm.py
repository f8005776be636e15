"""Statistics of batch normalisation, computed again after each epoch.

The moving averages that Keras keeps lag behind the weights: after few steps they are still those of the start, and
validation with them says little about the network. Statistics over training images, with the weights as they are, say
what it is worth (Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cnnsweep.data.arrays import Array
from cnnsweep.data.inputs import unpacked

if TYPE_CHECKING:
    import keras

IMAGES = 512
"""At most so many training images are used: 512 give the accuracy of all (experiments/benchmarks/batch_norm.md)."""
PIXELS = 256 * 28 * 28
"""Of the images that are taken at once; a training batch of any size is."""
Statistics = Sequence[tuple[Array, Array]]
"""The mean and the variance of each layer, in the order of `layers`."""
Batches = list[tuple[int, "keras.KerasTensor", "keras.KerasTensor"]]
"""Of each batch that a layer was given: the number of images, the mean and the variance."""
Measure = Callable[[object], list[Batches]]


def layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The layers of batch normalisation, those of nested models too."""
    from keras.layers import BatchNormalization

    found = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]
    return [layer for layer in found if layer.built and not layer.renorm]


def read(model: keras.Model) -> Statistics:
    """The statistics as they are."""
    return [(np.array(layer.moving_mean), np.array(layer.moving_variance)) for layer in layers(model)]


def write(model: keras.Model, statistics: Statistics) -> None:
    """Replace the statistics."""
    for layer, (mean, variance) in zip(layers(model), statistics, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def recompute(model: keras.Model, x: Array, since: Statistics, seed: int, batch_size: int) -> None:
    """Compute the statistics over images of `x` drawn by `seed`, in the layers that changed theirs `since`.

    A layer that did not is frozen or in inference mode, and stays as it is. All else is in inference mode: there is no
    dropout and no augmentation, and no random state changes.
    """
    pairs = zip(layers(model), since, strict=True)
    moved = [layer for layer, (mean, _) in pairs if not np.array_equal(np.asarray(layer.moving_mean), mean)]
    if not moved:
        return
    chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:IMAGES])
    size = max(batch_size, PIXELS // math.prod(x.shape[1:-1]))
    measure, seen = _measuring(model, moved)
    with _normalising_by_batch(moved, seen):
        found = [measure(unpacked(x[chosen[start : start + size]])) for start in range(0, len(chosen), size)]
    with np.errstate(all="ignore"):  # a network that diverged fails by its loss
        for layer, *parts in zip(moved, *found, strict=True):
            batches = [batch for part in parts for batch in part]
            images, means, variances = (np.array(column, float) for column in zip(*batches, strict=True))
            mean = np.average(means, 0, images)
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(np.average(variances + (means - mean) ** 2, 0, images))


def _measuring(model: keras.Model, moved: Sequence[keras.Layer]) -> tuple[Measure, list[Batches]]:
    """A function of inputs that returns what each layer saw, and where `_normalising_by_batch` is to put that.

    With JAX, which starts single operations slowly, it is compiled, once for a model.
    """
    import keras

    def measure(inputs: object) -> list[Batches]:
        for batches in seen:
            batches.clear()
        model(inputs, training=False)
        return [[*batches] for batches in seen]

    seen: list[Batches] = [[] for _ in moved]
    if keras.backend.backend() != "jax":
        return measure, seen
    import jax

    def with_state(state: list[jax.Array], inputs: object) -> list[Batches]:
        with keras.StatelessScope(state_mapping=zip(model.variables, state, strict=True)):
            return measure(inputs)

    held, layers = vars(model).setdefault("_statistics", {}), tuple(map(id, moved))  # Keras would track an attribute
    if layers not in held:
        compiled = jax.jit(with_state)
        held[layers] = (lambda inputs: compiled([variable.value for variable in model.variables], inputs)), seen
    found: tuple[Measure, list[Batches]] = held[layers]
    return found


@contextmanager
def _normalising_by_batch(
    chosen: Sequence[keras.layers.BatchNormalization], found: Sequence[Batches]
) -> Iterator[None]:
    """Let layers normalise by the statistics of each batch, which are collected for each layer."""
    momenta = [layer.momentum for layer in chosen]
    try:
        for layer, batches in zip(chosen, found, strict=True):
            layer.momentum = 0.0  # the moving statistics are then those of the batch
            layer.call = partial(_call, layer, layer.call, batches)
        yield
    finally:
        for layer, momentum in zip(chosen, momenta, strict=True):
            layer.momentum = momentum
            del layer.call  # the class has its own


def _call(
    layer: keras.layers.BatchNormalization,
    call: Callable[..., keras.KerasTensor],
    batches: Batches,
    inputs: keras.KerasTensor,
    training: bool | None = None,  # noqa: ARG001
    mask: None = None,
) -> keras.KerasTensor:
    outputs = call(inputs, training=True, mask=mask)
    batches.append((inputs.shape[0], layer.moving_mean + 0, layer.moving_variance + 0))  # copies
    return outputs
