"""SeFi-IDE: a person as words that change with the noise level."""

from typing import Any

import torch
from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io, ui

from ..infinite_id.files import digest_of
from ..infinite_id.staged_identity import staged_file
from ..infinite_id.staged_identity.objective import LAMBDA
from ..infinite_id.words.naming import IfTaken, check_name, choose_path
from . import folders
from .detection import face_analysis_input
from .learning import (
    CATEGORY,
    NO_PARSER,
    checkpointing_input,
    find_parser,
    held_out_input,
    load_nets,
    loss_output,
    mask_inputs,
    output_folder,
    parser_input,
    rate_input,
    read_material,
    seed_input,
)
from .node import Node


class LearnStagedIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDLearnStagedIdentity",
            display_name="Learn Staged Identity",
            category=CATEGORY,
            description="Learns words for a person, or a thing, from one photo: a pair for each "
            "stage of the noise levels, one for the cross-attention's keys and one for its values "
            "(SeFi-IDE). For Staged Identity Prompt. Interrupted, it keeps what was learnt; queued "
            "again with the same inputs, it goes on.",
            search_aliases=["sefi-ide", "sefi", "staged tokens", "train embedding", "learn person"],
            is_experimental=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="SDXL, SD 1.5 or SD 2.1; it stays as it is."),
                io.Clip.Input("clip", tooltip="The model's text encoders; they stay as they are."),
                io.Vae.Input("vae", tooltip="The model's autoencoder."),
                io.Image.Input(
                    "images",
                    tooltip="One photo, or a batch of some of the same person. All of it is "
                    "learnt: crop it to what matters, or connect face_analysis.",
                ),
                io.String.Input(
                    "name",
                    default="people/person",
                    tooltip="Of the file, in models/infinite_id_staged; folders are allowed.",
                ),
                io.Combo.Input(
                    "if_taken",
                    options=[choice.value for choice in IfTaken],
                    default=IfTaken.STOP.value,
                    tooltip="If there is a file of this name: 'stop' with an error, 'number' the "
                    "new one, or 'replace' it.",
                ),
                io.Int.Input(
                    "steps",
                    default=600,
                    min=1,
                    max=100_000,
                    tooltip="Updates, in all. Raise it to go on.",
                ),
                rate_input(1e-4, 1e-7, "Not published; 1e-4 is this pack's choice."),
                seed_input("words"),
                io.Int.Input(
                    "size",
                    default=1024,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the picture in pixels: what the model was made for, 1024 for "
                    "SDXL, 512 for SD 1.5. Less takes less memory.",
                ),
                checkpointing_input(),
                io.String.Input(
                    "prompt",
                    default="a photo of the face of V*",
                    tooltip="What the photo shows, with 'V*' for the person. For a thing: 'a photo "
                    "of V*'.",
                ),
                io.String.Input(
                    "noun",
                    default="person",
                    tooltip="What the person is, in one word that the CLIP knows as one token. The "
                    "words begin as this one, and act where it does.",
                ),
                io.Float.Input(
                    "attention",
                    default=LAMBDA,
                    min=0.0,
                    max=1.0,
                    step=1e-4,
                    round=False,
                    tooltip="How much the words are held to where the noun acts. 0.003 is the "
                    "published best; less overfits, more learns less. 0: not at all.",
                ),
                io.Int.Input(
                    "stages",
                    default=5,
                    min=1,
                    max=20,
                    tooltip="Equal segments of the noise levels with words of their own. 5 is the "
                    "published best.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "split",
                    default=True,
                    tooltip="Words of their own for keys and for values. Off: the same for both, "
                    "for comparison.",
                    advanced=True,
                ),
                io.Int.Input(
                    "preview_every",
                    default=10,
                    min=0,
                    max=10_000,
                    tooltip="Steps between previews, each a step's work more; 0: none.",
                    advanced=True,
                ),
                face_analysis_input(
                    "Cuts the largest face out of each photo, upright, with hair and chin.",
                    optional=True,
                ),
                io.Boolean.Input(
                    "masked",
                    default=False,
                    optional=True,
                    tooltip="Learn the face, and a little of the hair, and nothing else of the "
                    "photo. Off, as published: all of the picture.",
                    advanced=True,
                ),
                *mask_inputs(),
                held_out_input(),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Gives the face vectors that are compared with held_out; else "
                    "face_analysis does.",
                ),
                parser_input(),
            ],
            outputs=[
                io.Combo.Output(
                    "identity",
                    display_name="identity",
                    tooltip="The file's name, for Staged Identity Prompt.",
                ),
                loss_output(),
                io.Image.Output(
                    "pictures", display_name="pictures", tooltip="What is learnt, of each photo."
                ),
                io.String.Output("info", display_name="info", tooltip="What was seen and done."),
                io.Mask.Output(
                    "mask", display_name="mask", tooltip="The face in the pictures, as learnt."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, face_parser: str | None = NO_PARSER, **_: Any) -> Any:
        chosen = None if face_parser == NO_PARSER else face_parser
        return folders.fingerprint(find_parser, chosen)

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        images: torch.Tensor,
        name: str,
        if_taken: str,
        steps: int,
        learning_rate: float,
        training_seed: int,
        size: int,
        gradient_checkpointing: bool,
        prompt: str,
        noun: str,
        attention: float,
        stages: int,
        split: bool,
        preview_every: int,
        face_analysis: Any = None,
        masked: bool = False,
        face_mask: torch.Tensor | None = None,
        hair_mask: torch.Tensor | None = None,
        person_mask: torch.Tensor | None = None,
        held_out: torch.Tensor | None = None,
        clip_vision: Any = None,
        face_parser: str = NO_PARSER,
    ) -> io.NodeOutput:
        from ..infinite_id.staged_identity.host_learn import (
            Lesson,
            Wishes,
            check_prompt,
            describe,
            learn,
        )
        from ..infinite_id.training.host_graph import make_follow, make_tell

        check_prompt(prompt)
        material = read_material(images, face_mask, hair_mask, person_mask, held_out)
        wishes = Wishes(
            steps,
            learning_rate,
            training_seed,
            size,
            stages,
            split,
            attention,
            prompt,
            noun.strip(),
            gradient_checkpointing,
            masked,
        )
        nets = load_nets(face_analysis, clip_vision, face_parser)
        lesson = Lesson(model, clip, vae, nets, material, wishes)
        origin = describe(lesson)
        root, run = folders.roots(folders.STAGED)[0], digest_of(origin)
        path = choose_path([root], check_name(name), IfTaken(if_taken), run, staged_file.read_run)
        node = cls.hidden.unique_id
        result = learn(
            lesson,
            origin,
            output_folder(folders.RUNS),
            make_tell(node),
            make_follow(node, preview_every),
        )
        if result.run.step:
            staged_file.save(result.staged, path, replaces=path.exists())
        if not result.run.whole:
            raise InterruptProcessingException
        pictures = torch.stack([square.picture.permute(1, 2, 0) for square in result.squares])
        chosen = path.relative_to(root).as_posix()
        return io.NodeOutput(
            chosen,
            {"loss": result.run.losses},
            pictures,
            "\n".join([*result.lines, f"{chosen}: {result.told}"]),
            torch.cat([square.masks.face for square in result.squares]),
            ui=ui.PreviewImage(pictures, cls=cls),
        )
