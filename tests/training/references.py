"""How far the course's hand-written training parts are from their reference implementations: the largest difference.

    python tests/training/references.py

The tests hold each of them; this prints the figures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.ops import sigmoid_focal_loss
from torchvision.transforms import v2

from dlcourse.data import cutmix, load_dataset, make_loader, mixup
from dlcourse.models import create_model
from dlcourse.training import FocalLoss, Trainer, TrainerConfig, smoothed_cross_entropy, train_one_epoch
from dlcourse.training.callbacks import Callback
from dlcourse.training.schedules import make_scheduler

SEEDS = range(50)


def far(mine: Tensor, reference: Tensor) -> float:
    return float((mine - reference).abs().max())


def with_gradients(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """The loss and its gradient in one vector."""
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return torch.cat([value.detach().reshape(1), gradient.flatten()])


def mixing(ours: Callable[..., tuple[Tensor, Tensor]], theirs: type, alpha: float) -> float:
    images, labels = torch.rand(16, 3, 33, 47), torch.arange(16) % 10
    largest = 0.0
    for seed in SEEDS:
        torch.manual_seed(seed)
        mine = ours(images, labels, 10, alpha)
        torch.manual_seed(seed)
        reference = theirs(alpha=alpha, num_classes=10)(images, labels)
        largest = max(largest, *(far(a, b) for a, b in zip(mine, reference, strict=True)))
    return largest


def smoothing() -> float:
    logits, labels = 5 * torch.randn(64, 10, dtype=torch.float64), torch.randint(10, (64,))
    return max(
        far(
            with_gradients(lambda z, s=s: smoothed_cross_entropy(z, labels, smoothing=s), logits),
            with_gradients(lambda z, s=s: F.cross_entropy(z, labels, label_smoothing=s), logits),
        )
        for s in (0.0, 0.05, 0.1, 0.3, 0.9)
    )


def focal() -> float:
    z, labels = 5 * torch.randn(64, 1, dtype=torch.float64), torch.randint(2, (64,))
    return max(
        far(
            with_gradients(
                lambda z, g=g, a=a: FocalLoss(g, [1 - a, a])(torch.cat([torch.zeros_like(z), z], 1), labels), z
            ),
            with_gradients(lambda z, g=g, a=a: sigmoid_focal_loss(z[:, 0], labels.double(), a, g, "mean"), z),
        )
        for g in (0.0, 1.0, 2.0, 5.0)
        for a in (0.25, 0.5, 0.75)
    )


def schedules(steps: int = 300) -> Iterator[tuple[str, float]]:
    """Rates of two groups over a whole run, relative to the group's own."""
    pairs = {
        "step decay / MultiStepLR": (
            lambda o: make_scheduler("step_decay", o, milestones=[100, 200], gamma=0.1),
            lambda o: lr_scheduler.MultiStepLR(o, [100, 200], 0.1),
        ),
        "exponential / ExponentialLR": (
            lambda o: make_scheduler("exponential", o, gamma=0.99),
            lambda o: lr_scheduler.ExponentialLR(o, 0.99),
        ),
        "cosine / CosineAnnealingLR": (
            lambda o: make_scheduler("cosine", o, total_steps=steps),
            lambda o: lr_scheduler.CosineAnnealingLR(o, steps),
        ),
        "warm restarts / CosineAnnealingWarmRestarts": (
            lambda o: make_scheduler("warm_restarts", o, cycle_steps=40, factor=2),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 40, 2),
        ),
        "one cycle / OneCycleLR": (
            lambda o: make_scheduler("one_cycle", o, total_steps=steps),
            lambda o: lr_scheduler.OneCycleLR(o, [0.3, 0.03], total_steps=steps, cycle_momentum=False),
        ),
        "warmup + cosine / SequentialLR(LinearLR, CosineAnnealingLR)": (
            lambda o: make_scheduler("warmup_cosine", o, warmup_steps=20, total_steps=steps),
            lambda o: lr_scheduler.SequentialLR(
                o,
                [lr_scheduler.LinearLR(o, 1 / 20, 1, 19), lr_scheduler.CosineAnnealingLR(o, steps - 20)],
                [20],
            ),
        ),
    }
    for name, makers in pairs.items():
        optimizers = [
            torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.3, 0.03)]) for _ in makers
        ]
        ours, theirs = (make(optimizer) for make, optimizer in zip(makers, optimizers, strict=True))
        largest = 0.0
        for _ in range(steps - 1):
            for optimizer, scheduler in zip(optimizers, (ours, theirs), strict=True):
                optimizer.step()
                scheduler.step()
            rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
            largest = max(largest, *(abs(a - b) / own for a, b, own in zip(*rates, (0.3, 0.03), strict=True)))
        yield name, largest


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)).double()


