"""Identities as files: pictures of a person without photos and without a face model."""

import logging
import os
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui
from einops import rearrange
from torch.nn.functional import interpolate

from ..infinite_id.adapters.adapter import Adapter
from ..infinite_id.identities import identity_file
from ..infinite_id.identities.identity import Identity
from . import folders, sockets
from .node import Node, tell


class SaveIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDSaveIdentity",
            display_name="Save Identity",
            category=sockets.CATEGORY,
            description="Writes an identity into a file. With Load Identity and the same adapter "
            "it gives the same pictures, without the photos and without a face model.",
            search_aliases=["export identity", "save face", "share identity"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                sockets.Identity.Input(
                    "identity", tooltip="From Encode Identity, or a mix of identities."
                ),
                io.String.Input(
                    "filename_prefix",
                    default="identities/person",
                    tooltip="Name of the file, in the output folder. Load Identity lists what is "
                    "below identities/. %year%, %month%, %day% and the like are replaced.",
                ),
                io.Combo.Input(
                    "overwrite",
                    options=["number", "replace"],
                    default="number",
                    tooltip="'number': every save makes a new file, _00001_ and so on. 'replace': "
                    "always the same file.",
                ),
                io.Boolean.Input(
                    "include_thumbnail",
                    default=True,
                    tooltip="Keep the small picture of each aligned face in the file, so that one "
                    "sees who it is.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, identity: Identity, filename_prefix: str, overwrite: str, include_thumbnail: bool
    ) -> io.NodeOutput:
        if not Path(filename_prefix).name.strip(". ") or not _is_name(filename_prefix):
            raise ValueError(
                "Save Identity: give the file a name in filename_prefix, such as "
                "'identities/person'."
            )
        output = folder_paths.get_output_directory()
        try:
            folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, output
            )
        except OSError as error:
            raise OSError(
                f"Save Identity cannot write below {output} ({error.strerror or error}). Give the "
                "account that runs ComfyUI the right to write there, or choose another "
                "filename_prefix."
            ) from error
        path = Path(folder, f"{stem}.safetensors")
        if overwrite == "replace":
            identity_file.save(identity, path, include_thumbnail)
        else:
            path = _save_numbered(identity, path, counter, include_thumbnail)
        place = Path(subfolder, path.name).as_posix()
        text = f"Saved output/{place}, {path.stat().st_size / 1e6:.2f} MB."
        logging.info("Infinite-ID: %s", text)
        tell(cls, text)
        pictures = _to_images(identity) if include_thumbnail else None
        return io.NodeOutput(
            ui={
                **_preview(cls, pictures),
                **ui.PreviewText(text).as_dict(),
                "identities": [ui.SavedResult(path.name, subfolder, io.FolderType.output)],
            }
        )


def _is_name(text: str) -> bool:
    """Whether the file system can encode the text as a name."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _save_numbered(identity: Identity, path: Path, number: int, thumbnails: bool) -> Path:
    """Write under the first free number from `number` on, even if others save at the same time."""
    while True:
        numbered = path.with_name(f"{path.stem}_{number:05}_{path.suffix}")
        try:
            identity_file.save(identity, numbered, thumbnails, is_new=True)
        except FileExistsError:
            number += 1
        else:
            return numbered


NOTHING_SAVED = "no identity file yet"
"""The entry of an empty list, for which the page would show `undefined`."""


class LoadIdentity(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteIDLoadIdentity",
            display_name="Load Identity",
            category=sockets.CATEGORY,
            description="Reads an identity that Save Identity wrote. Needs neither photos nor a "
            "face model, only the adapter that the identity was made with.",
            search_aliases=["import identity", "load face", "open identity"],
            inputs=[
                io.Combo.Input(
                    "identity_name",
                    options=folders.list_identities() or [NOTHING_SAVED],
                    tooltip="A .safetensors file in models/infinite_id_identities, in the input "
                    "folder, or in output/identities.",
                ),
                sockets.Adapter.Input(
                    "adapter",
                    tooltip="From Load Infinite-ID Model: the adapter that the identity was made "
                    "with. Another one is refused.",
                ),
            ],
            outputs=[
                sockets.Identity.Output(
                    "identity",
                    display_name="identity",
                    tooltip="For Apply Infinite-ID, or to be mixed.",
                ),
                io.Image.Output(
                    "thumbnails",
                    display_name="thumbnails",
                    tooltip="The aligned faces in the file; a black picture if it has none.",
                ),
                io.String.Output(
                    "info",
                    display_name="info",
                    tooltip="What the file holds, and the photos that it was made of.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, identity_name: str | None) -> bool | str:
        return folders.check(folders.find_identity, identity_name)

    @classmethod
    def fingerprint_inputs(cls, identity_name: str | None, **_: Any) -> Any:
        return folders.fingerprint(folders.find_identity, identity_name)

    @classmethod
    def execute(cls, identity_name: str, adapter: Adapter) -> io.NodeOutput:
        path = folders.find_identity(identity_name)
        identity = identity_file.load(path, adapter)
        pictures = _to_images(identity)
        return io.NodeOutput(
            identity,
            torch.zeros(1, 64, 64, 3) if pictures is None else pictures,
            describe(path.name, identity),
            ui=_preview(cls, pictures),
        )


def describe(name: str, identity: Identity) -> str:
    """What an identity holds, and a line for each photo."""
    n, tokens, _ = identity.tokens.shape
    kind = "an identity" if n == 1 else f"a row of {n} identities"
    lines = [f"{name} is {kind} of {tokens} tokens, made with {identity.adapter.name} from:"]
    return "\n".join(lines + [f"- {source.label}" for source in identity.sources])


def _to_images(identity: Identity) -> torch.Tensor | None:
    """The thumbnails as an IMAGE batch, all of the first one's size; None if there is none."""
    thumbnails = [s.thumbnail for s in identity.sources if s.thumbnail is not None]
    if not thumbnails:
        return None
    size = thumbnails[0].shape[:2]
    channels_first = [rearrange(x, "h w c -> 1 c h w").float() / 255 for x in thumbnails]
    batch = torch.cat([interpolate(x, size, mode="area") for x in channels_first])
    return rearrange(batch, "b c h w -> b h w c")


def _preview(cls: type[io.ComfyNode], images: torch.Tensor | None) -> dict[str, Any]:
    return {} if images is None else ui.PreviewImage(images, cls=cls).as_dict()
