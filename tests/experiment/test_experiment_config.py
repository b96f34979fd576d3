"""A config is read strictly: each mistake is an error that names the key and the nearest known one."""

import dataclasses
import inspect

import pytest
import yaml

from dlcourse.experiment import ConfigError, Experiment, ModelConfig, OptimizerConfig, load_config
from dlcourse.experiment.parser import field_texts
from dlcourse.experiment.reading import find_config, known_keys, nearest_key, packaged, read_yaml


def read(tmp_path, text, flags=()):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, flags)


def test_nothing_given_gives_the_defaults():
    assert load_config() == Experiment()


def test_flags_change_the_values_of_a_config_wherever_config_stands(tmp_path):
    (tmp_path / "a.yaml").write_text("optimizer: {name: sgd, lr: 1e-2}\nmodel: {options: {dropout: 1e-1}}\n")
    flags = ["--optimizer.lr", "1e-4", "--training.epochs=3"]
    found = load_config(tmp_path / "a.yaml", flags)
    assert (found.optimizer.name, found.optimizer.lr, found.training.epochs) == ("sgd", 1e-4, 3)
    assert found.model.options == {"dropout": 0.1}
    assert load_config(None, [*flags, "--config", str(tmp_path / "a.yaml")]) == found


def test_numbers_and_words_are_read_as_yaml_1_2_reads_them():
    text = "{a: 1e-4, b: 6E3, c: .5, d: -1.5e+3, e: off, f: no, g: 010, h: 2026-01-02, i: 1_000, j: 12:30, k: 0, l: ~, m: true}"
    assert read_yaml(text) == {
        "a": 1e-4, "b": 6e3, "c": 0.5, "d": -1500.0, "e": "off", "f": "no", "g": "010", "h": "2026-01-02",
        "i": "1_000", "j": "12:30", "k": 0, "l": None, "m": True,
    }  # fmt: skip


