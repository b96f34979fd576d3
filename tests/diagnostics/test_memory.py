"""The memory account: each part exact, the peak as measured, and nothing about the model moved."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlcourse.diagnostics import memory_account, peak_memory
from dlcourse.models import create_model
from dlcourse.training import checkpoint_activations, freeze

IMAGES = torch.rand(4, 3, 32, 32)


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 16 * 16, 10),
    )  # fmt: skip


def kept_bytes(model: nn.Module, images: torch.Tensor, amp: bool = False) -> int:
    """What the graph of a real forward pass keeps, the batch included, the model's own tensors not."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {images.untyped_storage().data_ptr(): images.untyped_storage()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # alive, so that its address is not given away again
        return tensor.detach()

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=amp),
    ):
        output = model.train()(images)
    assert output.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("make", [small_cnn, lambda: create_model("resnet18", 10, stem="cifar")])
def test_activations_are_what_a_real_forward_pass_keeps(make, amp):
    model = make()
    predicted = memory_account(model, IMAGES, amp=amp).activations
    assert predicted == pytest.approx(kept_bytes(model, IMAGES, amp == "bf16"), rel=0.001)
    eight = memory_account(model, torch.rand(8, 3, 32, 32), amp=amp).activations
    sixteen = memory_account(model, torch.rand(16, 3, 32, 32), amp=amp).activations
    assert sixteen - eight == pytest.approx(2 * (eight - predicted), rel=0.001)  # a line


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
        (lambda p: torch.optim.AdamW(p, lr=0.1), 2),
    ],
    ids=["sgd", "momentum", "adamw"],
)
def test_weights_gradients_and_the_optimizers_numbers(make, numbers):
    model = small_cnn()
    weights = 4 * sum(p.numel() for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    account = memory_account(model, IMAGES, make(model.parameters()))
    assert account.parameters == weights + buffers
    assert account.gradients == weights
    assert account.optimizer == pytest.approx(numbers * weights, abs=64)  # Adam counts its steps, once a parameter
    assert account.total == account.parameters + account.gradients + account.optimizer + account.activations
    assert account.peak >= account.parameters + account.optimizer + account.activations


def test_what_is_frozen_has_neither_gradient_nor_state():
    model = create_model("resnet18", 10, stem="cifar")
    optimizer = torch.optim.Adam(model.parameters())
    freeze(model)
    account = memory_account(model, IMAGES, optimizer)
    head = sum(p.nbytes for p in model.fc.parameters())
    assert account.gradients == head
    assert account.optimizer == pytest.approx(2 * head, abs=64)
    assert account.activations < memory_account(create_model("resnet18", 10, stem="cifar"), IMAGES).activations / 10


def test_shared_weights_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    account = memory_account(Tied(), torch.rand(2, 64), torch.optim.SGD(Tied().parameters(), lr=0.1))
    assert account.parameters == account.gradients == 4 * (64 * 64 + 2 * 64)


def test_checkpointing_keeps_less():
    model = create_model("resnet18", 10, stem="cifar")
    before = memory_account(model, IMAGES).activations
    checkpoint_activations(model, "layer1", "layer2")
    assert memory_account(model, IMAGES).activations < 0.6 * before


@pytest.mark.parametrize("lean", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize(
    ("name", "options", "shape", "blocks"),
    [
        ("resnet18", {"stem": "cifar"}, (16, 3, 32, 32), ("layer1", "layer2", "layer3", "layer4")),
        ("mobilenet_v2", {}, (8, 3, 64, 64), ("features",)),  # its first blocks are much larger than the rest
        ("vit_tiny_patch16", {"img_size": 32, "patch_size": 4}, (16, 3, 32, 32), ("blocks",)),
    ],
)
def test_the_predicted_peak_is_the_measured_one_within_15_percent(name, options, shape, blocks, lean):
    torch.manual_seed(0)
    model = create_model(name, 10, **options)
    if lean:
        checkpoint_activations(model, *blocks)
    images, labels = torch.rand(shape), torch.arange(shape[0]) % 10
    optimizer = torch.optim.AdamW(model.parameters())
    for amp in ("off", "bf16"):
        predicted = memory_account(model, images, optimizer, amp=amp).peak
        assert peak_memory(model, images, labels, F.cross_entropy, optimizer, amp=amp) == pytest.approx(
            predicted, rel=0.15
        )


def test_a_model_that_is_all_frozen_has_an_account():
    model = small_cnn()
    for parameter in model.parameters():
        parameter.requires_grad = False
    account = memory_account(model, IMAGES, torch.optim.SGD(model.parameters(), lr=0.1))
    assert account.gradients == account.optimizer == 0
    assert account.peak >= account.parameters + IMAGES.nbytes


def test_nothing_about_model_and_optimizer_changes():
    model = small_cnn()
    model[1].eval()
    optimizer = torch.optim.AdamW(model.parameters())
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    memory_account(model, IMAGES, optimizer)
    assert torch.equal(torch.rand(3), drawn)
    peak_memory(model, IMAGES, torch.arange(4), F.cross_entropy, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert not optimizer.state
    assert all(p.grad is None for p in model.parameters())
