"""The Trainer: the loop of `engine`, with everything a run needs around it.

It adds what is tedious by hand: precision, clipping, an average of the weights, the schedule, callbacks, the best
weights, and checkpoints from which an interrupted run goes on bit for bit as if nothing had happened, also in the
middle of an epoch. For that, a checkpoint keeps the state of each random generator twice: as it was when the epoch
began (from it the loader deals the same batches again; those already used are thrown away) and as it was when the
checkpoint was written. Exactness needs the same loader, the same number of workers, and no `persistent_workers`, whose
own generators nobody can read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dlcourse.runtime import get_device, progress, seed_everything
from dlcourse.training.batches import Means, set_epoch, windows
from dlcourse.training.callbacks import BestCheckpoint, Callback, PrintEpochs
from dlcourse.training.checkpoint import save_checkpoint
from dlcourse.training.config import MONITORS, TrainerConfig
from dlcourse.training.distributed import (
    any_process,
    check_train_loader,
    data_parallel,
    is_main,
    rank,
    share_buffers,
    synchronize_batch_norm,
    world_size,
)
from dlcourse.training.engine import (
    LossFunction,
    NonFiniteLoss,
    check_precision,
    evaluate,
    set_training_mode,
    train_step,
)
from dlcourse.training.history import History
from dlcourse.training.interrupts import Interrupts
from dlcourse.training.rng import generator_states, restore_generators, restore_rng, rng_state
from dlcourse.training.run_state import RunState, pack, unpack_into
from dlcourse.training.schedule_steps import check_length, interval_of


class Trainer:
    """One training run of a model.

        trainer = Trainer(model, optimizer, nn.functional.cross_entropy, config=TrainerConfig(epochs=10))
        history = trainer.fit(train_loader, val_loader)

    On several processes (see `distributed`) each is given its part of the batches by its loaders; metrics are of all
    parts together, and the main process alone writes and prints. A run may be resumed on another number of processes:
    with the same batches, if each process's batches are larger or smaller accordingly, and with other random numbers.

    The model is moved to `device` (default: the fastest one here). `loss_fn(outputs, targets)` is a batch's mean. The
    scheduler steps at its own time (see `schedule_steps`); ReduceLROnPlateau after each epoch, with the monitored metric.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFunction,
        scheduler: LRScheduler | None = None,
        *,
        config: TrainerConfig,
        callbacks: Sequence[Callback] = (),
        device: torch.device | str | None = None,
    ) -> None:
        self.device = torch.device(device) if device is not None else get_device()
        check_precision(config.amp, self.device)
        interval_of(scheduler, config)  # complains of a schedule that does not fit
        self.model = model.to(self.device)
        if config.sync_batch_norm:
            self.model = synchronize_batch_norm(self.model)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # convolutions pass the format on
        self.optimizer, self.loss_fn, self.scheduler, self.config = optimizer, loss_fn, scheduler, config
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.network = data_parallel(self.model)
        """What is trained: the model, or the model in DistributedDataParallel."""
        # use_buffers: batch norm's running statistics are averaged with the weights that they belong to.
        average = get_ema_multi_avg_fn(config.ema) if config.ema else None
        self.ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True) if config.ema else None
        self.callbacks = list(callbacks)
        self.last_path = Path(config.checkpoint_dir, "last.pt") if config.checkpoint_dir is not None else None
        if config.checkpoint_dir is not None:
            self.callbacks.append(BestCheckpoint(Path(config.checkpoint_dir, "best.pt")))
        if config.verbose:
            self.callbacks.append(PrintEpochs())

        self.history = History()
        self.state = RunState()
        self._begun = False
        self._interrupts = Interrupts(any_process if world_size() > 1 else None)
        self._loaders: tuple[Any, Any] = ((), ())

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and kept as the best: the moving average when there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def scheduler_interval(self) -> str:
        """When the scheduler steps: after each "step" (update of the weights) or each "epoch"."""
        return interval_of(self.scheduler, self.config)

    @property
    def _parts(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler, "ema": self.ema}

    def fit(self, train_loader: Iterable[Any], val_loader: Iterable[Any]) -> History:
        """Train until `config.epochs` are done or a callback says stop; the model then holds the best epoch's weights.

        Ctrl-C ends the run after the step in progress: `history.interrupted` is True, the model keeps its last weights,
        last.pt is written (with a checkpoint_dir), and a line says how to go on. A run that is over stays over.

        Raises NonFiniteLoss when a loss or the weights turn NaN (last.pt stays the one from before), ValueError for an
        empty loader, a batch that is not a pair of tensors, a label outside the classes, a metric that is not measured.
        """
        self._begin(train_loader, val_loader)
        with self._interrupts:
            try:
                self._call("on_fit_start")
                while self.state.epoch < self.config.epochs and not self.state.stop:
                    self._train_epoch(train_loader)
                    share_buffers(self.model, self.evaluated_model)
                    val_batches = self._whole_batches(lambda: iter(val_loader))
                    metrics = evaluate(self.evaluated_model, val_batches, self.loss_fn, amp=self.config.amp)
                    with self._interrupts.held():
                        self._end_epoch(metrics)
            except KeyboardInterrupt:
                with self._interrupts.held(raise_after=False):
                    self._end_interrupted()
            except NonFiniteLoss as error:
                kept = f"; {self.last_path} is the last good checkpoint" if self._has_checkpoint() else ""
                raise NonFiniteLoss(f"{error}{kept}. A smaller learning rate or clip_norm often helps.") from None
            finally:
                self._call("on_fit_end")
        if self.config.restore_best and self.state.best_weights is not None and not self.history.interrupted:
            self.model.load_state_dict(self.state.best_weights)
        return self.history

    def resume(self, path: str | Path) -> Trainer:
        """Take over a run's state from its last.pt, so that `fit` goes on where it was; returns this Trainer.

        Make the Trainer as the interrupted one was made (`config.epochs` may be larger), and call `fit` with loaders
        made the same way. Raises CheckpointError when the file cannot be used or does not fit.
        """
        unpack_into(path, self.model, self.state, self.history, self.callbacks, self._parts)
        self._begun = True
        # The schedule may step first here, which torch warns of unless the optimizer bears this mark of having stepped.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        return self

    def _begin(self, train_loader: Any, val_loader: Any) -> None:
        for name, loader in (("train_loader", train_loader), ("val_loader", val_loader)):
            if hasattr(loader, "__len__") and len(loader) == 0:
                raise ValueError(f"{name} is empty: it has no batch")
        if self._interrupts.broken:
            raise RuntimeError("this run broke off within a step: make a new Trainer, and resume from last.pt")
        self._loaders = (train_loader, val_loader)
        self.history.interrupted = False
        check_train_loader(train_loader)
        if not self._begun or self.state.processes != world_size():
            seed_everything((self.config.seed + 1_000_003 * rank() + 10_007 * self.state.step) % 2**32)
            self.state.epoch_start = self._random_states()
            self.state.rng = self.state.epoch_start["rng"]
            self.state.processes = world_size()
            self._begun = True
        if hasattr(train_loader, "__len__"):
            check_length(self.scheduler, self.config.epochs * math.ceil(len(train_loader) / self.config.accumulate))
        keeps_workers = [getattr(loader, "persistent_workers", False) for loader in self._loaders]
        if self.state.step and (keeps_workers[0] or (keeps_workers[1] and val_loader.generator is None)):
            warnings.warn("a loader with persistent_workers resumes, but not bit for bit", stacklevel=3)

    def _train_epoch(self, loader: Any) -> None:
        """The steps of this epoch that are still to do."""
        set_training_mode(self.network)
        self.optimizer.zero_grad()
        batches = self._whole_batches(lambda: self._remaining_batches(loader))
        total = len(loader) - self.state.means.batches if hasattr(loader, "__len__") else None
        shown = progress(batches, f"epoch {self.state.epoch + 1}", total) if is_main() else batches
        for window in windows(shown, self.config.accumulate):
            with self._interrupts.held():
                self._train_step(window)
        self.state.means.result()  # complains when there was no batch

    def _whole_batches(self, make_batches: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """The batches, each loaded to its end although Ctrl-C comes: half a message from a worker would be an error."""
        with self._interrupts.held(breaks=False):
            batches = make_batches()
        while True:
            with self._interrupts.held(breaks=False):
                batch = list(islice(batches, 1))
            if not batch:
                return
            yield batch[0]

    def _remaining_batches(self, loader: Any) -> Iterator[Any]:
        """The batches of this epoch without those that the run used before it was interrupted."""
        restore_rng(self.state.epoch_start["rng"])
        restore_generators(self._loaders, self.state.epoch_start["generators"])
        set_epoch(loader, self.state.epoch)
        batches = iter(loader)
        used = self.state.means.batches
        if len(list(islice(batches, used))) < used:
            raise ValueError(f"train_loader ends before batch {used}, where the run was: it is not the run's loader")
        if used:
            restore_rng(self.state.rng)
        return batches

    def _random_states(self) -> dict[str, Any]:
        return {"rng": rng_state(), "generators": generator_states(self._loaders)}

    def _train_step(self, window: Sequence[Any]) -> None:
        where = self._where(self.state.step + 1)
        scale = self.scaler.get_scale()
        train_step(
            self.network, window, self.loss_fn, self.optimizer, self.state.means, where,
            clip_norm=self.config.clip_norm, amp=self.config.amp, scaler=self.scaler,
        )  # fmt: skip
        self.state.step += 1
        skipped = self.scaler.get_scale() < scale  # fp16 gradients overflowed: the scaler left the weights alone
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        if self.scheduler is not None and self.scheduler_interval == "step" and not skipped:
            self.scheduler.step()
        self._call("on_step_end")
        self.state.rng = rng_state()
        if self.config.checkpoint_every and self.state.step % self.config.checkpoint_every == 0:
            self._save()

    def _end_epoch(self, metrics: dict[str, float]) -> None:
        """Record the epoch, keep its weights if they are the best, step the schedule, and save."""
        if not math.isfinite(metrics["loss"]):
            raise NonFiniteLoss(f"the validation loss is NaN or infinite after {self._where(self.state.step)}")
        means = self.state.means.result()
        record: dict[str, float] = {"epoch": self.state.epoch + 1}
        for name in metrics:
            if name in means:  # mixed labels have no accuracy in training
                record[f"train_{name}"] = means[name]
            record[f"val_{name}"] = metrics[name]
        record["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        if self.config.monitor not in record:
            raise ValueError(f"monitor={self.config.monitor!r} is not measured; choose one of {', '.join(record)}")
        self.history.epochs.append(record)
        monitored = record[self.config.monitor]
        if self.state.keep_best(monitored, MONITORS[self.config.monitor], self.evaluated_model):
            self.history.best_epoch = self.state.epoch + 1
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(monitored)
        elif self.scheduler is not None and self.scheduler_interval == "epoch":
            self.scheduler.step()
        self.state.epoch += 1
        self.state.means = Means()
        self._call("on_epoch_end", record)
        self.state.stop = any_process(self.state.stop)
        self.state.epoch_start = self._random_states()  # of the next epoch
        self.state.rng = self.state.epoch_start["rng"]
        self._save()

    def _end_interrupted(self) -> None:
        self.history.interrupted = True
        tell = print if is_main() else lambda text: None
        where = f"Interrupted in epoch {self.state.epoch + 1}, after step {self.state.step}."
        if self._interrupts.broken:
            saved = f"; resume from {self.last_path}" if self._has_checkpoint() else ""
            tell(f"{where} The next step was cut short{saved}.")
        elif self.last_path is None:
            tell(f"{where} Call fit again to go on; without a checkpoint_dir nothing was saved.")
        else:
            self._save()
            tell(f"{where} Call fit again to go on; in a new process: trainer.resume({str(self.last_path)!r}).fit(…)")

    def _save(self) -> None:
        """Write last.pt: all that `resume` needs."""
        if self.last_path is None:
            return
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise NonFiniteLoss(f"the weights turned NaN or infinite at {self._where(self.state.step)}: {name}")
        parts = pack(self.state, self.history, self.callbacks, self._parts)
        if is_main():
            save_checkpoint(self.last_path, self.model, **parts)

    def _has_checkpoint(self) -> bool:
        return self.last_path is not None and self.last_path.exists()

    def _where(self, step: int) -> str:
        return f"epoch {self.state.epoch + 1}, step {step}"

    def _call(self, moment: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if getattr(callback, "main_only", False) and not is_main():
                continue
            try:
                getattr(callback, moment)(self, *arguments)
            except KeyboardInterrupt:  # raised by the callback itself: finish what is in progress first, as for Ctrl-C
                self._interrupts.request()
