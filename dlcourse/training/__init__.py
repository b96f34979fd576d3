"""Training: losses, the loop, and the Trainer built from it."""

from dlcourse.training.callbacks import BestCheckpoint, Callback, EarlyStopping, PrintEpochs, TensorBoard
from dlcourse.training.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from dlcourse.training.checkpointing import checkpoint_activations
from dlcourse.training.config import TrainerConfig
from dlcourse.training.engine import NonFiniteLoss, evaluate, set_training_mode, train_one_epoch, train_step
from dlcourse.training.finetune import (
    GradualUnfreezing,
    freeze,
    get_classifier,
    layers_in_order,
    layerwise_param_groups,
    parameters_under,
    regression_head,
    replace_head,
    unfreeze,
    weight_decay_groups,
)
from dlcourse.training.history import History
from dlcourse.training.losses import FocalLoss, smoothed_cross_entropy
from dlcourse.training.schedules import make_scheduler, warmup_cosine
from dlcourse.training.trainer import Trainer

__all__ = [
    "BestCheckpoint",
    "Callback",
    "CheckpointError",
    "EarlyStopping",
    "FocalLoss",
    "GradualUnfreezing",
    "History",
    "NonFiniteLoss",
    "PrintEpochs",
    "TensorBoard",
    "Trainer",
    "TrainerConfig",
    "checkpoint_activations",
    "evaluate",
    "freeze",
    "get_classifier",
    "layers_in_order",
    "layerwise_param_groups",
    "load_checkpoint",
    "load_weights",
    "make_scheduler",
    "parameters_under",
    "regression_head",
    "replace_head",
    "save_checkpoint",
    "set_training_mode",
    "smoothed_cross_entropy",
    "train_one_epoch",
    "train_step",
    "unfreeze",
    "warmup_cosine",
    "weight_decay_groups",
]
