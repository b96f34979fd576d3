"""The fast recipe: what each trick claims to do, it does, and the whole of it learns."""

import re
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from dlcourse import recipes
from dlcourse.data import BatchAugmentation, load_dataset
from dlcourse.data.datasets import ImageArrays
from dlcourse.recipes import (
    TRICKS,
    FastNet,
    FastRecipe,
    Muon,
    accuracy,
    bf16_is_faster,
    main,
    make_optimizers,
    one_cycle,
    orthogonalize,
    shrunk,
    train_fast,
    views,
)

SMALL = FastRecipe(2, widths=(8, 12, 16), batch_size=40, bf16=False, small_until=0)


def part(split, count):
    whole = load_dataset("fashion-mini", split)
    return ImageArrays(whole.images[:count], whole.targets[:count], classes=whole.classes)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(7)
    return train_fast(SMALL, part("train", 1000), part("test", 300), seed=1)


@pytest.fixture
def calls(monkeypatch):
    """Every forward pass of a FastNet: what it was given, and how it was to compute."""
    seen, forward = [], FastNet.forward

    def noting(self, images):
        seen.append(
            SimpleNamespace(
                images=images,
                training=self.training,
                autocast=torch.is_autocast_enabled("cpu"),
                channels_last=self.stages[0].conv1.weight.is_contiguous(memory_format=torch.channels_last),
            )
        )
        return forward(self, images)

    monkeypatch.setattr(FastNet, "forward", noting)
    return seen


# the network


def test_the_first_layer_whitens_the_patches():
    """Its first 12 maps are uncorrelated and of variance 1, but for what is added to the smallest eigenvalues."""
    images = torch.randn(40, 3, 16, 16).cumsum(3) / 4  # neighbours are alike, as in a picture
    net = FastNet(10, SMALL)
    net.set_whitening(images)
    maps = net.whiten(images)[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    torch.testing.assert_close(maps.cov(), torch.eye(12, dtype=torch.double), rtol=0, atol=0.02)
    assert torch.equal(net.whiten.weight[12:], -net.whiten.weight[:12])
    assert not net.whiten.weight.requires_grad


def test_directions_that_images_hardly_have_are_not_blown_up():
    net = FastNet(10, SMALL)
    net.set_whitening(torch.full((4, 3, 8, 8), 0.5))
    assert net.whiten.weight.abs().max() <= 1 / 5e-4**0.5


def test_convolutions_begin_as_the_identity():
    net = FastNet(10, SMALL)
    maps = torch.randn(2, 12, 9, 9)
    torch.testing.assert_close(net.stages[1].conv2(maps), maps)
    grey = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(net.stages[1].conv1(grey)[:, :8], grey)
    other = FastNet(10, FastRecipe(widths=(8, 12, 16), identity_start=False))
    assert (other.stages[1].conv2(maps) - maps).abs().max() > 0.1


def test_the_network_takes_images_of_several_sides_and_begins_at_ln_k():
    net = FastNet(10, SMALL).train()
    for side in (18, 24, 32, 48):
        logits = net(torch.randn(6, 3, side, side))
        assert logits.shape == (6, 10)
        assert F.cross_entropy(logits, torch.arange(6)).item() == pytest.approx(2.303, abs=0.25)


def test_pooling_before_the_norm_gives_the_same_as_after():
    """Where the norm's weight is positive: it is 1 and not trained."""
    stage = FastNet(10, SMALL).stages[0].eval()
    stage.bn1.running_mean.uniform_(-1, 1)
    stage.bn1.running_var.uniform_(0.5, 2)
    maps = torch.randn(2, 24, 8, 8)
    after = F.gelu(F.max_pool2d(stage.bn1(stage.conv1(maps)), 2))
    torch.testing.assert_close(stage(maps), F.gelu(stage.bn2(stage.conv2(after))))


# the optimizers and the schedule


def names_of(net, group):
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


CONVOLUTIONS = {f"stages.{i}.conv{k}.weight" for i in range(3) for k in (1, 2)}
BIASES = {f"stages.{i}.bn{k}.bias" for i in range(3) for k in (1, 2)}


def test_each_parameter_has_the_optimizer_that_is_said():
    net = FastNet(10, SMALL)
    net.set_whitening(torch.rand(9, 3, 8, 8))
    sgd, muon = make_optimizers(net, SMALL)
    others, biases = sgd.param_groups
    assert names_of(net, muon.param_groups[0]) == CONVOLUTIONS
    assert names_of(net, biases) == BIASES
    assert names_of(net, others) == {"head.weight"}
    assert biases["lr"] == 64 * others["lr"]
    assert biases["lr"] * biases["weight_decay"] == pytest.approx(others["lr"] * others["weight_decay"])


def test_without_muon_sgd_has_them_all():
    net = FastNet(10, SMALL)
    net.set_whitening(torch.rand(9, 3, 8, 8))
    (sgd,) = make_optimizers(net, SMALL.without("muon", "fast biases"))
    others, biases = sgd.param_groups
    assert names_of(net, others) == {"head.weight", *CONVOLUTIONS}
    net = FastNet(10, SMALL.without("whitening"))
    assert names_of(net, make_optimizers(net, SMALL)[0].param_groups[0]) == {"head.weight", "whiten.weight"}
    assert biases["lr"] == others["lr"]


@pytest.mark.parametrize("shape", [(6, 6), (5, 30), (30, 5)])
def test_orthogonalize_drives_the_singular_values_towards_one_and_turns_nothing(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix, steps=5)
    inside = left.T @ found @ right.T  # diagonal if the directions stayed
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), atol=1e-4, rtol=0)
    assert values.max() / values.min() > 1.5
    assert 0.6 < inside.diagonal().min() <= inside.diagonal().max() < 1.2
    torch.testing.assert_close(orthogonalize(matrix), orthogonalize(matrix.T).T)


