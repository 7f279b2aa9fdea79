"""Each piece of attention maths against a few lines written from its formula."""

import math

import pytest
import torch
from pack.infinite_id.attention.adain import adain, adain_mean
from pack.infinite_id.attention.blocks import SDXL, Block
from pack.infinite_id.attention.image import add_image_attention, log_shares
from pack.infinite_id.attention.mask import Area, mask_tokens
from pack.infinite_id.attention.mixed import Mixing, Style, mix, needs_text_stream
from torch import Tensor
from torch.testing import assert_close

B, L, C = 3, 20, 8


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """One head of scaled dot-product attention."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def test_adain_mean_moves_the_mean_and_nothing_else() -> None:
    x, y = draw(B, L, C), draw(B, 2 * L, C, seed=1) + 3
    out = adain_mean(x, y)
    for row in range(B):
        for channel in range(C):
            values, target = x[row, :, channel], y[row, :, channel]
            expected = values - sum(values) / L + sum(target) / (2 * L)
            assert_close(out[row, :, channel], expected)


def test_adain_takes_mean_and_deviation() -> None:
    x, y = draw(B, L, C), 5 * draw(B, 2 * L, C, seed=1) + 3
    out = adain(x, y, eps=0)
    assert_close(out.mean(1), y.mean(1))
    assert_close(out.std(1, correction=0), y.std(1, correction=0))
    assert_close((out - out.mean(1, True)) / out.std(1, keepdim=True), _standardise(x))


def _standardise(x: Tensor) -> Tensor:
    return (x - x.mean(1, True)) / x.std(1, keepdim=True)


def test_adain_of_constant_features_is_finite() -> None:
    assert torch.isfinite(adain(torch.ones(1, 4, 2), draw(1, 4, 2).float())).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scales", [(300, 1), (1, 300), (300, 300), (1e-4, 300), (2000, 1e-2)])
def test_adain_in_half_precision(dtype: torch.dtype, scales: tuple[float, float]) -> None:
    """Against the formula in float64: deviations of which float16 cannot hold the square."""
    x, y = (s * draw(1, 4096, C, seed=i).to(dtype) + s for i, s in enumerate(scales))
    wide = x.double(), y.double()
    std = [(v.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for v in wide]
    expected = (wide[0] - wide[0].mean(1, True)) / std[0] * std[1] + wide[1].mean(1, True)
    found = adain(x, y)
    assert found.dtype == dtype
    error = (found.double() - expected).norm() / expected.norm()
    assert error < 4 * torch.finfo(dtype).eps


def test_adain_mean_in_half_precision() -> None:
    """A sum over many tokens, far above what float16 can hold."""
    x, y = torch.full((1, 16384, 2), 300.0).half(), torch.full((1, 16384, 2), -200.0).half()
    assert torch.equal(adain_mean(x, y), y)


@pytest.mark.parametrize("function", [adain_mean, adain])
def test_adain_with_its_own_statistics_changes_nothing(function: object) -> None:
    x = draw(B, L, C)
    assert_close(function(x, x), x)  # type: ignore[operator]


def test_adain_mean_before_and_after_a_projection_is_the_same() -> None:
    """K and V are linear in the layer's input and share weights in both streams."""
    x, y, weight = draw(B, L, C), draw(B, L, C, seed=1), draw(C, C, seed=2)
    assert_close(adain_mean(x @ weight, y @ weight), adain_mean(x, y) @ weight)


@pytest.mark.parametrize("style", Style)
def test_mix(style: Style) -> None:
    x_id, x_t = draw(B, L, C), draw(B, L, C, seed=1)
    styled = {
        Style.PHOTO: x_id,
        Style.ADAIN_MEAN: adain_mean(x_id, x_t),
        Style.ADAIN: adain(x_id, x_t),
    }
    assert_close(mix(Mixing.MIXED, style, x_id, x_t), torch.cat([styled[style], x_t], 1))
    assert_close(mix(Mixing.OFF, style, x_id, x_t), styled[style])
    assert_close(mix(Mixing.MUTUAL, style, x_id, x_t), x_t)


@pytest.mark.parametrize("mixing", Mixing)
@pytest.mark.parametrize("style", Style)
def test_equal_streams_attend_as_one(mixing: Mixing, style: Style) -> None:
    """Why weight 0 is exact: with equal features every setting is plain self-attention."""
    q, k, v = (draw(B, L, C, seed=s) for s in range(3))
    mixed = attend(q, mix(mixing, style, k, k), mix(mixing, style, v, v))
    assert_close(mixed, attend(q, k, v))


