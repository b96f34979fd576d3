"""Right answers to the exercise on ResNet-18, in other styles than the reference's."""

from functools import partial

import torch
import torchvision
from planting import right_answer
from torch import nn
from torch.nn import functional as F

from dlcourse.models import resnet18
from dlcourse.models.layers import BatchNorm2d


@right_answer("resnet.resnet18")
def torchvisions(num_classes=1000):
    return torchvision.models.resnet18(weights=None, num_classes=num_classes)


right_answer("resnet.resnet18")(resnet18)


class Block(nn.Module):
    """The block with the course's hand-written batch norm, and its ReLU as a module."""

    def __init__(self, inputs, outputs, stride, norm=BatchNorm2d):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding="same", bias=False)
        self.bn2 = norm(outputs)
        if stride == 2:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return torch.relu(self.downsample(x) + out if hasattr(self, "downsample") else x + out)


@right_answer("resnet.resnet18")
class WithBatchNormByHand(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), BatchNorm2d(64)
        for n, (inputs, outputs) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), 1):
            blocks = Block(inputs, outputs, 1 + (n > 1)), Block(outputs, outputs, 1)
            self.add_module(f"layer{n}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=float("-inf")), 3, 2)
        for n in range(1, 5):
            x = self.get_submodule(f"layer{n}")(x)
        return F.linear(F.adaptive_avg_pool2d(x, (1, 1)).squeeze((2, 3)), self.fc.weight, self.fc.bias)


@right_answer("resnet.resnet18")
class AsASequential(nn.Sequential):
    """One Sequential with named children: no forward of its own."""

    def __init__(self, num_classes=1000):
        block = partial(Block, norm=nn.BatchNorm2d)
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(block(64, 64, 1), block(64, 64, 1))
        self.layer2 = nn.Sequential(block(64, 128, 2), block(128, 128, 1))
        self.layer3 = nn.Sequential(block(128, 256, 2), block(256, 256, 1))
        self.layer4 = nn.Sequential(block(256, 512, 2), block(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(512, num_classes)
