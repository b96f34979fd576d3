"""Every registered model leaves Python: ONNX with a dynamic batch, torch.compile; and runs under torch's transforms."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch.testing import assert_close
from zoo import build, each_model, images


def rounding(reference):
    """What single precision may move, relative to the size of the logits."""
    return 1e-5 * max(1.0, reference.abs().max().item())


@pytest.mark.timeout(900)
@each_model
def test_onnx_answers_as_torch_for_any_batch(name, tmp_path):
    model, path = build(name).eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates parts of itself
        torch.onnx.export(
            model, (images(name),), path, dynamo=True, input_names=["images"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert isinstance(session.get_inputs()[0].shape[0], str)  # the batch has a name, not a number
    for batch in (1, 2, 5):
        x = images(name, batch)
        with torch.no_grad():
            wanted = model(x)
        (logits,) = session.run(["logits"], {"images": x.numpy()})
        assert logits.dtype == np.float32
        assert_close(torch.from_numpy(logits), wanted, rtol=1e-4, atol=10 * rounding(wanted))


@pytest.mark.timeout(900)
@each_model
def test_compile_captures_the_whole_model_and_its_gradients(name):
    """Captured as one graph, forward and backward (aot_eager: without generating code, which is the compiler's part)."""
    model, x = build(name), images(name)
    wanted = model(x)
    gradient = torch.autograd.grad(wanted.square().sum(), next(model.parameters()))[0]
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    logits = compiled(x)
    assert_close(logits, wanted, rtol=1e-4, atol=rounding(wanted))
    found = torch.autograd.grad(logits.square().sum(), next(model.parameters()))[0]
    assert_close(found, gradient, rtol=1e-3, atol=rounding(gradient))


@each_model
def test_channels_last_is_the_same(name):
    model, x = build(name).eval(), images(name)
    with torch.no_grad():
        wanted = model(x)
        logits = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert_close(logits, wanted, rtol=1e-4, atol=rounding(wanted))


@each_model
def test_bf16_autocast_is_close_and_trains(name):
    model, x = build(name), images(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2]))
    assert logits.dtype == torch.bfloat16
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32, key
        assert parameter.grad.isfinite().all(), key
    model.eval()
    with torch.no_grad():
        wanted = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x).float()
    assert (logits - wanted).norm() <= 0.2 * wanted.norm()


@each_model
def test_functional_call_and_grad_see_the_parameters_they_are_given(name):
    model, x = build(name).eval(), images(name)
    parameters = {key: torch.nn.Parameter(1.1 * value.detach()) for key, value in model.named_parameters()}
    before = model(x)
    other = torch.func.functional_call(model, parameters, x)
    assert not torch.allclose(other, before)
    assert torch.equal(model(x), before)
    gradients = torch.func.grad(lambda p: torch.func.functional_call(model, p, x).square().sum())(parameters)
    expected = torch.autograd.grad(other.square().sum(), list(parameters.values()))
    for (key, gradient), wanted in zip(gradients.items(), expected, strict=True):
        assert_close(gradient, wanted, rtol=1e-3, atol=1e-5 * max(1, wanted.abs().max().item()), msg=key)


@each_model
def test_gradients_of_single_samples_by_vmap(name):
    """vmap over functional_call, as per-sample gradients need it (in eval mode: a batch norm in training mixes samples)."""
    model, x, labels = build(name).eval(), images(name), torch.tensor([1, 2])

    def loss(bias, image, label):
        logits = torch.func.functional_call(model, {last: bias}, image[None])
        return torch.nn.functional.cross_entropy(logits, label[None])

    last, parameter = list(model.named_parameters())[-1]
    single = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameter.detach(), x, labels)
    total = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), labels), parameter)[0]
    assert_close(single.mean(0), total, rtol=1e-3, atol=1e-5)
