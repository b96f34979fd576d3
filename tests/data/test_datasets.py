"""The data sets by name: what they hold, how they are split, and what a wrong name, file or folder gets."""

import gzip
import importlib.util
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets as torchvision_datasets

from dlcourse.data import ImageArrays, load_dataset
from dlcourse.data import datasets as module

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SIZES = {"train": 5400, "val": 600, "test": 1000}


@pytest.fixture(scope="module")
def mini():
    return {split: load_dataset("fashion-mini", split) for split in SIZES}


@pytest.mark.parametrize("split", SIZES)
def test_fashion_mini_has_its_published_sizes_and_is_balanced(mini, split):
    data = mini[split]
    assert len(data) == SIZES[split] == len(data.targets)
    assert np.bincount(data.targets).tolist() == [SIZES[split] // 10] * 10
    assert data.classes[0] == "T-shirt/top"
    assert data.classes[9] == "Ankle boot"


def test_an_item_is_float_rgb_of_32_pixels_and_a_plain_int(mini):
    image, label = mini["train"][7]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert type(label) is int
    assert label == mini["train"].targets[7]
    assert torch.equal(image[0], image[2])
    assert image.max() > 0.5
    assert image.max() <= 1
    frame = image.clone()
    frame[:, 2:30, 2:30] = 0
    assert frame.sum() == 0  # 28 pixels, two of zeros on each side


def test_the_middle_of_an_image_is_the_embedded_one(mini):
    with np.load(ROOT / "assets/fashion_mini/fashion_mini.npz") as arrays:
        want, labels = arrays["test_images"], arrays["test_labels"]
    assert np.array_equal(mini["test"].images[:, 1, 2:30, 2:30].numpy(), want)
    assert mini["test"].targets == labels.tolist()


def test_train_and_val_are_the_training_set_and_share_no_image(mini):
    with np.load(ROOT / "assets/fashion_mini/fashion_mini.npz") as arrays:
        whole = sorted(image.tobytes() for image in arrays["train_images"])
    parts = [image[0, 2:30, 2:30].numpy().tobytes() for s in ("train", "val") for image in mini[s].images]
    assert sorted(parts) == whole


def test_the_validation_split_is_always_the_same(mini):
    again = load_dataset("fashion-mini", "val")
    assert torch.equal(again.images, mini["val"].images)
    assert mini["val"].targets[:12] == [5, 5, 4, 1, 9, 9, 9, 7, 0, 2, 7, 8]


def test_a_transform_gets_a_uint8_tensor_of_its_own():
    seen = []

    def spoil(image):
        seen.append((image.dtype, tuple(image.shape)))
        return image.fill_(9)

    data = load_dataset("fashion-mini", "val", spoil)
    before = data.images.clone()
    assert data[3][0].unique().tolist() == [9]
    assert seen == [(torch.uint8, (3, 32, 32))]
    assert torch.equal(data.images, before)


@pytest.mark.parametrize(
    ("name", "split", "says"),
    [
        ("fashion_mini", "train", "fashion-mini"),
        ("cifar-10", "train", "did you mean 'cifar10'"),
        ("imagenet21k-p", "train", "'fashion-mini' or 'fashion-mnist' or 'cifar10'"),
        ("fashion-mini", "valid", "split='valid' is not one of train, val, test"),
        ("fashion-mini", None, "split=None"),
    ],
)
def test_a_wrong_name_or_split_is_told_what_there_is(name, split, says):
    with pytest.raises(ValueError, match=says):
        load_dataset(name, split)


@pytest.mark.parametrize(
    ("images", "targets", "says"),
    [
        (torch.zeros(2, 3, 4, 4), [0, 1], "needs uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, 1], r"\(N, 3, H, W\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0], "2 images, targets 1"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0, 2], r"\[2\], outside the 2 classes"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [-1, 0], r"\[-1\], outside"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, targets, says):
    with pytest.raises(ValueError, match=says):
        ImageArrays(images, targets, classes=["a", "b"])


# ---------------------------------------------------------------- the embedded file


def load_from(monkeypatch, asset):
    monkeypatch.setattr(module, "_asset", lambda name: asset)
    return load_dataset("fashion-mini", "test")


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_a_damaged_asset_names_the_file_and_both_checksums(monkeypatch, tmp_path, damage):
    content = bytearray((ROOT / "assets/fashion_mini/fashion_mini.npz").read_bytes())
    content[len(content) // 2] ^= 1
    asset = tmp_path / "fashion_mini.npz"
    asset.write_bytes({"one bit": content, "cut short": content[:-1], "empty": b""}[damage])
    with pytest.raises(RuntimeError) as caught:
        load_from(monkeypatch, asset)
    assert str(asset) in str(caught.value)
    assert module.FASHION_MINI_SHA256 in str(caught.value)
    assert len(set(str(caught.value).replace(",", " ").replace(";", " ").split()) & {module.FASHION_MINI_SHA256}) == 1
    assert sum(len(word.strip(",;")) == 64 for word in str(caught.value).split()) == 2


def test_a_missing_asset_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "dlcourse/data/datasets.py"))
    with pytest.raises(FileNotFoundError, match=r"_assets.*nor at.*assets"):
        load_dataset("fashion-mini", "test")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_fashion_mini", ROOT / "assets/make_fashion_mini.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_asset_is_what_its_script_makes(script, tmp_path):
    made = script.make(DEBIAN, tmp_path)
    with np.load(made) as new, np.load(ROOT / "assets/fashion_mini/fashion_mini.npz") as old:
        assert new.files == old.files
        for name in new.files:  # the arrays, not the bytes: another zlib may pack them otherwise
            assert np.array_equal(new[name], old[name])


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_the_script_draws_every_class_equally_and_writes_the_same_bytes_twice(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PER_CLASS", {"train": 6, "test": 1})
    random = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        labels = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), 9))
        images = random.integers(0, 256, (90, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
    first, second = (script.make(tmp_path, tmp_path / out).read_bytes() for out in ("a", "b"))
    assert first == second
    with np.load(tmp_path / "a/fashion_mini.npz") as arrays:
        assert np.bincount(arrays["train_labels"]).tolist() == [6] * 10
        assert np.bincount(arrays["test_labels"]).tolist() == [1] * 10
        assert np.array_equal(arrays["train_images"][:, 0, 0], arrays["train_labels"])  # image and label stay together
        assert len(np.unique(arrays["train_images"], axis=0)) == 60


def test_the_script_refuses_another_format(script, tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01abcd"))
    with pytest.raises(ValueError, match="not an IDX file"):
        script.read_idx(tmp_path / "x.gz")


def test_a_wheel_carries_the_asset_and_its_licence(tmp_path):
    """Lay the package out as the wheel does and load it from there, in a process that knows nothing of the checkout."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "dlcourse", site / "dlcourse", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "assets/fashion_mini", site / "dlcourse/_assets/fashion_mini")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import dlcourse.data as d; "
        "print(d.__file__, len(d.load_dataset('fashion-mini', 'test')))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(site / "dlcourse/data/__init__.py"), "1000"]


def test_pyproject_puts_the_asset_into_the_wheel():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"assets/fashion_mini": "dlcourse/_assets/fashion_mini"}
    assert "arXiv:1708.07747" in (ROOT / "assets/fashion_mini/LICENSE").read_text()
    assert not zipfile.ZipFile(ROOT / "assets/fashion_mini/fashion_mini.npz").testzip()


# ---------------------------------------------------------------- through torchvision


def write_cifar(root, monkeypatch, per_batch=20):
    """A tiny CIFAR-10 in the official layout; the checksums that torchvision wants are switched off."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = [name for name, _ in torchvision_datasets.CIFAR10.train_list]
    tests = [name for name, _ in torchvision_datasets.CIFAR10.test_list]
    for number, name in enumerate(names + tests):
        data = np.zeros((per_batch, 3, 32, 32), np.uint8)
        data[:, 0], data[:, 1], data[:, 2] = 10 + number, 100, 200
        data[:, :, 0, 31] = 7
        labels = [i % 10 for i in range(per_batch)]
        (base / name).write_bytes(pickle.dumps({"data": data.reshape(per_batch, -1), "labels": labels}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "train_list", [[name, None] for name in names])
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "test_list", [[name, None] for name in tests])
    monkeypatch.setattr(
        torchvision_datasets.CIFAR10, "meta", {**torchvision_datasets.CIFAR10.meta, "md5": None}
    )


def test_cifar10_comes_channels_first_and_with_its_class_names(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    train, val, test = (load_dataset("cifar10", split, root=tmp_path) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (90, 10, 20)
    assert train.classes[3] == "class 3"
    assert sorted(val.targets) == list(range(10))
    image = test.images[0]
    assert image[:, 5, 5].tolist() == [15, 100, 200]
    assert image[:, 0, 31].tolist() == [7, 7, 7]
    assert image[:, 31, 0].tolist() == [15, 100, 200]


def write_fashion(root, count=40):
    raw = root / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        images = np.full((count, 28, 28), 50, np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())


def test_fashion_mnist_is_padded_like_the_embedded_one_and_found_by_the_variable(tmp_path, monkeypatch):
    write_fashion(tmp_path)
    monkeypatch.setenv("DLCOURSE_DATA", str(tmp_path))
    train, val = load_dataset("fashion-mnist", "train"), load_dataset("fashion-mnist", "val")
    assert (len(train), len(val)) == (30, 10)
    assert train.classes == list(module.FASHION_CLASSES)
    assert train.images[0].sum().item() == 3 * 28 * 28 * 50


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_missing_files_name_the_ways_out(tmp_path, monkeypatch, name):
    monkeypatch.setenv("DLCOURSE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset(name, "train")
    for part in (str(tmp_path / "nowhere"), "download=True", "root=", "DLCOURSE_DATA"):
        assert part in str(caught.value)


def test_root_goes_before_the_variable_and_data_is_the_last_resort(tmp_path, monkeypatch):
    write_fashion(tmp_path / "here")
    monkeypatch.setenv("DLCOURSE_DATA", str(tmp_path / "nowhere"))
    assert len(load_dataset("fashion-mnist", "test", root=tmp_path / "here")) == 40
    monkeypatch.delenv("DLCOURSE_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "data")):
        load_dataset("fashion-mnist", "test")


def test_a_download_that_fails_says_so(tmp_path, monkeypatch):
    def offline(self):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision_datasets.FashionMNIST, "download", offline)
    with pytest.raises(OSError, match=r"could not be downloaded to .*no route to host"):
        load_dataset("fashion-mnist", "test", root=tmp_path, download=True)
