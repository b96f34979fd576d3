"""First exercises (chapter 00): how answering works, and which batch fits a memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dlcourse.exercises.checking import Answer, Mistake, compare, describe
from dlcourse.exercises.registry import register


def double(x: Tensor) -> Tensor:
    """Return twice `x`, in a new tensor."""
    return 2 * x


def check_double(answer: Answer) -> str:
    inputs = (torch.tensor([3.0]), torch.tensor([1, -4, 6]), torch.tensor([[0.5, -1.0, 7.0], [3.0, 2.5, 9.0]]))
    for x in inputs:
        mistakes = {
            "adds 2 instead of multiplying by 2": x + 2,
            "squares its input": x**2,
            "returns its input as it is": x,
            "halves its input": x / 2,
            "puts the input beside itself instead of doubling its values": torch.cat([x, x]),
            "doubles the sum instead of every element": 2 * x.sum(),
            "loses the sign": 2 * x.abs(),
            "turns whole numbers into floats": 2.0 * x.float() if not x.is_floating_point() else None,
        }
        compare(answer(x), 2 * x, given=describe(x), mistakes={k: v for k, v in mistakes.items() if v is not None})
    return "floats, whole numbers and a table, the input left as it was"


register(
    "start.double", double, check_double, difficulty=1, importance=2, minutes=2,
    hints=(
        "A tensor takes part in arithmetic like a number: `x + 1` adds 1 to every element.",
        "Two times every element: `2 * x`, and do not forget the `return`.",
    ),
)


def largest_batch(memory: int, fixed: int, per_image: int) -> int:
    """The most images whose training step fits `memory` bytes, given the bytes that every step takes and those an image adds.

    0 when not even one image fits.
    """
    return max(0, (memory - fixed) // per_image)


def check_largest_batch(answer: Answer) -> str:
    inputs = ((30, 9, 4), (32, 9, 4), (33, 9, 4), (12, 0, 5), (5, 8, 2), (8, 8, 3), (6_000_000_000, 400_000_000, 86_000_000))
    for memory, fixed, per_image in inputs:
        given = describe(memory=memory, fixed=fixed, per_image=per_image)
        free = memory - fixed
        got, want = answer(memory, fixed, per_image), largest_batch(memory, fixed, per_image)
        mistakes = {
            "rounds to the nearest number: round down, the last image must fit whole": max(0, round(free / per_image)),
            "rounds up: the last image does not fit": max(0, -(-free // per_image)),
            "forgets the fixed part, which every step takes": memory // per_image,
            "adds the fixed part to the memory instead of taking it away": (memory + fixed) // per_image,
            "returns a negative number of images where none fits: the answer is then 0": free // per_image,
            "returns a negative number of images where none fits, as int() cuts −1.5 to −1": int(free / per_image),
            "returns a fraction of an image: round down": max(0.0, free / per_image),
            "says that one image fits where none does": 1 if want == 0 else want,
            "takes the fixed part away after dividing": memory // per_image - fixed,
        }
        compare(got, want, given=given, mistakes={k: v for k, v in mistakes.items() if v != want}, rtol=0, atol=0)
        if isinstance(got, float) or (isinstance(got, Tensor) and got.is_floating_point()):
            raise Mistake(f"It returns a float ({describe(got)}) where a batch size is a whole number. Given {given}.")
    return "exact fits, remainders, and memories that not even one image fits"


register(
    "start.largest_batch", largest_batch, check_largest_batch, difficulty=2, importance=4, minutes=8,
    hints=(
        "Start from what is left of the memory once the fixed part is in it.",
        "How often does `per_image` go into what is left? `//` divides whole numbers and rounds down.",
        "Rounding down makes −3 of −2.5. When `memory` is smaller than `fixed` the answer is 0: take `max(0, …)`.",
    ),
)
