"""Right answers to the exercise on tests for models, in other styles than the reference's."""

import copy

import numpy as np
import torch
from planting import right_answer


@right_answer("behaviour.failed_tests")
def by_numpy(model, images, change, *, share=0.9):
    mode = model.training

    @torch.inference_mode()
    def ask(batch):
        return np.array(model(batch))

    model.eval()
    try:
        sent = images.detach().clone()
        first, second = ask(sent), ask(images.clone())
        single = np.concatenate([ask(image.clone().unsqueeze(0)) for image in images])
        after = ask(change(images.clone()))
    finally:
        model.train(mode)
    failed = []
    if np.abs(first - second).max() > 1e-4:
        failed.append("repeats")
    if np.abs(first - single).max() > 1e-4:
        failed.append("alone")
    if not np.array_equal(sent.numpy(), images.numpy()):
        failed.append("untouched")
    if np.mean(first.argmax(1) == after.argmax(1)) < share:
        failed.append("invariant")
    return failed


@right_answer("behaviour.failed_tests")
@torch.no_grad()
def one_test_at_a_time(model, images, change, *, share=0.9):
    def repeats():
        return torch.allclose(model(images.clone()), model(images.clone()), atol=1e-4)

    def alone():
        together = model(images.clone())
        return all(torch.allclose(model(images[i].clone()[None])[0], row, atol=1e-4) for i, row in enumerate(together))

    def untouched():
        batch = images.clone()
        model(batch)
        return bool((batch == images).all())

    def invariant():
        same = model(images.clone()).argmax(1) == model(change(images.clone())).argmax(1)
        return int(same.sum()) >= share * len(images)

    was = model.training
    model.eval()
    failed = tuple(test.__name__ for test in (repeats, alone, untouched, invariant) if not test())
    model.train(was)
    return failed


@right_answer("behaviour.failed_tests")
def with_a_generator(model, images, change, *, share=0.9):
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        batches = [images.clone(), copy.deepcopy(images), *images.clone().split(1), change(images.clone())]
        outputs = [model(batch) for batch in batches]
    for module, mode in modes.items():
        module.training = mode
    together, again, *alone, changed = outputs
    differences = {"repeats": (together - again).abs().max(), "alone": (together - torch.cat(alone)).abs().max()}
    names = [name for name, size in differences.items() if size > 1e-4]
    names += ["untouched"] * (not torch.equal(batches[0], images))
    kept = sum(int(a) == int(b) for a, b in zip(together.argmax(1), changed.argmax(1), strict=True))
    return names + ["invariant"] * (kept / len(images) < share)
