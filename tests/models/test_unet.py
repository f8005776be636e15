"""Encoder and decoder: their geometry is that of Keras, at any size of image."""

from __future__ import annotations

import numpy as np
import pytest

from cnnsweep.config.compose import compose
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import measure
from cnnsweep.models import unet

CASES = [
    ((16, 16, 1), []),
    ((13, 7, 3), ["model.blocks=3", "model.filters=[4,5,6]", "model.kernel_size=[3,5,1]", "model.batch_norm=true"]),
    ((9, 10, 1), ["model.convolutions=2", "model.dropout=0.2", "model.activation=elu"]),
]


def made(*overrides: str) -> unet.UnetConfig:
    model = compose(["model=unet", "space=none", "task=segmentation", *overrides]).model
    assert isinstance(model, unet.UnetConfig)
    return model


@pytest.mark.parametrize(("shape", "overrides"), CASES)
def test_geometry_is_that_of_keras(shape, overrides):
    model = made(*overrides)
    network = measure(unet.layers(model, shape, 3, 1 / 255), shape)
    built = unet.build(model, shape, 3, 1 / 255, seed=1)
    assert network.parameters == built.count_params()
    assert built.output_shape == (None, *shape[:2], 3)
    for row in network.layers:
        assert built.get_layer(row.layer.name).output.shape[1:] == row.output_shape
    probabilities = built.predict(np.zeros((2, *shape)), verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    again = unet.build(model, shape, 3, 1 / 255, seed=1)
    np.testing.assert_array_equal(probabilities, again.predict(np.zeros((2, *shape)), verbose=0))


def test_networks_that_differ_have_other_signatures():
    def signature(*overrides: str) -> object:
        return measure(unet.layers(made(*overrides), (16, 16, 1), 3), (16, 16, 1)).signature

    assert signature() == signature("model.filters=[16,16]")
    different = ("model.filters=8", "model.blocks=1", "model.bottleneck=8", "model.filters=16")
    assert len({signature(each) for each in different}) == 4


def test_wrong_settings():
    with pytest.raises(UserError, match=r"model.filters: 3 values \[1, 2, 3\] for model.blocks=2"):
        unet.layers(made("model.filters=[1,2,3]"), (16, 16, 1), 3)
    with pytest.raises(UserError, match=r"model.filters: block 1's value is 0, not a positive integer"):
        measure(unet.layers(made("model.filters=0"), (16, 16, 1), 3), (16, 16, 1))
