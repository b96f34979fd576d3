"""Broken trainings, as learners break them. `@fault("code")` names what a doctor should find; two codes are two faults.

A training here carries no other fault than the planted ones, as far as one can be planted alone: some follow from each
other (weights far too large explode the activations, and the gradients with them).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import torch
from patients import (
    Call,
    Case,
    Net,
    Training,
    adam,
    batches,
    blobs,
    bytes_of_fashion,
    cnn,
    deep_mlp,
    depthwise,
    draw,
    fashion,
    gratings,
    in_order_of,
    kaiming,
    listed,
    mlp,
    norm_layer,
    plain_cnn,
    resnet,
    sgd,
    squares,
    steps_of,
    table,
    training,
    vit,
    weighted_layers,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from dlcourse.models import VisionTransformer

FAULTS: list[Case] = []


def fault(*codes: str) -> Callable[[Callable[[], Training]], Callable[[], Training]]:
    def register(builder: Callable[[], Training]) -> Callable[[], Training]:
        FAULTS.append(Case(builder.__name__, builder, codes))
        return builder

    return register


# The inputs


@fault("nonfinite-input")
def one_pixel_is_nan():
    x, y = fashion()
    x[17, 0, 4, 4] = torch.nan
    return training(cnn(), batches(x, y))


@fault("nonfinite-input")
def each_pixel_divided_by_its_deviation():
    x, y = bytes_of_fashion()
    return training(mlp(), batches((x - x.mean(0)) / x.std(0), y))  # the border is 0 everywhere: 0 / 0


@fault("nonfinite-input")
def logarithm_of_black():
    x, y = bytes_of_fashion()
    return training(resnet(), batches((x / 255).log(), y))


@fault("nonfinite-input")
def a_gap_in_the_table():
    x, y = table()
    x[::40, 3] = torch.nan
    return training(mlp(8, 1), batches(x, y), nn.MSELoss())


@fault("input-scale")
def bytes_not_scaled():
    return training(cnn(), batches(*bytes_of_fashion()))


@fault("input-scale")
def bytes_not_scaled_into_a_vit():
    model = vit()
    return training(model, batches(*bytes_of_fashion()), optimizer=adam(model))


@fault("input-scale")
def divided_by_255_twice():
    x, y = bytes_of_fashion()
    return training(mlp(), batches(x / 255 / 255, y))


@fault("input-scale")
def imagenet_statistics_on_bytes():
    x, y = bytes_of_fashion(channels=3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return training(cnn(channels=3), batches((x - mean[:, None, None]) / std[:, None, None], y))


@fault("input-scale")
def a_salary_among_the_features():
    x, y = table()
    x[:, 4] = 40_000 + 9_000 * x[:, 4]
    return training(mlp(8, 1), batches(x, y), nn.MSELoss())


@fault("constant-input")
def integer_division_by_255():
    x, y = bytes_of_fashion()
    return training(cnn(), batches((x.byte() // 255).float(), y))  # 0 but for pure white


@fault("constant-input")
def always_the_first_image():
    x, y = fashion()
    return training(resnet(), batches(x[:1].expand(len(x), -1, -1, -1).clone(), y))


@fault("constant-input")
def cast_to_bytes_after_scaling():
    x, y = bytes_of_fashion()
    model = vit()
    return training(model, batches((x / 256).byte().float(), y), optimizer=adam(model))


@fault("constant-input")
def standardised_by_itself_to_zero():
    x, y = table()
    return training(mlp(8, 1), batches(x - x.mean(1, keepdim=True) - (x - x.mean(1, keepdim=True)), y), nn.MSELoss())


@fault("channel-order")
def colour_reshaped_not_permuted():
    x, y = gratings()
    return training(cnn(4, 3), batches(x.permute(0, 2, 3, 1).reshape(-1, 3, 16, 16), y))


@fault("channel-order")
def grey_copies_reshaped_not_permuted():
    x, y = fashion(channels=3)
    return training(resnet(channels=3), batches(x.permute(0, 2, 3, 1).reshape(-1, 3, 16, 16), y))


@fault("channel-order")
def channels_last_and_sixteen_of_them():
    x, y = gratings()
    features = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten())
    return training(Net(features, nn.Linear(16 * 16 * 3, 4)), batches(x.permute(0, 2, 3, 1).contiguous(), y))


@fault("channel-order")
def the_model_reshapes_instead_of_permuting():
    x, y = gratings()
    model = nn.Sequential(Call(lambda x: x.reshape(-1, 3, 16, 16)), vit(4, 3))
    return training(model, batches(x.permute(0, 2, 3, 1).contiguous(), y), optimizer=adam(model))


@fault("duplicate-or-leaking-data")
def forty_images_many_times():
    x, y = fashion(40)
    return training(cnn(), batches(x.repeat(12, 1, 1, 1), y.repeat(12)))


@fault("duplicate-or-leaking-data")
def validated_on_the_training_images():
    x, y = fashion()
    return training(resnet(), batches(x, y), val_loader=batches(x, y, 64, shuffle=False))


@fault("duplicate-or-leaking-data")
def overlapping_subsets():
    data = TensorDataset(*fashion(600))
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(Subset(data, range(480)), 32, shuffle=True, generator=generator)
    return training(cnn(norm="batch"), loader, val_loader=DataLoader(Subset(data, range(420, 600)), 60))


@fault("duplicate-or-leaking-data")
def oversampled_before_the_split():
    x, y = blobs(300)
    rare = (y == 0).nonzero().flatten()
    x, y = torch.cat((x, x[rare], x[rare])), torch.cat((y, y[rare], y[rare]))
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    return training(mlp(8, 4), batches(x[:320], y[:320]), val_loader=batches(x[320:], y[320:], shuffle=False))


# The targets


@fault("label-range")
def a_head_one_class_too_small():
    return training(cnn(9), batches(*fashion()))


@fault("label-range")
def minus_one_for_unknown():
    x, y = fashion()
    y[::50] = -1
    return training(resnet(), batches(x, y))


@fault("label-range")
def class_ids_instead_of_indices():
    x, y = gratings()
    return training(vit(4, 3), batches(x, torch.tensor([3, 7, 12, 20])[y]))


@fault("label-range")
def masks_of_0_and_255():
    x, y = squares()
    return training(cnn(4), batches(x, 255 * y), nn.BCEWithLogitsLoss())


@fault("label-shift")
def labels_counted_from_one():
    x, y = fashion()
    return training(cnn(), batches(x, y + 1))


@fault("label-shift")
def labels_counted_from_one_into_a_vit():
    x, y = gratings()
    model = vit(4, 3)
    return training(model, listed(x, y + 1), optimizer=adam(model))


@fault("label-shift")
def the_label_of_the_next_image():
    x, y = fashion()
    return training(cnn(norm="batch"), batches(x, y.roll(1), shuffle=False))


@fault("label-shift")
def labels_rolled_within_each_batch():
    x, y = gratings()
    return training(resnet(4, 3), [(x, y.roll(-1)) for x, y in listed(x, y)])


@fault("label-shift")
def a_header_line_read_as_a_label():
    x, y = fashion()
    return training(cnn(), batches(x[1:], y[:-1]))  # shuffled by the loader, off by one in the data set


@fault("label-noise")
def images_shuffled_without_their_labels():
    x, y = fashion()
    return training(cnn(), batches(x[torch.randperm(len(x))], y))


@fault("label-noise")
def labels_drawn_at_random():
    x, _ = gratings()
    return training(resnet(4, 3), batches(x, torch.randint(4, (len(x),))))


@fault("label-noise")
def seven_in_ten_labels_are_random():
    x, y = fashion()
    wrong = torch.rand(len(y)) < 0.7
    return training(cnn(norm="batch"), batches(x, torch.where(wrong, torch.randint(10, y.shape), y)))


@fault("label-noise")
def points_with_the_classes_of_other_points():
    x, y = blobs(spread=0.3)
    return training(mlp(8, 4), batches(x, y[torch.randperm(len(y))]))


@fault("label-noise")
def tags_of_other_images():
    x, y = squares()
    return training(cnn(4), batches(x, y[torch.randperm(len(y))]), nn.BCEWithLogitsLoss())


@fault("class-missing")
def three_classes_never_seen():
    x, y = fashion(700)
    return training(cnn(), batches(x[y < 7], y[y < 7]))


@fault("class-missing")
def the_first_half_of_a_sorted_set():
    x, y = fashion(900)
    y, x = in_order_of(y, y, x)
    return training(resnet(), batches(x[:450], y[:450]))


@fault("class-missing")
def one_class_lost_in_the_mapping():
    x, y = gratings()
    y[y == 2] = 1
    model = vit(4, 3)
    return training(model, batches(x, y), optimizer=adam(model))


@fault("class-imbalance")
def ninety_seven_to_three():
    x, y = blobs(2000, classes=2)
    kept = (y == 0) | (torch.rand(len(y)) < 0.03)
    return training(mlp(8, 2), batches(x[kept], y[kept]))


@fault("class-imbalance")
def one_class_of_ten_is_most_of_them():
    x, y = fashion(900)
    kept = (y == 3) | (torch.rand(len(y)) < 0.08)
    return training(cnn(), batches(x[kept], y[kept]))


@fault("class-imbalance")
def one_angle_hardly_ever():
    x, y = gratings(900)
    kept = (y != 0) | (torch.rand(len(y)) < 0.06)
    return training(resnet(4, 3), batches(x[kept], y[kept]))


@fault("unshuffled")
def sorted_by_class():
    x, y = fashion(640)
    y, x = in_order_of(y, y, x)
    return training(cnn(), batches(x, y, shuffle=False))


@fault("unshuffled")
def sorted_by_class_into_batch_norm():
    x, y = gratings()
    y, x = in_order_of(y, y, x)
    return training(resnet(4, 3), listed(x, y))


@fault("unshuffled")
def one_folder_after_another():
    x, y = fashion(640)
    y, x = in_order_of(y // 2, y, x)  # two classes a folder, mixed inside
    model = vit()
    return training(model, batches(x, y, shuffle=False), optimizer=adam(model))


@fault("unshuffled")
def sorted_by_target():
    x, y = table()
    y, x = in_order_of(y[:, 0], y, x)
    return training(mlp(8, 1), batches(x, y, shuffle=False), nn.MSELoss())


@fault("nonfinite-target")
def a_target_is_missing():
    x, y = table()
    y[5] = torch.nan
    return training(mlp(8, 1), batches(x, y), nn.MSELoss())


@fault("nonfinite-target")
def logarithm_of_a_price_of_zero():
    x, y = table()
    return training(mlp(8, 1), batches(x, y.clamp(min=0).log()), nn.SmoothL1Loss())


@fault("target-scale")
def prices_in_dollars():
    x, y = table()
    return training(mlp(8, 1), batches(x, 200_000 + 60_000 * y), nn.MSELoss())


@fault("target-scale")
def ages_in_years():
    x, y = gratings()
    target = (35 + 15 * y.float() + torch.randn(len(y)))[:, None]
    model = cnn(1, 3)
    return training(model, batches(x, target), nn.MSELoss(), adam(model))


# The loss


class SoftmaxNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(super().forward(x), dim=1)


@fault("softmax-before-loss")
def softmax_in_forward():
    return training(cnn(kind=SoftmaxNet), batches(*fashion()))


@fault("softmax-before-loss")
def softmax_as_last_layer_of_a_vit():
    model = nn.Sequential(vit(4, 3), nn.Softmax(dim=1))
    return training(model, batches(*gratings()), optimizer=adam(model))


@fault("softmax-before-loss")
def sigmoid_before_the_loss_with_logits():
    model = nn.Sequential(cnn(4, norm="batch"), nn.Sigmoid())
    return training(model, batches(*squares()), nn.BCEWithLogitsLoss())


@fault("softmax-before-loss")
def softmax_inside_the_loss_function():
    return training(resnet(), batches(*fashion()), lambda out, y: F.cross_entropy(out.softmax(1), y))


@fault("softmax-before-loss")
def softmax_before_label_smoothing():
    return training(mlp(kind=SoftmaxNet), batches(*fashion()), nn.CrossEntropyLoss(label_smoothing=0.1))


@fault("loss-target-mismatch")
def a_column_against_a_row():
    x, y = table()
    return training(mlp(8, 1), batches(x, y[:, 0]), F.mse_loss)


@fault("loss-target-mismatch")
def a_row_against_a_column():
    x, y = gratings()
    model = nn.Sequential(cnn(1, 3, norm="batch"), nn.Flatten(0))
    return training(model, batches(x, (y[:, None] - 1.5) / 1.1), nn.L1Loss())


@fault("loss-target-mismatch")
def labels_as_floats():
    x, y = fashion()
    return training(cnn(), batches(x, y.float()))


@fault("loss-target-mismatch")
def one_hot_as_integers():
    x, y = gratings()
    return training(vit(4, 3), batches(x, F.one_hot(y, 4)))


@fault("loss-target-mismatch")
def nll_of_logits():
    return training(cnn(), batches(*fashion()), nn.NLLLoss())


@fault("loss-target-mismatch")
def nll_of_probabilities():
    return training(resnet(kind=SoftmaxNet), batches(*fashion()), F.nll_loss)


@fault("loss-target-mismatch")
def labels_of_shape_b_1():
    x, y = fashion()
    return training(mlp(), batches(x, y[:, None]))


@fault("loss-target-mismatch")
def binary_logits_of_shape_b_1():
    x, y = blobs(classes=2)
    return training(mlp(8, 1), batches(x, y.float()), nn.BCEWithLogitsLoss())


@fault("loss-scale")
def sum_over_the_batch():
    return training(cnn(), batches(*fashion()), nn.CrossEntropyLoss(reduction="sum"))


@fault("loss-scale")
def sum_over_the_batch_of_a_regression():
    model = mlp(8, 1)
    return training(model, batches(*table()), nn.MSELoss(reduction="sum"), sgd(model, 0.01))


@fault("loss-scale")
def multiplied_by_a_thousand():
    model = resnet()
    return training(model, batches(*fashion()), lambda out, y: 1000 * F.cross_entropy(out, y), adam(model))


@fault("loss-scale")
def divided_by_the_size_of_the_data_set():
    return training(vit(4, 3), batches(*gratings()), lambda out, y: F.cross_entropy(out, y) / 50_000)


@fault("loss-not-scalar")
def no_reduction():
    return training(cnn(), batches(*fashion()), nn.CrossEntropyLoss(reduction="none"))


@fault("loss-not-scalar")
def mean_over_one_dimension_only():
    return training(mlp(8, 1), batches(*table()), lambda out, y: ((out - y) ** 2).mean(dim=1))


@fault("output-range")
def relu_after_the_regression():
    return training(nn.Sequential(mlp(8, 1), nn.ReLU()), batches(*table()), nn.MSELoss())


@fault("output-range")
def sigmoid_after_the_regression():
    x, y = gratings()
    model = nn.Sequential(cnn(1, 3), nn.Sigmoid())
    return training(model, batches(x, ((y - 1.5) / 1.1)[:, None]), nn.MSELoss())


@fault("output-range")
def relu_on_multi_label_logits():
    model = nn.Sequential(cnn(4), nn.ReLU())  # no label can get less than one half
    return training(model, batches(*squares()), nn.BCEWithLogitsLoss())


@fault("initial-loss")
def a_head_drawn_too_large():
    model = cnn()
    nn.init.normal_(model.head.weight, std=1.0)
    return training(model, batches(*fashion()), optimizer=adam(model))


@fault("initial-loss")
def a_head_sure_of_one_class():
    model = resnet()
    with torch.no_grad():
        model.head.bias[0] = 12
    return training(model, batches(*fashion()))


@fault("initial-loss")
def logits_times_sixty_four():
    model = nn.Sequential(vit(4, 3), Call(lambda logits: 64 * logits))
    nn.init.normal_(model[0].head.weight, std=0.2)
    return training(model, batches(*gratings()), optimizer=adam(model))


@fault("initial-loss")
def every_label_sure_to_be_there():
    model = cnn(4, norm="batch")
    nn.init.constant_(model.head.bias, 8.0)
    return training(model, batches(*squares()), nn.BCEWithLogitsLoss())


# Initialisation and activations


@fault("zero-or-constant-init")
def all_weights_zero():
    model = mlp()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return training(model, batches(*fashion()))


@fault("zero-or-constant-init")
def all_weights_the_same():
    model = cnn(4, 3)
    for layer in weighted_layers(model):
        nn.init.constant_(layer.weight, 0.05)
        nn.init.zeros_(layer.bias)
    return training(model, batches(*gratings()))


@fault("zero-or-constant-init")
def ones_in_one_hidden_layer():
    model = mlp(8, 4, (32, 32))
    nn.init.ones_(model.features[3].weight)
    return training(model, batches(*blobs()))


@fault("zero-or-constant-init")
def a_stem_of_zeros():
    model = resnet()
    nn.init.zeros_(model.features[0].weight)
    return training(model, batches(*fashion()))


@fault("zero-or-constant-init")
def patches_embedded_to_zero():
    model = vit()
    nn.init.zeros_(model.patch_embed.proj.weight)
    for block in model.blocks:
        nn.init.constant_(block.attn.qkv.weight, 0.01)
    return training(model, batches(*fashion()), optimizer=adam(model))


@fault("nonfinite-parameter")
def a_checkpoint_of_a_diverged_run():
    model = cnn()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    return training(model, batches(*fashion()))


@fault("nonfinite-parameter")
def one_weight_divided_by_zero():
    model = vit(4, 3)
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3, 2] = torch.inf
    return training(model, batches(*gratings()), optimizer=adam(model))


@fault("exploding-activations")
def standard_normal_weights_in_a_deep_net():
    return training(draw(deep_mlp(8), 1.0), batches(*fashion()))


@fault("exploding-activations")
def standard_normal_weights_in_convolutions():
    return training(draw(plain_cnn(6, 4, 3), 1.0), batches(*gratings()))


@fault("exploding-activations")
def three_times_too_large_each_layer():
    return training(kaiming(plain_cnn(7), 3.0), batches(*fashion()))


@fault("exploding-activations")
def overflow_to_infinity():
    return training(draw(deep_mlp(36, 8, 4, 64), 3.0), batches(*blobs()))


class Doubling(nn.Module):
    """A residual block whose branch is never brought back to size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.orthogonal_(self.linear.weight, gain=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


@fault("exploding-activations")
def residual_branches_without_a_norm():
    model = Net(nn.Sequential(nn.Flatten(), nn.Linear(256, 32), *[Doubling(32) for _ in range(14)]), nn.Linear(32, 10))
    return training(model, batches(*fashion()))


@fault("vanishing-gradient")
def sigmoid_in_twelve_layers():
    return training(deep_mlp(12, act=nn.Sigmoid), batches(*fashion()))


@fault("vanishing-gradient")
def tiny_weights():
    return training(draw(deep_mlp(5), 1e-4), batches(*fashion()))


@fault("vanishing-gradient")
def twelve_convolutions_with_default_weights():
    return training(plain_cnn(12, 4, 3), batches(*gratings()))


@fault("vanishing-gradient")
def sigmoid_in_six_convolutions():
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Sigmoid()]
    for _ in range(5):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.Sigmoid()]
    model = Net(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(32, 4))
    return training(model, batches(*gratings()), optimizer=adam(model))


