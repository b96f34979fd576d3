"""What quantisation costs and gains: accuracy, bytes and latency of one trained network as torch, ONNX and int8 ONNX.

    python tests/deployment/int8.py [--cache FOLDER] [--models simple_cnn resnet18] [--epochs 4] [--rounds 15]

Trains each network on fashion-mini (or takes it from the cache), exports it, quantises it with 256 training images, and
answers the 1,000 test images. Latency: one thread, one image at a time, the same images for all, in rounds in which the
three take turns; the median of a call and the quartiles over the rounds. Goals: at most 1 point of accuracy lost, at
most 30 % of the bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import dlcourse
from dlcourse.data import eval_transform, load_dataset, make_loader
from dlcourse.deployment.backends import OnnxBackend, TorchBackend
from dlcourse.deployment.card import ModelCard
from dlcourse.deployment.export import export_onnx, file_size
from dlcourse.deployment.quantize import quantize_dynamic, quantize_static
from dlcourse.models import create_model
from dlcourse.training import load_checkpoint, load_weights, save_checkpoint, train_one_epoch

OPTIONS = {"vit_tiny_patch16": {"img_size": 32, "patch_size": 8}}


def data(split):
    """All images of a split, prepared, and their labels."""
    dataset = load_dataset("fashion-mini", split, eval_transform(32))
    return torch.stack([image for image, _ in dataset]), torch.tensor(dataset.targets), dataset.classes


def trained(name, epochs, cache, seed=0):
    """The network, trained on fashion-mini with a rate that falls to a twentieth, or as the cache has it."""
    dlcourse.seed_everything(seed)
    model = create_model(name, 10, **OPTIONS.get(name, {}))
    path = cache and Path(cache, f"{name}-{epochs}-{seed}.pt")
    if path and path.exists():
        load_weights(model, load_checkpoint(path)["model"])
        return model.eval()
    images, labels, _ = data("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    loader = make_loader(torch.utils.data.TensorDataset(images, labels), 64, train=True, seed=seed)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=epochs)
    for epoch in range(1, epochs + 1):
        train_one_epoch(model, loader, F.cross_entropy, optimizer, epoch=epoch)
        schedule.step()
    if path:
        save_checkpoint(path, model)
    return model.eval()


def accuracy(backend, images, labels):
    """The share of right answers, 100 images at a time."""
    answers = np.concatenate([backend(images[start : start + 100]) for start in range(0, len(images), 100)])
    return float((answers.argmax(1) == labels).mean())


def milliseconds(backends, images, rounds):
    """For each backend the median milliseconds of one image in each round; in a round they take turns, image by image."""
    for backend in backends.values():
        for image in images[:5]:
            backend(image[None])
    medians = {name: [] for name in backends}
    for _ in range(rounds):
        times = {name: [] for name in backends}
        for image in images:
            for name, backend in backends.items():
                started = time.perf_counter()
                backend(image[None])
                times[name].append(1000 * (time.perf_counter() - started))
        for name in backends:
            medians[name].append(float(np.median(times[name])))
    return medians


def measure(name, epochs, cache, rounds, folder):
    """Rows of the table for one network: (what, accuracy, bytes, share of the bytes, [milliseconds])."""
    model = trained(name, epochs, cache)
    train_images, _, classes = data("train")
    images, labels, _ = data("test")
    images, labels = images.numpy(), labels.numpy()
    card = ModelCard(classes, eval_transform(32), name=name)
    files = {"ONNX float32": export_onnx(model, folder / f"{name}.onnx", card)}
    files["ONNX int8 static"] = quantize_static(files["ONNX float32"], folder / f"{name}.int8.onnx", train_images[:256])
    if name.startswith(("vit", "simple")):
        files["ONNX int8 dynamic"] = quantize_dynamic(files["ONNX float32"], folder / f"{name}.dynamic.onnx")
    backends = {"torch eager": TorchBackend(model)} | {key: OnnxBackend(path, threads=1) for key, path in files.items()}
    times = milliseconds(backends, images[:40], rounds)
    whole = file_size(files["ONNX float32"])
    return [
        (key, accuracy(backend, images, labels), file_size(files[key]) if key in files else None, whole, times[key])
        for key, backend in backends.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", help="a folder that keeps the trained weights")
    parser.add_argument("--models", nargs="+", default=["simple_cnn", "resnet18"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print(f"{'network':18}{'what':18}{'accuracy':>10}{'bytes':>13}{'share':>8}{'ms/image':>10}  quartiles  against float32 ONNX")
    met = True
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            rows = measure(name, arguments.epochs, arguments.cache, arguments.rounds, Path(folder))
            torch.set_num_threads(1)
            reference = np.median(rows[1][4])
            for what, share, size, whole, times in rows:
                low, middle, high = np.percentile(times, (25, 50, 75))
                bytes_text = f"{size:>13,}{size / whole:>8.1%}" if size else " " * 21
                print(f"{name:18}{what:18}{share:>10.1%}{bytes_text}{middle:>10.3f}  {low:.3f}–{high:.3f}  {reference / middle:.2f}x")
            static = next(row for row in rows if row[0] == "ONNX int8 static")
            lost, share = rows[1][1] - static[1], static[2] / static[3]
            met &= lost <= 0.01 and share <= 0.3
            print(f"{name:18}lost {100 * lost:.1f} points (goal: at most 1), {share:.1%} of the bytes (goal: at most 30 %)", flush=True)
    print("goals met" if met else "GOALS NOT MET")


if __name__ == "__main__":
    main()
