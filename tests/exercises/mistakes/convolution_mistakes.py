"""Wrong answers to the exercises on convolution."""

import math

import numpy as np
import torch
from planting import mistake
from torch.nn import functional as F

from dlcourse.exercises.convolution import conv2d as right


@mistake("convolution.output_size", says="forgets the place where it starts: add 1")
def no_plus_one(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride


@mistake("convolution.output_size", says="pads one side only")
def padding_once(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + padding - dilation * (kernel_size - 1) - 1) // stride + 1


@mistake("convolution.output_size", says="ignores the padding")
def no_padding_in_size(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size - dilation * (kernel_size - 1) - 1) // stride + 1


@mistake("convolution.output_size", says="ignores the dilation")
def no_dilation_in_size(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - kernel_size) // stride + 1


@mistake("convolution.output_size", says="there are gaps only between its taps")
def kernel_times_dilation(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * kernel_size) // stride + 1


@mistake("convolution.output_size", says="ignores the stride")
def no_stride_in_size(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return size + 2 * padding - dilation * (kernel_size - 1)


@mistake("convolution.output_size", says="rounds up")
def rounds_up(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return math.ceil((size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1


@mistake("convolution.output_size", says="adds the 1 before it divides")
def one_before_the_division(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel_size - 1)) // stride


@mistake("convolution.output_size", says="returns the float .* divide with `//`")
def a_float(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) / stride + 1


@mistake("convolution.output_size", says="forgets the kernel")
def size_over_stride(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding) // stride


@mistake("convolution.output_size", says="one too few")
def extent_without_the_first_tap(size, kernel_size, *, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel_size - 1)) // stride + 1


@mistake("convolution.output_size", says="Its defaults are not stride=1")
def other_defaults(size, kernel_size, *, stride=1, padding=1, dilation=1):
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


@mistake("convolution.output_size", says=r"array \[0\.0, 0\.0\].* where 13 is expected")
def an_array(size, kernel_size, **options):
    return np.zeros(2)


@mistake("convolution.conv2d", says="flips the kernel")
def true_convolution(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight.flip(2, 3), bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="swaps the rows and columns of the kernel")
def transposed_kernel(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight.transpose(2, 3), bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="forgets the bias")
def no_bias(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="adds the bias once for every input channel")
def bias_per_channel(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    return sum(right(images[:, c : c + 1], weight[:, c : c + 1], bias, **options) for c in range(images.shape[1]))


@mistake("convolution.conv2d", says="forgets the padding")
def no_padding(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight, bias, stride=stride, dilation=dilation)


@mistake("convolution.conv2d", says="pads the width only")
def pads_the_last_axis(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(F.pad(images, (padding, padding)), weight, bias, stride=stride, dilation=dilation)


@mistake("convolution.conv2d", says="pads above and to the left only")
def pads_one_side(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(F.pad(images, (padding, 0, padding, 0)), weight, bias, stride=stride, dilation=dilation)


@mistake("convolution.conv2d", says="pads with copies of the edge")
def pads_with_the_edge(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    images = F.pad(images, (padding,) * 4, mode="replicate")
    return right(images, weight, bias, stride=stride, dilation=dilation)


@mistake("convolution.conv2d", says="ignores the stride")
def no_stride(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight, bias, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="applies the stride to the rows only")
def stride_on_rows(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight, bias, padding=padding, dilation=dilation)[:, :, ::stride]


@mistake("convolution.conv2d", says="ignores the dilation")
def no_dilation(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight, bias, stride=stride, padding=padding)


@mistake("convolution.conv2d", says="applies the dilation to the columns only")
def dilation_on_columns(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return F.conv2d(images, weight, bias, stride, padding, (1, dilation))


@mistake("convolution.conv2d", says="averages over the input channels")
def mean_over_channels(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight / images.shape[1], bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="uses the first input channel only")
def first_channel(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images[:, :1], weight[:, :1], bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says=r"takes weight as \(in, out, h, w\)")
def in_and_out_swapped(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    if weight.shape[0] == weight.shape[1]:
        weight = weight.transpose(0, 1)
    return right(images, weight, bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="cuts the gradient")
def copies_into_a_tensor(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    with torch.no_grad():
        return right(images, weight, bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="dtype torch.float32 where torch.float64 is expected")
def always_float32(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight, bias, stride=stride, padding=padding, dilation=dilation).float()


@mistake("convolution.conv2d", says="cuts the gradient of the weight")
def detaches_the_weight(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    return right(images, weight.detach(), bias, stride=stride, padding=padding, dilation=dilation)


@mistake("convolution.conv2d", says="the gradient of the images is")
def right_value_wrong_gradient(images, weight, bias=None, *, stride=1, padding=0, dilation=1):
    out = right(images, weight, bias, stride=stride, padding=padding, dilation=dilation)
    return 2 * out - out.detach()
