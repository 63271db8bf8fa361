"""Exported files: the spec inside them, its classes and anchors, and how model files are read."""
