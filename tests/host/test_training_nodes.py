"""The nodes that train, run as the host runs them: in inference mode, with its memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
import latent_preview
import nodes
import pytest
import torch
from comfy import model_management
from comfy.taesd.taesd import TAESD
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from pack.infinite_id.adapters import formats
from pack.infinite_id.attention.blocks import list_layers
from pack.infinite_id.errors import UserError
from pack.infinite_id.identities import identity_file
from pack.infinite_id.training import host_load
from pack.infinite_id.training.loop import Loop
from pack.nodes import folders
from pack.nodes.apply import ApplyInfiniteID
from pack.nodes.training import RefineIdentity, TrainAdapter
from pack.tests.host import world as worlds_module
from pack.tests.host.training_data import write_data
from server import PromptServer

STEPS = 12


class Page:
    """What the page sees of a run; it can interrupt one."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.previews = 0
        self.interrupt_at = 0

    def send_progress_text(self, text: str, node: str) -> None:
        assert node == "7"
        self.texts.append(text)
        if self.interrupt_at and text.startswith(f"step {self.interrupt_at} "):
            model_management.interrupt_current_processing(True)

    def update(self, value: int, total: int, preview: Any, node_id: str | None = None) -> None:
        """The host's hook for progress bars."""
        assert value <= total
        self.previews += preview is not None
        if node_id == "7":
            model_management.throw_exception_if_processing_interrupted()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Page:
    own = Page()
    monkeypatch.setattr(PromptServer, "instance", own, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", own.update)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_ENABLED", True)
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(
        latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB
    )
    for node in (RefineIdentity, TrainAdapter):
        monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="7"), raising=False)
    return own


@pytest.fixture(scope="module")
def loaded(worlds: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The least model and its autoencoder as the host's own node loads them."""
    from pack.miniature.random_weights import write

    worlds("least")
    folder = tmp_path_factory.mktemp("nodes")
    checkpoint = write(folder, "least")["checkpoint"]
    folder_paths.add_model_folder_path("checkpoints", str(folder))
    with torch.inference_mode():
        model, _, vae = nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint.name)
    return SimpleNamespace(model=model, vae=vae, checkpoint=checkpoint, folder=folder)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    state = model.model.diffusion_model.state_dict()
    return {name: x.clone() for name, x in state.items()}


def assert_untouched(model: Any, before: dict[str, torch.Tensor]) -> None:
    after = weights_of(model)
    assert all(torch.equal(after[name], x) for name, x in before.items())
    for block in model.model.diffusion_model.modules():
        assert "forward" not in vars(block)
    assert not model_management.in_training


