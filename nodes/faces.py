"""Places of faces in pictures: masks, and crops that are refined and put back."""

import math
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..infinite_id.faces.crops import (
    Cut,
    FaceCrops,
    Shape,
    crop,
    crop_mask,
    cut_faces,
    cut_untouched,
    draw_masks,
    draw_overview,
    paste,
)
from ..infinite_id.faces.face import Face, FaceError, Order, sort_faces
from ..infinite_id.faces.photo import read_photos, to_image
from . import sockets
from .detection import face_analysis_input, look_through
from .node import Node

SMALLER_FACES = "A larger detection size there finds smaller faces."
ORDERS = {"left to right": Order.LEFT_TO_RIGHT, "largest first": Order.LARGEST}


class FaceMasks(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDFaceMasks",
            display_name="Face Masks",
            category=sockets.CATEGORY,
            description="Finds the faces in a picture and draws a mask for each: to place people "
            "where a sketch or a first picture has them, or to inpaint faces.",
            search_aliases=["face detection", "segment faces", "person mask"],
            inputs=[
                face_analysis_input(SMALLER_FACES),
                io.Image.Input("image", tooltip="A picture with faces, or a batch."),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default="left to right",
                    tooltip="Which face is number 1. The annotated picture shows the numbers.",
                ),
                io.Combo.Input(
                    "shape",
                    options=[shape.value for shape in Shape],
                    default=Shape.OVAL.value,
                    tooltip="'oval' covers the face and tilts with it. 'box' is upright. 'column' "
                    "is a slab from the picture's top to its bottom, up to midway to the "
                    "neighbours: for a whole person.",
                ),
                io.Int.Input(
                    "face",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="0: a mask for every face. 2: only number 2's, and so on.",
                ),
                io.Float.Input(
                    "grow",
                    default=1.0,
                    min=0.1,
                    max=5.0,
                    step=0.05,
                    tooltip="Factor on the size of ovals and boxes. 1 is the face, 1.5 takes in "
                    "most hair. Columns are not changed.",
                ),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Softens the edge, by so many pixels to both sides.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="A mask for each face, as large as the picture. For Apply Infinite-ID, "
                    "choose one face.",
                ),
                io.Int.Output(
                    "count", display_name="count", tooltip="How many faces there are in all."
                ),
                io.Image.Output(
                    "annotated",
                    display_name="annotated",
                    tooltip="The picture with its masks tinted and its faces numbered.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        face_analysis: Any,
        image: torch.Tensor,
        order: str,
        shape: str,
        face: int,
        grow: float,
        feather: int,
    ) -> io.NodeOutput:
        photos = read_photos([image], "picture")
        found = [faces for *_, faces in look_through(face_analysis, photos)]
        people = [sort_faces(faces, ORDERS[order]) for faces in found]
        for name, faces in zip(photos, people, strict=True):
            _need(faces, face, name)
        size = image.shape[1], image.shape[2]
        masks = [draw_masks(size, faces, Shape(shape), grow, feather) for faces in people]
        overviews = [
            draw_overview(*drawn) for drawn in zip(photos.values(), people, masks, strict=True)
        ]
        annotated = torch.cat([to_image(overview) for overview in overviews])
        chosen = slice(None) if face == 0 else slice(face - 1, face)
        return io.NodeOutput(
            torch.from_numpy(np.concatenate([drawn[chosen] for drawn in masks])),
            sum(map(len, people)),
            annotated,
            ui=ui.PreviewImage(annotated, cls=cls),
        )


def size_input(tooltip: str) -> io.Int.Input:
    """At how many pixels a small face is drawn again."""
    return io.Int.Input("size", default=1024, min=64, max=4096, step=8, tooltip=tooltip)


def max_face_input(tooltip: str) -> io.Int.Input:
    """Up to which height in pixels a face is a small one."""
    return io.Int.Input("max_face", default=256, min=0, max=8192, tooltip=tooltip)


