"""Triton kernels of the skinning lookup. No postponed annotations here: Triton reads them.

As on the CPU (common/skinning_kernels.py), the 13 x 8 corners of the samples collapse to the 2 x 2 x 2 block around the
centre plus 2 x 2 grid points for each further plane near a sample; rows that do not count are left out.
"""

import triton
import triton.language as tl

EPS_NORMALISE = tl.constexpr(1e-12)  # as torch.nn.functional.normalize


@triton.jit
def _hat(u, i, last, is_clamped):
    """Linear weight of grid point i for coordinate u, and its derivative; clamped coordinates have none."""
    is_free = (u >= 0.0) & (u <= last)
    slope = tl.where(is_clamped & ~is_free, 0.0, 1.0)
    u = tl.where(is_clamped, tl.minimum(tl.maximum(u, 0.0), last), u)
    cell = tl.floor(u)
    is_lower, is_upper = cell == i, cell == i - 1.0
    weight = tl.where(is_lower, 1.0 - (u - cell), tl.where(is_upper, u - cell, 0.0))
    return weight, tl.where(is_lower, -slope, tl.where(is_upper, slope, 0.0))


@triton.jit
def _line(u, h, i, last, is_clamped):
    """Summed weight of grid point i for the samples at u +- h and u +- 2h, and its derivative."""
    a, da = _hat(u - h, i, last, is_clamped)
    b, db = _hat(u + h, i, last, is_clamped)
    c, dc = _hat(u - 2.0 * h, i, last, is_clamped)
    d, dd = _hat(u + 2.0 * h, i, last, is_clamped)
    return 0.5 * (a + b) + 0.3 * (c + d), 0.5 * (da + db) + 0.3 * (dc + dd)


@triton.jit
def _both(u, h, i, last, is_clamped):
    """Weight and slope of grid point i for the centre, then for the samples on the line."""
    weight, slope = _hat(u, i, last, is_clamped)
    line, line_slope = _line(u, h, i, last, is_clamped)
    return weight, slope, line, line_slope


@triton.jit
def _append(
    row_ptr, part_ptr, count, n, room, g, is_in, row, is_there, w, dx, dy, dz, WITH_SLOPES: tl.constexpr
):
    """Add a row of the table with its weight, or its weight's derivatives, if any of them is not 0."""
    is_used = is_in & is_there & ((w != 0.0) | (dx != 0.0) | (dy != 0.0) | (dz != 0.0))
    is_stored = is_used & (count < room)
    at = count.to(tl.int64) * n + g
    tl.store(row_ptr + at, row, mask=is_stored)
    if WITH_SLOPES:
        tl.store(part_ptr + at, dx, mask=is_stored)
        tl.store(part_ptr + room.to(tl.int64) * n + at, dy, mask=is_stored)
        tl.store(part_ptr + 2 * room.to(tl.int64) * n + at, dz, mask=is_stored)
    else:
        tl.store(part_ptr + at, w, mask=is_stored)
    return count + is_used.to(tl.int32)