@fault("vanishing-gradient")
def weights_a_third_of_what_they_should_be():
    return training(kaiming(deep_mlp(10, 8, 4), 0.3), batches(*blobs()))


@fault("exploding-gradient")
def thirty_layers_of_batch_norm_without_a_shortcut():
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(256, 32)]
    for _ in range(30):
        layers += [nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32)]
    return training(kaiming(Net(nn.Sequential(*layers), nn.Linear(32, 10))), batches(*fashion()))


@fault("exploding-gradient")
def tiny_weights_made_large_by_layer_norms():
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(8, 32), nn.LayerNorm(32, eps=1e-12)]
    for _ in range(3):
        layers += [nn.ReLU(), nn.Linear(32, 32), nn.LayerNorm(32, eps=1e-12)]
    model = draw(Net(nn.Sequential(*layers), nn.Linear(32, 4)), 1e-4)
    nn.init.normal_(model.head.weight, std=0.1)
    return training(model, batches(*blobs()))


class RowReader(nn.Module):
    """A recurrent net that reads an image row by row, without a squashing function or gates."""

    def __init__(self, gain: float, classes: int = 10, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.read, self.turn, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, classes)
        self.act = act
        nn.init.orthogonal_(self.turn.weight, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 32)
        for row in x[:, 0].unbind(1):  # (B, 16)
            state = self.act(self.read(row) + self.turn(state))
        return self.head(state)


