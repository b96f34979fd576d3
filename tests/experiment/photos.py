"""A folder of tiny pictures in two classes that a network tells apart in a few steps."""

from pathlib import Path

import numpy as np
from PIL import Image

PARTS = {"train": 16, "val": 12, "test": 6}


def make_photos(root, parts=PARTS, *, size=32, seed=0):
    """Folders train, val, test (or those of `parts`, "." for none) with a folder of PNGs a class; returns the root."""
    random = np.random.default_rng(seed)
    for part, count in parts.items():
        for label, level in (("dark", 40), ("light", 150)):
            folder = Path(root, part, label)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = level + random.integers(0, 60, (size, size, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return Path(root)