def batches(count: int, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    dataset = load_dataset("fashion-mini", "train")
    loader = iter(make_loader(dataset, size))
    return [(images.double(), labels) for images, labels in (next(loader) for _ in range(count))]


def moving_average() -> float:
    """The Trainer's average against torch's AveragedModel and against the sum written out."""
    snapshots: list[dict[str, Tensor]] = []

    class Snapshot(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            snapshots.append({k: v.clone() for k, v in trainer.model.state_dict().items()})

    model, data = small_net(), batches(12)
    start = copy.deepcopy(model)
    config = TrainerConfig(epochs=2, ema=0.9, restore_best=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    trainer = Trainer(model, optimizer, F.cross_entropy, config=config, callbacks=[Snapshot()], device="cpu")
    trainer.fit(data, data[:2])
    reference = AveragedModel(start, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for weights in snapshots:
        start.load_state_dict(weights)
        reference.update_parameters(start)
    average, wanted = trainer.evaluated_model.state_dict(), reference.module.state_dict()
    written_out = by_hand_average(snapshots)
    return max(max(far(average[k], wanted[k]), far(average[k], written_out[k])) for k in written_out)


def by_hand_average(snapshots: list[dict[str, Tensor]], decay: float = 0.9) -> dict[str, Tensor]:
    """The first snapshot, then decay · average + (1 − decay) · weights at each step."""
    average = {k: v for k, v in snapshots[0].items() if v.is_floating_point()}
    for weights in snapshots[1:]:
        average = {k: decay * v + (1 - decay) * weights[k] for k, v in average.items()}
    return average


def accumulation() -> float:
    """A window of four ragged batches against one large batch, without batch norm: the weights after a step."""
    data = [(images[: 16 - 3 * i], labels[: 16 - 3 * i]) for i, (images, labels) in enumerate(batches(4))]
    together = [tuple(torch.cat(parts) for parts in zip(*data, strict=True))]
    weights = []
    for loader, window in ((data, 4), (together, 1)):
        model = create_model("simple_cnn", num_classes=10).double()
        torch.manual_seed(1)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.05)
        train_one_epoch(model, loader, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=1.0), accumulate=window)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return far(*weights)


def main() -> None:
    torch.manual_seed(0)
    rows = [
        ("Mixup / v2.MixUp (float32, 50 seeds)", mixing(mixup, v2.MixUp, 0.2)),
        ("CutMix / v2.CutMix (float32, 50 seeds)", mixing(cutmix, v2.CutMix, 1.0)),
        ("label smoothing / CrossEntropyLoss (float64, loss and gradient)", smoothing()),
        ("focal loss / sigmoid_focal_loss (float64, loss and gradient)", focal()),
        *((f"{name} (relative)", value) for name, value in schedules()),
        ("EMA of the Trainer / AveragedModel and by hand (float64, 24 steps)", moving_average()),
        ("accumulated / one large batch (float64, weights after a step)", accumulation()),
    ]
    for name, value in rows:
        print(f"{name:72} {value:.1e}")


if __name__ == "__main__":
    main()
