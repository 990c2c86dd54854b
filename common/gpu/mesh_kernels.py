"""Triton kernels on meshes: normals and Laplacian. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl

MIN_LENGTH = tl.constexpr(1e-6)  # square metres: shorter sums are divided by this (SPEC 7)


@triton.jit
def _row(ptr, i, is_in):
    """Three numbers of row i."""
    x = tl.load(ptr + 3 * i, mask=is_in, other=0.0)
    y = tl.load(ptr + 3 * i + 1, mask=is_in, other=0.0)
    z = tl.load(ptr + 3 * i + 2, mask=is_in, other=0.0)
    return x, y, z


@triton.jit
def _store_row(ptr, i, is_in, x, y, z):
    tl.store(ptr + 3 * i, x, mask=is_in)
    tl.store(ptr + 3 * i + 1, y, mask=is_in)
    tl.store(ptr + 3 * i + 2, z, mask=is_in)


@triton.jit
def _cross(ax, ay, az, bx, by, bz):
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@triton.jit(do_not_specialize=["n"])
def normals(
    vertex_ptr,  # (V, 3)
    faces_ptr,  # (F, 3) int64
    face_ptr,  # (3 F,) int32 faces around each vertex
    offset_ptr,  # (V + 1,) int32
    normal_ptr,  # out (V, 3)
    length_ptr,  # out (V,) of the sum
    n,
    BLOCK: tl.constexpr,
):
    """Unit sums of the normals of the faces around."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = v < n
    first = tl.load(offset_ptr + v, mask=is_in, other=0)
    count = tl.load(offset_ptr + v + 1, mask=is_in, other=0) - first
    sx = tl.zeros([BLOCK], tl.float32)
    sy = tl.zeros([BLOCK], tl.float32)
    sz = tl.zeros([BLOCK], tl.float32)
    j, most = 0, tl.max(count, 0)
    while j < most:
        is_face = is_in & (j < count)
        f = tl.load(face_ptr + first + j, mask=is_face, other=0).to(tl.int64)
        a, b, c = _row(faces_ptr, f, is_face)
        a, b, c = a.to(tl.int64), b.to(tl.int64), c.to(tl.int64)
        ax, ay, az = _row(vertex_ptr, a, is_face)
        bx, by, bz = _row(vertex_ptr, b, is_face)
        cx, cy, cz = _row(vertex_ptr, c, is_face)
        nx, ny, nz = _cross(bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az)
        sx += nx
        sy += ny
        sz += nz
        j += 1
    length = tl.sqrt_rn(sx * sx + sy * sy + sz * sz)
    by_length = tl.maximum(length, MIN_LENGTH)
    _store_row(normal_ptr, v, is_in, sx / by_length, sy / by_length, sz / by_length)
    tl.store(length_ptr + v, length, mask=is_in)


