"""The networks of the course, each by its factory or by name: `create_model("simple_cnn", num_classes=10)`."""

from dlcourse.models.registry import count_parameters, create_model, list_models, register_model
from dlcourse.models.simple_cnn import SimpleCNN, simple_cnn

__all__ = ["SimpleCNN", "count_parameters", "create_model", "list_models", "register_model", "simple_cnn"]
