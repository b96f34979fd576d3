"""Transforms: exact size, exact numbers, random where it should be and nowhere else; statistics over pixels."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch.utils.data import Subset
from torchvision.transforms import v2

from dlcourse.data import channel_statistics, eval_transform, load_dataset, make_loader, train_transform
from dlcourse.data.transforms import POLICIES

RANDOM = [policy for policy in POLICIES if policy != "none"]
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def picture(*shape, seed=0):
    return torch.randint(256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (28, 40, 32), (7, 5, 33), (50, 50, 2)])
def test_every_policy_gives_float32_of_exactly_the_size(policy, height, width, size):
    image = picture(height, width)
    before = image.clone()
    transform = train_transform(size, policy)
    torch.manual_seed(0)
    results = [transform(image) for _ in range(5)]
    assert {tuple(result.shape) for result in results} == {(3, size, size)}
    assert {result.dtype for result in results} == {torch.float32}
    assert torch.equal(image, before)
    torch.stack(results)


def test_evaluation_is_what_torchvision_does_step_by_step():
    image = picture(40, 25)
    steps = v2.Compose(
        [v2.Resize((32, 32), antialias=True), v2.ToDtype(torch.float32, scale=True), v2.Normalize(CIFAR_MEAN, CIFAR_STD)]
    )
    ours = eval_transform(32, mean=CIFAR_MEAN, std=CIFAR_STD)
    torch.testing.assert_close(ours(image), steps(image), rtol=0, atol=1e-5)
    assert torch.equal(ours(image), ours(image))
    assert torch.equal(ours(image), train_transform(32, "none", mean=CIFAR_MEAN, std=CIFAR_STD)(image))


def test_the_default_maps_0_to_minus_1_and_255_to_1():
    image = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 2, 2)
    for transform in (eval_transform(2), train_transform(2, "none")):
        assert transform(image)[:, 0].tolist() == [[-1, 1]] * 3


def test_an_image_of_the_right_size_is_not_resampled():
    image = picture(32, 32)
    back = (eval_transform(32, mean=(0, 0, 0), std=(1, 1, 1))(image) * 255).round()
    assert torch.equal(back, image.float())


@pytest.mark.parametrize("size", [32, 9])
def test_basic_gives_every_shift_and_both_ways_round_and_nothing_else(size):
    pad = size // 8
    image = picture(size, size)
    padded = torch.nn.functional.pad(image, [pad] * 4)
    views = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[:, top : top + size, left : left + size]
            views[crop.numpy().tobytes()] = (top, left, False)
            views[crop.flip(-1).contiguous().numpy().tobytes()] = (top, left, True)
    transform = train_transform(size, "basic", mean=(0, 0, 0), std=(1, 1, 1))
    seen = []
    for _ in range(1500):
        result = (transform(image) * 255).round().to(torch.uint8).contiguous()
        seen.append(views[result.numpy().tobytes()])
    assert set(seen) == set(views.values())
    assert sum(flip for _, _, flip in seen) == pytest.approx(750, abs=100)  # five standard errors
    assert sum(top == 0 for top, _, _ in seen) == pytest.approx(1500 / (2 * pad + 1), abs=120)


@pytest.mark.parametrize("policy", RANDOM)
def test_random_policies_vary_and_follow_torchs_seed(policy):
    image, transform, twin = picture(32, 32), train_transform(32, policy), train_transform(32, policy)

    def draw(using, seed):
        torch.manual_seed(seed)
        return torch.stack([using(image) for _ in range(6)])

    first = draw(transform, 0)
    assert len(first.flatten(1).unique(dim=0)) >= 4
    assert torch.equal(first, draw(twin, 0))
    assert not torch.equal(first, draw(transform, 1))


@pytest.mark.parametrize(
    ("policy", "operation"), [("randaugment", v2.RandAugment), ("trivialaugment", v2.TrivialAugmentWide)]
)
def test_the_colour_policies_are_torchvisions_after_the_crop_and_flip(policy, operation):
    image, options = picture(32, 32), {"mean": (0, 0, 0), "std": (1, 1, 1)}
    basic, ours, theirs = train_transform(32, "basic", **options), train_transform(32, policy, **options), operation()
    for seed in range(40):
        torch.manual_seed(seed)
        got = ours(image)
        torch.manual_seed(seed)
        cropped = (basic(image) * 255).round().to(torch.uint8)
        assert torch.equal((got * 255).round().to(torch.uint8), theirs(cropped))


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_the_learned_policies_change_colours_too(policy):
    grey = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    transform = train_transform(16, policy, mean=(0, 0, 0), std=(1, 1, 1))
    assert len({round(transform(grey)[0, 8, 8].item() * 255) for _ in range(60)}) > 5
    basic = train_transform(16, "basic", mean=(0, 0, 0), std=(1, 1, 1))
    assert {round(basic(grey)[0, 8, 8].item() * 255) for _ in range(60)} == {100}


@pytest.mark.parametrize("policy", POLICIES)
def test_transforms_travel_to_worker_processes(policy):
    transform = train_transform(32, policy)
    copy, image = pickle.loads(pickle.dumps(transform)), picture(32, 32)
    torch.manual_seed(3)
    want = transform(image)
    torch.manual_seed(3)
    assert torch.equal(copy(image), want)


def test_albumentations_differs_between_workers():
    data = load_dataset("fashion-mini", "val", train_transform(32, "albumentations"))
    data.images[:] = data.images[0].clone()
    batch = torch.cat([images for images, _ in make_loader(Subset(data, range(16)), 8, train=True, num_workers=2)])
    assert len(batch.flatten(1).unique(dim=0)) >= 14


def test_albumentations_is_imported_only_when_asked_for_and_without_its_update_check():
    code = (
        "import sys, os; import dlcourse.data as d; assert 'albumentations' not in sys.modules; "
        "d.train_transform(32, 'albumentations'); print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"},
    )
    assert (result.stdout, result.stderr) == ("1\n", "")


@pytest.mark.parametrize("make", [train_transform, eval_transform])
@pytest.mark.parametrize(
    ("size", "options", "says"),
    [
        (1, {}, "size=1 must"),
        (32.0, {}, r"size=32\.0"),
        ((32, 32), {}, r"size=\(32, 32\)"),
        (32, {"mean": (0.5,)}, "mean=.*three numbers"),
        (32, {"std": (0.5, 0.5)}, "std=.*three numbers"),
        (32, {"std": (0.5, 0.5, 0.0)}, "std=.*positive"),
    ],
)
def test_a_wrong_argument_is_named(make, size, options, says):
    with pytest.raises(ValueError, match=says):
        make(size, **options)


def test_an_unknown_policy_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"policy='autoaug' is unknown; did you mean 'autoaugment'\?"):
        train_transform(32, "autoaug")
    with pytest.raises(ValueError, match=r"'none' or 'basic' or .* or 'albumentations'"):
        train_transform(32, "xyz")


@pytest.mark.parametrize("image", [torch.rand(3, 32, 32), picture(32, 32)[:1]])
@pytest.mark.parametrize("make", [train_transform, eval_transform])
def test_an_image_of_another_kind_is_refused(make, image):
    with pytest.raises(ValueError, match=r"needs torch\.uint8 of shape \((…, )?3, H, W\)"):
        make(32)(image)


def test_a_batch_is_evaluated_as_its_images_and_refused_for_training():
    batch = torch.stack([picture(40, 30), picture(40, 30).flip(-1)])
    assert torch.equal(eval_transform(32)(batch), torch.stack([eval_transform(32)(image) for image in batch]))
    with pytest.raises(ValueError, match=r"of shape \(2, 3, 40, 30\); needs torch\.uint8 of shape \(3, H, W\)"):
        train_transform(32)(batch)  # one crop for all would be no augmentation


# ---------------------------------------------------------------- statistics


def test_statistics_are_those_of_all_pixels_whatever_the_sizes():
    images = [torch.rand(3, 4, 5) * 0.2, torch.rand(3, 9, 2) * 0.5 + 0.5, torch.rand(3, 1, 1)]
    pixels = torch.cat([image.flatten(1) for image in images], dim=1).double()
    mean, std = channel_statistics([(image, 0) for image in images])
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-7)
    assert std == pytest.approx(pixels.std(1, correction=0).tolist(), abs=1e-7)
    per_image = torch.stack([image.flatten(1).std(1) for image in images[:2]]).mean(0)
    assert all(a > b + 0.02 for a, b in zip(std, per_image.tolist(), strict=True))


def test_statistics_take_uint8_and_count_channels_apart():
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    image[1], image[2, 0] = 255, 255
    mean, std = channel_statistics([(image, 0)])
    assert mean == (0, 1, 0.5)
    assert std == (0, 0, 0.5)


def test_statistics_of_nothing_are_refused():
    with pytest.raises(ValueError, match="dataset is empty"):
        channel_statistics([])


def test_normalised_with_its_own_statistics_fashion_mini_has_mean_0_and_deviation_1():
    raw = load_dataset("fashion-mini", "val")
    mean, std = channel_statistics(raw)
    assert mean[0] == pytest.approx((raw.images.double() / 255).mean().item(), abs=1e-7)
    raw.transform = eval_transform(32, mean=mean, std=std)
    again = channel_statistics(raw)
    assert again[0] == pytest.approx((0, 0, 0), abs=1e-5)
    assert again[1] == pytest.approx((1, 1, 1), abs=1e-5)
