"""Faster training of the same network: fused operations in place of Keras' compositions of elementary ones.

Layers and optimizers keep their settings and variables; only the class that computes with them changes. A model that
is to be saved is built again without this.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import keras
import tensorflow as tf
from keras import layers, optimizers

MONOTONE = (
    "celu", "elu", "exponential", "hard_sigmoid", "hard_tanh", "leaky_relu", "linear", "relu", "relu6", "selu",
    "sigmoid", "softplus", "softsign", "squareplus", "tanh",
)  # fmt: skip
"""Activations that never fall: the largest of some values stays the largest."""
ACTIVATED = (
    layers.Activation, layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv2D, layers.SeparableConv2D,
)  # fmt: skip
"""Layers that end with an activation."""


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation of sequences, maps or volumes in one pass (oneDNN on the CPU, cuDNN on GPUs).

    The statistics are float32, also for maps of 16 bits; the moving variance is that of the batch, as in Keras, without
    Bessel's correction.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:  # noqa: ARG002
        gamma = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        beta = self.beta if self.center else tf.zeros_like(self.moving_mean)
        shape = tf.shape(inputs)
        maps = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, [shape[0], -1, 1, inputs.shape[-1]])
        outputs = self._normalised(maps, gamma, beta, bool(training and self.trainable))
        return outputs if maps is inputs else tf.reshape(outputs, shape)

    def _normalised(self, inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, is_training: bool) -> tf.Tensor:
        if not is_training:
            found = self.moving_mean, self.moving_variance
            return _normalise(inputs, gamma, beta, *found, epsilon=self.epsilon, is_training=False)[0]
        outputs, mean, variance, *_ = _normalise(inputs, gamma, beta, [], [], epsilon=self.epsilon, is_training=True)
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        variance *= (count - 1) / count
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))
        return outputs


class PoolingThenActivation(layers.Layer):
    """Max pooling, then the monotone activation before it: the same values, from a quarter of the elements."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.activation_before(super().call(inputs))


class PoolingThenActivation1D(PoolingThenActivation, layers.MaxPooling1D):
    """The same over time."""


class PoolingThenActivation2D(PoolingThenActivation, layers.MaxPooling2D):
    """The same over height and width."""


class PoolingThenActivation3D(PoolingThenActivation, layers.MaxPooling3D):
    """The same over time, height and width."""


class FusedAdam(optimizers.Adam):
    """Adam's update (Kingma and Ba 2015, arXiv 1412.6980) in one pass over each variable."""

    def _backend_update_step(
        self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable], learning_rate: tf.Tensor
    ) -> None:
        """Keras' version computes all but `grad` again for each variable, and asks tf.distribute where it lies."""
        step, constant = tf.cast(self.iterations + 1, tf.float32), partial(tf.constant, dtype=tf.float32)
        same = {
            "beta1_power": tf.pow(self.beta_1, step),
            "beta2_power": tf.pow(self.beta_2, step),
            "lr": tf.cast(learning_rate, tf.float32),
            "beta1": constant(self.beta_1),
            "beta2": constant(self.beta_2),
            "epsilon": constant(self.epsilon),
        }
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            if self.amsgrad or not _can_update(variable):
                self.update_step(gradient, variable.value, learning_rate)
                continue
            index = self._get_variable_index(variable.value)
            m, v = self._momentums[index].value.handle, self._velocities[index].value.handle
            grad = tf.cast(gradient, tf.float32)
            tf.raw_ops.ResourceApplyAdam(var=variable.value.handle, m=m, v=v, grad=grad, **same)


class FusedAdamW(FusedAdam, optimizers.AdamW):
    """The same with decoupled weight decay, which Keras applies by itself."""


