"""Trials on signals, texts and videos: augmentation, exact resume, what is saved, and the gallery."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from trials import run, spec, straight_and_resumed

from cnnsweep.config.augment import Augment
from cnnsweep.config.compose import compose
from cnnsweep.data.loading import load
from cnnsweep.data.storage import open_saved, save
from cnnsweep.models import text_cnn
from cnnsweep.search_space.problem import make_problem
from cnnsweep.training import checkpoint, evaluate, gallery, signal_pictures, text_pictures, video_pictures
from cnnsweep.training.augmentation import augmentation
from cnnsweep.training.building import build_model
from cnnsweep.training.train import train

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "name", ["flip", "shift", "rotation", "zoom", "contrast", "brightness", pytest.param("erasing")]
)
def test_all_frames_of_a_video_change_alike(name):
    frame = RNG.integers(0, 256, (8, 1, 8, 10, 3)).astype("float32")
    videos = np.repeat(frame, 4, axis=1)
    augment = Augment.off().replace(**{name: True if name == "flip" else 0.9 if name == "erasing" else 0.3})
    found = videos
    for layer in augmentation(augment, 1, 1 / 255, "video", (4, 8, 10, 3)):
        found = layer(found, training=True) if "random" in layer.name else layer(found)
    found = np.asarray(found)
    assert found.shape == videos.shape
    assert not np.allclose(found, videos)
    if name != "erasing":  # its noise is another in each frame, in the same rectangle
        np.testing.assert_allclose(found, np.repeat(found[:, :1], 4, axis=1), atol=1e-3)


MEL = ["data=made_signals", "model=cnn1d", "model.representation=mel", "model.frame=32", "model.step=16"]
CASES = {
    "signal": [*MEL, "model.mels=8", *(f"data.augment.{name}=0.3" for name in ("shift", "noise", "gain", "time_mask",
               "frequency_mask"))],
    "text": ["data=made_texts", "model=text_cnn", "model.embedding=4", "data.augment.word_dropout=0.3"],
    "video": ["data=moving_digits", "model=cnn_rnn", "model.each_frame=true", "data.augment.shift=0.2",
              "data.augment.rotation=0.1"],
}  # fmt: skip
KINDS = ["signal", "text", pytest.param("video", marks=pytest.mark.slow)]
SMALL = ["space=none", "model.filters=2", "data.limit=60", "training.batch_size=20", "training.epochs=2"]


@pytest.fixture(scope="module")
def trial(request, tmp_path_factory):
    """A trial of two epochs with all changes of a kind of data."""
    folder = tmp_path_factory.mktemp(request.param)
    config = compose([*CASES[request.param], *SMALL, *(["model.blocks=1"] if request.param != "text" else [])])
    data = load(config.data, 0)
    make_problem(config, data.input_shape, data.classes, data.kind)
    save(data, folder / "data")
    return spec(folder / "data", folder, config=config, epochs=2)


@pytest.mark.parametrize("trial", KINDS, indirect=True)
def test_a_trial_goes_on_to_the_last_digit_and_is_saved_without_changes(trial):
    straight, resumed = straight_and_resumed(trial, train)
    assert straight == resumed
    model, data = evaluate.restore(trial, checkpoint.LAST)
    others = build_model(trial.config, data, trial.seed)
    assert len(others.variables) > len(model.variables)
    checkpoint.load(trial.folder / checkpoint.LAST, others)
    x = np.asarray(data.x_val[:4])
    np.testing.assert_allclose(np.asarray(model(x)), np.asarray(others(x, training=False)), atol=1e-5)
    assert not np.allclose(np.asarray(others(x, training=True)), np.asarray(others(x, training=False)), atol=1e-5)
    assert {type(layer).__module__.split(".")[0] for layer in model._flatten_layers()} == {"keras"}


def test_masks_come_after_the_spectrogram_and_those_of_frequencies_only_there():
    config = compose([*CASES["signal"], "space=none", "model.filters=2", "model.blocks=1"])
    data = load(config.data, 0)
    names = [layer.name for layer in build_model(config, data, 0).layers]
    assert names.index("time_mask") > names.index("mel_spectrogram_scaled") > names.index("gain")
    assert sum("mask" in name for name in names) == 2
    plain = config.replace(model=config.model.replace(representation="waveform"))
    assert sum("mask" in layer.name for layer in build_model(plain, data, 0).layers) == 1


GALLERY = {
    "signal": ["1_confusion_matrix", "2_most_confident_mistakes", "3_first_layer_filters", "4_examples"],
    "text": ["1_confusion_matrix", "2_most_confident_mistakes", "3_phrases_of_first_filters"],
    "video": ["1_confusion_matrix", "2_most_confident_mistakes", "3_first_layer_filters", "4_examples"],
}


@pytest.mark.parametrize("trial", KINDS, indirect=True)
def test_a_trial_has_pictures_of_its_kind_of_data(trial):
    if not (trial.folder / checkpoint.BEST).exists():
        run(train(trial))
    _, drawn = run(gallery.draw_gallery(evaluate.FinalSpec(trial)))
    assert drawn["missing"] == {}
    found = gallery.gallery_folder(trial).glob("*.png")
    assert sorted(path.stem for path in found) == GALLERY[open_saved(trial.data).kind]


def test_phrases_are_those_of_the_filters_that_vote_for_a_class():
    """Filter 1 responds to "brilliant" and votes for praise; filter 2 to "dull", for criticism."""
    data = load(compose(["data=made_texts", "data.limit=200"]).data, 0)
    model = text_cnn.build(
        compose(["model=text_cnn", "space=none", "model.embedding=2", "model.branches=1", "model.kernel_size=1",
                 "model.filters=2", "model.embedding_dropout=0.2"]).model, data.input_shape, 2, seed=0,
    )  # fmt: skip
    words = data.decoding.numbers
    embedding = np.zeros((len(words), 2), "float32")
    embedding[words["brilliant"], 0] = embedding[words["dull"], 1] = 1
    model.set_weights([embedding, np.eye(2)[None], np.zeros(2), np.array([[-1, 1], [1, -1]]), np.zeros(2)])
    layers = text_pictures._first_convolutions(model)
    lines = dict(text_pictures._phrases(data, layers, model, model.predict(data.x_val, verbose=0)))
    praise = next(text for head, text in lines.items() if head == "praise: filter 1 of conv_1 (weight +1.00)")
    criticism = next(text for head, text in lines.items() if head == "criticism: filter 2 of conv_1 (weight +1.00)")
    assert (praise.split("  ·  ")[0], criticism.split("  ·  ")[0]) == ("brilliant", "dull")


def test_the_frequency_responses_of_waves_are_their_frequencies():
    frequencies = [2000, 500, 1000]
    kernel = np.stack([np.sin(2 * np.pi * f * np.arange(64) / 8000) for f in frequencies], axis=1)[:, None]
    figure = signal_pictures.responses(kernel, 8000)
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert (drawn.argmax(axis=0) / (len(drawn) - 1) * 4000).round(-1).tolist() == [500, 1000, 2000]
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["2", "3", "1"]


def test_filters_over_a_spectrogram_stand_by_their_strongest_frequency():
    kernel = np.zeros((3, 4, 3))
    kernel[1, [3, 0, 2], [0, 1, 2]] = 1
    figure = signal_pictures.over_frequencies(kernel, -kernel, np.array([100.0, 200.0, 300.0, 4000.0]), "Hz")
    axes, _ = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3", "1"]
    assert axes.get_yticklabels()[-1].get_text() == "4,000"


def test_what_a_filter_hears_is_the_window_that_it_was_made_for():
    """Two signals have a loud window each, in another band; filter 1 responds to the second's."""
    x = np.zeros((2, 9, 4), "float32")
    x[0, 5, 1] = x[1, 3, 2] = 1
    layer = keras.layers.Conv1D(1, 3, padding="same")
    inputs = keras.Input((9, 4))
    model = keras.Model(inputs, layer(inputs))
    kernel = np.zeros((3, 4, 1))
    kernel[0, 2] = 1  # the step before the middle
    layer.set_weights([kernel, np.zeros(1)])
    heard = signal_pictures._heard(model, layer, np.concatenate([x[:1], np.repeat(x[1:], 20, axis=0)]))
    assert np.unravel_index(heard.argmax(), heard.shape) == (0, 2, 0)


def test_the_bands_of_a_mel_spectrogram_are_where_its_weights_are():
    layer = keras.layers.MelSpectrogram(fft_length=4096, sampling_rate=8000, num_mel_bins=10)
    bands, unit = signal_pictures._bands(layer, 8000)
    matrix = np.asarray(layer.linear_to_mel_weight_matrix(10, 2049, 8000, layer.min_freq, layer.max_freq))
    np.testing.assert_allclose(bands, matrix.argmax(axis=0) / 2048 * 4000, atol=2)
    assert unit == "Hz"


def test_filters_of_videos_are_drawn_over_time():
    figure = video_pictures.over_time(RNG.normal(size=(3, 5, 5, 1, 40)))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "3"]
    assert len(axes.get_xticklabels()) == video_pictures.FILTERS
