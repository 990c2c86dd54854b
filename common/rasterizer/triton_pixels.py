"""Triton functions that blending and its backward share: Gaussians of a cell's list at its pixels (SPEC 10).

A cell is 4 x 4 pixels. 2 K Gaussians are worked at together, as (K, 2, PIXELS): the halves of K are side by side, so
that running sums and products stay inside threads. No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer import interface

MAX_ALPHA = tl.constexpr(interface.MAX_ALPHA)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(interface.MIN_TRANSMITTANCE)
NOTHING = tl.constexpr(-1000.0)  # log2 of the opacity of a Gaussian that is not there
PIXELS = tl.constexpr(16)  # of a cell


@triton.jit
def cell_corner(cell, width):
    """Left and top pixel of a cell."""
    tile, tiles_x = cell // 4, (width + 7) // 8
    return tile % tiles_x * 8 + cell % 2 * 4, tile // tiles_x * 8 + cell // 2 % 2 * 4


@triton.jit
def pin(x):
    """x unchanged, in a layout of its own: that of a dot product would spread through the code and spill."""
    index = tl.broadcast_to(tl.arange(0, x.shape[1])[None, :], x.shape)
    return tl.gather(x, index, 1)


@triton.jit
def tf32_halves(x, PRECISION: tl.constexpr):
    """x as the sum of what tf32 holds exactly and a remainder; where there is no tf32, as x and 0."""
    if PRECISION == "ieee":
        return x, x * 0.0
    coarse = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return coarse, x - coarse


@triton.jit
def exact_dot(a, b_coarse, b_fine, PRECISION: tl.constexpr):
    """a b at float32 accuracy, of the halves of b."""
    if PRECISION == "ieee":
        return tl.dot(a, b_coarse, input_precision="ieee")
    a_coarse, a_fine = tf32_halves(a, PRECISION)
    product = tl.dot(a_fine, b_coarse, input_precision="tf32")
    product = tl.dot(a_coarse, b_fine, acc=product, input_precision="tf32")
    return tl.dot(a_coarse, b_coarse, acc=product, input_precision="tf32")


@triton.jit
def log2_alpha(row_ptr, g, is_in, x_px, y_px):
    """Log2 of alpha (K, 2, PIXELS) of Gaussians g (K, 2) at the pixels (1, 1, PIXELS); none where not is_in."""
    row = row_ptr + 8 * g
    dx = tl.load(row)[:, :, None] - x_px
    dy = tl.load(row + 1)[:, :, None] - y_px
    a, b, c = tl.load(row + 2)[:, :, None], tl.load(row + 3)[:, :, None], tl.load(row + 4)[:, :, None]
    top = tl.load(row + 5, mask=is_in, other=NOTHING)[:, :, None]
    return (a * dx + b * dy) * dx + (c * dy * dy + top)


@triton.jit
def places(K: tl.constexpr):
    """Places (K, 2) of a list that are worked at together: halves side by side, so that scans stay in threads."""
    return tl.arange(0, K)[:, None] + K * tl.arange(0, 2)[None, :]


@triton.jit
def half_of(x, h: tl.constexpr):
    """x[h] of (2, PIXELS) as (1, PIXELS)."""
    return tl.sum(tl.where(tl.arange(0, 2)[:, None] == h, x, 0.0), 0, keep_dims=True)


@triton.jit
def transmittance(alpha, reaching):
    """Transmittance (K, 2, PIXELS) behind each Gaussian, and behind them all, twice (2, PIXELS), like `reaching`."""
    passing = tl.cumprod(1.0 - alpha, 0)
    last = tl.min(passing, 0)
    between = reaching * half_of(last, 0)
    is_first = tl.arange(0, 2)[:, None] == 0
    before = tl.where(is_first, reaching, between)
    return passing * before[None, :, :], between * half_of(last, 1)


@triton.jit
def twice(x):
    """(PIXELS,) as (2, PIXELS)."""
    return tl.broadcast_to(x[None, :], (2, x.shape[0]))


@triton.jit
def exp2(x, PRECISION: tl.constexpr):
    """2^x; what is below 2^-126 may come out as 0."""
    if PRECISION == "ieee":
        return tl.exp2(x)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def inverse_of(x, PRECISION: tl.constexpr):
    """1 / x of x that are neither tiny nor huge."""
    if PRECISION == "ieee":
        return 1.0 / x
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )
