"""EfficientDet as torch modules whose ``state_dict`` is key-for-key that of ``effdet``."""

from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.efficientdet import EfficientDet, create_model
from effdet_deploy.pytorch.network.registry import get_config, list_models, resolve_name

__all__ = [
    "EfficientDet",
    "ModelConfig",
    "create_model",
    "get_config",
    "list_models",
    "resolve_name",
]
