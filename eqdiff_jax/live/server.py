"""The page and its socket on one port: static files over HTTP, messages at /ws, strangers kept out.

    who may come in : the rules of gate.py
    who plays       : the first page that says Hello; its own session string may take its place, no other page
    what is let in  : decoded messages of that page, not too many a second
    what goes out   : State on Hello, then what `send` is given, the newest of each name
"""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from websockets.asyncio.server import Server as SocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from eqdiff_jax.errors import InputError
from eqdiff_jax.live import gate
from eqdiff_jax.live.outbox import Outbox
from eqdiff_jax.live.wire import (
    RANGES,
    Clock,
    Hello,
    PageMessage,
    Range,
    ServerMessage,
    State,
    WireError,
    decode,
    encode,
)

LOG = logging.getLogger(__name__)

POLICY_VIOLATION, WRONG_KIND, ANOTHER_PAGE = 1008, 1003, 4001  # why a socket is closed
RATE, BURST = 100.0, 200.0  # messages a second from a page, and how many at once
INBOX = 256  # messages that wait for the engine
PER_ADDRESS, IN_ALL = 32, 128  # connections open at a time
REQUEST_SECONDS = 20.0  # for a request to arrive and its answer to leave
HELLO_SECONDS, SLOW_SECONDS, CLOSE_SECONDS = 5.0, 5.0, 1.0


class Inbox(asyncio.Queue[tuple[PageMessage, float]]):
    """Messages for the engine with their time of arrival; when it is full the oldest Clock gives way."""

    def _init(self, maxsize: int) -> None:
        self._queue: deque[tuple[PageMessage, float]] = deque()

    def push(self, message: PageMessage, received: float) -> None:
        """Add a message, whatever has to go for it."""
        if self.full():
            del self._queue[next((i for i, (old, _) in enumerate(self._queue) if isinstance(old, Clock)), 0)]
        self.put_nowait((message, received))


class Page(NamedTuple):
    """A page that said Hello."""

    connection: ServerConnection
    session: str
    outbox: Outbox


class Refused(Exception):
    """The peer broke a rule: its socket is closed with this code."""

    def __init__(self, rule: str, code: int, reason: str):
        super().__init__(rule, code, reason)
        self.rule, self.code, self.reason = rule, code, reason


class Connection(ServerConnection):
    """A connection that is counted from its first byte on."""

    owner: "Server"
    address = ""  # of the other end
    is_socket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        others = self.owner.connections
        self.address = str((self.remote_address or ("",))[0])  # none if it has already left
        if len(others) >= IN_ALL or sum(other.address == self.address for other in others) >= PER_ADDRESS:
            self.owner.refused["connections"] += 1
            self.transport.abort()
        else:
            others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.connections.discard(self)
        super().connection_lost(exc)