@triton.jit(do_not_specialize=["n", "room", "nx", "ny", "nz"])
def find_rows(
    points_ptr,  # (N, 3) in cells
    steps_ptr,  # (N, 3)
    row_ptr,  # out (room, N) int32 rows of the table (X Y Z, C)
    part_ptr,  # out (room, N) weights, or (3, room, N) derivatives of the weights
    count_ptr,  # out (N,) int32 how many rows; if more than there is room for, the rest is missing
    n,
    room,
    nx,
    ny,
    nz,
    WITH_SLOPES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Which rows of the table each lookup is made of."""
    n = n.to(tl.int64)
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    x = tl.load(points_ptr + 3 * g, mask=is_in, other=0.0)
    y = tl.load(points_ptr + 3 * g + 1, mask=is_in, other=0.0)
    z = tl.load(points_ptr + 3 * g + 2, mask=is_in, other=0.0)
    hx = tl.load(steps_ptr + 3 * g, mask=is_in, other=0.0)
    hy = tl.load(steps_ptr + 3 * g + 1, mask=is_in, other=0.0)
    hz = tl.load(steps_ptr + 3 * g + 2, mask=is_in, other=0.0)
    lx, ly, lz = (nx - 1).to(tl.float32), (ny - 1).to(tl.float32), (nz - 1).to(tl.float32)
    out = (x < 0) | (y < 0) | (z < 0) | (x > lx) | (y > ly) | (z > lz)
    bx = tl.minimum(tl.floor(tl.minimum(tl.maximum(x, 0.0), lx)), lx - 1.0)
    by = tl.minimum(tl.floor(tl.minimum(tl.maximum(y, 0.0), ly)), ly - 1.0)
    bz = tl.minimum(tl.floor(tl.minimum(tl.maximum(z, 0.0), lz)), lz - 1.0)
    ix, iy, iz = bx.to(tl.int32), by.to(tl.int32), bz.to(tl.int32)
    count = tl.zeros([BLOCK], tl.int32)
    for corner in range(8):
        a, b, c = corner // 4, corner // 2 % 2, corner % 2
        wx, dx, ex, fx = _both(x, hx, bx + a, lx, out)
        wy, dy, ey, fy = _both(y, hy, by + b, ly, out)
        wz, dz, ez, fz = _both(z, hz, bz + c, lz, out)
        row = ((ix + a) * ny + iy + b) * nz + iz + c
        count = _append(
            row_ptr, part_ptr, count, n, room, g, is_in, row, is_in,
            (wx + ex) * wy * wz + wx * (ey * wz + wy * ez),
            (dx + fx) * wy * wz + dx * (ey * wz + wy * ez),
            (wx + ex) * dy * wz + wx * (fy * wz + dy * ez),
            (wx + ex) * wy * dz + wx * (ey * dz + wy * fz),
            WITH_SLOPES,
        )  # fmt: skip
    reach = 2.0 * tl.maximum(tl.maximum(tl.abs(hx), tl.abs(hy)), tl.abs(hz))
    k, last = 0, 2 * tl.ceil(tl.minimum(tl.max(reach, 0), tl.maximum(tl.maximum(lx, ly), lz))).to(tl.int32)
    while k < last:
        far = tl.where(k % 2 == 0, k // 2 + 2, -(k // 2) - 1)  # planes 2, -1, 3, -2, ... beside the cell
        px, py, pz = ix + far, iy + far, iz + far
        ex, fx = _line(x, hx, bx + far, lx, out)
        ey, fy = _line(y, hy, by + far, ly, out)
        ez, fz = _line(z, hz, bz + far, lz, out)
        in_x, in_y, in_z = (px >= 0) & (px < nx), (py >= 0) & (py < ny), (pz >= 0) & (pz < nz)
        for corner in range(4):
            b, c = corner // 2, corner % 2
            wxb, dxb = _hat(x, bx + b, lx, out)
            wyb, dyb = _hat(y, by + b, ly, out)
            wyc, dyc = _hat(y, by + c, ly, out)
            wzc, dzc = _hat(z, bz + c, lz, out)
            count = _append(
                row_ptr, part_ptr, count, n, room, g, is_in, (px * ny + iy + b) * nz + iz + c, in_x,
                ex * wyb * wzc, fx * wyb * wzc, ex * dyb * wzc, ex * wyb * dzc, WITH_SLOPES,
            )  # fmt: skip
            count = _append(
                row_ptr, part_ptr, count, n, room, g, is_in, ((ix + b) * ny + py) * nz + iz + c, in_y,
                ey * wxb * wzc, ey * dxb * wzc, fy * wxb * wzc, ey * wxb * dzc, WITH_SLOPES,
            )  # fmt: skip
            count = _append(
                row_ptr, part_ptr, count, n, room, g, is_in, ((ix + b) * ny + iy + c) * nz + pz, in_z,
                ez * wxb * wyc, ez * dxb * wyc, ez * wxb * dyc, fz * wxb * wyc, WITH_SLOPES,
            )  # fmt: skip
        k += 1
    tl.store(count_ptr + g, count, mask=is_in)


@triton.jit
def _rows_in_block(count_ptr, g, is_in, room):
    """How many rows each lookup of a block has, and the most."""
    count = tl.minimum(tl.load(count_ptr + g, mask=is_in, other=0), room)
    return count, tl.max(count, 0)


@triton.jit(do_not_specialize=["n", "room"])
def look_up(
    table_ptr,  # (X Y Z, C)
    row_ptr,  # (room, N) of `find_rows`
    weight_ptr,  # (room, N)
    count_ptr,  # (N,)
    out_ptr,  # out (N, C), rows sum to 1
    total_ptr,  # out (N,) sum of a row before
    n,
    room,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalised sums of the samples."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    c = tl.arange(0, WIDTH)
    total = tl.zeros([BLOCK, WIDTH], tl.float32)
    count, most = _rows_in_block(count_ptr, g, is_in, room)
    slot = 0
    while slot < most:
        at = slot * n.to(tl.int64) + g
        row = tl.load(row_ptr + at, mask=slot < count, other=0).to(tl.int64)
        weight = tl.load(weight_ptr + at, mask=slot < count, other=0.0)
        is_used = (slot < count)[:, None] & (c[None, :] < C)
        total += weight[:, None] * tl.load(table_ptr + row[:, None] * C + c[None, :], mask=is_used, other=0.0)
        slot += 1
    length = tl.sum(tl.abs(total), 1)
    at = g[:, None].to(tl.int64) * C + c[None, :]
    out = total / tl.maximum(length, EPS_NORMALISE)[:, None]
    tl.store(out_ptr + at, out, mask=is_in[:, None] & (c[None, :] < C))
    tl.store(total_ptr + g, length, mask=is_in)


@triton.jit(do_not_specialize=["n", "room"])
def look_up_backward(
    table_ptr,
    row_ptr,  # (room, N) of `find_rows`
    slope_ptr,  # (3, room, N)
    count_ptr,  # (N,)
    out_ptr,  # (N, C) of `look_up`
    total_ptr,
    grad_ptr,  # (N, C)
    grad_points_ptr,  # out (N, 3)
    n,
    room,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of the points: the rows' sums by each derivative are taken first, and multiplied once."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    c = tl.arange(0, WIDTH)
    dx = tl.zeros([BLOCK, WIDTH], tl.float32)
    dy = tl.zeros([BLOCK, WIDTH], tl.float32)
    dz = tl.zeros([BLOCK, WIDTH], tl.float32)
    count, most = _rows_in_block(count_ptr, g, is_in, room)
    plane = room * n.to(tl.int64)
    slot = 0
    while slot < most:
        at = slot * n.to(tl.int64) + g
        row = tl.load(row_ptr + at, mask=slot < count, other=0).to(tl.int64)
        by_x = tl.load(slope_ptr + at, mask=slot < count, other=0.0)
        by_y = tl.load(slope_ptr + plane + at, mask=slot < count, other=0.0)
        by_z = tl.load(slope_ptr + 2 * plane + at, mask=slot < count, other=0.0)
        is_used = (slot < count)[:, None] & (c[None, :] < C)
        values = tl.load(table_ptr + row[:, None] * C + c[None, :], mask=is_used, other=0.0)
        dx += by_x[:, None] * values
        dy += by_y[:, None] * values
        dz += by_z[:, None] * values
        slot += 1
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
