"""TensorRT: an ONNX file compiled into an engine, in a child process, for 10.x, 11.x and RTX.

``export`` is the whole road from a checkpoint, ``engine`` that from an ONNX file, ``elsewhere``
what is left to do on another machine. ``process`` starts the child process, ``messages`` is what
both sides say, ``worker`` and ``definition`` run in it. None but ``export`` needs torch.
"""
