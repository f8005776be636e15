"""Sizes and costs by arithmetic, and when two stacks of layers are one network."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnsweep.errors import UserError
from cnnsweep.geometry.network import GeometryError, Layer, Network, measure


def one(kind: str, shape: tuple[int, ...], **settings: object) -> Network:
    return measure([Layer(kind, kind, settings)], shape)


def signature(*layers: Layer, shape: tuple[int, ...] = (6, 6, 2)) -> tuple[object, ...]:
    return measure(layers, shape).signature


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
def test_convolution_against_a_count_one_by_one(size, kernel, stride, dilation, padding, filters):
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
        Layer("rescaling", "rescaling", {"scale": 1 / 255}),
        conv(4, 3, padding="same", use_bias=False),
        Layer("batch_norm", "norm"),
        Layer("activation", "relu", {"function": "relu"}),
        pool("max", 2, stride=2),
        FLATTEN,
        Layer("dropout", "dropout", {"rate": 0.5}),
        Layer("dense", "classifier", {"units": 10}),
    ]
    network = measure(stack, (6, 6, 3))
    assert [row.output_shape for row in network.layers][-4:] == [(3, 3, 4), (36,), (36,), (10,)]
    assert network.parameters == 3 * 3 * 3 * 4 + 4 * 4 + 36 * 10 + 10
    assert network.mmacs == (36 * 3 * 3 * 3 * 4 + 36 * 10) / 1e6
    assert network.activation_mb == 4 * (108 + 3 * 144 + 36 + 10) / 1e6
    assert network.dense_equivalent(6 * 6 * 4) == 108 * 144


def test_table_stops_where_it_is_told():
    network = measure([conv(), FLATTEN], (6, 6, 2))
    assert "flatten" in network.table()
    assert "flatten" not in network.table(upto=1)
    assert len({line.index("2") for line in network.table().splitlines()[2:3]}) == 1


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
        (Layer("dense", "dense", {"units": -5}), "units: dense's value is -5"),
        (Layer("dense", "dense", {"units": 5, "activation": "glu"}), "halves its input"),
        (Layer("dropout", "dropout", {"rate": 1.0}), "rate: dropout's value is 1.0"),
        (Layer("dropout", "dropout", {"rate": float("nan")}), "value is nan"),
        (Layer("activation", "a", {"function": 3}), "function: a's value is 3"),
        (Layer("rescaling", "r", {}), "scale: r's value is None"),
    ],
)
def test_bad_settings_are_named(layer, message):
    with pytest.raises(GeometryError, match=message):
        measure([layer], (6, 6, 2))


def test_error_names_the_config_key_and_draws_the_layers_before():
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
        one("convv", (6, 6, 2))
    with pytest.raises(UserError, match="input shape"):
        one("flatten", (6, 0, 2))
    with pytest.raises(GeometryError, match="not height × width × channels"):
        measure([FLATTEN, conv()], (6, 6, 2))


TILED = pool("average", 2)
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
    ([Layer("dropout", "d", {"rate": 0})], [], (6, 6, 2)),
    ([Layer("activation", "a", {"function": "linear"})], [], (6, 6, 2)),
    ([Layer("rescaling", "r", {"scale": 1})], [], (6, 6, 2)),
    (
        [Layer("activation", "a", {"function": "swish"})],
        [Layer("activation", "b", {"function": "silu"})],
        (4,),
    ),
    ([conv(5, 1), FLATTEN], [FLATTEN, Layer("dense", "dense", {"units": 5})], (1, 1, 2)),
    (
        [Layer("dense", "dense", {"units": 5, "activation": "relu"})],
        [Layer("dense", "other", {"units": 5}), Layer("activation", "relu", {"function": "relu"})],
        (4,),
    ),
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
    ([pool("max", 6), FLATTEN], [GLOBAL], (6, 6, 2)),
    ([pool("max", 6)], [pool("max", 6), FLATTEN], (6, 6, 2)),
    ([Layer("dropout", "d", {"rate": 0.1})], [], (6, 6, 2)),
    ([Layer("batch_norm", "n"), FLATTEN], [FLATTEN, Layer("batch_norm", "n")], (6, 6, 2)),
    (
        [Layer("dense", "a", {"units": 5}), FLATTEN, Layer("dense", "b", {"units": 4})],
        [FLATTEN, Layer("dense", "a", {"units": 5}), Layer("dense", "b", {"units": 4})],
        (2, 2, 2),
    ),
    (
        [Layer("activation", "a", {"function": "softmax"}), FLATTEN],
        [FLATTEN, Layer("activation", "a", {"function": "softmax"})],
        (2, 2, 2),
    ),
]


@pytest.mark.parametrize(("a", "b", "shape"), SAME)
def test_two_spellings_of_one_network(a, b, shape):
    assert signature(*a, shape=shape) == signature(*b, shape=shape)
    assert hash(signature(*a, shape=shape)) == hash(signature(*b, shape=shape))


@pytest.mark.parametrize(("a", "b", "shape"), DIFFERENT)
def test_two_networks(a, b, shape):
    assert signature(*a, shape=shape) != signature(*b, shape=shape)


def test_the_input_is_part_of_the_network():
    assert signature(GLOBAL, shape=(6, 6, 2)) != signature(GLOBAL, shape=(5, 5, 2))
