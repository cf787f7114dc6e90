"""mocopi's own UDP format: its 27 bones are our limbs, in our order.

    packet = chunks; chunk = u32 length of the value, 4 letters, value; little-endian
    head{ftyp "sony motion format", vrsn 1} sndf{...} fram{fnum u32, ..., btrs{27 x btdt{bnid u16, tran 7 x f32}}}
                                                   or skdf{bons{27 x bndt{bnid, pbid, tran}}}
    tran = qx qy qz qw px py pz in the parent's frame, m

The numbers are right-handed with y up, z forward and the performer's left at +x, as ours: Sony's plug-in for Unity,
which is left-handed, mirrors them in x. A sender whose left thigh lies at -x is left-handed and is mirrored here.
One port per performer; the frame number is the clock (60 per second).
"""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eqdiff_jax.live.pose import Pose, Quaternion, Vector, mirrored, normalised, product, rotated
from eqdiff_jax.motion.skeleton import LIMB, PARENTS

RATE = 60.0  # frames per second, as numbered
FORMAT, VERSION = b"sony motion format", b"\x01"
MAX_SIZE = 8192  # bytes; a skeleton with 27 bones has 2 kB
_LEFT, _RIGHT = LIMB["l_up_leg"], LIMB["r_up_leg"]
_PARENTS = PARENTS.tolist()


class MocopiError(ValueError):
    """Not a packet of this format; one line that says why."""


class Frame(NamedTuple):
    """The bones of one moment, each in its parent's frame."""

    number: int
    places: list[Vector]  # [27] m
    turns: list[Quaternion]  # [27] unit quaternions


def looks_like(packet: bytes) -> bool:
    """Whether the first bytes are of this format and not of OSC."""
    return packet[4:8] == b"head"


def decode(packet: bytes) -> Frame | None:
    """The frame in a packet, None where it holds a skeleton. Raises MocopiError, whatever the bytes are."""
    if len(packet) > MAX_SIZE:
        raise MocopiError(f"{len(packet)} bytes, more than {MAX_SIZE}")
    parts = _once(packet, 0, len(packet))
    head = _once(packet, *_part(parts, b"head"))
    if packet[slice(*_part(head, b"ftyp"))] != FORMAT or packet[slice(*_part(head, b"vrsn"))] != VERSION:
        raise MocopiError("not version 1 of the sony motion format")
    if (b"fram" in parts) == (b"skdf" in parts):
        raise MocopiError("it holds no frame and no skeleton, or both")
    if b"skdf" in parts:
        _bones(packet, *_part(_once(packet, *parts[b"skdf"]), b"bons"), b"bndt")
        return None
    frame = _once(packet, *parts[b"fram"])
    number = _read(packet, _NUMBER, _part(frame, b"fnum"))[0]
    return Frame(number, *_bones(packet, *_part(frame, b"btrs"), b"btdt"))


_CHUNK, _NUMBER = struct.Struct("<I4s"), struct.Struct("<I")
_ID, _TRANSFORM = struct.Struct("<H"), struct.Struct("<7f")


def _chunks(packet: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of packet[at:end]."""
    while at < end:
        if end - at < 8:
            raise MocopiError("a chunk is cut off")
        size, name = _CHUNK.unpack_from(packet, at)
        at += 8
        if size > end - at:
            raise MocopiError(f"a chunk of {size} bytes where {end - at} are left")
        yield name, at, at + size
        at += size


def _once(packet: bytes, at: int, end: int) -> dict[bytes, tuple[int, int]]:
    """The chunks by name; each may come once."""
    parts: dict[bytes, tuple[int, int]] = {}
    for name, start, stop in _chunks(packet, at, end):
        if name in parts:
            raise MocopiError(f"chunk {name!r} comes twice")
        parts[name] = start, stop
    return parts


def _part(parts: dict[bytes, tuple[int, int]], name: bytes) -> tuple[int, int]:
    if name not in parts:
        raise MocopiError(f"there is no chunk {name!r}")
    return parts[name]


def _read(packet: bytes, reader: struct.Struct, span: tuple[int, int]) -> tuple:
    if span[1] - span[0] != reader.size:
        raise MocopiError(f"a value of {span[1] - span[0]} bytes where {reader.size} are due")
    return reader.unpack_from(packet, span[0])


def _bones(packet: bytes, at: int, end: int, kind: bytes) -> tuple[list[Vector], list[Quaternion]]:
    """Places and turns of the 27 bones, each of which must come once."""
    found: dict[int, tuple[Vector, Quaternion]] = {}
    for name, start, stop in _chunks(packet, at, end):
        if name != kind:
            raise MocopiError(f"chunk {name!r} among the bones")
        parts = _once(packet, start, stop)
        bone = _read(packet, _ID, _part(parts, b"bnid"))[0]
        values = _read(packet, _TRANSFORM, _part(parts, b"tran"))
        turn = normalised(values[:4]) if math.isfinite(sum(values)) else None
        if turn is None or bone in found or bone >= len(_PARENTS):
            raise MocopiError(f"bone {bone} comes twice, is none of 0..26, or has no finite transform")
        found[bone] = values[4:], turn
    if len(found) != len(_PARENTS):
        raise MocopiError(f"{len(found)} bones, not {len(_PARENTS)}")
    return [found[bone][0] for bone in range(len(_PARENTS))], [found[bone][1] for bone in range(len(_PARENTS))]


def to_pose(frame: Frame) -> Pose:
    """The world pose, in m, with full confidence."""
    places, turns = list(frame.places), list(frame.turns)
    if places[_LEFT][0] < places[_RIGHT][0]:
        places, turns = map(list, zip(*map(mirrored, places, turns), strict=True))
    for limb, parent in enumerate(_PARENTS):
        if parent >= 0:
            (x, y, z), (a, b, c) = places[parent], rotated(turns[parent], places[limb])
            places[limb], turns[limb] = (x + a, y + b, z + c), product(turns[parent], turns[limb])
    return Pose(np.array(places), np.array(turns), np.ones(len(_PARENTS)), frame.number / RATE)
