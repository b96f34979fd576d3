"""Wrong answers to the first exercises."""

import math

import torch
from planting import mistake


@mistake("start.double", says="adds 2 instead of multiplying")
def add_two(x):
    return x + 2


@mistake("start.double", says="squares its input")
def square(x):
    return x * x


@mistake("start.double", says="returns its input as it is")
def identity(x):
    return x.clone()


@mistake("start.double", says="halves")
def half(x):
    return x / 2


@mistake("start.double", says="beside itself")
def repeat(x):
    return torch.cat([x, x])


@mistake("start.double", says="doubles the sum")
def double_sum(x):
    return 2 * x.sum()


@mistake("start.double", says="loses the sign")
def double_magnitude(x):
    return 2 * x.abs()


@mistake("start.double", says="turns whole numbers into floats")
def double_as_float(x):
    return 2.0 * x.float()


@mistake("start.double", says="changes its input")
def double_in_place(x):
    return x.mul_(2)


@mistake("start.double", says="Is a `return` missing")
def forget_to_return(x):
    2 * x


@mistake("start.largest_batch", says="rounds up")
def round_up(memory, fixed, per_image):
    return max(0, math.ceil((memory - fixed) / per_image))


@mistake("start.largest_batch", says="rounds to the nearest")
def round_to_nearest(memory, fixed, per_image):
    return max(0, math.floor((memory - fixed) / per_image + 0.5))


@mistake("start.largest_batch", says="forgets the fixed part")
def ignore_fixed(memory, fixed, per_image):
    return memory // per_image


@mistake("start.largest_batch", says="adds the fixed part")
def add_fixed(memory, fixed, per_image):
    return (memory + fixed) // per_image


@mistake("start.largest_batch", says="negative number of images")
def no_floor_at_zero(memory, fixed, per_image):
    return (memory - fixed) // per_image


@mistake("start.largest_batch", says="fraction of an image")
def fraction(memory, fixed, per_image):
    return max(0.0, (memory - fixed) / per_image)


@mistake("start.largest_batch", says="one image fits where none does")
def at_least_one(memory, fixed, per_image):
    return max(1, (memory - fixed) // per_image)


@mistake("start.largest_batch", says="after dividing")
def subtract_last(memory, fixed, per_image):
    return memory // per_image - fixed


@mistake("start.largest_batch", says=r"as int\(\) cuts −1\.5 to −1")
def cut_at_zero(memory, fixed, per_image):
    return int((memory - fixed) / per_image)


@mistake("start.largest_batch", says=r"returns a float \(tensor")
def float_tensor(memory, fixed, per_image):
    return torch.tensor(float(max(0, (memory - fixed) // per_image)))


@mistake("start.largest_batch", says=r"returns a float \(5\.0")
def whole_float(memory, fixed, per_image):
    return float(max(0, (memory - fixed) // per_image))


@mistake("start.double", says=r"leaves torch\.initial_seed\(\) at 0 for whatever runs next")
def seeds_the_program(x):
    torch.manual_seed(0)
    return 2 * x


@mistake("start.double", says=r"leaves torch\.get_default_dtype\(\) at torch\.float64")
def sets_the_default_dtype(x):
    torch.set_default_dtype(torch.float64)
    return 2 * x
