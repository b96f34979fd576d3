"""Right answers to the exercises on the residual block, in other styles than the references'."""

import copy

import torch
from planting import right_answer
from torch import nn
from torchvision.models.resnet import BasicBlock as TorchvisionsBlock

from dlcourse.models import count_macs, count_parameters
from dlcourse.models.resnet import BasicBlock as PackageBlock
from dlcourse.models.resnet import Bottleneck


@right_answer("residual.basic_block")
def torchvisions_block(in_channels, channels, *, stride=1):
    downsample = None
    if stride != 1 or in_channels != channels:
        downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
    return TorchvisionsBlock(in_channels, channels, stride, downsample)


right_answer("residual.basic_block")(PackageBlock)


@right_answer("residual.basic_block")
class ConditionalBlock(nn.Module):
    """Without a `downsample` where none is needed, the ReLU as clamp, the sum in place on a new tensor."""

    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, (stride, stride), padding=(1, 1), bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding="same", bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        if stride > 1 or channels != in_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).clamp(min=0)))
        out += self.downsample(x) if hasattr(self, "downsample") else x
        return out.clamp(min=0)


@right_answer("residual.basic_block")
class FunctionalBlock(nn.Module):
    """Identity modules instead of None, the projection as a slice and a matrix product."""

    def __init__(self, in_channels, channels, *, stride=1):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        changes = stride != 1 or in_channels != channels
        conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels)) if changes else nn.Identity()

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if isinstance(self.downsample, nn.Identity):
            return self.relu(torch.add(out, x))
        seen = x[:, :, :: self.stride, :: self.stride]
        projected = torch.einsum("bchw,kc->bkhw", seen, self.downsample[0].weight[:, :, 0, 0])
        return self.relu(out + self.downsample[1](projected))


@right_answer("residual.block_cost")
def counted_on_the_block(block, in_channels, channels, height, width, *, stride=1):
    built = {"basic": PackageBlock, "bottleneck": Bottleneck}[block](in_channels, channels, stride=stride)
    return count_parameters(built), count_macs(built, (in_channels, height, width))


@right_answer("residual.block_cost")
def cost_case_by_case(block, in_channels, channels, height, width, *, stride=1):
    h, w = (height - 1) // stride + 1, (width - 1) // stride + 1
    if block == "basic":
        weights = 9 * in_channels * channels + 9 * channels**2
        norms, out, macs = 4 * channels, channels, weights * h * w
    else:
        out = 4 * channels
        weights = in_channels * channels + 9 * channels**2 + channels * out
        norms = 2 * (2 * channels + out)
        macs = in_channels * channels * height * width + (9 * channels**2 + channels * out) * h * w
    if stride > 1 or in_channels != out:
        weights, norms, macs = weights + in_channels * out, norms + 2 * out, macs + in_channels * out * h * w
    return [weights + norms, macs]


@right_answer("residual.block_cost")
def cost_measured_with_hooks(block, in_channels, channels, height, width, stride=1):
    built = (PackageBlock if block == "basic" else Bottleneck)(in_channels, channels, stride=stride).to("meta").eval()
    macs = []
    for module in built.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, out: macs.append(m.weight.numel() * out.shape[2] * out.shape[3]))
    built(torch.empty(1, in_channels, height, width, device="meta"))
    return sum(p.numel() for p in built.parameters()), torch.tensor(macs).sum()


@right_answer("residual.add_batch_norm")
def from_new_convolutions(model):
    def renewed(layer):
        if isinstance(layer, nn.Sequential):
            return [from_new_convolutions(layer)]
        if not isinstance(layer, nn.Conv2d):
            return [copy.deepcopy(layer)]
        conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, bias=False, padding_mode=layer.padding_mode,
        )
        with torch.no_grad():
            conv.weight.copy_(layer.weight)
        return [conv, nn.BatchNorm2d(layer.out_channels)]

    return nn.Sequential(*[new for layer in model.children() for new in renewed(layer)])


@right_answer("residual.add_batch_norm")
def copied_whole_then_rebuilt(model):
    def rebuilt(part):
        new = nn.Sequential()
        for layer in part:
            new.append(rebuilt(layer) if isinstance(layer, nn.Sequential) else layer)
            if isinstance(layer, nn.Conv2d):
                layer.register_parameter("bias", None)
                new.append(nn.BatchNorm2d(layer.weight.shape[0]))
        return new

    return rebuilt(copy.deepcopy(model))


@right_answer("residual.add_batch_norm")
def inserted_from_the_back(model):
    model = copy.deepcopy(model)
    for parent in [part for part in model.modules() if isinstance(part, nn.Sequential)]:
        for index in reversed(range(len(parent))):
            if isinstance(parent[index], nn.Conv2d):
                parent[index].bias = None
                parent.insert(index + 1, nn.BatchNorm2d(parent[index].out_channels))
    return model