class Server:
    """One player's page and socket. Used as `async with Server(...) as server`: it listens until the end of the block.

    Args:
      host, port: where to listen; port 0 takes a free one, `server.port` is the real one.
      web, node_modules: folders of the page and of its npm packages.
      ranges: of every name that `send` may set.
      state: what a page gets after Hello; may be set later, no socket is let in before.
      token: what page and socket must show; made up when it is None and others can reach the address.
      max_clients: sockets open at a time, of which one plays. max_size: bytes of one message.
      clock: seconds; stamps what comes in and paces what leaves.

    `inbox` holds (message, time of arrival) of the player, `refused` counts by rule what was not let in or out.
    Raises InputError: the port is taken, the address is not ours, files are missing, the token does not fit in a URL.
    """

    def __init__(self, host: str, port: int, *, web: Path, node_modules: Path, ranges: Mapping[str, Range] = RANGES,
                 state: Callable[[], State] | None = None, token: str | None = None, max_clients: int = 8,
                 max_size: int = 1 << 16, clock: Callable[[], float] = time.perf_counter):
        if token is not None and not gate.TOKEN.fullmatch(token):
            raise InputError("--token: use 8 to 128 letters, digits, - and _, or leave it out and one is made up")
        self.host, self.port, self.token = host, port, token
        self.ranges, self.state, self.clock = ranges, state, clock
        self.max_clients, self.max_size = max_clients, max_size
        self.inbox = Inbox(INBOX)
        self.refused: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self._files = gate.Files(web, node_modules)
        self._page: Page | None = None
        self._farewells: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Server":
        class Ours(Connection):
            owner = self

        listener = gate.listen(self.host, self.port)
        address, self.port = listener.getsockname()[:2]
        self._address = ipaddress.ip_address(address)
        if self.token is None and not self._address.is_loopback:
            self.token = secrets.token_urlsafe(16)
        self._server: SocketServer = await serve(
            self._play, sock=listener, process_request=self._answer, process_response=self._harden,
            create_connection=Ours, compression=None, server_header=None, max_size=self.max_size, logger=LOG,
            open_timeout=REQUEST_SECONDS, close_timeout=REQUEST_SECONDS, ping_interval=10, ping_timeout=10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        # A peer that does not read would hold up the farewell.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), CLOSE_SECONDS)
        for connection in [*self.connections]:
            connection.transport.abort()
        await self._server.wait_closed()
        await asyncio.gather(*self._farewells)

    @property
    def url(self) -> str:
        """Where a browser finds the page, with the token if there is one."""
        place = gate.authority(gate.reachable(self._address), self.port)
        return f"http://{place}/" + (f"?token={self.token}" if self.token else "")

    @property
    def player(self) -> bool:
        """A page that said Hello is connected."""
        return self._page is not None

    def send(self, message: ServerMessage) -> None:
        """Let the page have this message as soon as it may; without a page it is dropped, State will say it all.

        Raises WireError for a parameter that is unknown or not finite.
        """
        if self._page is not None:
            self._page.outbox.put(message)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request; None lets it become a socket."""
        if request.method != "GET":
            response = connection.respond(405, "only GET\n")
            response.headers["Allow"] = "GET"
            return response
        path, _, query = request.path.partition("?")
        ours, named = self._hosts(connection), request.headers.get_all("Host")
        if len(named) != 1 or named[0].lower() not in ours:
            return self._refuse(connection, "host", 403, f"this is http://{ours[0]}/\n")
        if path in ("/", "/ws") and not gate.has_token(query, self.token):
            return self._refuse(connection, "token", 403, "open the address printed at the start, with its ?token=\n")
        if path == "/ws":
            if request.headers.get_all("Origin") != [f"http://{named[0]}"]:
                return self._refuse(connection, "origin", 403, "only for this server's own page\n")
            if self.state is None:
                return self._refuse(connection, "early", 503, "warming up: come again\n")
            if sum(other.is_socket for other in self.connections) >= self.max_clients:
                return self._refuse(connection, "clients", 503, "too many pages\n")
            assert isinstance(connection, Connection)
            connection.is_socket = True
            return None
        file = self._files.find(path)
        if file is None:
            return connection.respond(404, "not found\n")
        response = connection.respond(200, "")
        response.body = file.read_bytes()
        for name, value in (("Content-Length", len(response.body)),
                            ("Content-Type", f"{gate.KINDS[file.suffix]}; charset=utf-8")):
            del response.headers[name]
            response.headers[name] = str(value)
        return response

    def _harden(self, connection: ServerConnection, request: Request, response: Response) -> None:
        """The headers of every answer."""
        ours, named = self._hosts(connection), request.headers.get_all("Host")
        host = named[0] if len(named) == 1 and named[0].lower() in ours else ours[0]
        response.headers.update({
            "Content-Security-Policy": gate.policy(host), "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",  # the page's address holds the token
            "Cross-Origin-Resource-Policy": "same-origin"})

    def _hosts(self, connection: ServerConnection) -> tuple[str, ...]:
        return gate.hosts(str(connection.local_address[0]), self.host, self.port)

    def _refuse(self, connection: ServerConnection, rule: str, status: int, text: str) -> Response:
        self.refused[rule] += 1
        return connection.respond(status, text)

    async def _play(self, connection: ServerConnection) -> None:
        """One socket from Hello to its end."""
        try:
            page, hello = await self._admit(connection)
            tasks = [asyncio.create_task(self._read_all(page, hello)), asyncio.create_task(self._send_all(page))]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                if self._page is page:
                    self._page = None
        except Refused as refusal:
            self.refused[refusal.rule] += 1
            await _close(connection, refusal.code, refusal.reason)
        except ConnectionClosed:
            pass

    async def _admit(self, connection: ServerConnection) -> tuple[Page, Hello]:
        """The page of this socket, once it said Hello; raises Refused while another one plays."""
        try:
            hello = _message(await asyncio.wait_for(connection.recv(), HELLO_SECONDS))
        except TimeoutError:
            hello = None
        if not isinstance(hello, Hello):
            raise Refused("hello", POLICY_VIOLATION, "say Hello first")
        before = self._page
        if before is not None and before.session != hello.session:
            raise Refused("page", ANOTHER_PAGE, "another page plays")
        if before is not None:  # most often it is dead and nobody has told us
            farewell = asyncio.create_task(_close(before.connection, ANOTHER_PAGE, "another page plays"))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)
        self._page = Page(connection, hello.session, Outbox(self.ranges, clock=self.clock))
        return self._page, hello

    async def _read_all(self, page: Page, hello: Hello) -> None:
        """Answer Hello with State and hand on what the page says; raises Refused when it breaks a rule."""
        self._welcome(page, hello)
        credit, last = BURST, self.clock()
        async for data in page.connection:
            now = self.clock()
            credit, last = min(BURST, credit + (now - last) * RATE) - 1, now
            if credit < 0:
                raise Refused("rate", POLICY_VIOLATION, f"more than {RATE:g} messages a second")
            message = _message(data)
            if self._page is not page:  # replaced, and about to hear so
                return
            if not isinstance(message, Hello):
                self.inbox.push(message, now)
            elif message.session == page.session:
                self._welcome(page, message)
            else:
                raise Refused("hello", POLICY_VIOLATION, "a page has one session")

    def _welcome(self, page: Page, hello: Hello) -> None:
        assert self.state is not None
        page.outbox.put(self.state())
        self.inbox.push(hello, self.clock())

    async def _send_all(self, page: Page) -> None:
        """Send what waits; a page that takes nothing for a while is dropped and may come back."""
        try:
            while True:
                message = await page.outbox.next()
                try:
                    text = encode(message)
                except WireError as error:  # the music goes on without this one
                    self.refused["unsendable"] += 1
                    LOG.error("not sent: %s", error)
                else:
                    await asyncio.wait_for(page.connection.send(text), SLOW_SECONDS)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.refused["slow"] += 1
            page.connection.transport.abort()


def _message(data: str | bytes) -> PageMessage:
    if isinstance(data, bytes):
        raise Refused("binary", WRONG_KIND, "text only")
    try:
        return decode(data)
    except WireError as error:
        raise Refused("message", POLICY_VIOLATION, str(error)) from None


async def _close(connection: ServerConnection, code: int, reason: str) -> None:
    """Say goodbye, without waiting long for the answer."""
    reason = reason.encode()[:120].decode(errors="ignore")  # a close frame holds no more
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(connection.close(code, reason), CLOSE_SECONDS)
    connection.transport.abort()
