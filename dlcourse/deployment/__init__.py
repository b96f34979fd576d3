"""From a trained model to something other people use: files, a Predictor, a service, an alarm."""

from dlcourse.deployment.card import ModelCard
from dlcourse.deployment.export import export_onnx, load_safetensors, save_safetensors
from dlcourse.deployment.predictor import Prediction, Predictor

__all__ = ["ModelCard", "Prediction", "Predictor", "export_onnx", "load_safetensors", "save_safetensors"]