@fault("exploding-gradient")
def a_recurrent_net_without_gates():
    return training(RowReader(2.5), batches(*fashion()))


@fault("dead-units")
def biases_of_minus_ten():
    model = mlp()
    for layer in model.features[1::2]:
        nn.init.constant_(layer.bias, -10.0)
    return training(model, batches(*fashion()))


@fault("dead-units")
def a_convolution_pushed_below_zero():
    model = cnn(4, 3)
    nn.init.constant_(model.features[3].bias, -10.0)
    return training(model, batches(*gratings()))


@fault("dead-units")
def eight_units_in_ten_are_dead():
    model = mlp(hidden=(100,))
    nn.init.constant_(model.features[1].bias[:80].detach(), -30.0)
    return training(model, batches(*fashion()))


@fault("dead-units")
def norm_biases_of_minus_five():
    model = resnet()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, -5.0)
    return training(model, batches(*fashion()))


@fault("dead-units")
def killed_by_eight_large_steps():
    model = cnn()
    data = batches(*fashion())
    steps_of(training(model, data, optimizer=sgd(model, 1.5)), 8)
    model.zero_grad()
    return training(model, data)  # a sensible rate comes too late


@fault("saturated-activations")
def tanh_with_large_weights():
    model = mlp(act=nn.Tanh)
    for layer in model.features[1::2]:
        nn.init.normal_(layer.weight, std=1.0)
    return training(model, batches(*fashion()))


