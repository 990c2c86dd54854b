"""The controls of the page. Their callbacks only note that something changed; `Panel.state` reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from common.joints import BODY_JOINTS, EYES, JOINTS, LEFT_HAND_JOINTS, N_EXPR, RIGHT_HAND_JOINTS
from common.viewer.playback import Playback
from common.viewer.state import (
    LOOKS,
    MAX_EXPRESSION,
    Angles,
    ViewerState,
    bounded,
    checked_edit,
)
from common.viewer.track import Track

if TYPE_CHECKING:
    import viser

Save = Literal["snapshot", "splats"]
EYE_JOINTS = tuple(JOINTS[i] for i in EYES)
N_FIRST_EXPRESSIONS = 10
MAX_SPEED = 4.0
EXPRESSION_RANGE = 3.0
JAW_RANGE_DEG = 40.0
WHITE = (255, 255, 255)


class JointSliders:
    """A list of joints and three sliders for the turn of the chosen one."""

    def __init__(self, gui: viser.GuiApi, joints: Sequence[str], on_change: Callable[[], None]) -> None:
        self.angles: dict[str, Angles] = {}
        self._joints = tuple(joints)
        self._on_change = on_change
        self._joint = gui.add_dropdown("Joint", self._joints, initial_value=self._joints[0])
        self._sliders = [
            gui.add_slider(
                f"Turn {axis} (°)", -180.0, 180.0, 0.5, 0.0, hint=f"about the joint's own {axis} axis"
            )
            for axis in "xyz"
        ]
        self._joint.on_update(lambda _: self._show())
        for slider in self._sliders:
            slider.on_update(self._turned)
        gui.add_button("Reset joint").on_click(lambda _: self.set(self.chosen, (0.0, 0.0, 0.0)))

    @property
    def chosen(self) -> str:
        """The joint that the sliders turn."""
        return self._joint.value if self._joint.value in self._joints else self._joints[0]

    def set(self, joint: str, angles: Angles) -> None:
        """Turn a joint of the list."""
        self.angles[joint] = angles
        self._show()
        self._on_change()

    def reset(self) -> None:
        """All joints of the list back to rest."""
        self.angles = {}
        self._show()
        self._on_change()

    def _show(self) -> None:
        for slider, angle in zip(self._sliders, self.angles.get(self.chosen, (0.0, 0.0, 0.0)), strict=True):
            _put(slider, angle)

    def _turned(self, event: viser.GuiEvent[Any]) -> None:
        if event.client_id is not None:  # moved by a hand, not by `_show`
            x, y, z = (slider.value for slider in self._sliders)
            self.angles[self.chosen] = (x, y, z)
            self._on_change()


class Panel:
    """All controls. `on_change` is called after each change, the others when their buttons are pressed on a page."""

    def __init__(
        self,
        gui: viser.GuiApi,
        track: Track,
        expression_names: Sequence[str],
        on_change: Callable[[], None],
        save: Callable[[Save, viser.ClientHandle], None],
        look_again: Callable[[viser.ClientHandle], None],
    ) -> None:
        self.playback = Playback(len(track.poses), track.fps)
        self._gui, self._track, self._on_change = gui, track, on_change
        self._add_motion()
        self._add_view(save, look_again)
        with gui.add_folder("Body"):
            self._body = JointSliders(gui, BODY_JOINTS, on_change)
            gui.add_button("Reset body").on_click(lambda _: self._body.reset())
        with gui.add_folder("Face", expand_by_default=False):
            self._add_face(expression_names)
        with gui.add_folder("Hands", expand_by_default=False):
            self._hands = JointSliders(gui, (*LEFT_HAND_JOINTS, *RIGHT_HAND_JOINTS), on_change)
            gui.add_button("Reset hands").on_click(lambda _: self._hands.reset())
        gui.add_button("Reset pose", hint="body, face and hands").on_click(lambda _: self.reset())

    def state(self) -> ViewerState:
        """What the controls say now."""
        expression = {
            i: bounded(slider.value, -MAX_EXPRESSION, MAX_EXPRESSION)
            for i, slider in enumerate(self._expression)
        }
        angles = {**self._body.angles, **self._hands.angles, **self._eyes.angles, "jaw": self._jaw_angles()}
        red, green, blue = (int(bounded(value, 0, 255)) for value in self._background.value)
        look = self._look.value
        return ViewerState(
            frame=self._frame_now(),
            edit=checked_edit(angles, expression),
            is_refined=self._avatar.value != "base",
            look=look if look in LOOKS else "colour",
            stays_in_place=bool(self._in_place.value),
            background=(red, green, blue),
        )

    def tick(self, now: float) -> None:
        """Move the timeline to the frame that is due."""
        if self.playback.is_playing:
            _put(self._frame, self.playback.frame(now))

    def reset(self) -> None:
        """No edits of the pose."""
        self._body.reset()
        self._hands.reset()
        self._reset_face()

    def _jaw_angles(self) -> Angles:
        x, y, z = (bounded(slider.value, -JAW_RANGE_DEG, JAW_RANGE_DEG) for slider in self._jaw)
        return x, y, z

    def _frame_now(self) -> int | None:
        if not self._track.poses or self._pose.value == "neutral":
            return None
        return int(bounded(self._frame.value, 0, len(self._track.poses) - 1))

    def _changed(self, _: Any) -> None:
        self._on_change()

    def _add_motion(self) -> None:
        gui, n_frames = self._gui, len(self._track.poses)
        has_motion = n_frames > 0
        with gui.add_folder("Motion"):
            self._play = gui.add_button("Play", disabled=n_frames < 2)
            self._frame = gui.add_slider("Frame", 0, max(n_frames - 1, 1), 1, 0, disabled=n_frames < 2)
            self._speed = gui.add_slider("Speed", 0.1, MAX_SPEED, 0.1, 1.0, disabled=n_frames < 2)
            names = ("motion", "neutral") if has_motion else ("neutral",)
            self._pose = gui.add_dropdown("Pose", names, hint="what the sliders below start from")
            self._in_place = gui.add_checkbox("Stay in place", has_motion, disabled=not has_motion)
        self._play.on_click(self._toggle_play)
        self._frame.on_update(self._sought)
        self._speed.on_update(
            lambda _: self.playback.set_speed(bounded(self._speed.value, 0.0, MAX_SPEED), time.monotonic())
        )
        for control in (self._pose, self._in_place):
            control.on_update(self._changed)

    def _add_view(
        self,
        save: Callable[[Save, viser.ClientHandle], None],
        look_again: Callable[[viser.ClientHandle], None],
    ) -> None:
        gui = self._gui
        with gui.add_folder("View"):
            self._avatar = gui.add_dropdown(
                "Avatar", ("refined", "base"), hint="refined: with the pose-driven offsets of the cloth"
            )
            self._look = gui.add_dropdown("Show", LOOKS)
            self._background = gui.add_rgb("Background", WHITE)
            gui.add_button("Reset camera").on_click(lambda event: _of_client(event, look_again))
            gui.add_button(
                "Snapshot (.png)", hint="by the project's own rasterizer, from this camera"
            ).on_click(lambda event: _of_client(event, lambda client: save("snapshot", client)))
            gui.add_button("Splats (.ply)", hint="the Gaussians in this pose").on_click(
                lambda event: _of_client(event, lambda client: save("splats", client))
            )
        for control in (self._avatar, self._look, self._background):
            control.on_update(self._changed)

    def _add_face(self, names: Sequence[str]) -> None:
        gui = self._gui
        self._jaw = [
            gui.add_slider(f"Jaw {move} (°)", -JAW_RANGE_DEG, JAW_RANGE_DEG, 0.5, 0.0)
            for move in ("down", "sideways", "tilt")
        ]
        first = [self._expression_slider(name) for name in names[:N_FIRST_EXPRESSIONS]]
        with gui.add_folder("More expressions", expand_by_default=False):
            more = [self._expression_slider(name) for name in names[N_FIRST_EXPRESSIONS:N_EXPR]]
        self._expression = first + more
        self._eyes = JointSliders(gui, EYE_JOINTS, self._on_change)
        gui.add_button("Reset face").on_click(lambda _: self._reset_face())
        for control in (*self._jaw, *self._expression):
            control.on_update(self._changed)

    def _expression_slider(self, name: str) -> viser.GuiSliderHandle[float]:
        return self._gui.add_slider(name, -EXPRESSION_RANGE, EXPRESSION_RANGE, 0.05, 0.0)

    def _reset_face(self) -> None:
        for slider in (*self._jaw, *self._expression):
            _put(slider, 0.0)
        self._eyes.reset()

    def _toggle_play(self, _: Any) -> None:
        self.playback.play(not self.playback.is_playing, time.monotonic())
        self._play.label = "Pause" if self.playback.is_playing else "Play"
        self._on_change()

    def _sought(self, event: viser.GuiEvent[Any]) -> None:
        if event.client_id is not None:  # moved by a hand, not by `tick`
            self.playback.seek(int(bounded(self._frame.value, 0, 1e9)), time.monotonic())
            self._on_change()


def _of_client(event: viser.GuiEvent[Any], action: Callable[[viser.ClientHandle], None]) -> None:
    """The action for the page whose button was pressed."""
    if event.client is not None:
        action(event.client)


def _put(slider: viser.GuiSliderHandle[Any], value: float) -> None:
    """Move a slider on all pages."""
    slider.value = value  # type: ignore[misc]  # viser's setter stands apart from its getter
