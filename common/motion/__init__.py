"""Motions that drive an avatar, from the formats people have them in (docs/motion.md).

`load_motion` reads any known file or folder into a `Motion`; `stage` takes the wanted frames at the wanted rate
and gives it cameras; then `Motion.frames` are ready to be rendered.
"""

from common.motion.figure import Figure
from common.motion.formats import load_motion
from common.motion.hands import HandComponents
from common.motion.motion import Motion, MotionFrame
from common.motion.options import MotionOptions
from common.motion.stage import stage

__all__ = ["Figure", "HandComponents", "Motion", "MotionFrame", "MotionOptions", "load_motion", "stage"]