@fault("saturated-activations")
def sigmoid_pushed_to_one():
    model = cnn(4, 3, act=nn.Sigmoid)
    nn.init.constant_(model.features[0].bias, 12.0)
    nn.init.constant_(model.features[3].bias, 12.0)
    return training(model, batches(*gratings()), optimizer=adam(model))


@fault("saturated-activations")
def tanh_in_a_convnet_with_large_weights():
    model = cnn(act=nn.Tanh)
    for layer in weighted_layers(model)[:-1]:
        layer.weight.data *= 15
    return training(model, batches(*fashion()))


@fault("saturated-activations")
def sigmoid_with_large_weights_in_the_last_hidden_layer():
    model = mlp(8, 4, (32, 32), nn.Sigmoid)
    nn.init.normal_(model.features[3].weight, std=6.0)
    return training(model, batches(*blobs()), optimizer=adam(model))


# The graph


class DetachedNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).detach())


class DataNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x)).data)


class NoGradNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.features(x)
        return self.head(x)


class NumpyViT(VisionTransformer):
    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        x = torch.from_numpy(self.blocks[0](x).detach().numpy())
        return self.head(self.norm(self.blocks[1](x))[:, 0])


@fault("detached-graph")
def features_detached():
    return training(cnn(kind=DetachedNet), batches(*fashion()))


