"""Loaders and samplers: each index once, an order that seed and epoch decide, random numbers that workers do not share."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, SequentialSampler, Subset, TensorDataset

from dlcourse.data import (
    EpochSampler,
    balanced_sampler,
    class_weights,
    image_folder,
    load_dataset,
    loaders,
    make_loader,
    undersampler,
)

NUMBERS = TensorDataset(torch.arange(10))


def order(loader):
    return torch.cat([batch[0] for batch in loader]).tolist()


# ---------------------------------------------------------------- the order


@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(0, 10_000))
def test_every_index_once_in_an_order_of_seed_and_epoch_alone(size, seed, epoch):
    sampler, other = EpochSampler(size, seed), EpochSampler(size, seed)
    for earlier in (3, 1):
        other.set_epoch(earlier)
        list(other)
    sampler.set_epoch(epoch)
    other.set_epoch(epoch)
    first = list(sampler)
    assert sorted(first) == list(range(size))
    assert len(sampler) == size
    assert list(sampler) == first == list(other)


def test_epochs_and_seeds_have_orders_of_their_own():
    sampler = EpochSampler(50, seed=0)
    orders = []
    for epoch in range(20):
        sampler.set_epoch(epoch)
        orders.append(tuple(sampler))
    assert len(set(orders)) == 20
    assert tuple(EpochSampler(50, seed=7)) not in {orders[0]}


def test_the_order_is_that_of_a_distributed_sampler_with_one_process():
    from torch.utils.data import DistributedSampler

    theirs = DistributedSampler(NUMBERS, num_replicas=1, rank=0, shuffle=True, seed=5)
    ours = EpochSampler(10, seed=5)
    for epoch in (0, 4):
        theirs.set_epoch(epoch)
        ours.set_epoch(epoch)
        assert list(theirs) == list(ours)


def test_the_order_neither_uses_nor_changes_the_global_generator():
    torch.manual_seed(1)
    first = order(make_loader(NUMBERS, 4, train=True))
    state = torch.get_rng_state()
    assert order(make_loader(NUMBERS, 4, train=True)) == first
    order(make_loader(NUMBERS, 4))
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- the loader


@pytest.mark.parametrize("train", [False, True])
def test_the_last_batch_is_kept(train):
    sizes = [len(batch[0]) for batch in make_loader(NUMBERS, 4, train=train)]
    assert sizes == [4, 4, 2]


def test_training_shuffles_and_evaluation_keeps_the_order():
    assert order(make_loader(NUMBERS, 3)) == list(range(10))
    assert isinstance(make_loader(NUMBERS, 3).sampler, SequentialSampler)
    loader = make_loader(NUMBERS, 3, train=True, seed=3)
    first = order(loader)
    assert sorted(first) == list(range(10))
    assert first != list(range(10))
    assert order(loader) == first
    loader.sampler.set_epoch(1)
    assert order(loader) != first


def test_a_sampler_takes_the_place_of_the_order():
    assert order(make_loader(NUMBERS, 2, train=True, sampler=EpochSampler(4, seed=1))) == list(EpochSampler(4, seed=1))
    assert order(make_loader(NUMBERS, 2, sampler=SequentialSampler(range(3)))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("dataset", "options", "says"),
    [
        (TensorDataset(torch.zeros(0, 3)), {}, "dataset is empty"),
        (NUMBERS, {"batch_size": 0}, "batch_size=0 must be at least 1"),
        (NUMBERS, {"batch_size": -5}, "batch_size=-5"),
        (NUMBERS, {"num_workers": -1}, "num_workers=-1"),
    ],
)
def test_what_cannot_be_loaded_is_refused(dataset, options, says):
    with pytest.raises(ValueError, match=says):
        make_loader(dataset, **{"batch_size": 2, **options})


def test_workers_are_for_files_only(tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a/0.png")
    folder = image_folder(tmp_path)
    for cores, workers in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(loaders, "usable_cores", lambda cores=cores: cores)
        assert make_loader(folder, 1).num_workers == workers
        assert make_loader(Subset(Subset(folder, [0]), [0]), 1).num_workers == workers
    assert make_loader(NUMBERS, 1).num_workers == 0
    assert make_loader(load_dataset("fashion-mini", "val"), 1).num_workers == 0
    assert make_loader(folder, 1, num_workers=0).num_workers == 0


def test_memory_is_pinned_for_cuda_only_and_evaluation_keeps_its_workers(monkeypatch):
    for cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert make_loader(NUMBERS, 2).pin_memory is cuda
    assert make_loader(NUMBERS, 2, num_workers=1).persistent_workers
    assert not make_loader(NUMBERS, 2, train=True, num_workers=1).persistent_workers
    assert not make_loader(NUMBERS, 2).persistent_workers


class RandomNumbers(Dataset):
    """What each of the three libraries draws for an item, in the process that loads it."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.random(), torch.rand(()).item()])  # noqa: NPY002


