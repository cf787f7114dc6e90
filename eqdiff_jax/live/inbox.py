"""The UDP port that senders speak to: packets -> poses of the cast, limbs of sensors, parameters of the map.

One port takes OSC (VMC, VRChat trackers, everything in the map) and mocopi's own format, told apart by their first
bytes. What a source sends beyond its rate is dropped before it is looked at, and what is no whole packet is refused;
whatever the network brings, nothing is raised and no other source waits.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from eqdiff_jax.errors import InputError
from eqdiff_jax.live import mocopi, osc, sensors, trackers, vmc
from eqdiff_jax.live.controls import Controls, Reading, Row
from eqdiff_jax.live.performers import Cast, Sender
from eqdiff_jax.live.pose import Gather, Pose, from_points

RATE, TOTAL = 4000.0, 20000.0  # packets per second of one source, of all together
WEIGHT = 512  # bytes that count as one packet; larger ones count as several
BURST = 0.25  # s of packets that may come at once
SOURCES = 64  # heard at a time
FORGOTTEN = 10.0  # s of silence after which a source makes room
BUFFER = 1 << 20  # bytes that the system may keep for us
WORK, POSE = 64, 16  # readings of limbs taken from one packet; as how many a whole pose counts


class Bucket:
    """Lets `rate` units per second through, and BURST seconds of them at once."""

    def __init__(self, rate: float):
        self.rate = rate
        self._left, self._time = rate * BURST, -1.0

    def take(self, now: float, units: int) -> bool:
        """Whether `units` may pass now."""
        if self._time >= 0.0:
            self._left = min(self._left + max(now - self._time, 0.0) * self.rate, self.rate * BURST)
        self._time = now
        if units > self._left:
            return False
        self._left -= units
        return True


class _Sender:
    """What is known of one source address."""

    def __init__(self, rate: float):
        self.bucket = Bucket(rate)
        self.last = 0.0
        self.vmc, self.trackers, self.points = vmc.Vmc(), trackers.Trackers(), Gather()


class Inbox(asyncio.DatagramProtocol):
    """`async with Inbox(cast, host, port)` listens; port 0 takes a free one, `port` says which.

    `controls` holds the latest value, in 0..1, of each parameter that the map moves. `packets` were let in, `messages`
    were in them, `refused` were no whole packets, `dropped` came too fast. `failed` is the last error of our own that
    a packet met, which should not be: such a packet is refused.
    """

    def __init__(self, cast: Cast, host: str, port: int, *, map: Sequence[Row] = (),
                 clock: Callable[[], float] = time.monotonic, rate: float = RATE, total: float = TOTAL):
        """Raises InputError where the map needs a package that is not installed."""
        sensors.require(map)
        self.cast, self.host, self.port, self.clock = cast, host, port, clock
        self.packets = self.messages = self.refused = self.dropped = 0
        self.failed: Exception | None = None
        self._map = Controls(map)
        self._rate, self._total = rate, Bucket(total)
        self._senders: dict[tuple[str, int], _Sender] = {}
        self._sensors = sensors.Sensors()
        self._transport: asyncio.BaseTransport | None = None
        if any(row.component in (*sensors.FUSED, "quaternion") for row in map):
            cast.join("sensors", self._sensors)

    @property
    def controls(self) -> dict[str, float]:
        """Parameter -> its latest value, 0..1."""
        return self._map.values

    async def __aenter__(self) -> "Inbox":
        """Opens the port. Raises InputError where that cannot be."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"UDP port {self.port} of {self.host} is taken by another program; close it, or give "
                                 f"another port with --osc {self.host}:PORT") from None
            raise InputError(f"cannot listen on UDP {self.host}:{self.port} ({error.strerror or error}); give an "
                             "address of this computer with --osc HOST:PORT") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
            await asyncio.sleep(0)  # the loop closes the socket at its next turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio: the port is open."""
        self._transport = transport
        opened = transport.get_extra_info("socket")
        self.port = opened.getsockname()[1]
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)

    def error_received(self, error: Exception) -> None:
        """Of asyncio: a peer that is gone; we only listen."""

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """One packet from the network. Nothing is raised."""
        now = self.clock()
        sender = self._admitted(address[:2], now, 1 + len(data) // WEIGHT)
        if sender is None:
            self.dropped += 1
            return
        self.packets += 1
        try:
            if mocopi.looks_like(data):
                self._mocopi(data, address, now)
            else:
                self._osc(data, address, now, sender)
        except (osc.OscError, mocopi.MocopiError):
            self.refused += 1
        except Exception as error:  # on stage a fault of ours must not stop the others
            self.refused += 1
            self.failed = error

    def _admitted(self, address: tuple[str, int], now: float, units: int) -> _Sender | None:
        """The sender of that address, unless it has sent too much."""
        sender = self._senders.get(address)
        if sender is None:
            if len(self._senders) >= SOURCES:
                for other in [key for key, one in self._senders.items() if now - one.last > FORGOTTEN]:
                    del self._senders[other]
                if len(self._senders) >= SOURCES:
                    return None
            sender = self._senders[address] = _Sender(self._rate)
        sender.last = now
        return sender if sender.bucket.take(now, units) and self._total.take(now, units) else None

    def _mocopi(self, data: bytes, address: tuple[Any, ...], now: float) -> None:
        frame = mocopi.decode(data)
        self.messages += 1
        if frame is not None:
            self._give("mocopi", address, now, mocopi.to_pose(frame))

    def _osc(self, data: bytes, address: tuple[Any, ...], now: float, sender: _Sender) -> None:
        messages = osc.decode(data)
        self.messages += len(messages)
        work = 0
        for name, args in messages:
            if name.startswith(vmc.PREFIX):
                work += self._give("vmc", address, now, sender.vmc.take(name, args))
            elif name.startswith(trackers.PREFIX):
                work += self._give("trackers", address, now, sender.trackers.take(name, args))
            for reading in self._map.take(name, args, now) if self._map.rows else ():
                work += 1
                if reading.component in ("position", "confidence"):
                    work += self._give("points", address, now, self._point(sender, reading))
                else:
                    self._sensors.update(address[0], now, reading)
            if work > WORK:  # no sender puts so much into one packet, and it must not take long
                return

    def _give(self, kind: str, address: tuple[Any, ...], now: float, pose: Pose | None) -> int:
        """A pose to the cast, if there is one; what it counts as."""
        if pose is None:
            return 0
        self.cast.update(Sender(kind, self.port, address[0], address[1]), now, pose)
        return POSE

    @staticmethod
    def _point(sender: _Sender, reading: Reading) -> Pose | None:
        """Collects places of limbs until a body is whole."""
        part = reading.limb, reading.component
        frame = sender.points.add(part, reading.values)
        if sender.points.complete:
            frame = sender.points.end()
        if frame is None:
            return None
        points = {limb: values for (limb, component), values in frame.items() if component == "position"}
        sure = {limb: min(max(values[0], 0.0), 1.0) for (limb, kind), values in frame.items() if kind == "confidence"}
        return from_points(points, sure)
