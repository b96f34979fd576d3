"""Every architecture is the real one: torchvision's or timm's weights load by name, and nothing that follows differs."""

import psutil
import pytest
import torch
import torchvision
from compare import TIMM_NAMES, both, compare, published, reference
from torch import nn
from zoo import EVERYDAY

from dlcourse.models import create_model, list_models
from dlcourse.models.mobilenet_v3 import SLOW_NORM

REAL = [name for name in list_models() if name != "simple_cnn"]
TOO_LARGE_FOR_EVERY_DAY = {"vit_large_patch16", "vit_huge_patch14", "efficientnet_b6", "efficientnet_b7", "resnet152"}
each_real_model = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.large) if n in TOO_LARGE_FOR_EVERY_DAY else n for n in REAL]
)


@pytest.mark.timeout(900)
@each_real_model
def test_values_gradients_buffers_and_counts_are_the_references(name):
    if name == "vit_huge_patch14" and psutil.virtual_memory().available < 28e9:
        pytest.skip("two of these and their gradients in float64 take 20 GB")
    found = compare(name)
    assert found.same_parameters
    assert found.same_macs
    assert max(found.eval64, found.train64, found.buffers, found.stepped) <= 1e-10
    assert found.gradient <= 1e-10
    assert found.eval32 <= 1e-5


# Another size and another number of classes: (height, width) of which the last stage keeps more than one place, or one.
OTHERS = [
    ("resnet18", 1000, (32, 32)), ("resnet18", 3, (97, 64)), ("resnet50", 2, (96, 160)),
    ("mobilenet_v1", 2, (32, 49)), ("mobilenet_v2", 1000, (33, 33)), ("mobilenet_v3_large", 3, (97, 65)),
    ("mobilenet_v3_small", 2, (224, 224)), ("efficientnet_b0", 1000, (65, 33)),
    ("vit_tiny_patch16", 1000, (224, 224)), ("vit_tiny_patch16", 3, (16, 64)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "num_classes", "size"), OTHERS)
def test_other_sizes_and_numbers_of_classes(name, num_classes, size):
    found = compare(name, num_classes, size)
    assert found.same_parameters
    assert max(found.eval64, found.train64, found.gradient, found.buffers, found.stepped) <= 1e-10


@pytest.mark.parametrize("name", sorted(EVERYDAY - {"simple_cnn"}))
def test_activations_are_of_the_references_kinds(name):
    """Counts of parameters cannot tell ReLU from ReLU6. Ours share one module where the reference has several."""
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.GELU)
    ours, theirs = (
        {type(module) for module in model.modules() if isinstance(module, kinds)}
        for model in (create_model(name, 5), reference(name, 5))
    )
    assert ours == theirs


@pytest.mark.parametrize("name", sorted(EVERYDAY - {"simple_cnn"}))
def test_norms_and_dropouts_have_the_references_settings(name):
    def settings(model):
        norms = [
            (module.eps, getattr(module, "momentum", None))
            for module in model.modules()
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))
        ]
        rates = [getattr(m, "p", getattr(m, "drop_prob", 0)) for m in model.modules() if "rop" in type(m).__name__
                 or "Stochastic" in type(m).__name__]  # fmt: skip
        return norms, sorted(round(rate, 6) for rate in rates if rate)

    assert settings(create_model(name, 5)) == settings(reference(name, 5))


def test_drop_path_grows_as_timms():
    ours = create_model("vit_tiny_patch16", 5, drop_path=0.1)
    theirs = reference("vit_tiny_patch16", 5, drop_path_rate=0.1)
    wanted = [getattr(block.drop_path1, "drop_prob", 0.0) for block in theirs.blocks]
    assert [block.drop_path1.p for block in ours.blocks] == pytest.approx(wanted)
    assert [block.drop_path2.p for block in ours.blocks] == pytest.approx(wanted)


@pytest.mark.parametrize("letter", "01234567")
def test_efficientnets_of_all_sizes_have_the_references_settings(letter):
    with torch.device("meta"):
        ours, theirs = create_model(f"efficientnet_b{letter}"), reference(f"efficientnet_b{letter}")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    for a, b in zip(
        (m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)),
        (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)),
        strict=True,
    ):
        assert (a.eps, a.momentum) == (b.eps, b.momentum)
    assert ours.classifier[0].p == theirs.classifier[0].p
    rates = [m.p for m in theirs.modules() if type(m).__name__ == "StochasticDepth"]
    assert [m.p for m in ours.modules() if type(m).__name__ == "DropPath"] == pytest.approx(rates)


TORCHVISION_VITS = {"vit_base_patch16": "vit_b_16", "vit_base_patch32": "vit_b_32", "vit_large_patch16": "vit_l_16"}


@pytest.mark.parametrize("name", [name for name in REAL if name not in TIMM_NAMES or name in TORCHVISION_VITS])
def test_sizes_are_those_that_torchvision_publishes(name):
    weights = torchvision.models.get_model_weights(TORCHVISION_VITS.get(name, name)).IMAGENET1K_V1
    side = weights.transforms.keywords["crop_size"]  # 288 for EfficientNet-B2, where the paper has 260
    parameters, macs = published(name, side)
    assert parameters == weights.meta["num_params"]
    assert macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.0015)  # three decimals, by another counter


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),  # table 8 of the MobileNet paper, table 5 of DeiT's, table 1 of ViT's
    [
        ("mobilenet_v1", "4.2", "0.569"), ("vit_tiny_patch16", "5.7", "1.254"), ("vit_small_patch16", "22.1", "4.599"),
        ("vit_huge_patch14", "632.0", "167.295"),
    ],
)  # fmt: skip
def test_sizes_are_those_of_the_papers(name, parameters, macs):
    found = published(name)
    assert (f"{found[0] / 1e6:.1f}", f"{found[1] / 1e9:.3f}") == (parameters, macs)


def test_weights_of_another_variant_are_refused_with_names_and_shapes():
    with pytest.raises(RuntimeError) as error:
        create_model("resnet18", 10).load_state_dict(reference("resnet50", 10).state_dict())
    text = str(error.value)
    assert "Unexpected key(s) in state_dict" in text
    assert "layer1.0.conv3.weight" in text
    assert "size mismatch for layer1.0.conv1.weight" in text
    assert "torch.Size([64, 64, 1, 1]) from checkpoint" in text


def test_a_reference_is_found_for_every_model():
    assert set(TIMM_NAMES) <= set(REAL)
    for name in EVERYDAY - {"simple_cnn"}:
        ours, theirs = both(name, 3, (64, 64))
        assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert SLOW_NORM(3).eps == 1e-3
