"""Training: losses, the loop, and the Trainer built from it."""

from dlcourse.training.callbacks import BestCheckpoint, Callback, EarlyStopping, PrintEpochs, TensorBoard
from dlcourse.training.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from dlcourse.training.config import TrainerConfig
from dlcourse.training.engine import NonFiniteLoss, evaluate, train_one_epoch, train_step
from dlcourse.training.history import History
from dlcourse.training.trainer import Trainer

__all__ = [
    "BestCheckpoint",
    "Callback",
    "CheckpointError",
    "EarlyStopping",
    "History",
    "NonFiniteLoss",
    "PrintEpochs",
    "TensorBoard",
    "Trainer",
    "TrainerConfig",
    "evaluate",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
    "train_one_epoch",
    "train_step",
]
