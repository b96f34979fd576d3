"""Wrong answers to the exercises on augmentation."""

import torch
from planting import mistake
from torch.nn import functional as F

# ---------------------------------------------------------------- mixup


def one_hot(labels, num_classes, images):
    return F.one_hot(labels, num_classes).to(images.dtype)


def blend(x, share, other=None):
    return share * x + (1 - share) * (x.roll(1, 0) if other is None else other)


def build_mixup(images=blend, labels=blend):
    """Mixup with one part of it replaced."""

    def mixup(x, y, num_classes, share):
        return images(x, share), labels(one_hot(y, num_classes, x), share)

    return mixup


def plant_mixup(says, name, **parts):
    wrong = build_mixup(**parts)
    wrong.__name__ = name
    mistake("augmentation.mixup", says=says)(wrong)


plant_mixup("gives the image 1 − share and its neighbour share", "share_reversed",
            images=lambda x, share: blend(x, 1 - share), labels=lambda y, share: blend(y, 1 - share))  # fmt: skip
plant_mixup("gives the image's label 1 − share", "label_reversed", labels=lambda y, share: blend(y, 1 - share))
plant_mixup("mixes each image with the one after it", "next_image", images=lambda x, share: blend(x, share, x.roll(-1, 0)))
plant_mixup("with itself read backwards", "reversed_batch", images=lambda x, share: blend(x, share, x.flip(0)))
plant_mixup("takes half of each, whatever the share", "always_half",
            images=lambda x, share: (x + x.roll(1, 0)) / 2, labels=lambda y, share: (y + y.roll(1, 0)) / 2)  # fmt: skip
plant_mixup(r"roll\(1, 0\) moves axis 0", "roll_without_an_axis", images=lambda x, share: blend(x, share, x.roll(1)))
plant_mixup("axis 0 is the batch", "roll_along_the_width", images=lambda x, share: blend(x, share, x.roll(1, -1)))
plant_mixup("leaves the images as they are", "labels_only", images=lambda x, share: x.clone())
plant_mixup("adds the neighbour to the whole image", "sum_of_images", images=lambda x, share: x + (1 - share) * x.roll(1, 0))
plant_mixup("leaves the labels as they are", "images_only", labels=lambda y, share: y)
plant_mixup("mixes the labels with those of the next image", "labels_of_the_next",
            labels=lambda y, share: blend(y, share, y.roll(-1, 0)))  # fmt: skip
plant_mixup("shifts the classes instead of the samples", "rolls_the_classes",
            labels=lambda y, share: blend(y, share, y.roll(1, 1)))  # fmt: skip
plant_mixup("gives both labels the whole", "both_labels_whole", labels=lambda y, share: y + y.roll(1, 0))
plant_mixup("marks both labels with 1", "multi_label", labels=lambda y, share: (y + y.roll(1, 0)).clamp(max=1))
plant_mixup("keeps only the label with the larger share", "winner_takes_all",
            labels=lambda y, share: one_hot(blend(y, share).argmax(1), y.shape[1], y))  # fmt: skip
plant_mixup("It returns torch.int64 labels", "integer_shares", labels=lambda y, share: blend(y, share).long())


@mistake("augmentation.mixup", says="class numbers cannot be mixed")
def mixed_class_numbers(images, labels, num_classes, share):
    return blend(images, share), blend(labels.float(), share)


@mistake("augmentation.mixup", says=r"overwrites where it has to add.*together 1\. Given")
def neighbour_overwrites(images, labels, num_classes, share):
    rows = torch.zeros(len(images), num_classes, dtype=images.dtype)
    rows[torch.arange(len(labels)), labels] = share
    rows[torch.arange(len(labels)), labels.roll(1)] = 1 - share
    return blend(images, share), rows


@mistake("augmentation.mixup", says="the last one written wins")
def own_label_overwrites(images, labels, num_classes, share):
    rows = torch.zeros(len(images), num_classes, dtype=images.dtype)
    rows[torch.arange(len(labels)), labels.roll(1)] = 1 - share
    rows[torch.arange(len(labels)), labels] = share
    return blend(images, share), rows


@mistake("augmentation.mixup", says="It changes its input")
def mixes_in_place(images, labels, num_classes, share):
    other = images.roll(1, 0)
    images.mul_(share).add_(other, alpha=1 - share)
    return images, blend(one_hot(labels, num_classes, images), share)


@mistake("augmentation.mixup", says="dtype torch.float32 where torch.float64")
def always_float32(images, labels, num_classes, share):
    return blend(images, share).float(), blend(one_hot(labels, num_classes, images), share).float()


@mistake("augmentation.mixup", says="two tensors are asked for")
def four_results(images, labels, num_classes, share):
    return blend(images, share), labels, labels.roll(1), share


# ---------------------------------------------------------------- cutmix_box


