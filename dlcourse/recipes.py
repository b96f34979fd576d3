"""The course's fastest honest recipe for small images: as few seconds as possible to an accuracy, on the cores you have.

    python -m dlcourse.recipes --data cifar10 --until 0.90

A shallow, wide network in which nearly all arithmetic is 3×3 convolutions, a first layer that whitens the images' 2×2
patches, and every habit of a long training replaced by one that pays within a few epochs. The ideas are those of
ResNet-9 (Page 2018, "How to train your ResNet", myrtle.ai) and of airbench (Jordan 2024, arXiv:2404.00498); each field of
`FastRecipe` names the source of its own, and each trick can be left out: `FastRecipe().without("muon")`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlcourse.data import BatchAugmentation, BatchLoader
from dlcourse.data.datasets import DATASETS, ImageArrays, load_dataset
from dlcourse.runtime import progress, seed_everything

TRICKS: dict[str, dict[str, Any]] = {
    "muon": {"muon": False},
    "whitening": {"whitening": False},
    "identity start": {"identity_start": False},
    "fast biases": {"bias_rate": 1.0},
    "one cycle": {"one_cycle": False},
    "label smoothing": {"label_smoothing": 0.0},
    "alternating flip": {"flip": "random"},
    "mirror": {"mirror": False},
    "shifts": {"shifts": False},
    "small start": {"small_until": 0.0},
    "bf16": {"bf16": False},
    "channels last": {"channels_last": False},
}
"""The fields that leave out a trick: each is then as an ordinary training has it."""


@dataclass(frozen=True)
class FastRecipe:
    """What is trained, how long, and by which of the tricks. Raises ValueError naming a field that does not fit.

    Chapter 19 has what each trick is worth on few images. Left out of the whole, four make no difference there that five
    seeds could tell from chance: whitening, label smoothing and the alternating flip are kept on the word of their sources,
    for longer trainings; the shifts gained 0.4 points after 14 epochs on 45,000 images.
    """

    epochs: int = 8
    _: KW_ONLY
    widths: tuple[int, int, int] = (32, 128, 256)
    """Channels of the three stages. The first, on 16 times the pixels of the last, costs the most time a channel."""
    batch_size: int = 500
    muon: bool = True
    """The convolutions learn by `Muon`, all else by SGD with Nesterov's momentum; without, all by that."""
    muon_lr: float = 0.08
    """Muon's highest rate: a quarter of the batch of airbench, a third of its rate."""
    muon_momentum: float = 0.6
    lr: float = 0.8
    """SGD's highest rate, for losses that are a batch's mean."""
    momentum: float = 0.85
    """Nesterov's, as in airbench."""
    one_cycle: bool = True
    """Every rate rises from a fifth of itself to its highest in the first fifth of the run and falls to nothing
    (Smith 2018, arXiv:1803.09820); without, it stays."""
    weight_decay: float = 1.3e-3
    """Of what SGD trains."""
    label_smoothing: float = 0.2
    """This share of each label is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567)."""
    whitening: bool = True
    """The first convolution is set to whiten the 2×2 patches of the images, and not trained (Page 2018)."""
    identity_start: bool = True
    """Convolutions begin by passing their input on (Jordan 2024): what is learned is the difference from that."""
    bias_rate: float = 64.0
    """The biases of batch norm learn so many times faster (Page 2018); its weights stay 1."""
    flip: str = "alternating"
    """Each image is seen from either side in turn, not at random (Jordan 2024)."""
    padding: int = 2
    """Pixels by which images are shifted at most."""
    cutout: int = 0
    """Side of a hidden square (DeVries and Taylor 2017, arXiv:1708.04552); up to 28 epochs it gained nothing here."""
    small_until: float = 0.5
    """The share of the epochs in which images have 3/4 of their side, and cost about half (Howard 2018, fast.ai)."""
    mirror: bool = True
    """Evaluate the mean of what the network says of an image and of its mirror image."""
    shifts: bool = True
    """Evaluate also what it says of the image moved by a pixel, towards either corner (Jordan 2024)."""
    bf16: bool | None = None
    """Compute in bfloat16 under autocast (Micikevicius et al. 2018, arXiv:1710.03740); None: where `bf16_is_faster()`."""
    channels_last: bool = True
    """Keep a pixel's channels side by side in memory, as the convolutions of a CPU want them."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        if len(self.widths) != 3 or min(self.widths) < 1:
            raise ValueError(f"widths={self.widths} must be three numbers of channels")
        for name, high in (("momentum", 1), ("muon_momentum", 1), ("label_smoothing", 1), ("small_until", 1.01)):
            if not 0 <= (share := getattr(self, name)) < high:
                raise ValueError(f"{name}={share} must be at least 0 and less than {high:g}")
        for name in ("lr", "muon_lr", "bias_rate"):
            if not (math.isfinite(rate := getattr(self, name)) and rate > 0):
                raise ValueError(f"{name}={rate} must be a positive number")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay} must be at least 0")
        self.augmentation((0.5,) * 3, (0.5,) * 3)  # complains of a flip, padding or cutout that does not fit

    def without(self, *tricks: str) -> FastRecipe:
        """This recipe with the named ones of TRICKS left out. Raises ValueError for a name that is none of them."""
        if unknown := [trick for trick in tricks if trick not in TRICKS]:
            raise ValueError(f"{unknown[0]!r} is not a trick of the recipe; they are {', '.join(TRICKS)}")
        return replace(self, **{name: value for trick in tricks for name, value in TRICKS[trick].items()})

    def augmentation(self, mean: Sequence[float], std: Sequence[float]) -> BatchAugmentation:
        """What is done to a batch of training images."""
        return BatchAugmentation(padding=self.padding, flip=self.flip, cutout=self.cutout, mean=mean, std=std)


class FastNet(nn.Module):
    """A whitening convolution, three stages and a linear layer: images (B, 3, H, W) -> logits (B, K), sides from 18 up."""

    def __init__(self, num_classes: int, recipe: FastRecipe) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2, bias=False)  # so nothing before the stages is trained: no gradient goes there
        channels = (24, *recipe.widths)
        self.stages = nn.Sequential(*(FastStage(a, b, recipe) for a, b in zip(channels, recipe.widths, strict=False)))
        self.head = nn.Linear(recipe.widths[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stages(F.gelu(self.whiten(images)))
        return self.head(maps.amax((2, 3))) / 9  # small logits: the loss begins at ln K and sharpens late

    @torch.no_grad()
    def set_whitening(self, images: Tensor) -> None:
        """Fix the first convolution: its 12 filters, and their negatives, whiten the 2×2 patches of `images` (B, 3, H, W).

        The filters are the eigenvectors of the patches' covariance, each divided by the root of its eigenvalue, so that
        what they give is uncorrelated and of variance 1. A GELU loses the sign; the negatives keep it.
        """
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)  # (B, 3, H, W) -> (patches, 12)
        values, vectors = torch.linalg.eigh(patches.T.double().cov())
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2).float()
        self.whiten.weight.copy_(torch.cat((filters, -filters)))
        self.whiten.weight.requires_grad_(False)


class FastStage(nn.Module):
    """convolution, pooling, norm, GELU, convolution, norm, GELU: half the side."""

    def __init__(self, in_channels: int, channels: int, recipe: FastRecipe) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.bn2 = (nn.BatchNorm2d(channels, momentum=0.4) for _ in range(2))  # few steps: follow quickly
        for norm in (self.bn1, self.bn2):
            norm.weight.requires_grad_(False)
        if recipe.identity_start:
            for conv in (self.conv1, self.conv2):
                nn.init.dirac_(conv.weight[: conv.in_channels].data)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.gelu(self.bn1(F.max_pool2d(self.conv1(maps), 2)))  # the norm and GELU then see a quarter of the pixels
        return F.gelu(self.bn2(self.conv2(maps)))


class Muon(torch.optim.Optimizer):
    """Momentum, each matrix's step made orthogonal: every direction is learned at the same pace, not the strongest first.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers", kellerjordan.github.io/posts/muon. A convolution's weight
    (out, in, k, k) is the matrix (out, in·k·k). Before each step it is scaled back to rows of length 1 in the mean: batch
    norm makes the output the same, and lr stays the part of the weights that a step replaces.
    """

    def __init__(self, weights: Sequence[Tensor], lr: float, momentum: float = 0.6) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step with Nesterov's momentum; a closure is not evaluated."""
        for group in self.param_groups:
            for weight in group["params"]:
                if "velocity" not in self.state[weight]:
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
                velocity = self.state[weight]["velocity"]
                velocity.mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad + group["momentum"] * velocity
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.sub_(group["lr"] * orthogonalize(direction.flatten(1)).view_as(weight))


