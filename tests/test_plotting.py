"""Figures say what they were given: counts, labels, values, and errors instead of misleading pictures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from dlcourse.plotting import plot_confusion_matrix, plot_history, plot_images, use_style


@pytest.fixture(autouse=True)
def _close_figures():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (5, 1, 4, 6), (5, 4, 6)])
def test_images_of_each_layout_are_drawn_upright(shape):
    axes = plot_images(torch.rand(shape), titles=list("abcde"), columns=3, title="five")
    assert len(axes) == 5
    assert [axis.get_title() for axis in axes] == list("abcde")
    assert axes[0].images[0].get_array().shape[:2] == (4, 6)
    assert len(axes[0].figure.axes) == 6  # two rows of three, the last left blank


def test_channels_and_values_reach_the_picture_as_they_are():
    image = torch.zeros(3, 2, 2)
    image[0, 0, 1] = 1  # red, top right
    drawn = plot_images([image])[0].images[0].get_array()
    assert drawn[0, 1].tolist() == [1, 0, 0]
    grey = plot_images([np.full((2, 2), 7, dtype=np.uint8)])[0].images[0]
    assert (grey.get_clim(), grey.get_array()[0, 0]) == ((0, 255), 7)
    assert plot_images([torch.full((1, 1, 1), 0.5)])[0].images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("images", "titles", "message"),
    [
        ([], None, "no images"),
        (torch.rand(2, 4, 4), ["one"], "1 titles for 2 images"),
        (torch.randn(1, 3, 8, 8) * 3, None, r"must lie in \[0, 1\]"),
        (torch.full((1, 2, 2), torch.nan), None, r"must lie in \[0, 1\]"),
        (torch.rand(1, 4, 4, 3), None, r"not \(4, 4, 3\)"),
    ],
)
def test_what_cannot_be_drawn_truly_is_refused(images, titles, message):
    with pytest.raises(ValueError, match=message):
        plot_images(images, titles)


def test_history_puts_train_and_validation_of_a_quantity_into_one_panel():
    axes = plot_history(
        {"epoch": [1, 2], "train_loss": [2, 1], "val_loss": [3, 2], "val_accuracy": [0.1, 0.2]}, title="t"
    )
    assert [axis.get_ylabel() for axis in axes] == ["loss", "accuracy"]
    assert [line.get_label() for line in axes[0].lines] == ["train", "val"]
    assert axes[0].lines[1].get_ydata().tolist() == [3, 2]
    assert axes[0].lines[0].get_xdata().tolist() == [1, 2]
    with pytest.raises(ValueError, match="no curve"):
        plot_history({"epoch": [1]})


def test_the_confusion_matrix_shows_counts_with_true_classes_in_rows():
    axis = plot_confusion_matrix(np.array([[3, 1], [0, 0]]), ["cat", "dog"], title="t")
    assert [text.get_text() for text in axis.texts] == ["3", "1", "0", "0"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert axis.collections[0].get_array().flatten().tolist() == [0.75, 0.25, 0, 0]
    with pytest.raises(ValueError, match="for 3 classes"):
        plot_confusion_matrix(np.eye(2), ["a", "b", "c"])
