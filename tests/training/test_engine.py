"""The loops: exact means, exact accumulation, unscaled clipping, and nothing applied that is not finite."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from training_helpers import linear_net, loaders, small_net

from dlcourse.training import NonFiniteLoss, evaluate, train_one_epoch
from dlcourse.training.batches import Means, windows


def batches(*sizes, classes=2):
    generator = torch.Generator().manual_seed(3)
    images = [torch.randn(size, 1, 6, 6, generator=generator) for size in sizes]
    return [(image, torch.randint(0, classes, (len(image),), generator=generator)) for image in images]


def one_batch(parts):
    return [(torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]))]


def trained(model, parts, *, lr=1.0, **options):
    """The model after one epoch of plain SGD: its change is −lr times the gradient it was given."""
    train_one_epoch(model, parts, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=lr), **options)
    return model


def change(model, start):
    return torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), start.parameters(), strict=True)]).detach()


class Weight(nn.Module):
    """Gives its input back times a weight of 1, so that a test chooses the losses by choosing the data."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, values):
        return values * self.weight


def mean_output(outputs, targets):
    return outputs.mean()


def test_the_plain_loop_is_the_same_thing():
    parts, ours, plain = batches(8, 8, 5), small_net(), small_net()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    torch.manual_seed(1)
    plain.train()
    for images, labels in parts:
        loss = F.cross_entropy(plain(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.manual_seed(1)
    train_one_epoch(ours, parts, F.cross_entropy, torch.optim.Adam(ours.parameters(), lr=0.01))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), plain.state_dict().values(), strict=True))


@pytest.mark.parametrize("run", ["train", "evaluate"])
def test_means_are_over_samples_not_over_batches(run):
    values = torch.cat([torch.full((48,), 0.1), torch.full((2,), 5.0)])
    parts = list(zip(values.split(16), values.split(16), strict=True))  # 16, 16, 16, 2
    model = Weight()
    if run == "train":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        result = train_one_epoch(model, parts, mean_output, optimizer, accumulate=3)
    else:
        result = evaluate(model, parts, mean_output)
    assert result == {"loss": pytest.approx(0.296, abs=1e-6)}  # the mean of the batches' means is 1.325


def test_accuracy_counts_samples_exactly():
    logits = torch.zeros(7, 2)
    logits[:, 1] = torch.tensor([1, 1, 1, 1, 1, -1, -1])
    labels = torch.tensor([1, 1, 1, 0, 1, 1, 0])
    parts = list(zip(logits.split(3), labels.split(3), strict=True))
    assert evaluate(Weight(), parts, F.cross_entropy)["accuracy"] == 5 / 7


@pytest.mark.parametrize(("count", "accumulate", "updates"), [(10, 4, 3), (8, 4, 2), (3, 5, 1), (5, 1, 5)])
def test_updates_are_the_ceiling_of_batches_by_window(count, accumulate, updates):
    model = linear_net()
    optimizer = torch.optim.Adam(model.parameters())
    train_one_epoch(model, batches(*[4] * count), F.cross_entropy, optimizer, accumulate=accumulate)
    assert optimizer.state[model[1].weight]["step"] == updates
    assert model[1].weight.grad is None  # nothing leaks into the next epoch


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 8, 3), (5,), (1, 7, 2)])
def test_an_accumulated_gradient_is_that_of_the_big_batch(sizes):
    torch.set_default_dtype(torch.float64)
    parts, start = [(x.double(), y) for x, y in batches(*sizes)], linear_net()
    windowed = change(trained(linear_net(), parts, accumulate=3), start)
    big = change(trained(linear_net(), one_batch(parts)), start)
    torch.testing.assert_close(windowed, big, rtol=1e-12, atol=1e-14)


def test_a_last_short_window_is_divided_by_its_own_size():
    torch.set_default_dtype(torch.float64)
    parts = [(x.double(), y) for x, y in batches(6, 6, 6, 2)]
    windowed = trained(linear_net(), parts, accumulate=3)
    by_hand = trained(trained(linear_net(), one_batch(parts[:3])), parts[3:])
    torch.testing.assert_close(change(windowed, by_hand), torch.zeros(74), rtol=0, atol=1e-14)