class FusedSGD(optimizers.SGD):
    """Gradient descent with momentum, as Keras defines it, in one pass over each variable."""

    def _backend_update_step(
        self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable], learning_rate: tf.Tensor
    ) -> None:
        same = {
            "lr": tf.cast(learning_rate, tf.float32),
            "momentum": tf.constant(self.momentum, tf.float32),
            "use_nesterov": self.nesterov,
        }
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            if not self.momentum or not _can_update(variable):
                self.update_step(gradient, variable.value, learning_rate)
                continue
            accum = self.momentums[self._get_variable_index(variable.value)].value.handle
            grad = tf.cast(gradient, tf.float32)
            tf.raw_ops.ResourceApplyKerasMomentum(var=variable.value.handle, accum=accum, grad=grad, **same)


class SummedGradients:
    """An optimizer for which the gradients of a word of an embedding are summed, as with JAX and PyTorch.

    TensorFlow gives one for each time that the word is in the batch, and Keras squares and clips each alone: of n
    Adam's first step is as large as the root of n times the learning rate, and a clipped value as n times the limit.
    """

    def apply(
        self, grads: list[tf.Tensor | None], trainable_variables: list[keras.Variable] | None = None
    ) -> tf.Tensor | None:
        """Update the variables."""
        dense = [tf.convert_to_tensor(each) if isinstance(each, tf.IndexedSlices) else each for each in grads]
        return super().apply(dense, trainable_variables)  # type: ignore[misc]


def _can_update(variable: keras.Variable) -> bool:
    return variable.value.dtype == tf.float32


POOLINGS = {
    layers.MaxPooling1D: PoolingThenActivation1D,
    layers.MaxPooling2D: PoolingThenActivation2D,
    layers.MaxPooling3D: PoolingThenActivation3D,
}
FUSED = {optimizers.Adam: FusedAdam, optimizers.AdamW: FusedAdamW, optimizers.SGD: FusedSGD}


def fuse(model: keras.Model) -> None:
    """Let a compiled Keras model for TensorFlow compute with fused operations: nested models and the optimizer too."""
    for layer in model._flatten_layers():
        if type(layer) is layers.BatchNormalization and _can_fuse(layer):
            layer.__class__ = FusedBatchNormalization
        if isinstance(layer, keras.Model):
            _pool_first(layer)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # one with loss scaling wraps another
    optimizer.__class__ = FUSED.get(type(optimizer), type(optimizer))
    kind = type(model.optimizer)
    model.optimizer.__class__ = type(f"Summed{kind.__name__}", (SummedGradients, kind), {})


def _can_fuse(layer: layers.BatchNormalization) -> bool:
    axes = 0 if layer.input_spec is None else layer.input_spec.ndim
    is_last = layer.axis in (-1, axes - 1) and 3 <= axes <= 5
    return is_last and not layer.synchronized and not layer.renorm


def _pool_first(model: keras.Model) -> None:
    """Where a monotone activation's values go into a max pooling alone, pool before it."""
    operations = getattr(model, "operations", [])  # a subclassed model has no graph
    for layer, pooling in pairwise(operations):
        if not isinstance(layer, ACTIVATED) or type(pooling) not in POOLINGS or _is_shared(layer, pooling):
            continue
        name = getattr(layer.activation, "__name__", "")
        if name in MONOTONE and name != "linear" and pooling.input is layer.output and _consumers(model, layer) == 1:
            pooling.__class__, pooling.activation_before = POOLINGS[type(pooling)], layer.activation
            layer.activation = keras.activations.linear


def _is_shared(*chosen: layers.Layer) -> bool:
    return any(len(layer._inbound_nodes) != 1 for layer in chosen)


def _consumers(model: keras.Model, layer: layers.Layer) -> int:
    nodes = [node for operation in model.operations for node in operation._inbound_nodes]
    used = [*(tensor for node in nodes for tensor in node.input_tensors), *model.outputs]
    return sum(tensor is layer.output for tensor in used)


def _normalise(*arguments: Any, epsilon: float, is_training: bool) -> list[tf.Tensor]:
    x, scale, offset, mean, variance = arguments
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=is_training
    )
