"""All performers, by where their poses come from, and the one limb frame [27, 8] that they give together at 60 Hz.

The lead is the first that is active; when it falls silent the next takes over, and when nobody is there the fallback
plays, each within one second.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from eqdiff_jax.live.performer import HOLD, LOW, Performer, mixed
from eqdiff_jax.live.pose import Pose
from eqdiff_jax.motion.limbs import RANGES, REST_FRAME

BLEND = 1.0  # s from one lead to the next
RESTART = 0.25  # s of silence after which another port of the same host is the same sender again
FORGOTTEN = 10.0  # s of silence after which a performer makes room
MOST = 16  # performers


class Player(Protocol):
    """What a Cast can show."""

    last: float  # when it last gave a sign of life

    def frame(self, now: float) -> np.ndarray:
        """Limb frame [27, 8] at `now`."""


class Sender(NamedTuple):
    """Where poses come from."""

    kind: str  # vmc, mocopi, ...
    listening: int  # our port
    host: str
    port: int  # the sender's


class _Member(NamedTuple):
    name: str
    player: Player


class Cast:
    """All performers, and the one frame that they give together.

    A source that was not heard before is the same performer as a silent one of its kind and host, begun anew, else
    another one. Nothing here is raised for what comes from outside.
    """

    def __init__(self, fallback: Callable[[float], np.ndarray] | None = None) -> None:
        self.fallback = fallback
        self._members: list[_Member] = []  # in the order of their coming
        self._sources: dict[Sender, Performer] = {}
        self._wish: str | None = None
        self._lead: _Member | None = None
        self._shown: Callable[[float], np.ndarray] | None = None  # what plays now, None before all
        self._left: Callable[[float], np.ndarray] | None = None  # what is being left
        self._since = -math.inf
        self._out = REST_FRAME

    def update(self, source: Sender, now: float, pose: Pose) -> bool:
        """A pose that arrived now; False where it is not taken."""
        performer = self._sources.get(source) or self._recognised(source, now)
        return performer is not None and performer.update(now, pose)

    def join(self, name: str, player: Player) -> None:
        """A performer that is fed by others: the inertial sensors."""
        self._members.append(_Member(name, player))

    def _recognised(self, source: Sender, now: float) -> Performer | None:
        for other, performer in self._sources.items():
            if other[:3] == source[:3] and now - performer.last > RESTART:
                del self._sources[other]
                performer.restart()
                self._sources[source] = performer
                return performer
        for other, performer in list(self._sources.items()):
            if len(self._sources) >= MOST and now - performer.last > FORGOTTEN:
                del self._sources[other]
                self._members = [member for member in self._members if member.player is not performer]
        if len(self._sources) >= MOST:
            return None
        taken = {member.name for member in self._members}
        name = first = f"{source.kind} {source.host}"
        number = 1
        while name in taken:
            number += 1
            name = f"{first} {number}"
        self._sources[source] = performer = Performer()
        self._members.append(_Member(name, performer))
        return performer

    def active(self, now: float) -> list[str]:
        """Names of those heard within HOLD, first come first."""
        return [member.name for member in self._members if now - member.player.last <= HOLD]

    @property
    def lead(self) -> str | None:
        """Whose frames are shown, None while nobody is active."""
        return self._lead.name if self._lead is not None else None

    def choose(self, name: str | None) -> None:
        """The performer to lead whenever it is active; None leaves the choice to the order of coming."""
        self._wish = name

    def frame(self, now: float) -> np.ndarray:
        """Limb frame f32 [27, 8] at `now`, the nominal time of the tick."""
        self._follow(now)
        if self._shown is None:
            return self._out
        frame = self._shown(now)
        if self._left is not None:
            share = (now - self._since) / BLEND
            frame = mixed(self._left(now), frame, share)
            self._left = self._left if share < 1.0 else None
        self._out = np.clip(frame, LOW, RANGES).astype(np.float32)
        return self._out

    def _follow(self, now: float) -> None:
        """Decides who leads, and begins a blend when that changes."""
        active = [member for member in self._members if now - member.player.last <= HOLD]
        wished = [member for member in active if member.name == self._wish]
        lead = self._lead if self._lead in active else None
        lead = wished[0] if wished else lead or (active[0] if active else None)
        self._lead = lead
        shown = lead.player.frame if lead is not None else self.fallback or self._shown
        if shown is None or shown == self._shown:
            return
        if self._shown is not None:
            out = self._out
            self._left = self._shown if self._left is None else lambda _: out
            self._since = now
        self._shown = shown
