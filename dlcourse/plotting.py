"""The figures that every chapter draws. Functions take arrays and return matplotlib Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours (jfly.uni-koeln.de/color): apart for every kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


MOST_ANNOTATED = 25
"""Classes of a confusion matrix whose counts and names can still be read."""


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

    matrix: (K, K) counts; classes: K names. With more than 25 classes the figure stays as it is for 25: without counts,
    with a few names. Returns the Axes.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"a matrix of shape {matrix.shape} for {len(classes)} classes")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(classes) > MOST_ANNOTATED:
        return _plot_large_matrix(share, classes, title)
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


def _plot_large_matrix(share: np.ndarray, classes: Sequence[str], title: str) -> Axes:
    import matplotlib.pyplot as plt

    size = 1.6 + 0.44 * MOST_ANNOTATED
    figure, axis = plt.subplots(figsize=(size + 0.8, size))
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)  # pixels, not a shape a cell: a million cells draw at once
    figure.colorbar(picture, ax=axis, label="share of the true class", shrink=0.8)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    ticks = np.linspace(0, len(classes) - 1, 20).round().astype(int)
    names = [classes[tick] for tick in ticks]
    axis.set_xticks(ticks, names, rotation=90)
    axis.set_yticks(ticks, names)
    axis.grid(False)
    return axis


def plot_roc(curves: Mapping[str, Sequence[np.ndarray]], *, title: str = "") -> Axes:
    """Draw ROC curves by name: (false positive rate, true positive rate, …) each, as `roc_curve` returns them."""
    axis = _plot_rates(curves, title, xlabel="false positive rate", ylabel="true positive rate")
    axis.plot([0, 1], [0, 1], ":", color="grey", label="chance")
    axis.legend(loc="lower right")
    return axis


def plot_precision_recall(
    curves: Mapping[str, Sequence[np.ndarray]], *, positives: float | None = None, title: str = ""
) -> Axes:
    """Draw precision-recall curves by name: (precision, recall, …) each, as `precision_recall_curve` returns them.

    positives: the share of the positives, drawn as the line of chance.
    """
    turned = {name: (curve[1], curve[0]) for name, curve in curves.items()}
    axis = _plot_rates(turned, title, xlabel="recall", ylabel="precision", drawstyle="steps-pre")
    if positives is not None:
        axis.axhline(positives, linestyle=":", color="grey", label="chance")
    axis.legend(loc="upper right")
    return axis


def _plot_rates(curves: Mapping[str, Sequence[np.ndarray]], title: str, *, xlabel: str, ylabel: str, **style: Any) -> Axes:
    import matplotlib.pyplot as plt

    if not curves:
        raise ValueError("there is no curve to draw")
    _, axis = plt.subplots(figsize=(4.6, 3.8))
    for name, curve in curves.items():
        axis.plot(curve[0], curve[1], label=name, **style)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return axis


def plot_reliability(
    confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray, *, axis: Axes | None = None, title: str = ""
) -> Axes:
    """Draw a reliability diagram: the accuracy of each bin over its mean confidence, and the gap to the diagonal.

    confidence, accuracy, count: (M,) each, one entry a bin that holds samples. The area of a point is its bin's share.
    """
    import matplotlib.pyplot as plt

    confidence, accuracy, count = map(np.asarray, (confidence, accuracy, count))
    if not confidence.shape == accuracy.shape == count.shape or confidence.ndim != 1 or not count.any():
        shapes = confidence.shape, accuracy.shape, count.shape
        raise ValueError(f"confidence, accuracy and count have shapes {shapes}; each must be (M,), M ≥ 1")
    if axis is None:
        _, axis = plt.subplots(figsize=(4.2, 3.8))
    axis.plot([0, 1], [0, 1], ":", color="grey", label="calibrated")
    axis.vlines(confidence, accuracy, confidence, color=COLOURS[5], linewidth=3, alpha=0.5, label="gap")
    axis.scatter(confidence, accuracy, s=15 + 300 * count / count.sum(), zorder=3, label="a bin")
    axis.set(xlabel="confidence", ylabel="accuracy", title=title, xlim=(-0.02, 1.04), ylim=(-0.02, 1.04))
    axis.legend(loc="upper left")
    return axis


def plot_mistakes(
    images: Any, labels: Sequence[int], predicted: Sequence[int], confidence: Sequence[float], classes: Sequence[str],
    *, columns: int = 6, title: str = "",
) -> np.ndarray:  # fmt: skip
    """Draw wrong answers in a grid: each image under the class it was taken for, how sure the model was, its own class.

    images as in `plot_images`; labels, predicted, confidence: one an image, confidence in [0, 1]. Returns the Axes.
    """
    answers = list(zip(labels, predicted, confidence, strict=True))
    titles = [f"{classes[took]} {sure:.0%}\nis {classes[label]}" for label, took, sure in answers]
    axes = plot_images(images, titles, columns=columns, title=title)
    return _resize(axes, columns, 1.4, 1.75, title)


def plot_heat_maps(
    images: Any, heat: Any, titles: Sequence[str] | None = None, *, columns: int = 4, title: str = ""
) -> np.ndarray:
    """Draw heat maps over their images, each scaled to its own largest value (what is below 0 is not drawn).

    images: as in `plot_images`; heat: (N, H, W), as large as its image. Returns the Axes. Raises ValueError for other shapes
    and for values that are not finite.
    """
    maps = [np.asarray(each.detach().cpu() if hasattr(each, "detach") else each, dtype=np.float64) for each in heat]
    axes = plot_images(images, titles, columns=columns, title=title)
    if len(maps) != len(axes):
        raise ValueError(f"{len(maps)} heat maps for {len(axes)} images")
    for axis, each in zip(axes, maps, strict=True):
        shape = axis.images[0].get_array().shape[:2]
        if each.shape != shape or not np.isfinite(each).all():
            raise ValueError(f"a heat map must hold finite numbers of shape {shape}, not {each.shape}")
        strength = each.clip(min=0) / max(each.max(), 1e-12)
        axis.imshow(strength, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.6 * strength, interpolation="bilinear")
    return _resize(axes, columns, 2.0, 2.0 + 0.25 * bool(titles), title)


def _resize(axes: np.ndarray, columns: int, width: float, height: float, title: str) -> np.ndarray:
    columns = min(columns, len(axes))
    axes[0].figure.set_size_inches(width * columns, height * -(-len(axes) // columns) + 0.3 * bool(title))
    return axes


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
