"""What `diagnose` returns and refuses; what it finds is held by the clinic (tests/clinic)."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from watching import Noisy, small_batch, small_data, small_net, trained, untouched

from dlcourse.diagnostics import CODES, Finding, Report, diagnose


def batches(size=64, batch_size=16):
    return DataLoader(small_data(size), batch_size, shuffle=True, generator=torch.Generator().manual_seed(0))


def finding(code, severity="error", where="here"):
    return Finding(code, severity, where, "seen ≈ 2.5", "do <this>")


def test_findings_are_sorted_by_severity_and_then_by_cause_before_effect():
    report = Report((finding("unshuffled"), finding("input-scale", "warning"), finding("label-range")))
    assert report.codes == ["label-range", "unshuffled", "input-scale"]
    assert not report.healthy
    assert report.verdict == "sick: 2 errors, 1 warning"


def test_warnings_leave_a_training_healthy():
    assert Report((finding("unshuffled", "warning"),)).healthy
    assert str(Report(())) == "healthy: nothing found"


def test_a_report_prints_as_a_table_in_a_terminal_in_jupyter_and_as_json():
    report = Report((finding("label-range"),), ("the learning rate: no time was left",), 1.5)
    text = str(report)
    assert text.splitlines()[2].split() == ["severity", "code", "where"]
    assert "error     label-range                 here" in text
    assert "seen:   seen ≈ 2.5" in text
    assert text.endswith("not examined: the learning rate: no time was left")
    assert "<td style='text-align:left; vertical-align:top'>do &lt;this&gt;</td>" in report._repr_html_()
    document = json.loads(report.to_json())
    assert document["findings"][0]["code"] == "label-range"
    assert document["healthy"] is False
    assert document["seconds"] == 1.5


@pytest.mark.parametrize(
    ("code", "severity", "says"),
    [
        ("label-rang", "error", "code='label-rang' is not one of"),
        ("label-range", "bad", "severity='bad' is not one of"),
    ],
)
def test_a_finding_knows_its_codes_and_severities(code, severity, says):
    with pytest.raises(ValueError, match=says):
        Finding(code, severity, "", "", "")


def test_every_code_says_what_it_means():
    assert len(CODES) >= 40
    assert all(len(meaning) > 10 for meaning in CODES.values())


def test_a_diagnosis_leaves_everything_as_it_was_and_calls_no_hook_of_the_user():
    model, optimizer, loader = trained()
    called = []
    model.register_forward_hook(lambda *_: called.append(1))
    with untouched(model, optimizer, loader):
        diagnose(model, loader, nn.CrossEntropyLoss(), optimizer)
    assert called == []


def test_the_same_training_gets_the_same_report():
    model, optimizer, loader = trained()
    first = diagnose(model, loader, F.cross_entropy, optimizer)
    torch.manual_seed(99)
    assert diagnose(model, loader, F.cross_entropy, optimizer) == first


def test_an_optimizer_is_not_needed():
    assert diagnose(small_net(), batches(), F.cross_entropy).healthy


def test_a_loss_that_refers_to_the_users_model_leaves_no_gradient_there():
    model = small_net()

    def with_penalty(outputs, targets):
        return F.cross_entropy(outputs, targets) + 1e-4 * sum(p.square().sum() for p in model.parameters())

    diagnose(model, batches(), with_penalty, torch.optim.SGD(model.parameters(), lr=0.1))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_with_a_state_of_its_own_keeps_it():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, outputs, targets):
            self.mean.lerp_(outputs.detach().mean(dim=0), 0.1)
            return F.cross_entropy(outputs - self.mean, targets)

    loss_fn = Centred()
    diagnose(small_net(), batches(), loss_fn)
    assert torch.equal(loss_fn.mean, torch.zeros(4))


def test_a_model_that_keeps_results_of_a_forward_pass_can_be_examined():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            self.seen = self.net(x)
            return self.seen

    model = Keeping()
    model(small_batch()[0])
    kept = model.seen
    assert diagnose(model, batches(), F.cross_entropy).healthy
    assert model.seen is kept


def test_data_that_differ_at_every_pass_are_read_once_and_their_generators_put_back():
    model, optimizer, _ = trained()
    loader = DataLoader(small_data(kind=Noisy), 16, shuffle=True, generator=torch.Generator().manual_seed(5))
    with untouched(model, optimizer, loader):
        diagnose(model, loader, F.cross_entropy, optimizer)


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*small_data(80).tensors, strict=True)


def test_a_stream_is_examined_too():
    assert "model-error" not in diagnose(small_net(), DataLoader(Stream(), 16), F.cross_entropy).codes


def test_images_in_both_splits_are_found():
    x, y = small_data(96).tensors
    train, val = TensorDataset(x[:64], y[:64]), TensorDataset(x[48:], y[48:])
    report = diagnose(small_net(), DataLoader(train, 16, shuffle=True), F.cross_entropy, val_loader=DataLoader(val, 16))
    assert report.findings[0].code == "duplicate-or-leaking-data"
    assert "16 of 48 validation samples" in report.findings[0].evidence


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        ([], "the loader is empty"),
        (
            [{"image": torch.zeros(4, 1, 6, 6), "label": torch.zeros(4)}],
            "batch 1 must be a pair of tensors .* gave a dict",
        ),
        (
            [(torch.zeros(4, 1, 6, 6), torch.zeros(4), torch.zeros(4))],
            r"batch 1 must be a pair .* \(Tensor, Tensor, Tensor\)",
        ),
        ([(torch.zeros(4, 1, 6, 6), torch.zeros(3))], "the same number of samples"),
        (iter([small_batch()]), "an iterator, which the examination would use up"),
    ],
)
def test_a_loader_that_cannot_be_examined_is_refused(loader, says):
    with pytest.raises(ValueError, match=says):
        diagnose(small_net(), loader, F.cross_entropy)


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="steps=4 must be at least 5"):
        diagnose(small_net(), batches(), F.cross_entropy, steps=4)


def test_a_model_that_raises_is_a_finding_that_explains_the_error():
    model = nn.Sequential(nn.Flatten(), nn.Linear(35, 4))
    report = diagnose(model, batches(), F.cross_entropy)
    assert report.codes == ["model-error"]
    assert "mat1 and mat2 shapes cannot be multiplied" in report.findings[0].evidence
    assert "adaptive pool" in report.findings[0].remedy
    assert "what comes after a forward pass" in report.notes[0]


def test_a_model_that_returns_no_tensor_is_a_finding():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    report = diagnose(Pair(), batches(), F.cross_entropy)
    assert report.findings[0].evidence == "the model answers with a tuple, not with a tensor"


def test_a_loss_that_returns_a_vector_is_a_finding():
    report = diagnose(small_net(), batches(), nn.CrossEntropyLoss(reduction="none"))
    assert report.codes == ["loss-not-scalar"]
    assert "it returns (32,) for a batch of 32" in report.findings[0].evidence


def test_a_warmup_is_not_taken_for_a_small_rate():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
    assert optimizer.param_groups[0]["lr"] == 0
    assert diagnose(model, batches(), F.cross_entropy, optimizer).healthy
