"""The gallery of a network: what it gets right and wrong, and what it has learned, as pictures."""

from __future__ import annotations

import contextlib
import functools
import re
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from cnnsweep.config.tasks import Task
from cnnsweep.data.arrays import Array, Dataset
from cnnsweep.models.fine_tuning import blocks
from cnnsweep.training import checkpoint, pictures, signal_pictures, task_pictures, text_pictures, video_pictures
from cnnsweep.training.breakdown import confusion
from cnnsweep.training.evaluate import FinalSpec, pairs, predict, restore
from cnnsweep.training.outputs import all_layers
from cnnsweep.trial import TrialSpec

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

MISTAKES, CLASSES, BLOCKS, MASKS = 18, 10, 5, 8
"""At most so many are shown."""
Drawing = tuple[str, Callable[[], "Figure"]]
"""A picture's name, and what draws it."""


class Gallery(TypedDict):
    """The pictures of a network: their folder, and why some are not there, by their names."""

    folder: str
    missing: dict[str, str]


def draw_gallery(spec: FinalSpec) -> Generator[None, bool, Gallery]:
    """A job: write the confusion matrix, mistakes, examples and filters as PNGs, each apart from the others.

    Images have feature maps too. Data that cannot be shown (cached features, say) have the confusion matrix only.
    """
    model, data = restore(spec.trial, checkpoint.BEST)
    folder = gallery_folder(spec.trial)
    folder.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    for name, draw in _figures(data, model, missing):
        with _noted(missing, name):
            figure = draw()
            figure.savefig(folder / f"{name}.png", format="png", pil_kwargs={"compress_level": 3})
    return {"folder": str(folder), "missing": missing}
    yield


def gallery_folder(trial: TrialSpec) -> Path:
    """The folder of a trial's pictures, also where they are those of one fold's network."""
    return (trial.folder.parent if trial.fold else trial.folder) / "artifacts" / "gallery"


