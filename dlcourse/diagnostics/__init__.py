"""Instruments that look at a training and leave it as it was."""

from dlcourse.diagnostics.lr_finder import LRRange, lr_range_test
from dlcourse.diagnostics.memory import MemoryAccount, memory_account, peak_memory

__all__ = ["LRRange", "MemoryAccount", "lr_range_test", "memory_account", "peak_memory"]
