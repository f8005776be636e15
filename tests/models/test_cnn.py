"""The convolutional network: its layers, the Keras model built from them, and that the two agree."""

from __future__ import annotations

import itertools
import os
import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import check_section
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import GeometryError, Layer, measure
from cnnsweep.models import cnn
from cnnsweep.models.cnn import CnnConfig
from cnnsweep.models.keras_layers import keras_layer

MANY = int(os.environ.get("CNNSWEEP_TEST_NETWORKS", "100"))
"""Networks that are compared with Keras in the slow test; 1,000 before a release."""

SHAPE = (28, 28, 1)
MODEL = compose(["model.filters=8", "model.dense_units=16"]).model.plain()


def model_of(**changes: Any) -> CnnConfig:
    return check_section("model", {**MODEL, **changes})  # type: ignore[return-value]


def names(**changes: Any) -> list[str]:
    return [layer.name for layer in cnn.layers(model_of(**changes), SHAPE, 10)]


def test_a_users_own_model_with_the_same_keys_has_the_same_layers() -> None:
    model = model_of(filters=[4, 8])
    custom = check_section("model", {**model.plain(), "_target_": "mine.build", "depth": 3})
    own = custom.argument()  # type: ignore[attr-defined]
    assert cnn.layers(own, SHAPE, 10) == cnn.layers(model, SHAPE, 10)
    assert cnn.layers.stage(own, 2, 10) == cnn.layers.stage(model, 2, 10)


def random_model(rng: random.Random) -> tuple[CnnConfig, tuple[int, int, int]]:
    blocks = rng.randint(1, 3)

    def each(values: list[Any]) -> Any:
        return rng.choice([rng.choice(values), rng.choices(values, k=blocks)])

    dilation = rng.choice([1, 1, 2, 3])
    model = model_of(
        blocks=blocks,
        filters=each([1, 2, 3, 5]),
        kernel_size=each([1, 2, 3, 4, 5, 7]),
        stride=1 if dilation > 1 else each([1, 2, 3]),
        dilation=dilation,
        padding=each(["same", "valid"]),
        pooling=each(["max", "average", "none"]),
        pool_size=each([1, 2, 3]),
        activation=rng.choice(["relu", "elu", "tanh"]),
        batch_norm=rng.random() < 0.5,
        head=rng.choice(["flatten", "average"]),
        dense_units=rng.choice([0, 3, 8]),
        dropout=rng.choice([0.0, 0.3]),
    )
    return model, (rng.randint(5, 32), rng.randint(5, 32), rng.choice([1, 3]))


def valid_models(seed: int, count: int):
    rng = random.Random(seed)
    while count:
        model, shape = random_model(rng)
        stack = cnn.layers(model, shape, 10)
        try:
            network = measure(stack, shape)
        except GeometryError:
            continue
        yield model, shape, network
        count -= 1


# The list of layers


def test_the_order_of_the_layers():
    block = ["block1_conv", "block1_norm", "block1_activation", "block1_pool"]
    every = ["rescaling", *block, "flatten", "dense", "dropout", "classifier"]
    assert names(batch_norm=True, dropout=0.5, blocks=1) == every
    few = ["rescaling", "block1_conv", "block1_activation", "global_average_pool", "classifier"]
    assert names(pooling="none", head="average", dense_units=0, blocks=1) == few


