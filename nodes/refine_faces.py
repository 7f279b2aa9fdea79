"""Draws the small faces of a finished picture again, in one node."""

from typing import Any

import nodes as host
import torch
from comfy.samplers import KSampler
from comfy_api.latest import io, ui

from ..infinite_id.host.keys import APPLICATIONS
from . import sockets
from .detection import face_analysis_input
from .faces import SMALLER_FACES, CropFaces, PasteFaces, max_face_input, size_input
from .node import Node


class RefineFaces(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDRefineFaces",
            display_name="Refine Faces",
            category=sockets.CATEGORY,
            description="Finds the small faces in a picture, draws each again at the model's own "
            "size as the person, and puts it back behind a soft mask: Crop Small Faces, sampler "
            "and Paste Faces in one node. Elsewhere not a pixel changes.",
            search_aliases=["face detailer", "adetailer", "restore faces", "face fix"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="From Apply Infinite-ID with one person and without a mask. All faces "
                    "become this person.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt of the face alone, such as 'a photo of a woman'."
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                face_analysis_input(SMALLER_FACES),
                io.Image.Input("image", tooltip="Finished pictures, one or a batch."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the noise.",
                ),
                io.Int.Input(
                    "steps", default=20, min=1, max=10000, tooltip="As in the sampler's node."
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="As in the sampler's node.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=KSampler.SAMPLERS,
                    tooltip="As in the sampler's node.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=KSampler.SCHEDULERS,
                    tooltip="As in the sampler's node.",
                ),
                io.Float.Input(
                    "denoise",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of a face is drawn again: more is more like the person, less "
                    "keeps more of the picture.",
                ),
                size_input("At which each face is drawn, in pixels; 1024 for SDXL."),
                max_face_input(
                    "Only faces less than this many pixels high are drawn again. 0: all."
                ),
            ],
            outputs=[
                io.Image.Output(
                    "refined", display_name="image", tooltip="The pictures with their new faces."
                ),
                io.String.Output(
                    "info", display_name="info", tooltip="Which faces were found and drawn again."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        vae: Any,
        face_analysis: Any,
        image: torch.Tensor,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        size: int,
        max_face: int,
    ) -> io.NodeOutput:
        _check(model, vae)
        side = size // 8 * 8  # a latent's pixel is 8 x 8
        crops, masks, face_crops, info = CropFaces.execute(
            face_analysis, image, side, max_face, context=2.0, grow=1.2, feather=0.1, limit=8
        ).result
        if not masks.any():
            return io.NodeOutput(image, info)
        (latent,) = host.VAEEncode().encode(vae, crops)
        (latent,) = host.SetLatentNoiseMask().set_mask(latent, masks)
        (drawn,) = host.common_ksampler(
            model,
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent,
            denoise=denoise,
        )
        (refined,) = host.VAEDecode().decode(vae, drawn)
        pasted = PasteFaces.execute(face_crops, refined).result[0]
        return io.NodeOutput(pasted, info, ui=ui.PreviewImage(pasted, cls=cls))


def _check(model: Any, vae: Any) -> None:
    """Refuse what would draw wrong faces.

    Raises:
        ValueError: for a mask, which is of the whole picture and not of a face, a sweep, or no VAE.
    """
    if vae is None:
        raise ValueError(
            "Refine Faces: there is no VAE at 'vae': the file that it comes from holds none. Take "
            "Load VAE, or a whole checkpoint."
        )
    for application in model.model_options["transformer_options"].get(APPLICATIONS, ()):
        if application.mask is not None:
            raise ValueError(
                "Refine Faces: the model holds a person with a mask, which is of the whole picture "
                "and would fall on every face. Connect an Apply Infinite-ID without a mask; for "
                "several people crop, draw and paste each one's face by itself."
            )
        if application.identity.count > 1:
            raise ValueError(
                "Refine Faces: the model holds a sweep of several identities, and each face is "
                "drawn once. Set count to 1 in Blend Identities."
            )
