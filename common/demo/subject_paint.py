"""Painting the demo subject's skin, hair, clothes and prints as functions of where on the surface a point lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from common.demo.subject_cloth import Cut
from common.demo.subject_print import bend, lettering, ring, stamp, star
from common.demo.subject_surface import Landmarks, Surface, hair_cover, smoothstep
from common.demo.subject_wardrobe import PART_INDEX, Color, Wardrobe


@dataclass
class Canvas:
    """Colours and parts of M points while they are being painted."""

    surface: Surface
    landmarks: Landmarks
    cut: Cut
    wardrobe: Wardrobe
    color: np.ndarray  # (M, 3) float32
    label: np.ndarray  # (M,) uint8

    def over(self, color: Color | np.ndarray, alpha: np.ndarray | float) -> None:
        """Lay a colour over the points, alpha (M,) 0..1."""
        share = np.asarray(alpha, dtype=np.float32)[..., None]
        self.color += share * (np.asarray(color, dtype=np.float32) - self.color)

    def shade(self, factor: np.ndarray) -> None:
        """Multiply all colours by a factor (M,)."""
        self.color *= factor[:, None].astype(np.float32)

    def mark(self, part: str, where: np.ndarray) -> None:
        """Name the part of the points `where` (M,) bool."""
        self.label[where] = PART_INDEX[part]


def paint(
    surface: Surface, landmarks: Landmarks, cut: Cut, wardrobe: Wardrobe, garble: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Albedo (M, 3) float32 in [0, 1] and part (M,) uint8 of surface points.

    `garble` > 0 bends logo and lettering out of shape, as generated video does.
    """
    n_points = len(surface)
    canvas = Canvas(
        surface, landmarks, cut, wardrobe, np.empty((n_points, 3), np.float32), np.zeros(n_points, np.uint8)
    )
    _paint_skin(canvas)
    _paint_face(canvas)
    _paint_eyes(canvas)
    _paint_hair(canvas)
    _paint_trousers(canvas, garble)
    _paint_shoes(canvas)
    _paint_top(canvas, garble)
    return np.clip(canvas.color, 0.02, 0.97), canvas.label


def with_other_face(wardrobe: Wardrobe, other: Wardrobe, share: float) -> Wardrobe:
    """The wardrobe with the face's colours and brows moved towards another person's."""

    def blend(name: str, weight: float) -> Color:
        mine, theirs = np.array(getattr(wardrobe, name)), np.array(getattr(other, name))
        red, green, blue = mine + weight * share * (theirs - mine)
        return red, green, blue

    brow = {
        name: getattr(wardrobe, name) + 0.8 * share * (getattr(other, name) - getattr(wardrobe, name))
        for name in ("brow_height_m", "brow_arch_m", "brow_thickness_m", "blush", "stubble")
    }
    return replace(
        wardrobe,
        skin=blend("skin", 0.12),
        lips=blend("lips", 0.6),
        brows=blend("brows", 0.6),
        iris=blend("iris", 0.8),
        noise_seed=other.noise_seed,
        **brow,
    )


