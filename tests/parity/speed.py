"""Time ours against the reference, alternating in one run: `python tests/parity/speed.py ["resnet*" …]`.

A row a model and kind of work: the median of each, and the median of the ratios of neighbours. --attention prints the
memory that attention over 1,024 tokens takes, fused and explicit.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch

import torch
from compare import both
from torch import nn

ROUNDS = 25
# name: (batch, side), so that a training step takes some tenths of a second on two cores
WORK = {
    "resnet18": (8, 160), "resnet50": (4, 160), "mobilenet_v1": (8, 160), "mobilenet_v2": (8, 160),
    "mobilenet_v3_large": (8, 160), "efficientnet_b0": (8, 128), "vit_tiny_patch16": (8, 224), "vit_small_patch16": (4, 224),
}  # fmt: skip


def training_step(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    labels = torch.arange(len(x)) % 7
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        model.train()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def inference(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        model.eval()
        with torch.inference_mode():
            model(x)

    return step


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(name: str, kind: Callable[[nn.Module, torch.Tensor], Callable[[], None]]) -> None:
    batch, side = WORK[name]
    x = torch.randn(batch, 3, side, side)
    ours, theirs = (kind(model.float(), x) for model in both(name, 7, (side, side)))
    for _ in range(3):
        ours(), theirs()
    times: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        if number % 2:  # who comes first takes turns
            a, b = seconds(ours), seconds(theirs)
        else:
            b, a = seconds(theirs), seconds(ours)
        times.append((a, b))
    mine, reference = (statistics.median(column) for column in zip(*times, strict=True))
    paired = statistics.median(a / b for a, b in times)
    print(
        f"| {name} | {kind.__name__} | {1000 * mine:.1f} | {1000 * reference:.1f} | {mine / reference:.3f} | {paired:.3f} |",
        flush=True,
    )


# /proc/self/clear_refs forgets the peak of the imports, so that what is read after is the attention's own.
ATTENTION = """
from pathlib import Path
import torch
from dlcourse.models import MultiHeadSelfAttention

def peak(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what)))

attention = MultiHeadSelfAttention(384, 6, fused={fused})
attention(torch.randn(1, 8, 384)).sum().backward()
x = torch.randn(4, {tokens}, 384, requires_grad=True)
Path("/proc/self/clear_refs").write_text("5")
before = peak("VmRSS")
attention(x).sum().backward()
print(peak("VmHWM") - before)
"""


def attention_memory() -> None:
    for tokens in (256, 1024, 2048):
        kilobytes = [
            int(subprocess.run([sys.executable, "-c", ATTENTION.format(fused=fused, tokens=tokens)],
                               capture_output=True, text=True, check=True).stdout)
            for fused in (True, False)
        ]  # fmt: skip
        fused, explicit = (k / 1024 for k in kilobytes)
        print(f"{tokens} tokens, 4 × 6 heads of 64, forward and backward: fused {fused:.0f} MB, explicit {explicit:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--attention", action="store_true")
    arguments = parser.parse_args()
    if arguments.attention:
        attention_memory()
        return
    print("| model | work | ours, ms | reference, ms | ratio of medians | median ratio |\n|---|---|---|---|---|---|")
    for name in WORK:
        if any(fnmatch(name, pattern) for pattern in arguments.patterns):
            measure(name, training_step)
            measure(name, inference)


if __name__ == "__main__":
    main()
