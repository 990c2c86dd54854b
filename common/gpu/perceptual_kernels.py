"""Triton kernels of LPIPS: distances of unit feature vectors. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl

EPS = tl.constexpr(1e-10)  # added to a vector's length before dividing by it


@triton.jit
def _vectors(ptr, image, pixel, is_in, n_pixels, C: tl.constexpr):
    """Feature vectors of pixels, and their lengths."""
    c = tl.arange(0, C)
    at = (image.to(tl.int64) * n_pixels + pixel)[:, None] * C + c[None, :]
    value = tl.load(ptr + at, mask=is_in[:, None], other=0.0).to(tl.float32)
    return value, tl.sqrt(tl.sum(value * value, 1)), at


@triton.jit(do_not_specialize=["n_pixels", "n_blocks"])
def distance(
    a_ptr,  # (B, n_pixels, C)
    b_ptr,  # (n_pixels, C)
    head_ptr,  # (C,)
    sums_ptr,  # out (B, n_blocks)
    n_pixels,
    n_blocks,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each program's sum of weighted squared differences of unit vectors."""
    image = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = pixel < n_pixels
    head = tl.load(head_ptr + tl.arange(0, C))
    a, a_length, _ = _vectors(a_ptr, image, pixel, is_in, n_pixels, C)
    b, b_length, _ = _vectors(b_ptr, image * 0, pixel, is_in, n_pixels, C)
    difference = a / (a_length + EPS)[:, None] - b / (b_length + EPS)[:, None]
    total = tl.sum(tl.sum(difference * difference * head[None, :], 1), 0)
    tl.store(sums_ptr + image * n_blocks + tl.program_id(0), total)


@triton.jit(do_not_specialize=["n_pixels"])
def distance_backward(
    a_ptr, b_ptr, head_ptr, grad_ptr, d_a_ptr, n_pixels, C: tl.constexpr, BLOCK: tl.constexpr
):
    """Gradient of the vectors a (B, n_pixels, C) from that of the mean distances (B,); none where a is 0."""
    image = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = pixel < n_pixels
    head = tl.load(head_ptr + tl.arange(0, C))
    a, a_length, at = _vectors(a_ptr, image, pixel, is_in, n_pixels, C)
    b, b_length, _ = _vectors(b_ptr, image * 0, pixel, is_in, n_pixels, C)
    inverse = 1.0 / (a_length + EPS)
    difference = a * inverse[:, None] - b / (b_length + EPS)[:, None]
    d_unit = 2.0 * difference * head[None, :] * (tl.load(grad_ptr + image) / n_pixels)
    along = tl.sum(d_unit * a, 1) * inverse / tl.where(a_length > 0.0, a_length, 1.0)
    d_a = (d_unit - a * along[:, None]) * inverse[:, None]
    d_a = tl.where((a_length > 0.0)[:, None], d_a, 0.0)
    tl.store(d_a_ptr + at, d_a.to(d_a_ptr.dtype.element_ty), mask=is_in[:, None])