def test_settings_for_each_block():
    stack = cnn.layers(model_of(filters=[4, 6], pooling=["none", "max"]), SHAPE, 10)
    assert [layer.settings["filters"] for layer in stack if layer.kind == "conv"] == [4, 6]
    assert [layer.name for layer in stack if layer.kind == "max_pool"] == ["block2_pool"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": [8], "blocks": 3}, r"model.filters: 1 value \[8\] for model.blocks=3"),
        ({"filters": [8, 8, 8]}, "model.filters: 3 values"),
        ({"filters": [8, 0]}, "model.filters: block 2's value is 0, not a positive integer"),
        ({"blocks": 0}, r"model.blocks: 0 \(must be at least 1"),
        ({"blocks": "two"}, "model.blocks: 'two' is not a whole number"),
        ({"kernel_size": "3"}, "model.kernel_size: '3' is not a whole number"),
        ({"kernel_size": [7, 17], "padding": "valid"}, "model.kernel_size: block 2's 17×17 kernel is larger"),
        ({"pool_size": [2, 15]}, "model.pool_size: block 2's 15×15 pool is larger than its 14×14 input"),
        ({"stride": -1}, "model.stride: block 1's value is -1"),
        ({"stride": 2, "dilation": 2}, "model.dilation: block 1's stride 2 and dilation 2"),
        ({"padding": "sane"}, "unknown model.padding 'sane', did you mean 'same'"),
        ({"pooling": ["max", "mean"]}, "unknown model.pooling 'mean'"),
        ({"head": "flaten"}, "unknown model.head 'flaten', did you mean 'flatten'"),
        ({"head": ["flatten"]}, "unknown model.head"),
        ({"activation": 3}, "unknown model.activation '3'"),
        ({"activation": "rellu"}, r"unknown model\.activation 'rellu', did you mean 'relu'"),
        ({"batch_norm": "maybe"}, "model.batch_norm: 'maybe' is not true or false"),
        ({"dense_units": -5}, r"model.dense_units: -5 \(must be at least 0"),
        ({"dropout": 1.5}, r"model.dropout: 1\.5 \(must be at least 0 and below 1"),
    ],
)
def test_bad_models_name_the_key(changes, message):
    with pytest.raises(UserError, match=message):
        measure(cnn.layers(model_of(**changes), SHAPE, 10), SHAPE)


def test_other_bad_input():
    with pytest.raises(UserError, match="a cnn takes images"):
        cnn.layers(model_of(), (784,), 10)
    with pytest.raises(GeometryError, match="classes: the classifier's value is 0"):
        cnn.build(model_of(), SHAPE, 0, seed=0)


# Agreement with Keras


def test_the_activations_are_those_of_keras():
    from keras import activations

    known = {name for name in dir(activations) if not name.startswith("_")}
    assert set(cnn.ACTIVATIONS) <= known


@pytest.mark.parametrize(("seed", "count"), [(0, 30), pytest.param(1, MANY, marks=pytest.mark.slow)])
def test_shapes_and_parameters_are_those_of_keras(seed, count):
    import keras

    for number, (model, shape, network) in enumerate(valid_models(seed, count)):
        built = cnn.build(model, shape, 10, seed=0).layers[1:]
        assert [layer.name for layer in built] == [row.layer.name for row in network.layers]
        for layer, row in zip(built, network.layers, strict=True):
            found, expected = (layer.output.shape[1:], layer.count_params()), (row.output_shape, row.parameters)
            assert found == expected, (model, shape)
        if number % 50 == 49:
            keras.utils.clear_session(free_memory=True)


def test_keras_refuses_what_the_geometry_refuses():
    """A stack cut before the layer that does not fit can be built; with that layer it cannot."""
    rng, refused = random.Random(2), 0
    while refused < 30:
        model, shape = random_model(rng)
        stack = cnn.layers(model, shape, 10)
        try:
            measure(stack, shape)
        except GeometryError as error:
            before = error.network.output_shape
            with pytest.raises(ValueError, match="zero or negative"):
                keras_layer(error.layer, 0).compute_output_shape((None, *before))
            refused += 1


def profiled_mult_adds(model: Any, shape: tuple[int, int, int]) -> int:
    """Half the floating-point operations that TensorFlow counts in convolutions and matrix products."""
    import tensorflow as tf
    from tensorflow.python.framework import ops

    function = tf.function(lambda images: model(images, training=False))
    graph = function.get_concrete_function(tf.TensorSpec((1, *shape))).graph
    found = [op for op in graph.get_operations() if op.type in ("Conv2D", "MatMul")]
    return sum(ops.get_stats_for_node_def(graph, op.node_def, "flops").value for op in found) // 2


