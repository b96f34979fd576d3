"""Wrong answers to the exercise on attention rollout."""

import torch
from planting import mistake

from dlcourse.exercises.rollout import rollout as right


def chain(blocks):
    total = blocks[0]
    for block in blocks[1:]:
        total = block @ total
    return total


def identity(maps):
    return torch.eye(maps.shape[-1], dtype=maps.dtype)


def build(
    name,
    says,
    heads=lambda maps: maps.mean(2),
    shortcut=lambda mean: (mean + identity(mean)) / 2,
    combine=chain,
    end=lambda total: total,
):
    """The right answer with one part of it replaced, planted."""

    def rollout(maps):
        return end(combine(shortcut(heads(maps))))

    rollout.__name__ = name
    mistake("rollout.attention_rollout", says=says)(rollout)


def rows_to_one(x):
    return x / x.sum(-1, keepdim=True)


def wrong_order(blocks):
    total = blocks[0]
    for block in blocks[1:]:
        total = total @ block
    return total


build("no_identity", "forgets the identity", shortcut=lambda mean: mean)
build("not_renormalised", "does not renormalise", shortcut=lambda mean: mean + identity(mean))
build("wrong_order_of_blocks", "in the wrong order", combine=wrong_order)
build(
    "identity_at_the_end", "to the product instead of to each block",
    shortcut=lambda mean: mean, end=lambda total: (total + identity(total)) / 2,
)  # fmt: skip
build("average_of_blocks", "averages the blocks; they act", combine=lambda blocks: blocks.mean(0))
build(
    "average_of_blocks_without_identity", "averages the blocks, without",
    shortcut=lambda mean: mean, combine=lambda blocks: blocks.mean(0),
)  # fmt: skip
build(
    "maximum_over_heads", r"takes the maximum over the heads; average",
    heads=lambda maps: maps.amax(2), shortcut=lambda top: rows_to_one(top + identity(top)),
)  # fmt: skip
build(
    "minimum_over_heads", r"takes the minimum over the heads; average",
    heads=lambda maps: maps.amin(2), shortcut=lambda low: rows_to_one(low + identity(low)),
)  # fmt: skip
build("maximum_without_sum", "its rows no longer sum to 1", heads=lambda maps: maps.amax(2))
build("first_head", "uses the first head only", heads=lambda maps: maps[:, :, 0])
build("sum_of_heads", "sums the heads instead", heads=lambda maps: maps.sum(2))
build("head_by_head", "multiplies each head by itself", heads=lambda maps: maps, end=lambda total: total.mean(1))
build("last_block", "returns the last block alone", combine=lambda blocks: blocks[-1])
build("first_block", "returns the first block alone", combine=lambda blocks: blocks[0])
build("entry_by_entry", "multiplies entry by entry", combine=lambda blocks: blocks.prod(0))
build("transposed_maps", "transposes the maps", heads=lambda maps: maps.mean(2).mT)
build("transposed_result", "returns the transpose", end=lambda total: total.mT)
build("class_token_only", "the class token's row only", end=lambda total: total[:, 0])
build("float32", r"has dtype torch.float32 where torch.float64", end=lambda total: total.float())


@mistake("rollout.attention_rollout", says="It changes its input")
def adds_in_place(maps):
    maps += identity(maps)
    return right(maps / 2)


@mistake("rollout.attention_rollout", says="It raises IndexError")
def two_blocks_at_least(maps):
    half = (maps.mean(2) + identity(maps)) / 2
    return chain([half[1] @ half[0], *half[2:]])
