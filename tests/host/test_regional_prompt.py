"""A prompt for one place: the host's own three nodes in one, with people beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import nodes
import pytest
import torch
from pack.infinite_id.application import Application
from pack.infinite_id.host.patch import apply
from pack.infinite_id.regions import column
from pack.miniature.random_weights import write
from pack.nodes.regional_prompt import RegionalPrompt
from pack.tests.host.world import World, difference

if TYPE_CHECKING:
    from pack.tests.host.conftest import Loader


@pytest.fixture(scope="module")
def clip(worlds: Loader, tmp_path_factory: pytest.TempPathFactory) -> Any:
    worlds("least")  # which tells the host of the miniature
    folder: Path = tmp_path_factory.mktemp("regional")
    folder_paths.add_model_folder_path("checkpoints", str(folder))
    name = write(folder, "least")["checkpoint"].name
    return nodes.CheckpointLoaderSimple().load_checkpoint(name)[1]


def regional(clip: Any, world: World, mask: Any, strength: float = 1.0) -> Any:
    return RegionalPrompt.execute(
        clip, world.positive, mask=mask, prompt="a man in the snow", strength=strength
    ).result[0]


@pytest.mark.parametrize("mask", [column(2, 2, 0.1), column(2, 2, 0.1)[0]], ids=["3d", "2d"])
def test_it_draws_what_the_hosts_nodes_draw(least: World, clip: Any, mask: Any) -> None:
    text = nodes.CLIPTextEncode().encode(clip, "a man in the snow")[0]
    placed = nodes.ConditioningSetMask().append(text, mask, "default", 0.7)[0]
    expected = nodes.ConditioningCombine().combine(least.positive, placed)[0]
    theirs = least.sample(least.patch(), positive=expected)
    ours = least.sample(least.patch(), positive=regional(clip, least, mask, 0.7))
    assert torch.equal(ours, theirs)
    assert len(least.positive) == 1, "the prompt that came in is not changed"


def test_each_person_has_its_own_prompt_at_its_mask(tiny: World, clip: Any) -> None:
    """What the text adds, with two people in the picture, it adds mostly where its mask is."""
    left, right = (column(number, 2, 0.0) for number in (1, 2))
    model = apply(apply(tiny.model, Application(tiny.identity, mask=left)), _person(tiny, right))
    plain = tiny.sample(model)
    for mask, inside, outside in (
        (left, slice(0, 8), slice(8, 16)),
        (right, slice(8, 16), slice(0, 8)),
    ):
        drawn = tiny.sample(model, positive=regional(clip, tiny, mask))
        near = difference(drawn[..., inside], plain[..., inside])
        far = difference(drawn[..., outside], plain[..., outside])
        assert near > 1.5 * far > 0


def _person(world: World, mask: torch.Tensor) -> Application:
    return Application(world.other, mask=mask)


def test_a_checkpoint_without_text_encoders(least: World) -> None:
    with pytest.raises(ValueError, match=r"holds no text encoders\. Connect Load CLIP"):
        regional(None, least, column(1, 2, 0.0))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.full((1, 8, 8), torch.nan), r"holds values that are not numbers \(NaN\)"),
        (torch.zeros(0, 8, 8), r"is empty, of shape \(0, 8, 8\)"),
        (torch.zeros(1, 8, 0), r"is empty, of shape \(1, 8, 0\)"),
    ],
)
def test_a_mask_that_is_none_is_refused(
    least: World, clip: Any, mask: torch.Tensor, message: str
) -> None:
    """The whole picture would be NaN, or the sampler would fail."""
    with pytest.raises(ValueError, match=f"Regional Prompt: the mask {message}"):
        regional(clip, least, mask)


def test_a_mask_is_brought_to_0_to_1(least: World, clip: Any) -> None:
    """Below 0 the host would divide by 0, and the picture would be NaN."""
    mask = 2 * column(1, 2, 0.0) - 1
    expected = least.sample(least.patch(), positive=regional(clip, least, column(1, 2, 0.0)))
    ours = least.sample(least.patch(), positive=regional(clip, least, mask))
    assert torch.equal(ours, expected)
