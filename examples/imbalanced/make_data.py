"""Write cells/common/ and cells/rare/: 16×16 images that differ by a faint square; one in 12 is rare."""

from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
for name, count in (("common", 550), ("rare", 50)):
    folder = Path("cells") / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = rng.normal(100, 40, (16, 16))
        if name == "rare":
            image[5:11, 5:11] += 25
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(folder / f"{number:03d}.png")
