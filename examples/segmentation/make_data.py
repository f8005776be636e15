"""Write noise/images/ and noise/masks/: two handwritten digits on noise, 24×24, and where their strokes are."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

rng, digits = np.random.default_rng(0), load_digits()
for name in ("images", "masks"):
    (Path("noise") / name).mkdir(parents=True, exist_ok=True)
for number in range(200):
    image, mask = rng.uniform(0, 110, (24, 24)), np.zeros((24, 24), np.uint8)
    for column in (2, 14):
        drawn, row = rng.integers(len(digits.images)), rng.integers(0, 16)
        strokes = digits.images[drawn]
        image[row : row + 8, column : column + 8] += strokes * 9
        mask[row : row + 8, column : column + 8][strokes > 7] = 1
    Image.fromarray(image.clip(0, 255).astype("uint8")).save(f"noise/images/{number:03d}.png")
    Image.fromarray(mask * 255).save(f"noise/masks/{number:03d}.png")
