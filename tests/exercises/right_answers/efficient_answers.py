"""Right answers to the exercises on the blocks of efficient networks, in other styles than the references'."""

from collections import OrderedDict

import torch
from planting import right_answer
from torch import nn
from torch.nn import functional as F


@right_answer("efficient.depthwise_separable")
class SeparableClass(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, (3, 3), (stride, stride), "same" if stride == 1 else 1,
                                 groups=in_channels, bias=False)  # fmt: skip
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x):
        x = self.act(self.bn1(self.conv_dw(x)))
        return self.act(self.bn2(self.conv_pw(x)))


@right_answer("efficient.depthwise_separable")
def separable_sequential(in_channels, out_channels, *, stride=1):
    return nn.Sequential(
        OrderedDict(
            conv_dw=nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
            bn1=nn.BatchNorm2d(in_channels),
            relu1=nn.ReLU6(),
            conv_pw=nn.Conv2d(in_channels, out_channels, 1, bias=False),
            bn2=nn.BatchNorm2d(out_channels),
            relu2=nn.Hardtanh(0, 6),
        )
    )


@right_answer("efficient.depthwise_separable")
def separable_by_einsum(in_channels, out_channels, *, stride=1):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_dw, self.conv_pw = nn.Module(), nn.Module()
            self.conv_dw.weight = nn.Parameter(torch.randn(in_channels, 1, 3, 3))
            self.conv_pw.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
            self.bn1, self.bn2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(out_channels)

        def forward(self, x):
            padded = F.pad(x, (1, 1, 1, 1))
            windows = padded.unfold(2, 3, stride).unfold(3, 3, stride)  # (B, C, H', W', 3, 3)
            x = torch.einsum("bchwij,cij->bchw", windows, self.conv_dw.weight[:, 0])
            x = self.bn1(x).clamp(0, 6)
            x = torch.einsum("bchw,kc->bkhw", x, self.conv_pw.weight[:, :, 0, 0])
            return self.bn2(x).clamp(0, 6)

    return Block()


@right_answer("efficient.depthwise_separable")
def separable_of_the_package(in_channels, out_channels, *, stride=1):
    from dlcourse.models.mobilenet_v1 import DepthwiseSeparable

    return DepthwiseSeparable(in_channels, out_channels, stride=stride)


@right_answer("efficient.inverted_residual")
def inverted_of_torchvision(in_channels, out_channels, *, stride, expansion):
    from torchvision.models.mobilenetv2 import InvertedResidual

    return InvertedResidual(in_channels, out_channels, stride, expansion)


@right_answer("efficient.inverted_residual")
class InvertedOfThePackage(nn.Module):
    def __new__(cls, in_channels, out_channels, *, stride, expansion):
        from dlcourse.models.mobilenet_v2 import InvertedResidual

        return InvertedResidual(in_channels, out_channels, stride=stride, expansion=expansion)


@right_answer("efficient.inverted_residual")
class InvertedByHand(nn.Module):
    def __init__(self, in_channels, out_channels, stride, expansion):
        super().__init__()
        hidden = round(in_channels * expansion)
        layers = []
        if expansion > 1:
            layers.append(nn.Sequential(nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()))
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        layers.append(nn.Sequential(depthwise, nn.BatchNorm2d(hidden), nn.ReLU6()))
        layers += [nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        out = self.conv(x)
        return torch.add(out, x) if out.shape == x.shape else out


@right_answer("efficient.inverted_residual")
def inverted_with_shortcut_as_module(in_channels, out_channels, *, stride, expansion):
    class Block(InvertedByHand):
        def __init__(self):
            super().__init__(in_channels, out_channels, stride, expansion)
            self.shortcut = nn.Identity()

        def forward(self, x):
            out = x
            for layer in self.conv:
                out = layer(out)
            if (stride, in_channels) == (1, out_channels):
                out = out + self.shortcut(x)
            return out

    return Block()


@right_answer("efficient.squeeze_excitation")
def squeeze_of_torchvision(channels, squeeze):
    from torchvision.ops import SqueezeExcitation

    return SqueezeExcitation(channels, squeeze, scale_activation=nn.Hardsigmoid)


@right_answer("efficient.squeeze_excitation")
class SqueezeByEinsum(nn.Module):
    def __init__(self, channels, squeeze):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeeze, 1), nn.Conv2d(squeeze, channels, 1)

    def forward(self, x):
        mean = torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3])
        hidden = (mean @ self.fc1.weight.flatten(1).T + self.fc1.bias).clamp(min=0)
        gate = ((hidden @ self.fc2.weight.flatten(1).T + self.fc2.bias + 3) / 6).clamp(0, 1)
        return torch.einsum("bchw,bc->bchw", x, gate)


@right_answer("efficient.squeeze_excitation")
class SqueezeImageByImage(nn.Module):
    def __init__(self, channels, squeeze):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.activation = nn.Conv2d(channels, squeeze, 1), nn.ReLU(inplace=True)
        self.fc2, self.scale_activation = nn.Conv2d(squeeze, channels, 1), nn.Hardsigmoid()

    def forward(self, x):
        gates = [self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(image[None]))))) for image in x]
        return x * torch.cat(gates)


@right_answer("efficient.squeeze_excitation")
def squeeze_with_relu6(channels, squeeze):
    class Block(SqueezeByEinsum):
        def forward(self, x):
            gate = F.relu6(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))) + 3) / 6
            return gate.expand_as(x) * x

    return Block(channels, squeeze)
