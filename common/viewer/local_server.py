"""viser's web server, held to this machine: who may connect, and what a page may ask for."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from common.errors import UserError

if TYPE_CHECKING:
    import viser

logger = logging.getLogger(__name__)


def open_server(host: str, port: int, title: str) -> viser.ViserServer:
    """A running server on host:port; UserError if the address cannot be used.

    It answers only pages that it has sent itself: another site that is open in the same browser may not connect
    to it. A server on a loopback address also refuses requests under any other name, and none shares its page on
    the internet, whatever a page asks for.
    """
    check_address(host, port)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    import viser  # late: importing it is slow

    class LocalServer(viser.ViserServer):
        """Never opens a tunnel to the internet."""

        def request_share_url(self, verbose: bool = True) -> None:
            logger.warning("a page asked to be shared on the internet: refused")

    with _own_pages_only(is_loopback(host)), contextlib.redirect_stdout(io.StringIO()):
        return LocalServer(host=host, port=port, label=title, verbose=False)


def check_address(host: str, port: int) -> None:
    """UserError unless a server can listen on host:port (port 0: any free one)."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is not between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port, or --host 127.0.0.1"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(headers: Any, only_loopback: bool) -> str | None:
    """Why a request with these headers is refused; None if it is not.

    The page's origin, if the browser names one, must be the address that the request was sent to.
    """
    asked = headers.get("Host", "")
    origin = headers.get("Origin")
    if only_loopback and not is_loopback(urlsplit(f"//{asked}").hostname or ""):
        return "this server answers on a loopback address only"
    if origin is not None and urlsplit(origin).netloc != asked:
        return "this server answers its own pages only"
    return None


@contextlib.contextmanager
def _own_pages_only(only_loopback: bool) -> Iterator[None]:
    """Servers that are started in this block check every request by `refusal`; viser has no option for it."""
    from websockets.asyncio import server as websockets_server

    serve = websockets_server.serve

    def checked_serve(*args: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            reason = refusal(request.headers, only_loopback)
            if reason is not None:
                return connection.respond(HTTPStatus.FORBIDDEN, reason + "\n")
            return process_request(connection, request)

        return serve(*args, process_request=process, **options)

    websockets_server.serve = checked_serve  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        websockets_server.serve = serve  # type: ignore[misc]