def test_amp_off_is_the_word(tmp_path):
    assert read(tmp_path, "training: {amp: off}").training.amp == "off"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer:\n  learning_rate: 0.1", r"run.yaml, line 2: there is no optimizer.learning_rate; did you mean optimizer.lr\?"),
        ("optimiser: {lr: 0.1}", r"there is no optimiser; did you mean optimizer\?"),
        ("lr: 0.1", r"there is no lr; did you mean optimizer.lr\?"),
        ("warmup: 0.1", r"there is no warmup; did you mean schedule.warmup\?"),
        ("batchsize: 3", r"there is no batchsize; did you mean batch_size\?"),
        ("config: other.yaml", "there is no config;"),
        ("optimizer.lr: 0.1", r"there is no optimizer.lr; did you mean optimizer.lr\?"),
        ("seed: 0\nseed: 1", r"line 2: seed stands twice \(first in line 1\)"),
        ("optimizer:\n  lr: 1\n  lr: 2", r"line 3: optimizer.lr stands twice \(first in line 2\)"),
        ("optimizer: {lr: 1}\noptimizer: {name: sgd}", "line 2: optimizer stands twice"),
        ("model: {options: {dropout: 0.1, dropout: 0.2}}", "model.options.dropout stands twice"),
        ("optimizer: 3", r"line 1: optimizer must be keys with values \(name, lr"),
        ("optimizer:", "optimizer must be keys with values"),
        ("- 1", "the config must be keys with values"),
        ("{", "run.yaml, line 1 is not YAML"),
        ("a: !!python/object:os.system x", "there is no a"),
        ("data: !!python/name:os.system x", "is not YAML: could not determine a constructor"),
        ("? [1]\n: 2", "line 1: a key must be a name"),
        ("optimizer: {lr: fast}", r"^optimizer.lr: 'fast' is not a number$"),
        ("optimizer: {name: adamv}", r"^optimizer.name: 'adamv' is not one of sgd, adam, adamw; did you mean 'adam"),
        ("batch_size: 3.5", r"^batch_size: '3.5' is not a whole number$"),
        ("image_size: big", r"^image_size: 'big' is not a whole number or null$"),
        ("training: {channels_last: maybe}", r"^training.channels_last: 'maybe' is not true or false$"),
        ("data: [1]", r"^data: '\[1\]' is not text$"),
        ("model: {options: 3}", r"^model.options: '3' is not a mapping$"),
    ],
)
def test_a_config_that_is_not_understood_is_an_error(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer: {momentum: 0.9}", "optimizer.momentum=0.9 is not used: adamw has none, sgd has"),
        ("schedule: {warmup: 0.1}", "schedule.warmup=0.1 is not used: constant has none, warmup_cosine and one_cycle have"),
        ("schedule: {name: cosine, warmup: 0.1}", "is not used: cosine has none"),
        ("loss: focal\nlabel_smoothing: 0.1", "label_smoothing=0.1 is not used: cross_entropy has it, focal not"),
        ("model: {options: {dropuot: 0.1}}", r"simple_cnn has no option 'dropuot'; did you mean 'dropout'\?"),
        ("model: {name: resnet18, pretrained: true, options: {stem: cifar}}", "model.options=.* is not used"),
        ("model: {name: vit_tiny_patch16, options: {img_size: 64}}", "img_size=64 but image_size=32: give image_size"),
    ],
)
def test_a_value_that_nothing_reads_is_an_error(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: {name: simple_cn}", r"there is no model 'simple_cn'; did you mean 'simple_cnn'\?"),
        ("model: {name: efficientnet_lite0}", "exists with its trained weights only: set model.pretrained to true"),
        ("optimizer: {lr: 0}", "optimizer.lr=0 must be above 0"),
        ("optimizer: {lr: .nan}", "optimizer.lr=nan must be above 0"),
        ("optimizer: {name: sgd, momentum: 1.5}", "momentum=1.5 must be at least 0 and at most 1"),
        ("optimizer: {weight_decay: -1}", "optimizer.weight_decay=-1 must be at least 0"),
        ("optimizer: {layer_decay: 0}", "layer_decay=0 must be above 0 and at most 1"),
        ("schedule: {name: one_cycle, warmup: 1}", "warmup=1 must be at least 0 and at most 0.9"),
        ("training: {epochs: 0}", "training.epochs=0 must be a whole number of at least 1"),
        ("training: {patience: 0}", "training.patience=0 must be"),
        ("training: {ema: 2}", "training.ema=2.0 must lie between 0 and 1"),
        ("batch_size: 0", "batch_size=0 must be at least 1"),
        ("image_size: 1", "image_size=1 must be at least 2"),
        ("seed: -1", "seed=-1 must be at least 0"),
        ("name: a/b", "name='a/b' must be usable as a folder"),
        ("name: ..", "must be usable as a folder"),
        ("label_smoothing: 1", "label_smoothing=1 must be at least 0 and at most 0.99"),
    ],
)
def test_a_value_out_of_range_is_an_error(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--optimiser.lr", "3"], r"^there is no --optimiser.lr; did you mean --optimizer.lr\?$"),
        (["--optimiser.lr=3"], r"did you mean --optimizer.lr\?"),
        (["--epochs", "3"], r"there is no --epochs; did you mean --training.epochs\?"),
        (["--batch", "3"], r"there is no --batch; did you mean --batch_size\?"),  # no abbreviations
        (["--seed", "1", "--seed=2"], "--seed is given twice"),
        (["--optimizer", "{lr: 3}"], "--optimizer is a group of values: give --optimizer.name, --optimizer.lr"),
        (["--model.options", "{dropout: 0.1, dropout: 0.2}"], "--model.options, line 1: dropout stands twice"),
        (["--model.options.dropuot", "0.1"], r"did you mean 'dropout'\?"),
        (["--seed"], "--seed: expected one argument"),
        (["fashion-mini"], "what is 'fashion-mini'"),
        (["--config", "fashion-mimi"], r"there is no config 'fashion-mimi'; did you mean 'fashion-mini'\?"),
        (["--config", "no/such.yaml"], "there is no config file no/such.yaml"),
    ],
)
def test_a_flag_that_is_not_understood_is_an_error(flags, says):
    with pytest.raises(ConfigError, match=says):
        load_config(None, flags)


def test_a_config_that_refers_to_itself_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="is not YAML"):
        read(tmp_path, "model: {options: &a {b: *a}}")


def test_a_file_that_is_no_text_is_an_error(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


@pytest.mark.parametrize("name", packaged())
def test_each_packaged_config_is_read_and_bears_its_name(name):
    assert load_config(name).name == name
    assert find_config(name).read_text().startswith("#")


def test_there_is_a_packaged_config_for_each_data_set():
    from dlcourse.data.datasets import DATASETS

    assert {*DATASETS, "clothing-small"} == set(packaged())


@pytest.mark.parametrize("name", packaged())
def test_an_experiment_written_as_yaml_is_read_as_the_same(name, tmp_path):
    experiment = load_config(name, ["--optimizer.lr", "1e-5"])
    assert read(tmp_path, experiment.to_yaml()) == experiment
    assert yaml.safe_load(experiment.to_yaml())["optimizer"]["lr"] == 1e-5  # other readers take it for a number too


def test_an_experiment_is_frozen_and_checks_itself_however_it_is_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().seed = 3
    with pytest.raises(ConfigError, match="momentum"):
        OptimizerConfig(momentum=0.5)
    with pytest.raises(ConfigError, match="no option"):
        ModelConfig("resnet18", options={"dropout": 1})


def test_the_nearest_key_is_that_of_the_whole_or_of_the_last_part():
    assert nearest_key("optimizr.lr") == "optimizer.lr"
    assert nearest_key("model.momentum") == "optimizer.momentum"
    assert nearest_key("traning") == "training"
    assert len(dict(known_keys())) == len(list(known_keys())) > 25


def test_texts_under_fields_are_found():
    assert field_texts(OptimizerConfig)["momentum"] == "Of sgd (0.9 when it is not given)."
    assert "lr" in inspect.signature(OptimizerConfig).parameters
