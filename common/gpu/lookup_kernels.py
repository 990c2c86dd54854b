"""Triton kernels of the skinning lookup. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl

EPS_NORMALISE = tl.constexpr(1e-12)  # as torch.nn.functional.normalize


@triton.jit
def _along(u, step, s, axis: tl.constexpr, last, margin):
    """Coordinate of sample s along an axis, clamped, its cell, and whether the clamp lets a gradient through."""
    k = s - 1
    factor = tl.where((s > 0) & (k // 4 == axis), 1.0 + (k % 4) // 2, 0.0) * (1.0 - 2.0 * (k % 2))
    position = u + factor * step
    low, high = -margin, last + margin
    is_free = (position >= low) & (position <= high)
    position = tl.minimum(tl.maximum(position, low), high)
    cell = tl.floor(position)
    return position - cell, cell.to(tl.int32), is_free


@triton.jit
def _point(points_ptr, steps_ptr, g, is_in, nx, ny, nz):
    """Position and steps of the Gaussians, and how far samples may leave the grid."""
    x = tl.load(points_ptr + 3 * g, mask=is_in, other=0.0)
    y = tl.load(points_ptr + 3 * g + 1, mask=is_in, other=0.0)
    z = tl.load(points_ptr + 3 * g + 2, mask=is_in, other=0.0)
    hx = tl.load(steps_ptr + 3 * g, mask=is_in, other=0.0)
    hy = tl.load(steps_ptr + 3 * g + 1, mask=is_in, other=0.0)
    hz = tl.load(steps_ptr + 3 * g + 2, mask=is_in, other=0.0)
    is_outside = (x < 0) | (y < 0) | (z < 0) | (x > nx - 1) | (y > ny - 1) | (z > nz - 1)
    return x, y, z, hx, hy, hz, tl.where(is_outside, 0.0, 2.0)


@triton.jit
def _weight_of(s):
    return tl.where(s == 0, 1.0, tl.where((s - 1) % 4 < 2, 0.5, 0.3))


@triton.jit(do_not_specialize=["n", "nx", "ny", "nz"])
def look_up(
    table_ptr,  # (X, Y, Z, C)
    points_ptr,  # (N, 3) in cells
    steps_ptr,  # (N, 3)
    out_ptr,  # out (N, C), rows sum to 1
    total_ptr,  # out (N,) sum of a row before
    n,
    nx,
    ny,
    nz,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalised sums of the samples."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    c = tl.arange(0, WIDTH)
    x, y, z, hx, hy, hz, margin = _point(points_ptr, steps_ptr, g, is_in, nx, ny, nz)
    total = tl.zeros([BLOCK, WIDTH], tl.float32)
    for s in range(13):
        fx, ix, _ = _along(x, hx, s, 0, nx - 1, margin)
        fy, iy, _ = _along(y, hy, s, 1, ny - 1, margin)
        fz, iz, _ = _along(z, hz, s, 2, nz - 1, margin)
        weight = _weight_of(s)
        for corner in range(8):
            a, b, d = corner // 4, corner // 2 % 2, corner % 2
            jx, jy, jz = ix + a, iy + b, iz + d
            is_there = (jx >= 0) & (jx < nx) & (jy >= 0) & (jy < ny) & (jz >= 0) & (jz < nz) & is_in
            wx = tl.where(a == 1, fx, 1.0 - fx)
            wy = tl.where(b == 1, fy, 1.0 - fy)
            wz = tl.where(d == 1, fz, 1.0 - fz)
            coefficient = wx * wy * wz * weight
            is_there = is_there & (coefficient != 0.0)
            row = (jx.to(tl.int64) * ny + jy) * nz + jz
            values = tl.load(
                table_ptr + row[:, None] * C + c[None, :],
                mask=is_there[:, None] & (c[None, :] < C),
                other=0.0,
            )
            total += coefficient[:, None] * values
    length = tl.sum(tl.abs(total), 1)
    out = total / tl.maximum(length, EPS_NORMALISE)[:, None]
    at = g[:, None].to(tl.int64) * C + c[None, :]
    tl.store(out_ptr + at, out, mask=is_in[:, None] & (c[None, :] < C))
    tl.store(total_ptr + g, length, mask=is_in)


@triton.jit(do_not_specialize=["n", "nx", "ny", "nz"])
def look_up_backward(
    table_ptr,
    points_ptr,
    steps_ptr,
    out_ptr,  # (N, C) of `look_up`
    total_ptr,
    grad_ptr,  # (N, C)
    grad_points_ptr,  # out (N, 3)
    n,
    nx,
    ny,
    nz,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of the points: the sum of three rows' derivatives is taken first, and multiplied once."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    c = tl.arange(0, WIDTH)
    x, y, z, hx, hy, hz, margin = _point(points_ptr, steps_ptr, g, is_in, nx, ny, nz)
    dx = tl.zeros([BLOCK, WIDTH], tl.float32)
    dy = tl.zeros([BLOCK, WIDTH], tl.float32)
    dz = tl.zeros([BLOCK, WIDTH], tl.float32)
    for s in range(13):
        fx, ix, free_x = _along(x, hx, s, 0, nx - 1, margin)
        fy, iy, free_y = _along(y, hy, s, 1, ny - 1, margin)
        fz, iz, free_z = _along(z, hz, s, 2, nz - 1, margin)
        weight = _weight_of(s)
        for corner in range(8):
            a, b, d = corner // 4, corner // 2 % 2, corner % 2
            jx, jy, jz = ix + a, iy + b, iz + d
            is_there = (jx >= 0) & (jx < nx) & (jy >= 0) & (jy < ny) & (jz >= 0) & (jz < nz) & is_in
            wx = tl.where(a == 1, fx, 1.0 - fx)
            wy = tl.where(b == 1, fy, 1.0 - fy)
            wz = tl.where(d == 1, fz, 1.0 - fz)
            row = (jx.to(tl.int64) * ny + jy) * nz + jz
            values = tl.load(
                table_ptr + row[:, None] * C + c[None, :],
                mask=is_there[:, None] & (c[None, :] < C),
                other=0.0,
            )
            dx += (tl.where(free_x, 2.0 * a - 1.0, 0.0) * wy * wz * weight)[:, None] * values
            dy += (tl.where(free_y, 2.0 * b - 1.0, 0.0) * wx * wz * weight)[:, None] * values
            dz += (tl.where(free_z, 2.0 * d - 1.0, 0.0) * wx * wy * weight)[:, None] * values
    at = g[:, None].to(tl.int64) * C + c[None, :]
    is_value = is_in[:, None] & (c[None, :] < C)
    grad = tl.load(grad_ptr + at, mask=is_value, other=0.0)
    out = tl.load(out_ptr + at, mask=is_value, other=0.0)
    total = tl.load(total_ptr + g, mask=is_in, other=1.0)
    along = tl.where(total > EPS_NORMALISE, tl.sum(grad * out, 1), 0.0)  # the table has no negative weights
    grad = (grad - along[:, None]) / tl.maximum(total, EPS_NORMALISE)[:, None]
    tl.store(grad_points_ptr + 3 * g, tl.sum(grad * dx, 1), mask=is_in)
    tl.store(grad_points_ptr + 3 * g + 1, tl.sum(grad * dy, 1), mask=is_in)
    tl.store(grad_points_ptr + 3 * g + 2, tl.sum(grad * dz, 1), mask=is_in)