def build_box(
    half=lambda share: 0.5 * (1 - share) ** 0.5,
    whole=int,
    clip=lambda value, most: min(max(value, 0), most),
    kept=lambda pasted, share: 1 - pasted,
    centre=lambda y, x: (y, x),
    sides=lambda half_height, half_width: (half_height, half_width),
    start=lambda centre, half: centre - half,
    order=lambda top, bottom, left, right, kept: (top, bottom, left, right, kept),
):
    """The box of CutMix with one part of it replaced."""

    def cutmix_box(height, width, share, center_y, center_x):
        y, x = centre(center_y, center_x)
        half_height, half_width = sides(whole(half(share) * height), whole(half(share) * width))
        top, left = start(y, half_height), start(x, half_width)
        bottom, right = clip(top + 2 * half_height, height), clip(left + 2 * half_width, width)
        top, left = clip(top, height), clip(left, width)
        return order(top, bottom, left, right, kept((bottom - top) * (right - left) / (height * width), share))

    return cutmix_box


def plant_box(says, name, **parts):
    wrong = build_box(**parts)
    wrong.__name__ = name
    mistake("augmentation.cutmix_box", says=says)(wrong)


plant_box("area goes with the square of a side", "no_root", half=lambda share: 0.5 * (1 - share))
plant_box("takes the root of share", "root_of_the_share", half=lambda share: 0.5 * share**0.5)
plant_box("reaches a whole side from the centre", "no_half", half=lambda share: (1 - share) ** 0.5)
plant_box("lets the box stick out of the image", "not_cut_off", clip=lambda value, most: value)
plant_box("returns the share it was given", "share_not_adjusted", kept=lambda pasted, share: share)
plant_box("returns what is pasted", "pasted_share", kept=lambda pasted, share: pasted)
plant_box("swaps the centre's y and x", "centre_swapped", centre=lambda y, x: (x, y))
plant_box("rounds the half sides to the nearest number", "rounds", whole=round)
plant_box("makes the box a square", "square", sides=lambda h, w: (min(h, w), min(h, w)))
plant_box("starts the box at the centre", "starts_at_the_centre", start=lambda centre, half: centre)
plant_box("cuts off one pixel too early", "cut_off_too_early", clip=lambda value, most: min(max(value, 0), most - 1))
plant_box("returns left and right first", "columns_first", order=lambda t, b, l, r, k: (l, r, t, b, k))  # noqa: E741
plant_box("returns top, left, bottom, right", "corners", order=lambda t, b, l, r, k: (t, l, b, r, k))  # noqa: E741
plant_box("an image is cut at whole pixels", "float_pixels", whole=lambda value: float(int(value)))
plant_box("five numbers are asked for", "box_only", order=lambda *numbers: numbers[:4])
plant_box("where plain numbers are asked for", "tensors", order=lambda *numbers: tuple(map(torch.tensor, numbers)))


@mistake("augmentation.cutmix_box", says="computes `kept` before the box is cut off")
def kept_too_early(height, width, share, center_y, center_x):
    half_height, half_width = int(0.5 * (1 - share) ** 0.5 * height), int(0.5 * (1 - share) ** 0.5 * width)
    return (*build_box()(height, width, share, center_y, center_x)[:4], 1 - 4 * half_height * half_width / (height * width))


# ---------------------------------------------------------------- random_crop_batch


def build_crop(
    pad=lambda images, padding: F.pad(images, [padding] * 4),
    draw=lambda size, padding, generator: torch.randint(2 * padding + 1, (2, size), generator=generator),
    after=lambda crop: crop,
):
    """A random crop of each image with one part of it replaced."""

    def random_crop_batch(images, padding, generator):
        padded, (height, width) = pad(images, padding), images.shape[2:]
        tops, lefts = draw(len(images), padding, generator)
        places = zip(padded, tops.tolist(), lefts.tolist(), strict=True)
        return after(torch.stack([image[:, top : top + height, left : left + width] for image, top, left in places]))

    return random_crop_batch


def plant_crop(says, name, **parts):
    wrong = build_crop(**parts)
    wrong.__name__ = name
    mistake("augmentation.random_crop_batch", says=says)(wrong)


def randint(high, shape, generator):
    return torch.randint(high, shape, generator=generator)


def padding_of(mode):
    return lambda images, padding: F.pad(images, [padding] * 4, mode=mode) if padding else images


plant_crop("cuts the whole batch at one place", "one_offset_for_all",
           draw=lambda size, p, g: randint(2 * p + 1, (2, 1), g).expand(2, size))  # fmt: skip
plant_crop("leaves the images where they are", "no_shift", draw=lambda size, p, g: torch.full((2, size), p))
plant_crop("by the same number", "same_for_rows_and_columns",
           draw=lambda size, p, g: randint(2 * p + 1, (1, size), g).expand(2, size))  # fmt: skip
