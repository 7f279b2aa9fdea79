"""*Learn Identity Embedding* and *Mix Identity Embeddings*, run as the host runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.hooks
import comfy.sd
import folder_paths
import nodes
import pytest
import torch
from comfy import model_management
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from pack.dev.cache import ROOT
from pack.infinite_id.faces.face import FaceError
from pack.infinite_id.faces.model_pack import load_analysis
from pack.infinite_id.stable_identity import mapper_file, word_file
from pack.infinite_id.tensor_files import FormatError
from pack.infinite_id.training.loop import Loop
from pack.infinite_id.words import host_likeness, host_run
from pack.infinite_id.words.host_text import list_encoders, read_table
from pack.infinite_id.words.masks import MaskError
from pack.nodes import folders
from pack.nodes.learn_embedding import LearnEmbedding
from pack.nodes.mix_embeddings import MixEmbeddings
from pack.tests.host.learners import EMBEDDING, STEPS, make_learn, use_models, use_page
from pack.tests.host.stable_worlds import (
    Small,
    drawn_clip_vision,
    drawn_photo,
    make_clip,
)
from pack.tests.host.test_training_nodes import Page


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Page:
    return use_page(monkeypatch, tmp_path)


@pytest.fixture
def small(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Small:
    del page
    return use_models(tmp_path, getattr(request, "param", "SDXL"))


@pytest.fixture
def learn(small: Small, vae: Any) -> Callable[..., Any]:
    return make_learn(EMBEDDING, small, vae)


def read_words(tmp_path: Path, name: str = "people/anna") -> word_file.Words:
    return word_file.load(tmp_path / "embeddings" / f"{name}.safetensors")


def same(a: word_file.Words, b: word_file.Words) -> bool:
    return all(torch.equal(a.rows[key], b.rows[key]) for key in a.rows | b.rows)


@pytest.mark.parametrize("small", ["SD 1.5", "SD 2.1", "SDXL"], indirect=True)
def test_a_photo_becomes_an_embedding(learn: Any, small: Small, page: Page, tmp_path: Path) -> None:
    unet = {n: x.clone() for n, x in small.model.model.diffusion_model.state_dict().items()}
    text = {n: x.clone() for n, x in small.clip.cond_stage_model.state_dict().items()}
    conditioning, loss_map, embedding, headshot, mask, info = learn()
    words = read_words(tmp_path)
    assert embedding == "embedding:people/anna"
    assert {key: tuple(x.shape) for key, x in words.rows.items()} == {
        key: (2, read_table(encoder).shape[1]) for key, encoder in list_encoders(small.clip).items()
    }
    assert len(loss_map["loss"]) == STEPS
    assert headshot.shape == (1, 128, 128, 3)
    assert mask.shape == (1, 128, 128)
    assert 0.05 < float(mask.mean()) < 0.6
    assert "one face" in info
    assert "face mask: an oval by the landmarks; hair mask: around the face" in info
    assert "embedding:people/anna: 8 steps on 1 photos, mean loss of the last 8" in info
    assert page.previews == 2
    assert any(line.startswith("step 8 of 8, loss ") for line in page.texts)
    with torch.inference_mode():
        prompt = "a photo of embedding:people/anna, smiling"
        ((stock, _),) = nodes.CLIPTextEncode().encode(small.clip, prompt)[0]
    torch.testing.assert_close(conditioning[0][0], stock)
    # Neither model has changed, nor anything of the process.
    for module, before in (
        (small.model.model.diffusion_model, unet),
        (small.clip.cond_stage_model, text),
    ):
        after = module.state_dict()
        assert all(torch.equal(after[name], x) for name, x in before.items())
        assert all("forward" not in vars(part) for part in module.modules())
        assert not any(part._forward_pre_hooks for part in module.modules())
    assert not model_management.in_training
    assert len(words.provenance["photos"]) == 1
    assert words.provenance["steps"] == STEPS


def test_it_learns(learn: Any) -> None:
    """On the same draws, the loss is less than that of words that do not learn."""
    own = learn(steps=30, learning_rate=3e-2, name="a")[1]["loss"]
    untrained = learn(steps=30, learning_rate=1e-7, name="b")[1]["loss"]
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
    assert not model_management.processing_interrupted()
    assert not model_management.in_training
    kept = read_words(tmp_path)
    assert kept.provenance["steps"] < STEPS
    page.interrupt_at, told = 0, len(page.texts)
    again = learn()[1]["loss"]  # the name is taken by this very run
    assert len(page.texts) - told < STEPS
    assert again == losses
    assert same(read_words(tmp_path), read_words(tmp_path, "whole"))
    assert not same(read_words(tmp_path), kept)


def test_an_interruption_before_the_first_step_writes_nothing(
    learn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Any:
        raise model_management.InterruptProcessingException

    monkeypatch.setattr(Loop, "_backward", interrupt)
    with pytest.raises(model_management.InterruptProcessingException):
        learn()
    assert not list((tmp_path / "embeddings").rglob("*.safetensors"))


def test_names_that_are_taken(learn: Any, tmp_path: Path) -> None:
    learn(steps=1)
    first = read_words(tmp_path)
    with pytest.raises(ValueError, match=r"name people/anna is taken already.*'number'"):
        learn(steps=1, training_seed=1)
    assert learn(steps=1, training_seed=1, if_taken="number")[2] == "embedding:people/anna_2"
    assert same(read_words(tmp_path), first)
    learn(steps=1, training_seed=1, if_taken="replace")
    assert same(read_words(tmp_path), read_words(tmp_path, "people/anna_2"))
    (tmp_path / "embeddings" / "bob.pt").write_bytes(b"another's")
    for policy in ("stop", "replace"):
        with pytest.raises(ValueError, match="name bob is taken already"):
            learn(name="bob", if_taken=policy)
    for name in ("../anna", "/anna", "a b", "", "c:/x", ".x", "x/../y", "(x)", "con"):
        with pytest.raises(ValueError, match="give letters, digits"):
            learn(name=name)


def test_further_photos_need_no_training(learn: Any, small: Small, tmp_path: Path) -> None:
    learn(steps=2)
    words = read_words(tmp_path)
    learn(steps=0, go_on_from="people/anna.safetensors", name="same")
    assert same(read_words(tmp_path, "same"), words)
    result = learn(
        steps=0, go_on_from="people/anna.safetensors", name="other", images=drawn_photo("face_2")
    )
    assert "no training, by the mapper that was there" in result[-1]
    assert result[1]["loss"] == []
    assert not same(read_words(tmp_path, "other"), words)
    with pytest.raises(FaceError, match="With steps 0 nothing is learnt"):
        learn(steps=0, name="nobody")
    others = make_clip("SDXL", small.embeddings)
    table = read_table(next(iter(list_encoders(others).values())))
    own = table.detach().clone()
    with torch.no_grad():
        table += 1
    try:
        with pytest.raises(FaceError, match="learnt for another CLIP"):
            learn(steps=0, clip=others, go_on_from="people/anna.safetensors", name="nobody")
    finally:
        with torch.no_grad():
            table.copy_(own)


def test_several_photos(learn: Any, tmp_path: Path) -> None:
    both = torch.cat([drawn_photo("face_1"), drawn_photo("face_2")])
    result = learn(images=both)
    assert result[3].shape[0] == result[4].shape[0] == 2
    assert "8 steps on 2 photos" in result[-1]
    assert len(read_words(tmp_path).provenance["photos"]) == 2


def test_the_users_masks_and_a_mask_of_nothing(learn: Any) -> None:
    photo = drawn_photo()
    mask = torch.zeros(photo.shape[:3])
    with pytest.raises(ValueError, match=r"marks nothing of the headshot.*'face_mask'"):
        learn(face_mask=mask)
    mask[:, 100:300, 100:300] = 1
    info = learn(face_mask=mask, hair_mask=mask, steps=1)[-1]
    assert "face mask: yours; hair mask: yours" in info
    info = learn(person_mask=mask, steps=1, name="c")[-1]
    assert "hair mask: around the face, within your person mask" in info
    assert "everywhere" in learn(masked=False, steps=1, name="d")[-1]
    with pytest.raises(ValueError, match="face_mask is 64x64, and the photos are not"):
        learn(face_mask=torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="2 masks for 1 photos"):
        learn(face_mask=mask.repeat(2, 1, 1))


@pytest.mark.parametrize("kind", ["face_mask", "hair_mask", "person_mask"])
def test_masks_of_any_dimensions_but_of_numbers_alone(learn: Any, kind: str) -> None:
    photo = drawn_photo()
    mask = torch.ones(photo.shape[:3])
    learn(steps=1, **{kind: mask})
    for shape in (mask.shape[1:], (1, *mask.shape)):  # the same run
        learn(steps=1, **{kind: mask.reshape(shape)})
    with pytest.raises(MaskError, match=f"{kind} holds values that are not numbers"):
        learn(**{kind: mask * float("nan")})


def test_photos_and_nets_that_do_not_serve(learn: Any) -> None:
    with pytest.raises(FaceError, match="No face found in photo 1 of 1"):
        learn(images=torch.full((1, 200, 200, 3), 0.5))
    with pytest.raises(FaceError, match="A face encoder is needed"):
        learn(face_analysis=None)
    crowd = torch.cat([drawn_photo(), drawn_photo()], dim=2)
    assert "the largest of 2 faces" in learn(images=crowd, steps=1)[-1]
    with pytest.raises(ValueError, match="Of 1 names, 0 are known"):
        learn(names="zzyzxq qwxyzzz", name="e")
    with pytest.raises(ValueError, match="no '\\*' to stand for the person"):
        learn(prompt="a photo", steps=1, name="f")


def test_a_held_out_photo_ends_the_run_and_the_best_is_kept(
    learn: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_run, "LOOK_EVERY", 2)
    likeness = iter([0.1, 0.5, 0.2, 0.3, 0.1, 0.2, 0.9])
    rows: list[Any] = []

    def measure(_: Any, own: Any) -> float:
        rows.append({key: x[0].detach().clone() for key, x in own.items()})
        return next(likeness)

    monkeypatch.setattr(host_likeness.Likeness, "measure", measure)
    info = learn(held_out=drawn_photo("face_2"), steps=40)[-1]
    assert "4 steps on 1 photos" in info
    assert "likeness 0.500" in info
    assert sum(text.startswith("step ") for text in page.texts) == 12
    words = read_words(tmp_path)
    for key, x in words.rows.items():
        torch.testing.assert_close(x, rows[1][key], rtol=1e-5, atol=1e-6)
    told = len(page.texts)
    learn(held_out=drawn_photo("face_2"), steps=40)
    assert len(page.texts) == told, "it has settled"


def test_pictures_are_drawn_for_the_likeness(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_run, "LOOK_EVERY", 3)
    info = learn(held_out=drawn_photo("face_2"), steps=4)[-1]
    assert "likeness" in info
    with pytest.raises(FaceError, match="No face found in 'held_out'"):
        learn(held_out=torch.zeros(1, 64, 64, 3), name="g")


@torch.inference_mode()
def test_a_clip_vision_model_is_the_face_encoder(learn: Any, tmp_path: Path) -> None:
    """It sees the middle of the headshot; the words are the mapper's of its CLS token."""
    net, photo = drawn_clip_vision(), drawn_photo()
    mask = torch.zeros(photo.shape[:3])
    mask[:, 100:300, 100:300] = 1
    _, _, _, headshot, _, info = learn(clip_vision=net)
    assert "one face; face mask: an oval by the landmarks" in info
    learned = mapper_file.load(tmp_path / folders.MAPPERS / "people" / "anna.safetensors")
    assert learned.face_encoder.startswith("CLIP vision")
    seen = headshot[:, 18:112, 16:110]  # of 512: 70 to 446, and 64 to 440
    vector = net.encode_image(seen)["last_hidden_state"][:, 0].cpu().float()
    words = learned.mapper(vector / vector.square().mean(dim=-1, keepdim=True).sqrt())
    for key, x in read_words(tmp_path).rows.items():
        torch.testing.assert_close(x, words[key][0], rtol=1e-4, atol=1e-5)
    alone = {"clip_vision": net, "face_analysis": None, "name": "b"}
    assert "its middle square (no face analysis)" in learn(**alone, face_mask=mask)[-1]
    with pytest.raises(FaceError, match="Nothing says where the face is in photo 1"):
        learn(**{**alone, "name": "d"})
    with pytest.raises(FaceError, match="learnt with the face encoder CLIP vision"):
        learn(steps=0, go_on_from="people/anna.safetensors", name="c")


