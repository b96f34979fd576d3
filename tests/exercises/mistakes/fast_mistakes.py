"""Wrong answers to the exercises on fast training."""

import torch
from planting import mistake
from torch.nn import functional as F

CROP, WHITENING = "fast.batch_crop", "fast.whitening"


def plant(exercise, says, name, wrong):
    wrong.__name__ = name
    mistake(exercise, says=says)(wrong)


def crop(
    pad=lambda images, p: F.pad(images, [p] * 4),
    places=lambda top, left, p: (top, left),
    window=lambda image, row, column, height, width: image[:, row : row + height, column : column + width],
    finish=lambda crops: crops,
):
    """The crop of a batch with one part of it replaced."""

    def batch_crop(images, top, left, padding):
        rows, columns = places(top, left, padding)
        starts = zip(pad(images, padding), rows.tolist(), columns.tolist(), strict=True)
        return finish(torch.stack([window(image, row, column, *images.shape[2:]) for image, row, column in starts]))

    return batch_crop


def moved(places):
    """Windows that may lie outside the padded images; `places` says where, counted from their corner."""
    return crop(lambda images, p: F.pad(images, [3 * p + 1] * 4), lambda t, le, p: [x + 2 * p + 1 for x in places(t, le, p)])


def everywhere(place):
    return torch.full_like(place, place[0].item())


plant(CROP, r"swaps the two: `top`", "swapped", crop(places=lambda t, le, p: (le, t)))
plant(CROP, r"It moves the other way", "backwards", crop(places=lambda t, le, p: (2 * p - t, 2 * p - le)))
plant(CROP, "swaps the two and moves", "swapped_backwards", crop(places=lambda t, le, p: (2 * p - le, 2 * p - t)))
plant(CROP, "from the corner of the image", "padded_below_only", crop(lambda images, p: F.pad(images, [0, 2 * p] * 2)))
plant(CROP, "pads too much above", "padded_twice", crop(lambda images, p: F.pad(images, [2 * p] * 4)))
plant(CROP, "does not pad", "not_padded", crop(lambda images, p: images))
plant(CROP, "leaves the images where they are", "unmoved", lambda images, top, left, padding: images.clone())
plant(CROP, "at row 0 and column 0", "at_the_corner", crop(places=lambda t, le, p: (0 * t, 0 * le)))
plant(CROP, "place of the first image", "one_place", crop(places=lambda t, le, p: (everywhere(t), everywhere(le))))
plant(CROP, r"each other's places \(in reverse\)", "reversed_places", crop(places=lambda t, le, p: (t.flip(0), le.flip(0))))
plant(CROP, r"ignores `left`: rows move", "rows_only", crop(places=lambda t, le, p: (t, 0 * le + p)))
plant(CROP, "ignores `top`: all rows begin at 0", "columns_only", crop(places=lambda t, le, p: (0 * t, le)))
plant(CROP, "takes `top` for both", "top_twice", crop(places=lambda t, le, p: (t, t)))
plant(CROP, "takes `left` for both", "left_twice", crop(places=lambda t, le, p: (le, le)))
plant(CROP, "one row and one column too late", "too_late", moved(lambda t, le, p: (t + 1, le + 1)))
plant(CROP, "one row and one column too early", "too_early", moved(lambda t, le, p: (t - 1, le - 1)))
plant(CROP, "copies of the edge", "replicate", crop(lambda images, p: F.pad(images, [p] * 4, "replicate")))
plant(CROP, "a mirror image", "reflect", crop(lambda images, p: F.pad(images, [p] * 4, "reflect")))
plant(CROP, "with the mean", "mean", crop(lambda images, p: F.pad(images, [p] * 4, value=images.float().mean().item())))
plant(CROP, "keep the dtype", "floats", crop(finish=lambda crops: crops.float()))
plant(CROP, "on their side", "turned", crop(finish=lambda crops: crops.transpose(2, 3)))
plant(CROP, "returns the padded images whole", "only_padded", lambda images, top, left, padding: F.pad(images, [padding] * 4))


@mistake(CROP, says="as torch.roll does")
def rolled(images, top, left, padding):
    shifts = zip((padding - top).tolist(), (padding - left).tolist(), strict=True)
    return torch.stack([image.roll(shift, (1, 2)) for image, shift in zip(images, shifts, strict=True)])


