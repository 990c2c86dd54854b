"""Whether cameras, SMPL-X parameters and identity are plausible numbers in the right units (SPEC 6)."""

from __future__ import annotations

import math

import torch

from common.body_model.identity import Identity
from common.camera import Camera
from common.doctor.findings import Findings
from common.doctor.reprojection import BodyView
from common.joints import POSE_PARAMS
from common.pose import SmplxParams

FOCAL_RANGE = (0.3, 30.0)  # of the image's larger side: beyond, fisheye lenses and telescopes
MAX_ASPECT = 1.2  # focal x to y
FAR_PRINCPT = 1.0  # image sizes that the principal point may lie outside (crops of a video)
MAX_TRANS_M = 100.0
MAX_ANGLE = 2 * math.pi
MAX_COEFFICIENT = 10.0  # shape and expression, standard deviations
MAX_FACE_OFFSET_M, MAX_JOINT_OFFSET_M = 0.1, 0.2
LOW_IN_IMAGE = 0.5  # of the body's vertices


def check_camera(findings: Findings, where: str, camera: Camera) -> None:
    """Focal length and principal point; that R is a rotation is checked when the file is read."""
    side = max(camera.height, camera.width)
    focal_x, focal_y = camera.focal.tolist()
    if not all(FOCAL_RANGE[0] * side < focal < FOCAL_RANGE[1] * side for focal in (focal_x, focal_y)):
        findings.warn(
            "focal length", f"{where}: {focal_x:g}, {focal_y:g} pixels for {camera.width} x {camera.height} pixels",
            "focal lengths are in pixels of this image, not in millimetres or of another size",
        )  # fmt: skip
    if max(focal_x, focal_y) > MAX_ASPECT * min(focal_x, focal_y):
        findings.warn(
            "focal length",
            f"{where}: {focal_x:g} in x and {focal_y:g} in y",
            "pixels are square in nearly every image",
        )
    x, y = (
        value / size - 0.5
        for value, size in zip(camera.princpt.tolist(), (camera.width, camera.height), strict=True)
    )
    if max(abs(x), abs(y)) > 0.5 + FAR_PRINCPT:
        findings.warn(
            "principal point",
            f"{where}: {camera.princpt.tolist()} is far outside the {camera.width} x {camera.height} image",
            "it is in pixels from the image's upper left corner, near its middle unless the image is a crop",
        )  # fmt: skip


def check_params(findings: Findings, where: str, params: SmplxParams) -> None:
    """Units of pose, expression and place."""
    for name in POSE_PARAMS:
        largest = float(getattr(params, name).reshape(-1, 3).norm(dim=1).max())
        if largest > MAX_ANGLE:
            findings.warn(
                "pose in degrees?",
                f"{where}: {name} turns by {largest:.1f}",
                "axis-angle vectors are in radians",
            )
    if float(params.expr.abs().max()) > MAX_COEFFICIENT:
        findings.warn(
            "expression", f"{where}: a coefficient of {float(params.expr.abs().max()):.1f}",
            "fit the expression with a prior; values beyond 3 are rare",
        )  # fmt: skip
    if float(params.trans.norm()) > MAX_TRANS_M:
        findings.warn(
            "trans in millimetres?",
            f"{where}: {[round(v, 1) for v in params.trans.tolist()]}",
            "trans is in metres",
        )


def check_view(findings: Findings, where: str, view: BodyView) -> None:
    """The person must stand before the camera and in the image."""
    if not view.is_in_front.all():
        findings.error(
            "person is behind the camera", f"{where}: the body's depth goes from {view.vertices[:, 2].min():.2f} m "
            f"to {view.vertices[:, 2].max():.2f} m",
            "root_pose and trans are in camera space: x right, y down, z forward",
        )  # fmt: skip
    elif view.share_in_image == 0:
        findings.error(
            "person is outside the image", f"{where}: no vertex of the fitted body projects into it",
            "check focal, princpt and trans of this frame",
        )  # fmt: skip
    elif view.share_in_image < LOW_IN_IMAGE:
        findings.warn(
            "person is cut off", f"{where}: {view.share_in_image:.0%} of the fitted body is in the image",
            "nothing to do if the picture shows only a part of the person",
        )  # fmt: skip


def check_identity(findings: Findings, identity: Identity) -> None:
    """Units of shape and offsets."""
    largest = {
        "shape_param": float(identity.shape.abs().max()),
        "face_offset": float(identity.face_offset.norm(dim=1).max()),
        "joint_offset": float(identity.joint_offset.norm(dim=1).max()),
    }
    if largest["shape_param"] > MAX_COEFFICIENT:
        findings.warn(
            "identity", f"shape_param.json has a coefficient of {largest['shape_param']:.1f}",
            "fit the shape with a prior; values beyond 3 are rare",
        )  # fmt: skip
    for name, limit in (("face_offset", MAX_FACE_OFFSET_M), ("joint_offset", MAX_JOINT_OFFSET_M)):
        if largest[name] > limit:
            findings.warn(
                "identity", f"{name}.json moves a point by {largest[name]:.2f} m", "offsets are in metres"
            )
    if not torch.count_nonzero(identity.shape):
        findings.warn(
            "identity", "shape_param.json is all zero: the average body", "fit the shape to the photo"
        )
