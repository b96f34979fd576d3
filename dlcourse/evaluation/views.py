"""Test-time augmentation: the mean answer to several views of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

VIEWS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "flip": lambda images: images.flip(-1),
    "left": lambda images: _shift(images, -2, 0),
    "right": lambda images: _shift(images, 2, 0),
    "up": lambda images: _shift(images, 0, -2),
    "down": lambda images: _shift(images, 0, 2),
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

    def __init__(self, model: nn.Module, views: Sequence[str | Callable[[Tensor], Tensor]] = ("identity", "flip")) -> None:
        super().__init__()
        if not views:
            raise ValueError("views is empty: give at least one, such as 'identity'")
        self.model = model
        self.views = [_view(view) for view in views]

    def forward(self, images: Tensor) -> Tensor:
        probabilities = [self.model(view(images)).softmax(dim=1) for view in self.views]  # views × (B, K)
        return torch.stack(probabilities).mean(dim=0).log()


def _view(view: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if callable(view):
        return view
    if view not in VIEWS:
        nearest = get_close_matches(view, VIEWS, n=1) or VIEWS
        raise ValueError(f"there is no view {view!r}; did you mean {' or '.join(map(repr, nearest))}?")
    return VIEWS[view]


def _shift(images: Tensor, right: int, down: int) -> Tensor:
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, [2] * 4, mode="replicate")
    return padded[..., 2 - down : 2 - down + height, 2 - right : 2 - right + width]
