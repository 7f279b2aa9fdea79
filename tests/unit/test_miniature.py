"""The drawn world: the same for the same seed, true to its captions and landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from pack.miniature.faces import Picture, render
from pack.miniature.shapes import TOKENS
from pack.miniature.tokenizer import UNKNOWN, WordTokenizer, load_vocabulary
from pack.miniature.training.pictures import HELD_OUT, PER_PERSON
from pack.miniature.world.identity import draw_identity
from pack.miniature.world.scene import COLOURS, STYLES, caption, draw_scene

SEEDS = range(40)


def draw(person: int, scene: int, style: str | None = None) -> Picture:
    return render(draw_identity(person), draw_scene(scene, style))


def test_the_same_seeds_draw_the_same_picture() -> None:
    one, again, other = draw(3, 4), draw(3, 4), draw(3, 5)
    assert np.array_equal(one.pixels, again.pixels)
    assert one.caption == again.caption
    assert not np.array_equal(one.pixels, other.pixels)


def test_landmarks_and_box_lie_on_the_face() -> None:
    """In InsightFace's order: eyes, nose, corners of the mouth, left to right in the picture."""
    for seed in SEEDS:
        picture = draw(seed, seed)
        left, top, right, bottom = picture.box
        x, y = picture.landmarks.T
        assert picture.pixels.shape == (128, 128, 3)
        assert left < x.min() < x.max() < right
        assert top < y.min() < y.max() < bottom
        assert x[0] < x[1]
        assert x[3] < x[4]
        assert max(y[0], y[1]) < y[2] < min(y[3], y[4])
        assert 40 < bottom - top < 112


def test_a_style_changes_the_rendering_alone() -> None:
    photo = draw(1, 2, "photo")
    for style in STYLES.keys() - {"photo"}:
        styled = draw(1, 2, style)
        assert np.array_equal(styled.landmarks, photo.landmarks)
        changed = np.abs(styled.pixels.astype(int) - photo.pixels).mean()
        assert changed > 8, style


def test_captions_use_the_vocabulary_and_fit_the_encoder() -> None:
    tokenizer = WordTokenizer(load_vocabulary())
    for seed in range(2000):
        tokens = tokenizer(caption(draw_identity(seed), draw_scene(seed)))["input_ids"]
        assert UNKNOWN not in tokens
        assert len(tokens) <= TOKENS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pencil_sketch_is_not_promised_colours(seed: int) -> None:
    """The caption of a grey picture names no colour but grey, white and black hair's."""
    words = draw(seed, seed, "pencil").caption.replace(",", "").split()
    named = set(words) & (COLOURS.keys() | {"ginger", "blond", "auburn"})
    assert named <= {"grey"}


def test_held_out_people_are_nobody_who_was_trained_on() -> None:
    trained = {draw_identity(n // PER_PERSON) for n in range(0, 400, PER_PERSON)}
    assert not trained & {draw_identity(HELD_OUT + n) for n in range(100)}
