"""One training a folder: refused with the first one's pid and host; stale locks give way."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.run_lock import LOCK_NAME, Owner, run_lock

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys
from pathlib import Path
from common.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=-1, stdout=-1, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def write_record(folder: Path, owner: Owner) -> None:
    folder.mkdir(exist_ok=True)
    (folder / LOCK_NAME).write_text(json.dumps(asdict(owner)))


def test_second_process_is_told_pid_and_host_of_the_first(tmp_path):
    first = holder(tmp_path / "S")
    with (
        pytest.raises(UserError, match=f"process {first.pid} on {socket.gethostname()}"),
        run_lock(tmp_path / "S"),
    ):
        pass
    first.communicate("")
    with run_lock(tmp_path / "S"):
        pass


def test_lock_of_a_killed_process_is_taken_over_and_said_so(tmp_path, caplog):
    first = holder(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with caplog.at_level(logging.INFO), run_lock(tmp_path):
        record = json.loads((tmp_path / LOCK_NAME).read_text())
        assert record["pid"] == os.getpid() and record["host"] == socket.gethostname()
    assert f"taking over the lock of process {first.pid}" in caplog.text and "has ended" in caplog.text


def test_lock_from_before_a_restart_is_taken_over_although_its_pid_runs_again(tmp_path, caplog):
    write_record(tmp_path, replace(Owner.this_process(), boot_id="another"))
    with caplog.at_level(logging.INFO), run_lock(tmp_path):
        pass
    assert "the machine was restarted" in caplog.text


def test_a_later_process_with_the_same_pid_is_not_taken_for_the_holder(tmp_path, caplog):
    owner = Owner.this_process()
    write_record(tmp_path, replace(owner, started_ticks=owner.started_ticks - 1))
    with caplog.at_level(logging.INFO), run_lock(tmp_path):
        pass
    assert "has ended" in caplog.text


def test_record_of_a_running_process_holds_where_the_system_has_no_file_locks(tmp_path, monkeypatch):
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_record(tmp_path, Owner.this_process())
    with pytest.raises(UserError, match=f"process {os.getpid()}"), run_lock(tmp_path):
        pass
    assert (tmp_path / LOCK_NAME).exists()


def test_lock_of_a_container_that_was_killed_is_taken_over(tmp_path, caplog):
    """It has a host name and process numbers of its own, but the kernel is the same and so is its file lock."""
    write_record(tmp_path, replace(Owner.this_process(), host="0123456789ab", pid=7))
    with caplog.at_level(logging.INFO), run_lock(tmp_path):
        pass
    assert "process 7 on 0123456789ab" in caplog.text and "has let go of its file lock" in caplog.text


def test_other_hosts_are_believed_and_the_file_to_remove_is_named(tmp_path):
    write_record(tmp_path, replace(Owner.this_process(), host="elsewhere", pid=2**22, boot_id="another"))
    with pytest.raises(UserError, match="on elsewhere") as error, run_lock(tmp_path):
        pass
    assert f"remove {tmp_path / LOCK_NAME}" in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}'])
def test_half_written_record_without_a_holder_is_no_obstacle(tmp_path, content):
    (tmp_path / LOCK_NAME).write_text(content)
    with run_lock(tmp_path):
        pass


def test_nothing_is_left_behind(tmp_path):
    with run_lock(tmp_path / "a" / "b"):
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [LOCK_NAME]
    assert list(tmp_path.iterdir()) == []
    with run_lock(tmp_path / "a"):
        (tmp_path / "a" / "result").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file"), run_lock(tmp_path / "file" / "S"):
        pass


def test_of_many_processes_at_once_one_at_a_time_is_in(tmp_path):
    """Each holder finds a counter file as it left it; together they get through all their turns."""
    code = f"""
import sys, time
from pathlib import Path
from common.errors import UserError
from common.run_lock import run_lock
n = 0
while n < 20:
    try:
        with run_lock(Path(sys.argv[1])):
            counter = Path({str(tmp_path / "n")!r})
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))
            n += 1
    except UserError:
        time.sleep(0.001)
"""
    (tmp_path / "n").write_text("0")
    command = [sys.executable, "-c", code, str(tmp_path / "S")]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "n").read_text() == "80"
