"""Do the exported files answer as their models? Every registered model, the transfer model, and answers over HTTP.

    python tests/deployment/equality.py [--large] [--only PATTERN] [--http]

Each model gets 10 classes and small images (patches · 2 for the ViTs, 64 pixels otherwise), weights that hide nothing
(tests/zoo.py), and is exported; the table has the largest difference of one logit between torch and ONNX Runtime over
random and real images in batches of 1, 2, 7 and 64, that difference divided by the largest logit, and with --http the
largest difference of a probability between torch and the service's answers to as many pictures. The giants
(resnet101 and 152, EfficientNet-B5 to B7, ViT-large and huge) run with --large only; what is left out is named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from zoo import lively, patch_of, settled, without_chance

from dlcourse.data import eval_transform, load_dataset
from dlcourse.deployment import ModelCard, Predictor
from dlcourse.deployment.export import export_onnx, file_size
from dlcourse.deployment.verify import verify_onnx
from dlcourse.models import create_model, list_models, load_pretrained

GIANTS = ("resnet101", "resnet152", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "vit_large*", "vit_huge*")
TRANSFER = "efficientnet_lite0 (transfer)"


def real_images(preprocessing, count=64):
    """Test images of fashion-mini, prepared: float32 (count, 3, size, size)."""
    dataset = load_dataset("fashion-mini", "test", preprocessing)
    return torch.stack([dataset[index][0] for index in range(count)])


def build(name):
    """The model and its preprocessing; no rate of dropout is touched, eval mode sees to that."""
    torch.manual_seed(0)
    if name == TRANSFER:
        return load_pretrained("efficientnet_lite0", num_classes=10)
    size = 2 * patch_of(name) if name.startswith("vit") else 64
    options = {"img_size": size} if name.startswith("vit") else {}
    model = lively(without_chance(create_model(name, num_classes=10, **options)))
    if not name.startswith("vit"):
        model = settled(model, torch.cat([real_images(eval_transform(size), 16), torch.randn(16, 3, size, size)]))
    return model.eval(), eval_transform(size)


def compare(name, folder, http):
    """Export the model and hold the file, and the service if asked, against it: (bytes, Equality, difference over HTTP)."""
    model, preprocessing = build(name)
    card = ModelCard(load_dataset("fashion-mini", "test").classes, preprocessing, name=name)
    path = export_onnx(model, folder / "model.onnx", card)
    equality = verify_onnx(model, path, real_images(preprocessing))
    return file_size(path), equality, over_http(Predictor.of(model, card), Predictor(path)) if http else float("nan")


def over_http(in_torch, exported):
    """The largest difference between torch's probabilities and the service's, for 1, 2, 7 and 64 pictures in a request."""
    import httpx

    from dlcourse.deployment import BackgroundServer, Limits, create_app

    pictures = [picture_bytes(index) for index in range(64)]
    wanted = [answer.probabilities for answer in in_torch.predict(pictures)]
    classes = in_torch.card.classes
    with BackgroundServer(create_app(exported, limits=Limits(files=64, answer_seconds=120))) as server:
        largest = 0.0
        for count in (1, 2, 7, 64):
            files = [("files", (f"{index}.png", pictures[index], "image/png")) for index in range(count)]
            reply = httpx.post(f"{server.url}/predict?top_k=10", files=files, timeout=120).raise_for_status().json()
            for index, prediction in enumerate(reply["predictions"]):
                found = {entry["label"]: entry["probability"] for entry in prediction["top"]}
                largest = max(
                    largest, *(abs(found[label] - p) for label, p in zip(classes, wanted[index], strict=True))
                )
    return largest


def picture_bytes(index):
    """One test image as a PNG file."""
    import io

    from PIL import Image

    image = load_dataset("fashion-mini", "test")[index][0]
    buffer = io.BytesIO()
    Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(buffer, "png")
    return buffer.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="the giants too")
    parser.add_argument("--only", default="*", help="a pattern of names, such as 'resnet*'")
    parser.add_argument("--http", action="store_true", help="probabilities over HTTP too, of each model")
    arguments = parser.parse_args()
    names = [name for name in [*list_models(), TRANSFER] if fnmatch(name, arguments.only)]
    giants = [name for name in names if any(fnmatch(name, pattern) for pattern in GIANTS)]
    print(f"{'model':32}{'bytes':>14}{'largest':>12}{'relative':>12}{'over HTTP':>12}{'seconds':>9}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name in giants and not arguments.large:
                continue
            started = time.perf_counter()
            size, equality, http = compare(name, Path(folder), arguments.http)
            worst = max(worst, equality.relative)
            print(
                f"{name:32}{size:>14,}{equality.largest:>12.1e}{equality.relative:>12.1e}{http:>12.1e}"
                f"{time.perf_counter() - started:>9.1f}",
                flush=True,
            )
    if giants and not arguments.large:
        print("left out (--large runs them):", ", ".join(giants))
    print(
        f"equal within {np.float32(worst):.1e} of the largest logit, batches of 1, 2, 7 and 64, random and real images"
    )


if __name__ == "__main__":
    main()
