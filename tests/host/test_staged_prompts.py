"""Prompts with staged words, in the host's own text encoders: where the rows are, and the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import nodes
import pytest
import torch
from pack.infinite_id.staged_identity.host_prompt import encode
from pack.infinite_id.words.host_text import ClipError
from pack.nodes import folders
from pack.nodes.staged_prompt import NONE, NOTHING_LEARNT, StagedIdentityPrompt
from pack.tests.host.stable_worlds import KINDS, Small, make_small, make_video_clip
from pack.tests.host.staged_world import make_equal, make_words, write_embedding, write_words

LONG = ", ".join(["a long prompt about the sea"] * 14)
PROMPTS = {
    "alone": "V*",
    "in the middle": "a photo of V* on the beach",
    "weighted": "a photo of (V*:1.2), (smiling:0.8)",
    "twice": "V* beside V*, (V* in the mirror)",
    "before signs": "V*, and V*. This is V*'s dog: V*",
    "in a second chunk": f"{LONG} with V*, {LONG}, (V*:0.7)",
    "beside embeddings": "V* like embedding:other, or embedding:gone and embedding:other",
    "on lines": "a photo\nof V*\nand V*",
    "with escapes": r"V* \(painted\), [x] {y}",
}
APART = {"before signs": "{0} , and {0} . This is {0} 's dog: {0}"}
"""How the host's own embeddings must be written, which need spaces around their names."""


@pytest.fixture(params=KINDS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(request.param, tmp_path_factory.getbasetemp() / "staged" / request.param)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", PROMPTS)
def test_equal_rows_are_an_ordinary_embedding(small: Small, name: str, rows: int) -> None:
    """Bit for bit what the stock node makes of a file."""
    words, own = make_equal(small.clip, 5, rows)
    other = make_equal(small.clip, 1, 2)[1]
    write_embedding({key: -x for key, x in other.items()}, small.embeddings, "other")
    called = write_embedding(own, small.embeddings, "equal")
    text = APART.get(name, PROMPTS[name].replace("V*", "{0}").replace("{y}", "{{y}}"))
    with torch.inference_mode():
        ours = encode(small.clip, PROMPTS[name], {"V*": words})
        (stock,) = nodes.CLIPTextEncode().encode(small.clip, text.format(called))
    assert torch.equal(ours[0][0], stock[0][0])
    assert torch.equal(ours[0][1]["pooled_output"], stock[0][1]["pooled_output"])
    contexts = ours[0][1]["staged_identity"]
    assert all(torch.equal(x, stock[0][0]) for pair in contexts.pairs for x in pair)


def test_all_stages_differ(small: Small) -> None:
    with torch.inference_mode():
        ours = encode(small.clip, "a photo of V*", {"V*": make_words(small.clip, 5)})
    found = [x for pair in ours[0][1]["staged_identity"].pairs for x in pair]
    assert len(found) == 10
    assert all(not torch.equal(a, b) for n, a in enumerate(found) for b in found[:n])


def test_the_clip_is_not_changed(small: Small) -> None:
    before = small.clip.tokenizer, dict(vars(small.clip.tokenizer))
    encode(small.clip, "V*", {"V*": make_words(small.clip)})
    assert (small.clip.tokenizer, dict(vars(small.clip.tokenizer))) == before


def test_other_text_encoders_are_refused(tmp_path: Path) -> None:
    small = make_small("SDXL", tmp_path / "x")
    with pytest.raises(ClipError, match="Connect such a model's CLIP"):
        encode(make_video_clip(tmp_path), "V*", {"V*": make_words(small.clip)})


# --- The node ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = folder_paths.folder_names_and_paths
    monkeypatch.setitem(known, folders.STAGED, ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def test_the_node_reads_each_persons_file(files: Path, tmp_path: Path) -> None:
    small = make_small("SDXL", tmp_path / "x")
    first, second = make_words(small.clip, 5), make_words(small.clip, 3, seed=1)
    write_words(first, files, "anna")
    write_words(second, files / "people", "ben")
    chosen: dict[str, Any] = {"identity": "anna.safetensors"}
    chosen["identity_2"] = "people/ben.safetensors"
    with torch.inference_mode():
        out = StagedIdentityPrompt.execute(small.clip, "V* and V2*", **chosen).result[0]
        expected = encode(small.clip, "V* and V2*", {"V*": first, "V2*": second})
    assert torch.equal(out[0][0], expected[0][0])
    pairs, others = (x[0][1]["staged_identity"].pairs for x in (out, expected))
    assert all(torch.equal(*sides) for a, b in zip(pairs, others, strict=True)
               for sides in zip(a, b, strict=True))  # fmt: skip
    before = StagedIdentityPrompt.fingerprint_inputs(**chosen)
    write_words(make_words(small.clip, 7), files / "people", "ben")
    assert StagedIdentityPrompt.fingerprint_inputs(**chosen) != before
    assert StagedIdentityPrompt.fingerprint_inputs(None, identity_2=NONE) == [None, None, None]


def test_what_is_not_there_is_said(files: Path) -> None:
    del files
    inputs: dict[str, Any] = {i.id: i for i in StagedIdentityPrompt.define_schema().inputs}
    assert inputs["identity"].options == [NOTHING_LEARNT]
    said = StagedIdentityPrompt.validate_inputs("gone.safetensors")
    assert "no staged identity 'gone.safetensors'" in str(said)
    assert "models/infinite_id_staged" in str(said)
    assert StagedIdentityPrompt.validate_inputs(None) is True