@fault("detached-graph")
def data_of_the_features():
    return training(mlp(8, 4, kind=DataNet), batches(*blobs()))


@fault("detached-graph")
def no_grad_around_the_backbone():
    return training(resnet(kind=NoGradNet), batches(*fashion()))


@fault("detached-graph")
def through_numpy_and_back():
    model = vit(4, 3, kind=NumpyViT)
    return training(model, batches(*gratings()), optimizer=adam(model))


@fault("detached-graph")
def the_whole_output_detached():
    return training(nn.Sequential(mlp(8, 1), Call(Tensor.detach)), batches(*table()), nn.MSELoss())


@fault("detached-graph")
def rounded_on_the_way():
    model = cnn(norm="batch")
    model.features.append(Call(torch.round))
    return training(model, batches(*fashion()))


@fault("frozen-parameters")
def the_new_head_frozen_with_the_rest():
    model = resnet()
    model.requires_grad_(False)
    for block in model.features[3:5]:
        block.requires_grad_(True)
    return training(model, batches(*fashion()))


@fault("frozen-parameters")
def everything_frozen():
    return training(cnn().requires_grad_(False), batches(*fashion()))


@fault("frozen-parameters")
def the_head_frozen():
    model = mlp(8, 4)
    model.head.requires_grad_(False)
    return training(model, batches(*blobs()))


@fault("frozen-parameters")
def the_blocks_of_a_new_vit_frozen():
    model = vit()
    model.blocks.requires_grad_(False)
    return training(model, batches(*fashion()), optimizer=adam(model))