def test_two_people_are_mixed(learn: Any, tmp_path: Path) -> None:
    learn(steps=1, name="anna")
    learn(steps=1, name="ben", images=drawn_photo("face_2"))
    with torch.inference_mode():
        for share in (0.0, 0.25, 1.0):
            name = f"mix{int(100 * share)}"
            (embedding,) = MixEmbeddings.execute(
                "anna.safetensors", "ben.safetensors", share, name, "stop"
            ).result
            assert embedding == f"embedding:{name}"
    anna, ben, mixed = (read_words(tmp_path, name) for name in ("anna", "ben", "mix25"))
    assert same(read_words(tmp_path, "mix0"), anna)
    assert same(read_words(tmp_path, "mix100"), ben)
    for key, x in mixed.rows.items():
        torch.testing.assert_close(x, 0.75 * anna.rows[key] + 0.25 * ben.rows[key])
    (tmp_path / "embeddings" / "foreign.safetensors").write_bytes(
        (tmp_path / folders.MAPPERS / "anna.safetensors").read_bytes()
    )
    with pytest.raises(FormatError, match="no embedding that Learn Identity Embedding"):
        MixEmbeddings.execute("anna.safetensors", "foreign.safetensors", 0.5, "x", "stop")
    with pytest.raises(FormatError, match="no mapper that Learn Identity Embedding"):
        mapper_file.load(tmp_path / "embeddings" / "anna.safetensors")


