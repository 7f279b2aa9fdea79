"""The same adapter file through a peer pack's own nodes and through ours, on one UNet.

Not a test: it runs other packs' code, of which nothing is kept here. Give checkouts of
ComfyUI_IPAdapter_plus and ComfyUI_InstantID (either may be missing), and a ComfyUI:

    COMFYUI_PATH=... IPADAPTER_PLUS_PATH=... INSTANTID_PATH=... \\
        python tests/interop/compare_peers.py

The UNet is narrow, with SDXL's 70 layers and widths of context; files have the published shapes
but for the UNet's widths and those of the small CLIP encoder. Identity attention only, fp32.
Printed are

    layers                how many of the 70 the peer's hooks name
    theirs, ours          megabytes that sampling keeps beside the UNet: the peer's projections,
                          and our projected tokens; scaled from this narrow UNet in fp32 to SDXL's
                          widths in fp16
    258 tokens            ours for a native adapter's identity, likewise

and relative differences |ours - theirs| / |theirs|:

    tokens, no identity   what the image projection gives, for the face and for none
    as it is              the UNet's output for the positive, the peer unchanged
    70 layers             the same, with the peer's ("middle", 1, i) moved to ("middle", 0, i), the
                          block that exists
    guided                positive and negative, 70 layers
    one negative          the same, with our tokens for no identity in the peer's hooks: theirs are
                          those of a black picture where the adapter reads CLIP states
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))  # the host, and the pack as `pack`

import comfy.clip_vision  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from pack.bench.adapter_files import write_safetensors  # noqa: E402
from pack.bench.peer_pack import (  # noqa: E402
    CLIP_WIDTH,
    SIZE,
    TOKEN_WIDTH,
    WEIGHT,
    encode,
    get_hooks,
    import_peer,
    measure,
    patch_by_peer,
)
from pack.bench.unet_adapters import make_file  # noqa: E402
from pack.infinite_id.adapters.formats import ip_adapter  # noqa: E402
from pack.infinite_id.application import Application  # noqa: E402
from pack.infinite_id.attention.blocks import SDXL, list_layers  # noqa: E402
from pack.infinite_id.attention.mixed import Mixing  # noqa: E402
from pack.infinite_id.host.patch import apply  # noqa: E402
from pack.miniature.host import register  # noqa: E402
from pack.miniature.random_weights import randomise, write  # noqa: E402
from pack.miniature.shapes import UNETS  # noqa: E402
from pack.tests.host.world import difference, sample  # noqa: E402
from torch import Tensor  # noqa: E402

PEERS = {
    "IPADAPTER_PLUS_PATH": (
        "FaceID",
        "FaceID PlusV2",
        "FaceID Portrait",
        "FaceID Portrait unnorm",
        "Plus Face",
        "Plus",
    ),
    "INSTANTID_PATH": ("InstantID",),
}
COUNTS = ("layers", "theirs", "ours", "258 tokens")
COLUMNS = ("tokens", "no identity", "as it is", "70 layers", "guided", "one negative")


def make_model() -> ModelPatcher:
    shape = UNETS["deep"].config() | {"context_dim": TOKEN_WIDTH, "adm_in_channels": 2816}
    cpu = torch.device("cpu")
    model = comfy.model_base.SDXL(comfy.supported_models.SDXL(shape), device=cpu)
    unet = model.diffusion_model.to(torch.float32)
    unet.load_state_dict(randomise(unet, seed=0))
    unet.dtype = torch.float32
    model.manual_cast_dtype = None
    return ModelPatcher(model, cpu, cpu)


def draw_prompt(seed: int) -> list[list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, 1280, generator=generator)
    return [[torch.randn(1, 77, TOKEN_WIDTH, generator=generator), {"pooled_output": pooled}]]


def run(model: ModelPatcher, cfg: float) -> Tensor:
    """The UNet's output at the first step, rows of both conds if guided."""
    outputs: list[Tensor] = []
    unet = model.model.diffusion_model
    handle = unet.register_forward_hook(lambda _m, _a, output: outputs.append(output.clone()))
    try:
        sample(model, positive=draw_prompt(1), negative=draw_prompt(2), steps=1, cfg=cfg)
    finally:
        handle.remove()
    return outputs[0]


def compare(
    peer: ModuleType, kind: str, folder: Path, model: ModelPatcher, clip: Any
) -> dict[str, float]:
    image = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(7))
    tensors = make_file(model.model.diffusion_model, kind, TOKEN_WIDTH, CLIP_WIDTH)
    # The peer tells PlusV2 by the file's name.
    file = write_safetensors(folder / f"{kind.replace(' ', '-').lower()}.safetensors", tensors)
    theirs, crop = patch_by_peer(peer, kind, file, model, clip, image)
    identity = encode(file, clip, crop)
    file.unlink()
    ours = apply(model, Application(identity, weight=WEIGHT, mixing=Mixing.OFF))
    hooks = get_hooks(theirs)
    told = hooks["input", 4, 0].kwargs[0]
    blocks = list_layers(model.model.diffusion_model)
    both = (identity.projections, identity.unconditional_projections)
    stored = [p.on(torch.device("cpu"), torch.float32) for p in both]
    scale = sum(SDXL.values()) / sum(blocks.values()) / 2
    found: dict[str, float] = {
        "layers": len(hooks.keys() & blocks.keys()),
        "theirs": scale * measure(told["ipadapter"].ip_layers.parameters()),
        "ours": scale * measure(x for values in stored for pair in values.values() for x in pair),
        "258 tokens": 258 * 2 * 2 * sum(SDXL.values()) / 1e6,
        "tokens": difference(identity.tokens, told["cond"]),
        "no identity": difference(identity.unconditional, told["uncond"]),
        "as it is": difference(run(ours, 1.0), run(theirs, 1.0)),
    }
    for index in range(10):
        if ("middle", 1, index) in hooks:
            hooks["middle", 0, index] = hooks.pop(("middle", 1, index))
    found["70 layers"] = difference(run(ours, 1.0), run(theirs, 1.0))
    found["guided"] = difference(run(ours, 5.0), run(theirs, 5.0))
    for hook in hooks.values():
        hook.kwargs[0]["uncond"] = identity.unconditional
    found["one negative"] = difference(run(ours, 5.0), run(theirs, 5.0))
    return found


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    register()
    model = make_model()
    ip_adapter.SDXL = list_layers(model.model.diffusion_model)
    print(f"{'':24}", *(f"{column:>12}" for column in (*COUNTS, *COLUMNS)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = comfy.clip_vision.load(str(write(folder, "tiny")["clip_vision"]))
        for variable, kinds in PEERS.items():
            if variable not in os.environ:
                print(f"{variable} is not set: {', '.join(kinds)} not compared")
                continue
            peer = import_peer(Path(os.environ[variable]))
            for kind in kinds:
                found = compare(peer, kind, folder, model, clip)
                counts = (f"{found[column]:12.4g}" for column in COUNTS)
                differences = (f"{found[column]:12.1e}" for column in COLUMNS)
                print(f"{kind:24}", *counts, *differences, flush=True)


if __name__ == "__main__":
    main()
