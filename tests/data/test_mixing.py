"""Mixup and CutMix equal torchvision's bit for bit, follow their generator, and leave what they are given alone."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Subset
from torchvision.transforms import v2

from dlcourse.data import MixingCollate, cutmix, eval_transform, load_dataset, make_loader, mixup
from dlcourse.training import Trainer, TrainerConfig

MIXERS = {"mixup": (mixup, v2.MixUp), "cutmix": (cutmix, v2.CutMix)}
each_mixer = pytest.mark.parametrize("mix", [mixup, cutmix])


def batch(size=6, channels=3, height=5, width=7, classes=4, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(size, channels, height, width, generator=generator, dtype=dtype)
    return images, torch.randint(classes, (size,), generator=generator)


# ---------------------------------------------------------------- the same as torchvision's


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 8.0])
@pytest.mark.parametrize("shape", [(6, 3, 32, 32), (5, 1, 7, 13), (1, 3, 9, 4), (2, 2, 1, 1), (3, 3, 1, 50)])
def test_equal_to_torchvisions_from_the_same_seed_bit_for_bit(name, alpha, shape):
    ours, theirs = MIXERS[name]
    reference = theirs(alpha=alpha, num_classes=4)
    for seed in range(30):
        images, labels = batch(*shape, seed=seed)
        torch.manual_seed(seed)
        expected = reference(images, labels)
        torch.manual_seed(seed)
        got = ours(images, labels, 4, alpha)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


@each_mixer
def test_the_defaults_are_those_of_the_papers_code(mix):
    images, labels = batch()
    torch.manual_seed(3)
    default = mix(images, labels, 4)
    torch.manual_seed(3)
    assert torch.equal(default[0], mix(images, labels, 4, {mixup: 0.2, cutmix: 1.0}[mix])[0])


# ---------------------------------------------------------------- random numbers


@each_mixer
def test_a_generator_gives_what_the_global_seed_would_and_leaves_the_global_state_alone(mix):
    images, labels = batch()
    generator = torch.Generator().manual_seed(11)
    torch.manual_seed(11)
    expected = [mix(images, labels, 4, 1.0) for _ in range(5)]
    state = torch.get_rng_state()
    got = [mix(images, labels, 4, 1.0, generator) for _ in range(5)]
    assert torch.equal(torch.get_rng_state(), state)
    for (images_a, labels_a), (images_b, labels_b) in zip(expected, got, strict=True):
        assert torch.equal(images_a, images_b)
        assert torch.equal(labels_a, labels_b)
    assert len({mixed.numpy().tobytes() for mixed, _ in got}) >= 3  # the generator moves on


@each_mixer
def test_an_error_leaves_generator_and_global_state_where_they_were(mix):
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state(), torch.get_rng_state()
    with pytest.raises(ValueError, match="alpha=0"):
        mix(*batch(), 4, 0, generator)
    assert torch.equal(generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


# ---------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.floats(0.05, 20), st.integers(0, 2**31)
)
def test_labels_are_shares_that_sum_to_one_and_inputs_stay(size, height, width, classes, alpha, seed):
    for mix in (mixup, cutmix):
        images, labels = batch(size, 2, height, width, classes, seed, torch.float64)
        before = images.clone(), labels.clone()
        mixed, targets = mix(images, labels, classes, alpha, torch.Generator().manual_seed(seed))
        assert torch.equal(images, before[0])
        assert torch.equal(labels, before[1])
        assert mixed.data_ptr() != images.data_ptr()
        assert mixed.shape == images.shape
        assert mixed.dtype == targets.dtype == torch.float64
        assert targets.shape == (size, classes)
        assert targets.min() >= 0
        torch.testing.assert_close(targets.sum(1), torch.ones(size, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 10), st.integers(0, 2**31))
def test_cutmix_labels_the_pixels_that_are_really_pasted(height, width, alpha, seed):
    images = torch.arange(3.0)[:, None, None, None].expand(3, 2, height, width)  # image k holds the number k
    mixed, targets = cutmix(images, torch.arange(3), 3, alpha, torch.Generator().manual_seed(seed))
    for k in range(3):
        for source in (k, (k - 1) % 3):
            share = (mixed[k] == source).float().mean()
            assert targets[k, source].item() == pytest.approx(share.item(), abs=1e-6)
    assert len(mixed.flatten(2).unique(dim=1)[0]) == 1  # every channel has the same box


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 2**31))
def test_mixup_labels_the_shares_of_the_images(alpha, seed):
    images = torch.eye(4)[:, :, None, None].expand(4, 4, 2, 3)  # channel k of image k is one: images are their labels
    mixed, targets = mixup(images, torch.arange(4), 4, alpha, torch.Generator().manual_seed(seed))
    assert torch.equal(mixed[:, :, 1, 2], targets)
    own, other = targets.diagonal(), targets.roll(1, 1).diagonal()  # (k, k) and (k, k − 1)
    torch.testing.assert_close(own + other, torch.ones(4))


def test_mixup_takes_samples_of_any_shape():
    vectors, labels = torch.rand(4, 10), torch.arange(4)
    assert mixup(vectors, labels, 4)[0].shape == (4, 10)


# ---------------------------------------------------------------- errors


@each_mixer
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alpha": 0}, "alpha=0 must be a positive number .*leave it out"),
        ({"alpha": -1.0}, r"alpha=-1\.0"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": float("inf")}, "alpha=inf"),
        ({"labels": torch.full((6, 4), 0.25)}, r"labels must be integers of shape \(6,\), but are torch.float32 of shape \(6, 4\)"),
        ({"labels": torch.zeros(6)}, r"but are torch.float32 of shape \(6,\)"),
        ({"labels": torch.zeros(6, dtype=torch.bool)}, "but are torch.bool"),
        ({"labels": torch.zeros(5, dtype=torch.long)}, r"of shape \(6,\), but are torch.int64 of shape \(5,\)"),
        ({"labels": torch.tensor([0, 1, 2, 3, 4, 0])}, r"from 0 to 4, outside 0 … 3 \(num_classes=4\)"),
        ({"labels": torch.tensor([0, 1, 2, 3, -1, 0])}, "from -1 to 3, outside"),
        ({"images": torch.zeros(6, 3, 5, 7, dtype=torch.uint8)}, "images are torch.uint8; mixing needs float"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_named(mix, change, says):
    images, labels = batch()
    with pytest.raises(ValueError, match=says):
        mix(**{"images": images, "labels": labels, "num_classes": 4, "alpha": 1.0, **change})


def test_cutmix_needs_images():
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\), not \(6, 10\)"):
        cutmix(torch.rand(6, 10), batch()[1], 4)


@each_mixer
def test_a_generator_of_a_gpu_is_refused(mix):
    class OnGpu:
        device = torch.device("cuda")

    with pytest.raises(ValueError, match="generator is one of cuda; .* give a CPU generator"):
        mix(*batch(), 4, 1.0, OnGpu())


# ---------------------------------------------------------------- in a loader


def small_set(count=120):
    return Subset(load_dataset("fashion-mini", "train", eval_transform(32)), range(count))


def batches(collate, workers=0, epoch=0):
    loader = make_loader(small_set(), 16, train=True, num_workers=workers, collate_fn=collate)
    loader.sampler.set_epoch(epoch)
    torch.manual_seed(7)
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_mixed_batches(workers):
    collate = MixingCollate(10, mixup=0.4, cutmix=1.0)
    first, second = batches(collate, workers), batches(collate, workers)
    for (images_a, labels_a), (images_b, labels_b) in zip(first, second, strict=True):
        assert torch.equal(images_a, images_b)
        assert torch.equal(labels_a, labels_b)
        assert labels_a.shape == (len(images_a), 10)
    other = batches(collate, workers, epoch=1)
    assert not torch.equal(first[0][0], other[0][0])


def test_alone_it_is_the_function_and_together_both_occur():
    samples = [(image, int(label)) for image, label in zip(*batch(), strict=True)]

    def ways(collate):
        """For 40 draws: which pixels are those of one image and which of the one before it, or neither (blended)."""
        torch.manual_seed(0)
        blended = 0
        for _ in range(40):
            images, _ = collate(samples)
            original = batch()[0]
            blended += int(((images != original) & (images != original.roll(1, 0))).any())
        return blended

    assert ways(MixingCollate(4, cutmix=1.0)) == 0
    assert ways(MixingCollate(4, mixup=1.0)) == 40
    assert 10 <= ways(MixingCollate(4, mixup=1.0, cutmix=1.0)) <= 30


def test_p_is_how_often_a_batch_is_mixed():
    images, labels = batch()
    samples = list(zip(images, labels.tolist(), strict=True))
    for p, low, high in ((0.0, 0, 0), (0.25, 25, 75), (1.0, 200, 200)):
        collate, mixed = MixingCollate(4, mixup=1.0, p=p), 0
        for _ in range(200):
            got, targets = collate(samples)
            mixed += not torch.equal(got, images)
            if p == 0:
                assert torch.equal(targets, nn.functional.one_hot(labels, 4).float())
        assert low <= mixed <= high


def test_it_travels_to_worker_processes():
    collate = pickle.loads(pickle.dumps(MixingCollate(10, cutmix=0.5, p=0.3)))
    assert (collate.num_classes, collate.mixup, collate.cutmix, collate.p) == (10, None, 0.5, 0.3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "nothing to mix with"),
        ({"mixup": 0}, "mixup=0 must be a positive number"),
        ({"cutmix": -2.0}, r"cutmix=-2\.0 must be"),
        ({"mixup": 0.2, "p": 1.5}, r"p=1\.5 is not a probability"),
    ],
)
def test_wrong_options_are_named_at_once(options, says):
    with pytest.raises(ValueError, match=says):
        MixingCollate(10, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trainer_learns_from_mixed_labels(workers):
    collate = MixingCollate(10, mixup=0.2, cutmix=1.0)
    loader = make_loader(small_set(240), 20, train=True, num_workers=workers, collate_fn=collate)
    val_loader = make_loader(Subset(load_dataset("fashion-mini", "val", eval_transform(32)), range(100)), 100)
    torch.manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(768, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    history = Trainer(model, optimizer, nn.CrossEntropyLoss(), config=TrainerConfig(epochs=8)).fit(loader, val_loader)
    assert history["val_accuracy"][-1] > 0.35
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert "train_accuracy" not in history.epochs[0]
    assert "train_loss" in history.epochs[0]
