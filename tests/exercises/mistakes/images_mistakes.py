"""Wrong answers to the exercises on images."""

import numpy as np
import torch
from PIL import Image, ImageOps
from planting import mistake


def upright_on(image, colour="white"):
    layered = ImageOps.exif_transpose(image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, colour), layered).convert("RGB")


def as_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@mistake("images.to_rgb_tensor", says="leaves the channels last")
def channels_last(image):
    return as_tensor(upright_on(image)).permute(1, 2, 0)


@mistake("images.to_rgb_tensor", says="reshapes where it must permute")
def reshaped(image):
    picture = upright_on(image)
    return torch.from_numpy(np.array(picture)).reshape(3, picture.height, picture.width) / 255


@mistake("images.to_rgb_tensor", says="swaps height and width")
def transposed(image):
    return as_tensor(upright_on(image)).transpose(1, 2)


@mistake("images.to_rgb_tensor", says="ignores the EXIF orientation")
def no_exif(image):
    layered = image.convert("RGBA")
    return as_tensor(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"))


@mistake("images.to_rgb_tensor", says="drops the transparency")
def plain_convert(image):
    return as_tensor(ImageOps.exif_transpose(image).convert("RGB"))


@mistake("images.to_rgb_tensor", says="transparent images on black")
def on_black(image):
    return as_tensor(upright_on(image, "black"))


@mistake("images.to_rgb_tensor", says="leaves the numbers at 0 to 255")
def not_scaled(image):
    return as_tensor(upright_on(image)) * 255


@mistake("images.to_rgb_tensor", says="whole numbers from 0 to 255")
def bytes_only(image):
    return torch.from_numpy(np.array(upright_on(image))).permute(2, 0, 1)


@mistake("images.to_rgb_tensor", says=r"keeps 1 channel\(s\) of a greyscale picture")
def grey_stays_grey(image):
    if image.mode == "L":
        return torch.from_numpy(np.array(image))[None] / 255
    return as_tensor(upright_on(image))


@mistake("images.to_rgb_tensor", says=r"keeps 4 channel\(s\)")
def alpha_stays(image):
    return as_tensor(ImageOps.exif_transpose(image).convert("RGBA"))


@mistake("images.to_rgb_tensor", says="stretches the contrast")
def stretched(image):
    pixels = as_tensor(upright_on(image))
    return (pixels - pixels.min()) / (pixels.max() - pixels.min())


@mistake("images.to_rgb_tensor", says="blue, green, red")
def as_opencv_does(image):
    return as_tensor(upright_on(image)).flip(0)


@mistake("images.to_rgb_tensor", says=r"maps to \[−1, 1\]")
def centred(image):
    return as_tensor(upright_on(image)) * 2 - 1


@mistake("images.to_rgb_tensor", says=r"returns torch\.float64")
def double_precision(image):
    return as_tensor(upright_on(image)).double()


@mistake("images.to_rgb_tensor", says="divides by 256")
def of_256(image):
    return as_tensor(upright_on(image)) * 255 / 256


@mistake("images.to_rgb_tensor", says="Given a transparent grey picture")
def forgets_grey_with_alpha(image):
    if image.mode == "LA":
        return as_tensor(image.convert("RGB"))
    return as_tensor(upright_on(image))


@mistake("images.to_rgb_tensor", says="does not stand upright. Given a picture with the EXIF orientation 3")
def knows_one_orientation(image):
    if image.getexif().get(0x0112) == 6:
        return as_tensor(image.rotate(-90, expand=True).convert("RGB"))
    layered = image.convert("RGBA")
    return as_tensor(Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB"))


@mistake("images.to_rgb_tensor", says="changes a picture with the EXIF orientation 6 that it is given")
def turns_the_given_picture(image):
    ImageOps.exif_transpose(image, in_place=True)
    return as_tensor(upright_on(image))
