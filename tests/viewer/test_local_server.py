"""Who may talk to the viewer's server."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from common.errors import UserError
from common.viewer.local_server import check_address, is_loopback, open_server, refusal


@pytest.fixture(scope="module")
def server() -> Iterator[viser.ViserServer]:
    """A running server."""
    server = open_server("127.0.0.1", 0, "test")
    yield server
    server.stop()


def talk(server: viser.ViserServer, origin: str | None) -> bytes:
    """The first message of a connection that a page of `origin` opens."""
    with connect(
        f"ws://127.0.0.1:{server.get_port()}",
        origin=None if origin is None else Origin(origin),
        subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
    ) as connection:
        message = connection.recv(timeout=20)
    assert isinstance(message, bytes)
    return message


def status(server: viser.ViserServer, host: str) -> int:
    """Status of a page request that names `host`."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.get_port()}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_its_own_page_may_connect(server):
    assert talk(server, f"http://127.0.0.1:{server.get_port()}")
    assert talk(server, None)  # a program, which could claim any origin


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null", "https://localhost"])
def test_a_page_of_another_site_may_not_connect(server, origin):
    with pytest.raises(InvalidStatus, match="403"):
        talk(server, origin)


def test_a_foreign_name_for_this_machine_gets_no_page(server):
    assert status(server, f"127.0.0.1:{server.get_port()}") == 200
    assert status(server, f"localhost:{server.get_port()}") == 200
    assert status(server, f"evil.example:{server.get_port()}") == 403


def test_no_page_can_share_the_viewer_on_the_internet(server, monkeypatch, caplog):
    monkeypatch.setattr("viser._viser.ViserTunnel", lambda *_: pytest.fail("a tunnel was opened"))
    assert server.request_share_url() is None
    assert "refused" in caplog.text


def test_on_another_address_the_page_must_still_be_its_own():
    assert refusal({"Host": "studio:8080", "Origin": "http://studio:8080"}, only_loopback=False) is None
    assert refusal({"Host": "studio:8080", "Origin": "http://evil.example"}, only_loopback=False)
    assert refusal({"Host": "studio:8080"}, only_loopback=True)


def test_loopback_addresses_are_recognised():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "localhost.evil.example", "")))


def test_an_address_that_cannot_be_listened_on_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port} .*--port"):
            check_address("127.0.0.1", port)
    with pytest.raises(UserError, match="--port 70000"):
        check_address("127.0.0.1", 70000)
    with pytest.raises(UserError, match=r"cannot listen on no\.such\.host"):
        check_address("no.such.host.invalid", 0)
