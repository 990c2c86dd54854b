"""Triton functions that projection and its backward share: Gaussians to the axes of their footprints (SPEC 10).

One program handles BLOCK Gaussians. A camera is 16 floats: R (9, row by row), t (3), focal (2), princpt (2).
No postponed annotations here: Triton reads them. Constants stand to the right: its interpreter wants it so.
"""

import triton
import triton.language as tl

from common.rasterizer import interface

FILTER_PX2 = tl.constexpr(interface.FILTER_PX2)
JACOBIAN_LIMIT = tl.constexpr(interface.JACOBIAN_LIMIT)
MIN_DET_PX4 = tl.constexpr(interface.MIN_DET_PX4)
EPS_COEFFICIENT = tl.constexpr(interface.EPS_COEFFICIENT)


@triton.jit
def to_camera(mean_ptr, cam_ptr, g, is_in):
    """Camera coordinates of Gaussians g."""
    px = tl.load(mean_ptr + 3 * g, mask=is_in, other=0.0)
    py = tl.load(mean_ptr + 3 * g + 1, mask=is_in, other=0.0)
    pz = tl.load(mean_ptr + 3 * g + 2, mask=is_in, other=0.0)
    x = tl.load(cam_ptr) * px + tl.load(cam_ptr + 1) * py + tl.load(cam_ptr + 2) * pz + tl.load(cam_ptr + 9)
    y = (
        tl.load(cam_ptr + 3) * px
        + tl.load(cam_ptr + 4) * py
        + tl.load(cam_ptr + 5) * pz
        + tl.load(cam_ptr + 10)
    )
    z = (
        tl.load(cam_ptr + 6) * px
        + tl.load(cam_ptr + 7) * py
        + tl.load(cam_ptr + 8) * pz
        + tl.load(cam_ptr + 11)
    )
    return x, y, z


@triton.jit
def jacobian(x, y, z, cam_ptr, width, height):
    """The two rows of J R, and x, y as clamped inside J."""
    fx, fy = tl.load(cam_ptr + 12), tl.load(cam_ptr + 13)
    limit_x, limit_y = width * JACOBIAN_LIMIT / (2 * fx), height * JACOBIAN_LIMIT / (2 * fy)
    jx = tl.minimum(tl.maximum(x / z, -limit_x), limit_x) * z
    jy = tl.minimum(tl.maximum(y / z, -limit_y), limit_y) * z
    j00, j02 = fx / z, -fx * jx / (z * z)
    j11, j12 = fy / z, -fy * jy / (z * z)
    p0 = j00 * tl.load(cam_ptr) + j02 * tl.load(cam_ptr + 6)
    p1 = j00 * tl.load(cam_ptr + 1) + j02 * tl.load(cam_ptr + 7)
    p2 = j00 * tl.load(cam_ptr + 2) + j02 * tl.load(cam_ptr + 8)
    q0 = j11 * tl.load(cam_ptr + 3) + j12 * tl.load(cam_ptr + 6)
    q1 = j11 * tl.load(cam_ptr + 4) + j12 * tl.load(cam_ptr + 7)
    q2 = j11 * tl.load(cam_ptr + 5) + j12 * tl.load(cam_ptr + 8)
    return p0, p1, p2, q0, q1, q2, jx, jy, limit_x, limit_y


@triton.jit
def unit_quaternion(rotation_ptr, g, is_in):
    """Unit quaternion w, x, y, z and the length it had."""
    w = tl.load(rotation_ptr + 4 * g, mask=is_in, other=1.0)
    x = tl.load(rotation_ptr + 4 * g + 1, mask=is_in, other=0.0)
    y = tl.load(rotation_ptr + 4 * g + 2, mask=is_in, other=0.0)
    z = tl.load(rotation_ptr + 4 * g + 3, mask=is_in, other=0.0)
    norm = tl.maximum(tl.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w / norm, x / norm, y / norm, z / norm, norm


@triton.jit
def rotate_row(a, b, c, w, x, y, z):
    """Row vector times the matrix of a unit quaternion."""
    return (
        a * (1 - 2 * (y * y + z * z)) + b * 2 * (x * y + w * z) + c * 2 * (x * z - w * y),
        a * 2 * (x * y - w * z) + b * (1 - 2 * (x * x + z * z)) + c * 2 * (y * z + w * x),
        a * 2 * (x * z + w * y) + b * 2 * (y * z - w * x) + c * (1 - 2 * (x * x + y * y)),
    )


@triton.jit
def scales(scale_ptr, g, is_in, SCALE_COLUMNS: tl.constexpr):
    """The standard deviations along the three axes."""
    s0 = tl.load(scale_ptr + SCALE_COLUMNS * g, mask=is_in, other=0.0)
    s1, s2 = s0, s0
    if SCALE_COLUMNS == 3:
        s1 = tl.load(scale_ptr + 3 * g + 1, mask=is_in, other=0.0)
        s2 = tl.load(scale_ptr + 3 * g + 2, mask=is_in, other=0.0)
    return s0, s1, s2


@triton.jit
def gram(p0, p1, p2, q0, q1, q2, s0, s1, s2):
    """xx, xy, yy and determinant of the rows p and q with columns scaled by s."""
    a0, a1, a2, b0, b1, b2 = p0 * s0, p1 * s1, p2 * s2, q0 * s0, q1 * s1, q2 * s2
    c0, c1, c2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    det = c0 * c0 + c1 * c1 + c2 * c2  # Lagrange's identity: nothing cancels
    return a0 * a0 + a1 * a1 + a2 * a2, a0 * b0 + a1 * b1 + a2 * b2, b0 * b0 + b1 * b1 + b2 * b2, det


@triton.jit
def compensation(xx, yy, det0):
    """Opacity factor, 0 where degenerate, and the determinant of the filtered covariance."""
    det1 = det0 + (xx + yy + FILTER_PX2) * FILTER_PX2
    factor = tl.sqrt_rn(tl.div_rn(det0, det1 + EPS_COEFFICIENT) + EPS_COEFFICIENT)
    return tl.where((det0 > MIN_DET_PX4) & (det1 > MIN_DET_PX4), factor, 0.0), det1
