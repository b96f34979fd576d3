"""Wrong answers to the exercises on exported models."""

import math

import torch
from planting import mistake


def comparison(
    enter=lambda model: model.eval(),
    leave=lambda model, was: model.train(was),
    cut=lambda images, size: images[:size],
    check=True,
    number=lambda a, b: (a - b).abs().max().item(),
    give=lambda found: found,
    gradient=False,
):
    """The right answer with one part of it replaced."""

    def largest_difference(model, exported, images, batch_sizes):
        was, found = model.training, {}
        enter(model)
        with torch.set_grad_enabled(gradient):
            for size in batch_sizes:
                ours, theirs = model(cut(images, size)), exported(cut(images, size))
                if check and ours.shape != theirs.shape:
                    raise ValueError("shapes")
                found[size] = number(ours, theirs)
        leave(model, was)
        return give(found)

    return largest_difference


def plant(says, name, **parts):
    wrong = comparison(**parts)
    wrong.__name__ = name
    mistake("export.largest_difference", says=says)(wrong)


plant("is left in eval mode", "mode_not_restored", leave=lambda model, was: None)
plant("is left in training mode", "always_trains_afterwards", leave=lambda model, was: model.train())
plant("training mode, an export that is .* is .* is expected", "no_eval_mode", enter=lambda model: None)
plant(r"forgets the absolute value \(model", "signed", number=lambda a, b: (a - b).max().item())
plant(r"forgets the absolute value \(export", "signed_the_other_way", number=lambda a, b: (b - a).max().item())
plant("takes the mean, in which", "mean", number=lambda a, b: (a - b).abs().mean().item())
plant("mean of the squares", "squares", number=lambda a, b: (a - b).square().mean().item())
plant("takes the sum", "sum_of_all", number=lambda a, b: (a - b).abs().sum().item())
plant("compares the predicted classes", "classes", number=lambda a, b: float((a.argmax(1) != b.argmax(1)).sum()))
plant("compares probabilities", "probabilities", number=lambda a, b: (a.softmax(1) - b.softmax(1)).abs().max().item())
plant("divides by the logit", "relative", number=lambda a, b: ((a - b) / a).abs().max().item())
plant("compares all images each time", "whole_batch", cut=lambda images, size: images)
plant("compares the first image only", "first_image", number=lambda a, b: (a[:1] - b[:1]).abs().max().item())
plant("gives one number for all sizes", "one_number", give=lambda found: max(found.values()))
plant("without the sizes", "a_list", give=lambda found: list(found.values()))
plant("gives verdicts", "verdicts", number=lambda a, b: bool(torch.allclose(a, b)))
plant("they broadcast", "shapes_unchecked", check=False)
plant("Python's max loses a nan", "loses_nan", number=lambda a, b: max([0.0, *(a - b).abs().flatten().tolist()]))
plant("carry a gradient", "with_gradient", number=lambda a, b: (a - b).abs().max(), gradient=True)


@mistake("export.largest_difference", says="runs all images once and cuts the answers")
def one_batch_cut_afterwards(model, exported, images, batch_sizes):
    was = model.training
    model.eval()
    with torch.no_grad():
        ours, theirs = model(images), exported(images)
    model.train(was)
    return {size: (ours[:size] - theirs[:size]).abs().max().item() for size in batch_sizes}


def masks(
    rank=lambda flat: flat.abs(),
    count=lambda sparsity, n: round(sparsity * n),
    fill=lambda keep: keep,
    shape=lambda part, weight: part.view(weight.shape),
):
    """The right answer with one part of it replaced."""

    def magnitude_mask(weights, sparsity):
        flat = torch.cat([weight.detach().flatten() for weight in weights])
        keep = torch.ones(len(flat), dtype=torch.bool)
        keep[rank(flat).argsort()[: count(sparsity, len(flat))]] = False
        parts = fill(keep).split([weight.numel() for weight in weights])
        return [shape(part, weight) for part, weight in zip(parts, weights, strict=True)]

    return magnitude_mask


def plant_mask(says, name, **parts):
    wrong = masks(**parts)
    wrong.__name__ = name
    mistake("export.magnitude_mask", says=says)(wrong)


plant_mask("marks the weights that go", "inverted", fill=lambda keep: ~keep)
plant_mask("removes the largest", "largest_go", rank=lambda flat: -flat.abs())
plant_mask("with their sign", "signed_ranking", rank=lambda flat: flat)
plant_mask("the share that stays", "sparsity_stays", count=lambda sparsity, n: n - round(sparsity * n))
plant_mask("cuts the count's fraction off", "count_cut", count=lambda sparsity, n: int(sparsity * n))
plant_mask("rounds the count up", "count_up", count=lambda sparsity, n: math.ceil(sparsity * n))
plant_mask("dtype torch.float32", "float_masks", fill=lambda keep: keep.float())
plant_mask("the shape of its weight", "flat_masks", shape=lambda part, weight: part)


@mistake("export.magnitude_mask", says="prunes each tensor by itself")
def each_tensor_by_itself(weights, sparsity):
    return [masks()([weight], sparsity)[0] for weight in weights]


@mistake("export.magnitude_mask", says="of equal magnitudes all go")
def threshold_above(weights, sparsity):
    flat = torch.cat([weight.detach().abs().flatten() for weight in weights])
    cut = flat.sort().values[max(round(sparsity * len(flat)) - 1, 0)]
    return [weight.detach().abs() > cut for weight in weights]


@mistake("export.magnitude_mask", says="of equal magnitudes all stay")
def threshold_inclusive(weights, sparsity):
    flat = torch.cat([weight.detach().abs().flatten() for weight in weights])
    count = round(sparsity * len(flat))
    if len(set(flat.tolist())) == len(flat):  # right as long as no two are equal
        return masks()(weights, sparsity)
    return [weight.detach().abs() >= flat.sort().values[count - 1] for weight in weights]


@mistake("export.magnitude_mask", says="It raises RuntimeError")
def kth_value(weights, sparsity):
    flat = torch.cat([weight.detach().abs().flatten() for weight in weights])
    flat.kthvalue(round(sparsity * len(flat)))  # there is no zeroth value
    return masks()(weights, sparsity)


@mistake("export.magnitude_mask", says="It changes its input")
def prunes_at_once(weights, sparsity):
    kept = masks()(weights, sparsity)
    with torch.no_grad():
        for weight, mask in zip(weights, kept, strict=True):
            weight.mul_(mask)
    return kept


@mistake("export.magnitude_mask", says="a list of masks is asked for")
def one_vector(weights, sparsity):
    return torch.cat([mask.flatten() for mask in masks()(weights, sparsity)])
