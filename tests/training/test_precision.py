"""Mixed precision: bf16 and fp16 through one code, and a scaler that says when it fails for good."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from dlcourse.training import NonFiniteLoss, Trainer, TrainerConfig, train_one_epoch
from dlcourse.training.batches import Means
from dlcourse.training.callbacks import Callback
from dlcourse.training.engine import autocast, check_precision, train_step

CPU = torch.device("cpu")


def points(count: int = 96) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 8, generator=generator)
    labels = (inputs[:, 0] > 0).long() + 2 * (inputs[:, 1] > 0).long()
    return list(zip(inputs.split(16), labels.split(16), strict=True))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


class Watch(Callback):
    def __init__(self):
        self.dtypes, self.rates = set(), []

    def on_fit_start(self, trainer):
        trainer.model[0].register_forward_hook(lambda module, args, output: self.dtypes.add(output.dtype))

    def on_step_end(self, trainer):
        self.rates.append(trainer.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(("amp", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_every_precision_runs_and_learns_the_same(amp, dtype):
    model, watch = mlp(), Watch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    config = TrainerConfig(epochs=25, amp=amp)
    history = Trainer(model, optimizer, F.cross_entropy, config=config, callbacks=[watch], device=CPU).fit(
        points(), points()
    )
    assert watch.dtypes == {dtype}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert history["val_accuracy"][-1] > 0.95


def test_fp16_needs_a_scaler_in_a_loop_of_ones_own():
    with pytest.raises(ValueError, match="amp='fp16' needs scaler=torch.amp.GradScaler"):
        train_one_epoch(mlp(), points(), F.cross_entropy, torch.optim.SGD(mlp().parameters(), lr=0.1), amp="fp16")


def test_the_scale_leaves_the_step_as_it_is():
    """Scaled by 2^10 and unscaled again is exact; so is clipping, which sees the unscaled gradient."""
    steps = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        train_step(model, points()[:1], F.cross_entropy, optimizer, Means(), clip_norm=0.1, scaler=scaler)
        steps.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-6, atol=1e-8)
    moved = steps[0] - torch.cat([p.detach().flatten() for p in mlp().parameters()])
    assert float(moved.norm()) == pytest.approx(0.1, rel=1e-4)


def test_gradients_that_keep_overflowing_end_the_run_with_a_reason():
    model = mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)

    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    def loss_fn(outputs, targets):
        return F.cross_entropy(Explodes.apply(outputs).float(), targets)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NonFiniteLoss, match=r"still overflow at epoch 1, step 5, although the loss scale fell below 1"):
        train_one_epoch(model, points(), loss_fn, optimizer, amp="fp16", scaler=scaler, epoch=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_skipped_step_leaves_schedule_and_weights_alone():
    model, watch = mlp(), Watch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    config = TrainerConfig(epochs=1, amp="fp16", scheduler_interval="step", restore_best=False)
    trainer = Trainer(model, optimizer, F.cross_entropy, scheduler, config=config, callbacks=[watch], device=CPU)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    trainer.fit(points(), points())
    skipped = watch.rates.count(0.1)
    assert 0 < skipped < 6
    assert watch.rates[skipped:] == [0.1 * 0.5**n for n in range(1, 7 - skipped)]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_the_cpu_has_every_precision(amp):
    check_precision(amp, CPU)
    with pytest.raises(ValueError, match="amp='fp8' is unknown; choose one of off, bf16, fp16"):
        autocast(CPU, "fp8")
