"""A prompt with people whose words change with the noise level."""

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..infinite_id.staged_identity import staged_file
from . import folders, sockets
from .node import Node

NONE = "[None]"
NOTHING_LEARNT = "no staged identity yet"
"""The entry of an empty list, for which the page would show `undefined`."""
FURTHER = ("identity_2", "identity_3", "identity_4")
"""The inputs for `V2*`, `V3*` and `V4*`."""


class StagedIdentityPrompt(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folders.list_files(folders.STAGED)
        return io.Schema(
            node_id="InfiniteIDStagedIdentityPrompt",
            display_name="Staged Identity Prompt",
            category=sockets.CATEGORY,
            description="Encodes a prompt that names a person as 'V*', by a file of Learn Staged "
            "Identity. The model must go through Apply Staged Identity; else it reads the mean of "
            "all stages, as an ordinary embedding.",
            search_aliases=["sefi-ide", "sefi", "staged tokens", "V*", "text encode"],
            is_experimental=True,
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoders like those that it was learnt with."),
                io.String.Input(
                    "prompt",
                    default="a photo of V*",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="With 'V*' for the person, as often as you like; weights as in "
                    "'(V*:1.2)' and 'embedding:name' work. Further people are 'V2*', 'V3*' and "
                    "'V4*'.",
                ),
                io.Combo.Input(
                    "identity",
                    options=files or [NOTHING_LEARNT],
                    tooltip="Who 'V*' is: a file in models/infinite_id_staged.",
                ),
                *(
                    io.Combo.Input(
                        name,
                        options=[NONE, *files],
                        default=NONE,
                        optional=True,
                        advanced=True,
                        tooltip=f"Who 'V{name[-1]}*' is.",
                    )
                    for name in FURTHER
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="For a sampler, as positive. Its pooled vector is that of the middle "
                    "stage.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, identity: str | None) -> bool | str:
        return folders.check(find_staged, identity)

    @classmethod
    def fingerprint_inputs(cls, identity: str | None, **others: Any) -> Any:
        chosen = [identity, *(others.get(name) for name in FURTHER)]
        return [folders.fingerprint(find_staged, name) for name in chosen if name != NONE]

    @classmethod
    def execute(
        cls,
        clip: Any,
        prompt: str,
        identity: str,
        identity_2: str = NONE,
        identity_3: str = NONE,
        identity_4: str = NONE,
    ) -> io.NodeOutput:
        from ..infinite_id.staged_identity.host_prompt import PLACES, encode

        chosen = dict(zip(PLACES, (identity, identity_2, identity_3, identity_4), strict=True))
        people = {
            place: staged_file.load(find_staged(name)).words
            for place, name in chosen.items()
            if name != NONE
        }
        return io.NodeOutput(encode(clip, prompt, people))


def find_staged(choice: str) -> Path:
    """A file of staged words. Raises FileNotFoundError."""
    return folders.find_file(folders.STAGED, choice, "staged identity", "Staged Identity Prompt")
