"""Learning staged words: the attention loss by an independent computation, and the node."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
import nodes
import pytest
import torch
from comfy import model_management
from pack.infinite_id.faces.face import FaceError
from pack.infinite_id.staged_identity import host_learn, staged_file
from pack.infinite_id.staged_identity.data import Batch
from pack.infinite_id.staged_identity.host_frozen import StagedFrozen, Texts
from pack.infinite_id.staged_identity.host_prompt import encode
from pack.infinite_id.staged_identity.learner import StagedLearner
from pack.infinite_id.staged_identity.network import TokenNetwork, new_network
from pack.infinite_id.staged_identity.objective import attention_error
from pack.infinite_id.staged_identity.stages import Words
from pack.infinite_id.training.host_load import load_with_text, training
from pack.infinite_id.words import host_likeness, host_run
from pack.infinite_id.words.files import Origin
from pack.infinite_id.words.host_faces import Nets, cut_square
from pack.infinite_id.words.host_run import make_settings
from pack.infinite_id.words.host_text import (
    ClipError,
    Prompts,
    find_row,
    list_encoders,
    make_differentiable,
)
from pack.infinite_id.words.masks import MaskError
from pack.nodes.export_staged import ExportStagedIdentity
from pack.nodes.learning import read_material
from pack.tests.host.learners import STAGED, STEPS, make_learn, use_models, use_page
from pack.tests.host.stable_worlds import (
    KINDS,
    Small,
    drawn_analysis,
    drawn_clip_vision,
    drawn_photo,
    make_small,
)
from pack.tests.host.staged_world import make_words, write_words
from pack.tests.host.test_training_nodes import Page

TEXTS = Texts("a photo of the face of {}", "a photo of the face of person")


def make_network(small: Small, stages: int = 5, split: bool = True) -> TokenNetwork:
    rows = {key: find_row(small.clip, key, "person") for key in list_encoders(small.clip)}
    return new_network(rows, stages, split, 1)


# --- The attention loss --------------------------------------------------------------------------


def test_the_error_is_that_of_two_attentions() -> None:
    """By loops, in float64; and its gradient takes the reference for a constant."""
    q, k, r = (torch.randn(2, n, 12, dtype=torch.float64) for n in (4, 3, 3))
    expected = torch.zeros(2, dtype=torch.float64)
    for b in range(2):
        for h in range(3):
            part = slice(4 * h, 4 * h + 4)
            for i in range(4):
                for j in range(3):
                    ours, theirs = (q[b, i, part] @ x[b, j, part] / 2 for x in (k, r))
                    expected[b] += (ours - theirs) ** 2 / (3 * 4 * 3)
    found = attention_error(q, k, r, 3)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
    assert not attention_error(q, k, k, 3).any()
    q.requires_grad_()
    k.requires_grad_()
    attention_error(q, k, r, 3).sum().backward()
    grad = torch.zeros_like(q)
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(n) for n in (2, 3, 4, 3))).tolist():
        part = slice(4 * h, 4 * h + 4)
        difference = q.detach()[b, i, part] @ (k.detach() - r)[b, j, part] / 2
        grad[b, i, part] += 2 * difference / 36 * k.detach()[b, j, part] / 2
    assert q.grad is not None
    torch.testing.assert_close(q.grad, grad, rtol=1e-4, atol=1e-6)


@pytest.fixture(params=KINDS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(request.param, tmp_path_factory.getbasetemp() / "learnt" / request.param)


@pytest.mark.parametrize("twice", [False, True])
def test_the_losses_of_a_step(small: Small, twice: bool) -> None:
    """Both by hooks on the host's own layers; the gradient of the first by small steps."""
    with torch.inference_mode(), training():
        frozen, text, network, batch = make_step(small, twice)
        plain, both = (StagedLearner(network, frozen, lam)(batch) for lam in (0.0, 0.5))
        words = network()
        expected = [by_hooks(frozen, text, words, batch, n) for n in range(2)]
        first, second = (torch.stack(x) for x in zip(*expected, strict=True))
        assert float(second.min()) > 0
        torch.testing.assert_close(plain, first, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both - plain, 0.5 * second, rtol=1e-3, atol=1e-4)
        plain.sum().backward()
        key = next(iter(network.heads))
        x, step = network.heads[key].out.bias, 1e-2
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
        sides = []
        for sign in (1, -1):
            x.data += sign * step * direction
            with torch.no_grad():
                sides.append(StagedLearner(network, frozen, 0.0)(batch).sum())
            x.data -= sign * step * direction
        numeric = float(sides[0] - sides[1]) / (2 * step)
        assert x.grad is not None
        assert float((x.grad * direction).sum()) == pytest.approx(numeric, rel=3e-2, abs=1e-3)


