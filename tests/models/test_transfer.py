"""Pre-trained backbones: preprocessing, cut and weights, the whole model, and which layers fine-tuning trains."""

from __future__ import annotations

import itertools
import urllib.error
from typing import Any

import numpy as np
import pytest
from trials import SMALL, run

from cnnsweep.config.compose import compose
from cnnsweep.config.schema import Config
from cnnsweep.errors import UserError
from cnnsweep.models import backbones, fine_tuning, transfer
from cnnsweep.models.transfer import BACKBONES
from cnnsweep.trial import Inspection

MODEL = transfer.settings(compose(SMALL))


def images(count: int = 4, shape: tuple[int, ...] = (32, 32, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype("float32")


def same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def predict(model: Any, x: np.ndarray, training: bool = False) -> np.ndarray:
    return np.asarray(model(x, training=training))


def test_the_names_are_those_of_keras():
    import keras

    assert tuple(name for name in dir(keras.applications) if name[0].isupper()) == BACKBONES


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50", "DenseNet121", "EfficientNetV2B0"])
def test_preprocessing_is_the_application_s_own_and_needs_nothing_of_ours_when_loaded(name, tmp_path):
    import sys

    import keras

    pixels = outputs = keras.Input((8, 8, 3))
    for layer in transfer.preprocessing(name):
        outputs = layer(outputs)
    keras.Model(pixels, keras.layers.Activation("linear")(outputs)).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    own = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
    found = predict(loaded, images(2, (8, 8, 3)))
    np.testing.assert_allclose(found, own(images(2, (8, 8, 3))), rtol=1e-5, atol=1e-5)


def test_preprocessing_is_known_for_every_backbone():
    assert all(len(transfer.preprocessing(name)) <= 2 for name in BACKBONES)


# The whole model


def test_the_whole_model_takes_grey_images_of_any_size_and_scale(tmp_path):
    import keras

    grey = images(3, (20, 28, 1))
    bytes_in = transfer.build(MODEL, (20, 28, 1), 5, seed=1)
    floats_in = transfer.build(MODEL, (20, 28, 1), 5, scale=1.0, seed=1)
    given = predict(bytes_in, grey)
    assert given.shape == (3, 5)
    np.testing.assert_allclose(given.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(predict(floats_in, grey / 255), given, rtol=1e-4)
    bytes_in.save(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(keras.models.load_model(tmp_path / "model.keras"), grey), given, rtol=1e-6)


def test_a_backbone_is_frozen_and_in_inference_mode_and_the_head_is_seeded():
    whole = transfer.build(MODEL, (32, 32, 3), 5, seed=1)
    assert {v.path.split("/")[0] for v in whole.trainable_variables} == {"dense1", "classifier"}
    before = whole.get_layer("backbone").get_weights()
    whole(images(), training=True)
    same(before, whole.get_layer("backbone").get_weights())
    head = transfer.build_head(MODEL, (1, 1, 128), 5, seed=1).get_weights()
    same(whole.get_layer("head").get_weights(), head)
    other = transfer.build(MODEL, (32, 32, 3), 5, seed=2)
    same(other.get_layer("backbone").get_weights(), before)
    assert not np.array_equal(other.get_layer("head").get_weights()[0], head[0])


def test_a_users_own_builder_passes_its_mapping_on():
    mine = {**MODEL.plain(), "_target_": "mine.build", "tag": 3}
    config = Config.from_plain({**compose(SMALL).plain(), "model": mine})
    own = config.model.argument()
    assert isinstance(own, dict)
    built, ours = (transfer.build(model, (32, 32, 3), 5, seed=1) for model in (own, MODEL))
    same(built.get_weights(), ours.get_weights())
    assert transfer.build_head(own, (1, 1, 128), 5, seed=1).count_params() == ours.get_layer("head").count_params()
    assert transfer.settings(config).backbone_name == "MobileNet at conv_pw_3_relu"


@pytest.mark.parametrize(("pooling", "width"), [("average", 128), ("max", 128), ("flatten", 8 * 8 * 128)])
def test_pooling_decides_what_the_head_gets(pooling, width):
    built = transfer.build(MODEL.replace(pooling=pooling, dense_layers=0), (32, 32, 3), 5, seed=1)
    assert built.get_layer("head").count_params() == (width + 1) * 5


def test_augmentation_changes_training_only():
    import keras

    flip = keras.layers.RandomTranslation(0.4, 0.4, fill_mode="constant", seed=1)
    plain = transfer.build(MODEL.replace(dropout=0.0), (32, 32, 3), 5, seed=1)
    model = transfer.build(MODEL.replace(dropout=0.0), (32, 32, 3), 5, augment=[flip], seed=1)
    np.testing.assert_allclose(predict(model, images()), predict(plain, images()), rtol=1e-5)
    assert not np.array_equal(predict(model, images(), training=True), predict(plain, images(), training=True))


# Weights


def test_weights_from_a_file(tmp_path):
    import keras

    source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    path = tmp_path / "mine.weights.h5"
    source.save_weights(path)
    built = transfer.build_backbone(MODEL.replace(weights=str(path)), (32, 32))
    same(built.get_layer("conv_dw_2").get_weights(), source.get_layer("conv_dw_2").get_weights())
    with pytest.raises(UserError, match=r"mine\.weights\.h5' does not fit VGG16 without its classifier"):
        transfer.build_backbone(MODEL.replace(backbone="VGG16", weights=str(path)), (32, 32))
    with pytest.raises(UserError, match=r"is neither imagenet nor none nor a file, did you mean 'mine\.weights\.h5'"):
        transfer.build_backbone(MODEL.replace(weights=str(tmp_path / "mine.weigths.h5")), (32, 32))


def test_a_file_of_imagenet_s_weights_is_what_imagenet_is(tmp_path, monkeypatch):
    import keras
    from keras.src.utils import file_utils

    source = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    (norm,) = (layer for layer in source.layers if isinstance(layer, keras.layers.Normalization))
    norm.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    source.save_weights(path := tmp_path / "mine.weights.h5")
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: path)
    model = MODEL.replace(backbone="EfficientNetB0", cut="block1a_project_conv")
    found, expected = (
        predict(transfer.build_backbone(model.replace(weights=weights), (32, 32)), images())
        for weights in (str(path), "imagenet")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    from keras.src.utils import file_utils

    def no_route(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(file_utils, "urlretrieve", no_route)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    with pytest.raises(UserError) as raised:
        transfer.build_backbone(MODEL.replace(weights="imagenet"), (32, 32))
    message = str(raised.value)
    assert "MobileNet's weights are not in Keras' cache and cannot be downloaded (no route to host)" in message
    assert f"place the file at {tmp_path / 'models' / 'mobilenet_1_0_224_tf_no_top.h5'}" in message
    assert "model.weights=FILE" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut": "conv_pw_3_rel"}, r"model\.cut: MobileNet has no layer '.*rel', did you mean 'conv_pw_3_relu'"),
        ({"backbone": "InceptionV3", "cut": None}, r"model\.input_size: InceptionV3 cannot take 32×32.*75x75"),
    ],
)
def test_a_backbone_that_cannot_be_built(changes, message):
    with pytest.raises(UserError, match=message):
        transfer.build_backbone(MODEL.replace(**changes), (32, 32))


def test_what_a_sweep_may_build_is_tried_before_it_starts():
    settings = ["space=transfer", "space.model.backbone={values: [MobileNet, VGG16]}", "training.unfreeze=nothing"]
    settings += ["space.model.cut={values: [conv_pw_3_relu, conv_pw_33_relu], when: {model.backbone: [MobileNet]}}"]
    config = compose([*(s for s in SMALL if s != "space=none" and "cut" not in s), *settings])
    assert len(backbones.structures(config)) == 3
    job = backbones.check(Inspection(config, (8, 8, 1)))
    with pytest.raises(StopIteration) as ended:
        next(job)
    faults = ended.value.value
    assert len(faults) == 2
    assert "MobileNet has no layer 'conv_pw_33_relu'" in faults[1]
    assert faults[0].startswith("training.unfreeze: 'nothing' is no layer of the backbone")


def test_images_of_four_channels_are_found_before_the_first_trial():
    (fault,) = run(backbones.check(Inspection(compose(SMALL), (8, 8, 4))))[1]
    assert fault == "model=transfer takes grey or colour images, not 4 channels"


def test_a_cache_that_cannot_be_written_is_found_before_the_first_trial(tmp_path):
    (tmp_path / "file").touch()
    config = compose([*SMALL, f"model.cache={tmp_path / 'file' / 'below'}"])
    (fault,) = run(backbones.check(Inspection(config, (8, 8, 1))))[1]
    assert fault == f"model.cache '{tmp_path / 'file' / 'below'}' cannot be used: '{tmp_path / 'file'}' is a file"
    config = compose([*SMALL, f"model.cache={tmp_path / 'new' / 'below'}"])
    assert run(backbones.check(Inspection(config, (8, 8, 1))))[1] == []
    assert not (tmp_path / "new").exists()


# Fine-tuning


class Layer:
    """As much of a Keras layer as the choice looks at."""

    def __init__(self, name: str) -> None:
        self.name, self.weights = name, [1]


NAMES = {
    "MobileNet": (["conv1", "conv_dw_1", "conv_pw_1", "conv_pad_2", "conv_dw_2", "conv_pw_2_relu"], [1, 3]),
    "VGG16": (["input", "block1_conv1", "block1_pool", "block2_conv1"], [1, 3]),
    "ResNet50": (["pool1_pool", "conv2_block1_1_conv", "conv2_block1_out", "conv2_block2_1_conv"], [1, 3]),
    "EfficientNetV2B0": (["stem_conv", "block1a_project_conv", "block2a_expand", "block2b_x", "top_conv"], [1, 2, 3]),
    "MobileNetV2": (["Conv1", "block_1_expand", "block_1_add", "block_12_expand"], [1, 3]),
}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_found_by_their_names(name):
    names, starts = NAMES[name]
    assert fine_tuning.blocks([Layer(n) for n in names]) == starts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "convolutions"),
    [("InceptionV3", 11, 9), ("InceptionResNetV2", 43, 6), ("NASNetMobile", 16, 12)],
)
def test_blocks_whose_layers_have_no_names_end_where_their_branches_join(name, blocks, convolutions):
    import keras

    built = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(96, 96, 3))
    assert len(fine_tuning.blocks(built.layers)) == blocks
    assert len(fine_tuning.chosen_layers(built, "1 block")) == convolutions
    assert len(fine_tuning.chosen_layers(built, "2 blocks")) > convolutions


