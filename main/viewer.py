"""Look at an avatar in the browser: turn it around, play a motion, pose its joints."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.avatar import Avatar
from common.checkpoint import read_snapshot
from common.demo.body_shapes import EXPRESSION_COMBINATIONS
from common.joints import N_EXPR
from common.motion import Figure, HandComponents, Motion, MotionOptions, load_motion, stage
from common.viewer.local_server import check_address, open_server
from common.viewer.page import Page
from common.viewer.scene import Scene
from common.viewer.track import track_of
from main import setup


@dataclass(frozen=True)
class ViewerArgs(MotionOptions, setup.SubjectArgs):
    """Options of the viewer."""

    test_epoch: int | None = None
    """Epoch of the snapshot (default: the newest)."""
    motion_path: Path | None = None
    """Motion for the timeline, in any format of animation.py (default for the demo: its own; else none)."""
    port: int = 8080
    """Port of the page; 0: any free one."""
    host: str = "127.0.0.1"
    """Address to listen on. On any other than this machine's own, everyone who can reach it can use the page."""


def main(args: ViewerArgs) -> None:
    """Serve the page until the command is interrupted."""
    check_address(args.host, args.port)
    device = setup.choose_device(args.device)
    source = setup.snapshot_file(args, args.test_epoch, fit_pose_to_test=False)
    model = setup.load_snapshot_person(args, read_snapshot(source), source)
    avatar = model.persona.to(device)
    motion = read_motion(args, avatar)
    scene = Scene(avatar, track_of(avatar, motion, frame_rate(args)))
    server = open_server(args.host, args.port, args.subject_id)
    page = Page(server, scene, expression_names(args))
    print(f"the viewer is at http://{args.host}:{server.get_port()} (Ctrl-C ends it)", flush=True)
    try:
        page.run()
    finally:
        server.stop()


def read_motion(args: ViewerArgs, avatar: Avatar) -> Motion | None:
    """The motion of the timeline; None without one."""
    path = args.motion_path
    if path is None and args.is_demo:
        path = setup.subject_path(args) / "motion"
    if path is None:
        setup.logger.info("no --motion_path: the timeline is empty")
        return None
    components = HandComponents(setup.body_path(args), args.config.body.gender)
    return stage(
        load_motion(path, args, components=components), Figure.of_avatar(avatar), args, frame_rate(args)
    )


def frame_rate(args: ViewerArgs) -> int:
    """Frames per second of the timeline."""
    return args.fps or args.config.animation.fps


def expression_names(args: ViewerArgs) -> list[str]:
    """What the expression sliders are called: numbers, but those of the demo body that have a name."""
    names = [f"Expression {i + 1}" for i in range(N_EXPR)]
    if args.is_demo:
        known = [name.replace("_", " ").capitalize() for name in EXPRESSION_COMBINATIONS]
        names[: len(known)] = known
    return names


if __name__ == "__main__":
    setup.run(ViewerArgs, main, __doc__)
