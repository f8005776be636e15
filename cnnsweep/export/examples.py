"""Examples of the use of an exported network, a program for each kind of input."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cnnsweep.data import audio_decoding, image_decoding, text_decoding, video_decoding
from cnnsweep.data.arrays import Dataset
from cnnsweep.data.decoding import copy_modules
from cnnsweep.data.image_decoding import Decoding

START = """# Needs keras and its backend, {needs}: python example.py {argument}
import json, os, sys
from pathlib import Path
import keras, numpy as np
from {module} import {names}

here, failed = Path(__file__).parent, False
labels = json.loads((here / "labels.json").read_text(encoding="utf-8"))
model, decoding = keras.models.load_model(here / "model.keras"), {kind}.of(labels["decoding"])
for argument in sys.argv[1:]:
    try:
        {decode}
    except (OSError, ValueError) as error:
        print(f"{{argument}}: {{error}}", file=sys.stderr)
        failed = True
        continue
    output, names = model.predict(found[np.newaxis], verbose=0)[0], labels["classes"]
    if labels["task"] == "regression":
        text = "  ".join(f"{{name}} {{value:.7g}}" for name, value in zip(names, output))
    elif labels["task"] == "multi_label":
        text = "  ".join(f"{{name}} {{value:.4f}}" for name, value in zip(names, output) if value > 0.5) or "no label"
    elif labels["task"] == "segmentation":
        shares = np.bincount(output.argmax(axis=-1).ravel(), minlength=len(names)) / output[..., 0].size
        text = "  ".join(f"{{name}} {{share:.4f}}" for name, share in zip(names, shares))
    else:
        text = f"{{names[output.argmax()]}} {{output.max():.4f}}"
    print(f"{{argument}}: {{text}}")
if failed:
    sys.exit(1)
"""
READ_TEXT = """is_file = argument.endswith(".txt") or os.path.isfile(argument)
        words = Path(argument).read_text(decoding.encoding) if is_file else argument
        if fault := fault_of(words):
            raise ValueError(fault)
        found = decoding.decode(words)"""
USE = """
{becomes} by `{module}.py`, with the settings `decoding` of `labels.json`, as those of the
training data did; this needs {needs}, not cnnsweep. Each of

    python example.py {argument}
    python -m cnnsweep predict FOLDER {argument}

prints {prints}.
"""


class Example(NamedTuple):
    """A program that classifies inputs of one kind, and the modules that decode them."""

    modules: tuple[Path, ...]
    """The first is imported; the others it imports."""
    argument: str
    """Of the program, as it is typed."""
    needs: str
    """Packages beside Keras."""
    becomes: str
    """Says what the module does, up to "by"."""
    kind: str
    """The class of its settings."""
    names: str
    """To import from it."""
    decode: str
    """From `argument` to `found`; raises OSError or ValueError."""

    @property
    def code(self) -> str:
        """The program."""
        return START.format(module=self.modules[0].stem, **self._asdict())

    def write(self, folder: Path) -> None:
        """Write the program, and its modules so that they import each other from beside it."""
        (folder / "example.py").write_text(self.code, encoding="utf-8")
        copy_modules(self.modules, folder)

    def use(self, prints: str) -> str:
        """A paragraph for the model card; `prints` says what the program prints."""
        fields = self._asdict() | {"module": self.modules[0].stem, "prints": prints}
        return USE.format(**fields)


EXAMPLES = {
    "image": Example(
        (Path(image_decoding.__file__),), "IMAGE.png", "numpy, pillow and simplejpeg", "Image files become pixels",
        "Decoding", "Decoding, read",
        'found = read(argument, decoding).astype("float32") / (255 * labels["scale"])',
    ),
    "signal": Example(
        (Path(audio_decoding.__file__),), "SOUND.wav", "numpy, scipy and soundfile", "Audio files become waveforms",
        "AudioDecoding", "AudioDecoding", "found = decoding.read(argument)",
    ),
    "text": Example(
        (Path(text_decoding.__file__),), '"A SENTENCE"', "numpy", "Texts become numbers of words", "TextDecoding",
        "TextDecoding, fault_of", READ_TEXT,
    ),
    "video": Example(
        (Path(video_decoding.__file__), Path(image_decoding.__file__)), "VIDEO.mp4",
        "numpy, av, pillow and simplejpeg", "Video files and folders of frames become pixels", "VideoDecoding",
        "VideoDecoding", 'found = decoding.read(argument).astype("float32") / (255 * labels["scale"])',
    ),
}  # fmt: skip


def example_of(data: Dataset) -> Example | None:
    """The example for inputs of this kind; None for images that have neither 1 nor 3 channels, and for mere numbers."""
    if data.kind == "image":
        return EXAMPLES["image"] if Decoding.plain(data.input_shape) else None
    return EXAMPLES.get(data.kind) if data.decoding is not None else None
