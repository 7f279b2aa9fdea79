"""StableIdentity's maths against references of a few lines, written another way."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from pack.infinite_id.faces import headshot
from pack.infinite_id.stable_identity import celebs
from pack.infinite_id.stable_identity.augment import (
    Augmentation,
    Jitter,
    augment,
    change_colours,
    draw_augmentation,
)
from pack.infinite_id.stable_identity.celebs import CelebSpace, NamesError, read_names
from pack.infinite_id.stable_identity.data import VARIANTS, Targets, Variant, list_needed
from pack.infinite_id.stable_identity.learner import WordLearner
from pack.infinite_id.stable_identity.mapper import Landing, Mapper, new_mapper
from pack.infinite_id.stable_identity.objective import (
    Noised,
    Phases,
    choose_phase,
    two_phase_loss,
)
from pack.infinite_id.stable_identity.templates import TEMPLATES
from pack.infinite_id.training.objective import Prediction
from pack.infinite_id.training.settings import Run, Settings
from pack.infinite_id.words.draw import draw
from pack.infinite_id.words.masks import MaskError, check_mask, shrink_mask
from torch import Tensor

SIDE = 64


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- Celeb space ------------------------------------------------------------------------------


def test_statistics_of_names_are_per_word_and_channel() -> None:
    table = rand(20, 3)
    tokens = [[4, 5], [6, 7], [8, 9], [4, 11]]
    space = celebs.measure(celebs.take_rows(table, tokens))
    for word in range(2):
        for channel in range(3):
            column = [float(table[name[word], channel]) for name in tokens]
            assert float(space.mean[word, channel]) == pytest.approx(statistics.mean(column))
            assert float(space.std[word, channel]) == pytest.approx(statistics.stdev(column))


def test_only_names_of_single_trained_tokens_count() -> None:
    table = rand(10, 3)
    table[7] = 0  # a word that nobody trained
    ids = {"ada": [4], "bo": [5], "carl": [6], "dot": [7], "ev": [8, 9]}
    names = read_names("Ada Bo\ncarl ada, ada dot, ev bo, ada bo")
    assert names == [("ada", "bo"), ("carl", "ada"), ("ada", "dot"), ("ev", "bo")]
    found = celebs.find_tokens(names, ids.__getitem__, table)
    assert found == {("ada", "bo"): [4, 5], ("carl", "ada"): [6, 4]}
    with pytest.raises(NamesError, match=r"Of 4 names, 2 are known.*list of names"):
        celebs.check_known(found, names)


def test_names_of_other_lengths_are_refused() -> None:
    with pytest.raises(NamesError, match="'ada' has 1 words"):
        read_names("ada")
    with pytest.raises(NamesError, match="'a b c' has 3 words"):
        read_names("x y\na b c")


def test_the_shipped_names_are_many_and_distinct() -> None:
    names = read_names("")
    assert len(names) > 326
    assert len(set(names)) == len(names)


# --- Mapper -----------------------------------------------------------------------------------


def make(landing: Landing, width: int = 6, face: int = 5) -> Mapper:
    space = CelebSpace(rand(2, width, seed=1), rand(2, width, seed=2).abs())
    mapper = new_mapper(face, {"clip_l": space}, landing, 3)
    with torch.no_grad():
        for n, p in enumerate(mapper.parameters()):
            p.copy_(rand(*p.shape, seed=10 + n))
    return mapper


@pytest.mark.parametrize("landing", Landing)
def test_the_mapper_is_the_published_one(landing: Landing) -> None:
    mapper = make(landing)
    w = {name: p.detach().double().numpy() for name, p in mapper.heads["clip_l"].named_parameters()}
    mean, std = (getattr(mapper.heads["clip_l"], x).double().numpy() for x in ("mean", "std"))
    face = rand(3, 5, seed=4)

    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5)

    for n, vector in enumerate(face.double().numpy()):
        x = vector / np.sqrt((vector**2).mean())
        hidden = 0.1 * w["first.weight"] @ x + 0.1 * w["first.bias"]
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        hidden = norm(hidden) * w["norm.weight"] + w["norm.bias"]
        out = 0.1 * w["second.weight"] @ hidden + 0.1 * w["second.bias"]
        if landing is Landing.JOINT:
            expected = mean + std * (norm(out) * w["land.weight"] + w["land.bias"]).reshape(2, -1)
        elif landing is Landing.EACH:
            rows = out.reshape(2, -1)
            rows = np.stack([(r - r.mean()) / np.sqrt(r.var(ddof=1) + 1e-5) for r in rows])
            expected = mean + std * rows
        else:
            expected = out.reshape(2, -1)
        got = mapper(face)["clip_l"][n].detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_each_text_encoder_has_a_head_of_its_own() -> None:
    spaces = {
        "clip_l": CelebSpace(rand(2, 4), rand(2, 4)),
        "clip_g": CelebSpace(rand(2, 7), rand(2, 7)),
    }
    rows = new_mapper(5, spaces, Landing.JOINT, 0)(rand(1, 5))
    assert {key: tuple(x.shape) for key, x in rows.items()} == {
        "clip_l": (1, 2, 4),
        "clip_g": (1, 2, 7),
    }


def test_a_fresh_mapper_is_a_function_of_the_seed_and_begins_among_the_names() -> None:
    spaces = {"clip_l": CelebSpace(rand(2, 512), rand(2, 512, seed=5).abs())}
    first, again, other = (new_mapper(8, spaces, Landing.JOINT, seed) for seed in (1, 1, 2))
    face = rand(1, 8)
    assert torch.equal(first(face)["clip_l"], again(face)["clip_l"])
    assert not torch.equal(first(face)["clip_l"], other(face)["clip_l"])
    z = (first(face)["clip_l"].detach() - spaces["clip_l"].mean) / spaces["clip_l"].std
    assert float(z.mean()) == pytest.approx(0, abs=1e-3)
    assert float(z.std()) == pytest.approx(1, abs=1e-2)
    assert float(first.heads["clip_l"].first.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert not first.heads["clip_l"].second.bias.any()


def test_the_length_of_face_vectors_does_not_matter() -> None:
    mapper = make(Landing.JOINT)
    face = rand(1, 5)
    torch.testing.assert_close(mapper(face)["clip_l"], mapper(0.01 * face)["clip_l"])


# --- Loss -------------------------------------------------------------------------------------


def loss_by_hand(
    output: Tensor,
    z: Tensor,
    eps: Tensor,
    a: float,
    face: Tensor,
    hair: Tensor,
    early: bool,
    v: bool,
) -> float:
    """One sample, element by element."""
    total, count = 0.0, 0
    for place in np.ndindex(*output.shape):
        o, x, e = (float(t[place]) for t in (output, z, eps))
        f, h = float(face[0, place[1], place[2]]), float(hair[0, place[1], place[2]])
        noised = math.sqrt(a) * x + math.sqrt(1 - a) * e
        if early:
            target = math.sqrt(a) * e - math.sqrt(1 - a) * x if v else e
            error = o - target
        else:
            clean = (
                math.sqrt(a) * noised - math.sqrt(1 - a) * o
                if v
                else (noised - math.sqrt(1 - a) * o) / math.sqrt(a)
            )
            error = (clean - x) / 0.18215
        total += (f * error) ** 2 + 0.1 * (h * error) ** 2
        count += 1
    return total / count


@pytest.mark.parametrize("prediction", Prediction)
def test_the_loss_is_that_of_each_phase(prediction: Prediction) -> None:
    shape = (3, 2, 4, 5)
    output, z, eps = (rand(*shape, seed=n) for n in range(3))
    face, hair = ((rand(3, 1, 4, 5, seed=n) > 0).float() for n in (3, 4))
    times, alpha = torch.tensor([601, 600, 10]), torch.tensor([0.1, 0.2, 0.9])
    a = alpha[:, None, None, None]
    early = choose_phase(times, 1000, Phases.BOTH)
    assert early.tolist() == [True, False, False]
    at = Noised(z, eps, a.sqrt() * z + (1 - a).sqrt() * eps, alpha, early)
    losses = two_phase_loss(output, at, face, hair, prediction)
    by_hand = [
        loss_by_hand(
            output[n], z[n], eps[n], float(alpha[n]), face[n], hair[n],
            bool(early[n]), prediction is Prediction.VELOCITY,
        )
        for n in range(3)
    ]  # fmt: skip
    # The mean over the batch is the sum of the two phases' means.
    assert float(losses.mean()) == pytest.approx(
        by_hand[0] + (by_hand[1] + by_hand[2]) / 2, rel=1e-4
    )


@pytest.mark.parametrize("prediction", Prediction)
def test_a_perfect_prediction_costs_nothing(prediction: Prediction) -> None:
    z, eps, alpha = rand(2, 4, 3, 3), rand(2, 4, 3, 3, seed=1), torch.tensor([0.3, 0.8])
    a = alpha[:, None, None, None]
    noised = a.sqrt() * z + (1 - a).sqrt() * eps
    output = eps if prediction is Prediction.NOISE else a.sqrt() * eps - (1 - a).sqrt() * z
    ones = torch.ones(2, 1, 3, 3)
    for early in (True, False):
        at = Noised(z, eps, noised, alpha, torch.tensor([early, early]))
        assert float(two_phase_loss(output, at, ones, ones, prediction).max()) < 1e-9


def test_ablations_have_one_phase() -> None:
    times = torch.tensor([0, 999])
    assert choose_phase(times, 1000, Phases.NOISE).tolist() == [True, True]
    assert choose_phase(times, 1000, Phases.RECONSTRUCTION).tolist() == [False, False]


# --- Masks and augmentation -------------------------------------------------------------------


def test_masks_at_the_latents_size_are_cut_at_one_half() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[:, :, 16:] = 1
    small = shrink_mask(mask, (4, 4))
    # With corners aligned, the four columns lie at 0, 10.3, 20.7 and 31.
    assert small.tolist() == [[[0.0, 0.0, 1.0, 1.0]] * 4]
    assert set(shrink_mask(rand(2, 1, 33, 31).clamp(0, 1), (5, 7)).unique().tolist()) <= {0.0, 1.0}


def test_a_mask_of_nothing_is_an_error() -> None:
    with pytest.raises(MaskError, match=r"mask of photo 1 marks nothing.*face_mask"):
        check_mask(torch.zeros(1, SIDE, SIDE), (8, 8), "photo 1")
    speck = torch.zeros(1, SIDE, SIDE)
    speck[:, 0, 0] = 0.4
    with pytest.raises(MaskError):
        check_mask(speck, (8, 8), "photo 1")


def ramps() -> Tensor:
    """x, y and 1 in 0..1, which bicubic scaling keeps straight."""
    across = torch.linspace(0.2, 0.8, SIDE).expand(SIDE, SIDE)
    return torch.stack([across, across.T, torch.full((SIDE, SIDE), 0.5)])


@pytest.mark.parametrize("mirrored", [False, True])
def test_geometry_of_target_and_masks(mirrored: bool) -> None:
    """Where each pixel of the result comes from, worked out for single pixels."""
    how = Augmentation(mirrored, Jitter(), crop=(5, 11), size=(40, 37), place=(9, 20))
    image = ramps()
    moved, face, hair = augment(image, image[:1], image[1:2], how)
    kept = SIDE * 3 // 4

    def source(i: int, length: int, start: int) -> float:
        whole = i / (length - 1) * (SIDE - 1)  # in the crop, scaled back to the whole side
        return start + whole / (SIDE - 1) * (kept - 1)

    for y, x in ((20, 30), (30, 25), (40, 50), (9 + 20, 20 + 18)):
        from_y, from_x = source(y - 9, 40, 5), source(x - 20, 37, 11)
        if mirrored:
            from_x = SIDE - 1 - from_x
        expected = [0.2 + 0.6 * v / (SIDE - 1) for v in (from_x, from_y)]
        assert float(moved[0, y, x]) == pytest.approx(expected[0], abs=2e-3)
        assert float(moved[1, y, x]) == pytest.approx(expected[1], abs=2e-3)
        assert float(face[0, y, x]) == pytest.approx(float(moved[0, y, x]), abs=1e-6)
        assert float(hair[0, y, x]) == pytest.approx(float(moved[1, y, x]), abs=1e-6)
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[9:49, 20:57] = False
    assert not moved[:, outside].any()
    assert not face[:, outside].any()


def test_colours_change_in_the_target_alone() -> None:
    image = rand(3, SIDE, SIDE).sigmoid()
    jitter = Jitter(1.1, 0.9, 1.2, 0.0)
    got = change_colours(image, jitter)
    x = (image * 1.1).clamp(0, 1)
    grey = 0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    x = (0.9 * x + 0.1 * grey.mean()).clamp(0, 1)
    grey = 0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    x = (1.2 * x - 0.2 * grey).clamp(0, 1)
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-3)
    how = Augmentation(False, Jitter(1.2, 0.8, 1.2, 0.01), (0, 0), (SIDE, SIDE), (0, 0))
    plain = Augmentation(False, Jitter(), (0, 0), (SIDE, SIDE), (0, 0))
    mask = image[:1]
    assert torch.equal(augment(image, mask, mask, how)[1], augment(image, mask, mask, plain)[1])


def test_draws_keep_to_their_ranges() -> None:
    drawn = [draw_augmentation(SIDE, torch.Generator().manual_seed(n)) for n in range(400)]
    assert 150 < sum(how.mirrored for how in drawn) < 250
    heights = [how.size[0] for how in drawn]
    assert min(heights) >= SIDE // 2
    assert max(heights) <= SIDE
    for how in drawn:
        ratio = how.size[1] / how.size[0]
        assert 0.87 < ratio < 1.11
        assert all(p + s <= SIDE for p, s in zip(how.place, how.size, strict=True))
        assert all(0 <= c <= SIDE // 4 for c in how.crop)
        for factor in (how.jitter.brightness, how.jitter.contrast, how.jitter.saturation):
            assert 0.8 <= factor <= 1.2
        assert abs(how.jitter.hue) <= 0.01
    assert drawn[3] == draw_augmentation(SIDE, torch.Generator().manual_seed(3))


# --- Headshot ---------------------------------------------------------------------------------


def test_the_headshot_is_ffhqs() -> None:
    points = np.array([[40, 52], [70, 47], [57, 66], [46, 82], [71, 78]], np.float32)
    matrix = headshot.place_headshot(points, 512)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    x = (points[1] - points[0]) - np.array([[0, -1], [1, 0]]) @ (mouth - eyes)
    x = x / np.linalg.norm(x)
    x *= max(np.linalg.norm(points[1] - points[0]) * 2, np.linalg.norm(mouth - eyes) * 1.8)
    y = np.array([-x[1], x[0]])
    c = eyes + 0.1 * (mouth - eyes)
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])
    corners = np.c_[quad, np.ones(4)] @ matrix.T
    np.testing.assert_allclose(corners[:, :2], [[0, 0], [0, 512], [512, 512], [512, 0]], atol=1e-3)


def test_masks_are_cut_as_the_photo_is() -> None:
    points = np.array([[40, 50], [60, 50], [50, 60], [43, 72], [57, 72]], np.float32)
    matrix = headshot.place_headshot(points, SIDE)
    ramp = np.tile(np.linspace(0, 255, 100).astype(np.uint8)[None, :, None], (110, 1, 3))
    cut = headshot.cut_headshot(ramp, matrix, SIDE)
    mask = headshot.cut_mask(ramp[..., 0].astype(np.float32) / 255, matrix, SIDE)
    inside = slice(16, 48)
    torch.testing.assert_close(cut[0, inside, inside], mask[0, inside, inside], rtol=0, atol=0.01)


# --- Prompts, batches, pictures ---------------------------------------------------------------


def test_templates_are_many_and_hold_one_person() -> None:
    assert len(set(TEMPLATES)) == len(TEMPLATES) >= 57
    assert all(text.count("{}") == 1 for text in TEMPLATES)


def make_targets(count: int) -> Targets:
    variants = {
        n: Variant(
            f"v{n}",
            rand(5, seed=n),
            rand(4, 3, 3, seed=n),
            torch.ones(1, 3, 3),
            torch.zeros(1, 3, 3),
        )
        for n in range(count)
    }
    return Targets(variants, variants[0])


def test_a_step_is_a_function_of_its_number_and_the_seed() -> None:
    settings = Settings(run=Run(steps=40, batch=1, at_once=1, seed=1))
    assert list_needed(0, settings) == list(range(41))
    targets = make_targets(41)
    a, b = (targets.read(7, [0], settings, 1000) for _ in range(2))
    assert torch.equal(a.noise, b.noise)
    assert (a.times.tolist(), a.prompts, a.names) == (b.times.tolist(), b.prompts, ("v7",))
    other = targets.read(8, [0], settings, 1000)
    assert not torch.equal(a.noise, other.noise)
    later = Settings(run=Run(steps=2000, batch=1, at_once=1, seed=1))
    assert list_needed(0, later) == list(range(VARIANTS))
    assert list_needed(1990, later) == [n % VARIANTS for n in range(1990, 2001)]


class Oracle:
    """Knows the picture."""

    def __init__(self, z0: Tensor, prediction: Prediction) -> None:
        self.alphas_cumprod = torch.linspace(0.999, 0.005, 1000)
        self.prediction, self._z0 = prediction, z0

    def scale(self, latents: Tensor) -> Tensor:
        return latents * 0.5

    def predict(self, noised: Tensor, times: Tensor, _: object, prompts: list[str]) -> Tensor:
        del prompts
        a = self.alphas_cumprod[times][:, None, None, None]
        noise = (noised - a.sqrt() * self._z0) / (1 - a).sqrt()
        if self.prediction is Prediction.NOISE:
            return noise
        return a.sqrt() * noise - (1 - a).sqrt() * self._z0


@pytest.mark.parametrize("prediction", Prediction)
def test_pictures_end_at_what_the_model_knows(prediction: Prediction) -> None:
    z0 = rand(1, 4, 5, 5)
    oracle = Oracle(z0, prediction)
    off = rand(1, 4, 5, 5, seed=1)

    def predict(noised: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Of which the truth is what guidance makes: without + 5 * (with - without)."""
        truth = oracle.predict(noised, times, None, [])
        return truth + 0.8 * off, truth + off

    drawn = draw(predict, oracle.alphas_cumprod, prediction, (4, 5, 5), 0)
    torch.testing.assert_close(drawn, z0, rtol=0, atol=0.15)  # a little noise is left at step 0
    other = draw(predict, oracle.alphas_cumprod, prediction, (4, 5, 5), 1)
    assert not torch.equal(drawn, other)


def test_the_learner_adds_noise_and_scales_as_the_model_wants() -> None:
    latents = rand(1, 4, 3, 3, seed=0)
    oracle = Oracle(latents * 0.5, Prediction.NOISE)
    learner = WordLearner(make(Landing.JOINT), oracle)
    settings = Settings(run=Run(steps=3, batch=1, at_once=1))
    batch = make_targets(4).read(0, [0], settings, 1000)
    assert torch.equal(batch.latents, latents)
    assert float(learner(batch)) < 1e-6
    torch.testing.assert_close(learner.denoise(batch), latents * 0.5, rtol=1e-3, atol=1e-3)


def test_names_are_shipped_beside_the_module() -> None:
    assert (Path(celebs.__file__).with_name("names.txt")).is_file()
