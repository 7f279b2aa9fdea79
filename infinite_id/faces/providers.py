"""Where onnxruntime runs the face nets: on which kind of GPU, or on the CPU."""

from collections.abc import Sequence

import torch

from .face import FaceError

PROVIDERS = {
    "CUDA": "CUDAExecutionProvider",
    "ROCm": "ROCMExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
"""Names for the user, best first, and onnxruntime's names."""

_SMALLEST_NET = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a0808011204"
    "0a020801620f0a0179120a0a08080112040a02080142040a00100d"
)
"""An ONNX file of one Identity node, operator set 13: enough to start a provider with."""


def choose_providers(choice: str, available: Sequence[str]) -> list[str]:
    """onnxruntime's providers in the order in which it tries them.

    Args:
        choice: "auto" for the best there is, or a key of `PROVIDERS`.
        available: what this onnxruntime was built with.

    Raises:
        FaceError: if the chosen provider is not available.
    """
    if choice == "auto":
        # onnxruntime-gpu lists CUDA on machines without a GPU, too, and complains when it is used.
        useless = set() if torch.cuda.is_available() else {PROVIDERS["CUDA"]}
        return [name for name in PROVIDERS.values() if name in available and name not in useless]
    if PROVIDERS[choice] not in available:
        raise FaceError(
            f"onnxruntime has no {choice} provider here; it has {', '.join(available)}. Choose "
            "'auto', or install the onnxruntime that brings it (for CUDA: uninstall onnxruntime, "
            "then install onnxruntime-gpu)."
        )
    return list(dict.fromkeys([PROVIDERS[choice], PROVIDERS["CPU"]]))


def find_working_provider() -> str:
    """Return the key of `PROVIDERS` that "auto" uses here. A small net is loaded to find out.

    If a listed provider lacks its libraries, the net runs on the CPU.
    Raises ImportError if onnxruntime cannot be imported.
    """
    from onnxruntime import InferenceSession, get_available_providers

    wanted = choose_providers("auto", get_available_providers())
    used = InferenceSession(_SMALLEST_NET, providers=wanted).get_providers()[0]
    return next(name for name, provider in PROVIDERS.items() if provider == used)
