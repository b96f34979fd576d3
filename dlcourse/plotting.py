"""The figures that every chapter draws. Functions take arrays and return matplotlib Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours (jfly.uni-koeln.de/color): apart for every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def use_style() -> None:
    """Set the course's plot style for this process: size, colours, a light grid, titles to the left."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 80,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.grid": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 11,
            "grid.alpha": 0.3,
            "legend.frameon": False,
        }
    )


def plot_images(images: Any, titles: Sequence[str] | None = None, *, columns: int = 8, title: str = "") -> np.ndarray:
    """Draw images in a grid, each scaled up without smoothing.

    images: (N, C, H, W) or (N, H, W), floats in [0, 1] or uint8, C 1 or 3 (tensors or arrays), or a list of such images
    of any sizes. titles: one an image. Returns the Axes as an array of length N. Raises ValueError for a wrong count of
    titles, for no image, and for floats outside [0, 1]: normalised images are to be undone first.
    """
    import matplotlib.pyplot as plt

    pictures = [_as_picture(image) for image in images]
    if not pictures:
        raise ValueError("there are no images to draw")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(titles)} titles for {len(pictures)} images")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = 1.0 if titles is None else 1.25
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.05 * columns, height * rows + 0.3 * bool(title)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1, interpolation="nearest")
        if titles is not None:
            axis.set_title(titles[number], fontsize=8, fontweight="normal", loc="center")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return axes.flatten()[: len(pictures)]


def plot_history(history: Mapping[str, Sequence[float]], *, title: str = "") -> np.ndarray:
    """Draw training curves, one panel a quantity: "train_loss" and "val_loss" share the panel "loss".

    history: a number an epoch for each name, such as the columns of a training history. Returns the Axes.
    """
    import matplotlib.pyplot as plt

    panels: dict[str, list[str]] = {}
    for name in history:
        if name != "epoch" and name.partition("_")[0] in ("train", "val"):
            panels.setdefault(name.partition("_")[2], []).append(name)
    if not panels:
        raise ValueError(f"no curve named train_… or val_… among {list(history)}")
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False)
    for axis, (quantity, names) in zip(axes[0], panels.items(), strict=True):
        for name in names:
            values = list(history[name])
            style = {"marker": "o", "linestyle": "-"} if name.startswith("val") else {"marker": ".", "linestyle": "--"}
            axis.plot(range(1, len(values) + 1), values, label=name.partition("_")[0], markersize=4, **style)
        axis.set(xlabel="epoch", ylabel=quantity)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return axes[0]


def plot_confusion_matrix(matrix: np.ndarray, classes: Sequence[str], *, title: str = "") -> Axes:
    """Draw a confusion matrix: rows the true class, columns the predicted one, counts in the cells, colour by row share.

    matrix: (K, K) counts; classes: K names. Returns the Axes.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"a matrix of shape {matrix.shape} for {len(classes)} classes")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = 1.6 + 0.44 * len(classes)
    _, axis = plt.subplots(figsize=(size + 0.8, size))
    sns.heatmap(
        share, annot=matrix, fmt="d", cmap="Blues", vmin=0, vmax=1, square=True, ax=axis, annot_kws={"fontsize": 8},
        xticklabels=list(classes), yticklabels=list(classes), cbar_kws={"label": "share of the true class", "shrink": 0.8},
    )  # fmt: skip
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    axis.grid(False)
    axis.tick_params(axis="x", rotation=90)
    axis.tick_params(axis="y", rotation=0)
    return axis


def _as_picture(image: Any) -> np.ndarray:
    """(C, H, W) or (H, W), tensor or array -> (H, W, 3) or (H, W) as matplotlib draws it."""
    picture = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if picture.ndim == 3 and picture.shape[0] in (1, 3):
        picture = picture[0] if picture.shape[0] == 1 else picture.transpose(1, 2, 0)
    elif picture.ndim != 2:
        raise ValueError(f"an image has shape (C, H, W) with C 1 or 3, or (H, W), not {picture.shape}")
    if picture.dtype != np.uint8:
        picture = picture.astype(np.float32)
        low, high = float(picture.min()), float(picture.max())
        if not (low >= -0.01 and high <= 1.01):  # a NaN fails this too
            raise ValueError(
                f"a float image must lie in [0, 1] to be drawn; this one runs from {low:.3g} to {high:.3g}"
            )
        picture = picture.clip(0, 1)
    return picture
