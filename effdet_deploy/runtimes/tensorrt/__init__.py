"""Running TensorRT engines, of 10.x, 11.x and TensorRT-RTX."""
