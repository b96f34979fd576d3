"""The networks of the course, each by its factory or by name: `create_model("resnet18", num_classes=10)`."""

from dlcourse.models.attention import (
    MultiHeadSelfAttention,
    SelfAttention,
    TransformerEncoderBlock,
    attention_maps,
    attention_rollout,
    sinusoidal_positions,
)
from dlcourse.models.efficientnet import (
    EfficientNet,
    efficientnet_b0,
    efficientnet_b1,
    efficientnet_b2,
    efficientnet_b3,
    efficientnet_b4,
    efficientnet_b5,
    efficientnet_b6,
    efficientnet_b7,
)
from dlcourse.models.mobilenet_v1 import MobileNetV1, mobilenet_v1
from dlcourse.models.mobilenet_v2 import MobileNetV2, mobilenet_v2
from dlcourse.models.mobilenet_v3 import MobileNetV3, mobilenet_v3_large, mobilenet_v3_small
from dlcourse.models.pretrained import PretrainedWeightsError, load_pretrained
from dlcourse.models.registry import count_macs, count_parameters, create_model, list_models, register_model
from dlcourse.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152
from dlcourse.models.simple_cnn import SimpleCNN, simple_cnn
from dlcourse.models.vit import (
    PatchEmbedding,
    VisionTransformer,
    interpolate_position_embedding,
    vit_base_patch16,
    vit_base_patch32,
    vit_huge_patch14,
    vit_large_patch16,
    vit_small_patch16,
    vit_tiny_patch16,
)

__all__ = [
    "EfficientNet",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PretrainedWeightsError",
    "ResNet",
    "SelfAttention",
    "SimpleCNN",
    "TransformerEncoderBlock",
    "VisionTransformer",
    "attention_maps",
    "attention_rollout",
    "count_macs",
    "count_parameters",
    "create_model",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "interpolate_position_embedding",
    "list_models",
    "load_pretrained",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "register_model",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "simple_cnn",
    "sinusoidal_positions",
    "vit_base_patch16",
    "vit_base_patch32",
    "vit_huge_patch14",
    "vit_large_patch16",
    "vit_small_patch16",
    "vit_tiny_patch16",
]
