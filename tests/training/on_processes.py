"""What two processes compute, each check of it a file for test_distributed.py:

    torchrun --standalone --nproc-per-node 2 tests/training/on_processes.py FOLDER
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DistributedSampler

from dlcourse.data import BatchAugmentation, BatchLoader, load_dataset
from dlcourse.data.datasets import ImageArrays
from dlcourse.training import Callback, Trainer, TrainerConfig, evaluate, load_checkpoint, train_step
from dlcourse.training.batches import Means
from dlcourse.training.distributed import (
    GlooBatchNorm,
    any_process,
    check_train_loader,
    data_parallel,
    evaluation_part,
    from_main,
    gather,
    is_main,
    processes,
    rank,
    synchronize_batch_norm,
    world_size,
)

BATCH = 32
IMAGES = 160


def net(norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), norm(6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), norm(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def images(size=IMAGES, split="train"):
    whole = load_dataset("fashion-mini", split)
    return ImageArrays(whole.images[:size], whole.targets[:size], classes=whole.classes)


def loaders():
    """The same batches and views of images on any number of processes."""
    several = world_size() > 1
    train, val = images(), images(77, "val")
    sampler = DistributedSampler(train, seed=3) if several else None
    augment = BatchAugmentation(padding=2, cutout=6, brightness=0.2)
    train_loader = BatchLoader(train, BATCH // world_size(), augment, train=True, sampler=sampler, seed=3)
    plain = BatchAugmentation(flip="none")
    val_loader = BatchLoader(val, 10, plain, sampler=evaluation_part(len(val)))  # 39 and 38 images: ragged
    return train_loader, val_loader


def make_trainer(folder, *, epochs=3, callbacks=(), **config):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    settings = {"epochs": epochs, "sync_batch_norm": True, "ema": 0.9, "checkpoint_dir": folder, "seed": 3, **config}
    return Trainer(
        model, optimizer, F.cross_entropy, config=TrainerConfig(**settings), callbacks=callbacks, device="cpu"
    )


class Counting(Callback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, trainer):
        self.steps += 1


class CountingInMain(Counting):
    main_only = True


class StopIn(Callback):
    """One process alone asks for the end of the run."""

    def __init__(self, process):
        self.process = process

    def on_epoch_end(self, trainer, record):
        trainer.state.stop = rank() == self.process


class DieIn(Callback):
    """A process that ends without a word, as one killed for memory does."""

    def __init__(self, process, step):
        self.process, self.step = process, step

    def on_step_end(self, trainer):
        if rank() == self.process and trainer.state.step == self.step:
            os._exit(9)


class CtrlCIn(Callback):
    """Ctrl-C reaches one process only."""

    def __init__(self, process, step):
        self.process, self.step = process, step

    def on_step_end(self, trainer):
        if rank() == self.process and trainer.state.step == self.step:
            raise KeyboardInterrupt


def gradients(norm, synchronized):
    """Of a batch of 12 in two halves, and of the whole batch on one process."""
    model = net(norm)
    whole = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(12, 3, 32, 32, generator=generator), torch.randint(10, (12,), generator=generator)
    F.cross_entropy(whole(inputs), labels).backward()
    if synchronized:
        model = synchronize_batch_norm(model)
    half = slice(rank() * 6, rank() * 6 + 6)
    network = data_parallel(model)  # which must live until the backward pass
    F.cross_entropy(network(inputs[half]), labels[half]).backward()
    pairs = zip(model.parameters(), whole.parameters(), strict=True)
    gradient = max(float((mine.grad - own.grad).abs().max()) for mine, own in pairs)
    states = zip(model.state_dict().items(), whole.state_dict().items(), strict=True)
    state = max(float((mine - own).abs().max()) for (_, mine), (_, own) in states)
    return {"gradient": gradient, "state": state, "scale": float(next(whole.parameters()).grad.abs().max())}


def ragged_metrics():
    """Loss and accuracy over 77 images in two parts, and over all of them on one process."""
    model = net().eval()
    _, val_loader = loaders()
    found = evaluate(model, val_loader, F.cross_entropy)
    inputs = BatchAugmentation(flip="none")(images(77, "val").images, torch.zeros(77, 11))
    labels = torch.tensor(images(77, "val").targets)
    with torch.no_grad():
        outputs = model(inputs)
    right = int((outputs.argmax(1) == labels).sum())
    return {"found": found, "loss": float(F.cross_entropy(outputs, labels)), "accuracy": right / 77}


def refusals():
    texts = []
    train, _ = loaders()
    unequal = BatchLoader(images(), 8 + 4 * rank(), lambda x: x / 255, sampler=DistributedSampler(images()))
    for loader in (BatchLoader(images(), 8, lambda x: x / 255, train=True), unequal):
        try:
            check_train_loader(loader)
        except ValueError as error:
            texts.append(str(error))
    check_train_loader(train)
    return texts


def step_with_nan():
    """One process meets a NaN: what does it say, and what do the weights of the other do?"""
    model = net()
    network, optimizer = data_parallel(model), torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.full((4, 3, 32, 32), float("nan") if rank() == 1 else 1.0)
    try:
        train_step(network, [(inputs, torch.zeros(4).long())], F.cross_entropy, optimizer, Means())
    except RuntimeError as error:
        return str(error)
    return "no error"


def look(folder: Path, what: str) -> None:
    if what == "die":
        make_trainer(folder / "die", checkpoint_every=1, callbacks=[DieIn(1, 7)]).fit(*loaders())
        return
    if what == "finish":  # what "die" and Ctrl-C left, on two processes again
        for name in ("die", "ctrl-c"):
            trainer = make_trainer(folder / name, checkpoint_every=1).resume(folder / name / "last.pt")
            history = trainer.fit(*loaders())
            if is_main():
                torch.save((trainer.model.state_dict(), history.epochs), folder / f"{name} finished.pt")
        return
    everywhere, main_only = Counting(), CountingInMain()
    trainer = make_trainer(folder / "run", callbacks=[everywhere, main_only])
    history = trainer.fit(*loaders())
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    stopped = make_trainer(folder / "stopped", callbacks=[StopIn(1)])
    stopped.fit(*loaders())
    interrupted = make_trainer(folder / "ctrl-c", callbacks=[CtrlCIn(1, 7)])
    interrupted.fit(*loaders())
    found = {
        "threads": torch.get_num_threads(),
        "ranks": gather(rank()),
        "from main": from_main(f"process {rank()}"),
        "any": [any_process(rank() == 1), any_process(False)],
        "parts": gather(list(evaluation_part(7))),
        "no norm": gradients(lambda channels: nn.Identity(), synchronized=False),
        "synchronized": gradients(nn.BatchNorm2d, synchronized=True),
        "not synchronized": gradients(nn.BatchNorm2d, synchronized=False),
        "metrics": ragged_metrics(),
        "refusals": refusals(),
        "same weights": gather({name: value.double().sum().item() for name, value in weights.items()}),
        "histories": gather(history.epochs),
        "calls": gather((everywhere.steps, main_only.steps)),
        "stopped": gather(len(stopped.history.epochs)),
        "interrupted": gather((interrupted.history.interrupted, interrupted.state.step)),
        "norms": sum(isinstance(module, GlooBatchNorm) for module in trainer.model.modules()),
        "nan": gather(step_with_nan()),
        "spread": load_checkpoint(folder / "run" / "last.pt")["run"]["processes"],
    }
    if is_main():
        torch.save({**found, "weights": weights}, folder / "found.pt")


if __name__ == "__main__":
    with processes():
        look(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "check")
