"""An embedding between two people."""

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..infinite_id.files import digest_of
from ..infinite_id.stable_identity import word_file
from ..infinite_id.stable_identity.keep import choose_place, keep
from ..infinite_id.words.naming import IfTaken
from . import folders
from .learn_embedding import find_learned, name_inputs
from .learning import CATEGORY
from .node import Node


class MixEmbeddings(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folders.list_files(folders.EMBEDDINGS)
        return io.Schema(
            node_id="InfiniteIDMixEmbeddings",
            display_name="Mix Identity Embeddings",
            category=CATEGORY,
            description="Makes an embedding that lies between two people, of embeddings that Learn "
            "Identity Embedding has written for the same CLIP.",
            search_aliases=["blend embeddings", "interpolate people", "merge embeddings"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.Combo.Input("first", options=files, tooltip="A learned embedding."),
                io.Combo.Input("second", options=files, tooltip="Another one."),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Of the second person: 0 is the first, 1 the second.",
                ),
                *name_inputs("people/mix"),
            ],
            outputs=[
                io.String.Output(
                    "embedding",
                    display_name="embedding",
                    tooltip="What to write into a prompt, 'embedding:' and the name.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, first: str | None, second: str | None, **_: Any) -> Any:
        """Either file changes under the same name if it is learnt further."""
        find = partial(find_learned, folders.EMBEDDINGS)
        return [folders.fingerprint(find, choice) for choice in (first, second)]

    @classmethod
    def execute(
        cls, first: str, second: str, share: float, name: str, if_taken: str
    ) -> io.NodeOutput:
        a, b = (
            word_file.load(find_learned(folders.EMBEDDINGS, choice)) for choice in (first, second)
        )
        run = digest_of("mix", a.run, b.run, share)
        roots = folders.roots(folders.EMBEDDINGS)
        mappers = folders.roots(folders.MAPPERS)[0]
        place = choose_place(roots, mappers, name, IfTaken(if_taken), run)
        keep(place, word_file.mix(a, b, share, run), None)
        return io.NodeOutput(place.prompt)
