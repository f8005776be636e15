"""Write disks.npz: 16×16 images of a disk in noise, and its radius and brightness."""

import numpy as np

rng = np.random.default_rng(0)
radius, brightness = rng.uniform(2, 7, 600), rng.uniform(80, 200, 600)
rows, columns = np.mgrid[:16, :16]
centres = rng.uniform(6, 10, (600, 2))
distance = np.hypot(rows - centres[:, :1, None], columns - centres[:, 1:, None])
x = (distance < radius[:, None, None]) * brightness[:, None, None] + rng.uniform(0, 50, (600, 16, 16))
y = np.stack([radius, brightness], axis=1)
np.savez(
    "disks.npz",
    x_train=x[:500].astype("uint8"),
    y_train=y[:500],
    x_test=x[500:].astype("uint8"),
    y_test=y[500:],
    class_names=np.array(["radius", "brightness"]),
)