def test_multiply_adds_are_those_of_the_profiler():
    for model, shape, _ in valid_models(seed=3, count=25):
        plain = model.replace(dilation=1)  # a dilated convolution runs on padded batches, which it counts
        counted = measure(cnn.layers(plain, shape, 10), shape).mult_adds
        assert counted == profiled_mult_adds(cnn.build(plain, shape, 10, seed=0), shape), (plain, shape)


# What the model does


def weights_of(model: Any) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.get_weights()]


def test_a_seed_gives_the_same_weights_whatever_happened_before():
    import keras

    first = cnn.build(model_of(), SHAPE, 10, seed=3)
    keras.utils.set_random_seed(11)
    again = cnn.build(model_of(), SHAPE, 10, seed=3)
    other = cnn.build(model_of(), SHAPE, 10, seed=4)
    for a, b in zip(weights_of(first), weights_of(again), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [w.ravel()[:4] for w in weights_of(first) if w.ndim > 1]
    assert len({tuple(kernel) for kernel in kernels}) == len(kernels)
    assert not np.array_equal(weights_of(first)[0], weights_of(other)[0])


def test_dropout_is_seeded_too():
    images = np.random.default_rng(0).random((4, *SHAPE), dtype="float32") * 255
    twice = [cnn.build(model_of(dropout=0.5), SHAPE, 10, seed=3)(images, training=True) for _ in range(2)]
    np.testing.assert_array_equal(*map(np.asarray, twice))


def test_probabilities_in_float32_under_mixed_precision():
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = cnn.build(model_of(batch_norm=True, dropout=0.2), SHAPE, 10, seed=0)
    finally:
        keras.config.set_dtype_policy(before)
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype="uint8")
    probabilities = model(images)
    assert probabilities.dtype == "float32"
    assert model.get_layer("block1_conv").output.dtype == "float16"
    np.testing.assert_allclose(np.asarray(probabilities).sum(axis=1), 1, rtol=1e-5)


def test_augmentation_comes_first():
    import keras

    flip = keras.layers.RandomFlip("horizontal", seed=1, name="flip")
    model = cnn.build(model_of(), SHAPE, 10, augment=[flip], seed=0)
    assert [layer.name for layer in model.layers][:3] == ["image", "flip", "rescaling"]


def test_it_learns():
    import keras

    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (64, 8, 8, 1)).astype("float32")
    labels = np.arange(64) % 2
    images[labels == 1, :4] += 150
    model = cnn.build(model_of(batch_norm=True), (8, 8, 1), 2, seed=0)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(images, labels, epochs=5, verbose=0, shuffle=False)
    assert history.history["accuracy"][-1] > 0.9


# One network or two


@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 3]))
def test_settings_without_effect_do_not_count(rng, value):
    model, shape = random_model(rng)
    spread = {key: model.per_block(key) for key in ("filters", "padding")}
    for a, b in [
        ({}, spread),
        ({"pooling": "none"}, {"pooling": "none", "pool_size": value}),
        ({"pool_size": 1, "pooling": "max"}, {"pooling": "none"}),
        ({"kernel_size": 1, "stride": 1}, {"kernel_size": 1, "stride": 1, "dilation": value}),
        ({"kernel_size": 1, "padding": "same"}, {"kernel_size": 1, "padding": "valid"}),
    ]:
        try:
            first = measure(cnn.layers(model.replace(**a), shape, 10), shape)
        except GeometryError:
            continue
        assert first.signature == measure(cnn.layers(model.replace(**b), shape, 10), shape).signature


def same_weights(model: Any) -> Any:
    """Set every weight to numbers that depend on its place and size only."""
    fixed = [np.random.default_rng(i).normal(size=w.size).reshape(w.shape) for i, w in enumerate(weights_of(model))]
    model.set_weights([np.abs(w) if w.ndim == 1 else w for w in fixed])
    return model


