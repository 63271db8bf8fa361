"""Precision as a property of the graph: FP32 ONNX in, FP16 or INT8 ONNX out; no torch."""