def drawn(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return torch.cat(list(loader))


def test_workers_draw_numbers_of_their_own_that_seed_and_epoch_decide():
    loader = make_loader(RandomNumbers(), 2, train=True, num_workers=2)
    first, second = drawn(loader, 0), drawn(loader, 1)
    for column in range(3):
        assert len(first[:, column].unique()) == 8  # no two items of either worker share a draw
    assert not (first[:, :, None] == second.T[None]).any()
    fresh = make_loader(RandomNumbers(), 2, train=True, num_workers=2)
    assert torch.equal(drawn(fresh, 1), second)  # a run that goes on after epoch 0
    assert torch.equal(drawn(loader, 0), first)
    assert not torch.equal(drawn(make_loader(RandomNumbers(), 2, train=True, num_workers=2, seed=5), 0), first)


# ---------------------------------------------------------------- balance


def test_class_weights_are_inverse_to_the_counts_and_one_on_average():
    weights = class_weights([0, 0, 0, 1, 2, 2])
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([6 / 9, 2, 1])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_every_class_weighs_the_same_and_a_sample_one_on_average(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = class_weights(labels).double()
    total = weights * torch.tensor(counts)
    assert torch.allclose(total, total[0].expand(len(counts)), rtol=1e-5)
    assert weights[labels].mean().item() == pytest.approx(1, rel=1e-5)
    assert torch.equal(class_weights(torch.from_numpy(labels)), class_weights(labels.tolist()))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 2, 2, 5], "no sample of class 1, 3, 4:"),
        ([], "non-empty"),
        ([-1, 0], "from 0 up"),
        ([0.5, 1.0], "whole numbers"),
        (["cat"], "whole numbers"),
        ([[0, 1]], "non-empty"),
    ],
)
@pytest.mark.parametrize("function", [class_weights, balanced_sampler, undersampler])
def test_labels_that_cannot_be_weighed_are_refused(function, labels, says):
    with pytest.raises(ValueError, match=says):
        function(labels)


def test_a_balanced_sampler_draws_the_classes_equally_often():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    sampler = balanced_sampler(labels, seed=0)
    draws = []
    for epoch in range(10):
        sampler.set_epoch(epoch)
        draws.append(list(sampler))
    assert {len(draw) for draw in draws} == {1000} == {len(sampler)}
    assert len({tuple(draw) for draw in draws}) == 10
    shares = np.bincount(labels[np.concatenate(draws)]) / 10_000
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)  # four standard errors
    assert len(np.unique(draws[0])) > 300  # within a class, samples vary


def test_a_balanced_sampler_is_a_function_of_seed_and_epoch():
    labels = [0] * 20 + [1] * 5
    sampler, other = balanced_sampler(labels, seed=2), balanced_sampler(torch.tensor(labels), seed=2)
    other.set_epoch(9)
    list(other)
    other.set_epoch(0)
    assert list(sampler) == list(other)
    assert list(sampler) != list(balanced_sampler(labels, seed=3))
    loader = make_loader(TensorDataset(torch.arange(25)), 4, train=True, sampler=sampler)
    assert order(loader) == list(sampler)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**31), st.integers(0, 50))
def test_an_undersampler_takes_as_many_of_every_class_as_the_rarest_has_and_none_twice(counts, seed, epoch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    sampler, other = undersampler(labels, seed), undersampler(torch.from_numpy(labels), seed)
    other.set_epoch(epoch + 1)
    list(other)
    for each in (sampler, other):
        each.set_epoch(epoch)
    taken = list(sampler)
    assert np.bincount(labels[taken]).tolist() == [min(counts)] * len(counts)
    assert len(set(taken)) == len(taken) == len(sampler)
    assert taken == list(sampler) == list(other)  # a function of seed and epoch


def test_an_undersampler_takes_other_samples_each_epoch_and_in_the_end_all():
    labels = [0] * 60 + [1] * 20
    sampler = undersampler(labels, seed=2)
    seen, orders = set(), set()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        orders.add(tuple(sampler))
        seen.update(sampler)
    assert len(orders) == 30
    assert seen == set(range(80))
    assert list(sampler) != list(undersampler(labels, seed=3))
    mixed = np.array(labels)[list(sampler)]
    assert 2 < np.abs(np.diff(mixed)).sum() < 39  # the classes are mixed, not one after the other


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_an_undersampler_takes_labels_of_any_whole_type(dtype):
    labels = np.array([0, 1, 1, 2, 2, 2], dtype=dtype)
    assert list(undersampler(labels)) == list(undersampler(labels.tolist()))
    assert list(undersampler(torch.from_numpy(labels))) == list(undersampler(labels.tolist()))


def test_an_undersampler_serves_a_loader_and_the_trainer():
    from torch import nn

    from dlcourse.training import Trainer, TrainerConfig

    labels = torch.tensor([0] * 24 + [1] * 4)
    dataset = TensorDataset(torch.arange(28.0)[:, None], labels)
    seen = []

    class Net(nn.Linear):
        def forward(self, x):
            seen.append(x[:, 0].tolist())
            return super().forward(x)

    loader = make_loader(dataset, 3, train=True, sampler=undersampler(labels, seed=1))
    assert len(loader) == 3
    model = Net(1, 2)
    trainer = Trainer(
        model, torch.optim.SGD(model.parameters(), 1e-5), nn.functional.cross_entropy, config=TrainerConfig(2), device="cpu"
    )
    trainer.fit(loader, [(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))])
    epochs = [sum(seen[:3], []), sum(seen[4:7], [])]  # noqa: RUF017  (the fourth batch is the evaluation's)
    for number, epoch in enumerate(epochs):
        sampler = undersampler(labels, seed=1)
        sampler.set_epoch(number)
        assert epoch == list(sampler)
    assert epochs[0] != epochs[1]


def test_balanced_sampler_takes_labels_of_any_integer_type():
    labels = [0, 0, 0, 1]
    drawn = [list(balanced_sampler(torch.tensor(labels, dtype=dtype))) for dtype in (torch.uint8, torch.int32, torch.int64)]
    assert drawn[0] == drawn[1] == drawn[2] == list(balanced_sampler(labels))
