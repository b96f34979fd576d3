"""A model's answers to a whole data set, each with the index of the item that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

_COUNTED = torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class Predictions:
    """Answers to a data set, on the CPU: row i is the answer to item ids[i].

    logits: (N, K) float32. labels: (N,) int64, or (N, K) of 0 and 1 where an image may have several labels; then each
    class is a question of its own, with a sigmoid in place of the softmax. ids: (N,) int64, by default 0 … N−1.
    """

    logits: Tensor
    labels: Tensor
    ids: Tensor = field(default_factory=lambda: _COUNTED)

    def __post_init__(self) -> None:
        if self.ids is _COUNTED:
            object.__setattr__(self, "ids", torch.arange(len(self.logits)))
        if self.logits.ndim != 2 or self.labels.shape not in (self.logits.shape[:1], self.logits.shape):
            raise ValueError(
                f"logits {tuple(self.logits.shape)} and labels {tuple(self.labels.shape)}: needs (N, K) and (N,) or (N, K)"
            )
        if self.ids.shape != self.logits.shape[:1]:
            raise ValueError(f"{len(self.logits)} predictions with ids of shape {tuple(self.ids.shape)}")

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    @property
    def probabilities(self) -> Tensor:
        """(N, K): softmax of the logits, each row sums to 1; with several labels the sigmoid, each number by itself."""
        return self.logits.sigmoid() if self.multi_label else self.logits.softmax(dim=1)

    @property
    def predicted(self) -> Tensor:
        """(N,): the class with the largest logit; with several labels (N, K), 1 where the probability is over one half."""
        return (self.logits > 0).long() if self.multi_label else self.logits.argmax(dim=1)


@torch.no_grad()
def predict_all(model: nn.Module, loader: Iterable[Any], *, device: torch.device | str | None = None) -> Predictions:
    """Run the model over a loader of (images, labels) in eval mode and keep every logit, with the index of its item.

    The images go to the model's own device, or to `device`. Every module's mode is restored afterwards. A loader that
    draws its order anew, such as one for training, is refused: its rows could not be traced back to their images. Where
    there is no data set to point into (a list of batches, a stream) the ids count the rows.

    Raises ValueError for such a loader, an empty one, and logits that are not (B, K).
    """
    ids = item_ids(loader)
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    logits, labels = [], []
    with in_eval_mode(model):
        for images, targets in loader:
            output = model(images.to(device))  # (B, C, H, W) -> (B, K)
            if output.ndim != 2 or len(output) != len(targets):
                raise ValueError(
                    f"the model answers {len(targets)} images with shape {tuple(output.shape)}, not (B, K)"
                )
            logits.append(output.float().cpu())
            labels.append(targets.cpu())
    if not logits:
        raise ValueError("the loader is empty: there is nothing to predict")
    rows = sum(map(len, logits))
    if ids is not None and len(ids) != rows:
        raise ValueError(f"the loader gave {rows} samples for {len(ids)} indices: does its collate_fn leave some out?")
    return Predictions(torch.cat(logits), torch.cat(labels).long(), torch.arange(rows) if ids is None else torch.tensor(ids))


def item_ids(loader: Iterable[Any]) -> list[int] | None:
    """The indices into `loader.dataset` in the order in which the loader gives them; None where there are none.

    Raises ValueError when the order is drawn anew in each pass.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    batches = loader.batch_sampler
    sampler: Any = batches.sampler if type(batches) is BatchSampler else batches
    if type(sampler) is SequentialSampler:
        order = list(range(len(sampler)))
    elif isinstance(sampler, Sequence):  # indices written out
        order = [int(index) for index in sampler]
    else:
        raise ValueError(
            f"the loader draws its order with {type(sampler).__name__}, so that row i would not be item i of the data set. "
            f"Predict with a loader that does not shuffle: make_loader(dataset, batch_size)"
        )
    return order[: len(loader) * (loader.batch_size or 1)] if loader.drop_last else order


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode within the block, each module's own mode after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