CHOICES: dict[str, list[Any]] = {
    "blocks": [1, 2],
    "kernel_size": [1, 2, 3],
    "stride": [1, 2],
    "padding": ["same", "valid"],
    "pooling": ["max", "average", "none"],
    "pool_size": [1, 2, 3],
    "head": ["flatten", "average"],
    "dense_units": [0, 2],
}


def test_equal_signatures_and_only_they_mean_equal_outputs():
    """Small models with weights and maps of the same sizes give the same outputs just when they are one."""
    images = np.random.default_rng(0).normal(size=(6, 6, 5, 2)).astype("float32")
    combinations = list(itertools.product(*CHOICES.values()))
    seen: dict[Any, tuple[Any, Any]] = {}
    for values in random.Random(0).sample(combinations, 220):
        model = model_of(filters=2, activation="tanh", **dict(zip(CHOICES, values, strict=True)))
        try:
            network = measure(cnn.layers(model, (6, 5, 2), 3, scale=1), (6, 5, 2))
        except GeometryError:
            continue
        built = same_weights(cnn.build(model, (6, 5, 2), 3, scale=1, seed=0))
        sizes = tuple(weight.size for weight in weights_of(built))
        outputs = np.asarray(built(images))
        if network.signature in seen:
            (others, _), earlier = seen[network.signature]
            assert sizes == others
            np.testing.assert_allclose(outputs, earlier, rtol=1e-4, atol=1e-6, err_msg=str(model))
        seen[network.signature] = (sizes, frozenset(row.output_shape for row in network.layers)), outputs
    assert_apart(seen)


def assert_apart(seen: dict[Any, tuple[Any, Any]]) -> None:
    groups = defaultdict(list)
    for signature, (sizes, outputs) in seen.items():
        groups[sizes].append((signature, outputs))
    pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
    assert len(pairs) > 10
    for (a, first), (b, second) in pairs:
        assert not np.allclose(first, second, rtol=1e-3, atol=1e-5), (a, b)


WINDOWS = [
    {"stride": stride, "dilation": dilation, "padding": padding}
    for stride, dilation in [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3)]
    for padding in ("same", "valid")
]


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 2), (4, 5, 2)])
@pytest.mark.parametrize("kind", ["conv", "pool"])
def test_every_window_has_one_normal_form(kind, shape):
    """All kernels, strides, dilations and paddings on small inputs: same signature just when same outputs."""
    seen: dict[Any, tuple[Any, Any]] = {}
    for size, window in itertools.product([1, 2, 3, 4], WINDOWS):
        layers = [Layer("conv", "layer", {"filters": 2, "kernel_size": size, "use_bias": False, **window})]
        if kind == "pool":
            settings = {"pool_size": size, "stride": window["stride"], "padding": window["padding"]}
            layers = [Layer(f"{pooling}_pool", "layer", settings) for pooling in ("max", "average")]
        for layer in layers:
            check_normal_form(layer, shape, seen)
    for (a, (sizes, first)), (b, (others, second)) in itertools.combinations(seen.items(), 2):
        assert sizes != others or first.shape != second.shape or not np.allclose(first, second), (a, b)


def check_normal_form(layer: Layer, shape: tuple[int, int, int], seen: dict[Any, tuple[Any, Any]]) -> None:
    try:
        signature = measure([layer], shape).signature
    except GeometryError:
        return
    built = keras_layer(layer, 0)
    outputs = np.asarray(built(np.random.default_rng(0).normal(size=(64, *shape)).astype("float32")))
    sizes = tuple(weight.size for weight in weights_of(built))
    if signature in seen:
        assert seen[signature][0] == sizes
        np.testing.assert_allclose(outputs, seen[signature][1], atol=1e-5, err_msg=str(layer))
    seen[signature] = sizes, outputs
