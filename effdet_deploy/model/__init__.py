"""EfficientDet as torch modules whose ``state_dict`` is key-for-key that of ``effdet``."""

from effdet_deploy.model.config import ModelConfig
from effdet_deploy.model.network import EfficientDet, create_model
from effdet_deploy.model.registry import get_config, list_models, resolve_name

__all__ = [
    "EfficientDet",
    "ModelConfig",
    "create_model",
    "get_config",
    "list_models",
    "resolve_name",
]
