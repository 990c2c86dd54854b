"""Triton kernels that draw triangles. No postponed annotations here: Triton reads them."""

import triton
import triton.language as tl

NOTHING = tl.constexpr(2**63 - 1)  # farther than any triangle


@triton.jit
def _corner(vertex_ptr, intrinsics_ptr, i):
    """Pixel position and depth of a vertex, in double precision."""
    x = tl.load(vertex_ptr + 3 * i).to(tl.float64)
    y = tl.load(vertex_ptr + 3 * i + 1).to(tl.float64)
    z = tl.load(vertex_ptr + 3 * i + 2).to(tl.float64)
    focal_x = tl.load(intrinsics_ptr).to(tl.float64)
    focal_y = tl.load(intrinsics_ptr + 1).to(tl.float64)
    u = focal_x * x / z + tl.load(intrinsics_ptr + 2).to(tl.float64)
    v = focal_y * y / z + tl.load(intrinsics_ptr + 3).to(tl.float64)
    return u, v, z


@triton.jit
def _weights(ua, va, ub, vb, uc, vc, x, y, area):
    """Affine barycentric coordinates of the points x, y."""
    wa = ((ub - x) * (vc - y) - (uc - x) * (vb - y)) / area
    wb = ((uc - x) * (va - y) - (ua - x) * (vc - y)) / area
    wc = ((ua - x) * (vb - y) - (ub - x) * (va - y)) / area
    return wa, wb, wc


@triton.jit
def _first(low, size):
    """The first pixel whose centre is not below low; 0 .. size."""
    return tl.ceil(tl.minimum(tl.maximum(low - 0.5, 0.0), size.to(tl.float64))).to(tl.int32)


@triton.jit
def _end(high, size):
    """One past the last pixel whose centre is not above high; 0 .. size."""
    return tl.floor(tl.minimum(tl.maximum(high - 0.5, -1.0), size.to(tl.float64) - 1.0)).to(tl.int32) + 1


@triton.jit(do_not_specialize=["height", "width"])
def draw(
    vertex_ptr,  # (V, 3) camera space
    faces_ptr,  # (F, 3) int64
    intrinsics_ptr,  # (4,)
    nearest_ptr,  # out (H W,) int64, NOTHING: depth's bits, then the face
    height,
    width,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One triangle a program: the smallest (depth, face) of every pixel."""
    f = tl.program_id(0)
    a = tl.load(faces_ptr + 3 * f)
    b = tl.load(faces_ptr + 3 * f + 1)
    c = tl.load(faces_ptr + 3 * f + 2)
    ua, va, za = _corner(vertex_ptr, intrinsics_ptr, a)
    ub, vb, zb = _corner(vertex_ptr, intrinsics_ptr, b)
    uc, vc, zc = _corner(vertex_ptr, intrinsics_ptr, c)
    area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
    is_drawn = (za > NEAR) & (zb > NEAR) & (zc > NEAR) & (area != 0.0) & (tl.abs(area) < float("inf"))
    left = _first(tl.minimum(tl.minimum(ua, ub), uc), width)
    right = _end(tl.maximum(tl.maximum(ua, ub), uc), width)
    top = _first(tl.minimum(tl.minimum(va, vb), vc), height)
    bottom = _end(tl.maximum(tl.maximum(va, vb), vc), height)
    n_x = tl.maximum(right - left, 1)
    n = tl.where(is_drawn & (right > left) & (bottom > top), n_x * (bottom - top), 0)
    area = tl.where(is_drawn, area, 1.0)
    start = 0
    while start < n:
        i = start + tl.arange(0, BLOCK)
        column, row = left + i % n_x, top + i // n_x
        x, y = column.to(tl.float64) + 0.5, row.to(tl.float64) + 0.5
        wa, wb, wc = _weights(ua, va, ub, vb, uc, vc, x, y, area)
        is_inside = (i < n) & (wa >= 0.0) & (wb >= 0.0) & (wc >= 0.0)
        depth = (1.0 / (wa / za + wb / zb + wc / zc)).to(tl.float32)
        key = (depth.to(tl.int32, bitcast=True).to(tl.int64) << 32) | f.to(tl.int64)
        tl.atomic_min(nearest_ptr + row * width + column, key, mask=is_inside, sem="relaxed")
        start += BLOCK


@triton.jit(do_not_specialize=["n", "width"])
def shade(
    vertex_ptr,
    faces_ptr,
    intrinsics_ptr,
    nearest_ptr,  # (H W,) of `draw`
    attribute_ptr,  # (V, n_attributes)
    image_ptr,  # out (n_attributes, H W)
    n,
    width,
    n_attributes: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Perspective-correct attributes of each pixel's triangle."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = pixel < n
    key = tl.load(nearest_ptr + pixel, mask=is_in, other=NOTHING)
    is_covered = key != NOTHING
    f = tl.where(is_covered, key & 0xFFFFFFFF, 0)
    a = tl.load(faces_ptr + 3 * f)
    b = tl.load(faces_ptr + 3 * f + 1)
    c = tl.load(faces_ptr + 3 * f + 2)
    ua, va, za = _corner(vertex_ptr, intrinsics_ptr, a)
    ub, vb, zb = _corner(vertex_ptr, intrinsics_ptr, b)
    uc, vc, zc = _corner(vertex_ptr, intrinsics_ptr, c)
    area = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
    x, y = (pixel % width).to(tl.float64) + 0.5, (pixel // width).to(tl.float64) + 0.5
    wa, wb, wc = _weights(ua, va, ub, vb, uc, vc, x, y, tl.where(is_covered, area, 1.0))
    wa, wb, wc = wa / za, wb / zb, wc / zc
    depth = 1.0 / (wa + wb + wc)
    for k in range(n_attributes):
        value = wa * depth * tl.load(attribute_ptr + a * n_attributes + k).to(tl.float64)
        value += wb * depth * tl.load(attribute_ptr + b * n_attributes + k).to(tl.float64)
        value += wc * depth * tl.load(attribute_ptr + c * n_attributes + k).to(tl.float64)
        value = tl.where(is_covered, value, 0.0)
        tl.store(image_ptr + k * n.to(tl.int64) + pixel, value.to(tl.float32), mask=is_in)
