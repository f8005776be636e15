"""Scikit-learn's handwritten digits, and how much of each image is ink, in digits.npz: one array for each input."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

images, y = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1) / 16
parts = train_test_split(images, images.mean(axis=(1, 2)), y, test_size=0.3, random_state=0)
names = ("x_train_image", "x_test_image", "x_train_ink", "x_test_ink", "y_train", "y_test")
np.savez("digits.npz", **dict(zip(names, parts, strict=True)))
