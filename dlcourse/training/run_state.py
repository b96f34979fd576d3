"""Where a run is: what a checkpoint holds beside weights, optimizer and schedule so that the run can go on."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from dlcourse.training.batches import Means
from dlcourse.training.checkpoint import CheckpointError, load_checkpoint, load_weights
from dlcourse.training.distributed import gather, rank, world_size
from dlcourse.training.history import History


class RunState:
    """The position of a run, its best weights so far and the states of the random generators."""

    def __init__(self) -> None:
        self.epoch = 0
        """Epochs that are over."""
        self.step = 0
        """Updates of the weights so far."""
        self.stop = False
        """Set by a callback: the run is over after this epoch."""
        self.means = Means()
        """The losses of the epoch in progress; it counts the batches used as well."""
        self.best_value: float | None = None
        """The best value of the monitored metric …"""
        self.best_weights: dict[str, Tensor] | None = None
        """… and the evaluated weights it was measured with."""
        self.epoch_start: dict[str, Any] = {}
        """The states of all random generators when the epoch in progress began: "rng" and the loaders' "generators"."""
        self.rng: dict[str, Any] = {}
        """The states of the global random generators after the last step."""
        self.processes = world_size()
        """How many processes the run is on."""

    def keep_best(self, value: float, mode: str, model: nn.Module) -> bool:
        """Keep the model's weights if `value` is the best so far, lowest for mode "min", highest for "max"; says whether."""
        sign = 1 if mode == "max" else -1
        if self.best_value is not None and sign * value <= sign * self.best_value:
            return False
        self.best_value, self.best_weights = value, {k: tensor.clone() for k, tensor in model.state_dict().items()}
        return True

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain types and tensors, with the random states of every process."""
        values = {name: value for name, value in vars(self).items() if name not in ("epoch_start", "rng")}
        randomness = gather({"epoch_start": self.epoch_start, "rng": self.rng})
        return {**values, "means": self.means.state_dict(), "randomness": randomness}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; without the random states, if it was on another number of processes."""
        means = Means()
        means.load_state_dict(state["means"])
        own = state["randomness"][rank()] if state["processes"] == world_size() else {}
        vars(self).update({name: state[name] for name in vars(self) if name in state} | own | {"means": means})


def pack(state: RunState, history: History, callbacks: list[Any], parts: dict[str, Any]) -> dict[str, Any]:
    """What `save_checkpoint` gets beside the model. `parts` are objects with a state_dict, or None."""
    return {
        **parts,
        "classes": {name: type(part).__name__ for name, part in parts.items()},
        "run": state.state_dict(),  # here, by all processes; the file is written by one
        "history": {"epochs": history.epochs, "best_epoch": history.best_epoch},
        "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in callbacks],
    }


def unpack_into(
    path: str | os.PathLike[str],
    model: Any,
    state: RunState,
    history: History,
    callbacks: list[Any],
    parts: dict[str, Any],
) -> None:
    """Load a checkpoint of `pack` into objects made as the run's were. Raises CheckpointError when one does not fit."""
    saved = load_checkpoint(path)
    if "run" not in saved:
        raise CheckpointError(f"{path} holds weights, but no run to resume. Give the last.pt of the run.")
    for name, part in parts.items():
        was, now = saved["classes"].get(name, "NoneType"), type(part).__name__
        if was != now:
            was, now = ("none" if kind == "NoneType" else kind for kind in (was, now))
            raise CheckpointError(f"{path} does not fit: its {name} is {was}, not {now}. Make the Trainer as it was.")
    load_weights(model, saved["model"], source=str(path))
    for name, part in parts.items():
        try:
            if part is not None and saved[name]:  # a disabled scaler saves nothing
                part.load_state_dict(saved[name])
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit the {name}: {error}") from None
    state.load_state_dict(saved["run"])
    history.epochs, history.best_epoch = saved["history"]["epochs"], saved["history"]["best_epoch"]
    entries = list(saved["callbacks"])
    for callback in callbacks:  # each takes the first unused entry of its class; a new callback starts fresh
        entry = next((entry for entry in entries if entry[0] == type(callback).__name__), None)
        if entry is not None:
            entries.remove(entry)
            callback.load_state_dict(entry[1])
