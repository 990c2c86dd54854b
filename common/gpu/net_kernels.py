"""Triton kernels of the offset net. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n", "n_texels"])
def sample(
    table_ptr,  # (3, n_texels, C)
    texel_ptr,  # (3, M, 4) int32
    weight_ptr,  # (3, M, 4)
    out_ptr,  # out (M, 3 C)
    n,
    n_texels,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weighted sums of four texels; the grid's second axis is the plane."""
    plane = tl.program_id(1)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = m < n
    c = tl.arange(0, C)
    total = tl.zeros([BLOCK, C], tl.float32)
    for k in range(4):
        at = (plane * n + m) * 4 + k
        row = tl.load(texel_ptr + at, mask=is_in, other=0) + plane * n_texels
        weight = tl.load(weight_ptr + at, mask=is_in, other=0.0)
        total += weight[:, None] * tl.load(table_ptr + row[:, None] * C + c[None, :])
    tl.store(out_ptr + m[:, None] * (3 * C) + plane * C + c[None, :], total, mask=is_in[:, None])


@triton.jit(do_not_specialize=["n", "n_texels"])
def spread(
    grad_ptr,  # (M, 3 C)
    texel_ptr,
    weight_ptr,
    d_table_ptr,  # out (3, n_texels, C), zeros
    n,
    n_texels,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The transpose of `sample`."""
    plane = tl.program_id(1)
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = m < n
    c = tl.arange(0, C)
    grad = tl.load(grad_ptr + m[:, None] * (3 * C) + plane * C + c[None, :], mask=is_in[:, None], other=0.0)
    for k in range(4):
        at = (plane * n + m) * 4 + k
        row = tl.load(texel_ptr + at, mask=is_in, other=0) + plane * n_texels
        weight = tl.load(weight_ptr + at, mask=is_in, other=0.0)
        is_used = is_in[:, None] & (weight != 0.0)[:, None] & (c >= 0)[None, :]
        tl.atomic_add(
            d_table_ptr + row[:, None] * C + c[None, :], weight[:, None] * grad, mask=is_used, sem="relaxed"
        )


@triton.jit
def _normalised(x_ptr, m, is_in, eps, C: tl.constexpr, GROUPS: tl.constexpr):
    """Rows as (BLOCK, GROUPS, C / GROUPS), normalised, and the inverse deviations."""
    c = tl.arange(0, C)
    x = tl.load(x_ptr + m[:, None] * C + c[None, :], mask=is_in[:, None], other=0.0)
    x = tl.reshape(x, (x.shape[0], GROUPS, C // GROUPS))
    mean = tl.sum(x, 2) / (C // GROUPS)
    x = x - mean[:, :, None]
    inverse = 1.0 / tl.sqrt(tl.sum(x * x, 2) / (C // GROUPS) + eps)
    return x * inverse[:, :, None], inverse


@triton.jit(do_not_specialize=["n"])
def normalise(
    x_ptr, weight_ptr, bias_ptr, out_ptr, n, eps, C: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr
):
    """ReLU of the group norm of rows (n, C)."""
    m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = m < n
    c = tl.arange(0, C)
    unit, _ = _normalised(x_ptr, m, is_in, eps, C, GROUPS)
    unit = tl.reshape(unit, (BLOCK, C))
    value = unit * tl.load(weight_ptr + c)[None, :] + tl.load(bias_ptr + c)[None, :]
    tl.store(out_ptr + m[:, None] * C + c[None, :], tl.maximum(value, 0.0), mask=is_in[:, None])


@triton.jit(do_not_specialize=["n", "n_blocks"])
def normalise_backward(
    x_ptr,
    weight_ptr,
    bias_ptr,
    grad_ptr,  # (n, C)
    d_x_ptr,  # out (n, C)
    sums_ptr,  # out (2, n_blocks, C): each program's share of the gradients of weight and bias
    n,
    eps,
    n_blocks,
    C: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of `normalise`."""
    m = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = m < n
    c = tl.arange(0, C)
    unit, inverse = _normalised(x_ptr, m, is_in, eps, C, GROUPS)
    flat = tl.reshape(unit, (BLOCK, C))
    weight = tl.load(weight_ptr + c)[None, :]
    grad = tl.load(grad_ptr + m[:, None] * C + c[None, :], mask=is_in[:, None], other=0.0)
    grad = tl.where(flat * weight + tl.load(bias_ptr + c)[None, :] > 0.0, grad, 0.0)
    at = sums_ptr + tl.program_id(0).to(tl.int64) * C + c
    tl.store(at, tl.sum(grad * flat, 0))
    tl.store(at + n_blocks.to(tl.int64) * C, tl.sum(grad, 0))
    d_unit = tl.reshape(grad * weight, (BLOCK, GROUPS, C // GROUPS))
    mean = tl.sum(d_unit, 2) / (C // GROUPS)
    along = tl.sum(d_unit * unit, 2) / (C // GROUPS)
    d_x = inverse[:, :, None] * (d_unit - mean[:, :, None] - unit * along[:, :, None])
    tl.store(d_x_ptr + m[:, None] * C + c[None, :], tl.reshape(d_x, (BLOCK, C)), mask=is_in[:, None])
