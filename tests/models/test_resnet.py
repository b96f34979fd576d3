"""ResNet's stages are the table of the paper, its blocks what they are called, its small stem for small images."""

import pytest
import torch
from torch import nn

from dlcourse.models import count_macs, count_parameters, create_model
from dlcourse.models.resnet import BasicBlock, Bottleneck, ResNet

STAGES = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
          "resnet152": (3, 8, 36, 3)}  # fmt: skip


def shapes(model, side):
    seen = {}
    for name in STAGES:
        getattr(model, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    return seen


def test_the_stages_of_resnet50_are_those_of_table_1():
    assert shapes(create_model("resnet50"), 224) == {
        "conv1": (64, 112, 112), "maxpool": (64, 56, 56), "layer1": (256, 56, 56), "layer2": (512, 28, 28),
        "layer3": (1024, 14, 14), "layer4": (2048, 7, 7), "avgpool": (2048, 1, 1),
    }  # fmt: skip


def test_the_cifar_stem_keeps_32_pixels_for_layer1():
    model = create_model("resnet18", 10, stem="cifar")
    assert shapes(model, 32) == {
        "conv1": (64, 32, 32), "maxpool": (64, 32, 32), "layer1": (64, 32, 32), "layer2": (128, 16, 16),
        "layer3": (256, 8, 8), "layer4": (512, 4, 4), "avgpool": (512, 1, 1),
    }  # fmt: skip
    assert count_parameters(model) == 11_173_962
    assert count_macs(model, (3, 32, 32)) == 555_422_720


@pytest.mark.parametrize("name", DEPTHS)
def test_the_number_in_the_name_counts_convolutions_and_the_head(name):
    with torch.device("meta"):
        model = create_model(name)
    assert tuple(len(getattr(model, f"layer{i}")) for i in range(1, 5)) == DEPTHS[name]
    weighted = [
        m for key, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in key
    ]
    assert f"resnet{len(weighted)}" == name
    assert [m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d)].count(False) == 0


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_that_changes_the_shape_projects_and_no_other(block, stride):
    wide = 8 * block.expansion
    assert block(wide, 8, stride=stride)(torch.randn(2, wide, 6, 10)).shape == (2, wide, 6 // stride, 10 // stride)
    assert (block(wide, 8, stride=stride).downsample is None) == (stride == 1)
    assert block(wide + 1, 8).downsample is not None


def test_a_block_with_a_silent_branch_passes_its_input_on():
    block = BasicBlock(4, 4).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(block(x), x)


def test_a_network_may_be_built_from_any_block():
    class Plain(BasicBlock):
        def forward(self, x):
            return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))

    model = ResNet(Plain, (1, 1, 1, 1), 5, stem="cifar")
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)
