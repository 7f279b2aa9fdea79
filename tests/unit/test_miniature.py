"""The drawn world: the same for the same seed, true to its captions and landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from pack.miniature.faces import Picture, render
from pack.miniature.shapes import TOKENS
from pack.miniature.tokenizer import PIECES, WordTokenizer, load_vocabulary
from pack.miniature.training.pictures import HELD_OUT, shown
from pack.miniature.world.captions import caption
from pack.miniature.world.identity import draw_identity
from pack.miniature.world.names import NAMES
from pack.miniature.world.scene import COLOURS, STYLES, draw_scene

SEEDS = range(40)


def draw(person: int, scene: int, style: str | None = None) -> Picture:
    return render(draw_identity(person), draw_scene(scene, style))


def describe(number: int) -> str:
    """The caption of a training picture."""
    return caption(shown(number), draw_identity(shown(number)), draw_scene(number))


def test_the_same_seeds_draw_the_same_picture() -> None:
    one, again, other = draw(3, 4), draw(3, 4), draw(3, 5)
    assert np.array_equal(one.pixels, again.pixels)
    assert not np.array_equal(one.pixels, other.pixels)


def test_landmarks_and_box_lie_on_the_face() -> None:
    """In InsightFace's order: eyes, nose, corners of the mouth, left to right in the picture."""
    for seed in SEEDS:
        picture = draw(seed, seed)
        left, top, right, bottom = picture.box
        x, y = picture.landmarks.T
        assert picture.pixels.shape == (256, 256, 3)
        assert left < x.min() < x.max() < right
        assert top < y.min() < y.max() < bottom
        assert x[0] < x[1]
        assert x[3] < x[4]
        assert max(y[0], y[1]) < y[2] < min(y[3], y[4])
        assert 100 < bottom - top < 200


def test_a_style_changes_the_rendering_alone() -> None:
    photo = draw(1, 2, "photo")
    for style in STYLES.keys() - {"photo"}:
        styled = draw(1, 2, style)
        assert np.array_equal(styled.landmarks, photo.landmarks)
        changed = np.abs(styled.pixels.astype(int) - photo.pixels).mean()
        assert changed > 8, style


def test_captions_use_the_vocabulary_and_fit_the_encoder() -> None:
    tokenizer = WordTokenizer(load_vocabulary())
    for number in range(2000):
        words = describe(number)
        assert set(PIECES.findall(words)) <= tokenizer.ids.keys()
        assert len(tokenizer(words)["input_ids"]) <= TOKENS


def test_captions_speak_of_people_in_several_ways() -> None:
    """Shares of 2000: by name, by a noun alone, by how they look; SeFi-IDE's words occur."""
    words = [describe(number) for number in range(2000)]
    named = [any(name in text for name in NAMES) for text in words]
    described = [" with " in text for text in words]
    assert 0.15 < np.mean(named) < 0.2
    assert 0.3 < np.mean(described) < 0.5
    assert not any(all(both) for both in zip(named, described, strict=True))
    faces = {text.split(",")[0].partition("the face of ")[2] for text in words}
    assert {"a person", "a woman", "a man"} < faces
    assert faces & set(NAMES)


def test_names_are_two_words_each_and_all_different() -> None:
    tokenizer = WordTokenizer(load_vocabulary())
    assert len(set(NAMES)) == len(NAMES) == 352
    assert all(len(tokenizer(name)["input_ids"]) == 4 for name in NAMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pencil_sketch_is_not_promised_colours(seed: int) -> None:
    """The caption of a grey picture names no colour but grey, white and black hair's."""
    words = caption(seed, draw_identity(seed), draw_scene(seed, "pencil")).replace(",", "")
    named = set(words.split()) & (COLOURS.keys() | {"ginger", "blond", "auburn"})
    assert named <= {"grey"}


def test_held_out_people_are_nobody_who_was_trained_on() -> None:
    trained = {draw_identity(shown(n)) for n in range(400)}
    assert not trained & {draw_identity(HELD_OUT + n) for n in range(100)}
