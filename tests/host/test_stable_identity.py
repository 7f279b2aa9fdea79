"""StableIdentity on the real host: rows in prompts, gradients, files in stock nodes."""

from __future__ import annotations

from pathlib import Path

import nodes
import pytest
import torch
from pack.infinite_id.stable_identity import word_file
from pack.infinite_id.stable_identity.celebs import NamesError, read_names
from pack.infinite_id.stable_identity.host_names import measure_names
from pack.infinite_id.stable_identity.templates import TEMPLATES
from pack.infinite_id.stable_identity.word_file import Words
from pack.infinite_id.training.host_load import load_with_text, training
from pack.infinite_id.words.files import Rows
from pack.infinite_id.words.host_frozen import HostFrozen, check_model
from pack.infinite_id.words.host_text import (
    ClipError,
    Prompts,
    digest_tables,
    list_encoders,
    make_differentiable,
    read_table,
)
from pack.tests.host.stable_worlds import KINDS, WIDTHS, Small, make_small, make_video_clip

NAMES = read_names("")


@pytest.fixture(params=KINDS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(request.param, tmp_path_factory.getbasetemp() / "embeddings" / request.param)


def draw_rows(small: Small) -> Rows:
    random = torch.Generator().manual_seed(3)
    return {
        key: torch.randn(2, read_table(encoder).shape[1], generator=random)
        for key, encoder in list_encoders(small.clip).items()
    }


def test_the_shipped_names_are_single_tokens_of_clip(small: Small) -> None:
    spaces = measure_names(small.clip, NAMES)
    for key, encoder in list_encoders(small.clip).items():
        table = read_table(encoder)
        rows = []
        for name in NAMES:
            ids = [t for t, _ in small.clip.tokenize(" ".join(name))[key.removeprefix("clip_")][0]]
            assert ids[3] == 49407, name  # start, two words, end
            rows.append(table[ids[1:3]])
        torch.testing.assert_close(spaces[key].mean, torch.stack(rows).mean(0))
        torch.testing.assert_close(spaces[key].std, torch.stack(rows).std(0))


@pytest.mark.parametrize(
    "prompt",
    ["a photo of {}", "{}", "a photo of {}, smiling, in the forest", "oil painting, {} at night."],
)
def test_the_file_in_stock_text_encode_is_direct_insertion(small: Small, prompt: str) -> None:
    rows = draw_rows(small)
    path = small.embeddings / "people" / "anna.safetensors"
    word_file.save(Words(rows, digest_tables(small.clip), "r", {}), path, replaces=True)
    with torch.inference_mode():
        context, pooled = Prompts(small.clip).encode(prompt, rows)
        text = prompt.format("embedding:people/anna")
        ((stock, more),) = nodes.CLIPTextEncode().encode(small.clip, text)[0]
        plain = nodes.CLIPTextEncode().encode(small.clip, prompt.format("person"))[0][0][0]
    assert (context - stock).abs().max() <= 1e-6
    assert (pooled - more["pooled_output"]).abs().max() <= 1e-6
    assert (stock - plain).abs().max() > 1e-3


def test_the_file_works_in_a_video_model_that_shares_clip_l(tmp_path: Path) -> None:
    clip = make_video_clip(tmp_path)
    rows = {"clip_l": torch.randn(2, WIDTHS["clip_l"]), "clip_g": torch.randn(2, WIDTHS["clip_g"])}
    path = tmp_path / "people" / "anna.safetensors"
    word_file.save(Words(rows, {}, "r", {}), path, replaces=True)
    with torch.inference_mode():
        tokens = clip.tokenize(f"a photo of {NAMES[5][0]} {NAMES[5][1]}, smiling")["l"]
        part = [
            (rows["clip_l"][n - 4], w) if n in (4, 5) else (t, w)
            for n, (t, w) in enumerate(tokens[0])
        ]
        _, direct = clip.cond_stage_model.clip_l.encode_token_weights([part])
        _, other = clip.cond_stage_model.clip_l.encode_token_weights(tokens)
        text = "a photo of embedding:people/anna, smiling"
        ((context, more),) = nodes.CLIPTextEncode().encode(clip, text)[0]
    assert (more["pooled_output"] - direct).abs().max() <= 1e-6
    assert (other - direct).abs().max() > 1e-3
    assert context.isfinite().all()


def test_every_template_takes_the_rows(small: Small) -> None:
    rows = draw_rows(small)
    prompts = Prompts(small.clip)
    for template in TEMPLATES:
        for key, parts in prompts.tokenise(template, rows).items():
            put = [t for part in parts for t, _ in part if isinstance(t, torch.Tensor)]
            assert len(put) == 2
            assert torch.equal(torch.stack(put), rows[f"clip_{key}"])


@pytest.mark.parametrize("twice", [False, True])
def test_gradients_are_those_of_small_steps(small: Small, twice: bool) -> None:
    """Through both text encoders, the pooled vector, and the UNet."""
    rows = draw_rows(small)
    before = [p.requires_grad for p in small.model.model.parameters()]
    random = torch.Generator().manual_seed(5)
    noised, wanted = torch.randn(2, 1, 4, 8, 8, generator=random)
    with torch.inference_mode(), training():
        patcher, text = load_with_text(small.model, small.clip)
        make_differentiable(text, twice)
        frozen = HostFrozen(patcher.model, Prompts(text), 64, twice)

        def loss(rows: Rows) -> torch.Tensor:
            batch = {key: x[None] for key, x in rows.items()}
            output = frozen.predict(noised, torch.tensor([500]), batch, ["a photo of {}"])
            return (output * wanted).sum()

        own = {key: x.clone().requires_grad_() for key, x in rows.items()}
        loss(own).backward()
        for key, x in own.items():
            assert x.grad is not None
            direction = torch.randn(x.shape, generator=random)
            step = 1e-2
            up, down = ({**rows, key: rows[key] + sign * step * direction} for sign in (1, -1))
            numeric = float(loss(up) - loss(down)) / (2 * step)
            assert float((x.grad * direction).sum()) == pytest.approx(numeric, rel=2e-2, abs=1e-3)
    assert [p.requires_grad for p in small.model.model.parameters()] == before


def test_the_copies_give_what_the_hosts_own_do(small: Small) -> None:
    rows = draw_rows(small)
    noised = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        context, pooled = Prompts(small.clip).encode("a photo of {}", rows)
        model = small.model.model
        sigma = model.model_sampling.sigmas[400]
        conds = model.extra_conds(
            device=noised.device, noise=noised, cross_attn=context, pooled_output=pooled,
            width=64, height=64,
        )  # fmt: skip
        given = {name: cond.cond for name, cond in conds.items()}
        x = noised * (sigma**2 + 1).sqrt()
        clean = model.apply_model(x, sigma[None], transformer_options={}, **given)
    with torch.inference_mode(), training():
        patcher, text = load_with_text(small.model, small.clip)
        make_differentiable(text, True)
        frozen = HostFrozen(patcher.model, Prompts(text), 64, True)
        batch = {key: own[None] for key, own in rows.items()}
        with torch.no_grad():
            output = frozen.predict(noised, torch.tensor([400]), batch, ["a photo of {}"])
        ours = patcher.model.model_sampling.calculate_denoised(sigma[None], output, x)
    torch.testing.assert_close(ours, clean, rtol=1e-4, atol=1e-4)


def test_what_no_words_can_be_learnt_for_is_explained(small: Small, tmp_path: Path) -> None:
    others = [make_small(kind, tmp_path / kind) for kind in KINDS]
    other = next(
        o for o in others
        if sum(read_table(e).shape[1] for e in list_encoders(o.clip).values())
        != sum(read_table(e).shape[1] for e in list_encoders(small.clip).values())
    )  # fmt: skip
    check_model(small.model, small.clip)
    with pytest.raises(ClipError, match="model and CLIP of the same checkpoint"):
        check_model(small.model, other.clip)
    with pytest.raises(NamesError, match=r"Of 1 names, 0 are known.*'names'"):
        measure_names(small.clip, [("zzyzxq", "qwxyzzz")])
