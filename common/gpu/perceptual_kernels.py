"""Triton kernels of LPIPS with VGG16, channels last. No postponed annotations here: Triton reads them.

A program has a few columns of one row (or pair of rows) of one image, so that no element's place costs a division;
places within the rows are 32 bits wide, and all channels of a pixel are in or out together, so that loads are wide.
"""

import triton
import triton.language as tl

EPS = tl.constexpr(1e-10)  # added to a vector's length before dividing by it
STEEPEST = tl.constexpr(4096.0)  # slope; vectors of hardly any length would give more than float16 holds


@triton.jit
def _vectors(ptr, is_in):
    """Feature vectors of pixels; zeros where there are none."""
    return tl.load(ptr, mask=is_in[:, None], other=0.0)


@triton.jit
def _compared(a, b, head, n_features, scale):
    """Weighted squared differences of vectors made unit length, and the scaled gradient of their mean by a itself."""
    a, b = a.to(tl.float32), b.to(tl.float32)
    a_length, b_length = tl.sqrt(tl.sum(a * a, 1)), tl.sqrt(tl.sum(b * b, 1))
    inverse = 1.0 / (a_length + EPS)
    difference = a * inverse[:, None] - b * (1.0 / (b_length + EPS))[:, None]
    weighted = difference * head[None, :]
    d_unit = weighted * (2.0 / n_features * scale)
    along = tl.sum(d_unit * a, 1) * inverse / tl.where(a_length > 0.0, a_length, 1.0)
    return weighted * difference, (d_unit - a * along[:, None]) * inverse[:, None]


@triton.jit
def _store_slope(ptr, is_in, a, d_a):
    """Store the gradient by the input of the ReLU whose output is a."""
    d_a = tl.clamp(d_a, -STEEPEST, STEEPEST)
    tl.store(ptr, tl.where(a.to(tl.float32) > 0.0, d_a, 0.0).to(ptr.dtype.element_ty), mask=is_in[:, None])


