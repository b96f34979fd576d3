"""New heads, freezing, layer-wise rates and gradual unfreezing, on this course's networks, torchvision's and timm's."""

import math
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from training_helpers import Points, assert_same_weights

from dlcourse.data import make_loader
from dlcourse.models import count_parameters, create_model
from dlcourse.training import (
    Callback,
    GradualUnfreezing,
    Trainer,
    TrainerConfig,
    freeze,
    get_classifier,
    layerwise_param_groups,
    make_scheduler,
    regression_head,
    replace_head,
    set_training_mode,
    train_one_epoch,
    unfreeze,
)
from dlcourse.training.finetune import layers_in_order, parameters_under

# name: (how it is built, the name of its head, what stands at the top of the backbone, number of layers)
MODELS = {
    "resnet18": (lambda: create_model("resnet18"), "fc", "layer4", 6),
    "efficientnet_b0": (lambda: create_model("efficientnet_b0"), "classifier.1", "features.8", 10),
    "mobilenet_v1": (lambda: create_model("mobilenet_v1"), "classifier", "blocks.4", 7),
    "mobilenet_v2": (lambda: create_model("mobilenet_v2"), "classifier.1", "features.18", 20),
    "mobilenet_v3_small": (lambda: create_model("mobilenet_v3_small"), "classifier.3", "features.12", 14),
    "vit_tiny_patch16": (lambda: create_model("vit_tiny_patch16"), "head", "blocks.11", 14),
    "simple_cnn": (lambda: create_model("simple_cnn"), "classifier.3", "features.6", 4),
    "torchvision resnet18": (torchvision.models.resnet18, "fc", "layer4", 6),
    "torchvision efficientnet_b0": (torchvision.models.efficientnet_b0, "classifier.1", "features.8", 10),
    "torchvision mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, "classifier.3", "features.12", 14),
    "torchvision vit_b_32": (torchvision.models.vit_b_32, "heads.head", "encoder.layers.encoder_layer_11", 14),
    "torchvision convnext_tiny": (torchvision.models.convnext_tiny, "classifier.2", "features.7", 9),
    "timm inception_resnet_v2": (lambda: timm.create_model("inception_resnet_v2"), "classif", "repeat_2", 5),
    "timm vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224"), "head", "blocks.11", 14),
    "timm resnet18": (lambda: timm.create_model("resnet18"), "fc", "layer4", 6),
    "timm efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), "classifier", "blocks.6", 9),
}
each_model = pytest.mark.parametrize("name", MODELS)


def build(name):
    """Without memory for its weights: only names and shapes count here."""
    with torch.device("meta"):
        return MODELS[name][0]().eval()


# ---------------------------------------------------------------- heads


@each_model
def test_the_head_is_found_and_replaced(name):
    model = build(name)
    before = dict(model.named_parameters())
    found, old = get_classifier(model)
    assert found == MODELS[name][1]
    assert replace_head(model, 7) is model
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 7)
    assert get_classifier(model)[0] == found
    assert get_classifier(model)[1].in_features == old.in_features
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[key] is before[key] for key in before if not key.startswith(f"{found}."))
    assert getattr(model, "num_classes", 7) == 7


def test_a_new_head_guesses_and_keeps_dtype_and_spec():
    model = replace_head(create_model("resnet18", 1000).double(), 20)
    assert model.fc.weight.dtype == torch.float64
    assert model.spec["num_classes"] == 20
    loss = F.cross_entropy(model(torch.randn(8, 3, 64, 64, dtype=torch.float64)), torch.arange(8))
    assert loss.item() == pytest.approx(math.log(20), abs=0.3)
    again = create_model(model.spec["name"], model.spec["num_classes"], model.spec["in_channels"], **model.spec["options"])
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2)), "Sequential has no linear classifier .*; its parts: 0"),
        (lambda: torchvision.models.squeezenet1_0(), "SqueezeNet has no linear classifier"),
        (lambda: torchvision.models.googlenet(init_weights=False), r"GoogLeNet has auxiliary heads \(aux1, aux2\)"),
        (lambda: timm.create_model("resnet18", num_classes=0), "ResNet has no linear classifier"),
    ],
)
def test_models_without_one_linear_head_are_refused(model, says):
    with torch.device("meta"):
        model = model()
    with pytest.raises(ValueError, match=says):
        get_classifier(model)


def test_a_head_of_no_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes=0 must be at least 1"):
        replace_head(create_model("simple_cnn"), 0)


@pytest.mark.parametrize("name", ["resnet18", "torchvision efficientnet_b0", "timm vit_tiny"])
def test_a_regression_head_gives_the_shape_of_its_targets(name):
    model = regression_head(build(name))
    for batch in (1, 5):
        assert model(torch.empty(batch, 3, 224, 224, device="meta")).shape == (batch,)
    assert get_classifier(model)[1].out_features == 1