@contextlib.contextmanager
def _noted(missing: dict[str, str], name: str) -> Iterator[None]:
    """Note why a picture could not be drawn; the others are drawn all the same."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        missing[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]


def _figures(data: Dataset, model: keras.Model, missing: dict[str, str]) -> Iterator[Drawing]:
    has_pictures = data.kind in ("signal", "text") or (data.kind in SHOW and data.x_val.shape[-1] in (1, 3))
    results, choose = OF_TASK[data.task]
    if data.task == "segmentation":  # the outputs of all images together may not fit into memory
        predicted = predict(model, data.x_val[:MASKS], data.y_val[:MASKS])
        matrix = confusion(pairs(model, data.x_val, data.y_val), data.classes)
        yield "1_confusion_matrix", lambda: pictures.confusion_matrix(matrix, data.class_names)
    else:
        predicted = predict(model, data.x_val, data.y_val)
    for name, draw in results(data, predicted):
        if has_pictures or name.startswith("1"):
            yield name, draw
    if not has_pictures:
        return
    examples, labels = choose(data, predicted)
    match data.kind:
        case "image":
            yield from _inside(data, model, examples, labels, missing)
        case "signal":
            yield from signal_pictures.figures(data, model)
        case "text":
            yield from text_pictures.figures(data, model, predicted)
        case "video":
            yield from video_pictures.figures(model)
    if data.kind in ("signal", "video"):
        yield "4_examples", lambda: SHOW[data.kind](data, examples, labels)


def _inside(
    data: Dataset, model: keras.Model, examples: Array, labels: Sequence[str], missing: dict[str, str]
) -> Iterator[Drawing]:
    """The filters of a network for images, and its feature maps of some."""
    kernel = first_kernel(model)
    if kernel is not None:
        yield "3_first_layer_filters", lambda: pictures.filters(kernel)
    found: dict[str, Array] = {}
    with _noted(missing, "4_feature_maps"):
        found = block_outputs(model, data.x_val[examples])
    for block, maps in found.items():
        draw = functools.partial(pictures.feature_maps, _images(data, examples), maps, labels)
        yield f"4_feature_maps_{block}", draw


def _classes(data: Dataset, predicted: Array) -> Iterator[Drawing]:
    matrix, names = confusion([(data.y_val, predicted)], data.classes), data.class_names
    yield "1_confusion_matrix", lambda: pictures.confusion_matrix(matrix, names)
    wrong = np.flatnonzero(predicted.argmax(axis=1) != data.y_val)
    wrong = wrong[np.argsort(-predicted[wrong].max(axis=1), kind="stable")][:MISTAKES]
    if len(wrong):
        short = [pictures.shortened(name) for name in names]
        guesses = [f"said {short[predicted[i].argmax()]} ({predicted[i].max():.0%})" for i in wrong]
        texts = [f"{short[data.y_val[i]]}\n{guess}" for i, guess in zip(wrong, guesses, strict=True)]
        yield "2_most_confident_mistakes", lambda: SHOW[data.kind](data, wrong, texts)


def _of_each_class(data: Dataset, predicted: Array) -> tuple[Array, list[str]]:
    """Of each class the image that the network is most confident of."""
    classes = np.unique(data.y_val)[:CLASSES]
    examples = np.array([np.argmax(np.where(data.y_val == label, predicted[:, label], -1.0)) for label in classes])
    return examples, [pictures.shortened(data.class_names[data.y_val[i]]) for i in examples]


def _labels(data: Dataset, predicted: Array) -> Iterator[Drawing]:
    true = np.asarray(data.y_val) > 0.5
    yield "1_labels", lambda: task_pictures.label_counts(true, predicted > 0.5, data.class_names)
    misses = np.where((predicted > 0.5) != true, np.abs(predicted - 0.5), 0)
    wrong = np.argsort(-misses.max(axis=1), kind="stable")[:MISTAKES]
    wrong = wrong[misses[wrong].max(axis=1) > 0]
    if len(wrong):
        texts = []
        for i in wrong:
            label = int(misses[i].argmax())
            said = f"{'said' if predicted[i, label] > 0.5 else 'missed'} ({predicted[i, label]:.0%})"
            texts.append(f"{pictures.shortened(data.class_names[label])}\n{said}")
        yield "2_most_confident_mistakes", lambda: SHOW[data.kind](data, wrong, texts)


def _targets(data: Dataset, predicted: Array) -> Iterator[Drawing]:
    y = np.asarray(data.y_val)
    yield "1_residuals", lambda: task_pictures.residuals(y, predicted, data.class_names)
    errors = np.abs(predicted - y) / np.maximum(y.std(axis=0), 1e-9)
    wrong = np.argsort(-errors.max(axis=1), kind="stable")[:MISTAKES]
    targets = errors[wrong].argmax(axis=1)
    names = [f"{pictures.shortened(name)} " for name in data.class_names] if len(data.class_names) > 1 else [""]
    texts = [f"{names[t]}{y[i, t]:.4g}\nsaid {predicted[i, t]:.4g}" for i, t in zip(wrong, targets, strict=True)]
    yield "2_largest_errors", lambda: SHOW[data.kind](data, wrong, texts)


def _masks(data: Dataset, predicted: Array) -> Iterator[Drawing]:
    shown = np.arange(len(predicted))
    taken, true = predicted.argmax(axis=-1), np.asarray(data.y_val[shown])
    yield "2_masks", lambda: task_pictures.masks(_images(data, shown), true, taken, data.class_names)


def _first(data: Dataset, _: Array) -> tuple[Array, list[str]]:
    examples = np.arange(min(CLASSES, len(data.x_val)))
    return examples, [str(i + 1) for i in examples]


OF_TASK: Mapping[
    Task,
    tuple[Callable[[Dataset, Array], Iterator[Drawing]], Callable[[Dataset, Array], tuple[Array, list[str]]]],
] = {
    "classification": (_classes, _of_each_class),
    "multi_label": (_labels, _first),
    "regression": (_targets, _first),
    "segmentation": (_masks, _first),
}
"""What draws the results of each task, and what chooses the images whose feature maps are shown."""


def _show_images(data: Dataset, chosen: Array, texts: Sequence[str]) -> Figure:
    return pictures.mistakes(_images(data, chosen), texts)


SHOW: Mapping[str, Callable[[Dataset, Array, Sequence[str]], Figure]] = {
    "image": _show_images,
    "signal": signal_pictures.examples,
    "text": text_pictures.examples,
    "video": video_pictures.examples,
}
"""What draws some of the validation data, each with its text, by their kind."""


def _images(data: Dataset, chosen: Array) -> Array:
    return np.asarray(data.x_val[chosen], "float32") * data.scale


def first_kernel(model: keras.Model) -> Array | None:
    """The weights of the first convolution, (height, width, channels, filters)."""
    for layer in all_layers(model):
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4:
            return np.asarray(kernel)
    return None


def block_outputs(model: keras.Model, images: Array) -> dict[str, Array]:
    """The feature maps of each block, before its pooling; of a backbone's many blocks some, from first to last."""
    import keras

    if "backbone" in [layer.name for layer in model.layers]:
        operations = model.operations
        into = next(i for i, operation in enumerate(operations) if operation.name == "backbone") - 1
        images = keras.Model(model.inputs, operations[into].output).predict(images, verbose=0)
        model = model.get_layer("backbone")
        ends = [model.layers[start - 1] for start in blocks(model.layers)[1:]] + model.layers[-1:]
        digits = len(str(len(ends)))  # so that they sort
        outputs = _spread({f"block_{n:0{digits}}": layer.output for n, layer in enumerate(ends, start=1)})
    else:
        ends = [layer for layer in model.layers if re.fullmatch(r"block\d+_(?!pool$).*", layer.name)]
        outputs = {layer.name.partition("_")[0].replace("block", "block_"): layer.output for layer in ends}
    if not outputs:
        return {}
    values = keras.Model(model.inputs, list(outputs.values())).predict(images, verbose=0)
    values = values if isinstance(values, list) else [values]
    return dict(zip(outputs, map(np.asarray, values), strict=True))


def _spread(found: Mapping[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """At most `BLOCKS` of them, the first and the last included."""
    names = list(found)
    places = np.linspace(0, len(names) - 1, min(BLOCKS, len(names)))
    return {names[round(i)]: found[names[round(i)]] for i in places}