# --- Refine Identity --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def identity(loaded: Any) -> Any:
    with torch.inference_mode():
        return worlds_module.make_identities(worlds_module.make_adapter(loaded.model))[0]


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return torch.rand(3, 96, 128, 3, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def refine(loaded: Any, identity: Any, photos: torch.Tensor, page: Page) -> Callable[..., Any]:
    page.texts.clear()

    def run(**changes: Any) -> Any:
        inputs = {
            "model": loaded.model,
            "vae": loaded.vae,
            "identity": identity,
            "images": photos,
            "steps": STEPS,
            "batch_size": 2,
            "learning_rate": 2e-2,
            "training_seed": 0,
            "size": 128,
            "gradient_checkpointing": True,
        }
        with torch.inference_mode():
            return RefineIdentity.execute(**{**inputs, **changes}).result

    return run


def test_tokens_learn_and_nothing_else(refine: Any, loaded: Any, identity: Any, page: Page) -> None:
    before, fingerprint = weights_of(loaded.model), identity.adapter.fingerprint
    tokens = identity.tokens.clone()
    refined, loss_map, info = refine(steps=20)
    losses, page.previews = loss_map["loss"], 0
    untrained = refine(steps=20, learning_rate=1e-6)[1]["loss"]  # on the same draws
    assert len(losses) == 20
    assert losses[0] == untrained[0]
    assert all(own < other for own, other in zip(losses[10:], untrained[10:], strict=True))
    assert refined.tokens.shape == tokens.shape
    assert not torch.equal(refined.tokens, tokens)
    assert torch.equal(identity.tokens, tokens)
    assert refined.adapter is identity.adapter
    assert refined.unconditional is identity.unconditional
    del identity.adapter.__dict__["fingerprint"]
    assert identity.adapter.fingerprint == fingerprint
    assert all(p.grad is None for p in identity.adapter.parameters())
    assert_untouched(loaded.model, before)
    assert info.startswith("20 steps on 3 photos; mean loss of the last ten 0.")
    assert page.texts[9].startswith("step 10 of 20, loss ")
    assert page.texts[9].endswith(" left")
    assert page.previews == 2


def test_the_result_is_an_ordinary_identity(
    refine: Any, loaded: Any, identity: Any, tmp_path: Path
) -> None:
    refined = refine(steps=2)[0]
    identity_file.save(refined, tmp_path / "refined.safetensors")
    again = identity_file.load(tmp_path / "refined.safetensors", identity.adapter)
    assert torch.equal(again.tokens, refined.tokens)
    assert (again.sources, again.features) == (identity.sources, None)
    with torch.inference_mode():
        model = ApplyInfiniteID.execute(
            loaded.model, refined, 1.0, "photo", "mixed", 0.0, 1.0, False
        ).result[0]
    assert model.model is loaded.model.model


def test_an_interrupted_run_goes_on_bit_for_bit(
    refine: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses, _ = refine()
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "again"))
    page.interrupt_at = 5
    with pytest.raises(model_management.InterruptProcessingException):
        refine()
    assert not model_management.processing_interrupted()
    assert not model_management.in_training
    assert len(page.texts) < 2 * STEPS
    page.interrupt_at, told = 0, len(page.texts)
    resumed, again, _ = refine()
    assert len(page.texts) - told < STEPS, "it did not begin anew"
    assert torch.equal(resumed.tokens, whole.tokens)
    assert again == losses


def test_an_interruption_within_a_step_keeps_the_steps_before(
    refine: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the host's layers raise it, in the middle of the fifth step."""
    whole, losses, _ = refine()
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "again"))
    backward = Loop._backward

    def interrupt(loop: Loop, batches: Any) -> Any:
        if loop.trainee.step == 4:
            raise model_management.InterruptProcessingException
        return backward(loop, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_backward", interrupt)
        with pytest.raises(model_management.InterruptProcessingException):
            refine()
    told = len(page.texts)
    resumed, again, _ = refine()
    assert len(page.texts) - told == STEPS - 4
    assert torch.equal(resumed.tokens, whole.tokens)
    assert again == losses


def test_more_steps_go_on_and_another_seed_begins_anew(refine: Any, page: Page) -> None:
    refine(steps=4)
    told = len(page.texts)
    refine(steps=6)
    assert len(page.texts) - told == 2
    refine(steps=4, training_seed=1)
    assert len(page.texts) - told == 6


def test_another_autoencoder_or_strength_of_a_lora_is_another_run(
    refine: Any, loaded: Any, page: Page
) -> None:
    refine(steps=2)
    weight = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    change = {weight: ("diff", (torch.ones_like(loaded.model.model.state_dict()[weight]),))}
    patched = [loaded.model.clone() for _ in range(2)]
    for model, strength in zip(patched, (0.1, 0.2), strict=True):
        assert model.add_patches(change, strength) == [weight]
    doubled = {name: 2 * x for name, x in loaded.vae.first_stage_model.state_dict().items()}
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=doubled)
    for changes in ({"vae": vae}, {"model": patched[0]}, {"model": patched[1]}):
        told = len(page.texts)
        refine(steps=2, **changes)
        assert len(page.texts) - told == 2


def test_another_sampling_is_another_run_and_another_objective(
    refine: Any, loaded: Any, page: Page
) -> None:
    losses = refine(steps=2)[1]["loss"]
    for kind, zsnr in (("v_prediction", False), ("v_prediction", True), ("eps", True)):
        told = len(page.texts)
        (model,) = ModelSamplingDiscrete().patch(loaded.model, kind, zsnr)
        assert refine(steps=2, model=model)[1]["loss"] != losses
        assert len(page.texts) - told == 2
    (model,) = ModelSamplingDiscrete().patch(loaded.model, "lcm", False)
    with pytest.raises(UserError, match="samples by ModelSamplingDiscreteDistilled and LCM"):
        refine(steps=2, model=model)


