"""A run that was interrupted and resumed equals the one that was not, bit for bit, wherever it was interrupted."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, WeightedRandomSampler
from training_helpers import Points, assert_same_weights, linear_net, loaders, make_trainer, small_net

from dlcourse.training import Callback, CheckpointError, EarlyStopping, Trainer, TrainerConfig, load_checkpoint

EVERYTHING = {"ema": 0.9, "clip_norm": 1.0, "scheduler_interval": "step", "amp": "bf16"}


class InterruptAt(Callback):
    """Ctrl-C, from inside, after an update of the weights."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            raise KeyboardInterrupt


class Stray(Callback):
    """Draws a random number after each epoch, as a callback that plots a sample would."""

    def on_epoch_end(self, trainer, record):
        torch.rand(1)


pytestmark = pytest.mark.filterwarnings("error")


def assert_same_run(trainer, whole):
    assert trainer.history.epochs == whole.history.epochs
    assert trainer.history.best_epoch == whole.history.best_epoch
    assert_same_weights(trainer.model, whole.model)
    assert str(trainer.optimizer.state_dict()) == str(whole.optimizer.state_dict())
    if whole.ema is not None:
        assert_same_weights(trainer.ema, whole.ema)


def check_resume(tmp_path, steps, make_loaders, **config):
    """Interrupt after each of `steps` in turn, resume each time with everything new, and compare with one whole run."""
    whole = make_trainer(callbacks=[EarlyStopping(2, 0.01), Stray()], **config)
    whole.fit(*make_loaders())
    for step in steps:
        torch.manual_seed(step)  # another process has other random numbers
        first = make_trainer(tmp_path, callbacks=[EarlyStopping(2, 0.01), Stray(), InterruptAt(step)], **config)
        assert first.fit(*make_loaders()).interrupted
        torch.manual_seed(step + 1)
        second = make_trainer(tmp_path, callbacks=[EarlyStopping(2, 0.01), Stray()], **config)
        history = second.resume(tmp_path / "last.pt").fit(*make_loaders())
        assert not history.interrupted
        assert_same_run(second, whole)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_at_every_step_with_augmentation_in_the_main_process(tmp_path, accumulate):
    steps = range(1, 17) if accumulate == 1 else range(1, 6)
    check_resume(tmp_path, steps, lambda: loaders(augment=True), accumulate=accumulate, **EVERYTHING)


def test_with_workers(tmp_path):
    check_resume(tmp_path, (2, 6), lambda: loaders(augment=True, num_workers=2), accumulate=2, epochs=2, **EVERYTHING)


def own_generators(seed=7):
    """Loaders that draw from generators of their own: the loader's, and a sampler's."""
    sampler = WeightedRandomSampler(
        torch.linspace(0.1, 1, 44), 44, generator=torch.Generator().manual_seed(seed)
    )
    train = DataLoader(Points(augment=True), 8, sampler=sampler, generator=torch.Generator().manual_seed(seed))
    return train, DataLoader(Points(30, seed=1), 16)


def test_with_generators_that_the_loaders_own(tmp_path):
    check_resume(tmp_path, (3, 6, 8, 13), own_generators)
    make_trainer(tmp_path, callbacks=[InterruptAt(2)]).fit(*own_generators())
    trainer = make_trainer(tmp_path).resume(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="the loaders own 0 generators, but 2 were saved"):
        trainer.fit(*loaders())


class ByEpoch(torch.utils.data.Sampler):
    """An order that depends on the epoch alone, with a generator that the loader seeds its workers from."""

    def __init__(self):
        self.generator = torch.Generator()

    def set_epoch(self, epoch):
        self.epoch = epoch
        self.generator.manual_seed(epoch)

    def __iter__(self):
        yield from torch.randperm(44, generator=torch.Generator().manual_seed(self.epoch)).tolist()

    def __len__(self):
        return 44


