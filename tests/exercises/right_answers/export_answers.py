"""Right answers to the exercises on exported models, in other styles than the references'."""

import numpy as np
import torch
from planting import right_answer


@right_answer("export.largest_difference")
def difference_by_numpy(model, exported, images, batch_sizes):
    modes, found = {module: module.training for module in model.modules()}, {}
    model.train(False)
    for size in batch_sizes:
        ours = model(images[:size]).detach().numpy()
        theirs = np.asarray(exported(images[:size]))
        if ours.shape != theirs.shape:
            raise ValueError(f"{ours.shape} and {theirs.shape}")
        found[size] = float(np.abs(ours - theirs).max())
    for module, mode in modes.items():
        module.training = mode
    return found


@right_answer("export.largest_difference")
def difference_by_norm(model, exported, images, batch_sizes):
    training = model.training

    def one(size):
        batch = images.narrow(0, 0, size)
        ours, theirs = model(batch), exported(batch)
        if ours.size() != theirs.size():
            raise ValueError("the shapes differ")
        return torch.dist(ours, theirs, p=float("inf")).item()

    try:
        with torch.inference_mode():
            return {size: one(size) for size in batch_sizes if model.eval()}
    finally:
        model.train(training)


@right_answer("export.largest_difference")
def difference_of_a_copy(model, exported, images, batch_sizes):
    import copy

    frozen, table = copy.deepcopy(model).eval().requires_grad_(False), {}
    for size in batch_sizes:
        pair = frozen(images[:size]), exported(images[:size])
        if pair[0].shape != pair[1].shape:
            raise ValueError("the shapes differ")
        table[size] = torch.max(torch.abs(torch.sub(*pair)))
    return table


@right_answer("export.magnitude_mask")
def mask_by_topk(weights, sparsity):
    flat = torch.cat([weight.detach().abs().reshape(-1) for weight in weights])
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep[torch.topk(flat, len(flat) - round(sparsity * len(flat))).indices] = True
    masks, start = [], 0
    for weight in weights:
        masks.append(keep[start : start + weight.numel()].reshape(weight.shape))
        start += weight.numel()
    return masks


@right_answer("export.magnitude_mask")
def mask_by_a_sorted_list(weights, sparsity):
    places = [(abs(number), k, i) for k, weight in enumerate(weights) for i, number in enumerate(weight.flatten().tolist())]
    masks = [torch.ones(weight.numel(), dtype=torch.bool) for weight in weights]
    for _, k, i in sorted(places)[: round(sparsity * len(places))]:
        masks[k][i] = False
    return [mask.view_as(weight) for mask, weight in zip(masks, weights, strict=True)]


@right_answer("export.magnitude_mask")
def mask_by_numpy(weights, sparsity):
    flat = np.concatenate([np.abs(weight.detach().numpy()).ravel() for weight in weights])
    rank = np.empty(len(flat), dtype=int)
    rank[np.argsort(-flat, kind="stable")] = np.arange(len(flat))
    keep = rank < len(flat) - round(sparsity * len(flat))
    cuts = np.cumsum([weight.numel() for weight in weights])[:-1]
    return tuple(torch.from_numpy(part.copy()).reshape(weight.shape) for part, weight in zip(np.split(keep, cuts), weights, strict=True))


@right_answer("export.magnitude_mask")
def mask_by_torchs_pruning(weights, sparsity):
    from torch import nn
    from torch.nn.utils import prune

    holders = []
    for weight in weights:
        holder = nn.Module()
        holder.weight = nn.Parameter(weight.detach().clone())
        holders.append(holder)
    total = sum(weight.numel() for weight in weights)
    prune.global_unstructured([(h, "weight") for h in holders], prune.L1Unstructured, amount=round(sparsity * total))
    return [holder.weight_mask.bool() for holder in holders]
