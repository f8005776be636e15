"""Blocks of every kind: their layers, and that sizes, parameters and multiply-adds are those of the Keras model."""

from __future__ import annotations

import os
import random
from math import prod
from typing import Any

import keras
import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import check_section
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import GeometryError, Network, measure
from cnnsweep.models import cnn
from cnnsweep.models.blocks import KINDS
from cnnsweep.models.cnn import CnnConfig

MANY = int(os.environ.get("CNNSWEEP_TEST_NETWORKS", "90"))
"""Networks that are compared with Keras in the slow test; 1,000 before a release."""

SHAPE = (28, 28, 1)
MODEL = compose(["model.filters=8", "model.dense_units=0", "model.head=average"]).model.plain()


def model_of(**changes: Any) -> CnnConfig:
    return check_section("model", {**MODEL, **changes})  # type: ignore[return-value]


def names(**changes: Any) -> list[str]:
    built = cnn.build(model_of(blocks=1, pooling="none", **changes), SHAPE, 10, seed=0)
    return [layer.name.removeprefix("block1_") for layer in built.layers[2:-2]]


def random_model(rng: random.Random, kind: str = "") -> tuple[CnnConfig, tuple[int, int, int]]:
    blocks = rng.randint(1, 3)

    def each(values: list[Any]) -> Any:
        return rng.choice([rng.choice(values), rng.choices(values, k=blocks)])

    dilation = rng.choice([1, 1, 1, 2])
    model = model_of(
        blocks=blocks,
        block=kind or each(list(KINDS)),
        repeats=each([1, 1, 2, 3]),
        filters=each([1, 2, 4, 7]),
        kernel_size=each([1, 2, 3, 5]),
        stride=1 if dilation > 1 else each([1, 2, 3]),
        dilation=dilation,
        padding=each(["same", "same", "same", "valid"]),
        pooling=each(["max", "average", "none"]),
        activation=rng.choice(["relu", "elu", "tanh"]),
        batch_norm=rng.random() < 0.5,
        expansion=rng.choice([1, 2, 4]),
        squeeze_excite=rng.choice([0, 0, 2, 16]),
        head=rng.choice(["flatten", "average", "max"]),
    )
    return model, (rng.randint(6, 30), rng.randint(6, 30), rng.choice([1, 3]))


def valid_models(seed: int, count: int):
    rng = random.Random(seed)
    while count:
        model, shape = random_model(rng)
        try:
            network = measure(cnn.layers(model, shape, 10), shape)
        except GeometryError:
            continue
        yield model, shape, network
        count -= 1


