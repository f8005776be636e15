"""A compiled Keras model with two inputs and a layer of one's own."""

import keras


@keras.saving.register_keras_serializable("examples")
class Gate(keras.layers.Layer):
    """Weighs features by a learned function of the second input."""

    def build(self, shapes):
        self.dense = keras.layers.Dense(shapes[0][-1], activation="sigmoid")
        self.dense.build(shapes[1])

    def call(self, inputs):
        features, condition = inputs
        return features * self.dense(condition)


def build(filters, lr):
    image, ink = keras.Input((8, 8, 1), name="image"), keras.Input((1,), name="ink")
    x = keras.layers.Conv2D(filters, 3, activation="relu")(image)
    x = Gate()([keras.layers.Flatten()(x), ink])
    model = keras.Model([image, ink], keras.layers.Dense(10, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
