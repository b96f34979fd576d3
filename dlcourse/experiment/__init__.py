"""A whole training from one config: `load_config`, `train`, `Run`."""

from dlcourse.experiment.config import (
    ConfigError,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from dlcourse.experiment.parser import load_config
from dlcourse.experiment.run import Run
from dlcourse.experiment.train import train

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
