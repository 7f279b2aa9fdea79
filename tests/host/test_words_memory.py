"""What learning words takes: counts without storage are those with it, and what the pages say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from pack.dev.cache import ROOT
from pack.infinite_id import launch
from pack.infinite_id.stable_identity import command as embedding_command
from pack.infinite_id.stable_identity import host_count as embedding
from pack.infinite_id.staged_identity import command as staged_command
from pack.infinite_id.staged_identity import host_count as staged
from pack.infinite_id.words import host_count
from pack.infinite_id.words.host_count import KINDS, Counts, count, count_step, make_network
from pack.tests.host.stable_worlds import SMALL_UNET, WIDTHS

METHODS = {"stable-identity": embedding, "staged-identity": staged}
PUBLISHED = {"SDXL": 2_567_463_684, "SD 1.5": 859_520_964, "SD 2.1": 865_910_724}
"""Weights of the UNets."""
TEXT = {"num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 64}
SMALL = replace(
    KINDS["SDXL"],
    unet={
        **SMALL_UNET,
        "context_dim": WIDTHS["clip_l"] + WIDTHS["clip_g"],
        "num_classes": "sequential",
        "adm_in_channels": WIDTHS["clip_g"] + 6 * 256,
    },
    text_options={
        f"{key}_model_config": {**TEXT, "hidden_size": WIDTHS[key]} for key in ("clip_l", "clip_g")
    },
)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_counts_without_storage_are_those_with_it(method: Any) -> None:
    kept, twice = (count(method.make_step, SMALL, 256, way) for way in (False, True))
    for way, found in ((False, kept), (True, twice)):
        really = count_step(method.make_step, SMALL, 256, way)
        assert (really.models, really.learner) == (found.models, found.learner)
        assert really.step == pytest.approx(found.step, rel=0.01)
    assert twice.step < 0.7 * kept.step


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_have_their_published_sizes(kind: str) -> None:
    with torch.device("meta"):
        unet = make_network(KINDS[kind], torch.float16).diffusion_model
    assert sum(x.numel() for x in unet.parameters()) == PUBLISHED[kind]


@pytest.mark.parametrize(
    ("total", "card"), [(12.2, "12 GB"), (12.3, "16 GB"), (24.4, "24 GB"), (24.5, "none of them")]
)
def test_which_card_it_fits_on(total: float, card: str) -> None:
    """Cards are sold in GiB, of which 0.95 are free; 1.5 GB are the driver's."""
    assert Counts(models=int(1e9 * (total - 1.5)), learner=0, step=0).card == card


@pytest.mark.parametrize("command", [embedding_command, staged_command])
def test_the_commands_print_it(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "use_host", lambda _: None)
    monkeypatch.setattr(host_count, "KINDS", {"small": replace(SMALL, sides=(64, 128))})
    assert command.main(["plan"]) == 0
    head, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert " ".join(head.split()) == "model pixels activations models words step in all card"
    assert [row.split()[:3] for row in rows] == [
        ["small", side, kept] for side in ("64", "128") for kept in ("twice", "kept")
    ]
    assert all(row.endswith(" 1.5 GB  12 GB") for row in rows)  # the driver's


@pytest.mark.nightly
@pytest.mark.parametrize("name", METHODS)
def test_the_page_has_what_plan_prints(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert block[1] == METHODS[name].tell_plan()
