"""Weights of single layers, as text."""

import pytest
from pack.infinite_id.attention.blocks import SDXL, Block
from pack.infinite_id.layer_weights import name_places, read_layer_weights

NAMES = ["down1", "down2", "down3", "down4", "middle", "up1", "up2", "up3", "up4", "up5", "up6"]
PLACES = [
    *[("input", number) for number in (4, 5, 7, 8)],
    ("middle", 0),
    *[("output", number) for number in range(6)],
]


def test_sdxl_has_eleven_layers() -> None:
    assert name_places(SDXL) == dict(zip(NAMES, PLACES, strict=True))


def test_a_net_without_a_middle_has_no_such_name() -> None:
    layers = {Block("input", 4, 0): 8, Block("output", 1, 0): 8, Block("output", 2, 0): 8}
    assert list(name_places(layers)) == ["down1", "up1", "up2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" \n", {}),
        ("down2: .5", {("input", 5): 0.5}),
        ("down2: .5, up6:0\nmiddle : 3", {("input", 5): 0.5, ("output", 5): 0, ("middle", 0): 3}),
        (
            "0,0.1,0.2,.3,0.4,.5,0.6,0.7,0.8,0.9,1.0",
            {place: pytest.approx(number / 10) for number, place in enumerate(PLACES)},
        ),
        ("1\n" * 11, dict.fromkeys(PLACES, 1.0)),
    ],
)
def test_reading(text: str, expected: object) -> None:
    assert read_layer_weights(text, SDXL) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, 2", "there are 2 numbers, and this model has 11 layers: down1, .*, up6"),
        ("down5: 1", "no layer 'down5'; its layers are down1, down2"),
        ("down1: 1, 0.5", "no layer '0.5'"),
        ("3: 0.5", "no layer '3'"),
        ("up1: 1, up1: 0", "'up1' is there twice"),
        ("up1: much", "weight of up1 must be a number from 0 to 3; it is 'much'"),
        ("up1:", "weight of up1 must be a number from 0 to 3; it is ''"),
        ("up1: -1", "it is '-1'"),
        ("up1: nan", "it is 'nan'"),
        ("up1: 3.5", "it is '3.5'"),
        (",".join(["1"] * 10 + ["x"]), "weight of up6 must be a number"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"layer_weights: .*{message}"):
        read_layer_weights(text, SDXL)
