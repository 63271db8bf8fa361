"""``InferenceServerClient("FOLDER")`` takes a folder in place of an address; ONNX Runtime answers.

As the server does, it checks every request against ``config.pbtxt``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from google.protobuf import json_format

from tests.bundles.model_config import parse, pb

_DTYPES = {"UINT8": np.uint8, "FP32": np.float32}


class InferInput:
    def __init__(self, name, shape, datatype):
        self.name, self.shape, self.datatype = name, list(shape), datatype

    def set_data_from_numpy(self, array):
        assert array.dtype == _DTYPES[self.datatype]
        assert list(array.shape) == self.shape
        self.array = array


class Answer:
    def __init__(self, arrays):
        self.arrays = arrays

    def as_numpy(self, name):
        return self.arrays[name]


class InferenceServerClient:
    def __init__(self, url):
        self.repository = Path(url)

    def _config(self, model):
        return parse(self.repository / model / "config.pbtxt")

    def get_model_config(self, model):
        return json_format.MessageToDict(self._config(model), preserving_proto_field_name=True)

    def infer(self, model, inputs):
        config = self._config(model)
        for given, wanted in zip(inputs, config.input, strict=True):
            assert (given.name, f"TYPE_{given.datatype}") == (
                wanted.name,
                pb.DataType.Name(wanted.data_type),
            )
            sides = given.shape
            if config.max_batch_size:
                assert 1 <= sides[0] <= config.max_batch_size
                sides = sides[1:]
            assert sides == list(wanted.dims)
        session = onnxruntime.InferenceSession(self.repository / model / "1" / "model.onnx")
        names = [each.name for each in config.output]
        found = session.run(names, {each.name: each.array for each in inputs})
        return Answer(dict(zip(names, found, strict=True)))
