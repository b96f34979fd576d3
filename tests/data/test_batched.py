"""Whole batches are augmented as the per-image transforms would have it: the same pixels, the same distribution."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DistributedSampler
from torchvision.transforms import v2

from dlcourse.data import BatchAugmentation, BatchLoader, eval_transform, load_dataset
from dlcourse.data.batched import NUMBERS, color_jitter, cutout, flip_where, random_crop
from dlcourse.data.datasets import ImageArrays


def some_images(count=6, height=8, width=10):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def numbered(count, side=4):
    """A data set whose images can be told apart, and from their mirror images."""
    images = torch.arange(count * 3 * side * side).reshape(count, 3, side, side) % 251
    return ImageArrays(images.to(torch.uint8), [i % 3 for i in range(count)], classes=["a", "b", "c"])


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


# the pixels


def test_a_crop_is_the_window_that_its_numbers_name():
    images, padding = some_images(), 2
    numbers = torch.rand(len(images), 2)
    crops = random_crop(images, numbers, padding)
    for image, crop, (y, x) in zip(images, crops, numbers, strict=True):
        top, left = int(y * 5), int(x * 5)
        assert torch.equal(crop, v2.functional.crop(v2.functional.pad(image, [padding]), top, left, 8, 10))


def test_the_corners_of_the_crop_are_reached_and_not_passed():
    images = some_images(2)
    ends = torch.tensor([[0.0, 0.0], [1 - 2**-24, 1 - 2**-24]])
    crops = random_crop(images, ends, 3)
    padded = F.pad(images, [3] * 4)
    assert torch.equal(crops[0], padded[0, :, :8, :10])
    assert torch.equal(crops[1], padded[1, :, 6:, 6:])


def test_a_flip_mirrors_those_that_are_named():
    images = some_images(2)
    flipped = flip_where(images, torch.tensor([True, False]))
    assert torch.equal(flipped[0], v2.functional.horizontal_flip(images[0]))
    assert torch.equal(flipped[1], images[1])


def hide_square(image, row, column, side):
    """Cutout of one image, as DeVries and Taylor describe it: a square around a pixel, cut off at the borders."""
    image = image.clone()
    top, left = row - (side - 1) // 2, column - (side - 1) // 2
    image[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
    return image


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_hides_the_square_of_one_image_at_a_time(side):
    images = some_images(200).float() + 1
    numbers = torch.rand(200, 2)
    hidden = cutout(images, numbers, side)
    for image, cut, (y, x) in zip(images, hidden, numbers, strict=True):
        assert torch.equal(cut, hide_square(image, int(y * 8), int(x * 10), side))


def test_colour_is_color_jitter_in_the_order_that_is_drawn():
    images, strengths = some_images(40) / 255, (0.5, 0.3, 0.8)
    numbers, order = torch.rand(40, 3), torch.rand(40, 3)
    changed = color_jitter(images, numbers, order, strengths)
    steps = (v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation)
    for image, new, number, turns in zip(images, changed, numbers, order.argsort(1), strict=True):
        for turn in turns.tolist():
            image = steps[turn](image, 1 + (2 * float(number[turn]) - 1) * strengths[turn])
        torch.testing.assert_close(new, image, rtol=0, atol=2e-6)


def test_without_strength_a_colour_stays():
    images = some_images() / 255
    torch.testing.assert_close(color_jitter(images, torch.rand(6, 3), torch.rand(6, 3), (0, 0, 0)), images)


def test_each_step_has_numbers_of_its_own():
    """Two for the crop, one for the flip, two for the hole, three for the colours and three for their order."""
    images, numbers, jitter = some_images(), torch.rand(6, NUMBERS), (0.3, 0.6, 0.9)
    crop, flip, hole, colours, order = numbers.split([2, 1, 2, 3, 3], dim=1)
    augment = BatchAugmentation(padding=2, cutout=3, brightness=0.3, contrast=0.6, saturation=0.9)
    expected = flip_where(random_crop(images, crop, 2), flip[:, 0] < 0.5)
    expected = 2 * color_jitter(expected / 255, colours, order, jitter) - 1
    torch.testing.assert_close(augment(images, numbers), cutout(expected, hole, 3))


def test_nothing_asked_for_is_what_evaluation_does():
    images = some_images()
    plain = BatchAugmentation(flip="none", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    wanted = (images / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(plain(images, torch.rand(6, NUMBERS)), wanted)


def test_the_images_are_left_as_they_are():
    images = some_images()
    before = images.clone()
    augment = BatchAugmentation(padding=2, cutout=3, brightness=0.5, contrast=0.5, saturation=0.5)
    views = augment(images, torch.rand(6, NUMBERS))
    assert torch.equal(images, before)
    assert (views.dtype, views.shape) == (torch.float32, images.shape)


# the distribution


def views_of(transform, image, count):
    """How often each view of the image came, those of the same pixels together."""
    found, times = torch.unique(torch.stack([transform(image) for _ in range(count)]).flatten(1), dim=0, return_counts=True)
    return {tuple(view.tolist()): int(n) for view, n in zip(found, times, strict=True)}


def test_crop_and_flip_have_the_distribution_of_torchvision_s():
    """All 2 · 3 · 3 views come, equally often, and they are the views that torchvision makes."""
    image = numbered(1).images[0]
    one_by_one = v2.Compose([v2.RandomCrop(4, padding=1), v2.RandomHorizontalFlip()])
    reference = views_of(one_by_one, image, 1800)
    augment = BatchAugmentation(padding=1, mean=(0, 0, 0), std=(1 / 255,) * 3)
    batch = augment(image.expand(1800, -1, -1, -1), torch.rand(1800, NUMBERS))
    found, counts = torch.unique(batch.round().flatten(1), dim=0, return_counts=True)
    assert {tuple(view.int().tolist()) for view in found} == set(reference)
    assert len(reference) == 18
    assert chi_square(counts) < 40.8  # 17 degrees of freedom, probability 0.001
    assert chi_square(torch.tensor([*reference.values()])) < 40.8


def test_cutout_hides_each_pixel_as_often_as_one_image_at_a_time_does():
    count, side = 20000, 3
    hidden = (cutout(torch.ones(count, 1, 8, 10), torch.rand(count, 2), side) == 0)[:, 0].float().mean(0)
    ones = torch.ones(1, 8, 10)
    expected = sum(hide_square(ones, row, column, side)[0] == 0 for row in range(8) for column in range(10)) / 80
    assert expected.min() < expected.max()  # the border is hidden less often
    assert ((hidden - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt()).all()  # five standard errors


def test_factors_are_uniform_and_orders_equally_likely():
    loader = BatchLoader(numbered(6000), 6000, BatchAugmentation(brightness=0.4), train=True)
    numbers = loader._numbers(0)
    assert chi_square(torch.histc(numbers[:, 5], 20, 0, 1)) < 43.8  # 19 degrees of freedom, probability 0.001
    orders = numbers[:, 8:].argsort(1) @ torch.tensor([9, 3, 1])
    counts = torch.unique(orders, return_counts=True)[1]
    assert len(counts) == 6
    assert chi_square(counts) < 20.5
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 0.06  # what is drawn has nothing to do with the rest


# the loader


def views(loader, epoch):
    """The view of each image of the epoch, in the order of the data set."""
    loader.sampler.set_epoch(epoch)
    order = list(loader.sampler)
    images = torch.cat([images for images, _ in loader])
    return dict(zip(order, images, strict=True))


def assert_same_views(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[index], other[index]) for index in one)


AUGMENT = BatchAugmentation(padding=1, cutout=2, brightness=0.2)


def test_a_view_depends_on_seed_epoch_and_image_alone():
    data = numbered(50)
    of_sixteen = BatchLoader(data, 16, AUGMENT, train=True, seed=1)
    of_seven = BatchLoader(data, 7, AUGMENT, train=True, seed=1)
    first = views(of_sixteen, 3)
    torch.rand(5)  # the global generator has no part in it
    assert_same_views(first, views(of_seven, 3))
    halves = [DistributedSampler(data, 2, rank, seed=1) for rank in (0, 1)]
    parts = [views(BatchLoader(data, 8, AUGMENT, sampler=half, seed=1), 3) for half in halves]
    assert_same_views(first, parts[0] | parts[1])
    for other in (views(of_sixteen, 4), views(BatchLoader(data, 16, AUGMENT, train=True, seed=2), 3)):
        assert sum(torch.equal(first[index], other[index]) for index in first) < 10


def test_seeds_and_epochs_have_streams_of_their_own():
    numbers = [BatchLoader(numbered(9), 3, AUGMENT, seed=seed)._numbers(epoch) for seed in range(3) for epoch in range(3)]
    assert len({float(table.sum()) for table in numbers}) == 9


def test_the_alternating_flip_shows_every_image_from_both_sides():
    data = numbered(400)
    loader = BatchLoader(data, 64, BatchAugmentation(flip="alternating"), train=True)
    first, second, third = (views(loader, epoch) for epoch in range(3))
    assert all(torch.equal(first[index], second[index].flip(2)) for index in first)
    assert_same_views(first, third)
    plain = views(BatchLoader(data, 64, BatchAugmentation(flip="none"), train=True), 0)
    flipped = sum(not torch.equal(first[index], plain[index]) for index in first)
    assert 160 < flipped < 240  # half of 400


def test_batches_hold_each_image_once_with_its_label():
    data = numbered(10)
    loader = BatchLoader(data, 4, eval_transform(4), train=True, seed=5)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert len(loader) == 3
    order = list(loader.sampler)
    assert sorted(order) == list(range(10))
    assert torch.cat([labels for _, labels in batches]).tolist() == [data.targets[index] for index in order]
    torch.testing.assert_close(torch.cat([images for images, _ in batches]), eval_transform(4)(data.images[order]))


def test_in_order_without_training_and_the_last_batch_left_out_on_request():
    data = numbered(10)
    assert torch.cat([labels for _, labels in BatchLoader(data, 4, AUGMENT)]).tolist() == data.targets
    short = BatchLoader(data, 4, AUGMENT, drop_last=True)
    assert [len(labels) for _, labels in short] == [4, 4]
    assert len(short) == 2
    assert len(BatchLoader(data, 5, AUGMENT, drop_last=True)) == len(list(BatchLoader(data, 5, AUGMENT, drop_last=True))) == 2


def test_the_order_is_that_of_a_dataloader_with_the_same_seed():
    from dlcourse.data import make_loader

    data = numbered(30)
    mine, theirs = BatchLoader(data, 8, AUGMENT, train=True, seed=4), make_loader(data, 8, train=True, seed=4)
    for epoch in (0, 1):
        for loader in (mine, theirs):
            loader.sampler.set_epoch(epoch)
        assert [labels.tolist() for _, labels in mine] == [labels.tolist() for _, labels in theirs]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"flip": "sometimes"}, "flip='sometimes' is unknown; choose one of none, random, alternating"),
        ({"padding": -1}, "padding=-1 must be a whole number of pixels, 0 or more"),
        ({"cutout": 1.5}, r"cutout=1.5 must be a whole number of pixels"),
        ({"contrast": 1.2}, "contrast=1.2 must lie between 0 and 1"),
        ({"std": (1, 1, 0)}, "must be positive"),
        ({"mean": (0.5,)}, "must be three numbers"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        BatchAugmentation(**options)


def test_what_is_no_batch_is_refused():
    augment = BatchAugmentation()
    with pytest.raises(ValueError, match="images is torch.float32 of shape"):
        augment(torch.rand(2, 3, 4, 4), torch.rand(2, NUMBERS))
    with pytest.raises(ValueError, match=r"numbers has the shape \(2, 3\); needs \(6, 11\)"):
        augment(some_images(), torch.rand(2, 3))


def test_what_cannot_be_loaded_is_refused():
    with pytest.raises(ValueError, match="dataset is a list; needs images in memory"):
        BatchLoader([1], 2, AUGMENT)
    with pytest.raises(ValueError, match="dataset is empty"):
        BatchLoader(ImageArrays(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), [], classes=["a"]), 2, AUGMENT)
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        BatchLoader(load_dataset("fashion-mini", "val"), 0, AUGMENT)
