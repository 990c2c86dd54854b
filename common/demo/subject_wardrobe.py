"""What the demo subject is made of besides geometry: colours, prints and the names of its parts, from a seed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from common.demo.subject_print import WORDS

# Parts of the segmentation maps and their colours, all far from black, which means no part.
PARTS: dict[str, tuple[int, int, int]] = {
    "none": (0, 0, 0),
    "face_neck": (255, 178, 120),
    "hair": (120, 60, 200),
    "eyes": (250, 250, 250),
    "left_hand": (255, 90, 90),
    "right_hand": (200, 255, 90),
    "upper_clothing": (60, 140, 255),
    "left_sleeve": (60, 255, 255),
    "right_sleeve": (40, 90, 180),
    "left_trouser": (70, 200, 70),
    "right_trouser": (170, 220, 20),
    "left_lower_leg": (255, 120, 220),
    "right_lower_leg": (170, 60, 120),
    "left_shoe": (255, 220, 0),
    "right_shoe": (200, 120, 0),
}
PART_INDEX = {name: i for i, name in enumerate(PARTS)}
PART_COLORS = np.array(list(PARTS.values()), dtype=np.uint8)  # (n, 3)

Color = tuple[float, float, float]

_SKINS: tuple[Color, ...] = (
    (0.91, 0.74, 0.64), (0.86, 0.68, 0.56), (0.76, 0.57, 0.44), (0.62, 0.44, 0.33), (0.47, 0.32, 0.24),
)  # fmt: skip
_HAIRS: tuple[Color, ...] = ((0.13, 0.09, 0.07), (0.27, 0.17, 0.10), (0.45, 0.27, 0.14), (0.62, 0.46, 0.26))
_IRISES: tuple[Color, ...] = ((0.30, 0.19, 0.10), (0.25, 0.42, 0.55), (0.32, 0.42, 0.25), (0.40, 0.32, 0.20))


@dataclass(frozen=True)
class Wardrobe:
    """Colours in [0, 1] sRGB and the prints of one person."""

    skin: Color
    lips: Color
    hair: Color
    brows: Color
    iris: Color
    brow_height_m: float
    brow_arch_m: float
    brow_thickness_m: float
    blush: float
    stubble: float
    top_left: Color
    top_right: Color
    top_accent: Color
    trouser_left: Color
    trouser_right: Color
    trouser_accent: Color
    shoe: Color
    ink: Color
    chest_word: str
    leg_word: str
    back_number: str
    star_points: int
    stripe_m: float
    noise_seed: int


def random_wardrobe(rng: np.random.Generator) -> Wardrobe:
    """A person's colours: one main hue, one opposite it and an accent, so that the two sides of a garment differ."""
    hue = rng.uniform()
    skin = _SKINS[rng.integers(len(_SKINS))]
    hair = _HAIRS[rng.integers(len(_HAIRS))]
    other = (hue + rng.uniform(0.35, 0.6)) % 1
    words = rng.permutation(len(WORDS))
    return Wardrobe(
        skin=skin,
        lips=_mix(skin, (0.70, 0.22, 0.24), rng.uniform(0.25, 0.5)),
        hair=hair,
        brows=_mix(hair, (0.05, 0.04, 0.03), 0.4),
        iris=_IRISES[rng.integers(len(_IRISES))],
        brow_height_m=rng.uniform(0.0175, 0.0205),
        brow_arch_m=rng.uniform(0.003, 0.007),
        brow_thickness_m=rng.uniform(0.0030, 0.0048),
        blush=rng.uniform(0.05, 0.22),
        stubble=rng.uniform(0.0, 0.25),
        top_left=_color(hue, rng.uniform(0.55, 0.75), rng.uniform(0.50, 0.70)),
        top_right=_color(other, rng.uniform(0.30, 0.50), rng.uniform(0.75, 0.88)),
        top_accent=_color(hue + 0.08, 0.20, 0.93),
        trouser_left=_color(other + 0.05, rng.uniform(0.45, 0.65), rng.uniform(0.30, 0.42)),
        trouser_right=_color(hue + 0.12, rng.uniform(0.30, 0.45), rng.uniform(0.52, 0.66)),
        trouser_accent=_color(other, 0.65, 0.85),
        shoe=_color(rng.uniform(), 0.45, 0.30),
        ink=_color(hue + 0.5, 0.5, 0.16),
        chest_word=WORDS[words[0]],
        leg_word=WORDS[words[1]],
        back_number=f"{rng.integers(10, 100)}",
        star_points=int(rng.integers(4, 8)),
        stripe_m=rng.uniform(0.045, 0.065),
        noise_seed=int(rng.integers(2**31)),
    )


def _color(hue: float, saturation: float, value: float) -> Color:
    return colorsys.hsv_to_rgb(hue % 1, saturation, value)


def _mix(a: Color, b: Color, share: float) -> Color:
    red, green, blue = (x * (1 - share) + y * share for x, y in zip(a, b, strict=True))
    return red, green, blue