@triton.jit(
    do_not_specialize=["height", "width", "n_features", "n_sums"], do_not_specialize_on_alignment=["sums_ptr"]
)
def compare(
    a_ptr,  # (B, height, width, C) output of a ReLU
    b_ptr,  # (T, height, width, C)
    which_ptr,  # (B,) int32 into T
    head_ptr,  # (C,)
    d_pooled_ptr,  # (B, height // 2, width // 2, C) scaled gradient of the largest of 2 x 2, if IS_POOLED
    out_ptr,  # out (B, height, width, C) scaled gradient of the ReLU's input, if HAS_GRADIENT
    place_ptr,  # (B,) int32 rows of the sums
    sums_ptr,  # out (.., n_sums) from this layer's first column on: of each program
    height,
    width,
    n_features,  # of the whole image
    n_sums,
    scale,  # of gradients
    C: tl.constexpr,
    HAS_GRADIENT: tl.constexpr,
    IS_POOLED: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Mean distances over the whole image, and the gradient of them and of what follows the pooling; none where a is 0.

    By cells of 2 x 2 pixels, each of which is loaded once.
    """
    image, line = tl.program_id(2), tl.program_id(1)
    column = 2 * (tl.program_id(0) * CELLS + tl.arange(0, CELLS))
    c = tl.arange(0, C)
    head = tl.load(head_ptr + c)
    at, down = (column * C)[:, None] + c[None, :], width * C
    is_left, is_right, is_below = column < width, column + 1 < width, 2 * line + 1 < height
    first = (image.to(tl.int64) * height + 2 * line) * width * C
    a_ptr += first
    b_ptr += (tl.load(which_ptr + image).to(tl.int64) * height + 2 * line) * width * C
    a0, a1 = _vectors(a_ptr + at, is_left), _vectors(a_ptr + at + C, is_right)
    b0, b1 = _vectors(b_ptr + at, is_left), _vectors(b_ptr + at + C, is_right)
    a_ptr += down
    b_ptr += down
    a2, a3 = _vectors(a_ptr + at, is_left & is_below), _vectors(a_ptr + at + C, is_right & is_below)
    b2, b3 = _vectors(b_ptr + at, is_left & is_below), _vectors(b_ptr + at + C, is_right & is_below)

    squares0, d0 = _compared(a0, b0, head, n_features, scale)
    squares1, d1 = _compared(a1, b1, head, n_features, scale)
    squares2, d2 = _compared(a2, b2, head, n_features, scale)
    squares3, d3 = _compared(a3, b3, head, n_features, scale)
    total = tl.sum(tl.sum(squares0 + squares1 + squares2 + squares3, 1), 0) / n_features
    row_of_sums = tl.load(place_ptr + image) * n_sums + line * tl.num_programs(0)
    tl.store(sums_ptr + row_of_sums + tl.program_id(0), total)
    if HAS_GRADIENT:
        if IS_POOLED:
            pooled = (image.to(tl.int64) * (height // 2) + line) * (width // 2) * C
            at_pooled = (column // 2 * C)[:, None] + c[None, :]
            d_pooled = _vectors(d_pooled_ptr + pooled + at_pooled, is_right & is_below).to(tl.float32)
            best = tl.maximum(tl.maximum(a0, a1), tl.maximum(a2, a3))
            is_taken = a0 == best  # the first of equals
            d0 += tl.where(is_taken, d_pooled, 0.0)
            d1 += tl.where((a1 == best) & (is_taken == 0), d_pooled, 0.0)
            is_taken = is_taken | (a1 == best)
            d2 += tl.where((a2 == best) & (is_taken == 0), d_pooled, 0.0)
            is_taken = is_taken | (a2 == best)
            d3 += tl.where(is_taken == 0, d_pooled, 0.0)
        out_ptr += first
        _store_slope(out_ptr + at, is_left, a0, d0)
        _store_slope(out_ptr + at + C, is_right, a1, d1)
        out_ptr += down
        _store_slope(out_ptr + at, is_left & is_below, a2, d2)
        _store_slope(out_ptr + at + C, is_right & is_below, a3, d3)


@triton.jit(do_not_specialize=["height", "width"])
def pool(x_ptr, out_ptr, height, width, C: tl.constexpr, CELLS: tl.constexpr):
    """Largest of 2 x 2 pixels of x (B, height, width, C)."""
    image, line = tl.program_id(2).to(tl.int64), tl.program_id(1)
    cell, c = tl.program_id(0) * CELLS + tl.arange(0, CELLS), tl.arange(0, C)
    is_in = cell < width // 2
    first = x_ptr + (image * height + 2 * line) * width * C
    at = (cell * (2 * C))[:, None] + c[None, :]
    second = first + width * C
    x0, x1 = _vectors(first + at, is_in), _vectors(first + at + C, is_in)
    x2, x3 = _vectors(second + at, is_in), _vectors(second + at + C, is_in)
    out = out_ptr + (image * (height // 2) + line) * (width // 2) * C
    largest = tl.maximum(tl.maximum(x0, x1), tl.maximum(x2, x3))
    tl.store(out + (cell * C)[:, None] + c[None, :], largest, mask=is_in[:, None])


@triton.jit(do_not_specialize=["n_pixels"])
def mask(grad_ptr, x_ptr, n_pixels, C: tl.constexpr, PIXELS: tl.constexpr):
    """Set the gradient (n_pixels, C) to 0 where x is not positive."""
    first = tl.program_id(0).to(tl.int64) * PIXELS
    pixel, c = tl.arange(0, PIXELS), tl.arange(0, C)
    is_in = pixel < n_pixels - first
    at = (pixel * C)[:, None] + c[None, :]
    grad = _vectors(grad_ptr + first * C + at, is_in)
    x = _vectors(x_ptr + first * C + at, is_in)
    tl.store(grad_ptr + first * C + at, tl.where(x > 0.0, grad, 0.0), mask=is_in[:, None])