def test_gradients_are_the_same_computed_twice(small: Small) -> None:
    found = []
    for twice in (False, True):
        with torch.inference_mode(), training():
            frozen, _, network, batch = make_step(small, twice)
            StagedLearner(network, frozen, 0.5)(batch).sum().backward()
            found.append([x.grad for x in network.parameters()])
    assert any(x is not None and x.any() for x in found[0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def make_step(small: Small, twice: bool) -> tuple[StagedFrozen, Any, TokenNetwork, Batch]:
    """A network whose stages and sides differ, and two samples."""
    random = torch.Generator().manual_seed(5)
    patcher, text = load_with_text(small.model, small.clip)
    make_differentiable(text, twice)
    frozen = StagedFrozen(patcher.model, Prompts(text), TEXTS, 64, twice)
    network = make_network(small)
    for x in network.parameters():
        x.data += 0.1 * torch.randn(x.shape, generator=random)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=random)
    face, hair = (torch.rand(2, 2, 1, 8, 8, generator=random) > 0.5).float()
    times = torch.tensor([100, 700])
    return frozen, text, network, Batch(latents, noise, times, (100, 700), face, hair, ("a", "b"))


@torch.no_grad()
def by_hooks(
    frozen: Any, text: Any, words: Words, batch: Batch, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both losses of a sample: contexts by stock calls, maps by what the layers give."""
    time = int(batch.times[n])
    prompts, stage = Prompts(text), 5 * time // 1000
    (key, _), (value, _), (_, pooled) = (
        prompts.encode(TEXTS.person, {k: x[at] for k, x in side.items()})
        for side, at in ((words.keys, stage), (words.values, stage), (words.keys, 2))
    )
    reference = prompts.encode(TEXTS.reference, None)[0]
    maps: list[torch.Tensor] = []
    queries: dict[str, torch.Tensor] = {}

    def keep_query(name: str) -> Any:
        return lambda _m, _i, out: queries.__setitem__(name, out)

    def note(name: str, heads: int) -> Any:
        def run(module: Any, inputs: Any, out: torch.Tensor) -> None:
            if inputs[0] is reference:
                return
            q, ours, theirs = (
                x.unflatten(-1, (heads, -1)).transpose(1, 2)
                for x in (queries[name], out, module(reference))
            )
            maps.append((q @ ours.mT - q @ theirs.mT).square().mean() / q.shape[-1])

        return run

    hooks = []
    for name, module in frozen.unet.named_modules():
        if name.endswith("attn2"):
            hooks.append(module.to_q.register_forward_hook(keep_query(name)))
            hooks.append(module.to_k.register_forward_hook(note(name, module.heads)))
            hooks.append(module.to_v.register_forward_pre_hook(lambda _m, _i: (value,)))
    alpha, noise = frozen.alphas_cumprod[time], batch.noise[n : n + 1]
    latents = frozen.scale(batch.latents[n : n + 1])
    noised = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    out = frozen.run(noised, torch.tensor([time]), key, pooled, {})
    for hook in hooks:
        hook.remove()
    is_noise = frozen.prediction.value == "epsilon"
    target = noise if is_noise else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    face, hair = (mask[n].bool().expand(4, -1, -1) for mask in (batch.face, batch.hair))
    square = (out - target)[0].square()
    loss = (square[face].sum() + 0.1 * square[hair].sum()) / square.numel()
    return loss, torch.stack(maps).mean()


# --- The network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [1, 3, 5, 7, 10])
@pytest.mark.parametrize("split", [True, False])
def test_all_words_begin_as_the_class_word(small: Small, stages: int, split: bool) -> None:
    network = make_network(small, stages, split)
    words = network()
    for key, x in words.keys.items():
        row = find_row(small.clip, key, "person")
        assert x.shape == words.values[key].shape == (stages, 1, len(row))
        assert torch.equal(x, row.expand_as(x))
    for x in network.parameters():
        x.data += 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    words = network()
    for key, x in words.keys.items():
        assert torch.equal(x, words.values[key]) != split
        assert stages == 1 or not torch.equal(x[0], x[1])


def test_class_words_must_be_one_token(small: Small) -> None:
    key = next(iter(list_encoders(small.clip)))
    with pytest.raises(ClipError, match="one token"):
        find_row(small.clip, key, "two words")


def test_training_reads_what_prompts_read(small: Small) -> None:
    """The contexts of each stage in training are those of Staged Identity Prompt."""
    words = make_words(small.clip)
    conditioning = encode(small.clip, "a photo of the face of V*", {"V*": words})
    contexts, pooled = conditioning[0][1]["staged_identity"], conditioning[0][1]["pooled_output"]
    given: list[Any] = []
    with torch.inference_mode(), training():
        patcher, text = load_with_text(small.model, small.clip)
        own = Words(
            *({k: x.clone() for k, x in side.items()} for side in (words.keys, words.values))
        )
        frozen = StagedFrozen(patcher.model, Prompts(text), TEXTS, 64, False)
        frozen.run = lambda *args: given.append(args) or args[0]  # type: ignore[method-assign]
        with torch.no_grad():
            frozen.predict_staged(
                torch.zeros(2, 4, 8, 8), torch.tensor([100, 900]), own, [0, 4], False
            )
    _, _, context, vector, options = given[0]
    value = options["patches"]["attn2_patch"][0](None, context, context, {})[2]
    for n, share in enumerate((Fraction(100, 1000), Fraction(900, 1000))):
        key, other = contexts.at(share)
        torch.testing.assert_close(context[n], key[0])
        torch.testing.assert_close(value[n], other[0])
        torch.testing.assert_close(vector[n], pooled[0])


# --- The node ------------------------------------------------------------------------------------


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Page:
    return use_page(monkeypatch, tmp_path)


@pytest.fixture
def learn(vae: Any, page: Page, tmp_path: Path) -> Callable[..., Any]:
    del page
    return make_learn(STAGED, use_models(tmp_path), vae)


def read(tmp_path: Path, name: str = "people/anna") -> staged_file.Staged:
    return staged_file.load(tmp_path / STAGED.folder / f"{name}.safetensors")


def same(a: staged_file.Staged, b: staged_file.Staged) -> bool:
    sides = ((a.words.keys, b.words.keys), (a.words.values, b.words.values))
    return all(torch.equal(x, own[key]) for own, other in sides for key, x in other.items())


def test_a_photo_becomes_staged_words(learn: Any, page: Page, tmp_path: Path) -> None:
    identity, loss_map, pictures, info, mask = learn(face_analysis=drawn_analysis())
    staged = read(tmp_path)
    assert identity == "people/anna.safetensors"
    assert {key: x.shape[:2] for key, x in staged.words.keys.items()} == {
        "clip_l": (5, 1),
        "clip_g": (5, 1),
    }
    assert not torch.equal(staged.words.keys["clip_g"], staged.words.values["clip_g"])
    assert len(loss_map["loss"]) == STEPS
    assert pictures.shape == (1, 128, 128, 3)
    assert torch.equal(mask, torch.ones(1, 128, 128))
    assert "one face" in info
    assert "people/anna.safetensors: 8 steps on 1 photos, mean loss of the last 8" in info
    assert page.previews == 2
    assert any(line.startswith("step 8 of 8, loss ") for line in page.texts)
    assert not model_management.in_training
    assert staged.origin.provenance["steps"] == STEPS
    assert staged.origin.provenance["settings"]["attention"] == 0.003


def test_it_learns(learn: Any) -> None:
    """On the same draws, the loss is less than that of words that do not learn."""
    own = learn(steps=20, learning_rate=3e-3, name="a")[1]["loss"]
    untrained = learn(steps=20, learning_rate=1e-7, name="b")[1]["loss"]
    assert own[0] == untrained[0]
    assert sum(own[10:]) < sum(untrained[10:])


def test_an_interrupted_run_keeps_its_words_and_goes_on_bit_for_bit(
    learn: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = learn(name="whole")[1]["loss"]
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "again"))
    page.interrupt_at = 3
    with pytest.raises(model_management.InterruptProcessingException):
        learn()
    assert not model_management.in_training
    kept = read(tmp_path)
    assert kept.origin.provenance["steps"] < STEPS
    page.interrupt_at, told = 0, len(page.texts)
    again = learn()[1]["loss"]  # the name is taken by this very run
    assert len(page.texts) - told < STEPS
    assert again == losses
    assert same(read(tmp_path), read(tmp_path, "whole"))
    assert not same(read(tmp_path), kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "a photo of a man"}, r"Learn Staged Identity: the prompt must say 'V\*'"),
        ({"prompt": "a {red|blue} photo of V*"}, "no curly braces"),
        ({"noun": "two words"}, "'noun'.*one token|one token"),
        ({"name": "../anna"}, "give letters, digits"),
        ({"images": torch.zeros(1, 64, 64, 3), "face_analysis": "drawn"}, "No face found in"),
    ],
)
def test_errors_say_what_to_do(
    learn: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "face_analysis" in changes:
        changes = {**changes, "face_analysis": drawn_analysis()}
    with pytest.raises(ValueError, match=message):
        learn(**changes)
    assert not list((tmp_path / STAGED.folder).rglob("*.safetensors"))


def test_names_that_are_taken(learn: Any, tmp_path: Path) -> None:
    learn(steps=1)
    first = read(tmp_path)
    with pytest.raises(ValueError, match=r"people/anna is taken already.*'number'"):
        learn(steps=1, training_seed=1)
    assert learn(steps=1, training_seed=1, if_taken="number")[0] == "people/anna_2.safetensors"
    assert same(read(tmp_path), first)
    learn(steps=1, training_seed=2, if_taken="replace")
    assert not same(read(tmp_path), first)


@pytest.mark.parametrize(
    "changes", [{"stages": 1}, {"stages": 10}, {"split": False}, {"attention": 0.0}]
)
def test_ablations(learn: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    learn(steps=2, **changes)
    words = read(tmp_path).words
    assert words.stages == changes.get("stages", 5)
    assert torch.equal(words.keys["clip_l"], words.values["clip_l"]) == ("split" in changes)


# --- Masks, and a photo that is held out ---------------------------------------------------------


def test_masks_are_as_in_the_other_method(learn: Any, tmp_path: Path) -> None:
    """Drawn by the landmarks, or yours; both sides of the photo, and only if it is asked for."""
    mask = torch.zeros(drawn_photo().shape[:3])
    with pytest.raises(MaskError, match="A mask or a face parser is given, and 'masked' is off"):
        learn(face_mask=mask)
    with pytest.raises(MaskError, match=r"marks nothing of the headshot.*'face_mask'"):
        learn(face_mask=mask, masked=True)
    with pytest.raises(FaceError, match=r"Nothing says where the face is in photo 1.*'face_mask'"):
        learn(masked=True)
    mask[:, 100:300, 100:300] = 1
    given = {"steps": 1, "masked": True, "face_analysis": drawn_analysis()}
    assert "face mask: everywhere" in learn(**{**given, "masked": False}, name="a")[3]
    assert "oval by the landmarks; hair mask: around the face" in learn(**given, name="b")[3]
    assert (
        "face mask: yours; hair mask: none"
        in learn(steps=1, masked=True, face_mask=mask, name="c")[3]
    )
    assert "your person mask" in learn(**given, person_mask=mask, name="d")[3]
    some, none = (
        learn(**given, hair_mask=x, name=n)[1]["loss"] for x, n in ((mask, "e"), (0 * mask, "f"))
    )
    assert some != none
    assert not same(read(tmp_path, "a"), read(tmp_path, "b"))


def test_masks_are_mirrored_with_the_photo(vae: Any, tmp_path: Path) -> None:
    small = make_small("SDXL", tmp_path / "embeddings")
    photo = torch.rand(64, 64, 3)
    half = torch.zeros(64, 64)
    half[:, :16] = 1
    with torch.inference_mode():
        material = read_material(photo[None], half[None], None, None, None)
        wishes = host_learn.Wishes(1, 1e-3, 0, 64, masked=True)
        lesson = host_learn.Lesson(small.model, small.clip, vae, Nets(), material, wishes)
        (whole,) = material.photos.values()
        square = cut_square(Nets(), "a", whole, material.masks[0], 64, True)
        targets = host_learn._encode(lesson, [square], lambda *_: None)
        flipped = vae.encode(square.picture.flip(-1).permute(1, 2, 0)[None])[0]
    settings = make_settings(40, 1e-3, 0, True, False)
    seen = set()
    for step in range(40):
        batch = targets.read(step, [0], settings, 1000)
        is_mirrored = bool(torch.allclose(batch.latents[0], flipped, atol=1e-4))
        seen.add(is_mirrored)
        columns = batch.face[0, 0].mean(dim=0)
        assert (columns[-1], columns[0]) == ((1, 0) if is_mirrored else (0, 1))
    assert seen == {True, False}


def test_a_held_out_photo_ends_the_run_and_the_best_is_kept(
    learn: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_run, "LOOK_EVERY", 2)
    likeness = iter([0.1, 0.5, 0.2, 0.3, 0.1, 0.2, 0.9])
    rows: list[Words] = []

    def measure(_: Any, own: Words) -> float:
        rows.append(host_learn.detach(own))
        return next(likeness)

    monkeypatch.setattr(host_likeness.Likeness, "measure", measure)
    given = {"held_out": drawn_photo("face_2"), "face_analysis": drawn_analysis(), "steps": 40}
    info = learn(**given)[3]
    assert "4 steps on 1 photos" in info
    assert "the best of 12 steps, likeness 0.500" in info
    staged = read(tmp_path)
    assert staged.origin.provenance["steps"] == 4
    assert same(staged, staged_file.Staged(rows[1], staged.origin))
    told = len(page.texts)
    learn(**given)
    assert len(page.texts) == told, "it has settled"


@pytest.mark.parametrize("net", ["face_analysis", "clip_vision"])
def test_pictures_are_drawn_for_the_likeness(
    learn: Any, monkeypatch: pytest.MonkeyPatch, net: str
) -> None:
    """Each by the words of the stage of its noise level, compared by either net."""
    monkeypatch.setattr(host_run, "LOOK_EVERY", 3)
    stages: list[int] = []
    predict = StagedFrozen.predict_staged

    def note(self: Any, z: Any, times: Any, words: Any, own: list[int], compares: bool) -> Any:
        if not compares:
            stages.extend(own)
        return predict(self, z, times, words, own, compares)

    monkeypatch.setattr(StagedFrozen, "predict_staged", note)
    nets = {net: {"face_analysis": drawn_analysis, "clip_vision": drawn_clip_vision}[net]()}
    held_out = drawn_photo("face_2")
    assert "likeness" in learn(held_out=held_out, steps=4, preview_every=0, **nets)[3]
    steps = [round(999 * (20 - n) / 20) for n in range(20)]
    assert stages[:20] == [5 * time // 1000 for time in steps]
    with pytest.raises(FaceError, match="A face encoder is needed"):
        learn(held_out=held_out, name="b")
    with pytest.raises(FaceError, match="No face found in 'held_out'"):
        learn(held_out=torch.zeros(1, 64, 64, 3), face_analysis=drawn_analysis(), name="c")


# --- The mean as an embedding --------------------------------------------------------------------


def test_an_embedding_is_the_mean(page: Page, tmp_path: Path) -> None:
    """In a stock prompt it is what Staged Identity Prompt gives without Apply Staged Identity."""
    del page
    own = use_models(tmp_path)
    words = make_words(own.clip)
    write_words(words, tmp_path / STAGED.folder, "anna")
    inputs = {"identity": "anna.safetensors", "name": "p/anna", "if_taken": "stop"}
    embedding = ExportStagedIdentity.execute(**inputs).result[0]
    assert embedding == "embedding:p/anna"
    with torch.inference_mode():
        ((stock, _),) = nodes.CLIPTextEncode().encode(own.clip, f"a photo of {embedding}")[0]
        ours = encode(own.clip, "a photo of V*", {"V*": words})
    assert torch.equal(stock, ours[0][0])
    assert ExportStagedIdentity.execute(**inputs).result[0] == embedding  # of the same run
    file = staged_file.Staged(words, Origin("other", {}, {}))
    staged_file.save(file, tmp_path / STAGED.folder / "anna.safetensors", replaces=True)
    with pytest.raises(ValueError, match=r"p/anna is taken already"):
        ExportStagedIdentity.execute(**inputs)
    inputs["if_taken"] = "number"
    assert ExportStagedIdentity.execute(**inputs).result[0] == "embedding:p/anna_2"
