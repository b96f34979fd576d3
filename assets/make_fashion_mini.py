"""Make assets/fashion_mini/fashion_mini.npz, the data set that is embedded in the course.

    apt install dataset-fashion-mnist
    python assets/make_fashion_mini.py [--source /usr/share/datasets/fashion-mnist] [--out assets/fashion_mini]

600 training and 100 test images of each of the ten classes of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017,
arXiv:1708.07747), drawn with a fixed seed and kept in their original order. Two runs write the same bytes. The checksum
that this prints is the one that `dlcourse.data.datasets` insists on when it reads the file.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

SEED = 2017
PER_CLASS = {"train": 600, "test": 100}
PREFIX = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format of MNIST: two zeros, type 8 (unsigned byte), rank, sizes, then the data."""
    raw = gzip.decompress(path.read_bytes())
    zeros, kind, rank = struct.unpack(">HBB", raw[:4])
    if (zeros, kind) != (0, 8):
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def draw(labels: np.ndarray, per_class: int, random: np.random.RandomState) -> np.ndarray:
    """`per_class` indices of every class, in ascending order."""
    chosen = [random.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def make(source: Path, out: Path) -> Path:
    """Write fashion_mini.npz into `out`: {train,test}_images (N, 28, 28) and {train,test}_labels (N,), all uint8."""
    random = np.random.RandomState(SEED)  # this generator's stream is frozen for good, a Generator's is not (NEP 19)
    arrays = {}
    for split, per_class in PER_CLASS.items():
        images = read_idx(source / f"{PREFIX[split]}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{PREFIX[split]}-labels-idx1-ubyte.gz")
        chosen = draw(labels, per_class, random)
        arrays |= {f"{split}_images": images[chosen], f"{split}_labels": labels[chosen]}
    out.mkdir(parents=True, exist_ok=True)
    path = out / "fashion_mini.npz"
    np.savez_compressed(path, **arrays)  # its zip entries are all dated 1980, so the bytes repeat
    return path


def main() -> None:
    """Make the file and print its size and checksum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("fashion_mini"))
    args = parser.parse_args()
    path = make(args.source, args.out)
    content = path.read_bytes()
    print(f"{path}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