def test_text_stream_is_needed_unless_nothing_reads_it() -> None:
    needless = [(m, s) for m in Mixing for s in Style if not needs_text_stream(m, s)]
    assert needless == [(Mixing.OFF, Style.PHOTO)]


def add(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: float,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """What becomes of a copy of `out`."""
    changed = out.clone()
    add_image_attention(changed, q, k, v, attend, weight, mask, bias)
    return changed


def test_image_attention_is_added() -> None:
    out, q, k, v = (
        draw(B, L, C),
        draw(B, L, C, seed=1),
        draw(B, 5, C, seed=2),
        draw(B, 5, C, seed=3),
    )
    mask = torch.rand(B, L, 1, dtype=torch.float64)
    expected = out + attend(q, k, v)
    assert_close(add(out, q, k, v, 1.0), expected)
    expected = torch.stack(
        [out[b, i] + 0.7 * mask[b, i] * attend(q, k, v)[b, i] for b in range(B) for i in range(L)]
    ).reshape(B, L, C)
    assert_close(add(out, q, k, v, 0.7, mask), expected)
    apart = add(out.view(1, B, L, C), q, k, v, 0.7, mask)
    assert_close(apart, expected[None])


def test_image_attention_outside_the_mask_is_exactly_nothing() -> None:
    out, q, k, v = (draw(B, L, C, seed=s) for s in range(4))
    mask = (torch.arange(L) < 7).double()[None, :, None].expand(B, -1, -1)
    changed = add(out, q, k, v, 1.0, mask)
    assert torch.equal(changed[:, 7:], out[:, 7:])
    assert (changed[:, :7] != out[:, :7]).all()


def test_mask_is_averaged_over_each_token() -> None:
    mask = torch.rand(2, 8, 12)
    tokens = mask_tokens(mask, (8, 12), None, (4, 6))
    for y in range(4):
        for x in range(6):
            patch = mask[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
            assert_close(tokens[:, 6 * y + x, 0], patch)


@pytest.mark.parametrize("latent", [(128, 128), (152, 104), (65, 64), (64, 65)])
@pytest.mark.parametrize("level", [1, 2, 4])
def test_mask_fits_every_size_and_keeps_its_sides(latent: tuple[int, int], level: int) -> None:
    """Left half on, any resolution: left tokens 1, right tokens exactly 0."""
    grid = (-(-latent[0] // level), -(-latent[1] // level))
    mask = torch.zeros(1, 8 * latent[0], 8 * latent[1])
    mask[..., : 8 * (latent[1] // 2)] = 1
    tokens = mask_tokens(mask, latent, None, grid).reshape(grid)
    middle = grid[1] // 2
    assert (tokens[:, : middle - 1] == 1).all()
    assert (tokens[:, middle + 1 :] == 0).all()


def test_mask_follows_the_area() -> None:
    mask = torch.rand(1, 16, 24)
    area = Area(height=8, width=12, top=4, left=6)
    expected = mask_tokens(mask[:, 4:12, 6:18], (8, 12), None, (4, 6))
    assert_close(mask_tokens(mask, (16, 24), area, (4, 6)), expected)


def test_sdxl_has_70_layers_where_the_formats_say() -> None:
    assert len(SDXL) == 70
    widths = {640: 0, 1280: 0}
    for width in SDXL.values():
        widths[width] += 1
    assert widths == {640: 10, 1280: 60}
    assert [block for block in SDXL if block.stage == "middle"] == [
        Block("middle", 0, index) for index in range(10)
    ]


def test_block_addresses_round_trip() -> None:
    assert [Block.parse(str(block)) for block in SDXL] == list(SDXL)
    for bad in ("input_4", "nowhere_1_1", "input_a_1", "input_1_1_1"):
        with pytest.raises(ValueError):  # noqa: PT011  # any wording
            Block.parse(bad)


def test_shares_weigh_tokens_before_the_softmax_is_normalised() -> None:
    out, q = torch.zeros(B, L, C, dtype=torch.float64), draw(B, L, C)
    k, v = draw(B, 6, C, seed=1), draw(B, 6, C, seed=2)
    shares = torch.rand(B, 6, dtype=torch.float64) * 3
    shares[:, 2] = 0
    powers = shares[:, None] * (q @ k.transpose(1, 2) / math.sqrt(C)).exp()
    expected = powers @ v / powers.sum(-1, keepdim=True)
    bias = log_shares(shares)
    assert_close(add(out, q, k, v, 1.0, bias=bias), expected)
