"""Model families: each builds a Keras model from a model config, and its layers for the geometry."""
