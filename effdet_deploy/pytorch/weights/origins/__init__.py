"""Whose network a checkpoint holds: one file for each project that trains EfficientDets."""