def test_the_loss_of_a_regression_head_is_the_one_by_hand():
    model, images = regression_head(create_model("simple_cnn").eval()), torch.randn(6, 3, 32, 32)
    nn.init.normal_(get_classifier(model)[1].weight)
    targets = torch.randn(6)
    outputs = model(images)
    by_hand = sum((o - t) ** 2 for o, t in zip(outputs.tolist(), targets.tolist(), strict=True)) / 6
    assert F.mse_loss(outputs, targets).item() == pytest.approx(by_hand, rel=1e-5)
    outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# ---------------------------------------------------------------- freezing


def trainable(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@each_model
def test_freezing_leaves_the_head_and_unfreezing_brings_the_rest_back(name):
    model = build(name)
    names, head = [name for name, _ in model.named_parameters()], MODELS[name][1]
    frozen = freeze(model)
    assert trainable(model) == [f"{head}.weight", f"{head}.bias"]
    assert frozen == names[:-2]
    if top := MODELS[name][2]:
        assert unfreeze(model, top) == [n for n in names if n.startswith(f"{top}.")]
        assert set(trainable(model)) == {n for n in names if n.startswith((f"{top}.", f"{head}."))}
    assert unfreeze(model) == names == trainable(model)


def test_a_prefix_is_a_path_of_whole_names():
    model = build("timm vit_tiny")
    block = parameters_under(model, "blocks.1")
    assert len(block) == 12
    assert all(name.startswith("blocks.1.") for name in block)
    assert parameters_under(model, "cls_token") == ["cls_token"]
    freeze(model, until="blocks.10")
    learning = trainable(model)
    assert learning[0].startswith("blocks.10.")
    assert [name for name, p in model.named_parameters() if not p.requires_grad][-1].startswith("blocks.9.")


@given(st.integers(0, 11), st.integers(0, 11))
def test_blocks_frozen_up_to_one_are_those_before_it(until, again):
    model = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Linear(1, 1) for _ in range(12))), "head": nn.Linear(1, 1)})
    if until:
        assert freeze(model, until=f"blocks.{until}") == [f"blocks.{i}.{p}" for i in range(until) for p in ("weight", "bias")]
    unfreeze(model, f"blocks.{again}")
    assert model["blocks"][again].weight.requires_grad
    assert sum(layer.weight.requires_grad for layer in model["blocks"]) == 12 - until + (again < until)


def test_a_prefix_that_matches_nothing_is_an_error():
    model = build("timm vit_tiny")
    for prefix in ("layer1", "block", "blocks.12", "blocks.1.attention", ""):
        for function in (lambda prefix=prefix: freeze(model, until=prefix), lambda prefix=prefix: unfreeze(model, prefix)):
            with pytest.raises(ValueError, match=rf"lies under '{prefix}'; its parts: patch_embed, .*head"):
                function()
    with pytest.raises(ValueError, match="until='cls_token' is the first part of the model"):
        freeze(model, until="cls_token")
    assert len(trainable(model)) == len(list(model.parameters()))


def bn_statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images, labels = 3 * torch.randn(12, 3, 32, 32, generator=generator) + 2, torch.arange(12) % 3
    return make_loader(torch.utils.data.TensorDataset(images, labels), 4)


@pytest.mark.parametrize("with_trainer", [False, True])
def test_statistics_of_frozen_batch_norms_do_not_move_and_others_do(with_trainer, data):
    model = create_model("mobilenet_v3_small", 3)
    freeze(model, until="features.12")
    before, weights = bn_statistics(model), {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    if with_trainer:
        config = TrainerConfig(epochs=1, restore_best=False)
        Trainer(model, optimizer, F.cross_entropy, config=config, device="cpu").fit(data, data)
    else:
        train_one_epoch(model, data, F.cross_entropy, optimizer)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) is not name.startswith("features.12."), name
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]) is not parameter.requires_grad, name


def test_a_batch_norm_with_one_learning_parameter_trains():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, affine=False), nn.Dropout())
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    set_training_mode(model.eval())
    assert [module.training for module in model] == [False, True, True, True]


# ---------------------------------------------------------------- layer-wise rates


@each_model
def test_layerwise_groups_hold_every_parameter_once(name):
    model = build(name)
    freeze(model)
    groups = layerwise_param_groups(model, 0.1, 0.5)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert len(groups) == (MODELS[name][3] or len(groups)) >= 4
    assert [group["lr"] for group in groups] == [0.1 * 0.5**i for i in range(len(groups))][::-1]
    head = model.get_submodule(MODELS[name][1])
    assert {id(head.weight), id(head.bias)} <= {id(parameter) for parameter in groups[-1]["params"]}
    assert id(next(model.parameters())) in {id(parameter) for parameter in groups[0]["params"]}
    torch.optim.AdamW(groups)


