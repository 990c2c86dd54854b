"""Triton kernels of posing: the offset net, and skinning by the diffused field (SPEC 8, 9).

No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common import skinning_lookup
from common.engine import pose_rows

ONE_SIGMA_WEIGHT = tl.constexpr(skinning_lookup.SAMPLE_WEIGHTS[0])
TWO_SIGMA_WEIGHT = tl.constexpr(skinning_lookup.SAMPLE_WEIGHTS[2])
COLUMNS = tl.constexpr(pose_rows.BLEND_COLUMNS)
WEIGHT_COLUMN = tl.constexpr(pose_rows.WEIGHT_COLUMN)
GROUP_NORM_EPS = tl.constexpr(1e-5)
LARGEST_M = tl.constexpr(1e6)  # beyond it a position counts as not finite


@triton.jit
def _norm_relu(x, scale_ptr, shift_ptr, GROUPS: tl.constexpr):
    """ReLU(GroupNorm(x)) of rows x (BLOCK, WIDTH)."""
    block: tl.constexpr = x.shape[0]
    width: tl.constexpr = x.shape[1]
    size: tl.constexpr = width // GROUPS
    c = tl.arange(0, width)
    grouped = tl.reshape(x, (block, GROUPS, size))
    grouped -= (tl.sum(grouped, 2) / size)[:, :, None]
    variance = tl.sum(grouped * grouped, 2) / size
    grouped *= (1.0 / tl.sqrt_rn(variance + GROUP_NORM_EPS))[:, :, None]
    normed = tl.reshape(grouped, (block, width))
    return tl.maximum(normed * tl.load(scale_ptr + c)[None, :] + tl.load(shift_ptr + c)[None, :], 0.0)


@triton.jit
def _linear(x, weight_ptr, bias_ptr, TERMS: tl.constexpr):
    """x W + b; W (2, WIDTH, WIDTH) float16 as a coarse part and what it lacks.

    One term: float16 products, added in float32. Three terms: float32 accuracy.
    """
    width: tl.constexpr = x.shape[1]
    i = tl.arange(0, width)
    at = i[:, None] * width + i[None, :]
    weight = tl.load(weight_ptr + at)
    coarse = x.to(tl.float16)
    product = tl.dot(coarse, weight)
    if TERMS == 3:
        fine = (x - coarse.to(tl.float32)).to(tl.float16)
        product = tl.dot(fine, weight, acc=product)
        product = tl.dot(coarse, tl.load(weight_ptr + width * width + at), acc=product)
    return product + tl.load(bias_ptr + i)[None, :]


@triton.jit(do_not_specialize=["n"])
def offset_net(
    feature_ptr,  # (M, WIDTH) first layer without the pose
    dominant_ptr,  # (M,) int32 joint
    by_joint_ptr,  # (55, WIDTH) what the pose adds
    weight_ptr,  # (2, 2, WIDTH, WIDTH) float16: two layers; coarse, fine; input, output
    bias_ptr,  # (2, WIDTH)
    norm_ptr,  # (3, 2, WIDTH) scale and shift after each hidden layer
    last_ptr,  # (3, WIDTH + 1) weights and bias of the last layer
    offset_ptr,  # out (M, 3)
    n,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pose-driven offsets of the moving Gaussians."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = row < n
    c = tl.arange(0, WIDTH)
    joint = tl.load(dominant_ptr + row, mask=is_in, other=0)
    feature = feature_ptr + row.to(tl.int64)[:, None] * WIDTH + c[None, :]
    x = tl.load(feature, mask=is_in[:, None], other=0.0)
    x += tl.load(by_joint_ptr + joint[:, None] * WIDTH + c[None, :])
    x = _norm_relu(x, norm_ptr, norm_ptr + WIDTH, GROUPS)
    x = _linear(x, weight_ptr, bias_ptr, TERMS)
    x = _norm_relu(x, norm_ptr + 2 * WIDTH, norm_ptr + 3 * WIDTH, GROUPS)
    x = _linear(x, weight_ptr + 2 * WIDTH * WIDTH, bias_ptr + WIDTH, TERMS)
    x = _norm_relu(x, norm_ptr + 4 * WIDTH, norm_ptr + 5 * WIDTH, GROUPS)
    for k in tl.static_range(3):
        last = last_ptr + k * (WIDTH + 1)
        offset = tl.sum(x * tl.load(last + c)[None, :], 1) + tl.load(last + WIDTH)
        tl.store(offset_ptr + 3 * row + k, offset, mask=is_in)


@triton.jit
def _hat(u, i, last, is_clamped):
    """Linear weight of grid plane i for the coordinate u."""
    u = tl.where(is_clamped, tl.minimum(tl.maximum(u, 0.0), last), u)
    floor = tl.floor(u)
    return tl.where(floor == i, 1.0 - (u - floor), tl.where(floor == i - 1.0, u - floor, 0.0))


@triton.jit
def _line(u, h, i, last, is_clamped):
    """Summed weight of grid plane i for the samples at u +- h and u +- 2h."""
    one = _hat(u - h, i, last, is_clamped) + _hat(u + h, i, last, is_clamped)
    two = _hat(u - 2.0 * h, i, last, is_clamped) + _hat(u + 2.0 * h, i, last, is_clamped)
    return ONE_SIGMA_WEIGHT * one + TWO_SIGMA_WEIGHT * two


@triton.jit
def _add_node(
    acc, node, weight, node_ptr, blended_ptr, table_ptr, joint_ptr, J: tl.constexpr, FROM_TABLE: tl.constexpr
):
    """acc plus weight times the blended transform at grid point `node`; and whether it was not prepared."""
    column = tl.arange(0, COLUMNS)
    is_used = weight != 0.0
    if FROM_TABLE:
        for j in range(J):
            w = weight * tl.load(table_ptr + node.to(tl.int64) * J + j, mask=is_used, other=0.0)
            acc += w[:, None] * tl.load(joint_ptr + j * COLUMNS + column)[None, :]
        return acc, is_used & (weight != weight)
    known = tl.load(node_ptr + node, mask=is_used, other=0)
    at = known[:, None] * COLUMNS + column[None, :]
    acc += weight[:, None] * tl.load(blended_ptr + at, mask=(is_used & (known >= 0))[:, None], other=0.0)
    return acc, known < 0


@triton.jit
def _add_planes(
    acc, u, h, first_near, last, is_clamped, stride, row, stride_a, stride_b, a0, a1, b0, b1,
    node_ptr, blended_ptr, table_ptr, joint_ptr,
    J: tl.constexpr, FROM_TABLE: tl.constexpr,
):  # fmt: skip
    """What the planes beside the centre's cell add along one axis; 2 x 2 grid points on each, weighted a x b."""
    first = tl.floor(tl.minimum(tl.maximum(u - 2.0 * h, 0.0), last))
    final = tl.floor(tl.minimum(tl.maximum(u + 2.0 * h, 0.0), last)) + 1.0
    final = tl.minimum(final, last)
    is_missing = first < 0.0
    n_points = 4 * (tl.max((final - first).to(tl.int32), 0) + 1)
    step = 0
    while step < n_points:  # one loop: two would be unrolled into too many registers
        plane = first + step // 4
        is_near = (plane >= first_near) & (plane <= first_near + 1.0)
        is_beside = (plane <= final) & ~is_near
        line = tl.where(is_beside, _line(u, h, plane, last, is_clamped), 0.0)
        corner = step % 4
        weight = line * tl.where(corner // 2 == 0, a0, a1) * tl.where(corner % 2 == 0, b0, b1)
        node = tl.where(is_beside, plane, 0.0).to(tl.int32) * stride + row
        node += corner // 2 * stride_a + corner % 2 * stride_b
        acc, missing = _add_node(
            acc, node, weight, node_ptr, blended_ptr, table_ptr, joint_ptr, J, FROM_TABLE
        )
        is_missing = is_missing | missing
        step += 1
    return acc, is_missing


@triton.jit
def _sample(
    acc, u0, u1, u2, h0, h1, h2, is_used, size0, size1, size2, n_corners,
    node_ptr, blended_ptr, table_ptr, joint_ptr,
    J: tl.constexpr, FROM_TABLE: tl.constexpr,
):  # fmt: skip
    """acc (BLOCK, 16) plus the 13 samples at u, all coordinates in cells; and whether a grid point was not prepared."""
    end0, end1, end2 = size0 - 1.0, size1 - 1.0, size2 - 1.0
    is_clamped = (u0 < 0) | (u0 > end0) | (u1 < 0) | (u1 > end1) | (u2 < 0) | (u2 > end2)
    b0 = tl.minimum(tl.floor(tl.minimum(tl.maximum(u0, 0.0), end0)), end0 - 1.0)
    b1 = tl.minimum(tl.floor(tl.minimum(tl.maximum(u1, 0.0), end1)), end1 - 1.0)
    b2 = tl.minimum(tl.floor(tl.minimum(tl.maximum(u2, 0.0), end2)), end2 - 1.0)
    s0, s1 = size1 * size2, size2
    is_missing = b0 < 0.0
    corner = 0
    while corner < n_corners:
        i0, i1, i2 = b0 + corner // 4, b1 + corner // 2 % 2, b2 + corner % 2
        w0 = _hat(u0, i0, end0, is_clamped)
        w1 = _hat(u1, i1, end1, is_clamped)
        w2 = _hat(u2, i2, end2, is_clamped)
        l0 = _line(u0, h0, i0, end0, is_clamped)
        l1 = _line(u1, h1, i1, end1, is_clamped)
        l2 = _line(u2, h2, i2, end2, is_clamped)
        weight = tl.where(is_used, (w0 + l0) * w1 * w2 + w0 * (l1 * w2 + w1 * l2), 0.0)
        node = i0.to(tl.int32) * s0 + i1.to(tl.int32) * s1 + i2.to(tl.int32)
        acc, missing = _add_node(
            acc, node, weight, node_ptr, blended_ptr, table_ptr, joint_ptr, J, FROM_TABLE
        )
        is_missing = is_missing | missing
        corner += 1
    x0 = tl.where(is_used, _hat(u0, b0, end0, is_clamped), 0.0)
    x1 = tl.where(is_used, _hat(u0, b0 + 1.0, end0, is_clamped), 0.0)
    y0 = tl.where(is_used, _hat(u1, b1, end1, is_clamped), 0.0)
    y1 = tl.where(is_used, _hat(u1, b1 + 1.0, end1, is_clamped), 0.0)
    z0, z1 = _hat(u2, b2, end2, is_clamped), _hat(u2, b2 + 1.0, end2, is_clamped)
    r0, r1, r2 = b0.to(tl.int32) * s0, b1.to(tl.int32) * s1, b2.to(tl.int32)
    acc, a = _add_planes(
        acc, u0, h0, b0, end0, is_clamped, s0, r1 + r2, s1, 1, y0, y1, z0, z1,
        node_ptr, blended_ptr, table_ptr, joint_ptr, J, FROM_TABLE,
    )  # fmt: skip
    acc, b = _add_planes(
        acc, u1, h1, b1, end1, is_clamped, s1, r0 + r2, s0, 1, x0, x1, z0, z1,
        node_ptr, blended_ptr, table_ptr, joint_ptr, J, FROM_TABLE,
    )  # fmt: skip
    acc, c = _add_planes(
        acc, u2, h2, b2, end2, is_clamped, 1, r0 + r1, s0, s1, x0, x1, y0, y1,
        node_ptr, blended_ptr, table_ptr, joint_ptr, J, FROM_TABLE,
    )  # fmt: skip
    return acc, is_missing | a | b | c


@triton.jit
def _column(x, j: tl.constexpr):
    """Column j of x."""
    return tl.sum(tl.where(tl.arange(0, x.shape[1])[None, :] == j, x, 0.0), 1)


@triton.jit(
    do_not_specialize=[
        "n", "n_field", "first_moving", "end_moving", "n_nodes", "size0", "size1", "size2", "n_corners"
    ]
)  # fmt: skip
def pose(
    base_ptr,  # (N, 3) neutral means with mean_offset
    offset_ptr,  # (M, 3) of the moving Gaussians
    expression_ptr,  # (E, 3)
    expression_row_ptr,  # (N,) int32 row of the above, or -1
    scale_ptr,  # (N,)
    grid_ptr,  # (6,) lower corner, cells in a metre
    node_ptr,  # (X Y Z,) int32 row of `blended`, or -1 for grid points that are not prepared
    blended_ptr,  # (n_nodes + N - D, 16) blended transforms of grid points, then of Gaussians with own weights
    table_ptr,  # (X Y Z, J) the field
    joint_ptr,  # (J, 16) joint transforms
    rotation_ptr,  # (9,) the inverse of the camera's rotation, transposed
    translation_ptr,  # (3,)
    is_missing_ptr,  # (programs,) int32: whether a program of the field met a grid point that is not prepared
    order_ptr,  # (N,) int32 where the mean goes
    mean_ptr,  # out (N, 3) world
    n,
    n_field,  # D
    first_moving,
    end_moving,
    n_nodes,
    size0,
    size1,
    size2,
    n_corners,  # 8; an argument, because the loop over a constant would be unrolled into too many registers
    J: tl.constexpr,
    FROM_TABLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Means of the posed Gaussians; FROM_TABLE does again what met grid points that are not prepared."""
    if FROM_TABLE:
        if tl.program_id(0) * BLOCK >= n_field:
            return
        if tl.load(is_missing_ptr + tl.program_id(0)) == 0:
            return
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    is_moving = is_in & (g >= first_moving) & (g < end_moving)
    row = tl.load(expression_row_ptr + g, mask=is_in, other=-1)
    m = 3 * (g - first_moving)
    x = tl.load(base_ptr + 3 * g, mask=is_in, other=0.0)
    y = tl.load(base_ptr + 3 * g + 1, mask=is_in, other=0.0)
    z = tl.load(base_ptr + 3 * g + 2, mask=is_in, other=0.0)
    x += tl.load(offset_ptr + m, mask=is_moving, other=0.0)
    y += tl.load(offset_ptr + m + 1, mask=is_moving, other=0.0)
    z += tl.load(offset_ptr + m + 2, mask=is_moving, other=0.0)
    x += tl.load(expression_ptr + 3 * row, mask=row >= 0, other=0.0)
    y += tl.load(expression_ptr + 3 * row + 1, mask=row >= 0, other=0.0)
    z += tl.load(expression_ptr + 3 * row + 2, mask=row >= 0, other=0.0)

    column = tl.arange(0, COLUMNS)
    is_field = is_in & (g < n_field)
    own = (n_nodes + g - n_field)[:, None] * COLUMNS + column[None, :]
    acc = tl.load(blended_ptr + own, mask=(is_in & (g >= n_field))[:, None], other=0.0)
    if tl.program_id(0) * BLOCK < n_field:
        is_finite = (tl.abs(x) < LARGEST_M) & (tl.abs(y) < LARGEST_M) & (tl.abs(z) < LARGEST_M)
        is_sampled = is_field & is_finite
        cells0, cells1, cells2 = tl.load(grid_ptr + 3), tl.load(grid_ptr + 4), tl.load(grid_ptr + 5)
        u0 = tl.where(is_sampled, (x - tl.load(grid_ptr)) * cells0, 0.0)
        u1 = tl.where(is_sampled, (y - tl.load(grid_ptr + 1)) * cells1, 0.0)
        u2 = tl.where(is_sampled, (z - tl.load(grid_ptr + 2)) * cells2, 0.0)
        scale = tl.load(scale_ptr + g, mask=is_sampled, other=0.0)
        acc, is_missing = _sample(
            acc, u0, u1, u2, scale * cells0, scale * cells1, scale * cells2, is_sampled, size0, size1, size2,
            n_corners, node_ptr, blended_ptr, table_ptr, joint_ptr, J, FROM_TABLE,
        )  # fmt: skip
        if not FROM_TABLE:
            tl.store(is_missing_ptr + tl.program_id(0), tl.max(is_missing.to(tl.int32), 0))
    total = tl.where(is_field, tl.maximum(_column(acc, WEIGHT_COLUMN), 1e-12), 1.0)
    k = column % 4
    point = tl.where(k == 0, x[:, None], tl.where(k == 1, y[:, None], tl.where(k == 2, z[:, None], 1.0)))
    moved = acc * point / total[:, None]
    r = (column // 4)[None, :]
    px = tl.sum(tl.where(r == 0, moved, 0.0), 1) - tl.load(translation_ptr)
    py = tl.sum(tl.where(r == 1, moved, 0.0), 1) - tl.load(translation_ptr + 1)
    pz = tl.sum(tl.where(r == 2, moved, 0.0), 1) - tl.load(translation_ptr + 2)
    place = tl.load(order_ptr + g, mask=is_in, other=0)
    for i in tl.static_range(3):
        world = px * tl.load(rotation_ptr + i) + py * tl.load(rotation_ptr + 3 + i)
        world += pz * tl.load(rotation_ptr + 6 + i)
        tl.store(mean_ptr + 3 * place + i, world, mask=is_in)