@fault("parameter-not-in-optimizer")
def the_head_replaced_after_the_optimizer():
    model = cnn(20)
    optimizer = sgd(model)
    model.head = nn.Linear(256, 10)
    return training(model, batches(*fashion()), optimizer=optimizer)


@fault("parameter-not-in-optimizer")
def only_the_features_given():
    model = resnet()
    return training(model, batches(*fashion()), optimizer=sgd(model.features))


@fault("parameter-not-in-optimizer")
def norms_and_biases_left_out():
    model = vit(4, 3)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    return training(model, batches(*gratings()), optimizer=torch.optim.AdamW([{"params": decayed}], lr=2e-3))


class ListNet(nn.Module):
    """Its hidden layers lie in a plain list, so that `parameters()` knows nothing of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 32), nn.Linear(32, 4)
        self.hidden = [nn.Linear(32, 32) for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


@fault("parameter-not-in-optimizer")
def layers_in_a_plain_list():
    return training(ListNet(), batches(*blobs()))


@fault("optimizer-of-another-model")
def optimizer_of_the_original_of_a_copy():
    model = cnn()
    return training(copy.deepcopy(model), batches(*fashion()), optimizer=adam(model))


@fault("optimizer-of-another-model")
def the_cell_with_the_model_run_again():
    optimizer = sgd(resnet())
    return training(resnet(), batches(*fashion()), optimizer=optimizer)


@fault("optimizer-of-another-model")
def weights_loaded_by_assignment():
    model, pretrained = vit(), vit()
    optimizer = adam(model)
    model.load_state_dict(pretrained.state_dict(), assign=True)
    model.requires_grad_(True)
    return training(model, batches(*fashion()), optimizer=optimizer)


@fault("stale-gradients")
def twelve_batches_without_zero_grad():
    model = mlp()
    return steps_of(training(model, batches(*fashion()), optimizer=sgd(model, 0.01)), 12, zero=False)


@fault("stale-gradients")
def forty_batches_without_zero_grad():
    return steps_of(training(resnet(4, 3), batches(*gratings())), 40, zero=False, step=False)


@fault("stale-gradients")
def six_batches_without_zero_grad():
    model = vit()
    return steps_of(training(model, batches(*fashion()), optimizer=adam(model)), 6, zero=False, step=False)


# Updates and modes


@fault("learning-rate-too-high")
def a_rate_of_ten():
    model = cnn()
    return training(model, batches(*fashion()), optimizer=sgd(model, 10.0))


@fault("learning-rate-too-high")
def adam_with_a_rate_for_sgd():
    model = vit(4, 3)
    return training(model, batches(*gratings()), optimizer=adam(model, 0.3))


@fault("learning-rate-too-high")
def sgd_in_a_plain_net_with_a_rate_of_two():
    model = mlp()
    return training(model, batches(*fashion()), optimizer=sgd(model, 2.0))


@fault("learning-rate-too-high")
def a_regression_with_a_rate_of_one():
    model = mlp(8, 1)
    return training(model, batches(*table()), nn.MSELoss(), sgd(model, 1.0))


@fault("learning-rate-too-high")
def adam_with_a_rate_of_one_in_a_depthwise_net():
    model = depthwise()
    return training(model, batches(*fashion()), optimizer=adam(model, 1.0))


@fault("learning-rate-too-low")
def a_rate_of_1e_8():
    model = cnn()
    return training(model, batches(*fashion()), optimizer=sgd(model, 1e-8))


@fault("learning-rate-too-low")
def adam_with_a_rate_of_1e_7():
    model = vit(4, 3)
    return training(model, batches(*gratings()), optimizer=adam(model, 1e-7))


@fault("learning-rate-too-low")
def a_rate_of_zero():
    model = mlp(8, 1)
    return training(model, batches(*table()), nn.MSELoss(), sgd(model, 0.0))


@fault("learning-rate-too-low")
def a_rate_decayed_at_every_batch():
    made = training(resnet(), batches(*fashion()))
    made.scheduler = torch.optim.lr_scheduler.StepLR(made.optimizer, step_size=1, gamma=0.1)
    made.optimizer.step()
    for _ in range(6):
        made.scheduler.step()
    return made


@fault("wrong-direction")
def an_optimizer_that_maximizes():
    model = cnn(norm="batch")
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.01, maximize=True))


class MinusGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


@fault("wrong-direction")
def a_backward_with_the_wrong_sign():
    model = nn.Sequential(mlp(8, 4), Call(MinusGradient.apply))
    return training(model, batches(*blobs()), optimizer=sgd(model, 0.01))


@fault("eval-mode-in-training")
def left_in_eval_after_validation():
    return training(resnet().eval(), batches(*fashion()))


@fault("eval-mode-in-training")
def a_vit_with_dropout_left_in_eval():
    model = vit(4, 3, dropout=0.2).eval()
    return training(model, batches(*gratings()), optimizer=adam(model))


class EvalNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.eval()
        return super().forward(x)


@fault("eval-mode-in-training")
def eval_called_in_forward():
    return training(cnn(norm="batch", kind=EvalNet), batches(*fashion()))


@fault("eval-mode-in-training")
def new_batch_norms_left_in_eval():
    model = cnn(4, 3, norm="batch")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return training(model, batches(*gratings()))


@fault("batchnorm-batch-of-one")
def batch_size_one():
    return training(resnet(4, 3), batches(*gratings(96), batch_size=1))


@fault("batchnorm-batch-of-one")
def a_last_batch_of_one():
    x, y = fashion(129)
    features = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.BatchNorm1d(32), nn.ReLU())
    return training(Net(features, nn.Linear(32, 10)), batches(x, y))


@fault("batchnorm-batch-of-one")
def batch_size_one_after_global_pooling():
    x, y = fashion(96)
    features = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten()
    )
    return training(Net(features, nn.Linear(8, 10)), listed(x, y, 1))


@fault("weight-decay-too-strong")
def weight_decay_of_ten():
    model = cnn()
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.01, weight_decay=10.0))


@fault("weight-decay-too-strong")
def adam_with_a_weight_decay_of_one():
    model = vit(4, 3)
    return training(model, batches(*gratings()), optimizer=adam(model, weight_decay=1.0))


@fault("weight-decay-too-strong")
def adamw_with_a_weight_decay_of_a_hundred():
    model = mlp(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=100.0)
    return training(model, batches(*table()), nn.MSELoss(), optimizer)


@fault("weight-decay-too-strong")
def weight_decay_of_one_in_a_resnet():
    model = resnet()
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.1, weight_decay=1.0))


@fault("capacity-too-small")
def a_line_through_a_checkerboard():
    x = torch.randn(512, 2)
    return training(nn.Linear(2, 2), batches(x, (x.prod(1) > 0).long()))


@fault("capacity-too-small")
def a_bottleneck_of_one_unit():
    """On the border: how well one unit orders ten classes depends on the seed, and on the processor's rounding."""
    return training(mlp(hidden=(32, 1), act=nn.LeakyReLU), batches(*fashion()))


