"""The inference engine: an avatar prepared once, then pictures of it in any poses, as fast as the device allows."""

from __future__ import annotations

from common.engine.frame_source import Shot
from common.engine.pictures import Engine

__all__ = ["Engine", "Shot"]
