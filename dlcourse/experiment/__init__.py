"""A whole training from one config: `load_config`, `train`, `Run`."""

from typing import TYPE_CHECKING, Any

from dlcourse.experiment.config import (
    ConfigError,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from dlcourse.experiment.parser import load_config

if TYPE_CHECKING:
    from dlcourse.experiment.run import Run
    from dlcourse.experiment.training import train

__all__ = [
    "ConfigError",
    "Experiment",
    "ModelConfig",
    "OptimizerConfig",
    "Run",
    "ScheduleConfig",
    "TrainingConfig",
    "load_config",
    "train",
]


def __getattr__(name: str) -> Any:
    """`Run` and `train` when they are asked for: `dlcourse --help` needs neither them nor torchvision."""
    if name == "Run":
        from dlcourse.experiment.run import Run

        return Run
    if name == "train":
        from dlcourse.experiment.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