def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    """About U Vᵀ of a matrix U S Vᵀ (rows, columns): its singular values are driven near 1, by products alone.

    A Newton-Schulz iteration with the polynomial of Jordan et al. 2024, which trades exactness for speed: five steps
    leave singular values between 0.68 and 1.14 unless they were tiny, three suffice to train.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T, steps).T
    matrix = matrix / (matrix.norm() + 1e-7)  # no singular value is then above 1
    for _ in range(steps):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * gram + 2.0315 * gram @ gram) @ matrix
    return matrix


def make_optimizers(network: FastNet, recipe: FastRecipe) -> list[torch.optim.Optimizer]:
    """SGD, the biases of the norms at their own rate, and Muon for the stages' convolutions.

    A parameter decays by the same share a step at either rate of SGD.
    """
    convolutions = [module.weight for module in network.stages.modules() if isinstance(module, nn.Conv2d)]
    biases = [module.bias for module in network.stages.modules() if isinstance(module, nn.BatchNorm2d)]
    others = [network.head.weight] + [weight for weight in [network.whiten.weight] if weight.requires_grad]
    decay, rate = recipe.weight_decay, recipe.bias_rate
    groups = [
        {"params": others + ([] if recipe.muon else convolutions), "lr": recipe.lr, "weight_decay": decay},
        {"params": biases, "lr": recipe.lr * rate, "weight_decay": decay / rate},
    ]
    sgd = torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    return [sgd, Muon(convolutions, recipe.muon_lr, recipe.muon_momentum)] if recipe.muon else [sgd]


def one_cycle(steps: int, start: float = 0.2, rising: float = 0.2) -> Callable[[int], float]:
    """The share of the highest rate at each step 0 … steps: up from `start` in a straight line, then down to 0."""
    peak = max(1, round(rising * steps))

    def share(step: int) -> float:
        if step < peak:
            return start + (1 - start) * step / peak
        return max(0.0, (steps - step) / max(1, steps - peak))

    return share


@dataclass(frozen=True)
class FastEpoch:
    """An epoch of a fast training."""

    epoch: int
    seconds: float
    """Of training since the start: whitening, loading and augmentation count, evaluation does not."""
    train_loss: float
    accuracy: float | None
    """On the images to evaluate on; None after small images, as long as the network has not seen the whole side."""


def train_fast(
    recipe: FastRecipe,
    train: ImageArrays,
    test: ImageArrays,
    *,
    seed: int = 0,
    until: float | None = None,
    verbose: bool = False,
) -> tuple[FastNet, list[FastEpoch]]:
    """Train by the recipe, evaluating after each epoch of whole images; stops early at the accuracy `until`.

    Returns the network, for images normalised by the training images' mean and deviation, and the epochs. Raises
    ValueError for fewer training images than a batch.
    """
    if len(train) < recipe.batch_size:
        raise ValueError(f"train holds {len(train)} images, fewer than batch_size={recipe.batch_size}")
    seed_everything(seed)
    started = time.perf_counter()
    pixels = train.images.float() / 255
    mean, std = (moment(pixels, dim=(0, 2, 3)).tolist() for moment in (torch.mean, torch.std))
    plain = BatchAugmentation(flip="none", mean=mean, std=std)
    network = FastNet(len(train.classes), recipe)
    if recipe.whitening:
        network.set_whitening(plain(train.images[:2000], torch.zeros(len(train.images[:2000]), 11)))
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    small_epochs = round(recipe.small_until * recipe.epochs)
    small, full = (
        BatchLoader(images, recipe.batch_size, recipe.augmentation(mean, std), train=True, seed=seed, drop_last=True)
        for images in (shrunk(train) if small_epochs else train, train)
    )
    test_loader = BatchLoader(test, 1000, plain)
    optimizers = make_optimizers(network, recipe)
    shape = one_cycle(recipe.epochs * len(full)) if recipe.one_cycle else lambda step: 1.0
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, shape) for optimizer in optimizers]
    bf16 = bf16_is_faster() if recipe.bf16 is None else recipe.bf16
    epochs: list[FastEpoch] = []
    seconds = time.perf_counter() - started
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        loader = small if epoch <= small_epochs else full
        loader.sampler.set_epoch(epoch - 1)  # type: ignore[attr-defined]
        network.train()
        losses = []
        for images, labels in progress(loader, f"epoch {epoch}"):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = network(images)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            losses.append(loss.detach())
        seconds += time.perf_counter() - started
        found = None
        if epoch > small_epochs or epoch == recipe.epochs:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                found = accuracy(network, test_loader, recipe.mirror, recipe.shifts)
        epochs.append(FastEpoch(epoch, seconds, float(torch.stack(losses).mean()), found))
        if verbose:
            said = "of small images" if found is None else f"accuracy {found:.4f}"
            print(
                f"epoch {epoch}/{recipe.epochs}: {seconds:.0f} s, loss {epochs[-1].train_loss:.3f}, {said}", flush=True
            )
        if until is not None and found is not None and found >= until:
            break
    return network, epochs


def shrunk(images: ImageArrays) -> ImageArrays:
    """The images with 3/4 of their side."""
    side = round(images.images.shape[-1] * 3 / 4)
    small = F.interpolate(images.images.float(), (side, side), mode="bilinear", antialias=True)
    return ImageArrays(small.round().clamp(0, 255).to(torch.uint8), images.targets, classes=images.classes)


def bf16_is_faster() -> bool:
    """Whether a convolution in bfloat16 takes clearly less time than in float32 on this CPU: it needs units of its own."""
    images, filters = (
        torch.ones(shape).to(memory_format=torch.channels_last) for shape in ((64, 64, 16, 16), (64, 64, 3, 3))
    )
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(5):
        for dtype, least in seconds.items():
            one, other = images.to(dtype), filters.to(dtype)
            started = time.perf_counter()
            F.conv2d(one, other, padding=1)
            seconds[dtype] = min(least, time.perf_counter() - started)
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


@torch.no_grad()
def accuracy(network: nn.Module, loader: BatchLoader, mirror: bool = True, shifts: bool = True) -> float:
    """The share of the images that the network names rightly, by the weighted sum of its logits over their `views`."""
    network.eval()
    right = total = 0
    for images, labels in loader:
        logits = sum(weight * network(view) for weight, view in views(images, mirror, shifts))
        right += int((logits.argmax(1) == labels).sum())
        total += len(labels)
    return right / total


def views(images: Tensor, mirror: bool, shifts: bool) -> list[tuple[float, Tensor]]:
    """What is looked at of images (B, C, H, W), each with the weight of its answer: one to six times as many images.

    `shifts` adds the images moved by a pixel down and right, and up and left, which count half; `mirror` adds the mirror
    image of everything.
    """
    found = [(1.0, images)]
    if shifts:
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        found += [(0.5, padded[:, :, :-2, :-2]), (0.5, padded[:, :, 2:, 2:])]
    if mirror:
        found += [(weight, view.flip(3)) for weight, view in found]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train by the recipe from a shell; prints an epoch a line."""
    parser = argparse.ArgumentParser(
        prog="python -m dlcourse.recipes",
        description="Train the course's fast network. Example: python -m dlcourse.recipes --data cifar10 --until 0.9",
    )
    parser.add_argument("--data", choices=DATASETS, default="fashion-mini")
    parser.add_argument("--epochs", type=int, default=FastRecipe.epochs)
    parser.add_argument("--widths", type=int, nargs=3, default=FastRecipe.widths, help="channels of the three stages")
    parser.add_argument("--padding", type=int, default=FastRecipe.padding, help="pixels by which images are shifted at most")
    parser.add_argument("--cutout", type=int, default=FastRecipe.cutout, help="side of the hidden square")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=TRICKS, metavar="TRICK", help=f"leave out: {', '.join(TRICKS)}"
    )
    parser.add_argument("--until", type=float, help="stop at this accuracy, such as 0.94")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--download", action="store_true", help="fetch the data set where it is missing")
    given = parser.parse_args(arguments)
    try:
        recipe = FastRecipe(given.epochs, widths=tuple(given.widths), padding=given.padding, cutout=given.cutout)
        train, test = (load_dataset(given.data, part, download=given.download) for part in ("train", "test"))
        train_fast(recipe.without(*given.without), train, test, seed=given.seed, until=given.until, verbose=True)
    except (ValueError, OSError) as error:
        print(f"python -m dlcourse.recipes: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
