"""StableIdentity: a person as two words, in a file that every prompt can name."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io, ui

from ..infinite_id.files import digest_of
from ..infinite_id.stable_identity import mapper_file
from ..infinite_id.stable_identity.celebs import read_names
from ..infinite_id.stable_identity.keep import choose_place, keep
from ..infinite_id.stable_identity.mapper import Landing
from ..infinite_id.stable_identity.objective import Phases
from ..infinite_id.words.naming import IfTaken
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

NONE = "[None]"
PERSON = "*"
"""Stands for the person in the prompt of the node."""


def name_inputs(default: str) -> list[io.Input]:
    """Inputs for the name of an embedding, and for what to do if it is taken."""
    return [
        io.String.Input(
            "name",
            default=default,
            tooltip="Of the embedding, in models/embeddings; folders are allowed. A prompt names "
            "it by 'embedding:' and this name.",
        ),
        io.Combo.Input(
            "if_taken",
            options=[choice.value for choice in IfTaken],
            default=IfTaken.STOP.value,
            tooltip="If there is an embedding of this name: 'stop' with an error, 'number' the new "
            "one, or 'replace' one that this node has written, and no other.",
        ),
    ]


class LearnEmbedding(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDLearnEmbedding",
            display_name="Learn Identity Embedding",
            category=CATEGORY,
            description="Learns two words for a person from one photo (StableIdentity), and writes "
            "them into models/embeddings: any prompt can name the person, with no node of this "
            "pack. Interrupted, it keeps what was learnt; queued again with the same inputs, it "
            "goes on.",
            search_aliases=[
                "stableidentity",
                "textual inversion",
                "train embedding",
                "learn person",
            ],
            is_experimental=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="SDXL, SD 1.5 or SD 2.1; it stays as it is."),
                io.Clip.Input("clip", tooltip="The model's text encoders; they stay as they are."),
                io.Vae.Input("vae", tooltip="The model's autoencoder."),
                io.Image.Input(
                    "images", tooltip="One photo of the person, or a batch of some; a sharp face."
                ),
                *name_inputs("people/person"),
                io.Int.Input(
                    "steps",
                    default=450,
                    min=0,
                    max=100_000,
                    tooltip="Updates, in all. Raise it to go on. 0: no training, only the words of "
                    "these photos by an identity in 'go_on_from'.",
                ),
                rate_input(5e-5, 1e-7, "5e-5 is the published one."),
                seed_input("words"),
                io.Int.Input(
                    "size",
                    default=1024,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the headshot in pixels: what the model was made for, 1024 for "
                    "SDXL, 512 for SD 1.5. Less takes less memory.",
                ),
                checkpointing_input(),
                io.String.Input(
                    "prompt",
                    default=f"a photo of {PERSON}, facing the camera, best quality",
                    tooltip="To try at once: the conditioning is of this text, with the person in "
                    "place of '*'.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=10,
                    min=0,
                    max=10_000,
                    tooltip="Steps between previews, each a step's work more; 0: none.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "landing",
                    options=[choice.value for choice in Landing],
                    default=Landing.JOINT.value,
                    tooltip="How the words come to lie among names: 'joint' as in the published "
                    "code, 'per word' as in the paper, 'none' for comparison.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "loss",
                    options=[choice.value for choice in Phases],
                    default=Phases.BOTH.value,
                    tooltip="'two phases' is the method; the others are for comparison.",
                    advanced=True,
                ),
                io.Boolean.Input(
                    "masked",
                    default=True,
                    tooltip="Learn the face, and a little of the hair, and nothing else of the "
                    "photo.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "go_on_from",
                    options=[NONE, *folders.list_files(folders.MAPPERS)],
                    default=NONE,
                    tooltip="A person who was learnt here before, to begin with.",
                    advanced=True,
                ),
                face_analysis_input(
                    "Finds the face, and gives its vector if no CLIP vision is connected.",
                    optional=True,
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Gives the face vector instead. Alone, it takes the photo's middle "
                    "square for the headshot, and needs a face_mask.",
                ),
                *mask_inputs(),
                held_out_input(),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Names of two words, one a line, that this CLIP knows as single "
                    "tokens. Empty: the pack's own list.",
                    advanced=True,
                ),
                parser_input(),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="The prompt with the person, for a sampler.",
                ),
                loss_output(),
                io.String.Output(
                    "embedding",
                    display_name="embedding",
                    tooltip="What to write into a prompt, 'embedding:' and the name.",
                ),
                io.Image.Output(
                    "headshot", display_name="headshot", tooltip="What is learnt, of each photo."
                ),
                io.Mask.Output(
                    "mask", display_name="mask", tooltip="The face in the headshots, as learnt."
                ),
                io.String.Output("info", display_name="info", tooltip="What was seen and done."),
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, go_on_from: str | None, face_parser: str | None = NO_PARSER, **_: Any
    ) -> Any:
        learned = None if go_on_from == NONE else go_on_from
        parser = None if face_parser == NO_PARSER else face_parser
        return (
            folders.fingerprint(partial(find_learned, folders.MAPPERS), learned),
            folders.fingerprint(find_parser, parser),
        )

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
        preview_every: int,
        landing: str,
        loss: str,
        masked: bool,
        go_on_from: str,
        face_analysis: Any = None,
        clip_vision: Any = None,
        face_mask: torch.Tensor | None = None,
        hair_mask: torch.Tensor | None = None,
        person_mask: torch.Tensor | None = None,
        held_out: torch.Tensor | None = None,
        names: str = "",
        face_parser: str = NO_PARSER,
    ) -> io.NodeOutput:
        from ..infinite_id.stable_identity.host_learn import (
            Lesson,
            Wishes,
            describe,
            learn,
        )
        from ..infinite_id.training.host_graph import make_follow, make_tell

        check_prompt(prompt)
        nets = load_nets(face_analysis, clip_vision, face_parser)
        material = read_material(images, face_mask, hair_mask, person_mask, held_out)
        wishes = Wishes(
            steps,
            learning_rate,
            training_seed,
            size,
            read_names(names),
            gradient_checkpointing,
            Landing(landing),
            Phases(loss),
            masked,
        )
        start = (
            None
            if go_on_from == NONE
            else mapper_file.load(find_learned(folders.MAPPERS, go_on_from))
        )
        lesson = Lesson(model, clip, vae, nets, material, wishes, start)
        origin = describe(lesson)
        place = choose_place(
            folders.roots(folders.EMBEDDINGS),
            folders.roots(folders.MAPPERS)[0],
            name,
            IfTaken(if_taken),
            digest_of(origin),
        )
        node = cls.hidden.unique_id
        result = learn(
            lesson,
            origin,
            output_folder(folders.RUNS),
            make_tell(node),
            make_follow(node, preview_every),
        )
        if result.run.step or result.run.whole:
            keep(place, result.words, result.learned)
        if not result.run.whole:
            raise InterruptProcessingException
        headshots = torch.stack([p.headshot.permute(1, 2, 0) for p in result.portraits])
        return io.NodeOutput(
            encode_prompt(clip, prompt, place.prompt),
            {"loss": result.run.losses},
            place.prompt,
            headshots,
            torch.cat([portrait.masks.face for portrait in result.portraits]),
            "\n".join([*result.lines, f"{place.prompt}: {result.told}"]),
            ui=ui.PreviewImage(headshots, cls=cls),
        )


def check_prompt(prompt: str) -> None:
    """Raises ValueError if there is no place for the person."""
    if PERSON not in prompt:
        raise ValueError("The prompt has no '*' to stand for the person, such as 'a photo of *'.")


def encode_prompt(clip: Any, prompt: str, person: str) -> Any:
    """Encode a prompt by the host's CLIP Text Encode, with the person's embedding for each `*`."""
    # The host recognises an embedding by the space before it.
    text = prompt.replace(PERSON, f" {person} ")
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def find_learned(folder: str, choice: str) -> Path:
    """A file of one of the two folders of learned identities. Raises FileNotFoundError."""
    return folders.find_file(folder, choice, "learned embedding", "Learn Identity Embedding")
