"""Wrong answers to the exercises on tensors."""

import torch
from planting import mistake

ALL_BUT_CHANNEL = (0, 2, 3)


@mistake("tensors.standardize", says="treats each image on its own")
def standardize_each_image(x):
    return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True, correction=0)


@mistake("tensors.standardize", says="one mean and one standard deviation over all channels")
def standardize_everything(x):
    return (x - x.mean()) / x.std(correction=0)


@mistake("tensors.standardize", says="one standard deviation an image, over its channels")
def standardize_all_but_the_batch(x):
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True, correction=0)


@mistake("tensors.standardize", says="over the batch axis alone")
def standardize_each_pixel(x):
    return (x - x.mean(0)) / x.std(0, correction=0)


@mistake("tensors.standardize", says="over the channels")
def standardize_channels(x):
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)


@mistake("tensors.standardize", says=r"divides by n − 1.*correction=0")
def standardize_unbiased(x):
    return (x - x.mean(ALL_BUT_CHANNEL, keepdim=True)) / x.std(ALL_BUT_CHANNEL, keepdim=True)


@mistake("tensors.standardize", says="variance instead of the standard deviation")
def standardize_by_variance(x):
    return (x - x.mean(ALL_BUT_CHANNEL, keepdim=True)) / x.var(ALL_BUT_CHANNEL, keepdim=True, correction=0)


@mistake("tensors.standardize", says=r"no keepdim.*line up with the columns")
def standardize_without_keepdim(x):
    return (x - x.mean(ALL_BUT_CHANNEL)) / x.std(ALL_BUT_CHANNEL, correction=0)


@mistake("tensors.standardize", says="does not divide by the standard deviation")
def centre_only(x):
    return x - x.mean(ALL_BUT_CHANNEL, keepdim=True)


@mistake("tensors.standardize", says="does not subtract the mean")
def scale_only(x):
    return x / x.std(ALL_BUT_CHANNEL, keepdim=True, correction=0)


@mistake("tensors.standardize", says="needs brackets")
def standardize_without_brackets(x):
    return x - x.mean(ALL_BUT_CHANNEL, keepdim=True) / x.std(ALL_BUT_CHANNEL, keepdim=True, correction=0)


@mistake("tensors.standardize", says="averages the standard deviations of the single images")
def mean_of_stds(x):
    std = x.std((2, 3), keepdim=True, correction=0).mean(0, keepdim=True)
    return (x - x.mean(ALL_BUT_CHANNEL, keepdim=True)) / std


@mistake("tensors.standardize", says="by minimum and maximum")
def min_max(x):
    low, high = x.amin(ALL_BUT_CHANNEL, keepdim=True), x.amax(ALL_BUT_CHANNEL, keepdim=True)
    return (x - low) / (high - low)


@mistake("tensors.standardize", says="It changes its input .*not in place")
def standardize_in_place(x):
    x -= x.mean(ALL_BUT_CHANNEL, keepdim=True)
    x /= x.std(ALL_BUT_CHANNEL, keepdim=True, correction=0)
    return x


@mistake("tensors.standardize", says="has dtype torch.float32 where torch.float64")
def standardize_in_float32(x):
    return (x - x.mean(ALL_BUT_CHANNEL, keepdim=True)).float() / x.std(ALL_BUT_CHANNEL, keepdim=True, correction=0).float()


@mistake("tensors.chw_from_hwc", says="reshapes where axes must be permuted")
def reshaped(x):
    n, h, w, c = x.shape
    return x.reshape(n, c, h, w) / 255


@mistake("tensors.chw_from_hwc", says="leaves the bytes as they are")
def bytes_moved(x):
    return x.permute(0, 3, 1, 2)


@mistake("tensors.chw_from_hwc", says="leaves the values from 0 to 255")
def not_scaled(x):
    return x.permute(0, 3, 1, 2).float()


@mistake("tensors.chw_from_hwc", says="swaps height and width")
def transposed(x):
    return x.transpose(1, 3) / 255


@mistake("tensors.chw_from_hwc", says="leaves the channels last")
def scaled_only(x):
    return x / 255


@mistake("tensors.chw_from_hwc", says="divides by 256")
def by_256(x):
    return x.permute(0, 3, 1, 2) / 256


@mistake("tensors.chw_from_hwc", says="rounds to 0 and 1")
def whole_numbers(x):
    return (x.permute(0, 3, 1, 2) // 255).float()


@mistake("tensors.chw_from_hwc", says="largest value of this batch")
def by_maximum(x):
    return x.permute(0, 3, 1, 2) / x.max()


@mistake("tensors.chw_from_hwc", says="returns float64")
def doubles(x):
    return x.permute(0, 3, 1, 2).double() / 255


@mistake("tensors.chw_from_hwc", says="reverses the channels")
def bgr(x):
    return x.permute(0, 3, 1, 2).flip(1) / 255


@mistake("tensors.chw_from_hwc", says="scales to −1 … 1")
def centred(x):
    return x.permute(0, 3, 1, 2) / 127.5 - 1


@mistake("tensors.chw_from_hwc", says="array .* not a Tensor")
def as_array(x):
    return x.permute(0, 3, 1, 2).numpy() / 255


@mistake("tensors.pairwise_distances", says="squared distances")
def squared(a, b):
    return (a[:, None] - b[None]).square().sum(2)


@mistake("tensors.pairwise_distances", says="is transposed")
def rows_of_b(a, b):
    return torch.cdist(b, a)


@mistake("tensors.pairwise_distances", says="Manhattan distance")
def manhattan(a, b):
    return (a[:, None] - b[None]).abs().sum(2)


@mistake("tensors.pairwise_distances", says="point i with point i alone")
def in_pairs(a, b):
    return (a - b).norm(dim=1)


@mistake("tensors.pairwise_distances", says="averages over the D coordinates")
def averaged(a, b):
    return (a[:, None] - b[None]).square().mean(2).sqrt()


@mistake("tensors.pairwise_distances", says="dot products")
def einsum_of_products(a, b):
    return torch.einsum("nd,md->nm", a, b)


@mistake("tensors.pairwise_distances", says="before it squares them")
def sums_first(a, b):
    return (a[:, None] - b[None]).sum(2).square().sqrt()


@mistake("tensors.pairwise_distances", says="over the points of b")
def wrong_axis(a, b):
    return (a[:, None] - b[None]).square().sum(1).sqrt()


@mistake("tensors.pairwise_distances", says="over the points of a")
def first_axis(a, b):
    return (a[:, None] - b[None]).square().sum(0).sqrt()


@mistake("tensors.pairwise_distances", says="leaves out the sum over the coordinates")
def no_sum(a, b):
    return (a[:, None] - b[None]).square().sqrt()


@mistake("tensors.pairwise_distances", says="a against itself")
def a_with_a(a, b):
    return torch.cdist(a, a)


@mistake("tensors.pairwise_distances", says="forgets the term −2a·b")
def no_cross_term(a, b):
    return (a.square().sum(1)[:, None] + b.square().sum(1)).sqrt()


@mistake("tensors.pairwise_distances", says="nan for a point and itself")
def expanded_square(a, b):
    return (a.square().sum(1)[:, None] - 2 * a @ b.T + b.square().sum(1)).sqrt()


@mistake("tensors.pairwise_distances", says="It changes its input .*not in place")
def subtracts_in_place(a, b):
    columns = []
    for point in b:
        a -= point
        columns.append(a.norm(dim=1))
    return torch.stack(columns, dim=1)