def test_orthogonalize_is_torchs_iteration():
    """torch.optim.Muon computes it in bfloat16, and takes matrices only."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 20))
    weight.grad = torch.randn(8, 20)
    before = weight.detach().clone()
    torch.optim.Muon([weight], lr=0.1, weight_decay=0, momentum=0.6, ns_steps=3).step()
    step = (before - weight.detach()) / 0.1
    torch.testing.assert_close(orthogonalize(weight.grad, steps=3), step, atol=0.03, rtol=0)


def test_muon_takes_orthogonal_steps_with_nesterovs_momentum_from_rows_of_length_one():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(3 * torch.randn(4, 2, 3, 3))
    optimizer = Muon([weight], lr=0.1, momentum=0.5)
    first, second = torch.randn(2, *weight.shape)
    expected = weight.detach().clone()
    for gradient, direction in ((first, 1.5 * first), (second, second + 0.5 * (second + 0.5 * first))):
        weight.grad = gradient.clone()
        optimizer.step()
        expected = 2 * expected / expected.norm() - 0.1 * orthogonalize(direction.flatten(1)).view(4, 2, 3, 3)
        torch.testing.assert_close(weight.detach(), expected)


def test_the_rate_rises_to_its_highest_and_falls_to_nothing():
    shares = [one_cycle(50)(step) for step in range(51)]
    assert shares[0] == 0.2
    assert shares[10] == max(shares) == 1
    assert shares[50] == 0
    assert all(a < b for a, b in pairwise(shares[:11]))
    assert all(a > b for a, b in pairwise(shares[10:]))
    assert one_cycle(1)(1) == 0


# the whole


def test_two_epochs_learn(trained):
    _, epochs = trained
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert epochs[1].accuracy > 0.4  # chance is 0.1
    assert epochs[1].train_loss < epochs[0].train_loss < 2.5
    assert 0 < epochs[0].seconds < epochs[1].seconds


def test_the_seed_decides_everything(trained):
    torch.manual_seed(99)
    net, epochs = train_fast(SMALL, part("train", 1000), part("test", 300), seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), trained[0].state_dict().values(), strict=True)
    )
    assert [epoch.accuracy for epoch in epochs] == [epoch.accuracy for epoch in trained[1]]
    other, _ = train_fast(SMALL, part("train", 1000), part("test", 300), seed=2)
    assert not torch.equal(other.head.weight, net.head.weight)


def test_the_whitening_filters_and_the_norms_weights_stay_as_they_were(trained):
    net, _ = trained
    assert torch.equal(net.whiten.weight[12:], -net.whiten.weight[:12])  # as it was set
    assert net.head.weight.grad is None  # nothing is left of the last step
    assert all(bool((stage.bn1.weight == 1).all()) for stage in net.stages)
    assert all(stage.bn1.momentum == stage.bn2.momentum == 0.4 for stage in net.stages)
    assert bool((net.stages[0].bn1.bias != 0).any())


def test_without_whitening_the_first_layer_learns():
    net, _ = train_fast(SMALL.without("whitening"), part("train", 200), part("test", 100))
    assert net.whiten.weight.requires_grad
    assert not torch.equal(net.whiten.weight[12:], -net.whiten.weight[:12])


def test_a_run_ends_at_the_accuracy_that_is_asked_for():
    _, epochs = train_fast(SMALL, part("train", 300), part("test", 100), until=0.05)
    assert len(epochs) == 1


def test_images_are_small_at_first_if_that_is_asked_for(calls):
    recipe = FastRecipe(3, widths=(4, 4, 4), batch_size=100, small_until=0.67)
    _, epochs = train_fast(recipe, part("train", 200), part("test", 50), until=0)
    assert [call.images.shape[-1] for call in calls if call.training] == [24] * 4 + [32] * 2
    assert [epoch.accuracy is None for epoch in epochs] == [True, True, False]  # nor is the run over before
    _, epochs = train_fast(replace(recipe, small_until=1), part("train", 100), part("test", 50))
    assert [epoch.accuracy is None for epoch in epochs] == [True, True, False]  # the last one counts in any case


def test_every_epoch_has_an_order_of_its_own_and_whole_batches(calls):
    train_fast(replace(SMALL, flip="none", padding=0), part("train", 100), part("test", 20))
    batches = [call.images for call in calls if call.training]
    assert [len(images) for images in batches] == [40] * 4
    assert not torch.equal(batches[0], batches[2])


@pytest.mark.parametrize("bf16", [False, True])
def test_bf16_is_as_asked_or_as_measured_and_evaluation_computes_as_the_training_does(calls, monkeypatch, bf16):
    monkeypatch.setattr(recipes, "bf16_is_faster", lambda: bf16)
    for asked in (bf16, None):
        calls.clear()
        train_fast(replace(SMALL, epochs=1, bf16=asked), part("train", 40), part("test", 20))
        assert {(call.training, call.autocast) for call in calls} == {(True, bf16), (False, bf16)}


@pytest.mark.parametrize(
    ("mirror", "shifts", "passes"), [(True, True, 6), (True, False, 2), (False, True, 3), (False, False, 1)]
)
def test_every_view_costs_a_pass(calls, mirror, shifts, passes):
    train_fast(replace(SMALL, epochs=1, mirror=mirror, shifts=shifts), part("train", 40), part("test", 20))
    assert sum(not call.training for call in calls) == passes


def test_labels_are_smoothed_in_training(monkeypatch):
    monkeypatch.setattr(
        recipes.F, "cross_entropy", lambda logits, labels, label_smoothing: logits.sum() * label_smoothing
    )
    _, sharp = train_fast(replace(SMALL, epochs=1, label_smoothing=0.0), part("train", 40), part("test", 20))
    _, smooth = train_fast(replace(SMALL, epochs=1, label_smoothing=0.3), part("train", 40), part("test", 20))
    assert sharp[0].train_loss == 0
    assert smooth[0].train_loss != 0


def test_the_augmentation_has_what_the_recipe_says():
    augment = FastRecipe(1, padding=3, cutout=6, flip="none").augmentation((0.1,) * 3, (0.2,) * 3)
    assert augment == BatchAugmentation(padding=3, cutout=6, flip="none", mean=(0.1,) * 3, std=(0.2,) * 3)


def test_every_trick_can_be_left_out():
    whole = FastRecipe(1)
    for trick, fields in TRICKS.items():
        ordinary = whole.without(trick)
        changed = {name for name in vars(whole) if getattr(whole, name) != getattr(ordinary, name)}
        assert changed == set(fields), trick
    assert whole.without("muon", "mirror") == FastRecipe(1, muon=False, mirror=False)
    with pytest.raises(ValueError, match="'luck' is not a trick of the recipe; they are muon, whitening"):
        whole.without("muon", "luck")


def test_what_is_left_out_is_not_done(calls, monkeypatch):
    rates = []
    step = Muon.step
    monkeypatch.setattr(Muon, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self)))
    recipe = FastRecipe(1, widths=(4, 4, 4), batch_size=40, bf16=True, small_until=0)
    train_fast(recipe, part("train", 200), part("test", 50))
    assert all(call.autocast and call.channels_last for call in calls)
    assert rates == pytest.approx([0.08 * share for share in (0.2, 1, 0.75, 0.5, 0.25)])
    calls.clear(), rates.clear()
    train_fast(recipe.without("bf16", "channels last", "one cycle"), part("train", 200), part("test", 50))
    assert not any(call.autocast or call.channels_last for call in calls)
    assert rates == [0.08] * 5


def test_bf16_is_taken_where_it_is_faster(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(recipes.time, "perf_counter", lambda: next(clock))
    assert not bf16_is_faster()  # both take 1 second
    monkeypatch.undo()
    convolution = F.conv2d

    def slow(images, *rest, **options):
        recipes.time.sleep(0.03 if images.dtype == torch.float32 else 0)
        return convolution(images, *rest, **options)

    monkeypatch.setattr(F, "conv2d", slow)
    assert bf16_is_faster()


def test_small_images_have_three_quarters_of_the_side():
    images = part("train", 6)
    small = shrunk(images)
    assert small.images.shape == (6, 3, 24, 24)
    assert small.images.dtype == torch.uint8
    assert small.targets == images.targets
    torch.testing.assert_close(small.images.float().mean(), images.images.float().mean(), rtol=0.02, atol=0)


def test_the_mirrored_answer_is_the_mean_of_both_sides(trained):
    net, _ = trained
    images = torch.randn(40, 3, 32, 32)
    labels = (net(images) + net(images.flip(3))).argmax(1).detach()
    assert accuracy(net, [(images, labels)], shifts=False) == 1
    assert accuracy(net, [(images.flip(3), labels)], shifts=False) == 1  # the same answer from either side
    assert accuracy(net, [(images, net(images).argmax(1))], mirror=False, shifts=False) == 1
    assert not net.training


def test_the_shifted_views_are_moved_by_a_pixel_and_count_as_much_as_the_images():
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    (_, whole), (half, down), (other_half, up) = views(images, mirror=False, shifts=True)
    assert whole is images
    assert half + other_half == 1
    assert torch.equal(down[..., 1:, 1:], images[..., :-1, :-1])
    assert torch.equal(up[..., :-1, :-1], images[..., 1:, 1:])
    assert down[0, 0, 0].tolist() == [5, 4, 5, 6]  # the border is a reflection: no black edge that training never showed
    six = views(images, mirror=True, shifts=True)
    assert [weight for weight, _ in six] == [1, 0.5, 0.5] * 2
    assert all(torch.equal(a.flip(3), b) for (_, a), (_, b) in zip(six[:3], six[3:], strict=True))


def test_the_answer_is_the_weighted_sum_over_the_views():
    def network(images):  # names the colour of the corner
        return F.one_hot(images[:, 0, 0, 0].long(), 10).float()

    network.eval = lambda: None
    images = torch.zeros(1, 1, 4, 4)
    images[..., 0, 0], images[..., 1, 1] = 3, 7  # both shifted views have the 7 in the corner
    assert accuracy(network, [(images, torch.tensor([3]))], mirror=False, shifts=False) == 1
    assert accuracy(network, [(images, torch.tensor([7]))], mirror=False, shifts=True) == 0  # 1 to 1: the first wins
    images[..., 0, 3] = 7  # the mirror image begins with the 7, too
    assert accuracy(network, [(images, torch.tensor([7]))], mirror=True, shifts=True) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs=0 must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number"),
        ({"widths": (8, 8)}, "widths=(8, 8) must be three numbers of channels"),
        ({"lr": 0}, "lr=0 must be a positive number"),
        ({"bias_rate": float("inf")}, "bias_rate=inf must be a positive number"),
        ({"muon_lr": float("nan")}, "muon_lr=nan must be a positive number"),
        ({"muon_momentum": 1}, "muon_momentum=1 must be at least 0 and less than 1"),
        ({"momentum": 1}, "momentum=1 must be at least 0 and less than 1"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1 must be at least 0 and less than 1"),
        ({"small_until": 2}, "small_until=2 must be at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay=nan must be at least 0"),
        ({"flip": "never"}, "flip='never' is unknown"),
        ({"padding": -1}, "padding=-1 must be"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        FastRecipe(**{"epochs": 1, **options})


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="train holds 30 images, fewer than batch_size=40"):
        train_fast(SMALL, part("train", 30), part("test", 10))


def test_from_a_shell_it_prints_an_epoch_a_line(monkeypatch, capsys):
    monkeypatch.setattr(recipes, "load_dataset", lambda name, split, download: part(split, 500))
    assert main(["--epochs", "1", "--widths", "4", "4", "4", "--without", "muon", "label smoothing"]) == 0
    assert re.fullmatch(r"epoch 1/1: \d+ s, loss \d\.\d{3}, accuracy 0\.\d{4}\n", capsys.readouterr().out)


def test_from_a_shell_the_flags_reach_the_recipe(monkeypatch):
    taken = []
    monkeypatch.setattr(recipes, "load_dataset", lambda name, split, download: part(split, 10))
    monkeypatch.setattr(recipes, "train_fast", lambda recipe, *images, **options: taken.append(recipe))
    flags = ["--epochs", "3", "--widths", "4", "5", "6", "--padding", "3", "--cutout", "7", "--without", "muon"]
    assert main(flags) == 0
    assert taken == [FastRecipe(3, widths=(4, 5, 6), padding=3, cutout=7, muon=False)]


def test_from_a_shell_a_missing_data_set_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DLCOURSE_DATA", str(tmp_path))
    assert main(["--data", "cifar10"]) == 1
    assert "cifar10 is not under" in capsys.readouterr().err
