"""A client for a detector that Triton serves: python client.py localhost:8000 MODEL PICTURE...

It needs ``pip install "tritonclient[http]" pillow``; the server tells it everything else.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
server, model = triton.InferenceServerClient(sys.argv[1]), sys.argv[2]
spec = json.loads(server.get_model_config(model)["parameters"]["effdet.spec"]["string_value"])
takes, batch = spec["input"], spec["batch"]["minimum"]
height, width = takes["source_size"] or (takes["height"], takes["width"])
rule = "letterbox" if takes["source_size"] else takes["resize"]
mode = {1: "L", 3: "RGB", 4: "RGBA"}[len(takes["fill"])]
order = [2, 1, 0, 3][: len(mode)] if takes["channel_order"] == "bgr" else slice(None)
mean, std = (255 * np.array(takes[each], np.float32) for each in ("mean", "std"))
for path in sys.argv[3:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert(mode)
    w, h = picture.size
    scale = np.array([width / w, height / h])
    scale = scale if rule == "stretch" else np.repeat(scale.min(), 2)
    fitted = np.maximum(1, np.floor((w, h) * scale)).astype(int)
    size = (width, height) if rule == "stretch" else (int(fitted[0]), int(fitted[1]))
    left, top = ((width - size[0]) // 2, (height - size[1]) // 2) if rule == "center" else (0, 0)
    images = np.empty((batch, height, width, len(mode)), np.uint8)
    images[:] = takes["fill"]
    for channel, band in enumerate(picture.split()):
        scaled = band.resize(size, Image.Resampling.BILINEAR)
        images[:, top : top + size[1], left : left + size[0], channel] = scaled
    given = images[..., order]
    if takes["kind"] != "uint8":
        pixels = images.astype(np.float32)
        given = ((pixels - mean) / std if takes["kind"] == "normalized" else pixels)[..., order]
        given = given.transpose(0, 3, 1, 2)
    tensor = triton.InferInput("images", given.shape, "UINT8" if given.itemsize == 1 else "FP32")
    tensor.set_data_from_numpy(np.ascontiguousarray(given))
    answer = server.infer(model, [tensor])
    count, boxes, scores, classes = (answer.as_numpy(name)[0] for name in OUTPUTS)
    corners = [0, 1, 2, 3] if spec["output"]["box_format"] == "xyxy" else [1, 0, 3, 2]
    offset, back = (np.tile(each, 2).astype(np.float32) for each in ((left, top), 1 / scale))
    for row in range(count[0]):
        box = (boxes[row][corners] - offset) * back
        x1, y1, x2, y2 = np.clip(box, 0, [w, h, w, h])
        if x1 < x2 and y1 < y2:
            name = spec["classes"][classes[row]]["name"]
            print(f"{name} {scores[row]:.4f} {x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}")
