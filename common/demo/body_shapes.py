"""Linear spaces of the demo body: shape PCA, expression basis, joint regressor (SPEC 16)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.demo.body_rig import mirrored_joints
from common.demo.subject_surface import smoothstep
from common.joints import JOINTS, N_EXPR, joint_index

# The first ten expression directions: combinations of face units at coefficient 1.
# As the space is linear, a direction is as strong as its opposite stays plausible at -2.
EXPRESSION_COMBINATIONS: dict[str, dict[str, float]] = {
    "jaw_open": {"jawOpen": 0.25},
    "smile": {"mouthSmileLeft": 0.4, "mouthSmileRight": 0.4, "cheekSquintLeft": 0.2, "cheekSquintRight": 0.2},
    "blink": {"eyeBlinkLeft": 0.35, "eyeBlinkRight": 0.35},
    "brows_up": {"browInnerUp": 0.4, "browOuterUpLeft": 0.4, "browOuterUpRight": 0.4},
    "brows_down": {"browDownLeft": 0.5, "browDownRight": 0.5},
    "pucker": {"mouthPucker": 0.45},
    "frown": {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5},
    "cheek_puff": {"cheekPuff": 0.45},
    "stretch": {"mouthStretchLeft": 0.45, "mouthStretchRight": 0.45},
    "upper_lip_up": {"mouthUpperUpLeft": 0.4, "mouthUpperUpRight": 0.4},
}
# Left out of the single units: whole combinations already (jaw, pucker, puff), gaze, and two that only
# make sense together with an open mouth.
_LEFT_OUT = ("jawOpen", "mouthPucker", "cheekPuff", "mouthClose", "eyeLook")
_SINGLE_STRENGTH = 0.4
MIN_OFFSET_M = 1e-5  # smaller expression offsets are rounding
_FADE_SIDE_M, _FADE_DEPTH_M = (0.040, 0.048), (0.050, 0.079)  # off the midline; behind the tip of the nose

_REGRESSOR_CANDIDATES = 4000
_REGRESSOR_VERTICES = 150
_REGRESSOR_RIDGE = 3e-6


def expression_names(units: dict[str, np.ndarray]) -> list[str]:
    """Names of the 50 expression directions: ten combinations, then single face units."""
    singles = [name for name in sorted(units) if not name.startswith(_LEFT_OUT)]
    return [*EXPRESSION_COMBINATIONS, *singles][:N_EXPR]


def expression_directions(
    units: dict[str, np.ndarray], template: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Expression basis (V, 3, 50), metres per unit coefficient; two-sided directions exactly symmetric."""
    columns = []
    for name in expression_names(units):
        recipe = EXPRESSION_COMBINATIONS.get(name, {name: _SINGLE_STRENGTH})
        column = np.sum([strength * units[unit] for unit, strength in recipe.items()], axis=0)
        columns.append(symmetrised(column, mirror) if name in EXPRESSION_COMBINATIONS else column)
    dirs = faded_behind_the_jaw(np.stack(columns, axis=2), template)
    dirs[np.abs(dirs).max(axis=(1, 2)) < MIN_OFFSET_M] = 0
    return dirs


