"""Sizes and costs by arithmetic, and when two stacks of layers are one network."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsweep.errors import UserError
from cnnsweep.geometry.network import GeometryError, Layer, measure


def signature(layers: list[Layer], shape: tuple[int, ...]) -> tuple[object, ...]:
    return measure(layers, shape).signature


def layer(kind: str, **settings: object) -> Layer:
    return Layer(kind, kind, settings)


def dense(units: int, **settings: object) -> Layer:
    return layer("dense", units=units, **settings)


def activation(function: object) -> Layer:
    return layer("activation", function=function)


def conv(filters: int = 2, kernel_size: int = 3, **settings: object) -> Layer:
    return Layer("conv", "conv", {"filters": filters, "kernel_size": kernel_size, **settings})


def pool(kind: str, size: int, **settings: object) -> Layer:
    return Layer(f"{kind}_pool", "pool", {"pool_size": size, **settings})


FLATTEN = Layer("flatten", "flatten")
GLOBAL = Layer("global_average_pool", "global")


def positions(size: int, span: int, stride: int, padding: str) -> int:
    """Count windows by sliding one, pixel by pixel, over what `same` padding adds at both ends."""
    if padding == "same":
        return len(range(0, size, stride))
    return sum(1 for start in range(0, size, stride) if start + span <= size)


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    filters=st.integers(1, 4),
)
def test_a_convolution_has_the_sizes_and_costs_that_counting_gives(size, kernel, stride, dilation, padding, filters):
    stride = 1 if dilation > 1 else stride
    span = (kernel - 1) * dilation + 1
    rows, columns = (positions(n, span, stride, padding) for n in size[:2])
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    if not rows * columns:
        with pytest.raises(GeometryError, match="larger than its"):
            measure([conv(filters, kernel, **settings)], size)
        return
    network = measure([conv(filters, kernel, **settings)], size)
    assert network.output_shape == (rows, columns, filters)
    weights = len(list(itertools.product(range(kernel), range(kernel), range(size[2]), range(filters))))
    assert network.parameters == weights + filters
    assert network.mult_adds == rows * columns * weights
    assert network.activation_mb == 4 * rows * columns * filters / 1e6


def test_sums_of_a_small_network():
    stack = [
        layer("rescaling", scale=1 / 255),
        conv(4, 3, padding="same", use_bias=False),
        layer("batch_norm"),
        activation("relu"),
        pool("max", 2, stride=2),
        FLATTEN,
        layer("dropout", rate=0.5),
        dense(10),
    ]
    network = measure(stack, (6, 6, 3))
    assert [row.output_shape for row in network.layers][-4:] == [(3, 3, 4), (36,), (36,), (10,)]
    assert network.parameters == 3 * 3 * 3 * 4 + 4 * 4 + 36 * 10 + 10
    assert network.mmacs == (36 * 3 * 3 * 3 * 4 + 36 * 10) / 1e6
    assert network.activation_mb == 4 * (108 + 3 * 144 + 36 + 10) / 1e6


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (conv(kernel_size=0), r"conv.kernel_size: conv's value is 0, not a positive integer"),
        (conv(kernel_size=-3), "value is -3"),
        (conv(kernel_size=3.0), r"value is 3\.0"),
        (conv(filters=True), "filters: conv's value is True"),
        (conv(stride=0), "stride: conv's value is 0"),
        (conv(dilation=0), "dilation: conv's value is 0"),
        (conv(stride=2, dilation=2), "stride 2 and dilation 2 are both above 1"),
        (conv(padding="full"), "padding: conv's value is 'full', not one of same, valid"),
        (conv(dilation=3), "3×3 kernel at dilation 3 spans 7×7 and is larger than its 6×6 input"),
        (pool("max", 0), "pool_size: pool's value is 0"),
        (pool("max", 7), "pool_size: pool's 7×7 pool is larger than its 6×6 input"),
        (pool("max", 2, stride=-1), "stride: pool's value is -1"),
        (dense(-5), "units: dense's value is -5"),
        (dense(5, activation="glu"), "halves its input"),
        (layer("dropout", rate=1.0), "rate: dropout's value is 1.0"),
        (layer("dropout", rate=float("nan")), "value is nan"),
        (activation(3), "function: activation's value is 3"),
        (layer("rescaling"), "scale: rescaling's value is None"),
    ],
)
def test_an_error_names_the_bad_setting(layer, message):
    with pytest.raises(GeometryError, match=message):
        measure([layer], (6, 6, 2))


def test_an_error_names_the_config_key_and_shows_the_layers_before():
    keys = {"kernel_size": "model.kernel_size"}
    late = Layer("conv", "block3_conv", {"filters": 4, "kernel_size": 7}, "block 3", keys)
    with pytest.raises(GeometryError) as caught:
        measure([pool("max", 2), late], (6, 6, 2))
    assert str(caught.value).splitlines() == [
        "model.kernel_size: block 3's 7×7 kernel is larger than its 3×3 input",
        "layer        output  parameters  multiply-adds",
        "input         6×6×2",
        "pool          3×3×2           0              0",
        "block3_conv   fails",
    ]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_other_bad_input():
    with pytest.raises(UserError, match="unknown layer kind 'convv', did you mean 'conv'"):
        measure([layer("convv")], (6, 6, 2))
    with pytest.raises(UserError, match="input shape"):
        measure([FLATTEN], (6, 0, 2))
    with pytest.raises(GeometryError, match="not height × width × channels"):
        measure([FLATTEN, conv()], (6, 6, 2))


def excite(function):
    return layer("squeeze_excite", ratio=1, activation=function)


def convs(function):
    return layer("conv_max_over_time", filters=2, kernel_sizes=(2, 3), activation=function)


def spectrogram(frame, step):
    return layer("spectrogram", frame=frame, step=step, axes=1)


TILED, GLOBAL_MAX = pool("average", 2), layer("global_max_pool")
SAME = [
    ([conv(kernel_size=1, padding="same")], [conv(kernel_size=1, padding="valid")], (6, 6, 2)),
    ([conv(kernel_size=1, dilation=2)], [conv(kernel_size=1)], (6, 6, 2)),
    ([conv(kernel_size=2, stride=2, padding="same")], [conv(kernel_size=2, stride=2)], (6, 6, 2)),
    ([conv(kernel_size=3, stride=1)], [conv(kernel_size=3, stride=2)], (3, 3, 2)),
    ([conv(stride=2, padding="same")], [conv(stride=3, padding="same")], (1, 2, 2)),
    ([conv(dilation=2, padding="same")], [conv(dilation=1, padding="same")], (1, 1, 2)),
    ([pool("max", 1)], [], (6, 6, 2)),
    ([pool("max", 3, padding="same")], [], (1, 1, 2)),
    ([pool("max", 1, stride=2)], [pool("average", 1, stride=2)], (6, 6, 2)),
    ([pool("max", 2), FLATTEN], [pool("max", 2, padding="same"), FLATTEN], (6, 6, 2)),
    ([FLATTEN], [GLOBAL], (1, 1, 2)),
    ([pool("average", 6), FLATTEN], [GLOBAL], (6, 6, 2)),
    ([TILED, GLOBAL], [pool("average", 3), GLOBAL], (6, 6, 2)),
    ([TILED, pool("average", 3), FLATTEN], [GLOBAL], (6, 6, 2)),
    ([pool("max", 2), GLOBAL_MAX], [pool("max", 3), GLOBAL_MAX], (6, 6, 2)),
    ([pool("max", 2), pool("max", 3), FLATTEN], [GLOBAL_MAX], (6, 6, 2)),
    ([layer("dropout", rate=0)], [], (6, 6, 2)),
    ([activation("linear")], [], (6, 6, 2)),
    ([layer("rescaling", scale=1)], [], (6, 6, 2)),
    ([dense(5)], [Layer("dense", "another name", {"units": 5})], (4,)),
    ([activation("swish")], [activation("silu")], (4,)),
    ([excite("swish")], [excite("silu")], (6, 6, 2)),
    ([convs("swish")], [convs("silu")], (6, 2)),
    ([spectrogram(4, 1)], [spectrogram(4, 3)], (4, 2)),
    ([conv(5, 1), FLATTEN], [FLATTEN, dense(5)], (1, 1, 2)),
    ([dense(5, activation="relu")], [dense(5), activation("relu")], (4,)),
]
DIFFERENT = [
    ([conv(padding="same")], [conv(padding="valid")], (6, 6, 2)),
    ([conv(2)], [conv(3)], (6, 6, 2)),
    ([conv(use_bias=False)], [conv()], (6, 6, 2)),
    ([conv(dilation=2)], [conv()], (6, 6, 2)),
    ([conv(stride=2, padding="same")], [conv(stride=3, padding="same")], (4, 4, 2)),
    ([pool("max", 2)], [pool("average", 2)], (6, 6, 2)),
    ([pool("max", 2)], [pool("max", 2, padding="same")], (5, 5, 2)),
    ([pool("average", 2), GLOBAL], [GLOBAL], (5, 5, 2)),
    ([pool("max", 2), GLOBAL_MAX], [GLOBAL_MAX], (5, 5, 2)),
    ([pool("average", 2), GLOBAL_MAX], [GLOBAL_MAX], (6, 6, 2)),
    ([pool("max", 2), GLOBAL], [GLOBAL], (6, 6, 2)),
    ([pool("max", 6), FLATTEN], [GLOBAL], (6, 6, 2)),
    ([pool("max", 6)], [pool("max", 6), FLATTEN], (6, 6, 2)),
    ([layer("dropout", rate=0.1)], [], (6, 6, 2)),
    ([layer("batch_norm"), FLATTEN], [FLATTEN, layer("batch_norm")], (6, 6, 2)),
    ([dense(5), FLATTEN, dense(4)], [FLATTEN, dense(5), dense(4)], (2, 2, 2)),
    ([spectrogram(4, 1)], [spectrogram(4, 3)], (7, 2)),
    ([activation("softmax"), FLATTEN], [FLATTEN, activation("softmax")], (2, 2, 2)),
]


@pytest.mark.parametrize(("a", "b", "shape"), SAME)
def test_two_spellings_of_one_network_have_one_signature(a, b, shape):
    assert signature(a, shape) == signature(b, shape)
    assert hash(signature(a, shape)) == hash(signature(b, shape))


@pytest.mark.parametrize(("a", "b", "shape"), DIFFERENT)
def test_two_networks_have_two_signatures(a, b, shape):
    assert signature(a, shape) != signature(b, shape)


def test_the_input_is_part_of_the_network():
    assert signature([GLOBAL], (6, 6, 2)) != signature([GLOBAL], (5, 5, 2))
