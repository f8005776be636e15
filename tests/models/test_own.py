"""Keras models of the user's own: what they are called with, and how they are made ready for images."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from cnnsweep.data.inputs import Shapes, pack, unpacked
from cnnsweep.errors import UserError
from cnnsweep.models import function, own
from cnnsweep.models.keras_sizes import sizes_of
from cnnsweep.training.cost_model import per_image

SHAPE, CLASSES = (8, 8, 1), 10


def dense(units: int = 4) -> keras.Model:
    """Without a name and without an input shape."""
    return keras.Sequential([layers.Flatten(), layers.Dense(units, activation="relu"), layers.Dense(CLASSES)])


def shaped(input_shape: tuple[int, ...], classes: int, units: int) -> keras.Model:
    return keras.Sequential([keras.Input(input_shape), layers.Flatten(), layers.Dense(units), layers.Dense(classes)])


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, x: Any) -> Any:
        return x * self.factor


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.flat, self.out = layers.Flatten(), layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        return self.out(self.flat(x))


def two_inputs(name: str = "age", sizes: int = 1) -> keras.Model:
    inputs = [keras.Input(SHAPE, name="image"), keras.Input((sizes,), name=name)]
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.Concatenate()([layers.Flatten()(inputs[0]), inputs[1]])))


def two_outputs() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(inputs)
    return keras.Model(inputs, [layers.Dense(CLASSES)(x), layers.Dense(1)(x)])


class TwoInputs(keras.Model):
    """Subclassed; it takes them by name."""

    def __init__(self, input_shape: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.sizes = input_shape
        self.out = layers.Dense(CLASSES)

    def call(self, x: Any) -> Any:
        return self.out(keras.ops.concatenate([keras.ops.reshape(x["image"], (-1, 64)), x["age"]], axis=-1))


def build(call: str, **keys: Any) -> keras.Model:
    return function.build({"call": f"test_own.{call}", **keys}, SHAPE, CLASSES, scale=1 / 255)


def test_a_sequential_model_without_name_and_shape_is_built() -> None:
    model = build("dense", units=6)
    assert model.input_shape == (None, *SHAPE)
    assert len(model.trainable_variables) == 4
    assert model.count_params() == 65 * 6 + 7 * CLASSES


def test_a_function_gets_the_shapes_where_it_asks_for_them() -> None:
    assert build("shaped", units=5).output_shape == (None, CLASSES)


def test_images_are_scaled_before_the_model() -> None:
    model = build("dense")
    inner, images = model.layers[-1], np.full((2, *SHAPE), 255, "uint8")
    assert np.allclose(model(images), inner(images / 255), atol=1e-5)


def test_a_subclassed_model_is_left_as_it_is() -> None:
    assert type(build("Subclassed")) is Subclassed


def test_a_compiled_model_keeps_its_optimizer_loss_and_metrics() -> None:
    made = dense()
    made.build((None, *SHAPE))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.25), loss, metrics=["accuracy"])
    model = own.finish(made, "it", SHAPE, CLASSES, scale=1 / 255)
    assert model.optimizer is made.optimizer
    assert type(model.loss) is keras.losses.SparseCategoricalCrossentropy
    assert model.loss.get_config()["from_logits"] is True
    history = model.fit(np.zeros((4, *SHAPE)), np.arange(4), verbose=0).history
    assert set(history) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("call", "keys", "fault"),
    [
        ("dense", {"unit": 3}, "cannot be called with these keys: got an unexpected keyword argument 'unit'"),
        ("shaped", {}, "missing a required argument: 'units'"),
        ("two_inputs", {}, "takes 2 inputs, but the data have one: data=npz takes several, as arrays x_train_NAME"),
        ("two_outputs", {}, "has 2 outputs, but the data have one y"),
        ("shaped", {"units": 2, "classes": 3}, r"has outputs of shape \(3,\), but the data have 10 classes"),
        ("shaped", {"units": 2, "input_shape": (9, 9, 1)}, r"takes inputs of shape \(9, 9, 1\), but the images have"),
    ],
)
def test_what_does_not_fit_is_refused(call: str, keys: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        build(call, **keys)


SEVERAL = Shapes({"image": SHAPE, "age": (1,)})


@pytest.mark.parametrize("call", ["two_inputs", "TwoInputs"])
def test_a_model_takes_several_inputs_by_name(call: str) -> None:
    model = function.build({"call": f"test_own.{call}"}, SEVERAL, CLASSES)
    x = unpacked(pack({"image": np.zeros((4, *SHAPE), "uint8"), "age": np.arange(4.0)}))
    assert model(x).shape == (4, CLASSES)
    assert function.measure({"call": f"test_own.{call}"}, SEVERAL, CLASSES).parameters == 66 * CLASSES


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (
            {"name": "ages"},
            "has an input 'ages', did you mean 'age'? (the data have image, age; ",
        ),
        ({"sizes": 2}, "input 'age' has the shape (2,), the data's (1,)"),
    ],
)
def test_inputs_that_the_data_do_not_have_are_refused(keys: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=re.escape(fault)):
        function.build({"call": "test_own.two_inputs", **keys}, SEVERAL, CLASSES)


LAYERS: list[tuple[Any, tuple[int, ...], int]] = [
    (layers.Conv2D(4, 3), (8, 8, 2), 6 * 6 * 9 * 2 * 4),
    (layers.Conv2D(4, 3, strides=2, padding="same", groups=2), (8, 8, 2), 4 * 4 * 9 * 1 * 4),
    (layers.DepthwiseConv2D(3), (8, 8, 2), 6 * 6 * 9 * 2),
    (layers.SeparableConv2D(4, 3), (8, 8, 2), 6 * 6 * (9 * 2 + 2 * 4)),
    (layers.Conv2DTranspose(4, 2, strides=2), (4, 4, 2), 4 * 4 * 4 * 2 * 4),
    (layers.Conv1D(4, 3), (8, 2), 6 * 3 * 2 * 4),
    (layers.Dense(5), (8,), 40),
    (layers.Dense(5), (3, 8), 3 * 40),
    (layers.LSTM(5), (7, 3), 7 * 4 * (3 * 5 + 5 * 5)),
    (layers.GRU(5), (7, 3), 7 * 3 * (3 * 5 + 5 * 5)),
    (layers.Bidirectional(layers.LSTM(5)), (7, 3), 2 * 7 * 4 * (3 * 5 + 5 * 5)),
    (layers.ConvLSTM2D(4, 3), (7, 8, 8, 2), 7 * 6 * 6 * 4 * 9 * (2 * 4 + 4 * 4)),
    (layers.BatchNormalization(), (8, 8, 2), 0),
    (layers.LayerNormalization(axis=[1, 2, 3]), (8, 8, 2), 0),
    (layers.PReLU(), (8, 8, 2), 0),
    (Scale(), (8,), 0),
]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"), LAYERS, ids=[f"{i}-{type(row[0]).__name__}" for i, row in enumerate(LAYERS)]
)
def test_multiply_adds_are_asked_of_the_model(layer: Any, shape: tuple[int, ...], expected: int) -> None:
    inputs = keras.Input(shape)
    inner = keras.Model(inputs, layer(inputs))
    outer = keras.Model(inputs, inner(inputs))  # the layers of a nested model count
    network = sizes_of(outer, shape)
    assert network.mult_adds == expected
    assert network.parameters == outer.count_params()
    assert per_image(network)["multiply-adds"] == expected, "as the forecast of its time counts them"
