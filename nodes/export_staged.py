"""Staged words as an ordinary embedding."""

from comfy_api.latest import io

from ..infinite_id.staged_identity import embedding_file, staged_file
from ..infinite_id.words.naming import IfTaken, check_name, choose_path
from . import folders
from .learn_embedding import name_inputs
from .learning import CATEGORY
from .node import Node
from .staged_prompt import NOTHING_LEARNT, find_staged


class ExportStagedIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDExportStagedIdentity",
            display_name="Export Staged Identity",
            category=CATEGORY,
            description="Writes the mean of all stages of a staged identity as an ordinary "
            "embedding: any prompt can name the person without nodes of this pack, and less well.",
            search_aliases=["sefi-ide", "staged to embedding", "textual inversion"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "identity",
                    options=folders.list_files(folders.STAGED) or [NOTHING_LEARNT],
                    tooltip="A file in models/infinite_id_staged.",
                ),
                *name_inputs("people/person"),
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
    def execute(cls, identity: str, name: str, if_taken: str) -> io.NodeOutput:
        staged = staged_file.load(find_staged(identity))
        roots = folders.roots(folders.EMBEDDINGS)
        path = choose_path(
            roots, check_name(name), IfTaken(if_taken), staged.origin.run, embedding_file.read_run
        )
        embedding_file.save(staged, path)
        inside = path.relative_to(roots[0]).as_posix().removesuffix(".safetensors")
        return io.NodeOutput(f"embedding:{inside}")
