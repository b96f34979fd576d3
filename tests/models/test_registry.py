"""Models by name, and what every registered model must do."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from zoo import build, each_model, images

from dlcourse.models import count_macs, count_parameters, create_model, list_models, registry
from dlcourse.models.registry import register_model


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_factories", {})


@each_model
def test_every_parameter_gets_a_finite_gradient(name):
    model = build(name, num_classes=42)
    logits = model(images(name))
    assert logits.shape == (2, 42)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([3, 41])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@each_model
def test_a_batch_of_one_in_eval_is_as_in_a_batch_of_two(name):
    model, x = build(name).double().eval(), images(name, dtype=torch.float64)
    with torch.no_grad():
        assert_close(model(x[:1]), model(x)[:1])


@each_model
def test_an_empty_batch_gives_no_logits_in_eval_and_harms_nothing_in_training(name):
    model = build(name)
    before = copy.deepcopy(model.state_dict())
    empty = images(name)[:0]
    with torch.no_grad():
        assert model.eval()(empty).shape == (0, 10)
    with pytest.raises(ValueError, match="empty batch"):
        model.train()(empty)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@each_model
def test_it_takes_other_channels_and_refuses_images_that_are_none(name):
    model = build(name, in_channels=1).eval()
    with torch.no_grad():
        assert model(images(name, channels=1)).shape == (2, 10)
    for wrong in (images(name), images(name)[0], images(name, channels=1).to(torch.uint8)):
        with pytest.raises(ValueError, match="takes"):
            model(wrong)


@each_model
def test_spec_and_state_dict_rebuild_the_model_and_deepcopy_copies_it(name):
    model = build(name, num_classes=5).eval()
    spec = copy.deepcopy(model.spec)
    again = create_model(spec["name"], spec["num_classes"], spec["in_channels"], **spec["options"]).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        assert_close(again(images(name)), model(images(name)))
        assert_close(twin(images(name)), model(images(name)))
        next(twin.parameters()).zero_()
    assert next(model.parameters()).any()
    assert twin.spec == model.spec


@each_model
def test_a_checkpoint_on_disk_brings_it_back(name, tmp_path):
    model = build(name, num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = build(name, num_classes=5).eval()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
        again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
        assert torch.equal(again(images(name)), model(images(name)))


@each_model
def test_no_layer_works_in_place(name):
    """In-place activations break full backward hooks, which the diagnostics use."""
    model = build(name)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    forward, backward = set(), set()
    for key, module in model.named_modules():
        module.register_forward_hook(lambda *_, key=key: forward.add(key))
        module.register_full_backward_hook(lambda *_, key=key: backward.add(key))
    model(images(name).requires_grad_()).sum().backward()
    assert backward == forward


def test_spec_is_plain_and_holds_what_was_asked():
    spec = create_model("simple_cnn", 7, 1, dropout=0.25).spec
    assert spec == {"name": "simple_cnn", "num_classes": 7, "in_channels": 1, "options": {"dropout": 0.25}}


def test_list_models_sorts_and_filters():
    assert list_models() == sorted(list_models())
    assert "simple_cnn" in list_models("simple*")
    assert list_models("no such *") == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simple_cn", {}, "there is no model 'simple_cn'; did you mean 'simple_cnn'"),
        ("SimpleCNN", {}, "there is no model 'SimpleCNN'; did you mean 'simple_cnn'"),
        ("SIMPLE_CNN", {}, "there is no model 'SIMPLE_CNN'; did you mean 'simple_cnn'"),
        ("zzz", {}, "there is no model 'zzz'; choose one of .*simple_cnn"),
        ("simple_cnn", {"dropuot": 0.1}, "simple_cnn has no option 'dropuot'; did you mean 'dropout'"),
        ("simple_cnn", {"stem": "cifar"}, "simple_cnn has no option 'stem'; choose one of dropout"),
        ("resnet5", {}, "there is no model 'resnet5'; did you mean 'resnet50'"),
        ("vit_tiny", {}, "there is no model 'vit_tiny'; did you mean 'vit_tiny_patch16'"),
        ("resnet18", {"stem": "cifar10"}, "stem='cifar10' is unknown; choose one of imagenet, cifar"),
        ("vit_tiny_patch16", {"image_size": 64}, "vit_tiny_patch16 has no option 'image_size'; did you mean 'img_size'"),
        ("simple_cnn", {"num_classes": 0}, "num_classes=0 must be at least 1"),
        ("simple_cnn", {"in_channels": -1}, "in_channels=-1 must be at least 1"),
    ],
)
def test_what_is_unknown_is_named_with_what_is_near(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


def test_a_factory_registers_once_and_under_its_name(own_registry):
    def tiny(num_classes=3, in_channels=3):
        return nn.Conv2d(in_channels, num_classes, 1)

    assert register_model(tiny) is tiny
    assert create_model("tiny", 4).weight.shape == (4, 3, 1, 1)
    with pytest.raises(ValueError, match="'tiny' is registered already"):
        register_model(tiny)
    with pytest.raises(ValueError, match="tiny has no option 'width'; it has none"):
        create_model("tiny", width=2)


def test_a_factory_must_name_its_options(own_registry):
    def loose(num_classes=3, in_channels=3, **options):
        return nn.Identity()

    def reordered(in_channels=3, num_classes=3):
        return nn.Identity()

    for factory in (loose, reordered):
        with pytest.raises(ValueError, match=f"{factory.__name__} must be declared as"):
            register_model(factory)
    assert list_models() == []


def test_count_parameters_counts_shared_ones_once_and_frozen_ones_on_request():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert count_parameters(model) == 20 + 20 + 8
    model[1].weight = model[0].weight
    assert count_parameters(model) == 20 + 4 + 8
    model[0].requires_grad_(False)
    assert count_parameters(model) == 20 + 4 + 8
    assert count_parameters(model, trainable_only=True) == 4 + 8


def test_count_macs_counts_convolutions_and_matrix_products_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    assert count_macs(model, (3, 8, 8)) == 8 * 3 * 9 * 64 + 8 * 64 * 5
    assert count_macs(model.double().eval(), (3, 8, 8)) == 8 * 3 * 9 * 64 + 8 * 64 * 5
    assert count_macs(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), (4, 5, 5)) == 4 * 9 * 9


def test_count_macs_leaves_the_model_alone():
    model = build("resnet18")
    before = copy.deepcopy(model.state_dict())
    count_macs(model, (3, 32, 32))
    assert model.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
