"""Triton kernels of VGG16's first convolution; features channels last. No postponed annotations: Triton reads them."""

import triton
import triton.language as tl

TAPS = tl.constexpr(27)  # 3 colours of 3 x 3 pixels
K = tl.constexpr(32)  # the same, as matrix units want it
GROUPS = tl.constexpr(8)  # channels c with the same c % GROUPS share a byte of signs


@triton.jit
def _of_colour(ptr, colour):
    """The number of each colour; from three loads, which all threads share."""
    first, second, third = tl.load(ptr), tl.load(ptr + 1), tl.load(ptr + 2)
    return tl.where(colour == 0, first, tl.where(colour == 1, second, third))


@triton.jit(
    do_not_specialize=["height", "width", "image_stride", "colour_stride", "row_stride"],
    do_not_specialize_on_alignment=["x_ptr"],
)
def convolve(
    x_ptr,  # (.., 3, height, width) with strides
    place_ptr,  # (B,) int32 into x
    normal_ptr,  # (2, 3) factors and summands that colours are normalised with
    weight_ptr,  # (K, C) by colour, row, column; then zeros
    bias_ptr,  # (C,)
    out_ptr,  # out (B, height, width, C)
    signs_ptr,  # out (B, height, width, GROUPS) uint8, if HAS_SIGNS: bit c // GROUPS tells whether out is positive
    height,
    width,
    image_stride,
    colour_stride,
    row_stride,
    C: tl.constexpr,
    HAS_SIGNS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """ReLU of the convolution of images, which are normalised and then continued with zeros."""
    image, row = tl.program_id(2), tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    c, k = tl.arange(0, C), tl.arange(0, K)
    weight = tl.load(weight_ptr + k[:, None] * C + c[None, :])
    bias = tl.load(bias_ptr + c).to(tl.float32)

    colour, y, step = k // 9, row + k // 3 % 3 - 1, k % 3 - 1
    x = column[:, None] + step[None, :]
    is_in = (x >= 0) & (x < width) & ((y >= 0) & (y < height) & (k < TAPS))[None, :]
    x_ptr += tl.load(place_ptr + image).to(tl.int64) * image_stride
    at = x + (colour * colour_stride + y * row_stride)[None, :]
    value = tl.load(x_ptr + at, mask=is_in, other=0.0)
    factor, summand = _of_colour(normal_ptr, colour), _of_colour(normal_ptr + 3, colour)
    value = tl.where(is_in, value * factor[None, :] + summand[None, :], 0.0).to(out_ptr.dtype.element_ty)

    out = tl.dot(value.to(weight.dtype), weight, input_precision="ieee") + bias[None, :]
    out = tl.maximum(out, 0.0).to(out_ptr.dtype.element_ty)
    first = (image.to(tl.int64) * height + row) * width
    is_column = (column < width)[:, None]
    tl.store(out_ptr + first * C + (column * C)[:, None] + c[None, :], out, mask=is_column)
    if HAS_SIGNS:
        group = tl.arange(0, GROUPS)
        is_positive = (out.to(tl.float32) > 0.0).to(tl.int32)
        bits = tl.reshape(is_positive << (c // GROUPS)[None, :], [COLUMNS, C // GROUPS, GROUPS])
        at = (column * GROUPS)[:, None] + group[None, :]
        tl.store(signs_ptr + first * GROUPS + at, tl.sum(bits, 1).to(tl.uint8), mask=is_column)


@triton.jit
def _masked_row(grad_ptr, signs_ptr, column, is_in, C: tl.constexpr, COLUMNS: tl.constexpr):
    """Gradients of a row's pixels, where the ReLU's output is positive."""
    c, group, bit = tl.arange(0, C), tl.arange(0, GROUPS), tl.arange(0, C // GROUPS)
    grad = tl.load(grad_ptr + (column * C)[:, None] + c[None, :], mask=is_in[:, None], other=0.0)
    signs = tl.load(signs_ptr + (column * GROUPS)[:, None] + group[None, :], mask=is_in[:, None], other=0).to(
        tl.int32
    )
    is_positive = (signs[:, None, :] >> bit[None, :, None]) & 1
    return tl.where(tl.reshape(is_positive, [COLUMNS, C]) != 0, grad, 0.0)


@triton.jit(
    do_not_specialize=["height", "width", "image_stride", "colour_stride", "row_stride"],
    do_not_specialize_on_alignment=["out_ptr"],
)
def differentiate(
    grad_ptr,  # (B, height, width, C) by the output
    signs_ptr,  # (B, height, width, GROUPS) uint8 as `convolve` gives them
    weight_ptr,  # (3, C, 16) by row; then 4 columns of 4 colours, the last of which are zeros
    factor_ptr,  # (3,) of the colours
    place_ptr,  # (B,) int32 into out
    out_ptr,  # out (.., 3, height, width) with strides: `scale` times the gradient by the images
    height,
    width,
    image_stride,
    colour_stride,
    row_stride,
    scale,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Gradient of the ReLU of the convolution of normalised images, by the images.

    A program walks down some rows and loads each once. A row adds to three rows of the result, of which each is kept
    until its last; a pixel's sums for the three columns that it adds to are moved there at the end. So the first
    and the last of a program's columns lack neighbours, and the next program has them too.
    """
    image, top = tl.program_id(2), tl.program_id(1) * ROWS
    pixel = tl.arange(0, COLUMNS)
    column = tl.program_id(0) * (COLUMNS - 2) - 1 + pixel
    is_column = (column >= 0) & (column < width)
    is_inner = is_column & (pixel > 0) & (pixel < COLUMNS - 1)
    c, n, colour = tl.arange(0, C), tl.arange(0, 16), tl.arange(0, 4)
    at = c[:, None] * 16 + n[None, :]
    last, middle, first = (
        tl.load(weight_ptr + at),
        tl.load(weight_ptr + C * 16 + at),
        tl.load(weight_ptr + 2 * C * 16 + at),
    )
    factor = _of_colour(factor_ptr, colour) * scale
    source = pixel[:, None] + 1 - (n // 4)[None, :]
    source = tl.minimum(tl.maximum(source, 0), COLUMNS - 1)
    pixels = image.to(tl.int64) * height * width
    out_ptr += tl.load(place_ptr + image).to(tl.int64) * image_stride

    sums = tl.zeros([COLUMNS, 16], tl.float32)  # for this row
    next_sums = tl.zeros([COLUMNS, 16], tl.float32)
    for i in range(ROWS + 2):
        row = top + i - 1
        start = pixels + row * width
        is_in = is_column & (row >= 0) & (row < height)
        grad = _masked_row(grad_ptr + start * C, signs_ptr + start * GROUPS, column, is_in, C, COLUMNS)
        grad = grad.to(last.dtype)
        done = tl.dot(grad, last, sums, input_precision="ieee")  # for the row before
        sums = tl.dot(grad, middle, next_sums, input_precision="ieee")
        next_sums = tl.dot(grad, first, input_precision="ieee")

        moved = tl.reshape(tl.gather(done, source, 0), [COLUMNS, 4, 4])
        result = tl.sum(moved, 1) * factor[None, :]
        is_out = is_inner & (row > top) & (row <= height)
        at_out = column[:, None] + (colour * colour_stride)[None, :] + (row - 1) * row_stride
        tl.store(out_ptr + at_out, result, mask=is_out[:, None] & (colour < 3)[None, :])
