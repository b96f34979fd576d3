"""Test-time augmentation: the mean answer to several views of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

View = Callable[[Tensor], Tensor]

VIEWS: Mapping[str, View] = {
    "identity": lambda images: images,
    "flip": lambda images: images.flip(-1),
    "left": lambda images: shift(images, -2, 0),
    "right": lambda images: shift(images, 2, 0),
    "up": lambda images: shift(images, 0, -2),
    "down": lambda images: shift(images, 0, 2),
}
"""Views of a batch (B, C, H, W): mirrored left to right, and shifted by two pixels with the edge repeated."""


class TestTimeAugmentation(nn.Module):
    """A model that answers with the mean of its probabilities over several views: (B, C, H, W) -> (B, K).

        predictions = predict_all(TestTimeAugmentation(model, ["identity", "flip"]), loader)

    The output is the logarithm of the mean probabilities, so that it serves wherever logits do. Each view costs a forward
    pass. A view is a name of `VIEWS` or a function of a batch. Choose views that leave the label as it is: a mirrored
    shirt is a shirt, a mirrored "b" is a "d". Raises ValueError for an unknown name (with the nearest) and for no view.
    """

    __test__ = False  # its name begins like a test's

    def __init__(self, model: nn.Module, views: Sequence[str | View] = ("identity", "flip")) -> None:
        super().__init__()
        if isinstance(views, str) or not views:
            raise ValueError(f"views={views!r} must be a list of at least one view, such as ['identity', 'flip']")
        self.model = model
        self.views = [find_view(view) for view in views]

    def forward(self, images: Tensor) -> Tensor:
        answers = torch.stack([self.model(view(images)).log_softmax(dim=1) for view in self.views])  # (views, B, K)
        return answers.logsumexp(dim=0) - math.log(len(self.views))  # log of the mean of exp: no probability underflows


def find_view(view: str | View) -> View:
    if callable(view):
        return view
    if view not in VIEWS:
        nearest = get_close_matches(str(view), VIEWS, n=1) or VIEWS
        raise ValueError(f"there is no view {view!r}; did you mean {' or '.join(map(repr, nearest))}?")
    return VIEWS[view]


def shift(images: Tensor, right: int, down: int) -> Tensor:
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, [2] * 4, mode="replicate")
    return padded[..., 2 - down : 2 - down + height, 2 - right : 2 - right + width]
