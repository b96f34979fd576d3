"""Data: data sets, splits, transforms and loaders.

Images travel as uint8 tensors of shape (3, H, W) until a transform makes them float32; labels are ints that index
`dataset.classes`.
"""

from dlcourse.data.batched import BatchAugmentation, BatchLoader
from dlcourse.data.datasets import ImageArrays, load_dataset
from dlcourse.data.files import CsvImageDataset, ImageFiles, image_folder, read_image
from dlcourse.data.loaders import EpochSampler, balanced_sampler, class_weights, make_loader, undersampler
from dlcourse.data.mixing import MixingCollate, cutmix, mixup
from dlcourse.data.splits import Split, load_split, save_split, stratified_split
from dlcourse.data.transforms import Preprocessing, channel_statistics, eval_transform, train_transform

__all__ = [
    "BatchAugmentation",
    "BatchLoader",
    "CsvImageDataset",
    "EpochSampler",
    "ImageArrays",
    "ImageFiles",
    "MixingCollate",
    "Preprocessing",
    "Split",
    "balanced_sampler",
    "channel_statistics",
    "class_weights",
    "cutmix",
    "eval_transform",
    "image_folder",
    "load_dataset",
    "load_split",
    "make_loader",
    "mixup",
    "read_image",
    "save_split",
    "stratified_split",
    "train_transform",
    "undersampler",
]
