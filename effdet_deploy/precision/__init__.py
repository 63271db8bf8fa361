"""Reduced precision in the graph: an FP32 ONNX file becomes FP16 or INT8, without torch."""
