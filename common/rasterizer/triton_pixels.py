"""Triton functions that blending and its backward share: Gaussians of a cell's list at its pixels (SPEC 10).

A cell is 4 x 4 pixels. Around its centre the logarithm of a Gaussian's alpha is a polynomial of the pixel's position,
so all of them are one matrix product. Its result stays where the tensor cores leave it: what a thread holds of a row
or column then are several neighbours of the list, and running sums and products go from thread to thread as a tree.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer import interface

MAX_ALPHA = tl.constexpr(interface.MAX_ALPHA)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(interface.MIN_TRANSMITTANCE)
NOTHING = tl.constexpr(-1000.0)  # log2 of the opacity of a Gaussian that is not there
TILE_PX = tl.constexpr(interface.TILE_PX)
CELL_PX = tl.constexpr(4)
PIXELS = tl.constexpr(16)  # of a cell
GROUP = tl.constexpr(32)  # Gaussians of a list that are worked at together
CENTRE_PX = tl.constexpr(1.5)  # from a cell's first pixel, along both axes


@triton.jit
def cell_corner(tile, cell, tiles_x):
    """Left and top pixel of a cell, a number from 0 to 15, of a tile."""
    left, top = tile % tiles_x * TILE_PX, tile // tiles_x * TILE_PX
    return left + cell % 4 * CELL_PX, top + cell // 4 * CELL_PX


@triton.jit
def tf32_halves(x, PRECISION: tl.constexpr, IS_ROUNDED: tl.constexpr = False):
    """x as the sum of what tf32 holds exactly and a remainder; where there is no tf32, as x and 0.

    Of a remainder that is left by rounding, tf32 holds all but 2^-23 of x; of what is cut off, 2^-21.
    """
    if PRECISION == "ieee":
        return x, x * 0.0
    bits = x.to(tl.int32, bitcast=True)
    if IS_ROUNDED:
        bits += 4096
    coarse = (bits & -8192).to(tl.float32, bitcast=True)
    return coarse, x - coarse


@triton.jit
def exact_dot(a, b_coarse, b_fine, PRECISION: tl.constexpr):
    """Matrix product with the accuracy of float32; b in `tf32_halves`."""
    if PRECISION == "ieee":
        return tl.dot(a, b_coarse, input_precision="ieee")
    a_coarse, a_fine = tf32_halves(a, PRECISION)
    product = tl.dot(a_fine, b_coarse, input_precision="tf32")
    product = tl.dot(a_coarse, b_fine, acc=product, input_precision="tf32")
    return tl.dot(a_coarse, b_coarse, acc=product, input_precision="tf32")


@triton.jit
def eight_columns(x0, x1, x2, x3, x4, x5, x6, x7):
    """(n, 8) from its columns."""
    even = tl.join(tl.join(x0, x4), tl.join(x2, x6))
    odd = tl.join(tl.join(x1, x5), tl.join(x3, x7))
    return tl.reshape(tl.join(even, odd), (x0.shape[0], 8))


@triton.jit
def load_footprints(row_ptr, slot_ptr, slot, stop):
    """Gaussians of slots (n,) of a list that ends at `stop`, and their footprints; alpha is 0 beyond the list."""
    is_in = slot < stop
    g = tl.load(slot_ptr + slot, mask=is_in, other=0)
    row = row_ptr + 8 * g
    u = tl.load(row, mask=is_in, other=0.0)
    v = tl.load(row + 1, mask=is_in, other=0.0)
    a = tl.load(row + 2, mask=is_in, other=0.0)
    b = tl.load(row + 3, mask=is_in, other=0.0)
    c = tl.load(row + 4, mask=is_in, other=0.0)
    return g, u, v, a, b, c, tl.load(row + 5, mask=is_in, other=NOTHING)


@triton.jit
def coefficients(u, v, a, b, c, top, PRECISION: tl.constexpr):
    """Coefficients (n, 16) of log2 alpha of footprints in the basis of a cell, in halves; u, v from its centre."""
    by_1 = (a * u + b * v) * u + (c * v * v + top)
    nothing = tl.zeros_like(u)
    values = eight_columns(by_1, -2.0 * a * u - b * v, -2.0 * c * v - b * u, a, b, c, nothing, nothing)
    coarse, fine = tf32_halves(values, PRECISION, IS_ROUNDED=True)
    return tl.reshape(tl.permute(tl.join(coarse, fine), (0, 2, 1)), (u.shape[0], 16))


@triton.jit
def polynomial(a, b, PRECISION: tl.constexpr):
    """The product of coefficients in halves and the basis twice, in either order."""
    if PRECISION == "ieee":
        return tl.dot(a, b, input_precision="ieee")
    return tl.dot(a, b, input_precision="tf32")


@triton.jit
def times(a, b):
    """For tl.reduce."""
    return a * b


@triton.jit
def _other(x, AXIS: tl.constexpr):
    """x of the other index along an axis of two."""
    bits = x.to(tl.int32, bitcast=True)
    return (tl.xor_sum(bits, AXIS, keep_dims=True) ^ bits).to(tl.float32, bitcast=True)


@triton.jit
def scan_step(x, before, index, AXIS: tl.constexpr, IS_PRODUCT: tl.constexpr):
    """Of an axis of two of a running product or sum: x of both together, and what was before, in the second, extended.

    index: of the axis, as many axes as x.
    """
    other = _other(x, AXIS)
    if IS_PRODUCT:
        return x * other, tl.where(index == 1, before * other, before)
    return x + other, tl.where(index == 1, before + other, before)


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


@triton.jit
def seen_alpha(power, PRECISION: tl.constexpr):
    """Alpha of its log2, 0 where it does not count; and as it was before that."""
    raw = exp2(power, PRECISION)
    alpha = tl.minimum(raw, MAX_ALPHA)
    return tl.where(alpha >= MIN_ALPHA, alpha, 0.0), raw
