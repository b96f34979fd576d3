"""Wrong answers to the exercise on ResNet-18."""

import torch
from planting import mistake
from torch import nn
from torch.nn import functional as F


def wide(vector):
    return vector[:, None, None]


def batch_norm(
    divide=lambda x, var: x / torch.sqrt(wide(var) + 1e-5),
    affine=lambda x, weight, bias: x * wide(weight) + wide(bias),
    in_eval=lambda x, mean, var: (mean, var),
    mean=lambda old, new: 0.9 * old + 0.1 * new,
    var=lambda old, biased, n: 0.9 * old + 0.1 * biased * n / (n - 1),
    detach=False,
    track_in_eval=False,
    has_affine=True,
):
    """A hand-written batch norm, with one part of it replaced."""

    class HandWritten(nn.Module):
        def __init__(self, channels):
            super().__init__()
            if has_affine:
                self.weight = nn.Parameter(torch.ones(channels))
                self.bias = nn.Parameter(torch.zeros(channels))
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))
            self.register_buffer("num_batches_tracked", torch.tensor(0))

        def forward(self, x):
            batch = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            n = x.numel() // x.shape[1]
            used = batch if self.training else in_eval(x, self.running_mean, self.running_var)
            if detach:
                used = used[0].detach(), used[1].detach()
            if self.training or track_in_eval:
                with torch.no_grad():
                    self.running_mean = mean(self.running_mean, batch[0])
                    self.running_var = var(self.running_var, batch[1], n)
            out = divide(x - wide(used[0]), used[1])
            return affine(out, self.weight, self.bias) if has_affine else out

    return HandWritten


