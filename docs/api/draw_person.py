"""Draw a person by a running ComfyUI: python draw_person.py face.jpg "a photo of a woman at sea"

`--workflow` takes any workflow that has one Load Image and one KSampler, saved by *Export (API)*.
"""

import argparse
import json
import random
import time
from pathlib import Path

import requests

parser = argparse.ArgumentParser(description="Draws a person by a running ComfyUI.")
parser.add_argument("photo", type=Path, help="of one face")
parser.add_argument("prompt", help="what to draw")
parser.add_argument("--server", default="http://127.0.0.1:8188")
parser.add_argument("--workflow", type=Path, default=Path(__file__).with_name("photo.json"))
parser.add_argument("--seed", type=int, default=random.randrange(2**32))
options = parser.parse_args()

with options.photo.open("rb") as file:
    uploaded = requests.post(f"{options.server}/upload/image", files={"image": file}).json()

graph = json.loads(options.workflow.read_text(encoding="utf-8"))
inputs = {node["class_type"]: node["inputs"] for node in graph.values()}
inputs["LoadImage"]["image"] = uploaded["name"]
inputs["KSampler"]["seed"] = options.seed
graph[inputs["KSampler"]["positive"][0]]["inputs"]["text"] = options.prompt

queued = requests.post(f"{options.server}/prompt", json={"prompt": graph}).json()
if "prompt_id" not in queued:  # a node says what is wrong, or a file is missing
    raise SystemExit(json.dumps(queued, indent=1))
while not (history := requests.get(f"{options.server}/history/{queued['prompt_id']}").json()):
    time.sleep(1)

(entry,) = history.values()
if entry["status"]["status_str"] != "success":
    raise SystemExit(json.dumps(entry["status"]["messages"][-1], indent=1))
for image in [image for output in entry["outputs"].values() for image in output.get("images", ())]:
    if image["type"] == "output":
        picture = requests.get(f"{options.server}/view", params=image).content
        Path(image["filename"]).write_bytes(picture)
        print(f"Saved {image['filename']}, seed {options.seed}")
