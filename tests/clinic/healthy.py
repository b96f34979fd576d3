"""Trainings that learn. Each looks a little like a broken one; `healthy_learn.py` shows that it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

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
    fashion,
    gratings,
    in_order_of,
    kaiming,
    listed,
    mlp,
    plain_cnn,
    resnet,
    sgd,
    squares,
    steps_of,
    table,
    training,
    vit,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dlcourse.data import MixingCollate, balanced_sampler, class_weights, make_loader
from dlcourse.models.resnet import BasicBlock
from dlcourse.training import FocalLoss, losses

HEALTHY: list[Case] = []


def healthy(builder: Callable[[], Training]) -> Callable[[], Training]:
    HEALTHY.append(Case(builder.__name__, builder))
    return builder


# Architectures


@healthy
def an_mlp_on_images():
    return training(mlp(), batches(*fashion()))


@healthy
def an_mlp_on_points():
    return training(mlp(8, 4), batches(*blobs()))


@healthy
def a_linear_classifier():
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.01))


@healthy
def a_convnet():
    return training(cnn(), batches(*fashion()))


@healthy
def a_convnet_with_batch_norm_and_a_rate_of_a_tenth():
    model = cnn(norm="batch")
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.1))


@healthy
def a_resnet_with_a_rate_of_a_tenth():
    model = resnet(4, 3)
    return training(model, batches(*gratings()), optimizer=sgd(model, 0.1, weight_decay=5e-4))


@healthy
def a_resnet_with_adamw():
    model = resnet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    return training(model, batches(*fashion()), optimizer=optimizer)


@healthy
def a_vit():
    model = vit()
    return training(model, batches(*fashion()), optimizer=adam(model))


@healthy
def a_vit_on_colour_with_adamw():
    model = vit(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    return training(model, batches(*gratings()), optimizer=optimizer)


@healthy
def a_depthwise_net():
    model = depthwise()
    return training(model, batches(*fashion()), optimizer=adam(model, 5e-3))


@healthy
def a_deep_plain_net_with_batch_norm():
    model = kaiming(plain_cnn(10, 4, 3, norm="batch"))
    return training(model, batches(*gratings()), optimizer=adam(model, 3e-3))


@healthy
def a_deep_mlp_well_initialised():
    model = kaiming(deep_mlp(6))
    return training(model, batches(*fashion()), optimizer=adam(model, 1e-3))


@healthy
def tanh_in_an_mlp():
    return training(mlp(8, 4, act=nn.Tanh), batches(*blobs()))


@healthy
def one_hidden_layer_of_sigmoids():
    model = mlp(hidden=(64,), act=nn.Sigmoid)
    return training(model, batches(*fashion()), optimizer=adam(model, 5e-3))


@healthy
def gelu_in_a_convnet():
    model = cnn(act=nn.GELU)
    return training(model, batches(*fashion()), optimizer=adam(model, 3e-3))


@healthy
def silu_and_group_norm():
    return training(cnn(4, 3, norm="group", act=nn.SiLU), batches(*gratings()))


@healthy
def layer_norm_in_a_convnet():
    return training(cnn(norm="layer"), batches(*fashion()))


@healthy
def leaky_relu_and_batch_norm():
    return training(cnn(norm="batch", act=nn.LeakyReLU), batches(*fashion()))


@healthy
def inplace_relu_inside():
    return training(cnn(norm="batch", act=lambda: nn.ReLU(inplace=True)), listed(*fashion()))


class GatedNet(nn.Module):
    """A recurrent net that reads the image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.head = nn.GRU(16, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rows(x[:, 0])[0][:, -1])


@healthy
def a_recurrent_net_over_rows():
    model = GatedNet()
    return training(model, batches(*fashion()), optimizer=adam(model, 5e-3))


