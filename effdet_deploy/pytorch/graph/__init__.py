"""The modules that turn the network into a whole graph: ``uint8`` images in, boxes out."""

from effdet_deploy.pytorch.graph.folding import fold_for_inference
from effdet_deploy.pytorch.graph.pipeline import create_pipeline

__all__ = ["create_pipeline", "fold_for_inference"]
