"""Sharp prints on the demo subject's clothes: an emblem and bitmap lettering, as functions of plane coordinates."""

from __future__ import annotations

import numpy as np

# 5 x 7 bitmap letters, rows from the top, '#' is ink.
_GLYPHS = {
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "D": ("####.", "#...#", "#...#", "#...#", "#...#", "#...#", "####."),
    "E": ("#####", "#....", "#....", "####.", "#....", "#....", "#####"),
    "F": ("#####", "#....", "#....", "####.", "#....", "#....", "#...."),
    "K": ("#...#", "#..#.", "#.#..", "##...", "#.#..", "#..#.", "#...#"),
    "M": ("#...#", "##.##", "#.#.#", "#.#.#", "#...#", "#...#", "#...#"),
    "N": ("#...#", "##..#", "#.#.#", "#.#.#", "#..##", "#...#", "#...#"),
    "O": (".###.", "#...#", "#...#", "#...#", "#...#", "#...#", ".###."),
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    "S": (".####", "#....", "#....", ".###.", "....#", "....#", "####."),
    "T": ("#####", "..#..", "..#..", "..#..", "..#..", "..#..", "..#.."),
    "0": (".###.", "#...#", "#..##", "#.#.#", "##..#", "#...#", ".###."),
    "1": ("..#..", ".##..", "..#..", "..#..", "..#..", "..#..", ".###."),
    "2": (".###.", "#...#", "....#", "..##.", ".#...", "#....", "#####"),
    "3": ("####.", "....#", "....#", ".###.", "....#", "....#", "####."),
    "4": ("#..#.", "#..#.", "#..#.", "#####", "...#.", "...#.", "...#."),
    "5": ("#####", "#....", "####.", "....#", "....#", "#...#", ".###."),
    "6": (".###.", "#....", "#....", "####.", "#...#", "#...#", ".###."),
    "7": ("#####", "....#", "...#.", "..#..", "..#..", "..#..", "..#.."),
    "8": (".###.", "#...#", "#...#", ".###.", "#...#", "#...#", ".###."),
    "9": (".###.", "#...#", "#...#", ".####", "....#", "....#", ".###."),
}
WORDS = ("DEMO", "NORD", "FAST", "KODA", "MARS", "TOKEN", "STORM", "ROMA")


def lettering(text: str) -> np.ndarray:
    """Bitmap (7, 6 n - 1) of a word, True where there is ink."""
    rows = [".".join(_GLYPHS[letter][row] for letter in text) for row in range(7)]
    return np.array([[cell == "#" for cell in row] for row in rows])


def stamp(bitmap: np.ndarray, u: np.ndarray, v: np.ndarray, height: float) -> np.ndarray:
    """Whether points (u right, v up; any unit, origin at the middle) lie on the ink of a bitmap of that height."""
    cell = height / bitmap.shape[0]
    column = np.floor(u / cell + bitmap.shape[1] / 2).astype(np.int64)
    row = np.floor(bitmap.shape[0] / 2 - v / cell).astype(np.int64)
    inside = (column >= 0) & (column < bitmap.shape[1]) & (row >= 0) & (row < bitmap.shape[0])
    return inside & bitmap[np.clip(row, 0, bitmap.shape[0] - 1), np.clip(column, 0, bitmap.shape[1] - 1)]


def star(u: np.ndarray, v: np.ndarray, radius: float, points: int, inner: float = 0.45) -> np.ndarray:
    """Whether points lie inside a star with straight edges, its first tip up, inner radius relative to radius."""
    sector = 2 * np.pi / points
    angle = np.abs((np.arctan2(u, v) + sector / 2) % sector - sector / 2)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    corner_x, corner_y = radius * inner * np.cos(sector / 2), radius * inner * np.sin(sector / 2)
    return (radius - x) * corner_y - y * (radius - corner_x) > 0


def ring(u: np.ndarray, v: np.ndarray, radius: float, width: float) -> np.ndarray:
    """Whether points lie on a ring with that outer radius."""
    distance = np.hypot(u, v)
    return (distance < radius) & (distance > radius - width)


def bend(u: np.ndarray, v: np.ndarray, amount: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Plane coordinates bent out of shape, by amount * scale at most, as generated video bends lettering."""
    du = np.sin(5.1 * v / scale + 1.3) + 0.6 * np.sin(9.7 * u / scale + 0.4)
    dv = np.sin(6.3 * u / scale + 2.1) + 0.6 * np.sin(8.9 * v / scale)
    return u + 0.14 * amount * scale * du, v + 0.14 * amount * scale * dv
