"""The memory account against the measured peak of a training step, for a CNN, a mobile network and a ViT, with AdamW.

    python tests/diagnostics/memory.py
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dlcourse.diagnostics import memory_account, peak_memory
from dlcourse.models import create_model

CASES = (  # model, options, batch, pixels
    ("resnet18", {"stem": "cifar"}, 32, 32),
    ("mobilenet_v2", {}, 16, 64),
    ("vit_tiny_patch16", {"img_size": 64, "patch_size": 8}, 32, 64),
)


def main() -> None:
    print(f"{'model':18}{'amp':6}{'weights':>9}{'gradients':>11}{'optimizer':>11}{'activations':>13}"
          f"{'predicted':>11}{'measured':>10}  ratio   (MB)")  # fmt: skip
    for name, options, batch, pixels in CASES:
        torch.manual_seed(0)
        model = create_model(name, num_classes=10, **options)
        optimizer = torch.optim.AdamW(model.parameters())
        images, labels = torch.rand(batch, 3, pixels, pixels), torch.arange(batch) % 10
        for amp in ("off", "bf16"):
            account = memory_account(model, images, optimizer, amp=amp)
            measured = peak_memory(model, images, labels, F.cross_entropy, optimizer, amp=amp)
            parts = (account.parameters, account.gradients, account.optimizer, account.activations, account.peak, measured)
            megabytes = [f"{size / 1e6:.1f}" for size in parts]
            print(f"{name:18}{amp:6}{megabytes[0]:>9}{megabytes[1]:>11}{megabytes[2]:>11}{megabytes[3]:>13}"
                  f"{megabytes[4]:>11}{megabytes[5]:>10}  {measured / account.peak:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