def test_what_is_unfrozen():
    built = transfer.build_backbone(MODEL, (32, 32))

    def named(setting: Any) -> list[str]:
        return [layer.name for layer in fine_tuning.chosen_layers(built, setting)]

    assert named("conv_pw_2") == ["conv_pw_2", "conv_dw_3", "conv_pw_3"]
    assert named("1 block") == ["conv_dw_3", "conv_pw_3"]
    assert named("2 blocks")[0] == "conv_dw_2"
    assert named(1.0)[0] == "conv1"
    assert named("0.3") == named(0.3) == ["conv_dw_3", "conv_pw_3"]
    assert not any("bn" in name for name in named(True))
    for setting, message in (
        ("conv_pw_9", "did you mean 'conv_pw_"),
        ("9 blocks", "has 3 blocks"),
        (1.5, "'1.5' is no"),
    ):
        with pytest.raises(UserError, match=message):
            named(setting)


def test_a_model_without_a_backbone_cannot_be_unfrozen():
    head = transfer.build_head(MODEL, (1, 1, 4), 3, seed=0)
    with pytest.raises(UserError, match="head has no backbone; it needs model=transfer"):
        fine_tuning.unfreeze(head, 0.5)


@pytest.mark.parametrize("best", [0, 1, 2, 3])
def test_patience_waits_for_the_unfreezing(best):
    training = compose(["training.patience=2", "training.epochs=3", "training.unfreeze_epochs=4"]).training
    stops = [n for n in range(best + 1, 8) if fine_tuning.out_of_patience(training, best, n)]
    tuned = [n for n in range(best + 1, 8) if fine_tuning.out_of_patience(training.replace(unfreeze=0.5), best, n)]
    assert stops[0] == best + 3
    assert tuned[0] == max(best, 2) + 3
    assert list(itertools.accumulate([3, 4])) == [
        fine_tuning.total_epochs(training.replace(unfreeze=setting)) for setting in ("none", 0.5)
    ]
