"""Settings are timed on copies, in turn, and the fastest comes first."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from watching import trained, untouched

from dlcourse.diagnostics import Setting, compare_settings
from dlcourse.training import TrainerConfig

pytestmark = pytest.mark.filterwarnings("error")


class Minding(nn.Module):
    """Waits longer for images in the ordinary format, longer still in bfloat16, and cannot take float16."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.took = []

    def forward(self, x):
        maps = self.conv(x)
        if maps.dtype == torch.float16:
            raise RuntimeError("no kernel for this")
        last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
        time.sleep(0.04 if maps.dtype == torch.bfloat16 else 0.002 if last else 0.02)
        return maps.float().mean((2, 3))


BATCH = torch.randn(4, 3, 8, 8), torch.arange(4)


def test_the_fastest_setting_comes_first_with_its_speedup():
    found = compare_settings(Minding(), BATCH, F.cross_entropy, rounds=3)
    assert [each.setting for each in found[:2]] == [Setting(channels_last=True), Setting()]
    assert {each.setting for each in found[2:]} == {Setting("bf16"), Setting("bf16", channels_last=True)}
    assert found[0].speedup > 2
    assert found[-1].speedup < 0.8
    assert found[1].speedup == 1
    best = found[0].setting
    assert TrainerConfig(epochs=1, amp=best.amp, channels_last=best.channels_last).channels_last


def test_a_setting_that_does_not_run_is_left_out():
    found = compare_settings(Minding(), BATCH, F.cross_entropy, [Setting(), Setting("fp16")], rounds=1)
    assert [each.setting for each in found] == [Setting()]
    with pytest.raises(ValueError, match="none of the settings runs on this machine: fp16 \\+ channels_last"):
        compare_settings(Minding(), BATCH, F.cross_entropy, [Setting("fp16", True)], rounds=1)


def test_what_fails_in_every_setting_is_the_model_s_fault():
    with pytest.raises(RuntimeError):
        compare_settings(nn.Linear(7, 2), BATCH, F.cross_entropy)
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        compare_settings(Minding(), BATCH, F.cross_entropy, rounds=0)


def test_nothing_of_the_model_changes():
    model, optimizer, loader = trained()
    with untouched(model, optimizer, loader):
        compare_settings(model, loader, F.cross_entropy, rounds=1)
    assert model[0].weight.is_contiguous()


def test_a_setting_reads_as_it_is_written():
    assert str(Setting("bf16", channels_last=True, compiled=True)) == "bf16 + channels_last + compiled"
    assert str(Setting()) == "float32"