def test_layers_follow_the_network_from_the_stem_to_the_head():
    layers = layers_in_order(create_model("resnet18"))
    assert layers[0] == ["conv1.weight", "bn1.weight", "bn1.bias"]  # P11: the 9,536 parameters that a list would forget
    assert [names[0].split(".")[0] for names in layers] == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    stem = layerwise_param_groups(create_model("resnet18"), 0.1, 0.5)[0]
    assert sum(parameter.numel() for parameter in stem["params"]) == 9536
    vit = layers_in_order(create_model("vit_tiny_patch16"))
    assert {"cls_token", "pos_embed"} <= set(vit[0])
    assert set(vit[-1]) == {"head.weight", "head.bias"}
    assert count_parameters(create_model("resnet18")) == sum(p.numel() for p in create_model("resnet18").parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [((0.0, 0.5), "base_lr=0.0 must be positive"), ((0.1, 0.0), "decay=0.0 must lie"), ((0.1, 1.5), "decay=1.5 must lie")],
)
def test_rates_that_make_no_sense_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        layerwise_param_groups(create_model("simple_cnn"), *options)


# ---------------------------------------------------------------- gradual unfreezing


def small_model():
    """Three stages with batch norm and a head, for the images (1, 6, 6) of `Points`."""
    torch.manual_seed(0)
    stage = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())  # noqa: E731
    body = OrderedDict(layer1=stage(1, 4), layer2=stage(4, 4), layer3=stage(4, 4), flatten=nn.Flatten(), head=nn.Linear(144, 2))
    return nn.Sequential(body)


class Watch(Callback):
    """Which parts moved in each epoch."""

    def __init__(self, model):
        self.moved, self.last = [], {}
        self.model = model

    def on_fit_start(self, trainer):
        self.last = self.state()

    def on_epoch_end(self, trainer, record):
        now = self.state()
        self.moved.append(sorted({key.split(".")[0] for key in now if not torch.equal(now[key], self.last[key])}))
        self.last = now

    def state(self):
        return {key: tensor.clone() for key, tensor in self.model.state_dict().items()}


def unfreezing_run(folder=None, *extra, epochs=6, schedule=True, all_parameters=False):
    model = small_model()
    parameters = layerwise_param_groups(model, 0.05, 0.5) if all_parameters else model.head.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    unfreezing = GradualUnfreezing(model, optimizer, ["layer3", "layer2"], every=2, lr=0.01)
    scheduler = make_scheduler("warmup_cosine", optimizer, warmup_steps=2, total_steps=6 * epochs) if schedule else None
    config = TrainerConfig(epochs=epochs, checkpoint_dir=folder, restore_best=False)
    watch = Watch(model)
    return Trainer(model, optimizer, F.cross_entropy, scheduler, config=config, callbacks=[watch, unfreezing, *extra], device="cpu"), watch


def points():
    return make_loader(Points(), 8, train=True), make_loader(Points(16, seed=1), 16)


@pytest.mark.parametrize("all_parameters", [False, True])
def test_parts_begin_to_move_at_their_epochs(all_parameters):
    trainer, watch = unfreezing_run(all_parameters=all_parameters)
    trainer.fit(*points())
    assert watch.moved == [["head"]] * 2 + [["head", "layer3"]] * 2 + [["head", "layer2", "layer3"]] * 2
    groups = trainer.optimizer.param_groups
    if not all_parameters:
        assert [group.get("name") for group in groups] == [None, "layer3", "layer2"]
        assert [group["initial_lr"] for group in groups] == [0.05, 0.01, 0.01]


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.state.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [3, 12, 15, 27, 33])
def test_a_resumed_run_unfreezes_as_the_whole_one_did(step, tmp_path):
    whole, _ = unfreezing_run()
    whole.fit(*points())
    first, _ = unfreezing_run(tmp_path, StopAt(step))
    assert first.fit(*points()).interrupted
    second, _ = unfreezing_run(tmp_path)
    second.resume(tmp_path / "last.pt").fit(*points())
    assert_same_weights(second.model, whole.model)
    assert str(second.optimizer.state_dict()) == str(whole.optimizer.state_dict())
    assert second.history.epochs == whole.history.epochs
    assert trainable(second.model) == trainable(whole.model)


def test_made_after_the_scheduler_it_complains():
    model = small_model()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    scheduler = make_scheduler("cosine", optimizer, total_steps=36)
    unfreezing = GradualUnfreezing(model, optimizer, ["layer3"], lr=0.1)
    trainer = Trainer(model, optimizer, F.cross_entropy, scheduler, config=TrainerConfig(epochs=6), callbacks=[unfreezing], device="cpu")
    with pytest.raises(ValueError, match="make GradualUnfreezing before the scheduler"):
        trainer.fit(*points())


@pytest.mark.parametrize(
    ("held", "stages", "every", "says"),
    [
        ("layer3", ["layer2"], 1, "does not hold the head, head"),
        ("head", ["layer9"], 1, "lies under 'layer9'"),
        ("head", ["layer3", "layer3.0"], 1, "names layer3.0.bias twice"),
        ("head", ["layer3"], 0, "every=0 must be at least 1 epoch"),
    ],
)
def test_what_cannot_be_unfrozen_is_refused(held, stages, every, says):
    model = small_model()
    optimizer = torch.optim.SGD(model.get_submodule(held).parameters(), lr=0.1)
    with pytest.raises(ValueError, match=says):
        GradualUnfreezing(model, optimizer, stages, every=every, lr=0.1)
