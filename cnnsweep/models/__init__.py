"""Model families: each turns a `model` config into layers for the arithmetic and into a Keras model."""
