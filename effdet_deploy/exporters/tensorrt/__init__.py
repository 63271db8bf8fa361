"""TensorRT: an ONNX file compiled into an engine, in a child process, for 10.x, 11.x and RTX.

``export`` goes the whole way from a checkpoint to an engine, ``engine`` from an ONNX file to an
engine; ``other_machine`` says how to finish on another machine. ``process`` starts the child
process, ``messages`` defines what both sides send, and ``worker`` and ``definition`` run in the
child. Only ``export`` needs torch.
"""
