"""Write cells/common/ and cells/rare/: 16×16 images, those of the rare class somewhat brighter; one in 20 is rare."""

from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
for name, count, level in (("common", 1140, 100), ("rare", 60, 124)):
    folder = Path("cells") / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = rng.normal(level, 15) + rng.normal(0, 20, (16, 16))
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(folder / f"{number:04d}.png")