# --- What a run is found again by ----------------------------------------------------------------


def skip_a_layer(clip: Any) -> Any:
    return nodes.CLIPSetLastLayer().set_last_layer(clip, -2)[0]


def patch(model: Any, patcher: Any, end: str, strength: float) -> Any:
    """A clone whose weights with this end of their names have a difference added, as by a LoRA."""
    names = [name for name in patcher.model.state_dict() if name.endswith(end)]
    own = model.clone()
    target = getattr(own, "patcher", own)
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(4)
        for name in names:
            like = patcher.model.state_dict()[name]
            change = torch.randn(like.shape, generator=generator)
            assert target.add_patches({name: ("diff", (change,))}, strength)
    return own


def other_vae(vae: Any) -> Any:
    state = {name: 1.5 * x for name, x in vae.first_stage_model.state_dict().items()}
    return comfy.sd.VAE(sd=state)


def sample_by(model: Any, kind: str, zsnr: bool = False) -> Any:
    return ModelSamplingDiscrete().patch(model, kind, zsnr)[0]


CHANGES: dict[str, Callable[[Small, Any], dict[str, Any]]] = {
    "a layer skipped": lambda small, _: {"clip": skip_a_layer(small.clip)},
    "a LoRA on the text encoders": lambda small, _: {
        "clip": patch(small.clip, small.clip.patcher, "q_proj.weight", 0.1)
    },
    "a LoRA": lambda small, _: {"model": patch(small.model, small.model, "to_q.weight", 0.2)},
    "another autoencoder": lambda _, vae: {"vae": other_vae(vae)},
    "another sampling": lambda small, _: {"model": sample_by(small.model, "eps", True)},
    "another detection size": lambda *_: {"face_analysis": coarse_analysis()},
}