def test_what_cannot_be_refined_is_explained(refine: Any, identity: Any) -> None:
    from dataclasses import replace

    sweep = replace(identity, tokens=identity.tokens.repeat(2, 1, 1))
    with pytest.raises(ValueError, match="takes a single identity"):
        refine(identity=sweep)
    weighted = replace(identity, shares=torch.ones(1, identity.tokens.shape[1]))
    with pytest.raises(ValueError, match="takes a single identity"):
        refine(identity=weighted)
    with pytest.raises(UserError, match=r"no VAE at this node's 'vae'"):
        refine(vae=None)
    with pytest.raises(UserError, match=r"shape \(16, .* takes \(4, height, width\)"):
        refine(vae=comfy.sd.VAE(sd=TAESD(latent_channels=16).state_dict()))


# --- Train Infinite-ID Adapter ----------------------------------------------------------------


@pytest.fixture
def train(
    loaded: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    page.texts.clear()
    datasets = tmp_path / "datasets"
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, folders.DATASETS, ([str(datasets)], set())
    )
    write_data(datasets / "drawn", loaded.checkpoint)

    def run(**changes: Any) -> Any:
        inputs = {
            "model": loaded.model,
            "data": "drawn",
            "name": "mine",
            "steps": STEPS,
            "batch_size": 2,
            "grad_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "training_seed": 0,
            "gradient_checkpointing": False,
            "size": 0,
        }
        with torch.inference_mode():
            return TrainAdapter.execute(**{**inputs, **changes}).result

    return run


def test_a_graph_trains_an_adapter(train: Any, loaded: Any, page: Page, tmp_path: Path) -> None:
    assert folders.list_prepared() == ["drawn"]
    before = weights_of(loaded.model)
    adapter, loss_map, info = train()
    assert len(loss_map["loss"]) == STEPS
    assert adapter.config.layers == list_layers(loaded.model.model.diffusion_model)
    path = tmp_path / "output" / "infinite_id" / "mine.safetensors"
    assert formats.load(path).fingerprint == adapter.fingerprint
    assert path.with_suffix(".md").exists()
    assert info.startswith("mine.safetensors: 12 steps, 20 photos, lowest validation loss 0.")
    assert_untouched(loaded.model, before)
    assert page.previews == 1


def test_an_interrupted_adapter_goes_on_bit_for_bit(
    train: Any, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses, _ = train()
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "again"))
    page.interrupt_at = 5
    with pytest.raises(model_management.InterruptProcessingException):
        train()
    page.interrupt_at = 0
    resumed, again, _ = train()
    assert resumed.fingerprint == whole.fingerprint
    assert again == losses


def test_an_adapter_begins_with_another(train: Any) -> None:
    first = train()[0]
    second = train(start_from=first, steps=1, learning_rate=1e-7)[0]
    for name, x in second.state_dict().items():
        torch.testing.assert_close(x, first.state_dict()[name], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("train")
def test_photos_prepared_anew_are_seen(tmp_path: Path) -> None:
    before = TrainAdapter.fingerprint_inputs("drawn")
    assert TrainAdapter.fingerprint_inputs("drawn", steps=3) == before
    with (tmp_path / "datasets" / "drawn" / folders.PREPARED).open("a") as index:
        index.write("\n")
    assert TrainAdapter.fingerprint_inputs("drawn") != before


def test_what_cannot_be_trained_is_explained(train: Any) -> None:
    for data in ("gone", "../drawn"):
        with pytest.raises(ValueError, match=f"data must be one of: drawn; it is {data}"):
            train(data=data)
        with pytest.raises(FileNotFoundError, match=f"no prepared photos '{data}'"):
            folders.find_prepared(data)
    for name in ("../mine", "", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="the name of a file"):
            train(name=name)


def test_gradients_are_as_before_even_after_an_error() -> None:
    with torch.inference_mode(), pytest.raises(KeyError):
        fail_in_training()
    assert not model_management.in_training


def fail_in_training() -> None:
    with host_load.training():
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert model_management.in_training
        raise KeyError
