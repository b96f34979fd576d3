"""From a trained model to something other people use: files, a Predictor, a service, an alarm."""

from dlcourse.deployment.ab import ABResult, assign, compare_versions, difference_interval, sample_size
from dlcourse.deployment.app import create_app
from dlcourse.deployment.batching import Batcher
from dlcourse.deployment.card import ModelCard
from dlcourse.deployment.drift import DriftReport, Reference, detect_drift
from dlcourse.deployment.export import export_onnx, export_program, file_size
from dlcourse.deployment.limits import Limits
from dlcourse.deployment.monitoring import PredictionMonitor
from dlcourse.deployment.predictor import Prediction, Predictor
from dlcourse.deployment.quantize import quantize_dynamic, quantize_static
from dlcourse.deployment.records import read_log
from dlcourse.deployment.server import BackgroundServer, serve
from dlcourse.deployment.verify import Equality, verify_onnx
from dlcourse.deployment.weights import ExportError, load_safetensors, save_safetensors

__all__ = [
    "ABResult",
    "BackgroundServer",
    "Batcher",
    "DriftReport",
    "Equality",
    "ExportError",
    "Limits",
    "ModelCard",
    "Prediction",
    "PredictionMonitor",
    "Predictor",
    "Reference",
    "assign",
    "compare_versions",
    "create_app",
    "detect_drift",
    "difference_interval",
    "export_onnx",
    "export_program",
    "file_size",
    "load_safetensors",
    "quantize_dynamic",
    "quantize_static",
    "read_log",
    "sample_size",
    "save_safetensors",
    "serve",
    "verify_onnx",
]
