"""The schedules equal torch's and timm's over a whole run, hold at their edges, and are stepped at their right time."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from training_helpers import loaders, small_net

from dlcourse.training import Callback, Trainer, TrainerConfig, make_scheduler
from dlcourse.training import schedules as s

ONE_CYCLE = {"max_lr": 1.0, "total_steps": 50, "cycle_momentum": False}


def optimizer(*rates):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (1.0,)])


def rates_of(scheduler, steps):
    """The rate of the first group before each step."""
    seen = []
    for _ in range(steps):
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def warmup_of_torch(opt):
    warmup = lr_scheduler.LinearLR(opt, start_factor=1 / 10, end_factor=1.0, total_iters=9)  # 1/10 at 0, 1 at 9
    return lr_scheduler.SequentialLR(opt, [warmup, lr_scheduler.CosineAnnealingLR(opt, 40, eta_min=0.02)], milestones=[10])


PARITY = {
    "step_decay": (
        lambda n: s.step_decay(n, milestones=(10, 25, 25), gamma=0.3),
        lambda opt: lr_scheduler.MultiStepLR(opt, [10, 25, 25], 0.3),
    ),
    "exponential": (lambda n: s.exponential(n, gamma=0.9), lambda opt: lr_scheduler.ExponentialLR(opt, 0.9)),
    "cosine": (
        lambda n: s.cosine(n, total_steps=50, min_ratio=0.1),
        lambda opt: lr_scheduler.CosineAnnealingLR(opt, 50, eta_min=0.1),
    ),
    "warm_restarts": (
        lambda n: s.warm_restarts(n, cycle_steps=7, factor=2, min_ratio=0.05),
        lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 7, 2, eta_min=0.05),
    ),
    "warm_restarts of one length": (
        lambda n: s.warm_restarts(n, cycle_steps=6),
        lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 6),
    ),
    "one_cycle": (lambda n: s.one_cycle(n, total_steps=50), lambda opt: lr_scheduler.OneCycleLR(opt, **ONE_CYCLE)),
    "one_cycle with its top between two steps": (
        lambda n: s.one_cycle(n, total_steps=50, rising=0.25, start_ratio=0.1, end_ratio=0.001),
        lambda opt: lr_scheduler.OneCycleLR(opt, **ONE_CYCLE, pct_start=0.25, div_factor=10, final_div_factor=100),
    ),
    "constant": (
        lambda n: s.constant(n, warmup_steps=10),
        lambda opt: lr_scheduler.LinearLR(opt, start_factor=1 / 10, total_iters=9),
    ),
    "warmup_cosine": (lambda n: s.warmup_cosine(n, warmup_steps=10, total_steps=50, min_ratio=0.02), warmup_of_torch),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # torch's own SequentialLR calls it so
@pytest.mark.parametrize("name", PARITY)
def test_equal_to_torch_over_a_whole_run(name):
    ours, theirs = PARITY[name]
    largest = max(abs(ours(n) - rate) for n, rate in enumerate(rates_of(theirs(optimizer()), 50)))
    assert largest < 1e-12


def test_equal_to_timm_from_the_end_of_the_warmup_on():
    """timm's own warmup starts elsewhere (at warmup_lr_init) and would be at 1 a step later; then both are one cosine."""
    opt = optimizer()
    theirs = CosineLRScheduler(opt, t_initial=40, lr_min=0.02, warmup_t=10, warmup_lr_init=0.1, warmup_prefix=True, t_in_epochs=False)
    largest = 0.0
    for n in range(10, 60):
        theirs.step_update(n)
        ours = s.warmup_cosine(n, warmup_steps=10, total_steps=50, min_ratio=0.02)
        largest = max(largest, abs(ours - opt.param_groups[0]["lr"]))
    assert largest < 1e-12


