"""Models as KerasTuner's and Keras' users write them, some of them wrong in one way."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import keras_tuner
from keras import layers


def build(hp: Any) -> keras.Model:
    """A loop over layers, a condition in plain Python, and one in a scope."""
    model = keras.Sequential()
    model.add(layers.Flatten())
    for i in range(hp.Int("layers", 1, 3)):
        model.add(
            layers.Dense(hp.Int(f"units_{i}", 8, 32, step=8), activation=hp.Choice("activation", ["relu", "tanh"]))
        )
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(hp.Float("rate", 0.1, 0.5, step=0.1)))
    kind = hp.Choice("optimizer", ["adam", "sgd"])
    rate = hp.Float("lr", 1e-4, 1e-1, sampling="log")
    with hp.conditional_scope("optimizer", ["sgd"]):
        momentum = hp.Float("momentum", 0.0, 0.9)
    optimizer = keras.optimizers.Adam(rate) if kind == "adam" else keras.optimizers.SGD(rate, momentum)
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Convolutions(keras_tuner.HyperModel):
    """One of the shapes that it is given, some of whose networks do not fit the images."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.input_shape, self.classes = input_shape, classes

    def build(self, hp: Any) -> keras.Model:
        inputs = x = keras.Input(self.input_shape)
        for _ in range(2):
            x = layers.Conv2D(4, hp.Choice("kernel", [3, 7]), activation="relu")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(self.classes, activation="softmax")(x))
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        return model


class Documented(keras_tuner.HyperModel):
    """The example of `HyperParameters.conditional_scope`, whose model is not compiled."""

    def build(self, hp: Any) -> keras.Model:
        model = keras.Sequential()
        model.add(keras.Input(shape=(8, 8, 1)))
        model_type = hp.Choice("model_type", ["mlp", "cnn"])
        with hp.conditional_scope("model_type", ["mlp"]):
            if model_type == "mlp":
                model.add(layers.Flatten())
                model.add(layers.Dense(hp.Int("units", 8, 32, step=8), activation="relu"))
        with hp.conditional_scope("model_type", ["cnn"]):
            if model_type == "cnn":
                model.add(layers.Conv2D(hp.Choice("filters", [4, 8]), 3, activation="relu"))
                model.add(layers.GlobalAveragePooling2D())
        model.add(layers.Dense(10, activation="softmax"))
        return model


def changing(hp: Any) -> keras.Model:
    """It asks for more once two of its hyperparameters have certain values together."""
    a, b = hp.Choice("a", [1, 2]), hp.Choice("b", [1, 2])
    if a == b == 2:
        hp.Int("late", 1, 5)
    return build(hp)


builds = itertools.count(1)


def growing(hp: Any) -> keras.Model:
    """It asks for another one in each build."""
    hp.Int(f"extra_{next(builds)}", 1, 5)
    return build(hp)


def fixed(hp: Any) -> keras.Model:
    """It asks for nothing."""
    model = keras.Sequential([layers.Flatten(), layers.Dense(10, activation="softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def alike(hp: Any) -> keras.Model:
    """Two names of one key."""
    hp.Int("units.a", 4, 8)
    return fixed(hp) if hp.Int("units_a", 40, 44) else None


def alternatives(hp: Any) -> keras.Model:
    """What is asked for under either of two conditions, both, or many or few of a range."""
    for i in range(hp.Int("layers", 1, 2)):
        if hp.Boolean(f"dropout_{i}"):
            hp.Float("rate", 0.1, 0.5)
    optimizer = hp.Choice("optimizer", ["adam", "sgd", "rmsprop"])
    for name, most in (("adam", 1e-2), ("sgd", 1.0)):
        with hp.conditional_scope("optimizer", [name]):
            if optimizer == name:
                hp.Float("lr", 1e-4, most)
    if hp.Int("many", 1, 100) > 30:
        hp.Int("thirty", 1, 3)
    if hp.Float("noise", 0.0, 0.5) > 0:
        hp.Boolean("everywhere")
    return fixed(hp)


def reversed_scales(hp: Any) -> keras.Model:
    hp.Int("stepped", 1, 100, step=10, sampling="reverse_log")
    hp.Float("share", 0.0001, 1.0, step=10, sampling="reverse_log")
    hp.Float("free", 0.1, 1.0, sampling="reverse_log")
    return fixed(hp)


def unbuildable(hp: Any) -> keras.Model:
    raise ValueError("Computed output size would be negative")


def no_model(hp: Any) -> Any:
    return "a model"


def without_arguments() -> keras.Model:
    return keras.Sequential()


class WithFit(keras_tuner.HyperModel):
    """A `fit` of its own, as KerasTuner's guide writes it."""

    def build(self, hp: Any) -> keras.Model:
        model = keras.Sequential([layers.Flatten(), layers.Dense(hp.Int("units", 4, 8, step=4)), layers.Dense(10)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        return model.fit(*args, batch_size=hp.Choice("batch_size", [16, 32]), shuffle=hp.Boolean("shuffle"), **kwargs)


class WithLoop(WithFit):
    """A loop of its own in place of Keras' fit; it never goes on from a checkpoint."""

    def build(self, hp: Any) -> keras.Model:
        model = keras.Sequential([layers.Flatten(), layers.Dense(10)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        return model

    def fit(
        self, hp: Any, model: keras.Model, x: Any, y: Any, validation_data: Any, callbacks: Any, **kwargs: Any
    ) -> Any:
        rate = hp.Float("rate", 1e-4, 1e-2, sampling="log")
        for callback in callbacks:
            callback.set_model(model)
        for epoch in range(3):
            model.optimizer.learning_rate = rate
            model.train_on_batch(x[:32], y[:32])
            loss = float(model.test_on_batch(*validation_data))
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs={"my_loss": loss})
        return loss


class FitsOwnEpochs(WithFit):
    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        return model.fit(*args, epochs=hp.Int("epochs", 1, 5), **kwargs)


class FitsChanging(WithFit):
    """It asks for more than the zeros told on which it was called first."""

    def fit(self, hp: Any, model: keras.Model, x: Any, **kwargs: Any) -> Any:
        if x.any():
            hp.Int("late", 1, 5)
        return model.fit(x, **kwargs)


class FitsSilently(WithFit):
    def fit(self, hp: Any, model: keras.Model, x: Any, y: Any, **kwargs: Any) -> Any:
        return model.fit(x, y, verbose=0)


instance = Convolutions((8, 8, 1), 10)


@keras.saving.register_keras_serializable("own_models")
class Subclassed(keras.Model):
    """It is no graph of layers, so that Keras knows no shape of its outputs."""

    def __init__(self, classes: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.flat, self.out = layers.Flatten(), layers.Dense(classes, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.out(self.flat(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.out.units}


def logits(classes: int) -> keras.Model:
    """It ends with logits, and is not compiled."""
    return keras.Sequential([layers.Flatten(), layers.Dense(classes)])


class SubclassedLogits(keras.Model):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.flat, self.out = layers.Flatten(), layers.Dense(classes)

    def call(self, x: Any) -> Any:
        return self.out(self.flat(x))


def compiled(classes: int) -> keras.Model:
    """It has an optimizer, a loss and a metric of its own."""
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(classes, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
