"""Write scans/healthy/ and scans/ill/: 12×12 images of 24 patients, each with a pattern of his own."""

from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
for patient in range(24):
    ill = patient % 2
    folder = Path("scans") / ("ill" if ill else "healthy")
    folder.mkdir(parents=True, exist_ok=True)
    own = rng.normal(120, 40, (12, 12))  # is the same in all images of the patient, and says nothing of the illness
    own[4:8, 4:8] += 12 * ill
    for number in range(20):
        image = own + rng.normal(0, 20, (12, 12))
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(folder / f"patient{patient:02d}_{number}.png")
