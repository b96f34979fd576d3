"""The Trainer: what each setting does, the best weights, and clear errors."""

import contextlib
import csv
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset
from training_helpers import Points, assert_same_weights, linear_net, loaders, make_trainer, small_net

from dlcourse.training import (
    Callback,
    CheckpointError,
    History,
    NonFiniteLoss,
    Trainer,
    TrainerConfig,
    evaluate,
    load_checkpoint,
    load_weights,
    train_one_epoch,
)


class Record(Callback):
    """What happened, and the weights after each step and each epoch."""

    def __init__(self):
        self.steps, self.epochs, self.rates, self.moments = [], [], [], []

    def on_fit_start(self, trainer):
        self.moments.append("start")

    def on_step_end(self, trainer):
        self.steps.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        self.rates.append(trainer.optimizer.param_groups[0]["lr"])

    def on_epoch_end(self, trainer, record):
        self.epochs.append({name: tensor.clone() for name, tensor in trainer.evaluated_model.state_dict().items()})

    def on_fit_end(self, trainer):
        self.moments.append("end")


def same(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_trainer_is_the_loop():
    trainer = make_trainer(schedule=False, restore_best=False, seed=5)
    history = trainer.fit(*loaders())
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(5)
    train_loader, val_loader = loaders()
    for epoch in (1, 2, 3):
        train = train_one_epoch(model, train_loader, F.cross_entropy, optimizer, epoch=epoch)
        val = evaluate(model, val_loader, F.cross_entropy)
        assert [history[name][epoch - 1] for name in ("train_loss", "train_accuracy")] == list(train.values())
        assert [history[name][epoch - 1] for name in ("val_loss", "val_accuracy")] == list(val.values())
    assert_same_weights(trainer.model, model)


def test_history():
    history = make_trainer(epochs=2).fit(*loaders())
    names = ["epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "learning_rate"]
    assert list(history) == names
    assert len(history) == 6
    assert history["epoch"] == [1, 2]
    assert history["learning_rate"][0] == 0.1
    assert list(history.to_dataframe().columns) == names
    assert repr(history) == f"History(2 epochs of {', '.join(names)})"
    with pytest.raises(KeyError, match="no metric 'f1'; this history holds epoch, train_loss"):
        history["f1"]
    with pytest.raises(KeyError, match="no epoch yet"):
        History()["val_loss"]
    assert not dict(History())


def test_history_as_csv(tmp_path):
    history = make_trainer(epochs=2).fit(*loaders())
    history.to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == history["val_loss"]


class Scripted(nn.Module):
    """Its validation loss follows a script: the weight moves by 1 a step, and the script says what that costs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        return inputs * self.weight


def scripted(losses, tmp_path=None, **config):
    """A Trainer of one step an epoch whose validation losses are `losses`; its weight after epoch n is −n."""
    script = torch.tensor([math.nan, *losses], dtype=torch.float64)

    def loss_fn(outputs, targets):
        if outputs.requires_grad:
            return outputs.mean()
        return script[int(-outputs[0])].to(outputs.dtype)

    model = Scripted()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    settings = {"epochs": len(losses), "checkpoint_dir": tmp_path, **config}
    loader = [(torch.ones(2), torch.ones(2))]
    trainer = Trainer(model, optimizer, loss_fn, config=TrainerConfig(**settings), device="cpu")
    return trainer, loader


@pytest.mark.parametrize(("losses", "best"), [((3, 1, 2), 2), ((3, 2, 1), 3), ((1, 1, 1), 1), ((1, 2, 3), 1)])
def test_fit_ends_with_the_best_weights(losses, best, tmp_path):
    trainer, loader = scripted(losses, tmp_path)
    history = trainer.fit(loader, loader)
    assert history.best_epoch == best
    assert trainer.model.weight == -best
    assert load_checkpoint(tmp_path / "best.pt")["model"]["weight"] == -best
    assert load_checkpoint(tmp_path / "last.pt")["model"]["weight"] == -len(losses)


def test_the_best_is_chosen_on_validation_and_can_be_left():
    trainer, loader = scripted((1, 2, 3), restore_best=False)
    trainer.fit(loader, loader)
    assert trainer.model.weight == -3
    record = Record()
    trainer = make_trainer(epochs=6, monitor="val_accuracy", callbacks=[record])
    history = trainer.fit(*loaders())
    assert history.best_epoch == 1 + history["val_accuracy"].index(max(history["val_accuracy"]))
    assert same(trainer.model.state_dict(), record.epochs[history.best_epoch - 1])
    assert evaluate(trainer.model, loaders()[1], F.cross_entropy)["accuracy"] == max(history["val_accuracy"])


def test_the_best_checkpoint_never_worsens(tmp_path):
    values = []

    class Watch(Callback):
        def on_epoch_end(self, trainer, record):
            values.append(record["val_loss"])
            if record["epoch"] > 1:  # BestCheckpoint runs after this: the file is the one of the epoch before
                assert load_checkpoint(tmp_path / "best.pt")["metrics"]["val_loss"] == min(values[:-1])

    make_trainer(tmp_path, epochs=6, callbacks=[Watch()]).fit(*loaders())
    assert load_checkpoint(tmp_path / "best.pt")["metrics"]["val_loss"] == min(values)


def test_accumulation_and_clipping_reach_the_step():
    record = Record()
    make_trainer(epochs=1, schedule=False, accumulate=4, clip_norm=1e-3, callbacks=[record]).fit(*loaders())
    assert len(record.steps) == 2  # 6 batches by 4
    moved = [record.steps[0][name] - tensor for name, tensor in small_net().named_parameters()]
    assert torch.stack([part.norm() for part in moved]).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_mixed_precision_reaches_model_and_evaluation():
    seen = []
    trainer = make_trainer(epochs=1, amp="bf16")
    trainer.model[5].register_forward_hook(lambda module, args, out: seen.append((module.training, out.dtype)))
    trainer.fit(*loaders())
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}


def test_a_precision_that_the_device_lacks_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.amp, "autocast", lambda *args, **options: contextlib.nullcontext())
    with pytest.raises(ValueError, match=r"amp='fp16' does not run on this device \(cpu\); use another amp, or amp='off'"):
        make_trainer(amp="fp16")


def test_a_step_that_the_scaler_skips_does_not_step_the_schedule():
    record = Record()
    trainer = make_trainer(epochs=1, amp="fp16", scheduler_interval="step", callbacks=[record])
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=1000)
    trainer.fit(*loaders())
    skipped = 40 - math.log2(trainer.scaler.get_scale())
    assert skipped > 0
    assert record.rates[: int(skipped)] == [0.1] * int(skipped)
    assert trainer.scheduler.last_epoch == 6 - skipped


def test_channels_last_reaches_the_convolutions():
    seen = []
    trainer = make_trainer(epochs=1, channels_last=True)
    trainer.model[0].register_forward_hook(
        lambda module, args, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    history = trainer.fit(*loaders())
    assert seen
    assert all(seen)
    assert history["val_loss"] == pytest.approx(make_trainer(epochs=1).fit(*loaders())["val_loss"], rel=1e-4)


def test_ema_is_what_is_evaluated_and_kept(tmp_path):
    record = Record()
    trainer = make_trainer(tmp_path, epochs=2, ema=0.9, callbacks=[record])
    history = trainer.fit(*loaders())
    by_hand, follower = small_net(), small_net()
    average = AveragedModel(by_hand, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for weights in record.steps:
        follower.load_state_dict(weights)
        average.update_parameters(follower)
    assert_same_weights(trainer.ema.module, average.module)
    assert same(trainer.model.state_dict(), record.epochs[history.best_epoch - 1])
    assert evaluate(trainer.model, loaders()[1], F.cross_entropy)["loss"] == min(history["val_loss"])
    assert same(load_checkpoint(tmp_path / "best.pt")["model"], record.epochs[history.best_epoch - 1])
    assert not same(record.steps[-1], record.epochs[-1])


def test_a_schedule_by_epoch_and_by_step():
    rates = {}
    for interval in ("epoch", "step"):
        record = Record()
        trainer = make_trainer(epochs=2, callbacks=[record], scheduler_interval=interval, schedule=False)
        trainer.scheduler = lr_scheduler.ExponentialLR(trainer.optimizer, gamma=0.5)
        history = trainer.fit(*loaders())
        rates[interval] = record.rates
    assert rates["epoch"] == [0.1] * 6 + [0.05] * 6
    assert rates["step"] == [0.1 * 0.5**n for n in range(1, 13)]  # read after the schedule's step
    assert len(history["learning_rate"]) == 2


def test_plateau_gets_the_monitored_metric_once_an_epoch():
    trainer, loader = scripted((3, 4, 5, 2))
    seen = []
    trainer.scheduler = lr_scheduler.ReduceLROnPlateau(trainer.optimizer)
    trainer.scheduler.step = seen.append
    trainer.fit(loader, loader)
    assert seen == [3, 4, 5, 2]


def test_one_cycle_steps_with_the_weights():
    model = linear_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12)
    config = TrainerConfig(epochs=2, scheduler_interval="epoch")
    with pytest.raises(ValueError, match="OneCycleLR is made to step after each update .* leave .*'epoch' out"):
        Trainer(model, optimizer, F.cross_entropy, schedule, config=config)
    Trainer(model, optimizer, F.cross_entropy, schedule, config=TrainerConfig(epochs=2), device="cpu").fit(*loaders())
    assert schedule.last_epoch == 12


def test_the_seed_of_the_config_makes_a_run_repeatable():
    first, second, other = (make_trainer(seed=seed, restore_best=False) for seed in (1, 1, 2))
    for trainer, stray in ((first, 10), (second, 20), (other, 10)):
        torch.manual_seed(stray)
        trainer.fit(*loaders(augment=True))
    assert_same_weights(first.model, second.model)
    assert not same(first.model.state_dict(), other.model.state_dict())


def test_regression():
    inputs = torch.randn(32, 3)
    loader = DataLoader(TensorDataset(inputs, inputs.sum(dim=1, keepdim=True)), 8)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = Trainer(model, optimizer, F.mse_loss, config=TrainerConfig(epochs=30), device="cpu").fit(loader, loader)
    assert list(history) == ["epoch", "train_loss", "val_loss", "learning_rate"]
    assert history["val_loss"][-1] < 1e-3
    trainer = Trainer(
        model, optimizer, F.mse_loss, config=TrainerConfig(epochs=1, monitor="val_accuracy"), device="cpu"
    )
    with pytest.raises(ValueError, match="monitor='val_accuracy' is not measured; choose one of epoch, train_loss"):
        trainer.fit(loader, loader)


def test_a_loss_that_turns_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    calls = []

    def loss_fn(outputs, targets):
        calls.append(outputs.requires_grad)
        return F.cross_entropy(outputs, targets) * (math.nan if sum(calls) == 10 else 1.0)

    record = Record()
    trainer = make_trainer(tmp_path, callbacks=[record], checkpoint_every=2)
    trainer.loss_fn = loss_fn
    with pytest.raises(NonFiniteLoss, match=r"epoch 2, step 10; the step was not applied; .*last\.pt is the last good"):
        trainer.fit(*loaders())
    assert record.moments == ["start", "end"]
    assert load_checkpoint(tmp_path / "last.pt")["run"]["step"] == 8
    assert same(load_checkpoint(tmp_path / "last.pt")["model"], record.steps[7])
    assert same(trainer.model.state_dict(), {**record.steps[8], **dict(trainer.model.named_buffers())})
    with pytest.raises(RuntimeError, match="broke off within a step: make a new Trainer"):
        trainer.fit(*loaders())


def test_weights_that_turn_nan_are_never_saved(tmp_path):
    class Poison(Callback):
        def on_step_end(self, trainer):
            if trainer.state.step == 4:
                with torch.no_grad():
                    trainer.model[0].bias[1] = math.inf

    trainer = make_trainer(tmp_path, checkpoint_every=2, callbacks=[Poison()])
    with pytest.raises(NonFiniteLoss, match=r"weights turned NaN or infinite at epoch 1, step 4: 0.bias; .* last good"):
        trainer.fit(*loaders())
    assert load_checkpoint(tmp_path / "last.pt")["run"]["step"] == 2


def test_a_validation_loss_that_turns_nan_stops_the_run(tmp_path):
    trainer, loader = scripted((2, 1, math.nan, 1), tmp_path)
    with pytest.raises(NonFiniteLoss, match=r"validation loss is NaN or infinite after epoch 3, step 3; .*last good"):
        trainer.fit(loader, loader)
    assert load_checkpoint(tmp_path / "last.pt")["run"]["epoch"] == 2
    assert load_checkpoint(tmp_path / "best.pt")["metrics"]["val_loss"] == 1


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer, loader = scripted((math.nan,))
    with pytest.raises(NonFiniteLoss, match=r"step 1\. A smaller"):
        trainer.fit(loader, loader)
    make_trainer(epochs=1).fit(*loaders())
    assert not list(tmp_path.iterdir())


def test_bad_loaders():
    train_loader, val_loader = loaders()
    with pytest.raises(ValueError, match="train_loader is empty"):
        make_trainer().fit([], val_loader)
    with pytest.raises(ValueError, match="val_loader is empty"):
        make_trainer().fit(train_loader, [])
    with pytest.raises(ValueError, match="the loader is empty"):
        make_trainer().fit(iter(()), val_loader)
    with pytest.raises(ValueError, match="batch 1 must be a pair of tensors"):
        make_trainer().fit(DataLoader(torch.zeros(8, 1, 6, 6), 4), val_loader)
    wrong = Points()
    wrong.labels[:] = 2
    with pytest.raises(ValueError, match="batch 1 holds the label 2, outside the model's classes 0 … 1"):
        make_trainer().fit(DataLoader(wrong, 4), val_loader)


def test_a_run_that_is_over_stays_over():
    trainer = make_trainer(epochs=1)
    history = trainer.fit(*loaders())
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    assert trainer.fit(*loaders()) is history
    assert len(history.epochs) == 1
    assert same(trainer.model.state_dict(), weights)


def test_a_model_with_a_spec_can_be_made_again_from_its_best_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, epochs=1, ema=0.5)
    trainer.model.spec = trainer.ema.module.spec = {"name": "small_net", "options": {"dropout": 0.2}}
    trainer.fit(*loaders())
    saved = load_checkpoint(tmp_path / "best.pt")
    model = {"small_net": small_net}[saved["spec"]["name"]](**saved["spec"]["options"])
    load_weights(model, saved["model"])
    assert_same_weights(model, trainer.model)


def test_best_pt_is_not_a_run(tmp_path):
    make_trainer(tmp_path, epochs=1).fit(*loaders())
    with pytest.raises(CheckpointError, match=r"best\.pt holds weights, but no run to resume. Give the last\.pt"):
        make_trainer().resume(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"epochs": True}, "epochs=True"),
        ({"amp": "fp8"}, "amp='fp8' is unknown; choose one of off, bf16, fp16"),
        ({"accumulate": 0}, "accumulate=0 must"),
        ({"clip_norm": 0.0}, "clip_norm=0.0 must be a positive number"),
        ({"clip_norm": math.inf}, "clip_norm=inf"),
        ({"ema": 1.0}, "ema=1.0 must lie between 0 and 1"),
        ({"seed": -1}, "seed=-1 is outside"),
        ({"checkpoint_every": 5}, "checkpoint_every=5 needs checkpoint_dir"),
        ({"checkpoint_every": 0, "checkpoint_dir": "x"}, "checkpoint_every=0 must"),
        ({"monitor": "val_f1"}, "monitor='val_f1' is unknown; choose one of val_loss, val_accuracy"),
        ({"scheduler_interval": "batch"}, "scheduler_interval='batch' is unknown; choose one of epoch, step"),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainerConfig(**{"epochs": 1, **setting})
