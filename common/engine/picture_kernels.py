"""Triton kernels that make 8-bit pictures and their video planes of drawn images (SPEC 15).

No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common import frame_label
from common import yuv420 as planes

BITS = tl.constexpr(planes.BITS)
HALF = tl.constexpr(1 << (planes.BITS - 1))
Y_ZERO, UV_ZERO = tl.constexpr(planes.Y_ZERO), tl.constexpr(planes.UV_ZERO)
Y_RED, Y_GREEN, Y_BLUE = (tl.constexpr(weight) for weight in planes.Y_WEIGHTS)
U_RED, U_GREEN, U_BLUE = (tl.constexpr(weight) for weight in planes.U_WEIGHTS)
V_RED, V_GREEN, V_BLUE = (tl.constexpr(weight) for weight in planes.V_WEIGHTS)
COLOR_RED, COLOR_GREEN, COLOR_BLUE = (tl.constexpr(value) for value in frame_label.RED)


@triton.jit(do_not_specialize=["n_pixels", "width", "full_width", "left"])
def compose(
    image_ptr,  # (4, n_pixels) premultiplied colour, mask
    background_ptr,  # (n_pixels, 3) uint8, not read unless HAS_BACKGROUND
    picture_ptr,  # out (H, full_width, 3) uint8, written from column `left`
    is_broken_ptr,  # out (1,) uint8: 1 if the image is not a number
    n_pixels,
    width,
    full_width,
    left,
    HAS_BACKGROUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The image over white or over a background, in 8 bit, rounded to the nearest."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = pixel < n_pixels
    behind = 1.0 - tl.load(image_ptr + 3 * n_pixels + pixel, mask=is_in, other=0.0)
    target = picture_ptr + 3 * (pixel // width * full_width + left + pixel % width)
    is_broken = is_in & (behind != behind)
    for c in tl.static_range(3):
        value = tl.load(image_ptr + c * n_pixels + pixel, mask=is_in, other=0.0)
        if HAS_BACKGROUND:
            value += (
                tl.load(background_ptr + 3 * pixel + c, mask=is_in, other=0).to(tl.float32) / 255 * behind
            )
        else:
            value += behind
        value = tl.minimum(tl.maximum(value, 0.0), 1.0) * 255.0
        value = (value + 12582912.0) - 12582912.0  # to the nearest integer, ties to even
        tl.store(target + c, value.to(tl.uint8), mask=is_in)
    if tl.program_id(0) == 0:
        tl.store(is_broken_ptr, tl.max(is_broken.to(tl.int32), 0).to(tl.uint8))


@triton.jit(
    do_not_specialize=["n", "top", "left", "digit_height", "digit_width", "height", "width", "panel_width"]
)
def number(
    picture_ptr,  # (height, width, 3) uint8, changed
    panel_ptr,  # (height, panel_width, 3) uint8, what stands on the picture's left
    digits_ptr,  # float32, -1 for none
    coverage_ptr,  # (10, digit_height, digit_width) uint8
    n,  # digits times digit_height times digit_width
    top,
    left,
    digit_height,
    digit_width,
    height,
    width,
    panel_width,
    BLOCK: tl.constexpr,
):
    """Draws digits beside each other, in red."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    size = digit_height * digit_width
    place, pixel = at // size, at % size
    digit = tl.load(digits_ptr + place, mask=at < n, other=-1.0).to(tl.int32)
    y, x = top + pixel // digit_width, left + place * digit_width + pixel % digit_width
    is_in = (at < n) & (y < height) & (x < width)
    cover = tl.load(coverage_ptr + digit * size + pixel, mask=is_in & (digit >= 0), other=0).to(tl.int32)
    is_panel = x < panel_width
    for c in tl.static_range(3):
        target = picture_ptr + 3 * (y * width + x) + c
        value = tl.load(target, mask=is_in, other=0)
        value = tl.where(
            is_panel,
            tl.load(panel_ptr + 3 * (y * panel_width + x) + c, mask=is_in & is_panel, other=0),
            value,
        ).to(tl.int32)
        color = COLOR_RED if c == 0 else COLOR_GREEN if c == 1 else COLOR_BLUE
        tl.store(target, ((value * (255 - cover) + cover * color + 127) // 255).to(tl.uint8), mask=is_in)


@triton.jit(do_not_specialize=["height", "width"])
def yuv420(
    picture_ptr,  # (height, width, 3) uint8 RGB
    planes_ptr,  # out (3 / 2 H, W) uint8 of `common.yuv420`, H and W the next even numbers
    height,
    width,
    BLOCK: tl.constexpr,
):
    """The planes of a picture; four pixels and their chroma to each lane."""
    rows, columns = (height + 1) // 2, (width + 1) // 2
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < rows * columns
    row, column = at // columns, at % columns
    red4, green4, blue4 = row * 0, row * 0, row * 0
    for corner in tl.static_range(4):
        y, x = 2 * row + corner // 2, 2 * column + corner % 2
        pixel = picture_ptr + 3 * (tl.minimum(y, height - 1) * width + tl.minimum(x, width - 1))
        red = tl.load(pixel, mask=is_in, other=0).to(tl.int32)
        green = tl.load(pixel + 1, mask=is_in, other=0).to(tl.int32)
        blue = tl.load(pixel + 2, mask=is_in, other=0).to(tl.int32)
        luma = red * Y_RED + green * Y_GREEN + blue * Y_BLUE + HALF
        tl.store(planes_ptr + y * (2 * columns) + x, ((luma >> BITS) + Y_ZERO).to(tl.uint8), mask=is_in)
        red4 += red
        green4 += green
        blue4 += blue
    u = ((red4 * U_RED + green4 * U_GREEN + blue4 * U_BLUE + 4 * HALF) >> (BITS + 2)) + UV_ZERO
    v = ((red4 * V_RED + green4 * V_GREEN + blue4 * V_BLUE + 4 * HALF) >> (BITS + 2)) + UV_ZERO
    u_ptr = planes_ptr + 4 * rows * columns
    tl.store(u_ptr + at, u.to(tl.uint8), mask=is_in)
    tl.store(u_ptr + rows * columns + at, v.to(tl.uint8), mask=is_in)
