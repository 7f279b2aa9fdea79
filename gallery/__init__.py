"""The workflows that the pack ships: `python -m dev workflows` draws them into `workflows/`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .blueprint import Blueprint
from .graphs import Graph, Info
from .one_person import (
    best_of_batch,
    few_steps,
    load_identity,
    photo,
    save_identity,
    score,
    separate_models,
    several_photos,
    style,
    variations,
    weight_curve,
)
from .other_pictures import (
    controlnet,
    image_to_image,
    inpaint_face,
    lora,
    refine_faces,
    refine_small_faces,
)
from .people import mix, places_from_a_picture, regional_prompts, sweep, two_people
from .staged import learn_staged_identity, staged_identity
from .training import refine_identity, train_adapter
from .words import learn_embedding, use_embedding, use_embedding_controlnet


def photo_to_person(info: Info) -> Blueprint:
    return Blueprint(info)


TEMPLATES: tuple[Callable[[Info], Graph | Blueprint], ...] = (
    photo_to_person,
    photo,
    several_photos,
    style,
    few_steps,
    lora,
    controlnet,
    image_to_image,
    inpaint_face,
    refine_faces,
    refine_small_faces,
    mix,
    sweep,
    two_people,
    regional_prompts,
    places_from_a_picture,
    variations,
    weight_curve,
    save_identity,
    load_identity,
    score,
    separate_models,
    best_of_batch,
    refine_identity,
    train_adapter,
    learn_embedding,
    use_embedding,
    use_embedding_controlnet,
    learn_staged_identity,
    staged_identity,
)


def draw_blueprint(info: Info) -> dict[str, Any]:
    """Draw the file in `subgraphs/`."""
    return Blueprint(info).file()


def draw(info: Info) -> dict[str, dict[str, Any]]:
    """Draw all workflows by name, as the page would save them; `info` describes the nodes."""
    return {make.__name__: make(info).workflow(make.__name__) for make in TEMPLATES}
