"""Training with JAX on an accelerator: the examples lie in its memory, and an epoch is one call.

There a step of a small network takes less time than to send it a batch and to start it. The steps are Keras' own
(`train_step` and `test_step`), over the same batches in the same order as in `fit` and `evaluate`.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnsweep.data.arrays import Array
from cnnsweep.data.inputs import unpacked
from cnnsweep.training.augmentation import mixes_before
from cnnsweep.training.building import on_cpu
from cnnsweep.training.targets import Targets

if TYPE_CHECKING:
    import jax
    import keras

    State = tuple[list[jax.Array], ...]
    Tree = tuple[jax.Array | dict[str, jax.Array], ...]
    Step = Callable[[State, Tree], tuple[object, State]]

RESIDENT = 4 * 2**30
"""Bytes of inputs above which they are sent batch by batch."""
_TESTED = ("trainable_variables", "non_trainable_variables", "metrics_variables")
_TRAINED = (*_TESTED[:2], "optimizer_variables", "metrics_variables")
"""The state of a step, in the order in which Keras takes it."""


class Examples(NamedTuple):
    """Inputs and labels, and the batches in which they are taken."""

    x: Array
    y: Array
    size: int
    order: Array | None
    """Indices; None: all, as they are."""
    targets: Targets


def can_hold(model: keras.Model, x: Array) -> bool:
    """Whether a model trains with JAX on an accelerator that has room for the inputs."""
    import keras

    if keras.backend.backend() != "jax" or on_cpu():
        return False
    return x.nbytes <= RESIDENT and bool(model.jit_compile) and not model.run_eagerly and not mixes_before(model)


def run(model: keras.Model, examples: Examples, training: bool) -> dict[str, float]:
    """Train or measure a model, once over the examples; return its metrics.

    A model has one array of inputs for training, and one for measuring.
    """
    import jax

    x, y, size, order, targets = examples
    if not training:  # the batches change nothing, and each size is compiled
        size = next((even for even in range(size, size // 4, -1) if len(x) % even == 0), size)
    held, name = vars(model), "_training" if training else "_measuring"  # Keras would look for layers in an attribute
    if name not in held or held[name][0]() is not model.optimizer:  # `compile` gives it another one
        step = model.train_step if training else model.test_step
        gc.collect()  # the examples of the networks before
        sent = jax.device_put((unpacked(x), *targets.encode(y)))
        model._symbolic_build(data_batch=jax.tree.map(lambda values: values[:size], sent))
        held[name] = weakref.ref(model.optimizer), sent, jax.jit(partial(_steps, step))
    _, data, steps = held[name]
    model.reset_metrics()
    parts = _TRAINED if training else _TESTED
    state = model._get_jax_state(**dict.fromkeys(parts, True))
    indices = np.arange(len(x)) if order is None else order
    whole = len(indices) // size * size
    for batches in (indices[:whole].reshape(-1, size), indices[np.newaxis, whole:]):
        if batches.size:
            state = steps(state, data, batches)
    model._jax_state, model._jax_state_synced = dict(zip(parts, state, strict=True)), False
    model.jax_state_sync()
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def _steps(step: Step, state: State, data: Tree, batches: Array) -> State:
    import jax

    def one(state: State, batch: jax.Array) -> tuple[State, None]:
        return step(state, jax.tree.map(lambda values: values[batch], data))[1], None

    return jax.lax.scan(one, state, batches)[0]
