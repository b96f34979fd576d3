"""What keeps a network from overfitting: decay where it belongs, the average of the weights, dropped branches, an early end."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn
from training_helpers import loaders, make_trainer, small_net

from dlcourse.models import create_model
from dlcourse.models.layers import DropPath
from dlcourse.training import Callback, EarlyStopping, NonFiniteLoss, weight_decay_groups

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)

# ---------------------------------------------------------------- weight decay

MODELS = {
    "our ResNet": lambda: create_model("resnet18", num_classes=10, stem="cifar"),
    "our MobileNetV3": lambda: create_model("mobilenet_v3_small", num_classes=10),
    "our ViT": lambda: create_model("vit_tiny_patch16", num_classes=10, img_size=32, patch_size=8),
    "torchvision's ResNet": lambda: torchvision.models.resnet18(weights=None),
    "torchvision's ViT": lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64),
    "timm's ViT": lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False, depth=2),
    "timm's DeiT": lambda: timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, depth=2),
    "timm's ConvNeXt": lambda: timm.create_model("convnext_atto", pretrained=False),
}


@pytest.mark.parametrize("name", MODELS)
def test_matrices_and_convolutions_decay_and_norms_biases_and_embeddings_do_not(name):
    model = MODELS[name]()
    decayed, free = weight_decay_groups(model, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    held = [id(parameter) for group in (decayed, free) for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    decays = {id(parameter) for parameter in decayed["params"]}
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            assert id(module.weight) in decays
        if isinstance(module, NORMS):
            assert id(module.weight) not in decays
        if getattr(module, "bias", None) is not None:
            assert id(module.bias) not in decays
    for parameter_name, parameter in model.named_parameters():
        if any(word in parameter_name for word in ("pos_embed", "token", "gamma")):
            assert id(parameter) not in decays, parameter_name


def test_an_embedding_is_recognised_by_its_own_name_only():
    model = nn.ModuleDict({"pos_embed": nn.Linear(3, 2), "head": nn.Linear(2, 2)})
    decayed, _ = weight_decay_groups(model, 0.1)
    assert len(decayed["params"]) == 2


def test_a_shared_parameter_is_in_one_group_and_a_frozen_one_stays():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    decayed, free = weight_decay_groups(nn.Sequential(first, second), 0.1)
    assert [len(decayed["params"]), len(free["params"])] == [1, 2]


def test_the_optimizer_takes_the_groups_and_decays_only_the_first():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(weight_decay_groups(model, 0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if name in ("0.weight", "2.weight") else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


@pytest.mark.parametrize("weight_decay", [-0.1, math.nan])
def test_a_weight_decay_below_zero_is_refused(weight_decay):
    with pytest.raises(ValueError, match=f"weight_decay={weight_decay} must be at least 0"):
        weight_decay_groups(nn.Linear(2, 2), weight_decay)


# ---------------------------------------------------------------- the average of the weights


class ByHand(Callback):
    """decay · average + (1 − decay) · weights after each step, beginning with the weights after the first."""

    def __init__(self, decay):
        self.decay, self.average = decay, None

    def on_step_end(self, trainer):
        state = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
        if self.average is None:
            self.average = state
            return
        for name, value in state.items():
            if value.is_floating_point():
                self.average[name] = self.decay * self.average[name] + (1 - self.decay) * value


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_trainers_average_is_the_one_by_hand_buffers_included(decay):
    by_hand = ByHand(decay)
    trainer = make_trainer(ema=decay, callbacks=[by_hand], restore_best=False, net=small_net)
    trainer.fit(*loaders())
    average = trainer.ema.module.state_dict()
    compared = {name for name, value in average.items() if value.is_floating_point()}
    assert {"1.running_mean", "1.running_var", "0.weight", "5.bias"} <= compared
    largest = max((average[name] - by_hand.average[name]).abs().max().item() for name in compared)
    assert largest < 1e-6
    apart = max((average[name] - trainer.model.state_dict()[name]).abs().max().item() for name in compared)
    assert apart > 1e-3  # the average is not the model itself


# ---------------------------------------------------------------- stochastic depth


def test_drop_path_drops_whole_samples_each_by_a_draw_of_its_own():
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(20_000, 3, 2))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out.amax((1, 2)), out.amin((1, 2)))
    assert (out[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.015)
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_drop_path_is_timms():
    theirs, ours = timm.layers.DropPath(0.4), DropPath(0.4)
    x = torch.randn(64, 3, 2, 2)
    torch.manual_seed(3)
    expected = theirs(x)
    torch.manual_seed(3)
    torch.testing.assert_close(ours(x), expected)
    assert torch.equal(ours.eval()(x), x)


# ---------------------------------------------------------------- early stopping


def test_a_run_of_nan_from_the_first_epoch_is_an_error_and_no_quiet_end(tmp_path):
    trainer = make_trainer(tmp_path, callbacks=[EarlyStopping(2)])
    with torch.no_grad():
        trainer.model[0].weight.fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match="the loss is NaN or infinite at epoch 1, step 1"):
        trainer.fit(*loaders())
    assert not (tmp_path / "best.pt").exists()