class CropFaces(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDCropFaces",
            display_name="Crop Small Faces",
            category=sockets.CATEGORY,
            description="Cuts the small faces out of pictures and enlarges them, so that the model "
            "can draw them again at its own size; Paste Faces puts them back.",
            search_aliases=["face detailer", "restore faces", "face inpaint"],
            inputs=[
                face_analysis_input(SMALLER_FACES),
                io.Image.Input("image", tooltip="Pictures of any size, one or a batch."),
                size_input("The side of each crop in pixels; what the model likes, 1024 for SDXL."),
                max_face_input(
                    "Only faces less than this many pixels high are cropped; larger ones are good "
                    "as they are. 0: all."
                ),
                io.Float.Input(
                    "context",
                    default=2.0,
                    min=1.2,
                    max=8.0,
                    step=0.1,
                    tooltip="The side of the crop, in heights of the face. More surroundings fit "
                    "the face in better and leave it fewer pixels.",
                ),
                io.Float.Input(
                    "grow",
                    default=1.2,
                    min=0.5,
                    max=3.0,
                    step=0.05,
                    tooltip="Factor on the size of the oval that is drawn again and pasted back. "
                    "1 is the face from chin to forehead.",
                    advanced=True,
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="How far the oval's edge fades to both sides, in heights of the face.",
                    advanced=True,
                ),
                io.Int.Input(
                    "limit",
                    default=8,
                    min=1,
                    max=64,
                    tooltip="At most so many crops from each picture, the largest first. The "
                    "sampler draws all crops at once.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Image.Output(
                    "crops",
                    display_name="crops",
                    tooltip="One square for each face. To draw again: VAE Encode, Set Latent "
                    "Noise Mask, KSampler at a denoise of about 0.5, VAE Decode.",
                ),
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="The soft oval over the face in each crop, for Set Latent Noise Mask.",
                ),
                sockets.Crops.Output(
                    "face_crops",
                    display_name="face crops",
                    tooltip="The pictures, and where the crops belong. For Paste Faces.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="What was found. Without a small face there is one crop all the same, "
                    "with an empty mask, so that the queue goes on; Paste Faces then changes "
                    "nothing.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        face_analysis: Any,
        image: torch.Tensor,
        size: int,
        max_face: int,
        context: float,
        grow: float,
        feather: float,
        limit: int,
    ) -> io.NodeOutput:
        photos = read_photos([image], "picture")
        found = [faces for *_, faces in look_through(face_analysis, photos)]
        small = [_choose_small(faces, max_face)[:limit] for faces in found]
        shape = image.shape[1], image.shape[2]
        cuts = [
            cut
            for index, faces in enumerate(small)
            for cut in cut_faces(index, shape, faces, context, grow, feather)
        ]
        if not cuts:
            cuts = [_stand_in(shape, found, context)]
        pictures = image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image
        crops = torch.stack(
            [crop(pictures[c.picture, ..., :3], c.square, size, c.turn) for c in cuts]
        )
        return io.NodeOutput(
            crops,
            torch.stack([crop_mask(cut, shape, size) for cut in cuts]),
            FaceCrops(pictures, tuple(cuts)),
            _describe(found, small, max_face),
            ui=ui.PreviewImage(crops.float(), cls=cls),
        )


class PasteFaces(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDPasteFaces",
            display_name="Paste Faces",
            category=sockets.CATEGORY,
            description="Puts crops that were drawn again back into their pictures. Outside the "
            "faces' soft ovals the pictures stay as they were, bit for bit.",
            search_aliases=["face detailer", "uncrop", "restore faces"],
            inputs=[
                sockets.Crops.Input("face_crops", tooltip="From Crop Small Faces."),
                io.Image.Input(
                    "crops",
                    tooltip="The crops, drawn again: as many, in the same order, square, of any "
                    "size.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image", display_name="image", tooltip="The pictures with their new faces."
                )
            ],
        )

    @classmethod
    def execute(cls, face_crops: FaceCrops, crops: torch.Tensor) -> io.NodeOutput:
        count, height, width = crops.shape[:3]
        if count != len(face_crops.cuts) or height != width or not height:
            raise ValueError(
                f"Paste Faces needs {len(face_crops.cuts)} square crops, as Crop Small Faces gave "
                f"them; it got {count} of {width}x{height} pixels. Connect the same crops, drawn "
                "again one by one."
            )
        if not torch.isfinite(crops).all():
            raise ValueError(
                "Paste Faces: the crops hold values that are not numbers (NaN), as a VAE in half "
                "precision gives them. Run the VAE in float32 (--fp32-vae)."
            )
        return io.NodeOutput(paste(face_crops, crops))


def _need(faces: list[Face], number: int, name: str) -> None:
    if not faces:
        raise FaceError(
            f"No face found in {name}. Use a picture with sharp faces, or raise the detection size "
            "in Load Face Analysis."
        )
    if number > len(faces):
        raise FaceError(
            f"Face {number} is wanted, and {len(faces)} found in {name}. Choose a lower number, "
            "or 0 for all faces."
        )


def _choose_small(faces: list[Face], max_face: int) -> list[Face]:
    return [face for face in faces if max_face == 0 or face.size[1] < max_face]


def _stand_in(shape: tuple[int, int], found: list[list[Face]], context: float) -> Cut:
    """Cut out the largest face, or the first picture's middle; Paste Faces leaves it out."""
    areas = [math.prod(faces[0].size) if faces else 0.0 for faces in found]
    index = areas.index(max(areas))
    return cut_untouched(index, shape, found[index][0] if found[index] else None, context)


def _describe(found: list[list[Face]], small: list[list[Face]], max_face: int) -> str:
    lines = [
        f"picture {index + 1}: {len(faces)} found, "
        + (f"cropped at heights of {_heights(cropped)} pixels" if cropped else "none cropped")
        for index, (faces, cropped) in enumerate(zip(found, small, strict=True))
    ]
    if not any(small):
        size = f" less than {max_face} pixels high" if max_face else ""
        lines.append(f"No face{size}: the crop is a stand-in, and Paste Faces leaves it out.")
    return "\n".join(lines)


def _heights(faces: list[Face]) -> str:
    return ", ".join(f"{face.size[1]:.0f}" for face in faces)
