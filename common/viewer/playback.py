"""Which frame of a motion is due."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Playback:
    """A clock that runs over the frames of a motion and begins again at its end; times in seconds."""

    n_frames: int
    fps: float
    speed: float = 1.0
    is_playing: bool = False
    _frame: float = 0.0
    _time: float = 0.0

    def frame(self, now: float) -> int:
        """The frame that is due; frames are skipped when nobody asked in time."""
        self._advance(now)
        return int(self._frame)

    def seek(self, frame: int, now: float) -> None:
        """Go to a frame."""
        self._frame, self._time = float(min(max(frame, 0), max(self.n_frames - 1, 0))), now

    def play(self, is_playing: bool, now: float) -> None:
        """Run or stand still."""
        self._advance(now)
        self.is_playing = is_playing

    def set_speed(self, speed: float, now: float) -> None:
        """Run `speed` times as fast as the motion was meant."""
        self._advance(now)
        self.speed = speed

    def wait(self, now: float) -> float | None:
        """Seconds until the next frame is due; None while standing still."""
        if not self.is_playing or self.speed <= 0 or self.n_frames < 2:
            return None
        self._advance(now)
        return (int(self._frame) + 1 - self._frame) / (self.fps * self.speed)

    def _advance(self, now: float) -> None:
        if self.is_playing and self.n_frames:
            self._frame = (self._frame + (now - self._time) * self.fps * self.speed) % self.n_frames
        self._time = now
