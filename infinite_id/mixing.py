"""Identity mixing: several photos, or several people, as one identity."""

from collections.abc import Sequence

import torch

from .identity import Identity


def stack(identities: Sequence[Identity]) -> Identity:
    """Stack identities along the token axis (project page, 'identity mixing').

    Raises:
        ValueError: if the identities were made with different adapters.
    """
    adapter = identities[0].adapter
    for other in identities:
        if other.adapter is not adapter:
            raise ValueError(
                f"Identities of different adapters cannot be mixed: '{adapter.name}' and "
                f"'{other.adapter.name}'. Encode all photos with the same adapter."
            )
    return Identity(
        tokens=torch.cat([i.tokens for i in identities], dim=1),
        unconditional=torch.cat([i.unconditional for i in identities], dim=1),
        adapter=adapter,
        photos=tuple(photo for i in identities for photo in i.photos),
    )
