"""Triton kernels of LPIPS with VGG16, channels last. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl

EPS = tl.constexpr(1e-10)  # added to a vector's length before dividing by it


@triton.jit
def _vectors(ptr, image, pixel, is_in, n_pixels, C: tl.constexpr):
    """Feature vectors of pixels, their lengths, and where they are."""
    c = tl.arange(0, C)
    at = (image.to(tl.int64) * n_pixels + pixel)[:, None] * C + c[None, :]
    value = tl.load(ptr + at, mask=is_in[:, None], other=0.0).to(tl.float32)
    return value, tl.sqrt(tl.sum(value * value, 1)), at


@triton.jit(do_not_specialize=["n_pixels", "n_blocks"])
def distance(
    a_ptr,  # (B, n_pixels, C)
    b_ptr,  # (T, n_pixels, C)
    which_ptr,  # (B,) int32 into T
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
    b, b_length, _ = _vectors(b_ptr, tl.load(which_ptr + image), pixel, is_in, n_pixels, C)
    difference = a / (a_length + EPS)[:, None] - b / (b_length + EPS)[:, None]
    total = tl.sum(tl.sum(difference * difference * head[None, :], 1), 0)
    tl.store(sums_ptr + image * n_blocks + tl.program_id(0), total)


@triton.jit(do_not_specialize=["height", "width", "n_features"])
def tap_gradient(
    a_ptr,  # (B, height, width, C) output of the ReLU
    b_ptr,  # (T, height, width, C)
    which_ptr,
    head_ptr,
    d_pooled_ptr,  # (B, height // 2, width // 2, C) gradient of the largest of 2 x 2
    out_ptr,  # out (B, height, width, C) gradient of the ReLU's input
    height,
    width,
    n_features,  # of the whole image
    C: tl.constexpr,
    IS_POOLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of the mean distances over the whole image and of what follows the pooling; none where a is 0."""
    image = tl.program_id(1)
    n_pixels = height * width
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = pixel < n_pixels
    c = tl.arange(0, C)
    head = tl.load(head_ptr + c)
    a, a_length, at = _vectors(a_ptr, image, pixel, is_in, n_pixels, C)
    b, b_length, _ = _vectors(b_ptr, tl.load(which_ptr + image), pixel, is_in, n_pixels, C)
    inverse = 1.0 / (a_length + EPS)
    difference = a * inverse[:, None] - b / (b_length + EPS)[:, None]
    d_unit = 2.0 * difference * head[None, :] / n_features
    along = tl.sum(d_unit * a, 1) * inverse / tl.where(a_length > 0.0, a_length, 1.0)
    d_a = (d_unit - a * along[:, None]) * inverse[:, None]
    if IS_POOLED:
        row, column = pixel // width, pixel % width
        is_pooled = is_in & (row // 2 < height // 2) & (column // 2 < width // 2)
        first = (image.to(tl.int64) * height + row // 2 * 2) * width + column // 2 * 2
        place = row % 2 * 2 + column % 2
        best = tl.full([BLOCK, C], float("-inf"), tl.float32)
        chosen = tl.zeros([BLOCK, C], tl.int32)
        for k in tl.static_range(4):
            source = first + k // 2 * width + k % 2
            other = tl.load(a_ptr + source[:, None] * C + c[None, :], mask=is_pooled[:, None], other=0.0)
            other = other.to(tl.float32)
            chosen = tl.where(other > best, k, chosen)
            best = tl.maximum(best, other)
        pooled = (image.to(tl.int64) * (height // 2) + row // 2) * (width // 2) + column // 2
        d_pooled = tl.load(
            d_pooled_ptr + pooled[:, None] * C + c[None, :], mask=is_pooled[:, None], other=0.0
        )
        d_a += tl.where(chosen == place[:, None], d_pooled.to(tl.float32), 0.0)
    d_a = tl.where(a > 0.0, d_a, 0.0)
    tl.store(out_ptr + at, d_a.to(out_ptr.dtype.element_ty), mask=is_in[:, None])


@triton.jit(do_not_specialize=["n", "height", "width"])
def pool(x_ptr, out_ptr, n, height, width, C: tl.constexpr, BLOCK: tl.constexpr):
    """Largest of 2 x 2 pixels of x (B, height, width, C): out, n elements."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < n
    c, pixel = i % C, i // C
    column, line = pixel % (width // 2), pixel // (width // 2)
    row, image = line % (height // 2), line // (height // 2)
    first = x_ptr + ((image * height + 2 * row) * width + 2 * column) * C + c
    top = tl.maximum(tl.load(first, mask=is_in, other=0.0), tl.load(first + C, mask=is_in, other=0.0))
    first += width * C
    bottom = tl.maximum(tl.load(first, mask=is_in, other=0.0), tl.load(first + C, mask=is_in, other=0.0))
    tl.store(out_ptr + i, tl.maximum(top, bottom), mask=is_in)


@triton.jit(do_not_specialize=["n"])
def mask(grad_ptr, x_ptr, n, BLOCK: tl.constexpr):
    """Set the gradient to 0 where x is not positive."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < n
    grad = tl.load(grad_ptr + i, mask=is_in, other=0.0)
    x = tl.load(x_ptr + i, mask=is_in, other=0.0)
    tl.store(grad_ptr + i, tl.where(x > 0.0, grad, 0.0), mask=is_in)