def coarse_analysis() -> Any:
    pack = ROOT / "miniature" / "weights" / "insightface" / "models" / "miniature"
    return load_analysis(pack, "CPU", 256)


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_with_anything_else_is_another_run(
    learn: Any, small: Small, vae: Any, change: str
) -> None:
    """Its words are learnt anew, never those of before."""
    if change == "a LoRA":  # there was another one before, on the same layers
        learn(steps=1, model=patch(small.model, small.model, "to_q.weight", 0.1))
    else:
        learn(steps=1)
    with pytest.raises(ValueError, match="name people/anna is taken already"):
        learn(steps=1, **CHANGES[change](small, vae))


def test_a_run_is_found_again_whatever_the_host_has_loaded(learn: Any, small: Small) -> None:
    """A sampled LoRA is in the very weights that the plain model shares with it."""
    patched = patch(small.model, small.model, "attn2.to_k.weight", 0.1)
    for model in (small.model, patched):
        losses = learn(steps=2, model=model, if_taken="replace")[1]["loss"]
        with torch.inference_mode():
            model_management.load_models_gpu([patched])
        assert learn(steps=2, model=model)[1]["loss"] == losses
        model_management.unload_all_models()


# --- What does not fit ---------------------------------------------------------------------------


def test_places_that_cannot_be_written(learn: Any, tmp_path: Path) -> None:
    """A file in the folder's place; and names that no drive takes are refused at once."""
    (tmp_path / "embeddings" / "people").write_text("a file")
    with pytest.raises(OSError, match=r"anna\.safetensors cannot be written \(File exists\)"):
        learn(steps=1)
    for name in ("\u4eba" * 100, "a/" + "\u4eba" * 67):
        with pytest.raises(ValueError, match="200 bytes between two"):
            learn(name=name)
    assert learn(steps=1, name="\u4eba" * 60)[2] == "embedding:" + "\u4eba" * 60


def test_a_mix_is_made_anew_when_a_person_has_changed(learn: Any) -> None:
    learn(steps=1, name="anna")
    learn(steps=1, name="ben", images=drawn_photo("face_2"))
    files = {"first": "anna.safetensors", "second": "ben.safetensors"}
    before = MixEmbeddings.fingerprint_inputs(**files, share=0.5, name="mix")
    assert MixEmbeddings.fingerprint_inputs(**files, share=0.5, name="mix") == before
    person = LearnEmbedding.fingerprint_inputs(go_on_from="anna.safetensors", name="x")
    learn(steps=2, name="anna")
    assert MixEmbeddings.fingerprint_inputs(**files, share=0.5, name="mix") != before
    assert LearnEmbedding.fingerprint_inputs(go_on_from="anna.safetensors", name="x") != person
    assert LearnEmbedding.fingerprint_inputs(go_on_from="[None]", name="x") == (None, None)
