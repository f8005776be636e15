"""Fused operations: the same numbers as Keras' own layers and optimizers, which they replace only where they can."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from cnnsweep.training.fused import FusedBatchNormalization, PoolingThenActivation, fuse

OPTIMIZERS = {
    "adam": lambda: optimizers.Adam(3e-3),
    "adamw": lambda: optimizers.AdamW(3e-3, 0.01),
    "sgd": lambda: optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
    "plain sgd": lambda: optimizers.SGD(1e-3),
    "rmsprop": lambda: optimizers.RMSprop(1e-3),
    "amsgrad": lambda: optimizers.Adam(3e-3, amsgrad=True),
    "clipped": lambda: optimizers.Adam(3e-3, clipnorm=0.1),
}
NORMALISATIONS = {
    "default": {},
    "without scale": {"scale": False},
    "without center": {"center": False, "momentum": 0.7, "epsilon": 1e-2},
    "frozen": {"trainable": False},
}


def network(activation="relu", axes=2, **normalisation):
    convolution, pooling = (getattr(layers, f"{name}{axes}D") for name in ("Conv", "MaxPooling"))
    images = keras.Input((*[9] * axes, 1))
    x = convolution(6, 3, activation="elu", kernel_initializer=keras.initializers.GlorotUniform(1))(images)
    x = pooling(2, padding="same")(x)
    x = convolution(5, 2, use_bias=False, kernel_initializer=keras.initializers.GlorotUniform(2))(x)
    x = layers.BatchNormalization(**normalisation)(x)
    x = pooling(2)(layers.Activation(activation)(x))
    x = layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.GlorotUniform(3))(
        layers.Flatten()(x)
    )
    return keras.Model(images, x)


def trained(model, optimizer, is_fused):
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    if is_fused:
        fuse(model)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, *model.input_shape[1:])).astype("float32"), rng.integers(0, 3, 70)
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)  # the last batch is smaller
    return [np.asarray(v) for v in model.variables], np.asarray(model(x))  # not predict, which would be traced


def assert_same(make, optimizer):
    plain, fused = (trained(make(), optimizer(), is_fused) for is_fused in (False, True))
    for before, after in zip(plain[0], fused[0], strict=True):
        np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(fused[1], plain[1], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_update_as_those_of_keras(name):
    assert_same(network, OPTIMIZERS[name])


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalisation_gives_the_outputs_and_statistics_of_keras(name):
    assert_same(lambda: network(**NORMALISATIONS[name]), OPTIMIZERS["adam"])


@pytest.mark.parametrize("name", ["adam", "clipped by value", "with a scaled loss"])
def test_the_gradients_of_a_word_are_summed_before_they_are_squared_or_clipped(name):
    """The first step of Adam is as large as the learning rate; TensorFlow gives a gradient for each place of a word."""
    optimizer = {
        "adam": lambda: optimizers.Adam(0.1),
        "clipped by value": lambda: optimizers.SGD(1.0, clipvalue=0.1),
        "with a scaled loss": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.1), initial_scale=2.0),
    }[name]()
    words = keras.Input((20,), dtype="int32")
    embedding = layers.Embedding(3, 1, "zeros")
    model = keras.Model(words, layers.GlobalAveragePooling1D()(embedding(words)))
    model.compile(optimizer, "mse", jit_compile=False)
    fuse(model)
    model.fit(np.array([[1] * 19 + [2]] * 5), np.full((5, 1), 10.0), verbose=0)
    np.testing.assert_allclose(np.asarray(embedding.embeddings)[:, 0], [0, 0.1, 0.1], atol=1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_sequences_and_volumes_give_the_numbers_of_keras_too(axes):
    model = network(axes=axes)
    model.compile("sgd", "mse")
    fuse(model)
    kinds = [type(layer) for layer in model.layers]
    assert FusedBatchNormalization in kinds
    assert sum(issubclass(kind, PoolingThenActivation) for kind in kinds) == 2
    assert_same(lambda: network(axes=axes), OPTIMIZERS["adam"])


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_activations_may_come_after_the_pooling_where_they_never_fall(activation):
    model = network(activation)
    model.compile("sgd", "mse")
    fuse(model)
    pools = [layer for layer in model.layers if isinstance(layer, layers.MaxPooling2D)]
    assert [isinstance(pool, PoolingThenActivation) for pool in pools] == [True, activation != "gelu"]
    assert_same(lambda: network(activation), OPTIMIZERS["adam"])


def test_an_activation_with_another_reader_stays_before_the_pooling():
    images = keras.Input((8, 8, 2))
    x = layers.Activation("relu")(images)
    pooled = layers.MaxPooling2D(2)(x)
    model = keras.Model(images, [pooled, layers.GlobalAveragePooling2D()(x)])
    values = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype("float32")
    model.compile("sgd", "mse")
    before = model.predict(values, verbose=0)
    fuse(model)
    for a, b in zip(before, model.predict(values, verbose=0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_normalisation_of_other_inputs_is_left_to_keras():
    dense = keras.Sequential([layers.Input((4,)), layers.BatchNormalization()])
    first = keras.Sequential([layers.Input((4, 4, 4)), layers.BatchNormalization(axis=1)])
    maps = keras.Sequential([layers.Input((4, 4, 4)), layers.BatchNormalization()])
    nested = keras.Sequential([layers.Input((4, 4, 4)), keras.Sequential([layers.BatchNormalization()])])
    for model, expected in ((dense, False), (first, False), (maps, True), (nested, True)):
        model.compile("sgd", "mse")
        fuse(model)
        (found,) = (layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization))
        assert isinstance(found, FusedBatchNormalization) is expected
