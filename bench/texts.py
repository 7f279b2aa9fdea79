"""The text of `docs/benchmark.md` around its figures."""

from __future__ import annotations

PEER = "IPADAPTER_PLUS_PATH"
"""The environment variable with the path of a checkout of ComfyUI_IPAdapter_plus to compare."""


def paragraph(text: str) -> str:
    return " ".join(text.split())


def table(columns: list[str], rows: list[list[str]], align: str = "---:") -> str:
    lines = [columns, ["---", *[align] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


SETTINGS = {
    "identity attention only": "Apply Infinite-ID: *mixed_attention* off, *style* photo",
    "two streams, mutual attention": "Apply Infinite-ID: *mixed_attention* mutual",
    "two streams, mixed attention": "Apply Infinite-ID as it is: the paper's method",
    "the same with AdaIN-mean": "Apply Infinite-ID: *style* style (AdaIN-mean)",
    "text stream every nth step": "Save Time: *text_every* n",
    "sweep of 8, per picture": "Blend Identities: *count* 8",
    "both prompts the same": "one text, or none, as positive and as negative prompt",
    "deep features every nth step": "Save Time: *preset* fast (n = 2) or draft (n = 3)",
    "deep features every 2nd step, text every 4th": "Save Time: *deep_every* 2, *text_every* 2",
    "text stream remembered": "Save Time, before Apply: *remember_text*; the second person's run",
    "mixed attention in the first half": "Save Time: *mix_until* 0.5",
    "no text stream on negative rows": "Save Time: *text_guidance* off",
    "shared latents": "Save Time: *shared_latents* on",
}
INTRODUCTION = "\n\n".join(
    [
        "# What it costs",
        paragraph("""
            A step is what the sampler asks for at each noise level: the UNet for the positive and
            the negative prompt. Figures are in plain steps, those of the same model without the
            pack in the same run, unless a unit stands beside them. They come from the command under
            each table, on the machine named there; `benchmark.json` has all of them. Machines of
            one name differ in speed: seconds compare within a table only. Where there is a GPU, the
            same commands measure that.
        """),
        paragraph("""
            Each timed step lies between two plain ones: median and quartiles of its ratio to their
            mean, on the wall and in the processors' time. *MB more* is above plain's peak. Where
            little memory is free, the host runs the prompts of a large batch one after the other,
            which takes less of it. On a CPU a large batch, plain or not, also pays for memory:
            what is larger than 32 MB, glibc maps anew each time.
        """),
        table(["mode", "how to set it"], list(map(list, SETTINGS.items())), align="---"),
    ]
)
COUNTS = paragraph("""
    One picture with an identity of 258 tokens in fp16, counted on tensors that have shapes and no
    values, so the same on every machine. FLOPs are two for each multiplication with addition in
    convolutions, linear layers and attention. The least possible is derived from the UNet's shape
    (`bench/limit.py`): the rows that there must be, the identity's attention in its rows, and
    twice the keys where attention is mixed.
""")
FLOPS = paragraph("""
    FLOPs of a step of one picture, in plain steps; the least possible stands behind them where it
    is less:
""")
MOVED = paragraph("""
    Bytes moved, in plain steps: the sizes of all tensors that PyTorch's operators read and write
    but for views; the weights, read once for all rows, are among them. Memory: the most that a
    step's tensors take at once, above plain's, with the text stream's features where they are kept
    for later steps. Left out is a copy that only a GPU needs: K', V' of *no identity*, {brought}
    for 258 tokens, wait in the CPU's memory and are brought layer by layer. Those of less than
    16 MB (FaceID, InstantID, Plus Face) stay on the GPU.
""")
NARROW = paragraph("""
    At a tenth of SDXL's width attention is a larger part of a step, and what is not arithmetic
    shows most: this tells how much of that there is, not what SDXL costs.
""")
ATTENTION = paragraph("""
    A plain step takes {plain:.2f} s; its attention calls alone, in the same shapes,
    {attention:.2f} s: a FLOP of attention takes {price:.1f} times as long as one of convolutions
    and linear layers. With that price the least FLOPs become the least time, in plain steps, of
    whoever calls PyTorch's attention on this machine.
""")
TIMED = {"sdxl": "", "small": f" {NARROW}"}
PEERS = paragraph("""
    Identity attention of one adapter file (Plus Face, 16 tokens) by ComfyUI_IPAdapter_plus and by
    this pack, in all 70 layers of both, in the same run:
""")
