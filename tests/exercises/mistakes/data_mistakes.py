"""Wrong answers to the exercises on data."""

import math

import torch
from planting import mistake

# ---------------------------------------------------------------- channel_statistics


def pixels_of(images):
    return torch.cat([image.flatten(1) for image in images], dim=1)


@mistake("data.channel_statistics", says=r"averages the images' own deviations: that leaves out how the images differ from one another\.")
def mean_of_image_stds(images):
    return pixels_of(images).mean(1), torch.stack([i.std((1, 2), correction=0) for i in images]).mean(0)


@mistake("data.channel_statistics", says="averages the images' own deviations.*; and divides by n − 1")
def mean_of_image_stds_unbiased(images):
    return pixels_of(images).mean(1), torch.stack([image.std((1, 2)) for image in images]).mean(0)


@mistake("data.channel_statistics", says="averages the images' means")
def mean_of_means(images):
    return torch.stack([image.mean((1, 2)) for image in images]).mean(0), pixels_of(images).std(1, correction=0)


@mistake("data.channel_statistics", says="mixes the channels: take one mean")
def one_number(images):
    pixels = pixels_of(images)
    return pixels.mean().expand(3), pixels.std(correction=0).expand(3)


@mistake("data.channel_statistics", says="mixes the channels: take one deviation")
def one_deviation(images):
    pixels = pixels_of(images)
    return pixels.mean(1), pixels.std(correction=0).expand(3)


@mistake("data.channel_statistics", says="divides by n − 1: the pixels are all there are")
def unbiased(images):
    pixels = pixels_of(images)
    return pixels.mean(1), pixels.std(1)


@mistake("data.channel_statistics", says="returns the variance")
def variance(images):
    pixels = pixels_of(images)
    return pixels.mean(1), pixels.var(1, correction=0)


@mistake("data.channel_statistics", says="takes the deviation of the images' means: how pixels")
def std_of_means(images):
    return pixels_of(images).mean(1), torch.stack([i.mean((1, 2)) for i in images]).std(0, correction=0)


@mistake("data.channel_statistics", says="averages the images' own variances")
def pooled_variance(images):
    return pixels_of(images).mean(1), torch.stack([i.var((1, 2), correction=0) for i in images]).mean(0).sqrt()


def shares_of(images):
    return torch.tensor([image.numel() for image in images]) / sum(image.numel() for image in images)


@mistake("data.channel_statistics", says="own deviations, each weighted by its pixels")
def weighted_deviations(images):
    own = torch.stack([image.std((1, 2), correction=0) for image in images])
    return pixels_of(images).mean(1), shares_of(images) @ own


@mistake("data.channel_statistics", says="own variances, each weighted by its pixels")
def weighted_variances(images):
    own = torch.stack([image.var((1, 2), correction=0) for image in images])
    return pixels_of(images).mean(1), (shares_of(images) @ own).sqrt()


@mistake("data.channel_statistics", says=r"It returns \('mean', 'std'\); two tensors of shape")
def words(images):
    return "mean", "std"


@mistake("data.channel_statistics", says="root of the mean square")
def root_mean_square(images):
    pixels = pixels_of(images)
    return pixels.mean(1), pixels.square().mean(1).sqrt()


@mistake("data.channel_statistics", says="deviation where the mean is asked for")
def the_wrong_way_round(images):
    pixels = pixels_of(images)
    return pixels.std(1, correction=0), pixels.mean(1)


@mistake("data.channel_statistics", says=r"mean of shape \(\)")
def scalars(images):
    return pixels_of(images).mean(), pixels_of(images).std()


@mistake("data.channel_statistics", says="two tensors of shape")
def only_the_mean(images):
    return pixels_of(images).mean(1)


# ---------------------------------------------------------------- encode_labels


def looked_up(names, classes, start=0):
    index = {name: i for i, name in enumerate(classes, start)}
    for name in names:
        if name not in index:
            raise ValueError(f"unknown label {name}")
    return torch.tensor([index[name] for name in names])


@mistake("data.encode_labels", says="numbers the classes by the labels it was given")
def own_classes(names, classes):
    return looked_up(names, sorted(set(names)))


@mistake("data.encode_labels", says="sorts `classes`")
def sorted_classes(names, classes):
    return looked_up(names, sorted(classes))


@mistake("data.encode_labels", says=r"wrap it in torch\.tensor")
def a_list(names, classes):
    return [classes.index(name) for name in names]


@mistake("data.encode_labels", says=r"It returns \('dog',\): the loss takes a tensor")
def the_names_themselves(names, classes):
    return tuple(names)


@mistake("data.encode_labels", says="counts from 1")
def from_one(names, classes):
    return looked_up(names, classes, start=1)


@mistake("data.encode_labels", says="one-hot rows")
def one_hot(names, classes):
    return torch.nn.functional.one_hot(looked_up(names, classes), len(classes))


@mistake("data.encode_labels", says=r"torch\.float32: class indices are torch\.int64")
def floats(names, classes):
    return looked_up(names, classes).float()