@mistake(CROP, says=r"raises IndexError.*out of")
def pads_columns_only(images, top, left, padding):
    padded = F.pad(images, [padding] * 2)
    rows, columns = top[:, None] + torch.arange(images.shape[2]), left[:, None] + torch.arange(images.shape[3])
    return padded[torch.arange(len(images))[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


@mistake(CROP, says="the result has shape")
def windows_of_every_pair(images, top, left, padding):
    height, width = images.shape[2:]
    return F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)[:, :, top, left]


@mistake(CROP, says=r"raises RuntimeError for .*, 0: ")
def canvas_without_padding_0(images, top, left, padding):
    size, channels, height, width = images.shape
    padded = images.new_zeros(size, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding:-padding, padding:-padding] = images
    return crop(lambda images, p: padded)(images, top, left, padding)


@mistake(CROP, says="dtype torch.float32 where torch.float64")
def canvas_of_float32(images, top, left, padding):
    padded = torch.zeros(*images.shape[:2], *(side + 2 * padding for side in images.shape[2:]))
    padded[:, :, padding : padding + images.shape[2], padding : padding + images.shape[3]] = images
    crops = crop(lambda images, p: padded)(images, top, left, padding)
    return crops if images.is_floating_point() else crops.to(images.dtype)


@mistake(CROP, says="It changes its input")
def into_the_input(images, top, left, padding):
    images.copy_(crop()(images, top, left, padding))
    return images


def whiten(
    covariance=lambda x: x.T.cov(),
    decompose=torch.linalg.eigh,
    scale=lambda vectors, values: vectors / (values + 5e-4).sqrt(),
    finish=lambda columns: columns.T,
):
    """The whitening filters with one part of it replaced."""

    def whitening(patches):
        values, vectors = decompose(covariance(patches))
        return finish(scale(vectors, values))

    return whitening


def of_own_means(patches):
    centred = patches - patches.mean(1, keepdim=True)
    return centred.T @ centred / len(patches)


plant(WHITENING, "does not subtract the mean", "no_mean", whiten(lambda x: x.T @ x / len(x)))
plant(WHITENING, "from each patch its own mean", "own_means", whiten(of_own_means))
plant(WHITENING, "adds no 5e-4", "no_eps", whiten(scale=lambda vectors, values: vectors / values.sqrt()))
plant(WHITENING, "adds 5e-4 to the root", "eps_outside", whiten(scale=lambda u, values: u / (values.sqrt() + 5e-4)))
plant(WHITENING, "adds 1e-05 to the eigenvalues", "other_eps", whiten(scale=lambda u, values: u / (values + 1e-5).sqrt()))
plant(WHITENING, "divides by the eigenvalue", "no_root", whiten(scale=lambda vectors, values: vectors / (values + 5e-4)))
plant(WHITENING, "does not scale the eigenvectors", "unscaled", whiten(scale=lambda vectors, values: vectors))
plant(WHITENING, "multiplies by the root", "multiplied", whiten(scale=lambda u, values: u * (values + 5e-4).sqrt()))
plant(WHITENING, "has the filters in its columns", "columns", whiten(finish=lambda columns: columns))
plant(WHITENING, "scales rows that are no eigenvectors", "rows", whiten(scale=lambda u, v: u.T / (v + 5e-4).sqrt()))
plant(WHITENING, "others' eigenvalues", "mixed_order", whiten(scale=lambda u, v: u / (v.flip(0) + 5e-4).sqrt()))
plant(WHITENING, "by the number of patches", "scatter", whiten(lambda x: x.T.cov() * (len(x) - 1)))
plant(WHITENING, "whose values it has scaled", "correlation", whiten(lambda x: x.T.corrcoef()))
plant(WHITENING, "the covariance between patches", "of_patches", whiten(lambda x: x.cov()))
plant(WHITENING, "complex numbers", "complex_numbers", whiten(decompose=torch.linalg.eig))
plant(WHITENING, "every filter and its negative", "both_signs", whiten(finish=lambda u: torch.cat((u.T, -u.T))))


@mistake(WHITENING, says="takes singular values for eigenvalues")
def singular_values(patches):
    _, values, vectors = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)
    return vectors / (values + 5e-4).sqrt()[:, None]


@mistake(WHITENING, says="scales each value by itself")
def standard_deviations(patches):
    return (patches.var(0) + 5e-4).rsqrt().diag()


@mistake(WHITENING, says="returns the whitened patches")
def whitened_patches(patches):
    return (patches - patches.mean(0)) @ whiten()(patches).T


@mistake(WHITENING, says="dtype torch.float64 where torch.float32")
def in_double(patches):
    return whiten()(patches.double())


@mistake(WHITENING, says="where a tensor of filters is asked for")
def as_a_list(patches):
    return list(whiten()(patches))


@mistake(WHITENING, says="It changes its input")
def centred_in_place(patches):
    patches -= patches.mean(0)
    return whiten()(patches)


@mistake(WHITENING, says="Some of its filters are nan or inf")
def subtracted(patches):
    return whiten(scale=lambda vectors, values: vectors / (values - 5e-4).sqrt())(patches)