def test_warmup_cosine_by_hand():
    table = [0.25, 0.5, 0.75, 1.0, 1.0, 0.2 + 0.8 * (2 + math.sqrt(2)) / 4, 0.6, 0.2 + 0.8 * (2 - math.sqrt(2)) / 4, 0.2, 0.2]
    ours = [s.warmup_cosine(n, warmup_steps=4, total_steps=8, min_ratio=0.2) for n in range(10)]
    assert ours == pytest.approx(table, abs=1e-12)


def test_a_run_of_one_step():
    assert s.cosine(0, total_steps=1) == s.warmup_cosine(0, warmup_steps=0, total_steps=1) == s.one_cycle(0, total_steps=1) == 1
    assert s.warm_restarts(5, cycle_steps=1) == s.constant(0, warmup_steps=1) == s.constant(0) == 1


@pytest.mark.parametrize("rising", [0.0, 0.01, 0.1, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("total", [1, 2, 3, 10])
def test_one_cycle_that_leaves_hardly_a_step_up_or_down(rising, total):
    ratios = [s.one_cycle(n, total_steps=total, rising=rising) for n in range(total + 3)]
    assert all(0 < ratio <= 1 for ratio in ratios)
    assert ratios[total - 1 :] == [ratios[total - 1]] * 4
    if rising * total <= 1:
        assert ratios[0] == 1
    if total > 1:
        assert ratios[-1] == pytest.approx(1 / 25e4)


@pytest.mark.parametrize(
    ("ratio", "end"),
    [
        (lambda n: s.cosine(n, total_steps=10, min_ratio=0.1), 0.1),
        (lambda n: s.warmup_cosine(n, warmup_steps=3, total_steps=10), 0.0),
        (lambda n: s.one_cycle(n, total_steps=10), 1 / 25e4),
    ],
)
def test_past_the_end_the_ratio_stays(ratio, end):
    assert [ratio(n) for n in (10, 11, 15, 1000)] == pytest.approx([end] * 4, abs=1e-12)


@given(
    step=st.integers(0, 500), total=st.integers(1, 200), part=st.floats(0, 1, exclude_max=True), low=st.floats(0, 1),
    factor=st.integers(1, 4),
)  # fmt: skip
def test_a_ratio_lies_between_0_and_1(step, total, part, low, factor):
    warmup = int(part * total)
    ratios = [
        s.constant(step, warmup_steps=warmup),
        s.step_decay(step, milestones=(warmup, total), gamma=low),
        s.exponential(step, gamma=low),
        s.cosine(step, total_steps=total, min_ratio=low),
        s.warmup_cosine(step, warmup_steps=warmup, total_steps=total, min_ratio=low),
        s.warm_restarts(step, cycle_steps=total, factor=factor, min_ratio=low),
        s.one_cycle(step, total_steps=total, rising=part, start_ratio=low, end_ratio=low / 2),
    ]
    assert all(-1e-12 <= ratio <= 1 + 1e-12 for ratio in ratios)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("warmup-cosine", {}, "there is no schedule 'warmup-cosine'; did you mean 'warmup_cosine'?"),
        ("onecycle", {}, "did you mean 'one_cycle'?"),
        ("zzz", {}, "did you mean 'constant' or 'step_decay' or .* 'plateau'?"),
        ("cosine", {"total_steps": 5, "eta_min": 0}, "cosine has no option 'eta_min'; it takes total_steps, min_ratio"),
        ("plateau", {"verbose": True}, "plateau has no option 'verbose'; it takes mode, factor, patience"),
        ("warmup_cosine", {"warmup_steps": 5}, "warmup_cosine needs total_steps=…"),
        ("cosine", {"total_steps": 0}, "total_steps=0 must be at least 1: epochs × steps an epoch"),
        ("warmup_cosine", {"warmup_steps": 5, "total_steps": 5}, "warmup_steps=5 must be at least 0 and less than total_steps=5"),
        ("warmup_cosine", {"warmup_steps": -1, "total_steps": 5}, "warmup_steps=-1 must be at least 0"),
        ("warmup_cosine", {"warmup_steps": 0, "total_steps": 0}, "less than total_steps=0"),
        ("warm_restarts", {"cycle_steps": 0}, "cycle_steps=0 and factor=1 must both be at least 1"),
        ("warm_restarts", {"cycle_steps": 4, "factor": 0}, "cycle_steps=4 and factor=0 must both be at least 1"),
        ("one_cycle", {"total_steps": 0}, "total_steps=0 must be at least 1"),
        ("one_cycle", {"total_steps": 9, "rising": 1.0}, "rising=1.0 at least 0 and less than 1"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_an_error_at_once(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_scheduler(name, optimizer(), **options)


def test_groups_keep_their_ratios():
    opt = optimizer(1.0, 0.1, 0.01)
    scheduler = make_scheduler("warmup_cosine", opt, warmup_steps=3, total_steps=9)
    for n in range(9):
        ratio = s.warmup_cosine(n, warmup_steps=3, total_steps=9)
        assert [group["lr"] for group in opt.param_groups] == pytest.approx([ratio, 0.1 * ratio, 0.01 * ratio])
        opt.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("name", "options"), [("warmup_cosine", {"warmup_steps": 3, "total_steps": 12}), ("plateau", {"patience": 0})]
)
def test_a_state_dict_carries_on(name, options):
    def step(scheduler, opt, n):
        opt.step()
        scheduler.step(*([n] if name == "plateau" else []))
        return opt.param_groups[0]["lr"]

    whole, again = optimizer(0.3), optimizer(0.3)
    scheduler, other = make_scheduler(name, whole, **options), make_scheduler(name, again, **options)
    for n in range(5):
        step(scheduler, whole, n)
    again.load_state_dict(whole.state_dict())
    other.load_state_dict(scheduler.state_dict())
    assert [step(other, again, n) for n in range(5, 12)] == [step(scheduler, whole, n) for n in range(5, 12)]


def test_a_loaded_state_does_not_change_the_length():
    old = make_scheduler("cosine", optimizer(), total_steps=10)
    longer = make_scheduler("cosine", optimizer(), total_steps=20)
    longer.load_state_dict(old.state_dict())
    assert longer.total_steps == 20


class Rates(Callback):
    """The rate that each update was made with: read by a hook of the optimizer, before the step."""

    def __init__(self):
        self.used = []

    def on_fit_start(self, trainer):
        self.hook = trainer.optimizer.register_step_pre_hook(lambda opt, *_: self.used.append(opt.param_groups[0]["lr"]))

    def on_fit_end(self, trainer):
        self.hook.remove()


def run(make, *, folder=None, callbacks=(), **config):
    """A training of 2 epochs of 6 batches; returns the trainer and the rates used."""
    model, rates = small_net(), Rates()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = TrainerConfig(**{"epochs": 2, "checkpoint_dir": folder, **config})
    trainer = Trainer(model, opt, F.cross_entropy, make(opt), config=settings, callbacks=[rates, *callbacks], device="cpu")
    return trainer, rates


BY_STEP = {
    "constant": {"warmup_steps": 4},
    "step_decay": {"milestones": (3, 8)},
    "exponential": {"gamma": 0.8},
    "cosine": {"total_steps": 12},
    "warmup_cosine": {"warmup_steps": 4, "total_steps": 12},
    "warm_restarts": {"cycle_steps": 5},
    "one_cycle": {"total_steps": 12},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BY_STEP)
def test_the_trainer_steps_a_schedule_after_each_update(name):
    trainer, rates = run(lambda opt: make_scheduler(name, opt, **BY_STEP[name]))
    assert trainer.scheduler_interval == "step"
    trainer.fit(*loaders())
    assert rates.used == pytest.approx([0.1 * s.SCHEDULES[name](n, **BY_STEP[name]) for n in range(12)])


@pytest.mark.filterwarnings("error")
def test_accumulation_counts_updates_not_batches():
    trainer, rates = run(lambda opt: make_scheduler("cosine", opt, total_steps=4), accumulate=4)  # 6 batches: 2 updates
    trainer.fit(*loaders())
    assert rates.used == pytest.approx([0.1 * s.cosine(n, total_steps=4) for n in range(4)])


@pytest.mark.filterwarnings("error")
def test_the_trainer_steps_torchs_schedules_once_an_epoch_but_onecycle_each_update():
    trainer, rates = run(lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=2))
    trainer.fit(*loaders())
    assert rates.used == pytest.approx([0.1] * 6 + [0.05] * 6)
    cycle = {"max_lr": 0.1, "total_steps": 12, "cycle_momentum": False}
    trainer, rates = run(lambda opt: lr_scheduler.OneCycleLR(opt, **cycle))
    trainer.fit(*loaders())
    assert rates.used == pytest.approx([0.1 * s.one_cycle(n, total_steps=12) for n in range(12)])


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_plateau_steps_once_an_epoch_with_the_monitored_metric(monitor):
    mode = {"val_loss": "min", "val_accuracy": "max"}[monitor]
    make = lambda opt: make_scheduler("plateau", opt, mode=mode, factor=0.5, patience=0, threshold=10.0, threshold_mode="abs")  # noqa: E731
    trainer, rates = run(make, monitor=monitor, epochs=3)
    history = trainer.fit(*loaders())
    assert trainer.scheduler_interval == "epoch"
    assert rates.used == pytest.approx([0.1] * 12 + [0.05] * 6)  # the second epoch is not better by 10
    assert trainer.scheduler.best == history[monitor][0]


@pytest.mark.parametrize(
    ("make", "config", "message"),
    [
        (lambda o: make_scheduler("plateau", o, mode="max"), {}, "mode='max', but monitor='val_loss' is better the lower it is: give it mode='min'"),
        (lambda o: make_scheduler("plateau", o), {"monitor": "val_accuracy"}, "better the higher it is: give it mode='max'"),
        (lambda o: make_scheduler("plateau", o), {"scheduler_interval": "step"}, "waits for an epoch's metric"),
        (lambda o: lr_scheduler.OneCycleLR(o, **ONE_CYCLE), {"scheduler_interval": "epoch"}, "OneCycleLR is made to step after each update"),
        (lambda o: make_scheduler("cosine", o, total_steps=9), {"scheduler_interval": "epoch"}, "is made to step after each update"),
    ],
)  # fmt: skip
def test_a_schedule_at_the_wrong_time_or_of_the_wrong_mode_is_an_error(make, config, message):
    with pytest.raises(ValueError, match=message):
        run(make, **config)


@pytest.mark.parametrize(
    ("total", "message"),
    [(20, "made for 20 steps, but this run makes 12: it ends before the rate is down"), (7, "its last part runs at the final rate")],
)
def test_a_schedule_of_another_length_warns_where_fit_is_called(total, message):
    trainer, _ = run(lambda opt: make_scheduler("cosine", opt, total_steps=total))
    with pytest.warns(UserWarning, match=message) as caught:
        trainer.fit(*loaders())
    assert caught[0].filename == __file__


def test_a_onecycle_that_would_break_off_the_run_is_an_error_before_the_first_step():
    trainer, rates = run(lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=7, cycle_momentum=False))
    with pytest.raises(ValueError, match="made for 7 steps, but this run makes 12: OneCycleLR would raise an error after step 7"):
        trainer.fit(*loaders())
    assert rates.used == []


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "options"), [("warmup_cosine", {"warmup_steps": 4, "total_steps": 18}), ("plateau", {"patience": 0, "threshold": 0.5})]
)
def test_a_resumed_run_keeps_the_schedule_bit_for_bit(tmp_path, name, options, capsys):
    def make(opt):
        return make_scheduler(name, opt, **options)

    whole, all_rates = run(make, epochs=3)
    whole.fit(*loaders())
    first, before = run(make, epochs=3, folder=tmp_path, callbacks=[Stop(8)])
    first.fit(*loaders())
    second, after = run(make, epochs=3, folder=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.resume(tmp_path / "last.pt").fit(*loaders())
    assert before.used + after.used == all_rates.used
    assert all(torch.equal(a, b) for a, b in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True))
