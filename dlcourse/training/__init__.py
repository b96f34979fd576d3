"""Training: losses, the loop, and the Trainer built from it."""

from dlcourse.training.engine import NonFiniteLoss, evaluate, train_one_epoch, train_step

__all__ = ["NonFiniteLoss", "evaluate", "train_one_epoch", "train_step"]