def test_with_batch_norm_accumulation_is_not_the_big_batch():
    parts, start = batches(8, 8), small_net(dropout=0.0)
    windowed = change(trained(small_net(dropout=0.0), parts, accumulate=2), start)
    big = change(trained(small_net(dropout=0.0), one_batch(parts)), start)
    assert (windowed - big).norm() / big.norm() > 0.05


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_clipping_sees_the_unscaled_gradient_of_all_parameters(scaled, clip_norm):
    parts, start = batches(8, 8), small_net(dropout=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14) if scaled else None
    free = change(trained(small_net(dropout=0.0), parts, accumulate=2), start)
    clipped = change(trained(small_net(dropout=0.0), parts, accumulate=2, scaler=scaler, clip_norm=clip_norm), start)
    torch.testing.assert_close(clipped.norm(), min(free.norm(), torch.tensor(clip_norm)), rtol=1e-3, atol=0)
    assert F.cosine_similarity(clipped, free, dim=0) > 0.9999  # one norm for all: the direction stays


def test_the_order_inside_a_step(monkeypatch):
    calls, model = [], linear_net()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    for owner, name in (
        (scaler, "scale"), (scaler, "unscale_"), (scaler, "step"), (scaler, "update"), (optimizer, "zero_grad"),
        (nn.utils, "clip_grad_norm_"),
    ):  # fmt: skip
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, _name=name, _original=original, **kw: (calls.append(_name), _original(*args, **kw))[1]
        )
    train_one_epoch(model, batches(4, 4), F.cross_entropy, optimizer, accumulate=2, scaler=scaler, clip_norm=1.0)
    assert calls == ["zero_grad", "scale", "scale", "unscale_", "clip_grad_norm_", "step", "update", "zero_grad"]


def test_gradients_from_before_do_not_count():
    parts, stale = batches(8), linear_net()
    F.cross_entropy(stale(parts[0][0]), parts[0][1]).backward()
    assert torch.equal(change(trained(stale, parts), trained(linear_net(), parts)), torch.zeros(74))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("accumulate", "step"), [(1, 4), (3, 2)])
def test_a_loss_that_is_not_finite_is_never_applied(bad, accumulate, step):
    model = Weight()
    parts = [(torch.full((2,), value), torch.zeros(2)) for value in (1.0, 2.0, 3.0, bad, 1.0)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5)
    with pytest.raises(NonFiniteLoss, match=f"epoch 7, step {step}; the step was not applied"):
        train_one_epoch(model, parts, mean_output, optimizer, accumulate=accumulate, epoch=7)
    after_three = Weight()
    optimizer_of_three = torch.optim.SGD(after_three.parameters(), lr=0.125, momentum=0.5)
    train_one_epoch(after_three, parts[:3], mean_output, optimizer_of_three, accumulate=accumulate)
    assert model.weight == after_three.weight
    assert model.weight.grad is None
    assert optimizer.state[model.weight] == optimizer_of_three.state[after_three.weight]


def test_precision_reaches_the_model_and_not_the_loss():
    seen, model = [], linear_net()
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))

    def loss_fn(outputs, targets):
        loss = F.cross_entropy(outputs, targets)
        seen.append(loss.dtype)
        return loss

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, batches(4), loss_fn, optimizer, amp="bf16")
    evaluate(model, batches(4), loss_fn, amp="bf16")
    train_one_epoch(model, batches(4), loss_fn, optimizer)
    assert seen == [torch.bfloat16, torch.float32] * 2 + [torch.float32] * 2
    with pytest.raises(ValueError, match="amp='half' is unknown; choose one of off, bf16, fp16"):
        evaluate(model, batches(4), loss_fn, amp="half")
    with pytest.raises(ValueError, match="needs scaler="):
        train_one_epoch(model, batches(4), loss_fn, optimizer, amp="fp16")


@pytest.mark.filterwarnings("error")
def test_fp16_trains_with_a_scaler():
    model = linear_net()
    start, parts = evaluate(model, batches(32), F.cross_entropy), batches(*[32] * 20)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for epoch in (1, 2):
        trained(model, parts, lr=0.1, amp="fp16", scaler=scaler, epoch=epoch)
    assert evaluate(model, parts, F.cross_entropy)["loss"] < start["loss"]


def test_evaluate_changes_nothing_and_restores_every_mode():
    model = small_net()
    model.train()
    model[1].eval()  # a frozen batch norm
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (evaluate(model, loaders()[1], F.cross_entropy) for _ in range(2))
    assert first == second  # no dropout
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())

    def broken(outputs, targets):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluate(model, loaders()[1], broken)
    assert model.training


