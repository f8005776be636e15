"""Networks for signals, texts and videos: their layers, the Keras models built from them, and that the two agree."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import pytest

from cnnsweep.config.components import locate
from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.geometry.network import GeometryError, Layer, Network, measure
from cnnsweep.models import cnn_rnn, sequence_layers
from cnnsweep.models.keras_sizes import sizes_of
from cnnsweep.search_space.counting import ValidConfigurations, list_valid
from cnnsweep.search_space.problem import make_problem

MANY = int(os.environ.get("CNNSWEEP_TEST_NETWORKS", "100"))
"""Networks that are compared with Keras in the slow test; 1,000 before a release."""

FAMILIES = ("text_cnn", "cnn1d", "cnn3d", "cnn_rnn")
MODELS = {name: compose([f"model={name}", "space=none"]).model for name in FAMILIES}
Drawn = tuple[Any, tuple[int, ...]]


def blocks(rng: random.Random, paddings: list[str]) -> dict[str, Any]:
    dilation = rng.choice([1, 1, 2])
    return {
        "blocks": rng.randint(1, 2),
        "filters": rng.choice([1, 3]),
        "kernel_size": rng.choice([1, 2, 3]),
        "stride": 1 if dilation > 1 else rng.choice([1, 2]),
        "dilation": dilation,
        "padding": rng.choice(paddings),
        "pooling": rng.choice(["max", "average", "none"]),
        "pool_size": rng.choice([1, 2]),
        "batch_norm": rng.random() < 0.5,
        "head": rng.choice(["flatten", "average", "max"]),
        "dense_units": rng.choice([0, 3]),
        "dropout": rng.choice([0.0, 0.3]),
    }


def draw(family: str, rng: random.Random) -> Drawn:
    """A random configuration of a family, valid or not, and an input shape that it takes."""
    model = MODELS[family]
    if family == "text_cnn":
        changes = {"embedding": rng.choice([2, 5]), "branches": rng.randint(1, 3), "kernel_size": rng.randint(1, 4)}
        changes |= {"filters": rng.choice([2, 3]), "dense_units": rng.choice([0, 4])}
        changes |= {"embedding_dropout": rng.choice([0.0, 0.3])}
        return model.replace(**changes), (rng.choice([3, 6, 9]), rng.choice([7, 12]))
    if family == "cnn3d":
        shape = (rng.choice([3, 4, 5]), rng.choice([4, 7]), rng.choice([5, 6]), rng.choice([1, 3]))
        return model.replace(**blocks(rng, ["same", "valid"])), shape
    axes = rng.choice([1, 2])
    text, representation = rng.random() < 0.3, rng.choice(["waveform", "spectrogram", "mel"])
    flat = text or representation == "waveform" or axes == 1
    changes = blocks(rng, ["same", "valid", "causal"] if flat else ["same", "valid"])
    changes |= {"representation": representation, "axes": axes, "embedding": 4 if text else 0, "mels": 5}
    changes |= {"frame": rng.choice([8, 16]), "step": rng.choice([4, 8]), "embedding_dropout": 0.3 if text else 0.0}
    shape = (
        (rng.choice([9, 12]), 7)
        if text
        else (rng.choice([40, 58]), 1 if representation == "mel" else rng.choice([1, 2]))
    )
    if family == "cnn_rnn":
        changes |= {"recurrent": rng.choice(["lstm", "gru", "none"]), "recurrent_units": rng.choice([2, 3])}
        changes |= {"recurrent_layers": rng.randint(1, 2), "bidirectional": rng.random() < 0.5}
        if rng.random() < 0.4:
            changes |= {"each_frame": True, "embedding": 0, "padding": rng.choice(["same", "valid"])}
            shape = (rng.choice([3, 4]), rng.choice([5, 8]), 6, rng.choice([1, 3]))
    return model.replace(**changes), shape


def layers_of(model: Any, shape: tuple[int, ...]) -> list[Layer]:
    return locate("layers", model.layers)(model, shape, 3)


def valid(family: str, seed: int, count: int) -> Iterator[tuple[Any, tuple[int, ...], Network]]:
    rng = random.Random(seed)
    while count:
        model, shape = draw(family, rng)
        try:
            network = measure(layers_of(model, shape), shape)
        except GeometryError:
            continue
        yield model, shape, network
        count -= 1


def counted(built: Any, steps: int) -> int:
    """Multiply-adds, from the weights that Keras made: each is used once for each position of the output.

    Those of recurrent layers once for each of `steps`. Spectrograms, whose weights are fixed, are left out.
    """
    found = 0
    for layer in built.layers:
        if "forward_layer" in dir(layer):
            found += 2 * steps * sum(prod(w.shape) for w in layer.forward_layer.weights if w.name.endswith("kernel"))
        elif "cell" in dir(layer):
            found += steps * sum(prod(w.shape) for w in layer.weights if w.name.endswith("kernel"))
        elif "kernel" in dir(layer):
            found += prod(layer.output.shape[1:-1]) * prod(layer.kernel.shape)
    return found


@pytest.mark.parametrize("count", [15, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_has_the_shape_and_the_costs_that_keras_gives_it(family, count):
    known: dict[Any, tuple[Any, int, int, int]] = {}
    for _, shape, network in valid(family, 1, count):
        before = shape
        for row in network.layers:
            key = (row.layer.kind, tuple(row.layer.settings.items()), before)
            if key not in known:
                built = sequence_layers.connect([row.layer], before, (), 0, "single")
                memory = round(sizes_of(built, before).activation_mb * 1e6)
                known[key] = built.output.shape[1:], built.count_params(), memory, counted(built, before[0])
            adds = known[key][3] if row.layer.kind == "spectrogram" else row.mult_adds
            assert known[key] == (row.output_shape, row.parameters, row.activation_bytes, adds), key
            before = row.output_shape


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_both_bias_layouts_and_multiply_adds_of_recurrent_layers(kind, gates, reset_after):
    import keras

    settings = {"units": 3, "return_sequences": True, "reset_after": reset_after}
    network = measure([Layer(kind, kind, settings)], (7, 5))
    made = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind]
    options = {"reset_after": reset_after} if kind == "gru" else {}
    layer = made(3, return_sequences=True, **options)
    layer.build((None, 7, 5))
    assert network.parameters == layer.count_params()
    assert network.mult_adds == 7 * (prod(layer.cell.kernel.shape) + prod(layer.cell.recurrent_kernel.shape))
    assert layer.cell.kernel.shape == (5, gates * 3)


def test_a_recurrent_layer_reads_both_ways():
    layer = Layer("gru", "gru", {"units": 3, "bidirectional": True})
    built = sequence_layers.connect([layer], (6, 2), (), 0, "single")
    x = np.random.default_rng(0).random((1, 6, 2), "float32")
    late = x.copy()
    late[:, -1] += 1
    before, after = np.asarray(built(x))[0], np.asarray(built(late))[0]
    assert (before != after).all()  # the backward half has seen the last step first, the forward half last


def test_causal_convolutions_do_not_see_the_future():
    settings = {"filters": 2, "kernel_size": 3, "stride": 1, "dilation": 2, "padding": "causal", "use_bias": True}
    built = sequence_layers.connect([Layer("conv", "conv", settings)], (9, 1), (), 0, "single")
    x = np.zeros((1, 9, 1), "float32")
    late = x.copy()
    late[:, 5] = 1
    changed = (np.asarray(built(x)) != np.asarray(built(late))).any(axis=(0, 2))
    assert np.flatnonzero(changed).tolist() == [5, 7]


def test_a_spectrogram_does_not_depend_on_the_other_signals_of_its_batch():
    settings = {"frame": 16, "step": 8, "axes": 1, "mels": 4, "rate": 8000}
    built = sequence_layers.connect([Layer("mel_spectrogram", "mel", settings)], (64, 1), (), 0, "single")
    quiet = np.random.default_rng(0).normal(0, 1e-3, (1, 64, 1)).astype("float32")
    loud = np.concatenate([quiet, 1000 * quiet])
    np.testing.assert_allclose(np.asarray(built(loud))[0], np.asarray(built(quiet))[0], rtol=1e-5)


@pytest.mark.parametrize("representation", ["waveform", "spectrogram", "mel"])
@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e4])
def test_the_unit_of_a_signal_makes_no_difference(representation, unit):
    model = MODELS["cnn1d"].replace(representation=representation, frame=16, step=8, mels=4)
    x = np.random.default_rng(0).normal(size=(3, 64, 1)).astype("float32")
    small, usual = (locate("m", model.target)(model, (64, 1), 2, scale, seed=0) for scale in (1 / unit, 1.0))
    np.testing.assert_allclose(np.asarray(small(x * np.float32(unit))), np.asarray(usual(x)), rtol=1e-4)
    assert np.ptp(np.asarray(usual(x))[:, 0]) > 1e-4


def test_frames_are_seen_one_at_a_time():
    model = MODELS["cnn_rnn"].replace(each_frame=True, recurrent="lstm", blocks=2, filters=3)
    network = measure(cnn_rnn.layers(model, (4, 8, 8, 1), 3), (4, 8, 8, 1))
    assert [row.output_shape for row in network.layers][-3:] == [(64,), (64,), (3,)]
    assert (4, 2 * 2 * 3) in [row.output_shape for row in network.layers]


SAME = [
    ("cnn1d", {"axes": 1}, (60, 1), {"axes": 2}),
    ("cnn1d", {"kernel_size": 1, "padding": "same"}, (60, 1), {"padding": "causal"}),
]


@pytest.mark.parametrize(("family", "base", "shape", "change"), SAME, ids=["axes of a waveform", "one tap"])
def test_settings_without_effect_make_no_other_network(family, base, shape, change):
    model = MODELS[family].replace(**base)
    first, second = (measure(layers_of(m, shape), shape).signature for m in (model, model.replace(**change)))
    assert first == second


@pytest.mark.parametrize(
    ("family", "changes", "shape", "message"),
    [
        ("text_cnn", {"kernel_size": 9}, (5, 7), r"model.kernel_size: the convolution's kernel of size 11 is larger"),
        ("text_cnn", {}, (5, 7, 1), "a text_cnn takes texts"),
        ("cnn1d", {"blocks": 1, "kernel_size": 7, "padding": "valid"}, (5, 1), "larger than its input of 5 steps"),
        ("cnn1d", {"representation": "mel"}, (100, 1), r"model.frame: the spectrogram's window of 256 samples is"),
        ("cnn1d", {"representation": "mel", "frame": 16}, (100, 1), r"model.step: .* step of 128 samples is larger"),
        ("cnn1d", {"representation": "mel", "frame": 32, "step": 16, "rate": 40}, (100, 1),
         "model.rate: .* rate of 40 samples a second has no frequencies above 20 Hz"),
        ("cnn1d", {}, (28, 28, 1), "a cnn1d takes signals"),
        ("cnn3d", {}, (28, 28, 1), "a cnn3d takes videos"),
        ("cnn3d", {"padding": "causal"}, (4, 8, 8, 1), "model.padding: .*'causal', which needs one axis, not 3"),
        ("cnn_rnn", {}, (4, 8, 8, 1), "this cnn_rnn takes steps × channels"),
        ("cnn_rnn", {"recurrent_units": 0}, (50, 1), "model.recurrent_units: recurrent layer 1's value is 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_before_training(family, changes, shape, message):
    with pytest.raises(UserError, match=message):
        measure(layers_of(MODELS[family].replace(**changes), shape), shape)


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        (["model=text_cnn", "space=none"], "image", r"takes texts, but the data are images: choose model=cnn or"),
        ([], "text", r"takes images, but the data are texts: choose model=text_cnn, cnn1d or cnn_rnn"),
        (["model=cnn1d"], "text", r"model.embedding: 0, but the data are texts"),
        (["model=cnn1d", "model.embedding=8"], "signal", r"model.embedding: 8, which is for texts"),
        (["model=cnn_rnn"], "video", r"model.each_frame: false, but the data are videos: set true"),
        (["model=cnn3d"], "signal", r"takes videos, but the data are signals"),
        (["model=cnn1d", "data.augment.zoom=0.1"], "signal", r"data.augment.zoom: changes images and videos, but the"),
        (["model=text_cnn", "space=none", "data.augment.noise=0.1"], "text", "noise: .*texts can have word"),
        (["model=function", "model.call=own.build", "data.augment.flip=true"], "multi_input", "flip: .* set it to 0$"),
        (["model=cnn", "data.augment.time_mask=0.1"], "image", r"data.augment.time_mask: changes signals, but"),
        (["model=cnn1d", "+space.data.augment.rotation.values=[0.0,0.1]"], "signal", "rotation: changes images"),
        (["model=cnn1d", "data.augment.frequency_mask=0.1"], "signal", "mask: .*set model.representation=mel"),
    ],
)  # fmt: skip
def test_a_family_refuses_other_kinds_of_data(overrides, kind, message):
    with pytest.raises(UserError, match=message):
        make_problem(compose([*overrides, "data=digits"]), (50, 20), 2, kind)


COUNTED = {
    "text_cnn": (["data=made_texts"], (12, 30), {"model": {
                 "kernel_size": {"values": [2, 3]}, "branches": {"min": 1, "max": 3}}}),
    "cnn1d": ([], (600, 1), {"model": {
              "blocks": {"min": 1, "max": 2}, "kernel_size": {"values": [3, 400], "per_block": True},
              "representation": {"values": ["waveform", "mel"]}}}),
    "cnn_rnn": (["model.each_frame=true"], (4, 16, 16, 1), {"model": {
                "kernel_size": {"values": [3, 7], "per_block": True}, "padding": {"values": ["valid"]},
                "recurrent": {"values": ["lstm", "none"]}}}),
}  # fmt: skip


@pytest.mark.parametrize("family", COUNTED)
def test_spaces_are_counted_as_building_each_does(family):
    overrides, shape, space = COUNTED[family]
    config = compose([f"model={family}", "space=none", *overrides])
    config = Config.from_plain({**config.plain(), "space": space})
    problem = make_problem(config, shape, 3, {"text_cnn": "text", "cnn1d": "signal", "cnn_rnn": "video"}[family])
    each = [problem.validate(values).fault is None for values in problem.space.enumerate()]
    assert sum(each) > 0
    assert ValidConfigurations(problem).total == sum(each)
    assert len(list_valid(problem, 10_000) or ()) == sum(each)


def test_a_seed_gives_the_same_weights():
    model = MODELS["cnn_rnn"].replace(bidirectional=True)
    first, again, other = (cnn_rnn.build(model, (50, 1), 3, seed=seed).get_weights() for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_the_families_say_what_they_are_in_a_few_characters():
    assert MODELS["text_cnn"].describe({}) == "e128 k3-4-5 f100"
    assert MODELS["cnn1d"].replace(representation="mel", axes=2).describe({}) == "mel 2d 32-32 k5 same max"
    assert MODELS["cnn3d"].describe({}) == "16-16 k3 same max"
    assert MODELS["cnn_rnn"].replace(each_frame=True, bidirectional=True).describe({}) == "32-32 k5 same max bigru64"


def test_a_model_card_says_what_kind_of_network_it_is():
    assert MODELS["text_cnn"].title == "a convolutional network with kernels of 3, 4 and 5 words"
    assert MODELS["cnn1d"].replace(representation="mel").title == "a convolutional network on mel spectrograms"
    assert MODELS["cnn1d"].replace(embedding=8).title == "a convolutional network on words"
    assert MODELS["cnn3d"].title == "a convolutional network over time, height and width"
    frames = MODELS["cnn_rnn"].replace(each_frame=True, recurrent="lstm")
    assert frames.title == "a convolutional network on each frame with an LSTM over time"
    backbone = compose(["model=transfer_rnn", "model.backbone=MobileNet", "space=none"]).model
    assert backbone.title == "a pre-trained MobileNet on each frame with a GRU over time"


@pytest.mark.parametrize("family", ["text_cnn", "cnn1d"])
def test_the_embedding_is_left_out_in_part_where_that_is_wanted(family):
    model = MODELS[family].replace(embedding=4, embedding_dropout=0.3)
    kept = model.replace(embedding_dropout=0.0)
    layers = locate("model.layers", model.layers)
    names = [[layer.name for layer in layers(one.argument(), (9, 7), 2)] for one in (model, kept)]
    assert [name for name in names[0] if name not in names[1]] == ["embedding_dropout"]
    assert names[0][:2] == ["embedding", "embedding_dropout"]
