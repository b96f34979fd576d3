"""Models by name, and what every registered model must do."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dlcourse.models import create_model, list_models, registry
from dlcourse.models.registry import count_parameters, register_model

SIZES: dict[str, int] = {}  # the input side of a model that 32 pixels are too few for


def images(name, batch=2):
    torch.manual_seed(0)
    return torch.randn(batch, 3, SIZES.get(name, 32), SIZES.get(name, 32))


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_factories", {})


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_gets_a_finite_gradient(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=42)
    logits = model(images(name))
    assert logits.shape == (2, 42)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([3, 41])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", list_models())
def test_a_batch_of_one_in_eval_is_as_in_a_batch_of_two(name):
    model = create_model(name, num_classes=10).eval()
    with torch.no_grad():
        assert_close(model(images(name)[:1]), model(images(name))[:1])


@pytest.mark.parametrize("name", list_models())
def test_spec_and_state_dict_rebuild_the_model_and_deepcopy_copies_it(name):
    model = create_model(name, num_classes=5).eval()
    spec = dict(model.spec)
    again = create_model(spec["name"], spec["num_classes"], spec["in_channels"], **spec["options"]).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        assert_close(again(images(name)), model(images(name)))
        assert_close(twin(images(name)), model(images(name)))
        next(twin.parameters()).zero_()
    assert next(model.parameters()).any()
    assert twin.spec == model.spec


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
