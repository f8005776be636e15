"""Write shapes/: 16×16 images, each with any of a row, a column and a dot in noise, and labels.csv."""

from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
root = Path("shapes")
(root / "images").mkdir(parents=True, exist_ok=True)
lines = ["file,shapes"]
for number in range(400):
    image, shapes = rng.integers(0, 90, (16, 16)), []
    row, column = rng.integers(0, 16, 2)
    if rng.random() < 0.5:
        image[row] += 120
        shapes.append("row")
    if rng.random() < 0.5:
        image[:, column] += 120
        shapes.append("column")
    if rng.random() < 0.4:
        top, left = rng.integers(0, 12, 2)
        image[top : top + 4, left : left + 4] += 100
        shapes.append("dot")
    Image.fromarray(image.clip(0, 255).astype("uint8")).save(root / "images" / f"{number:03d}.png")
    lines.append(f"{number:03d}.png,{';'.join(shapes)}")
(root / "labels.csv").write_text("\n".join(lines) + "\n")
