"""From a trained model to something other people use: files, a Predictor, a service, an alarm."""

from dlcourse.deployment.app import create_app
from dlcourse.deployment.batching import Batcher
from dlcourse.deployment.card import ModelCard
from dlcourse.deployment.export import export_onnx, load_safetensors, save_safetensors
from dlcourse.deployment.limits import Limits
from dlcourse.deployment.predictor import Prediction, Predictor
from dlcourse.deployment.server import BackgroundServer, serve

__all__ = [
    "BackgroundServer",
    "Batcher",
    "Limits",
    "ModelCard",
    "Prediction",
    "Predictor",
    "create_app",
    "export_onnx",
    "load_safetensors",
    "save_safetensors",
    "serve",
]