@fault("capacity-too-small")
def one_channel_pooled_to_one_number():
    features = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Net(features, nn.Linear(1, 10))
    return training(model, batches(*fashion()), optimizer=adam(model, 0.02))


@fault("capacity-too-small")
def a_line_through_a_sine():
    x = torch.rand(512, 1) * 4 - 2
    return training(nn.Linear(1, 1), batches(x, 1.4 * torch.sin(5 * x)), nn.MSELoss())


class DropoutNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.features(x), 0.5))  # training=True is the default, in eval mode too


class NoisyNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.3 * torch.randn_like(x))


class MirroringNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(-1) if random.random() < 0.5 else x)


class NumpyNoiseNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        noise = torch.from_numpy(np.random.normal(size=tuple(x.shape)))  # noqa: NPY002
        return super().forward(x + 0.2 * noise.float())


class MaskingViT(VisionTransformer):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(F.dropout2d(images, 0.3))


@fault("nondeterministic-forward")
def functional_dropout_without_training():
    return training(cnn(kind=DropoutNet), batches(*fashion()))


@fault("nondeterministic-forward")
def noise_in_eval_too():
    return training(mlp(8, 1, kind=NoisyNet), batches(*table()), nn.MSELoss())


@fault("nondeterministic-forward")
def mirrored_in_forward():
    return training(resnet(kind=MirroringNet), batches(*fashion()))


@fault("nondeterministic-forward")
def noise_from_numpy():
    return training(cnn(norm="batch", kind=NumpyNoiseNet), batches(*fashion()))


@fault("nondeterministic-forward")
def channels_dropped_in_eval_too():
    model = vit(4, 3, kind=MaskingViT)
    return training(model, batches(*gratings()), optimizer=adam(model))


class ScalingNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        x.div_(255).sub_(0.286).div_(0.332)
        return super().forward(x)


class CentringNet(Net):
    def forward(self, x: Tensor) -> Tensor:
        x -= x.mean(dim=(1, 2, 3), keepdim=True)
        return super().forward(x)


@fault("in-place-input")
def normalised_in_place():
    return training(cnn(kind=ScalingNet), listed(*bytes_of_fashion()))


@fault("in-place-input")
def centred_in_place():
    x, y = fashion()
    return training(resnet(kind=CentringNet), batches(x, y))


@fault("in-place-input")
def an_inplace_relu_first():
    model = nn.Sequential(nn.ReLU(inplace=True), mlp(8, 4))
    return training(model, listed(*blobs()))


class MaskedViT(VisionTransformer):
    def forward(self, images: Tensor) -> Tensor:
        images[:, :, :4] = 0
        return super().forward(images)


@fault("in-place-input")
def a_strip_blackened_in_place():
    model = vit(kind=MaskedViT)
    return training(model, batches(*fashion()), optimizer=adam(model))


# Beyond learning


@fault("model-error")
def a_head_that_does_not_fit():
    model = cnn()
    model.head = nn.Linear(64, 10)
    return training(model, batches(*fashion()))