def faded_behind_the_jaw(dirs: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Expression directions (V, 3, 50) that fade out on the sides of the face towards the corners of the jaw.

    SPEC 7 finds the inside of the mouth as what faces backwards and lies less than 10 cm behind the nose; the
    skin behind the jaw's corners would pass for it.
    """
    moves = np.abs(dirs).max(axis=(1, 2)) > 0
    behind = template[moves, 2].max() - template[:, 2]
    side = smoothstep(np.abs(template[:, 0]), *_FADE_SIDE_M)
    return dirs * (1 - side * smoothstep(behind, *_FADE_DEPTH_M))[:, None, None]


def symmetrised(points: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of vertex data (..., V, 3) and its mirror image in x."""
    return (points + points[..., mirror, :] * np.array([-1.0, 1.0, 1.0])) / 2


class ShapeSpace(NamedTuple):
    """A linear space of bodies with coefficients of unit variance; n components, S samples."""

    mean: np.ndarray  # (V, 3)
    directions: np.ndarray  # (V, 3, n)
    scores: np.ndarray  # (S, n) coefficients of the samples
    error_m: float  # mean vertex distance between the samples and their images in the space


def shape_space(samples: np.ndarray, n_components: int) -> ShapeSpace:
    """PCA of T-pose bodies (S, V, 3); a larger coefficient raises the crown."""
    n_samples = len(samples)
    mean = samples.mean(axis=0)
    centred = (samples - mean).reshape(n_samples, -1)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(values)[::-1][:n_components]
    scores = vectors[:, order] * np.sqrt(n_samples)  # unit variance
    directions = (centred.T @ scores / n_samples).reshape(-1, 3, n_components)
    residual = centred - scores @ directions.reshape(-1, n_components).T
    error = np.linalg.norm(residual.reshape(n_samples, -1, 3), axis=2).mean()
    sign = np.where(directions[np.argmax(mean[:, 1]), 1] < 0, -1.0, 1.0)
    return ShapeSpace(mean, directions * sign, scores * sign, float(error))


def joint_space(joints: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Joints (S, 55, 3) as a linear function of the shape coefficients (S, n): mean and directions (1 + n, 55, 3)."""
    mean = joints.mean(axis=0)
    directions = np.einsum("sn,sjc->njc", scores, joints - mean) / len(joints)
    return np.concatenate([mean[None], directions])


def joint_regressor(
    samples: np.ndarray, joints: np.ndarray, is_allowed: np.ndarray, eyes: dict[str, np.ndarray],
    mirror: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Regressor (55, V) of joints (S, 55, 3) from T-pose bodies (S, V, 3): rows sum to 1, symmetric.

    Ridge regression on vertices spread around each joint, so small negative weights occur; vertices that move
    with the expression are not `is_allowed` (V,). An eye's joint is the mean of its vertices.
    """
    regressor = np.zeros((joints.shape[1], samples.shape[1]))
    mean = samples.mean(axis=0)
    swap = mirrored_joints()
    for joint, name in enumerate(JOINTS):
        if name.startswith("right_"):
            continue
        if name in eyes:
            regressor[joint, eyes[name]] = 1 / len(eyes[name])
            continue
        # Bodies are symmetric, so a fit could mix up the legs: a left joint looks at the left half only.
        is_near_side = mean[:, 0] > (-0.01 if name.startswith("left_") else -np.inf)
        index = _spread_vertices(mean, joints[:, joint].mean(axis=0), is_allowed & is_near_side)
        if swap[joint] == joint:
            index = np.unique(np.concatenate([index, mirror[index]]))
        regressor[joint, index] = _ridge_weights(samples[:, index], joints[:, joint])
        if swap[joint] == joint:
            regressor[joint] = (regressor[joint] + regressor[joint][mirror]) / 2
    for joint, name in enumerate(JOINTS):
        if name.startswith("right_"):
            regressor[joint] = regressor[joint_index(name.replace("right", "left"))][mirror]
    return regressor


def _spread_vertices(mean: np.ndarray, joint: np.ndarray, is_allowed: np.ndarray) -> np.ndarray:
    """Vertices near a joint, thinned by farthest point sampling so that they surround it."""
    distance = np.where(is_allowed, np.linalg.norm(mean - joint, axis=1), np.inf)
    near = np.argsort(distance, kind="stable")[:_REGRESSOR_CANDIDATES]
    chosen = [0]
    gap = np.linalg.norm(mean[near] - mean[near[0]], axis=1)
    while len(chosen) < _REGRESSOR_VERTICES:
        chosen.append(int(np.argmax(gap)))
        gap = np.minimum(gap, np.linalg.norm(mean[near] - mean[near[chosen[-1]]], axis=1))
    return np.sort(near[chosen])


def _ridge_weights(vertices: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Weights (K,) summing to 1 that reproduce a joint (S, 3) from vertices (S, K, 3)."""
    n_samples, n_vertices, _ = vertices.shape
    relative = vertices.astype(np.float64) - joint[:, None]  # as weights sum to 1, the target becomes zero
    matrix = relative.transpose(0, 2, 1).reshape(-1, n_vertices)
    normal = matrix.T @ matrix / n_samples + _REGRESSOR_RIDGE * np.eye(n_vertices)
    weights = np.linalg.solve(normal, np.ones(n_vertices))
    return weights / weights.sum()
