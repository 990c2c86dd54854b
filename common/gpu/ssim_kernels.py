"""Triton kernels of the SSIM: rows, then columns. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n", "width"])
def sum_rows(x_ptr, y_ptr, window_ptr, sums_ptr, n, width, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """Windowed sums along rows of x, y, x x, y y, x y: sums (5, n)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = i % width
    x_sum = tl.zeros([BLOCK], tl.float32)
    y_sum = tl.zeros([BLOCK], tl.float32)
    xx_sum = tl.zeros([BLOCK], tl.float32)
    yy_sum = tl.zeros([BLOCK], tl.float32)
    xy_sum = tl.zeros([BLOCK], tl.float32)
    for k in range(TAPS):
        at = column + k - TAPS // 2
        is_there = (i < n) & (at >= 0) & (at < width)
        weight = tl.load(window_ptr + k)
        x = tl.load(x_ptr + i + k - TAPS // 2, mask=is_there, other=0.0)
        y = tl.load(y_ptr + i + k - TAPS // 2, mask=is_there, other=0.0)
        x_sum += weight * x
        y_sum += weight * y
        xx_sum += weight * (x * x)
        yy_sum += weight * (y * y)
        xy_sum += weight * (x * y)
    n = n.to(tl.int64)
    is_in = i < n
    tl.store(sums_ptr + i, x_sum, mask=is_in)
    tl.store(sums_ptr + n + i, y_sum, mask=is_in)
    tl.store(sums_ptr + 2 * n + i, xx_sum, mask=is_in)
    tl.store(sums_ptr + 3 * n + i, yy_sum, mask=is_in)
    tl.store(sums_ptr + 4 * n + i, xy_sum, mask=is_in)


@triton.jit(do_not_specialize=["n", "height", "width"])
def sum_columns(
    sums_ptr,  # (5, n) of `sum_rows`
    window_ptr,
    out_ptr,  # out (n,) 1 - SSIM
    slopes_ptr,  # out (3, n) derivatives of the SSIM by the windowed x, x x, x y
    n,
    height,
    width,
    C1: tl.constexpr,
    C2: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """1 - SSIM from the sums along rows."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = i // width % height
    n = n.to(tl.int64)
    mx = tl.zeros([BLOCK], tl.float32)
    my = tl.zeros([BLOCK], tl.float32)
    xx = tl.zeros([BLOCK], tl.float32)
    yy = tl.zeros([BLOCK], tl.float32)
    xy = tl.zeros([BLOCK], tl.float32)
    for k in range(TAPS):
        shift = k - TAPS // 2
        is_there = (i < n) & (row + shift >= 0) & (row + shift < height)
        weight = tl.load(window_ptr + k)
        source = sums_ptr + i + shift * width
        mx += weight * tl.load(source, mask=is_there, other=0.0)
        my += weight * tl.load(source + n, mask=is_there, other=0.0)
        xx += weight * tl.load(source + 2 * n, mask=is_there, other=0.0)
        yy += weight * tl.load(source + 3 * n, mask=is_there, other=0.0)
        xy += weight * tl.load(source + 4 * n, mask=is_there, other=0.0)
    product = mx * my
    squares = mx * mx + my * my
    a1, a2 = 2.0 * product + C1, 2.0 * (xy - product) + C2
    b1, b2 = squares + C1, xx + yy - squares + C2
    inverse = 1.0 / (b1 * b2)
    ssim = (a1 / b1) * (a2 / b2)
    is_in = i < n
    tl.store(out_ptr + i, 1.0 - ssim, mask=is_in)
    by_mean = 2.0 * my * (a2 - a1) * inverse - 2.0 * mx * ssim * (1.0 / b1 - 1.0 / b2)
    tl.store(slopes_ptr + i, by_mean, mask=is_in)
    tl.store(slopes_ptr + n + i, -ssim / b2, mask=is_in)
    tl.store(slopes_ptr + 2 * n + i, 2.0 * a1 * inverse, mask=is_in)


@triton.jit(do_not_specialize=["n", "width"])
def spread_rows(
    grad_ptr, slopes_ptr, window_ptr, sums_ptr, n, width, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """The slopes times the gradient of 1 - SSIM, windowed along rows: sums (3, n)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = i % width
    n = n.to(tl.int64)
    by_mean = tl.zeros([BLOCK], tl.float32)
    by_xx = tl.zeros([BLOCK], tl.float32)
    by_xy = tl.zeros([BLOCK], tl.float32)
    for k in range(TAPS):
        shift = k - TAPS // 2
        is_there = (i < n) & (column + shift >= 0) & (column + shift < width)
        grad = -tl.load(window_ptr + k) * tl.load(grad_ptr + i + shift, mask=is_there, other=0.0)
        source = slopes_ptr + i + shift
        by_mean += grad * tl.load(source, mask=is_there, other=0.0)
        by_xx += grad * tl.load(source + n, mask=is_there, other=0.0)
        by_xy += grad * tl.load(source + 2 * n, mask=is_there, other=0.0)
    is_in = i < n
    tl.store(sums_ptr + i, by_mean, mask=is_in)
    tl.store(sums_ptr + n + i, by_xx, mask=is_in)
    tl.store(sums_ptr + 2 * n + i, by_xy, mask=is_in)


@triton.jit(do_not_specialize=["n", "height", "width"])
def spread_columns(
    sums_ptr, x_ptr, y_ptr, window_ptr, d_x_ptr, n, height, width, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of x from the sums along rows."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = i // width % height
    n = n.to(tl.int64)
    by_mean = tl.zeros([BLOCK], tl.float32)
    by_xx = tl.zeros([BLOCK], tl.float32)
    by_xy = tl.zeros([BLOCK], tl.float32)
    for k in range(TAPS):
        shift = k - TAPS // 2
        is_there = (i < n) & (row + shift >= 0) & (row + shift < height)
        weight = tl.load(window_ptr + k)
        source = sums_ptr + i + shift * width
        by_mean += weight * tl.load(source, mask=is_there, other=0.0)
        by_xx += weight * tl.load(source + n, mask=is_there, other=0.0)
        by_xy += weight * tl.load(source + 2 * n, mask=is_there, other=0.0)
    is_in = i < n
    x = tl.load(x_ptr + i, mask=is_in, other=0.0)
    y = tl.load(y_ptr + i, mask=is_in, other=0.0)
    tl.store(d_x_ptr + i, by_mean + 2.0 * x * by_xx + y * by_xy, mask=is_in)
