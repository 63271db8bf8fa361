"""Ask a detector that Triton serves: python client.py localhost:8000 MODEL PICTURE...

It needs ``pip install "tritonclient[http]" pillow``; all else it learns from the server.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
server, model = triton.InferenceServerClient(sys.argv[1]), sys.argv[2]
spec = json.loads(server.get_model_config(model)["parameters"]["effdet.spec"]["string_value"])
takes, gives = spec["input"], spec["output"]
mean, std = (255 * np.array(takes[each], np.float32) for each in ("mean", "std"))
for path in sys.argv[3:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    w, h = picture.size
    scale = min(takes["height"] / h, takes["width"] / w)
    size = max(1, int(w * scale)), max(1, int(h * scale))
    images = np.empty((spec["batch"]["minimum"], takes["height"], takes["width"], 3), np.uint8)
    images[:] = takes["fill"]
    images[:, : size[1], : size[0]] = picture.resize(size, Image.Resampling.BILINEAR)
    if takes["kind"] != "uint8":
        pixels = images.astype(np.float32).transpose(0, 3, 1, 2)
        if takes["kind"] == "normalized":
            pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    channels = slice(None, None, -1 if takes["channel_order"] == "bgr" else 1)
    given = images[..., channels] if takes["kind"] == "uint8" else pixels[:, channels]
    tensor = triton.InferInput("images", given.shape, "UINT8" if given.itemsize == 1 else "FP32")
    tensor.set_data_from_numpy(np.ascontiguousarray(given))
    answer = server.infer(model, [tensor])
    count, boxes, scores, classes = (answer.as_numpy(name)[0] for name in OUTPUTS)
    for row in range(count[0]):
        box = boxes[row]
        x1, y1, x2, y2 = box if gives["box_format"] == "xyxy" else box[[1, 0, 3, 2]]
        left, top, right, bottom = np.clip(np.array([x1, y1, x2, y2]) / scale, 0, [w, h, w, h])
        if left < right and top < bottom:
            name = spec["classes"][classes[row]]["name"]
            print(f"{name} {scores[row]:.4f} {left:.2f} {top:.2f} {right:.2f} {bottom:.2f}")