def counted(model: keras.Model) -> int:
    """Multiply-adds, layer by layer: each weight of a kernel is used once for each position of the output."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            total += prod(layer.output.shape[1:3]) * prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += prod(layer.kernel.shape)
    return total


def assert_same(network: Network, built: keras.Model, model: CnnConfig) -> None:
    by_name = {layer.name: layer for layer in built.layers}
    for row in network.layers:
        layer = by_name.get(row.layer.name) or by_name.get(f"{row.layer.name}_add")
        inside = [v for name, v in by_name.items() if name == row.layer.name or name.startswith(f"{row.layer.name}_")]
        if layer is not None:
            assert layer.output.shape[1:] == row.output_shape, (model, row.layer.name)
        if row.layer.kind in ("residual", "squeeze_excite"):
            assert sum(found.count_params() for found in inside) == row.parameters, (model, row.layer.name)
    assert built.count_params() == network.parameters, model
    assert counted(built) == network.mult_adds, model
    elementwise = keras.layers.Activation | keras.layers.Add | keras.layers.Multiply
    views = keras.layers.Flatten | keras.layers.Dropout | keras.layers.InputLayer
    assert any(isinstance(layer, elementwise) for layer in built.layers)
    outputs = [layer for layer in built.layers if not isinstance(layer, views)]
    assert sum(4 * prod(layer.output.shape[1:]) for layer in outputs) / 1e6 == pytest.approx(network.activation_mb)


@pytest.mark.parametrize(("seed", "count"), [(0, 15), pytest.param(1, MANY, marks=pytest.mark.slow)])
def test_sizes_parameters_and_multiply_adds_are_those_of_keras(seed, count):
    for number, (model, shape, network) in enumerate(valid_models(seed, count)):
        assert_same(network, cnn.build(model, shape, 10, seed=0), model)
        if number % 50 == 49:
            keras.utils.clear_session(free_memory=True)


def test_the_layers_of_each_kind():
    assert names(block="separable", batch_norm=True) == [
        "depthwise", "depthwise_norm", "depthwise_activation", "conv", "norm", "activation",
    ]  # fmt: skip
    branch = ["residual_conv1", "residual_activation1", "residual_conv2"]
    assert sorted(names(block="residual")) == sorted([*branch, "residual_projection", "residual_add", "activation"])
    assert sorted(names(block="bottleneck")) == sorted(
        [*branch, "residual_activation2", "residual_conv3", "residual_projection", "residual_add", "activation"]
    )
    inverted = ["residual_depthwise", "residual_depthwise_activation", "residual_conv"]
    assert names(block="inverted", expansion=1) == inverted
    assert names(block="inverted") == ["residual_expand", "residual_expand_activation", *inverted]
    assert names(squeeze_excite=2, repeats=1)[-4:] == ["se_squeeze", "se_reduce", "se_excite", "se_scale"]


def test_a_shortcut_is_projected_only_where_the_shape_changes():
    stack = cnn.build(model_of(block="residual", blocks=2, repeats=2, stride=[1, 2], pooling="none"), SHAPE, 10, seed=0)
    projections = [layer.name for layer in stack.layers if "projection" in layer.name]
    assert projections == ["block1_unit1_residual_projection", "block2_unit1_residual_projection"]
    kept = cnn.build(model_of(block="inverted", blocks=1, repeats=2, pooling="none"), SHAPE, 10, seed=0)
    assert [layer.name for layer in kept.layers if layer.name.endswith("_add")] == ["block1_unit2_residual_add"]


def test_a_known_small_resnet_has_the_parameters_of_its_paper():
    """ResNet-20 of He et al. 2015 (section 4.2, 0.27 M) with projections in place of padded shortcuts."""
    stages = {"blocks": 4, "block": ["plain", *["residual"] * 3], "repeats": [1, 3, 3, 3], "filters": [16, 16, 32, 64]}
    resnet = model_of(**stages, stride=[1, 1, 2, 2], pooling="none", batch_norm=True, head="average", dense_units=0)
    network = measure(cnn.layers(resnet, (32, 32, 3), 10), (32, 32, 3))
    by_hand = 3 * 9 * 16 + 6 * 9 * 16 * 16 + 9 * 16 * 32 + 5 * 9 * 32 * 32 + 9 * 32 * 64 + 5 * 9 * 64 * 64 + 65 * 10
    norms = 4 * (7 * 16 + 6 * 32 + 6 * 64)
    projections = 16 * 32 + 4 * 32 + 32 * 64 + 4 * 64
    assert network.parameters == by_hand + norms + projections
    assert resnet.describe({}) == "plain-residual-residual-residual ×1-3-3-3 16-16-32-64 k3 s1-1-2-2 same none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": "residul"}, "unknown model.block 'residul', did you mean 'residual'"),
        ({"block": "residual", "padding": "valid"}, r"model.padding: block 1's maps of 24×24 cannot be added to a "),
        ({"block": "inverted", "kernel_size": 40, "padding": "valid"}, "model.kernel_size: block 1's 40×40 kernel"),
        ({"repeats": 0}, "model.repeats: 0 .must be at least 1 and at most 20"),
        ({"repeats": [2]}, r"model.repeats: 1 value \[2\] for model.blocks=2"),
        ({"block": "residual", "filters": 0}, "model.filters: block 1's value is 0"),
        ({"expansion": 0}, "model.expansion: 0"),
        ({"squeeze_excite": -1}, "model.squeeze_excite: -1"),
        ({"block": "separable", "stride": 2, "dilation": 2}, "model.dilation: block 1's stride 2 and dilation 2"),
    ],
)
def test_bad_blocks_name_the_key(changes, message):
    with pytest.raises(UserError, match=message):
        measure(cnn.layers(model_of(**changes), SHAPE, 10), SHAPE)


def test_what_changes_nothing_is_one_network():
    def signature(**changes: Any) -> Any:
        return measure(cnn.layers(model_of(padding="same", **changes), (8, 8, 2), 3), (8, 8, 2)).signature

    assert signature(expansion=2) == signature(expansion=3)
    assert signature(block="residual", expansion=2) == signature(block="residual", expansion=3)
    assert signature(block="bottleneck", expansion=9) == signature(block="bottleneck", expansion=8)
    assert signature(block="bottleneck", expansion=2) != signature(block="bottleneck", expansion=4)
    assert signature(block="inverted", expansion=2) != signature(block="inverted", expansion=4)
    assert signature(squeeze_excite=8) == signature(squeeze_excite=99)
    assert signature(squeeze_excite=2) != signature(squeeze_excite=0)
    assert signature(repeats=2) != signature(repeats=1)
    assert len({signature(block=kind) for kind in KINDS}) == len(KINDS)
    plain_twice = signature(blocks=2, repeats=1, pooling="none")
    assert signature(blocks=1, repeats=2, pooling="none") == plain_twice


@pytest.mark.slow
def test_a_network_of_every_kind_of_block_learns_and_is_fused_alike():
    """Keras' own operations and the fused ones give one result, and a saved model loads with Keras alone."""
    from cnnsweep.training.fused import fuse

    model = model_of(blocks=5, block=list(KINDS), squeeze_excite=2, batch_norm=True, pooling=["max", *["none"] * 4])
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (32, 8, 8, 1)).astype("float32"), np.arange(32) % 2
    images[labels == 1, :4] += 150
    found = []
    for is_fused in (False, True):
        built = cnn.build(model, (8, 8, 1), 2, seed=0)
        built.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
        if is_fused:
            fuse(built)
        losses = built.fit(images, labels, epochs=3, batch_size=16, verbose=0, shuffle=False).history["loss"]
        assert losses[-1] < losses[0]
        found.append(losses)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


def test_a_saved_network_loads_with_keras_alone(tmp_path):
    model = model_of(blocks=5, block=list(KINDS), squeeze_excite=2, batch_norm=True, pooling="none", head="max")
    built = cnn.build(model, (8, 8, 1), 2, seed=0)
    built.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).random((2, 8, 8, 1), dtype="float32")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), built.predict(images, verbose=0))