@mistake("data.encode_labels", says=r"lets an unknown label through.*-1")
def minus_one(names, classes):
    return torch.tensor([classes.index(name) if name in classes else -1 for name in names])


@mistake("data.encode_labels", says=r"lets an unknown label through: .*tensor \[0\]")
def skips_unknown(names, classes):
    return torch.tensor([classes.index(name) for name in names if name in classes])


@mistake("data.encode_labels", says="raises KeyError")
def key_error(names, classes):
    index = {name: i for i, name in enumerate(classes)}
    return torch.tensor([index[name] for name in names])


@mistake("data.encode_labels", says="does not name the label 'cow'")
def silent_error(names, classes):
    if not set(names) <= set(classes):
        raise ValueError("bad label")
    return looked_up(names, classes)


@mistake("data.encode_labels", says="counts the classes from the last")
def reversed_classes(names, classes):
    return looked_up(names, classes[::-1])


@mistake("data.encode_labels", says="drops repeated labels")
def without_repeats(names, classes):
    return looked_up(list(dict.fromkeys(names)), classes)


# ---------------------------------------------------------------- hold_out


def by_class(labels, fraction, generator, choose=None, count=None):
    train, val = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator) if choose is None else choose(len(members))]
        held = max(1, round(fraction * len(members))) if count is None else count(len(members))
        val.append(members[:held])
        train.append(members[held:])
    return torch.cat(train), torch.cat(val)


@mistake("data.hold_out", says="does not split class by class")
def not_stratified(labels, fraction, generator):
    order = torch.randperm(len(labels), generator=generator)
    held = round(fraction * len(labels))
    return order[held:], order[:held]


@mistake("data.hold_out", says="takes the first samples of every class")
def the_first(labels, fraction, generator):
    return by_class(labels, fraction, generator, choose=torch.arange)


@mistake("data.hold_out", says="takes the last samples of every class")
def the_last(labels, fraction, generator):
    return by_class(labels, fraction, generator, choose=lambda n: torch.arange(n).flip(0))


@mistake("data.hold_out", says="draws the same samples whatever the generator")
def fixed_seed(labels, fraction, generator):
    return by_class(labels, fraction, torch.Generator().manual_seed(0))


@mistake("data.hold_out", says="draws from another generator")
def global_generator(labels, fraction, generator):
    return by_class(labels, fraction, None)


@mistake("data.hold_out", says="It leaks")
def all_for_training(labels, fraction, generator):
    return torch.arange(len(labels)), by_class(labels, fraction, generator)[1]


@mistake("data.hold_out", says="leaves a small class out of val")
def no_least(labels, fraction, generator):
    return by_class(labels, fraction, generator, count=lambda n: round(fraction * n))


@mistake("data.hold_out", says="rounds down")
def rounds_down(labels, fraction, generator):
    return by_class(labels, fraction, generator, count=lambda n: max(1, int(fraction * n)))


@mistake("data.hold_out", says="rounds up")
def rounds_up(labels, fraction, generator):
    return by_class(labels, fraction, generator, count=lambda n: math.ceil(round(fraction * n, 9)))


@mistake("data.hold_out", says="holds out another number")
def one_too_many(labels, fraction, generator):
    return by_class(labels, fraction, generator, count=lambda n: round(fraction * n) + 1)


@mistake("data.hold_out", says=r"equally many of every class: .*\{0: 1, 1: 1\}")
def one_of_each(labels, fraction, generator):
    return by_class(labels, fraction, generator, count=lambda n: 1)


@mistake("data.hold_out", says="two tensors of indices are asked for")
def three_parts(labels, fraction, generator):
    return *by_class(labels, fraction, generator), torch.arange(0)


@mistake("data.hold_out", says=r"equally many of every class: .*\{0: 2, 1: 2\}")
def equally_many(labels, fraction, generator):
    each = round(fraction * len(labels) / len(labels.unique()))
    return by_class(labels, fraction, generator, count=lambda n: max(1, min(each, n)))


@mistake("data.hold_out", says="returns val before train")
def val_first(labels, fraction, generator):
    return by_class(labels, fraction, generator)[::-1]


@mistake("data.hold_out", says="returns the labels of the samples")
def labels_not_indices(labels, fraction, generator):
    return tuple(labels[part] for part in by_class(labels, fraction, generator))


@mistake("data.hold_out", says="returns masks")
def masks(labels, fraction, generator):
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[by_class(labels, fraction, generator)[1]] = True
    return ~mask, mask


@mistake("data.hold_out", says="loses samples")
def loses_some(labels, fraction, generator):
    train, val = by_class(labels, fraction, generator)
    return train[:-1], val


@mistake("data.hold_out", says="draws with replacement")
def with_replacement(labels, fraction, generator):
    return by_class(labels, fraction, generator, choose=lambda n: torch.randint(n, (n,), generator=generator) * 0)


@mistake("data.hold_out", says="where whole indices of shape")
def float_indices(labels, fraction, generator):
    return tuple(part.float() for part in by_class(labels, fraction, generator))
