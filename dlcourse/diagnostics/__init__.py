"""Instruments that look at a training and leave it as it was, and the doctor who uses them."""

from dlcourse.diagnostics.curves import CurveReading, read_curves
from dlcourse.diagnostics.doctor import diagnose
from dlcourse.diagnostics.gradient_flow import GradientFlow, ParameterFlow, gradient_flow
from dlcourse.diagnostics.hooks import ActivationStats, record_activations
from dlcourse.diagnostics.lr_finder import LRRange, lr_range_test
from dlcourse.diagnostics.memory import MemoryAccount, memory_account, peak_memory
from dlcourse.diagnostics.overfit import Overfit, overfit_one_batch
from dlcourse.diagnostics.report import CODES, Finding, Report
from dlcourse.diagnostics.speed import Setting, SettingSpeed, compare_settings
from dlcourse.diagnostics.step_cost import StepCost, step_cost

__all__ = [
    "CODES",
    "ActivationStats",
    "CurveReading",
    "Finding",
    "GradientFlow",
    "LRRange",
    "MemoryAccount",
    "Overfit",
    "ParameterFlow",
    "Report",
    "Setting",
    "SettingSpeed",
    "StepCost",
    "compare_settings",
    "diagnose",
    "gradient_flow",
    "lr_range_test",
    "memory_account",
    "overfit_one_batch",
    "peak_memory",
    "read_curves",
    "record_activations",
    "step_cost",
]