class SharedNet(nn.Module):
    """One layer used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.head = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for _ in range(3):
            x = x + self.shared(x).relu()
        return self.head(x)


@healthy
def shared_weights():
    return training(SharedNet(), batches(*blobs()))


# Optimizers and rates


@healthy
def sgd_without_momentum():
    model = cnn(norm="batch")
    return training(model, batches(*fashion()), optimizer=sgd(model, 0.1, 0.0))


@healthy
def rmsprop():
    model = mlp()
    return training(model, batches(*fashion()), optimizer=torch.optim.RMSprop(model.parameters(), lr=1e-3))


@healthy
def nesterov_with_weight_decay():
    model = depthwise(4, 3)
    optimizer = sgd(model, 0.05, nesterov=True, weight_decay=1e-3)
    return training(model, batches(*gratings()), optimizer=optimizer)


@healthy
def adamw_with_a_weight_decay_of_a_tenth():
    model = vit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1, betas=(0.9, 0.98))
    return training(model, batches(*fashion()), optimizer=optimizer)


@healthy
def no_decay_for_norms_and_biases():
    model = resnet()
    groups = [
        {"params": [parameter for parameter in model.parameters() if parameter.ndim > 1], "weight_decay": 0.05},
        {"params": [parameter for parameter in model.parameters() if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return training(model, batches(*fashion()), optimizer=torch.optim.AdamW(groups, lr=3e-3))


@healthy
def discriminative_rates():
    model = pretrained()
    groups = [{"params": model.features.parameters(), "lr": 1e-4}, {"params": model.head.parameters(), "lr": 1e-2}]
    return training(model, batches(*fashion(500)), optimizer=torch.optim.Adam(groups))


@healthy
def warmup_from_a_rate_of_zero():
    model = vit()
    made = training(model, batches(*fashion()), optimizer=adam(model, 4e-3))
    made.scheduler = torch.optim.lr_scheduler.LambdaLR(made.optimizer, lambda step: min(step / 20, 1.0))
    return made


@healthy
def one_cycle_at_its_start():
    made = training(cnn(norm="batch"), batches(*fashion()))
    made.scheduler = torch.optim.lr_scheduler.OneCycleLR(made.optimizer, 0.2, total_steps=80)
    return made


@healthy
def no_optimizer_given():
    return Training(cnn(norm="batch"), batches(*fashion()), nn.CrossEntropyLoss(), None)


# Losses and targets


@healthy
def class_weights_for_unbalanced_classes():
    x, y = fashion(900)
    kept = (y < 5) | (torch.rand(len(y)) < 0.4)
    x, y = x[kept], y[kept]
    return training(cnn(), batches(x, y), nn.CrossEntropyLoss(weight=class_weights(y)))


@healthy
def label_smoothing():
    return training(resnet(4, 3), batches(*gratings()), nn.CrossEntropyLoss(label_smoothing=0.1))


@healthy
def focal_loss():
    model = cnn()
    return training(model, batches(*fashion()), FocalLoss(2.0), adam(model, 3e-3))


@healthy
def losses_of_the_course():
    return training(mlp(8, 4), batches(*blobs()), losses.cross_entropy)


@healthy
def mean_squared_error():
    return training(mlp(8, 1), batches(*table()), nn.MSELoss())


@healthy
def absolute_error_of_flat_targets():
    x, y = table()
    model = nn.Sequential(mlp(8, 1), nn.Flatten(0))
    return training(model, batches(x, y[:, 0]), F.l1_loss, adam(model, 5e-3))


@healthy
def huber_loss_on_images():
    x, y = gratings()
    target = ((y - 1.5) / 1.12)[:, None]
    model = cnn(1, 3, norm="batch")
    return training(model, batches(x, target), nn.HuberLoss(), adam(model, 3e-3))


@healthy
def multi_label():
    return training(cnn(4), batches(*squares()), nn.BCEWithLogitsLoss())


@healthy
def rare_labels_with_pos_weight():
    x, y = squares(share=0.15)
    model = resnet(4)
    return training(model, batches(x, y), nn.BCEWithLogitsLoss(pos_weight=torch.full((4,), 4.0)), adam(model, 3e-3))


@healthy
def one_logit_for_two_classes():
    x, y = blobs(classes=2)
    return training(mlp(8, 1), batches(x, y.float()[:, None]), nn.BCEWithLogitsLoss())


@healthy
def sigmoid_and_bce():
    model = nn.Sequential(cnn(4), nn.Sigmoid())
    return training(model, batches(*squares()), nn.BCELoss(), adam(model, 3e-3))


@healthy
def nll_of_log_softmax():
    model = nn.Sequential(cnn(), nn.LogSoftmax(dim=1))
    return training(model, batches(*fashion()), nn.NLLLoss())


@healthy
def log_softmax_before_cross_entropy():
    model = nn.Sequential(mlp(8, 4), nn.LogSoftmax(dim=1))  # needless and harmless: it changes nothing twice
    return training(model, batches(*blobs()))


@healthy
def hinge_loss():
    return training(mlp(8, 4), batches(*blobs()), nn.MultiMarginLoss())


@healthy
def soft_labels():
    x, y = gratings()
    soft = 0.9 * F.one_hot(y, 4) + 0.025
    return training(cnn(4, 3, norm="batch"), batches(x, soft))


@healthy
def mixup():
    data = TensorDataset(*fashion())
    loader = make_loader(data, 32, train=True, collate_fn=MixingCollate(10, mixup=0.4))
    return training(resnet(), loader)


@healthy
def an_ignored_index():
    x, y = fashion()
    y[::20] = -100
    return training(cnn(), batches(x, y))


@healthy
def sigmoid_regression_of_shares():
    x, _ = fashion()
    target = (x > 0).float().mean((2, 3))  # the bright share of the image, 0 … 1
    model = nn.Sequential(cnn(1), nn.Sigmoid())
    return training(model, batches(x, target), nn.MSELoss(), adam(model, 3e-3))


@healthy
def a_mask_that_begins_with_background():
    x, y = squares()
    mask = torch.zeros_like(x)
    mask[:, :, 10:14, 2:6] = y[:, 2, None, None, None]
    model = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))
    return training(model, batches(x, mask), nn.BCEWithLogitsLoss(), adam(model, 5e-3))


@healthy
def an_autoencoder():
    x, _ = bytes_of_fashion()
    x = x / 255
    model = Net(
        nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 16)),
        nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 256), nn.Sigmoid(), nn.Unflatten(1, (1, 16, 16))),
    )
    return training(model, batches(x, x.clone()), nn.MSELoss(), adam(model, 5e-3))


@healthy
def segmentation():
    x, _ = squares()
    target = (F.avg_pool2d(x, 3, stride=1, padding=1)[:, 0] > 0.7).long()  # (N, 16, 16), mostly background
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    return training(model, batches(x, target), optimizer=adam(model, 5e-3))


# Initialisation, regularisation, transfer


@healthy
def a_head_of_zeros():
    model = resnet()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return training(model, batches(*fashion()))


@healthy
def residual_branches_that_start_at_zero():
    model = resnet(4, 3)
    for block in model.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
    return training(model, batches(*gratings()))


@healthy
def a_bias_that_knows_the_shares():
    x, y = squares(share=0.1)
    model = cnn(4)
    nn.init.constant_(model.head.bias, math.log(0.1 / 0.9))
    return training(model, batches(x, y), nn.BCEWithLogitsLoss())


@healthy
def half_of_the_units_dropped():
    model = mlp(hidden=(128, 64))
    model.features.append(nn.Dropout(0.5))
    return training(model, batches(*fashion()), optimizer=adam(model))


@healthy
def stochastic_depth_and_dropout_in_a_vit():
    model = vit(4, 3, drop_path=0.2, dropout=0.1)
    return training(model, batches(*gratings()), optimizer=adam(model))


@cache
def _trained_features() -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return steps_of(training(cnn(norm="batch"), batches(*fashion(400, start=500))), 60).model.features.state_dict()


def pretrained(kind: type[Net] = Net) -> Net:
    """A convnet whose features have been trained on other images, with a new head."""
    model = cnn(norm="batch", kind=kind)
    model.features.load_state_dict(_trained_features())
    return model


@healthy
def a_frozen_backbone():
    model = pretrained()
    model.features.requires_grad_(False)
    return training(model, batches(*fashion(500)), optimizer=sgd(model.head, 0.01))


@healthy
def a_frozen_backbone_in_eval_mode():
    model = pretrained()
    model.features.requires_grad_(False)
    model.features.eval()
    optimizer = torch.optim.Adam((parameter for parameter in model.parameters() if parameter.requires_grad), lr=3e-3)
    return training(model, batches(*fashion(500)), optimizer=optimizer)


class NoGradBackbone(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.features(x)
        return self.head(x)


@healthy
def a_frozen_backbone_under_no_grad():
    model = pretrained(NoGradBackbone)
    model.features.requires_grad_(False)
    return training(model, batches(*fashion(500)), optimizer=adam(model.head))


@healthy
def fine_tuning_with_a_small_rate():
    model = pretrained()
    return training(model, batches(*fashion(500)), optimizer=adam(model, 3e-4))


@healthy
def trained_already():
    made = training(cnn(norm="batch"), batches(*fashion()))
    return steps_of(made, 120)  # the last step's gradients still lie in .grad, as after any loop


@healthy
def a_model_without_modes_in_eval():
    return training(cnn().eval(), batches(*fashion()))


# Data and loaders


@healthy
def batches_of_two():
    model = cnn()
    return training(model, batches(*fashion(), batch_size=2), optimizer=sgd(model, 0.005))


@healthy
def batches_of_256():
    model = cnn(norm="batch")
    return training(model, batches(*fashion(900), batch_size=256), optimizer=adam(model, 5e-3))


@healthy
def batches_of_one_without_batch_norm():
    model = mlp(8, 4)
    return training(model, batches(*blobs(), batch_size=1), optimizer=sgd(model, 0.01, 0.0))


@healthy
def a_short_last_batch():
    return training(cnn(norm="batch"), batches(*fashion(490)))


@healthy
def the_last_batch_dropped():
    x, y = fashion(481)  # the last batch would hold one image
    return training(resnet(), batches(x, y, drop_last=True))


@healthy
def a_balanced_sampler():
    x, y = fashion(900)
    kept = (y < 3) | (torch.rand(len(y)) < 0.15)
    x, y = x[kept], y[kept]
    return training(cnn(norm="batch"), make_loader(TensorDataset(x, y), 32, sampler=balanced_sampler(y.tolist())))


@healthy
def pixels_from_zero_to_one():
    x, y = bytes_of_fashion()
    model = cnn()
    return training(model, batches(x / 255, y), optimizer=adam(model, 3e-3))


@healthy
def pixels_from_minus_one_to_one():
    x, y = bytes_of_fashion()
    model = vit()
    return training(model, batches(x / 127.5 - 1, y), optimizer=adam(model))


class Normalising(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(73.0))
        self.register_buffer("std", torch.tensor(85.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


@healthy
def the_model_normalises_bytes():
    return training(Normalising(cnn(norm="batch")), batches(*bytes_of_fashion()))


@healthy
def the_model_permutes_channels_last():
    x, y = gratings()
    model = nn.Sequential(Call(lambda x: x.permute(0, 3, 1, 2)), cnn(4, 3, norm="batch"))
    return training(model, batches(x.permute(0, 2, 3, 1).contiguous(), y))


@healthy
def channels_last_in_memory():
    x, y = gratings()
    model = resnet(4, 3).to(memory_format=torch.channels_last)
    return training(model, batches(x.contiguous(memory_format=torch.channels_last), y))


@healthy
def grey_repeated_to_three_channels():
    return training(resnet(channels=3), batches(*fashion(channels=3)))


@healthy
def some_noise_in_the_labels():
    x, y = blobs()
    return training(mlp(8, 4), batches(x, torch.where(torch.rand(len(y)) < 0.1, torch.randint(4, y.shape), y)))


@healthy
def classes_of_unequal_size():
    x, y = fashion(900)
    kept = torch.rand(len(y)) < torch.linspace(1, 0.35, 10)[y]
    return training(cnn(), batches(x[kept], y[kept]))


@healthy
def a_feature_that_is_rarely_set():
    x, y = blobs()
    rare = (torch.rand(len(y), 2) < 0.03).float()
    return training(mlp(10, 4), batches(torch.cat((x, rare), dim=1), y))


@healthy
def sorted_data_and_a_shuffling_loader():
    x, y = fashion()
    y, x = in_order_of(y, y, x)
    return training(cnn(), batches(x, y))


@healthy
def a_list_in_random_order():
    return training(cnn(), listed(*fashion()))


@healthy
def held_out_images_for_validation():
    held_out = batches(*fashion(200, start=600), 100, shuffle=False)
    return training(resnet(), batches(*fashion(600)), val_loader=held_out)


class Noisy(torch.utils.data.Dataset):
    """Augments from torch's global generator, as most pipelines do."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.x[index] + 0.1 * torch.randn(1)
        return image.flip(-1) if torch.rand(()) < 0.5 else image, int(self.y[index])


@healthy
def augmented_from_the_global_generator():
    loader = DataLoader(Noisy(*fashion()), 32, shuffle=True)
    return training(cnn(norm="batch"), loader)


@healthy
def double_precision():
    x, y = blobs()
    return training(mlp(8, 4).double(), batches(x.double(), y))
