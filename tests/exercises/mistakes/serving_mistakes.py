"""Wrong answers to the exercise on decoding what a stranger sent."""

import io

import numpy as np
from PIL import Image, ImageFile
from planting import mistake

NAME = "serving.decode_safely"
REFUSED = (OSError, SyntaxError, Image.DecompressionBombError)


def build(
    fits=lambda image, data, limit: image.width * image.height <= limit,
    pixels=lambda image: np.array(image.convert("RGB")),
    catch=REFUSED,
    instead=None,
    say=lambda error: "this is no picture that can be read",
    before=lambda image: None,
):
    """The function with one part of it replaced."""

    def decode_safely(data, max_pixels):
        try:
            image = Image.open(io.BytesIO(data))
            before(image)
            if not fits(image, data, max_pixels):
                raise ValueError("too many pixels")
            return pixels(image)
        except catch as error:
            if instead is not None:
                return instead
            raise ValueError(say(error)) from None

    return decode_safely


def plant(says, name, wrong):
    wrong.__name__ = name
    mistake(NAME, says=says)(wrong)


plant("accepts a picture of 4×4 pixels", "no_limit", build(fits=lambda image, data, limit: True))
plant("before it refuses it", "decodes_first", build(before=lambda image: image.load()))
plant("too many pixels That was a colour picture of exactly", "limit_excluded", build(fits=lambda i, d, limit: i.width * i.height < limit))
plant("accepts a picture of 4×4 pixels.*max_pixels=12 and returns", "compares_bytes", build(fits=lambda i, data, limit: len(data) <= 30 * limit))
plant("accepts a picture of 4×4 pixels with", "one_side", build(fits=lambda i, data, limit: max(i.size) <= limit))
plant(r"keeps 4 channels of a transparent picture", "alpha_stays", build(pixels=lambda i: np.array(i if i.mode == "RGBA" else i.convert("RGB"))))
plant("one number a pixel for a grey picture", "grey_stays", build(pixels=lambda i: np.array(i if i.mode == "L" else i.convert("RGB"))))
plant("one number a pixel for a palette picture", "palette_stays", build(pixels=lambda i: np.array(i if i.mode == "P" else i.convert("RGB"))))
plant("puts the channels first", "channels_first", build(pixels=lambda i: np.array(i.convert("RGB")).transpose(2, 0, 1)))
plant("blue, green, red", "as_opencv_does", build(pixels=lambda i: np.array(i.convert("RGB"))[..., ::-1]))
plant(r"scales to \[0, 1\]", "scaled", build(pixels=lambda i: np.array(i.convert("RGB")) / 255))
plant("raises UnidentifiedImageError for a text", "catches_nothing", build(catch=()))
plant("raises OSError for a PNG cut", "catches_unknown_files_only", build(catch=(Image.UnidentifiedImageError,)))
plant("accepts a text", "nothing_for_garbage", build(instead=()))
plant("the decoder's text about objects of this process", "leaks", build(say=str))


@mistake(NAME, says="changes a setting of Pillow")
def truncated_allowed(data, max_pixels):
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    return build()(data, max_pixels)


@mistake(NAME, says="setting of Pillow for the whole program")
def limit_of_the_program(data, max_pixels):
    Image.MAX_IMAGE_PIXELS = max_pixels
    return build()(data, max_pixels)


@mistake(NAME, says="claims 30000×30000 pixels and returns|DecompressionBombError for a small PNG that claims")
def bomb_escapes(data, max_pixels):
    try:
        return build(catch=(OSError, SyntaxError))(data, max_pixels)
    except Image.DecompressionBombError:
        raise
