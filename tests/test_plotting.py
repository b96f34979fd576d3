"""Figures say what they were given: counts, labels, values, and errors instead of misleading pictures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from dlcourse.plotting import (
    plot_confusion_matrix,
    plot_heat_maps,
    plot_history,
    plot_images,
    plot_mistakes,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
    use_style,
)


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


def test_a_confusion_matrix_of_thousands_of_classes_stays_a_figure():
    classes = 3000
    matrix = np.eye(classes, dtype=int)
    axis = plot_confusion_matrix(matrix, [f"class {i}" for i in range(classes)], title="t")
    assert len(axis.texts) == 0
    assert len(axis.get_xticks()) == len(axis.get_yticks()) == 20
    assert [label.get_text() for label in axis.get_yticklabels()][:: len(axis.get_yticks()) - 1] == ["class 0", "class 2999"]
    assert max(axis.figure.get_size_inches()) < 14
    assert axis.images[0].get_array().shape == (classes, classes)


@pytest.mark.parametrize(("classes", "texts"), [(25, 625), (26, 0)])
def test_counts_are_written_while_they_can_be_read(classes, texts):
    assert len(plot_confusion_matrix(np.eye(classes, dtype=int), ["c"] * classes).texts) == texts


def test_roc_and_precision_recall_curves_are_drawn_the_right_way_round():
    first, second = np.array([0.0, 0.1, 1.0]), np.array([0.0, 0.8, 1.0])
    axis = plot_roc({"a": (first, second, None)}, title="t")
    assert axis.lines[0].get_xdata().tolist() == first.tolist()
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("false positive rate", "true positive rate")
    assert [line.get_label() for line in axis.lines] == ["a", "chance"]
    axis = plot_precision_recall({"a": (first, second)}, positives=0.25)
    assert axis.lines[0].get_xdata().tolist() == second.tolist()  # recall
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("recall", "precision")
    assert axis.lines[1].get_ydata()[0] == 0.25
    with pytest.raises(ValueError, match="no curve"):
        plot_roc({})


def test_a_reliability_diagram_shows_each_bin_and_its_gap():
    axis = plot_reliability(np.array([0.5, 0.9]), np.array([0.4, 0.9]), np.array([10, 30]), title="t")
    assert axis.collections[1].get_offsets().tolist() == [[0.5, 0.4], [0.9, 0.9]]
    gap = axis.collections[0].get_segments()[0]
    assert sorted(gap[:, 1].tolist()) == [0.4, 0.5]
    sizes = axis.collections[1].get_sizes()
    assert sizes[1] - 15 == pytest.approx(3 * (sizes[0] - 15))
    with pytest.raises(ValueError, match=r"\(\(2,\), \(1,\), \(2,\)\); each must be \(M,\)"):
        plot_reliability(np.zeros(2), np.zeros(1), np.ones(2))


def test_a_page_of_mistakes_says_what_was_taken_for_what():
    axes = plot_mistakes(torch.rand(2, 3, 4, 4), [0, 1], [1, 0], [0.987, 0.5], ["cat", "dog"], title="t")
    assert [axis.get_title() for axis in axes] == ["dog 99%\nis cat", "cat 50%\nis dog"]
    with pytest.raises(ValueError, match="shorter|longer"):
        plot_mistakes(torch.rand(2, 3, 4, 4), [0], [1, 0], [0.9, 0.5], ["cat", "dog"])


def test_a_heat_map_lies_over_its_image_scaled_to_its_largest_value():
    heat = torch.tensor([[[0.0, 4.0], [-1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    axes = plot_heat_maps(torch.rand(2, 3, 2, 2), heat, ["a", "b"])
    assert axes[0].images[1].get_array().tolist() == [[0, 1], [0, 0.5]]
    assert axes[1].images[1].get_array().max() == 0
    assert axes[0].get_title() == "a"


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (torch.zeros(1, 2, 2), "1 heat maps for 2 images"),
        (torch.zeros(2, 4, 4), r"of shape \(2, 2\), not \(4, 4\)"),
        (torch.full((2, 2, 2), torch.nan), "finite"),
    ],
)
def test_a_heat_map_that_does_not_fit_is_refused(heat, message):
    with pytest.raises(ValueError, match=message):
        plot_heat_maps(torch.rand(2, 3, 2, 2), heat)
