"""A compiled Keras model with two inputs and a layer of one's own, trained by `fit` as ever."""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

images, y = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1) / 16
ink = images.mean(axis=(1, 2))  # the second input: how much of the image is ink
parts = train_test_split(images, ink, y, test_size=0.3, random_state=0)
train, val = parts[0::2], parts[1::2]


@keras.saving.register_keras_serializable("examples")
class Gate(keras.layers.Layer):
    """Weighs features by a learned function of the second input."""

    def build(self, shapes):
        self.dense = keras.layers.Dense(shapes[0][-1], activation="sigmoid")
        self.dense.build(shapes[1])

    def call(self, inputs):
        features, condition = inputs
        return features * self.dense(condition)


def build(config):
    image, ink = keras.Input((8, 8, 1), name="image"), keras.Input((1,), name="ink")
    x = keras.layers.Conv2D(config.filters, 3, activation="relu")(image)
    x = Gate()([keras.layers.Flatten()(x), ink])
    model = keras.Model([image, ink], keras.layers.Dense(10, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(config.lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(config, trial):
    keras.utils.set_random_seed(trial.seed)
    model = build(config)
    model.fit(
        {"image": train[0], "ink": train[1]}, train[2], batch_size=64, verbose=0,
        validation_data=({"image": val[0], "ink": val[1]}, np.asarray(val[2])),
        initial_epoch=trial.epoch, epochs=trial.epochs, callbacks=[trial.keras_callback()],
    )  # fmt: skip