@pytest.mark.parametrize("num_workers", [0, 2])
def test_with_a_sampler_that_is_told_the_epoch(tmp_path, num_workers):
    def make_loaders():
        sampler = ByEpoch()
        train = DataLoader(Points(augment=True), 8, sampler=sampler, generator=sampler.generator, num_workers=num_workers)
        return train, DataLoader(Points(30, seed=1), 16)

    check_resume(tmp_path, (8, 13) if num_workers == 0 else (8,), make_loaders)


def test_with_a_plateau_schedule_and_adam(tmp_path):
    def make(folder, *callbacks):
        model = small_net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
        config = TrainerConfig(epochs=5, checkpoint_dir=folder)
        return Trainer(model, optimizer, F.cross_entropy, schedule, config=config, callbacks=callbacks, device="cpu")

    whole = make(None)
    whole.fit(*loaders())
    assert len(set(whole.history["learning_rate"])) > 1
    for step in (12, 20):
        make(tmp_path, InterruptAt(step)).fit(*loaders())
        resumed = make(tmp_path).resume(tmp_path / "last.pt")
        resumed.fit(*loaders())
        assert_same_run(resumed, whole)


def test_the_scaler_is_saved(tmp_path):
    def make(folder, *callbacks):
        trainer = make_trainer(folder, amp="fp16", callbacks=callbacks)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=3)
        return trainer

    whole = make(None)
    whole.fit(*loaders())
    make(tmp_path, InterruptAt(8)).fit(*loaders())
    resumed = make(tmp_path).resume(tmp_path / "last.pt")
    assert resumed.scaler.get_scale() != 2.0**20
    resumed.fit(*loaders())
    assert_same_run(resumed, whole)
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()


def test_every_checkpoint_of_a_run_leads_to_the_same_end(tmp_path):
    class Copy(Callback):
        def on_step_end(self, trainer):
            if trainer.last_path.exists():
                path = tmp_path / f"{trainer.state.step}.pt"
                path.write_bytes(trainer.last_path.read_bytes())

    whole = make_trainer(tmp_path / "run", epochs=2, checkpoint_every=2, callbacks=[Copy()])
    whole.fit(*loaders(augment=True))
    copies = sorted(tmp_path.glob("*.pt"))
    assert len(copies) == 10  # 12 steps; nothing was written before the third
    positions = set()
    for copy in copies:
        resumed = make_trainer(epochs=2, callbacks=[]).resume(copy)
        positions.add((resumed.state.epoch, resumed.state.means.batches))
        resumed.fit(*loaders(augment=True))
        assert_same_run(resumed, whole)
    assert positions == {(0, 2), (0, 4), (1, 0), (1, 2), (1, 4)}


def test_the_best_is_remembered_over_a_resume(tmp_path):
    """Epoch and best metric go on: a later, worse epoch does not overwrite the best one."""
    first = make_trainer(tmp_path, epochs=3)
    history = first.fit(*loaders())
    best = min(history["val_loss"])
    resumed = make_trainer(tmp_path, epochs=5).resume(tmp_path / "last.pt")
    resumed.optimizer.param_groups[0]["lr"] = 50.0  # ruins the weights
    resumed.scheduler.base_lrs = [50.0]
    history = resumed.fit(*loaders())
    assert history["epoch"] == [1, 2, 3, 4, 5]
    assert history["val_loss"][-1] > best
    assert history["val_loss"][history.best_epoch - 1] == best
    assert load_checkpoint(tmp_path / "best.pt")["metrics"]["val_loss"] == best
    assert_same_weights(resumed.model, first.model)


def test_more_epochs_than_planned(tmp_path):
    whole = make_trainer(epochs=4)
    whole.fit(*loaders())
    make_trainer(tmp_path, epochs=2).fit(*loaders())
    longer = make_trainer(tmp_path, epochs=4).resume(tmp_path / "last.pt")
    longer.fit(*loaders())
    assert_same_run(longer, whole)


