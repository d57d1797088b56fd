"""Identify the car in a photo with ONNX Runtime, numpy and Pillow; without torch and twincar.

twincar export --to onnx --out car.onnx
python docs/onnx_example.py car.onnx photo.jpg
"""

import json
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported, which sends usage statistics

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
names, size = json.loads(about["class_names"]), json.loads(about["size"])

photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
images = np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC))[None]  # (1, size, size, 3) uint8
features, logits = session.run(["features", "logits"], {"images": images})

odds = np.exp(logits[0] - logits[0].max())
for label in odds.argsort()[::-1][:5]:
    print(f"{odds[label] / odds.sum():6.1%}  {names[label]}")