def network(
    norm=nn.BatchNorm2d,
    depths=(2, 2, 2, 2),
    stem=lambda: nn.Conv2d(3, 64, 7, 2, 3, bias=False),
    act=F.relu,
    pool=lambda x: F.max_pool2d(x, 3, 2, 1),
    flatten=lambda x: x.mean((2, 3)),
    head=lambda x: x,
    classes=lambda n: n,
    join=lambda out, shortcut: F.relu(out + shortcut),
    inner=F.relu,
    strides=lambda s: (s, 1),
    projected=lambda i, c: i != c,
    projection=lambda i, c, s, norm: nn.Sequential(nn.Conv2d(i, c, 1, s, bias=False), norm(c)),
    bias=False,
):
    """ResNet-18 as a class, with one part of it replaced."""

    class Block(nn.Module):
        def __init__(self, i, c, stride):
            super().__init__()
            first, second = strides(stride)
            self.conv1, self.bn1 = nn.Conv2d(i, c, 3, first, 1, bias=bias), norm(c)
            self.conv2, self.bn2 = nn.Conv2d(c, c, 3, second, 1, bias=bias), norm(c)
            self.downsample = projection(i, c, stride, norm) if projected(i, c) else None

        def forward(self, x):
            shortcut = x if self.downsample is None else self.downsample(x)
            return join(self.bn2(self.conv2(inner(self.bn1(self.conv1(x))))), shortcut)

    class ResNet18(nn.Module):
        def __init__(self, num_classes=1000):
            super().__init__()
            self.conv1, self.bn1 = stem(), norm(64)
            i = 64
            for number, (c, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), 1):
                blocks = [Block(i if n == 0 else c, c, 2 if n == 0 and number > 1 else 1) for n in range(depth)]
                setattr(self, f"layer{number}", nn.Sequential(*blocks))
                i = c
            self.fc = nn.Linear(512, classes(num_classes))

        def forward(self, x):
            x = pool(act(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return head(self.fc(flatten(x)))

    return ResNet18


def plant(says, name, **parts):
    wrong = network(**parts)
    wrong.__name__ = name
    mistake("resnet.resnet18", says=says)(wrong)


def plant_norm(says, name, **parts):
    plant(says, name, norm=batch_norm(**parts))


plant_norm("never updates the running variance", "variance_not_tracked", var=lambda old, biased, n: old)
plant_norm("never updates the running mean", "mean_not_tracked", mean=lambda old, new: old)
plant_norm(
    "feeds the biased variance into the running one", "biased_running_variance",
    var=lambda old, biased, n: 0.9 * old + 0.1 * biased,
)
plant_norm("ignores the running variance in eval mode\\.", "eval_without_variance",
           divide=lambda x, var: x if not var.requires_grad and var.grad_fn is None and getattr(var, "running", True)
           else x / torch.sqrt(wide(var) + 1e-5))  # fmt: skip
plant_norm(
    "ignores the running variance in eval mode, and divides", "eval_with_variance_one",
    in_eval=lambda x, mean, var: (mean, torch.ones_like(var)),
)
plant_norm("takes the batch's statistics in eval mode", "no_eval_mode",
           in_eval=lambda x, mean, var: (x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)))  # fmt: skip
plant_norm("ignores the running mean in eval mode", "eval_without_mean", in_eval=lambda x, mean, var: (0 * mean, var))
plant_norm("forgets the weight and the bias", "affine_unused", affine=lambda x, weight, bias: x)
plant_norm("batch norm without the affine weight and bias", "no_affine", has_affine=False)
plant_norm("forgets the bias", "no_bias", affine=lambda x, weight, bias: x * wide(weight))
plant_norm("forgets the weight\\.", "no_weight", affine=lambda x, weight, bias: x + wide(bias))
plant_norm("batch norm without eps", "no_eps", divide=lambda x, var: x / torch.sqrt(wide(var)))
plant_norm("adds eps to the standard deviation", "eps_outside", divide=lambda x, var: x / (torch.sqrt(wide(var)) + 1e-5))
plant_norm("divides by the variance instead of its root", "no_root", divide=lambda x, var: x / (wide(var) + 1e-5))
plant_norm(
    "takes momentum the wrong way round", "momentum_reversed",
    mean=lambda old, new: 0.1 * old + 0.9 * new,
    var=lambda old, biased, n: 0.1 * old + 0.9 * biased * n / (n - 1),
)
plant_norm(
    "replaces the running statistics by the batch's", "no_running_average",
    mean=lambda old, new: new, var=lambda old, biased, n: biased * n / (n - 1),
)
plant_norm("updates running statistics in eval mode", "tracks_in_eval", track_in_eval=True)
plant_norm("treats the batch's mean and variance as constants", "statistics_without_gradient", detach=True)

plant("stride in conv2", "stride_in_conv2", strides=lambda s: (1, s))
plant(r"3 block\(s\) in layer2", "wrong_depths", depths=(2, 3, 2, 2))
plant(r"1 block\(s\) in layer1", "depth_of_resnet10", depths=(1, 1, 1, 1))
plant("leaves out the max pooling", "no_pooling", pool=lambda x: x)
plant("max pooling without padding=1", "pooling_without_padding", pool=lambda x: F.max_pool2d(x, 3, 2))
plant("pools 2×2 windows", "pooling_2x2", pool=lambda x: F.max_pool2d(x, 2))
plant("averages in the first pooling", "average_pooling", pool=lambda x: F.avg_pool2d(x, 3, 2, 1))
plant("nn.AdaptiveAvgPool2d.1. takes any map. .*too small", "fixed_pool", flatten=lambda x: F.avg_pool2d(x, 7).flatten(1))
plant("nn.AdaptiveAvgPool2d.1. takes any map. .*multiplied", "no_pool", flatten=lambda x: x.flatten(1))
plant("takes the maximum of the last map", "max_at_the_end", flatten=lambda x: x.amax((2, 3)))
plant("has no ReLU behind the first batch norm", "no_relu_in_stem", act=lambda x: x)
plant("has no ReLU between the two convolutions", "no_relu_in_block", inner=lambda x: x)
plant("has no ReLU after the addition", "no_last_relu", join=lambda out, shortcut: out + shortcut)
plant("applies the last ReLU before the addition", "relu_first", join=lambda out, shortcut: F.relu(out) + shortcut)
plant("forgets the shortcut", "plain", join=lambda out, shortcut: F.relu(out))
plant("cuts the gradient of the shortcut", "detached", join=lambda out, shortcut: F.relu(out + shortcut.detach()))
plant("padding=0; a 7×7 kernel", "stem_without_padding", stem=lambda: nn.Conv2d(3, 64, 7, 2, bias=False))
plant("padding=1; a 7×7 kernel", "stem_padding_of_a_3x3", stem=lambda: nn.Conv2d(3, 64, 7, 2, 1, bias=False))
plant("first convolution stride 1", "stem_without_stride", stem=lambda: nn.Conv2d(3, 64, 7, 1, 3, bias=False))
plant(r"conv1\.weight has shape \(64, 3, 3, 3\) where \(64, 3, 7, 7\)", "cifar_stem",
      stem=lambda: nn.Conv2d(3, 64, 3, 1, 1, bias=False))  # fmt: skip
plant(r"gives a convolution a bias.*1 extra tensor\(s\): conv1\.bias", "stem_with_bias", stem=lambda: nn.Conv2d(3, 64, 7, 2, 3))
plant(r"gives a convolution a bias.*16 extra tensor\(s\): layer1", "biases", bias=True)
plant("projects where neither width nor stride changes.*layer1.0.downsample.0.weight", "downsample_extra",
      projected=lambda i, c: True)  # fmt: skip
plant("has a projection without batch norm.*15 missing", "projection_without_norm",
      projection=lambda i, c, s, norm: nn.Sequential(nn.Conv2d(i, c, 1, s, bias=False)))  # fmt: skip
plant("lacks the projection.*18 missing|has a projection without batch norm.*18 missing", "downsample_missing",
      projected=lambda i, c: False)  # fmt: skip
plant("does not use num_classes", "always_1000", classes=lambda n: 1000)
plant("ends in a softmax", "softmax", head=lambda x: x.softmax(1))
plant("ReLU behind the last layer", "relu_at_the_end", head=F.relu)


@mistake("resnet.resnet18", says="where an nn.Module is asked for")
def no_module(num_classes=1000):
    return {"conv1": nn.Conv2d(3, 64, 7)}


@mistake("resnet.resnet18", says="It calls `layer1.0.conv_1.weight` what torchvision calls `layer1.0.conv1.weight`")
def other_names(num_classes=1000):
    model = network()(num_classes)
    for module in list(model.modules()):
        if hasattr(module, "conv2"):
            module.conv_1 = module.conv1
            del module.conv1
    return model


@mistake("resnet.resnet18", says="no gradient reaches conv1.weight|it cuts the gradient")
class WithoutGradient(network()):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)
