"""The viewer's page: shows the newest state of the controls, as fast as this machine can."""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from common.camera import Camera
from common.errors import UserError
from common.export.placement import Placement
from common.export.splats import write_splat_ply
from common.io.image import as_png
from common.viewer.panel import Panel, Save
from common.viewer.picture import FOV, eye_camera, first_view, picture
from common.viewer.scene import Scene
from common.viewer.splats import (
    UNITS_PER_METRE,
    page_centers,
    page_colours,
    page_covariances,
    smallest_scale,
)
from common.viewer.state import ViewerState

if TYPE_CHECKING:
    import viser

logger = logging.getLogger(__name__)
IDLE_S = 1.0
SHORTEST_UPDATE_S = 1 / 60  # viser sends no more often
LOOKS_OF_THE_EYE = ("depth", "normal")


@dataclass(frozen=True)
class _Sent:
    """What the page has got."""

    mean: Tensor
    colours: tuple[str, Tensor | None, Camera | None]  # look; what depth and normals are seen of and from
    min_scale: float


class Page:
    """Connects controls, scene and server.

    Everything is computed in the thread that calls `run`; the server's callbacks only leave notes for it. While it
    is busy, notes of newer states overwrite older ones: states that come too fast are skipped, never queued.
    """

    def __init__(self, server: viser.ViserServer, scene: Scene, expression_names: Sequence[str]) -> None:
        self._server, self._scene = server, scene
        self._wake = threading.Event()
        self._requests: queue.SimpleQueue[tuple[Save, viser.ClientHandle]] = queue.SimpleQueue()
        self._is_closed = False
        self._eye = scene.track.camera
        self._background: tuple[int, int, int] | None = None
        self._splats: viser.GaussianSplatHandle | None = None
        self._sent: _Sent | None = None
        server.gui.configure_theme(show_share_button=False, show_logo=False, control_width="medium")
        self.panel = Panel(
            server.gui, scene.track, expression_names, self._wake.set, self._request, self._look_again
        )
        self._place_camera()
        self.update()
        server.on_client_connect(self._follow)

    def run(self) -> None:
        """Show what the controls say, until `close`."""
        while not self._is_closed:
            self._wake.clear()
            start = time.monotonic()
            wait = None
            if self._server.get_clients():
                self.panel.tick(start)
                self.update()
                self._answer()
                wait = self.panel.playback.wait(time.monotonic())
            rest = start + SHORTEST_UPDATE_S - time.monotonic()
            if rest > 0:
                time.sleep(rest)
            self._wake.wait(IDLE_S if wait is None else wait)

    def close(self) -> None:
        """End `run`; callable from any thread."""
        self._is_closed = True
        self._wake.set()

    def update(self) -> bool:
        """Send what has changed since the last time; whether anything has."""
        state, eye, sent = self.panel.state(), self._eye, self._sent
        if state.background != self._background:
            colour = np.full((1, 1, 3), state.background, np.uint8)
            self._server.scene.set_background_image(colour, "png")
            self._background = state.background
        mean = self._scene.mean(state)
        depends_on_eye = state.look in LOOKS_OF_THE_EYE
        colours = (state.look, mean if depends_on_eye else None, eye if depends_on_eye else None)
        now = _Sent(mean, colours, smallest_scale(self._scene.pelvis(state), eye))
        if sent is not None and _is_same(now, sent):
            return False
        self._send(state, eye, now)
        self._sent = now
        return True

    def _send(self, state: ViewerState, eye: Camera, now: _Sent) -> None:
        """Send positions alone where nothing else has changed."""
        sent = self._sent
        if self._splats is not None and sent is not None and _is_same(now, sent, but_mean=True):
            self._splats.centers = page_centers(now.mean)
            return
        gaussians = self._scene.gaussians(state, eye)
        values = (
            page_centers(gaussians.mean),
            page_covariances(gaussians.scale, now.min_scale),
            page_colours(gaussians.rgb),
            np.ones((len(gaussians.mean), 1), np.float32),
        )
        if self._splats is None:
            self._splats = self._server.scene.add_gaussian_splats(
                "/avatar", *values, scale=1 / UNITS_PER_METRE
            )
        else:
            self._splats.set_gaussians(*values)

    def _place_camera(self) -> None:
        """Pages begin with the whole avatar, seen from the side from which the motion's first camera sees it."""
        server, view = self._server, self._server.initial_camera
        self._first_view = first_view(self._scene.mean(self.panel.state()), self._scene.track.camera)
        server.scene.set_up_direction(self._first_view.up)
        view.fov = FOV
        view.position, view.look_at, view.up = vars(self._first_view).values()

    def _look_again(self, client: viser.ClientHandle) -> None:
        camera = client.camera
        camera.up_direction = np.array(self._first_view.up)
        camera.position = np.array(self._first_view.position)
        camera.look_at = np.array(self._first_view.look_at)

    def _follow(self, client: viser.ClientHandle) -> None:
        """Depth, normals and sizes are for the page whose camera moved last."""

        def look(_: viser.CameraHandle) -> None:
            try:
                self._eye = _eye_of(client)
            except UserError as error:
                logger.warning("%s", error)
            self._wake.set()

        client.camera.on_update(look)
        look(client.camera)

    def _request(self, what: Save, client: viser.ClientHandle) -> None:
        self._requests.put((what, client))
        self._wake.set()

    def _answer(self) -> None:
        """Make the files that pages asked for and send them."""
        while not self._requests.empty():
            what, client = self._requests.get()
            try:
                name, content = self._snapshot(client) if what == "snapshot" else self._export()
            except UserError as error:
                logger.warning("%s", error)
                client.add_notification("Not saved", str(error))
                continue
            client.send_file_download(name, content, save_immediately=True)

    def _snapshot(self, client: viser.ClientHandle) -> tuple[str, bytes]:
        state, eye = self.panel.state(), _eye_of(client)
        image = picture(self._scene.gaussians(state, eye), eye, state.background)
        return self._file_name(state, "png"), as_png(image)

    def _export(self) -> tuple[str, bytes]:
        """The splats in the axes of `main/export.py`."""
        state = self.panel.state()
        gaussians = self._scene.gaussians(state, self._eye)
        placement = Placement.of_motion(self._scene.track.camera, "y").to(gaussians.mean.device)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "splats.ply"
            write_splat_ply(path, placement.gaussians(gaussians))
            return self._file_name(state, "ply"), path.read_bytes()

    def _file_name(self, state: ViewerState, suffix: str) -> str:
        place = "neutral" if state.frame is None else f"{state.frame}"
        return f"{self._scene.track.name}_{place}.{suffix}"


def _is_same(a: _Sent, b: _Sent, but_mean: bool = False) -> bool:
    """Whether the page would get the same; tensors and cameras are new objects when they have changed."""
    is_same = a.min_scale == b.min_scale and a.colours[0] == b.colours[0]
    is_same = is_same and a.colours[1] is b.colours[1] and a.colours[2] is b.colours[2]
    return is_same and (but_mean or a.mean is b.mean)


def _eye_of(client: viser.ClientHandle) -> Camera:
    camera = client.camera
    return eye_camera(
        camera.wxyz.tolist(), camera.position.tolist(), camera.fov, camera.image_height, camera.image_width
    )
