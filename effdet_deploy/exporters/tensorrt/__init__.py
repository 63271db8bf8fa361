"""TensorRT: an ONNX file compiled into an engine, in a child process, for 10.x, 11.x and RTX.

``options`` says what can be asked, ``machine`` what this machine can do, ``engine`` builds and
delivers, ``worker`` and ``network`` run in the child process, ``export`` is the whole road from a
checkpoint, ``plugin`` ends a graph in TensorRT's NMS. None but ``export`` needs torch.
"""