plant_crop("never varies the rows", "columns_only",
           draw=lambda size, p, g: randint(2 * p + 1, (2, size), g) * torch.tensor([[0], [1]]))  # fmt: skip
plant_crop("never varies the columns", "rows_only",
           draw=lambda size, p, g: randint(2 * p + 1, (2, size), g) * torch.tensor([[1], [0]]))  # fmt: skip
plant_crop("never draws the largest offset", "upper_bound_left_out", draw=lambda size, p, g: randint(max(2 * p, 1), (2, size), g))
plant_crop("never draws the offset 0", "lower_bound_left_out",
           draw=lambda size, p, g: 1 + randint(2 * p, (2, size), g) if p else torch.zeros(2, size).long())  # fmt: skip
plant_crop("not equally frequent", "rounded_uniform",
           draw=lambda size, p, g: (torch.rand(2, size, generator=g) * 2 * p).round().long())  # fmt: skip
plant_crop("draws from another generator", "global_generator", draw=lambda size, p, g: torch.randint(2 * p + 1, (2, size)))
plant_crop("the same crops whatever the generator", "seeds_its_own",
           draw=lambda size, p, g: randint(2 * p + 1, (2, size), torch.Generator().manual_seed(0)))  # fmt: skip
plant_crop("depend on each other", "columns_follow_rows",
           draw=lambda size, p, g: (d := randint(2 * p + 1, (size,), g)) is None or torch.stack([d, 2 * p - d]))  # fmt: skip
plant_crop("with copies of the edge", "edge_padding", pad=padding_of("replicate"))
plant_crop("with a mirror image", "mirror_padding", pad=padding_of("reflect"))
plant_crop("with the other side", "wraps_around", pad=padding_of("circular"))
plant_crop("flips an image", "flips_too", after=lambda crop: crop.flip(-1))
plant_crop("has dtype torch.float32 where torch.float64", "float32", after=lambda crop: crop.float())
plant_crop("the padded image: offsets run from 0", "offset_too_large", draw=lambda size, p, g: torch.full((2, size), 2 * p + 1)
           , pad=lambda images, p: F.pad(images, [p, p + 1, p, p + 1]))  # fmt: skip


@mistake("augmentation.random_crop_batch", says=r"has shape .* is expected")
def without_a_crop(images, padding, generator):
    return F.pad(images, [padding] * 4)


@mistake("augmentation.random_crop_batch", says="cuts the channels of one image at different places")
def each_channel_for_itself(images, padding, generator):
    channels = images.flatten(0, 1)[:, None]  # (B, C, H, W) -> (B·C, 1, H, W)
    return build_crop()(channels, padding, generator).reshape(images.shape)


@mistake("augmentation.random_crop_batch", says="is no crop of the zero-padded images")
def images_of_others(images, padding, generator):
    crops = build_crop()(images, padding, generator)
    return crops.flip(0) + (len(images) == 1)


# ---------------------------------------------------------------- average_views


def plant_average(says, name, wrong):
    def answer(logits):
        return wrong(logits)

    answer.__name__ = name
    mistake("augmentation.average_views", says=says)(answer)


plant_average("averages the logits first", "logits_first", lambda z: z.mean(0).softmax(1))
plant_average("averages the logarithms", "geometric_mean", lambda z: z.log_softmax(2).mean(0).exp())
plant_average("averages the logits and returns no probabilities", "mean_logits", lambda z: z.mean(0))
plant_average("returns the logarithm of the mean", "log_of_the_mean", lambda z: z.softmax(2).mean(0).log())
plant_average("sums over the views", "sum_over_views", lambda z: z.softmax(2).sum(0))
plant_average("takes the largest probability", "maximum", lambda z: z.softmax(2).amax(0))
plant_average("takes the first view only", "first_view", lambda z: z[0].softmax(1))
plant_average("takes the last view only", "last_view", lambda z: z[-1].softmax(1))
plant_average("lets the views vote", "votes", lambda z: F.one_hot(z.argmax(2), z.shape[2]).to(z.dtype).mean(0))
plant_average("softmax over the views", "softmax_over_views", lambda z: z.softmax(0).mean(0))
plant_average("softmax over the images", "softmax_over_images", lambda z: z.softmax(1).mean(0))
plant_average("takes the median", "median", lambda z: z.softmax(2).median(0).values)
plant_average("softmax of the mean probabilities once more", "softmax_twice", lambda z: z.softmax(2).mean(0).softmax(1))
plant_average("returns one class an image", "classes", lambda z: z.softmax(2).mean(0).argmax(1))
plant_average("overflows", "exp_overflows", lambda z: (z.exp() / z.exp().sum(2, keepdim=True)).mean(0))
plant_average("averages over the images|has shape", "over_images", lambda z: z.softmax(2).mean(1))
plant_average("It changes its input", "in_place", lambda z: z.sub_(z.amax(2, keepdim=True)).softmax(2).mean(0))