@triton.jit(do_not_specialize=["n"])
def normals_to_sums(normal_ptr, length_ptr, grad_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Gradient of the sums (V, 3) from that of the unit normals."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = v < n
    x, y, z = _row(normal_ptr, v, is_in)
    gx, gy, gz = _row(grad_ptr, v, is_in)
    length = tl.load(length_ptr + v, mask=is_in, other=1.0)
    along = tl.where(length >= MIN_LENGTH, x * gx + y * gy + z * gz, 0.0)
    by_length = tl.maximum(length, MIN_LENGTH)
    gx, gy, gz = (gx - along * x) / by_length, (gy - along * y) / by_length, (gz - along * z) / by_length
    _store_row(out_ptr, v, is_in, gx, gy, gz)


@triton.jit(do_not_specialize=["n"])
def sums_to_vertices(vertex_ptr, faces_ptr, face_ptr, offset_ptr, d_sum_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Gradient of the vertices (V, 3) from that of the sums."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = v < n
    first = tl.load(offset_ptr + v, mask=is_in, other=0)
    count = tl.load(offset_ptr + v + 1, mask=is_in, other=0) - first
    sx = tl.zeros([BLOCK], tl.float32)
    sy = tl.zeros([BLOCK], tl.float32)
    sz = tl.zeros([BLOCK], tl.float32)
    j, most = 0, tl.max(count, 0)
    while j < most:
        is_face = is_in & (j < count)
        f = tl.load(face_ptr + first + j, mask=is_face, other=0).to(tl.int64)
        a, b, c = _row(faces_ptr, f, is_face)
        a, b, c = a.to(tl.int64), b.to(tl.int64), c.to(tl.int64)
        ax, ay, az = _row(vertex_ptr, a, is_face)
        bx, by, bz = _row(vertex_ptr, b, is_face)
        cx, cy, cz = _row(vertex_ptr, c, is_face)
        gax, gay, gaz = _row(d_sum_ptr, a, is_face)
        gbx, gby, gbz = _row(d_sum_ptr, b, is_face)
        gcx, gcy, gcz = _row(d_sum_ptr, c, is_face)
        gx, gy, gz = gax + gbx + gcx, gay + gby + gcy, gaz + gbz + gcz
        px, py, pz = _cross(cx - ax, cy - ay, cz - az, gx, gy, gz)  # to b
        qx, qy, qz = _cross(gx, gy, gz, bx - ax, by - ay, bz - az)  # to c
        at_a, at_b, at_c = (
            tl.where(is_face & (a == v), 1.0, 0.0),
            tl.where(is_face & (b == v), 1.0, 0.0),
            tl.where(is_face & (c == v), 1.0, 0.0),
        )
        sx += at_b * px + at_c * qx - at_a * (px + qx)
        sy += at_b * py + at_c * qy - at_a * (py + qy)
        sz += at_b * pz + at_c * qz - at_a * (pz + qz)
        j += 1
    _store_row(out_ptr, v, is_in, sx, sy, sz)


@triton.jit(do_not_specialize=["n"])
def laplacian(
    x_ptr,  # (V, width)
    index_ptr,  # (V, K) int64
    weight_ptr,  # (V, K)
    out_ptr,  # out (V, width)
    n,
    width,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """x plus the weighted sum of its listed neighbours."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, WIDTH)
    is_in = v < n
    is_value = is_in[:, None] & (c < width)[None, :]
    total = tl.load(x_ptr + v[:, None] * width + c[None, :], mask=is_value, other=0.0)
    for k in range(K):
        u = tl.load(index_ptr + v * K + k, mask=is_in, other=0)
        w = tl.load(weight_ptr + v * K + k, mask=is_in, other=0.0)
        total += w[:, None] * tl.load(x_ptr + u[:, None] * width + c[None, :], mask=is_value, other=0.0)
    tl.store(out_ptr + v[:, None] * width + c[None, :], total, mask=is_value)


@triton.jit(do_not_specialize=["n", "n_listed"])
def laplacian_backward(
    grad_ptr,  # (V, width)
    index_ptr,  # (L,) int64 who lists a vertex
    offset_ptr,  # (V,) int64
    weight_ptr,  # (L,)
    out_ptr,  # out (V, width)
    n,
    n_listed,
    width,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The transpose of `laplacian`."""
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, WIDTH)
    is_in = v < n
    is_value = is_in[:, None] & (c < width)[None, :]
    total = tl.load(grad_ptr + v[:, None] * width + c[None, :], mask=is_value, other=0.0)
    first = tl.load(offset_ptr + v, mask=is_in, other=0)
    end = tl.load(offset_ptr + v + 1, mask=is_in & (v + 1 < n), other=0)
    count = tl.where(is_in, tl.where(v + 1 < n, end, n_listed) - first, 0)
    j, most = 0, tl.max(count, 0)
    while j < most:
        is_listed = j < count
        u = tl.load(index_ptr + first + j, mask=is_listed, other=0)
        w = tl.load(weight_ptr + first + j, mask=is_listed, other=0.0)
        total += w[:, None] * tl.load(
            grad_ptr + u[:, None] * width + c[None, :], mask=is_value & is_listed[:, None], other=0.0
        )
        j += 1
    tl.store(out_ptr + v[:, None] * width + c[None, :], total, mask=is_value)