def test_training_mode_is_set():
    model, seen = small_net().eval(), []
    model.register_forward_hook(lambda module, args, output: seen.append(module.training))
    trained(model, batches(4))
    assert seen == [True]


def test_regression_gives_a_loss_alone():
    inputs = torch.randn(20, 3)
    targets = inputs @ torch.tensor([[1.0], [2.0], [-1.0]])
    loader, model = DataLoader(TensorDataset(inputs, targets), 8), nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(60):
        result = train_one_epoch(model, loader, F.mse_loss, optimizer)
    assert set(result) == {"loss"}
    assert evaluate(model, loader, F.mse_loss)["loss"] < 1e-3
    assert evaluate(model, loader, F.l1_loss)["loss"] < 0.05


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_a_label_outside_the_classes_is_named_before_torch_sees_it(label):
    parts = batches(4, 4, 4)
    parts[2][1][1] = label
    message = rf"batch 3 holds the label {label}, outside the model's classes 0 … 1"
    with pytest.raises(ValueError, match=message):
        trained(linear_net(), parts, accumulate=2)
    with pytest.raises(ValueError, match=message):
        evaluate(linear_net(), parts, F.cross_entropy)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(4, 36), "batch 2 must be a pair of tensors .* gave a Tensor"),
        ((torch.zeros(4, 36),), r"gave a tuple of \(Tensor\)"),
        ((torch.zeros(2, 36), ("cat", "dog")), r"gave a tuple of \(Tensor, tuple\)"),
        ({"image": torch.zeros(4, 36)}, "gave a dict"),
        ((torch.zeros(4, 36), torch.zeros(3).long()), r"\(4, 36\) and \(3,\)"),
        ((torch.zeros(0, 36), torch.zeros(0).long()), "same number of samples"),
        ((torch.zeros(1, 36), torch.tensor(1)), "same number of samples"),
    ],
)
def test_a_batch_that_is_no_pair_is_named(batch, message):
    good = (torch.zeros(4, 36), torch.zeros(4).long())
    with pytest.raises(ValueError, match=message):
        trained(linear_net(), [good, batch])
    with pytest.raises(ValueError, match=message):
        evaluate(linear_net(), [good, batch], F.cross_entropy)


def test_an_empty_loader_is_an_error():
    with pytest.raises(ValueError, match="the loader is empty"):
        trained(linear_net(), [])
    with pytest.raises(ValueError, match="the loader is empty"):
        evaluate(linear_net(), [], F.cross_entropy)


def test_float_class_labels_are_an_error():
    with pytest.raises(RuntimeError):
        trained(linear_net(), [(torch.zeros(4, 36), torch.zeros(4))])


def test_windows_take_no_batch_before_it_is_needed():
    taken = []

    def source():
        for number in range(7):
            taken.append(number)
            yield number

    for window in windows(source(), 3):
        assert taken[-1] == window[-1]
    assert window == [6]


def test_the_epoch_reaches_the_sampler():
    class Shuffled(list):
        epochs = ()

        @property
        def sampler(self):
            return self

        def set_epoch(self, epoch):
            self.epochs += (epoch,)

    loader = Shuffled(batches(4))
    for epoch in (1, 2, 3):
        trained(linear_net(), loader, epoch=epoch)
    assert loader.epochs == (0, 1, 2)
    trained(linear_net(), loader)
    assert loader.epochs == (0, 1, 2), "without an epoch the order is the caller's"


def test_saved_means_go_on():
    logits, labels = torch.randn(9, 2), torch.randint(0, 2, (9,))
    whole, first, second = Means(), Means(), Means()
    for part, (outputs, targets) in enumerate(zip(logits.split(4), labels.split(4), strict=True)):
        loss = F.cross_entropy(outputs, targets)
        whole.add(loss, outputs, targets)
        (first if part < 1 else second).add(loss, outputs, targets)
        if part == 0:
            second.load_state_dict(first.state_dict())
    assert second.result() == whole.result()
    assert second.state_dict() == whole.state_dict()


def test_a_model_without_parameters_is_evaluated_on_the_cpu():
    assert evaluate(nn.Identity(), [(torch.eye(2), torch.tensor([0, 1]))], F.cross_entropy)["accuracy"] == 1