def test_a_finished_run_resumes_to_its_best_weights(tmp_path):
    finished = make_trainer(tmp_path)
    finished.fit(*loaders())
    again = make_trainer(tmp_path).resume(tmp_path / "last.pt")
    again.fit(*loaders())
    assert_same_run(again, finished)


def test_a_new_callback_starts_fresh_and_two_of_a_kind_keep_their_order(tmp_path):
    stoppers = [EarlyStopping(9), EarlyStopping(8, min_delta=10.0)]
    make_trainer(tmp_path, callbacks=stoppers).fit(*loaders())
    resumed = [Stray(), EarlyStopping(9), EarlyStopping(8, min_delta=10.0), EarlyStopping(7)]
    make_trainer(tmp_path, callbacks=resumed).resume(tmp_path / "last.pt")
    assert [callback.state_dict() for callback in resumed[1:3]] == [stopper.state_dict() for stopper in stoppers]
    assert resumed[3].best is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": False}, "its scheduler is CosineAnnealingLR, not none"),
        ({"ema": 0.9}, "its ema is none, not AveragedModel"),
        ({"net": linear_net}, r"the model; only in the checkpoint: 0.weight, .*of another shape .* 1.weight \(2, 36\), \(4,\)"),
    ],
)
def test_a_run_made_otherwise_is_refused(tmp_path, change, message):
    make_trainer(tmp_path, epochs=1).fit(*loaders())
    with pytest.raises(CheckpointError, match=rf"last\.pt does not fit.*{message}"):
        make_trainer(**change).resume(tmp_path / "last.pt")


def test_another_optimizer_is_refused(tmp_path):
    make_trainer(tmp_path, epochs=1, schedule=False).fit(*loaders())
    model = small_net()
    config = TrainerConfig(epochs=1)
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(CheckpointError, match="its optimizer is SGD, not Adam"):
        Trainer(model, adam, F.cross_entropy, config=config, device="cpu").resume(tmp_path / "last.pt")
    half = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match="does not fit the optimizer: .*parameter group"):
        Trainer(model, half, F.cross_entropy, config=config, device="cpu").resume(tmp_path / "last.pt")


def test_another_loader_is_refused(tmp_path):
    make_trainer(tmp_path, callbacks=[InterruptAt(4)]).fit(*loaders())
    resumed = make_trainer(tmp_path).resume(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="train_loader ends before batch 4, where the run was"):
        resumed.fit(*loaders(batch_size=16))


def test_persistent_workers_are_warned_about(tmp_path):
    make_trainer(tmp_path, epochs=1).fit(*loaders())
    train_loader, val_loader = loaders()
    kept = DataLoader(Points(30, seed=1), 16, num_workers=1, persistent_workers=True)
    owned = DataLoader(Points(30), 16, num_workers=1, persistent_workers=True, generator=torch.Generator())
    for pair, warned in (((kept, val_loader), True), ((train_loader, kept), True), ((train_loader, owned), False)):
        resumed = make_trainer().resume(tmp_path / "last.pt")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            resumed._begin(*pair)
        assert any("persistent_workers" in str(warning.message) for warning in caught) == warned


def test_a_checkpoint_holds_tensors_and_plain_types_only(tmp_path):
    make_trainer(tmp_path, epochs=1, **EVERYTHING).fit(*loaders())
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert {"model", "optimizer", "scheduler", "scaler", "ema", "run", "history", "callbacks", "spec"} <= set(saved)
    assert {"python", "numpy", "torch"} <= set(saved["run"]["randomness"][0]["rng"])


def test_resume_returns_the_trainer(tmp_path):
    make_trainer(tmp_path, epochs=1).fit(*loaders())
    trainer = make_trainer()
    assert trainer.resume(str(tmp_path / "last.pt")) is trainer
    assert isinstance(trainer.model, nn.Module)
