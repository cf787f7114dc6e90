"""A page without a browser: a WebSocket client, and HTTP spoken byte by byte."""

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from eqdiff_jax.live.server import Server
from eqdiff_jax.live.wire import GENRES, MODES, RANGES, Hello, State, encode
from eqdiff_jax.music.grid import TRACKS

STATE = State("night", 120.0, "diffusion", "house", 's("bd")', 7, [[0] * 32] * 12, {"pan": 0.5}, "tight", MODES,
              GENRES, TRACKS, RANGES)


class Folders(NamedTuple):
    """Where a server finds its files."""

    web: Path
    node_modules: Path


def folders(place: Path) -> Folders:
    """A page and a Strudel of a few bytes, with secrets beside them."""
    found = Folders(place / "web", place / "web" / "node_modules")
    dist = found.node_modules / "@strudel" / "web" / "dist"
    (dist / "chunks").mkdir(parents=True)
    for path, text in ((found.web / "index.html", "<!doctype html>page"), (found.web / "live.css", "body {}"),
                       (found.web / "socket.js", "export {}"), (found.web / "package.json", "SECRET"),
                       (found.web / "query.mjs", "SECRET"), (found.web / ".env.js", "SECRET"),
                       (found.node_modules / "hidden.js", "SECRET"), (place / "secret.js", "SECRET"),
                       (dist / "index.js", "var strudel = {}"), (dist / "chunks" / "a-1.b.mjs", "export {}"),
                       (dist / "index.js.map", "SECRET"), (dist.parent / "package.json", "SECRET"),
                       (dist.parent / "outside.js", "SECRET")):
        path.write_text(text)
    return found


def server(place: Folders, **changes: Any) -> Server:
    """A server on a free port of loopback."""
    settings = {"host": "127.0.0.1", "port": 0, "state": lambda: STATE, **place._asdict(), **changes}
    return Server(settings.pop("host"), settings.pop("port"), **settings)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run to the end; after two minutes it hangs."""
    asyncio.run(asyncio.wait_for(scenario, 120))


def socket(to: Server, *, address: str = "127.0.0.1", token: str | None = None, **changes: Any) -> connect:
    """A WebSocket to the server, as its own page would open it."""
    where = f"{address}:{to.port}"
    query = f"?token={token}" if token else ""
    return connect(f"ws://{where}/ws{query}", **{"origin": f"http://{where}", "compression": None, "proxy": None,
                                                 **changes})


async def say(page: ClientConnection, message: Any) -> None:
    """Send a message, or a text as it is."""
    await page.send(message if isinstance(message, str | bytes) else encode(message))


async def hear(page: ClientConnection) -> dict:
    """The next message of the server."""
    return json.loads(await page.recv())


async def hello(page: ClientConnection, session: str = "session-1") -> dict:
    """Introduce the page; what the server answers."""
    await say(page, Hello(1, session, "1.3.0", ("bd", "sd")))
    return await hear(page)


async def closed(page: ClientConnection) -> tuple[int | None, str | None]:
    """Code and reason with which the server closes the socket; what it says before is skipped."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await page.recv()
    return page.close_code, page.close_reason


class Answer(NamedTuple):
    """What came back: status 0 if nothing did."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(to: Server, path: str, *, address: str = "127.0.0.1", method: str = "GET", host: str | None = None,
              more: str = "") -> Answer:
    """One HTTP request, the path as it is."""
    host = f"{address}:{to.port}" if host is None else host
    return await ask_raw(to, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode(), address=address)


async def ask_raw(to: Server, request: bytes, *, address: str = "127.0.0.1") -> Answer:
    """These bytes, and what comes back until the server closes."""
    reader, writer = await asyncio.open_connection(address, to.port)
    try:
        writer.write(request)
        data = await reader.read()
    except ConnectionError:
        data = b""
    finally:
        writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]) if status else 0, {k.lower(): v for k, v in headers.items()}, body)