def _mottle(position: np.ndarray, seed: int, wavelength_m: float, n_waves: int = 8) -> np.ndarray:
    """Smooth noise (M,) of unit variance made of plane waves."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n_waves, 3))
    directions *= 2 * np.pi / wavelength_m * rng.uniform(0.6, 1.6, (n_waves, 1))
    directions /= np.linalg.norm(directions / (2 * np.pi / wavelength_m), axis=1, keepdims=True) + 1e-9
    phase = rng.uniform(0, 2 * np.pi, n_waves)
    total = np.zeros(len(position), np.float32)
    for wave, start in zip(directions.astype(np.float32), phase, strict=True):
        total += np.sin(position @ wave + np.float32(start))
    return total * np.float32(np.sqrt(2 / n_waves))


def _paint_skin(canvas: Canvas) -> None:
    surface, wardrobe = canvas.surface, canvas.wardrobe
    canvas.color[:] = np.array(wardrobe.skin, np.float32)
    canvas.shade(1 + 0.025 * _mottle(surface.position, wardrobe.noise_seed, 0.05))
    canvas.shade(1 + 0.012 * _mottle(surface.position, wardrobe.noise_seed + 1, 0.012))
    red = np.array(wardrobe.skin) * np.array([1.0, 0.72, 0.70])
    canvas.over(red, 0.35 * np.clip(surface.region("ears"), 0, 1))
    nails = np.clip(surface.region("fingernails") + surface.region("toenails"), 0, 1)
    canvas.over((0.93, 0.76, 0.72), 0.6 * nails)
    canvas.mark("face_neck", surface.head + (surface.arm < 0.5) > 0.5)
    is_leg = surface.leg > 0.5
    canvas.mark("left_lower_leg", is_leg & surface.is_left)
    canvas.mark("right_lower_leg", is_leg & ~surface.is_left)
    canvas.mark("left_hand", (surface.arm > 0.5) & surface.is_left)
    canvas.mark("right_hand", (surface.arm > 0.5) & ~surface.is_left)


def _paint_face(canvas: Canvas) -> None:
    surface, wardrobe, landmarks = canvas.surface, canvas.wardrobe, canvas.landmarks
    x, y, z = np.abs(surface.position[:, 0]), surface.position[:, 1], surface.position[:, 2]
    eye = landmarks.joint("left_eye")
    front = surface.head * smoothstep(z, eye[2] - 0.06, eye[2] - 0.03)
    red = np.array(wardrobe.skin) * np.array([1.0, 0.70, 0.66])
    cheek = np.exp(-(((x - 0.040) / 0.019) ** 2 + ((y - eye[1] + 0.036) / 0.018) ** 2))
    canvas.over(red, wardrobe.blush * 1.4 * cheek * front)
    stubble = smoothstep(y, eye[1] - 0.055, eye[1] - 0.075) * front
    stubble *= 1 - smoothstep(y, eye[1] - 0.135, eye[1] - 0.16)
    canvas.over(np.array(wardrobe.hair) * 0.7 + 0.3 * np.array(wardrobe.skin), wardrobe.stubble * stubble)

    nostril = np.exp(-(((x - 0.0085) / 0.0045) ** 2 + ((y - eye[1] + 0.0455) / 0.0035) ** 2))
    canvas.over(
        np.array(wardrobe.skin) * 0.35, 0.8 * nostril * front * smoothstep(-surface.normal[:, 1], 0.2, 0.6)
    )
    lips = surface.region("lips") * smoothstep(z, eye[2] + 0.005, eye[2] + 0.012)
    canvas.over(wardrobe.lips, smoothstep(lips, 0.25, 0.6))
    mouth_line = np.exp(-(((y - _lip_line(surface, eye)) / 0.0016) ** 2)) * (x < 0.024) * (lips > 0.05)
    canvas.over(np.array(wardrobe.lips) * 0.45, 0.65 * mouth_line)
    canvas.over((0.45, 0.16, 0.16), smoothstep(surface.region("inside_mouth"), 0.6, 0.9))
    canvas.over((0.68, 0.33, 0.33), surface.region("tongue") > 0.5)
    canvas.over((0.92, 0.90, 0.84), surface.region("upper_teeth") + surface.region("lower_teeth") > 0.5)

    along = (x - 0.0125) / 0.034  # brows: 0 at the nose, 1 at the temple
    line = eye[1] + wardrobe.brow_height_m + wardrobe.brow_arch_m * np.sin(np.clip(along, 0, 1) * 2.4)
    half = wardrobe.brow_thickness_m * (1 - 0.65 * np.clip(along, 0, 1) ** 1.5)
    brow = 1 - smoothstep(np.abs(y - line) / half, 0.55, 1.1)
    brow = brow * smoothstep(along, -0.04, 0.06) * (1 - smoothstep(along, 0.9, 1.05)) * front
    hairs = 0.82 + 0.18 * np.sin(1900 * (x * 0.8 + y))
    canvas.over(wardrobe.brows, brow * hairs)
    lids = np.clip(surface.region("eyelids"), 0, 1)
    upper = smoothstep(y, eye[1] - 0.002, eye[1] + 0.003)
    canvas.over(np.array(wardrobe.brows) * 0.8, smoothstep(lids, 0.25, 0.8) * (0.25 + 0.60 * upper))


def _lip_line(surface: Surface, eye: np.ndarray) -> float:
    lips = (surface.region("lips") > 0.5) & (surface.position[:, 2] > eye[2] + 0.01)
    return float(surface.position[lips, 1].mean()) if lips.any() else float(eye[1]) - 0.072


def _paint_eyes(canvas: Canvas) -> None:
    surface, wardrobe = canvas.surface, canvas.wardrobe
    for side in ("left", "right"):
        is_eye = surface.region(f"{side}_eye") > 0.5
        if not is_eye.any():
            continue
        centre = 0.5 * (surface.position[is_eye].min(0) + surface.position[is_eye].max(0))
        out = surface.position - centre
        angle = np.arccos(np.clip(out[:, 2] / np.maximum(np.linalg.norm(out, axis=1), 1e-6), -1, 1))
        canvas.over((0.92, 0.91, 0.89), is_eye)
        rim = np.array(wardrobe.iris) * 0.45
        canvas.over(rim, is_eye * (1 - smoothstep(angle, 0.43, 0.46)))
        canvas.over(wardrobe.iris, is_eye * (1 - smoothstep(angle, 0.36, 0.41)))
        canvas.over((0.03, 0.03, 0.03), is_eye * (1 - smoothstep(angle, 0.17, 0.20)))
        canvas.mark("eyes", is_eye)


def _paint_hair(canvas: Canvas) -> None:
    surface, wardrobe = canvas.surface, canvas.wardrobe
    hair = hair_cover(surface)
    edge = 0.12 * np.sin(900 * surface.position[:, 0]) * np.sin(500 * surface.position[:, 2] + 2)
    cover = smoothstep(hair + edge * (hair > 0.02), 0.30, 0.55)
    around = np.arctan2(surface.position[:, 0], surface.position[:, 2] - 0.06)
    strands = np.sin(60 * around + 3 * _mottle(surface.position, wardrobe.noise_seed + 7, 0.04))
    fine = _mottle(surface.position, wardrobe.noise_seed + 8, 0.008)
    tone = 1 + 0.13 * strands + 0.11 * fine
    canvas.over(np.clip(np.array(wardrobe.hair) * tone[:, None], 0, 1), cover)
    canvas.mark("hair", cover > 0.5)


def _paint_trousers(canvas: Canvas, garble: float) -> None:
    surface, landmarks, wardrobe, cut = canvas.surface, canvas.landmarks, canvas.wardrobe, canvas.cut
    x, y, z = surface.position.T
    lower = surface.leg + (y < landmarks.waist_y) * (1 - surface.arm)
    is_on = (lower > 0.5) & (surface.along_leg < cut.trouser_hem + 0.018) & (surface.arm < 0.5)
    left, right = is_on & surface.is_left, is_on & ~surface.is_left
    canvas.over(wardrobe.trouser_left, left)
    canvas.over(wardrobe.trouser_right, right)
    plaid = (np.sin(2 * np.pi * y / 0.075) > 0.72) | (np.sin(2 * np.pi * (x + 0.6 * z) / 0.06) > 0.80)
    canvas.over(np.array(wardrobe.trouser_right) * 0.62, right & plaid)
    knee = landmarks.joint("left_knee")
    side_stripe = left & (np.abs(z - knee[2]) < 0.014) & (x > knee[0])
    canvas.over(wardrobe.trouser_accent, side_stripe)
    patch = right & (np.abs(y - landmarks.joint("right_knee")[1]) < 0.05) & (surface.normal[:, 2] > 0.2)
    canvas.over(wardrobe.trouser_accent, patch)
    word = lettering(wardrobe.leg_word)
    leg_middle = 0.5 * (landmarks.joint("left_hip") + knee)
    across, along = bend(x - leg_middle[0] + 0.005, y - leg_middle[1] + 0.06, garble, 0.05)
    canvas.over(wardrobe.top_accent, left & (surface.normal[:, 2] > 0.1) & stamp(word, -along, across, 0.055))
    canvas.over(
        wardrobe.trouser_accent, is_on & (np.abs(surface.along_leg - cut.trouser_hem + 0.035) < 0.012)
    )
    canvas.over(np.array(wardrobe.trouser_left) * 0.5, is_on & (surface.along_leg > cut.trouser_hem + 0.006))
    _weave(canvas, is_on)
    canvas.mark("left_trouser", left)
    canvas.mark("right_trouser", right)


def _paint_shoes(canvas: Canvas) -> None:
    surface, landmarks, wardrobe = canvas.surface, canvas.landmarks, canvas.wardrobe
    y, z = surface.position[:, 1], surface.position[:, 2]
    ankle = landmarks.joint("left_ankle")
    lower_leg = surface.leg > 0.5
    canvas.over((0.90, 0.89, 0.87), lower_leg & (y < ankle[1] + 0.09))
    canvas.over(wardrobe.trouser_accent, lower_leg & (np.abs(y - ankle[1] - 0.075) < 0.006))
    is_shoe = lower_leg & (y < ankle[1] + 0.012)
    canvas.over(wardrobe.shoe, is_shoe)
    laces = is_shoe & (np.sin(2 * np.pi * z / 0.018) > 0.3) & (np.abs(z - ankle[2] - 0.08) < 0.035)
    canvas.over((0.90, 0.90, 0.88), laces & (surface.normal[:, 1] > 0.55))
    canvas.over((0.88, 0.87, 0.84), is_shoe & (y < landmarks.floor_y + 0.014) & (surface.normal[:, 1] < 0.3))
    canvas.mark("left_shoe", is_shoe & surface.is_left)
    canvas.mark("right_shoe", is_shoe & ~surface.is_left)


def _paint_top(canvas: Canvas, garble: float) -> None:
    surface, landmarks, wardrobe, cut = canvas.surface, canvas.landmarks, canvas.wardrobe, canvas.cut
    x, y, z = surface.position.T
    cuff = np.where(surface.is_left, cut.left_cuff, cut.right_cuff)
    neck_y = landmarks.joint("neck")[1]
    dip = 0.075 * np.clip(1 - np.abs(x) / 0.07, 0, 1) * (z > landmarks.joint("neck")[2])
    neckline = neck_y - 0.022 - dip
    hem_y = landmarks.crotch_y - cut.tunic_below_crotch_m - 0.012
    is_sleeve = surface.arm > 0.5
    is_trunk = ~is_sleeve & (y > hem_y) & (y < neckline) & (surface.head < 0.5)
    sleeve = is_sleeve & (surface.along_arm < cuff + 0.018)
    is_on = is_trunk | sleeve
    left, right = is_on & surface.is_left, is_on & ~surface.is_left
    split = 0.018 * np.sign(np.sin(2 * np.pi * y / 0.09)) * is_trunk  # a toothed seam down the middle
    left, right = is_on & (x > split), is_on & (x <= split)
    canvas.over(wardrobe.top_left, left)
    canvas.over(wardrobe.top_right, right)
    bands = np.sin(2 * np.pi * y / wardrobe.stripe_m) > 0.25
    canvas.over(wardrobe.top_accent, left & is_trunk & bands)
    rings = np.sin(2 * np.pi * np.abs(x) / wardrobe.stripe_m) > 0.35
    canvas.over(wardrobe.top_accent, left & sleeve & rings)
    dots = (np.sin(2 * np.pi * np.abs(x) / 0.07) > 0.6) & (np.sin(2 * np.pi * (y + z) / 0.07) > 0.6)
    canvas.over(wardrobe.top_left, right & sleeve & dots)
    canvas.over(wardrobe.ink, right & sleeve & (np.abs(surface.along_arm - 0.30) < 0.045))

    _print_on_top(canvas, is_trunk, garble)
    canvas.over(wardrobe.ink, is_trunk & (y > neckline - 0.014))
    canvas.over(wardrobe.ink, sleeve & (surface.along_arm > cuff - 0.06))
    canvas.over(wardrobe.ink, is_trunk & (y < hem_y + 0.026))
    belt = is_trunk & (np.abs(y - landmarks.waist_y - 0.055) < 0.016)
    canvas.over(np.array(wardrobe.shoe) * 0.8, belt)
    _weave(canvas, is_on)
    canvas.mark("upper_clothing", is_trunk)
    canvas.mark("left_sleeve", sleeve & surface.is_left)
    canvas.mark("right_sleeve", sleeve & ~surface.is_left)


def _print_on_top(canvas: Canvas, is_trunk: np.ndarray, garble: float) -> None:
    """An emblem on the left of the chest, a word below it, a number on the back."""
    surface, landmarks, wardrobe = canvas.surface, canvas.landmarks, canvas.wardrobe
    x, y, _ = surface.position.T
    front = is_trunk & (surface.normal[:, 2] > 0.05)
    chest_y = landmarks.joint("left_shoulder")[1] - 0.085
    u, v = bend(x - 0.068, y - chest_y, garble, 0.05)
    canvas.over(wardrobe.ink, front & (np.hypot(u, v) < 0.056))
    canvas.over(wardrobe.trouser_accent, front & ring(u, v, 0.056, 0.008))
    canvas.over(wardrobe.top_accent, front & star(u, v, 0.042, wardrobe.star_points))
    word = lettering(wardrobe.chest_word)
    u, v = bend(x + 0.012, y - chest_y + 0.125, garble, 0.06)
    height = 0.056
    panel = (np.abs(v) < 0.62 * height) & (np.abs(u) < height / 14 * word.shape[1] + 0.014)
    canvas.over(wardrobe.top_accent, front & panel)
    canvas.over(wardrobe.ink, front & stamp(word, u, v, height))
    back = is_trunk & (surface.normal[:, 2] < -0.05)
    u, v = bend(-x, y - chest_y + 0.06, garble, 0.12)
    canvas.over(wardrobe.ink, back & (np.hypot(u, v * 0.85) < 0.125))
    canvas.over(wardrobe.top_accent, back & stamp(lettering(wardrobe.back_number), u, v, 0.145))


def _weave(canvas: Canvas, where: np.ndarray) -> None:
    """Broad shadows of folds and a fine grain on cloth."""
    position = canvas.surface.position
    folds = _mottle(position * np.array([1.6, 0.6, 1.6], np.float32), 11, 0.13)
    grain = _mottle(position, 12, 0.009)
    canvas.shade(np.where(where, 1 + 0.035 * folds + 0.02 * grain, 1.0))