@fault("model-error")
def colour_model_and_grey_images():
    return training(resnet(channels=3), batches(*fashion()))


@fault("model-error")
def doubles_from_numpy():
    x, y = table()
    return training(mlp(8, 1), batches(torch.from_numpy(x.numpy().astype("float64")), y), nn.MSELoss())


@fault("constant-output")
def softmax_over_one_class():
    x, y = blobs(classes=2)
    model = nn.Sequential(mlp(8, 1), nn.Softmax(dim=1))
    return training(model, batches(x, y.float()[:, None]), nn.BCELoss())


@fault("constant-output")
def layer_norm_over_one_feature():
    return training(nn.Sequential(mlp(8, 1), nn.LayerNorm(1)), batches(*table()), nn.MSELoss())


class ForgetfulNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = norm_layer("batch", 8), nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(self.conv1(x)).relu(), 4)  # conv2 is forgotten
        return self.head(x.flatten(1))


@fault("unused-parameters")
def a_convolution_never_called():
    return training(ForgetfulNet(), batches(*fashion()))


class SkippingViT(VisionTransformer):
    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks[2](self.blocks[0](x)))[:, 0])


@fault("unused-parameters")
def the_second_block_skipped():
    model = vit(4, 3, depth=3, kind=SkippingViT)
    return training(model, batches(*gratings()), optimizer=adam(model))


# Two at once


@fault("input-scale", "softmax-before-loss")
def bytes_and_softmax():
    return training(cnn(kind=SoftmaxNet), batches(*bytes_of_fashion()))


@fault("unshuffled", "class-imbalance")
def sorted_and_imbalanced():
    x, y = blobs(3000)
    kept = (y == 1) | (torch.rand(len(y)) < 0.08)
    y, x = in_order_of(y[kept], y[kept], x[kept])
    return training(mlp(8, 4), batches(x, y, shuffle=False))


@fault("stale-gradients", "eval-mode-in-training")
def no_zero_grad_and_left_in_eval():
    made = steps_of(training(resnet(), batches(*fashion())), 20, zero=False, step=False)
    made.model.eval()
    return made


@fault("nonfinite-input", "parameter-not-in-optimizer")
def a_nan_and_a_forgotten_head():
    x, y = fashion()
    x[::30, 0, 0, 0] = torch.inf
    model = mlp()
    return training(model, batches(x, y), optimizer=sgd(model.features))


@fault("learning-rate-too-low", "frozen-parameters")
def a_tiny_rate_and_a_frozen_head():
    model = vit(4, 3)
    model.head.requires_grad_(False)
    return training(model, batches(*gratings()), optimizer=adam(model, 1e-8))


@fault("duplicate-or-leaking-data", "nondeterministic-forward")
def leaking_and_never_the_same_twice():
    x, y = fashion()
    model = cnn(kind=DropoutNet)
    return training(model, batches(x, y), val_loader=batches(x[:128], y[:128], shuffle=False))


@fault("loss-scale", "in-place-input")
def summed_and_in_place():
    model = cnn(4, 3, norm="batch", kind=CentringNet)
    return training(model, listed(*gratings()), nn.CrossEntropyLoss(reduction="sum"))


@fault("zero-or-constant-init", "optimizer-of-another-model")
def zeros_and_the_wrong_optimizer():
    model = mlp(8, 4)
    for layer in weighted_layers(model):
        nn.init.zeros_(layer.weight)
    return training(model, batches(*blobs()), optimizer=sgd(mlp(8, 4)))


@fault("dead-units", "class-missing")
def dead_and_short_of_classes():
    x, y = fashion()
    model = mlp()
    nn.init.constant_(model.features[1].bias, -20.0)
    return training(model, batches(x[y != 4], y[y != 4]))


@fault("target-scale", "loss-target-mismatch")
def prices_of_another_shape():
    x, y = table()
    return training(mlp(8, 1), batches(x, 3000 + 500 * y[:, 0]), nn.L1Loss())


@fault("unused-parameters", "batchnorm-batch-of-one")
def a_layer_forgotten_and_batches_of_one():
    x, y = fashion(96)
    return training(ForgetfulNet(), listed(x, y, 1))


@fault("channel-order", "label-shift")
def reshaped_and_counted_from_one():
    x, y = gratings()
    return training(cnn(4, 3), batches(x.permute(0, 2, 3, 1).reshape(-1, 3, 16, 16), y + 1))


@fault("detached-graph", "weight-decay-too-strong")
def detached_and_decayed():
    model = resnet(kind=DetachedNet)
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.05, weight_decay=5.0))


def concatenated(*parts: tuple[Tensor, Tensor]) -> ConcatDataset:
    return ConcatDataset([TensorDataset(*part) for part in parts])


@fault("duplicate-or-leaking-data", "learning-rate-too-high")
def the_same_folder_added_twice_and_a_rate_of_ten():
    part = fashion(160)
    model = cnn(norm="batch")
    loader = DataLoader(concatenated(part, part), 32, shuffle=True, generator=torch.Generator().manual_seed(0))
    return training(model, loader, optimizer=sgd(model, 10.0))
