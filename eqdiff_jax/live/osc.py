"""OSC 1.0 packets: a strict decoder that gives the whole packet or raises OscError, and the encoder.

    decode : packet -> ((address, args), ...)   bundles flattened, time tags ignored
    encode : address, args -> packet            bundle : packets -> packet

Type tags and their values: i h int, f d float, s str, b bytes, T F bool, N None, I IMPULSE, t r int (unsigned),
c one ASCII character, m bytes of length 4. Everything comes from the network, so everything is checked: alignment,
sizes, padding, text, finite numbers; depth, messages and arguments are bounded, and so is the time a packet takes.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

MAX_SIZE = 1 << 16  # bytes of a packet
MAX_DEPTH = 8  # bundles in bundles
MAX_MESSAGES = 512  # of a packet; a full VMC frame with a face has about 150
MAX_ARGS = 1024  # of a message
_CACHED = 64  # bytes; longer addresses and tags are not remembered
_BUNDLE = b"#bundle\0"
_ZEROS = [bytes(n) for n in range(5)]


class OscError(ValueError):
    """Not an OSC packet; one line that says why."""


class Tag(Enum):
    """The one value of type tag I, which has no argument."""

    IMPULSE = "I"


IMPULSE = Tag.IMPULSE


class Message(NamedTuple):
    """One message of a packet."""

    address: str
    args: tuple


def decode(packet: bytes) -> tuple[Message, ...]:
    """The messages of a packet in their order. Raises OscError, whatever the bytes are."""
    if len(packet) > MAX_SIZE:
        raise OscError(f"{len(packet)} bytes, more than {MAX_SIZE}")
    if not packet or len(packet) % 4:
        raise OscError(f"{len(packet)} bytes: not a positive multiple of 4")
    messages: list[Message] = []
    _element(packet, 0, len(packet), 0, messages)
    return tuple(messages)


def _element(packet: bytes, at: int, end: int, depth: int, messages: list[Message]) -> None:
    """Appends what lies in packet[at:end], a message or a bundle."""
    if not packet.startswith(_BUNDLE, at):
        if len(messages) == MAX_MESSAGES:
            raise OscError(f"more than {MAX_MESSAGES} messages")
        messages.append(_message(packet, at, end))
        return
    if depth == MAX_DEPTH:
        raise OscError(f"bundles more than {MAX_DEPTH} deep")
    at += 16  # the name and the time tag
    if at > end:
        raise OscError("a bundle without a time tag")
    while at < end:
        size = int.from_bytes(packet[at:at + 4], "big", signed=True)
        at += 4
        if size <= 0 or size % 4 or size > end - at:
            raise OscError(f"a bundle's element of {size} bytes where {end - at} are left")
        _element(packet, at, at + size, depth + 1, messages)
        at += size


def _message(packet: bytes, at: int, end: int) -> Message:
    raw, at = _text(packet, at, end)
    address = _address(raw) if len(raw) <= _CACHED else _address.__wrapped__(raw)
    if at == end:  # old senders leave out the type tags of a message without arguments
        return Message(address, ())
    tags, at = _text(packet, at, end)
    args: list[Any] = []
    for kind, reader, size in _plan(tags) if len(tags) <= _CACHED else _plan.__wrapped__(tags):
        if reader is not None:
            if size > end - at:
                raise OscError(f"{address}: cut off in its arguments")
            values = reader.unpack_from(packet, at)
            at += size
            if kind == "f" and not math.isfinite(sum(values)) and not all(map(math.isfinite, values)):
                raise OscError(f"{address}: a number is not finite")
            args += _characters(values) if kind == "c" else values
        elif kind == "s":
            raw, at = _text(packet, at, end)
            try:
                args.append(raw.decode())
            except UnicodeDecodeError:
                raise OscError(f"{address}: a string is not UTF-8") from None
        elif kind == "b":
            blob, at = _blob(packet, at, end)
            args.append(blob)
        else:
            args.append(_CONSTANTS[kind])
    if at != end:
        raise OscError(f"{address}: {end - at} bytes after its arguments")
    return Message(address, tuple(args))


def _text(packet: bytes, at: int, end: int) -> tuple[bytes, int]:
    """A string's bytes, and where its padding ends."""
    stop = packet.find(0, at, end)
    after = (stop | 3) + 1  # packets and their elements are aligned
    if stop < 0 or after > end:
        raise OscError("a string without its end")
    if packet[stop:after] != _ZEROS[after - stop]:
        raise OscError("a string's padding is not zero")
    return packet[at:stop], after


def _blob(packet: bytes, at: int, end: int) -> tuple[bytes, int]:
    size = int.from_bytes(packet[at:at + 4], "big", signed=True)
    at += 4
    stop = at + size
    after = (stop + 3) & ~3
    if at > end or size < 0 or after > end:
        raise OscError("a blob is cut off")
    if packet[stop:after] != _ZEROS[after - stop]:
        raise OscError("a blob's padding is not zero")
    return packet[at:stop], after


def _characters(values: Sequence[int]) -> Iterator[str]:
    for value in values:
        if value > 127:
            raise OscError(f"character {value} is not ASCII")
        yield chr(value)


@lru_cache(maxsize=1024)
def _address(raw: bytes) -> str:
    try:
        address = raw.decode()
    except UnicodeDecodeError:
        raise OscError("an address is not UTF-8") from None
    if not address.startswith("/") or not address.isprintable():
        raise OscError("an address does not start with / or holds control characters")
    return address


_CONSTANTS = {"T": True, "F": False, "N": None, "I": IMPULSE}
_FORMATS = {"i": "i", "h": "q", "f": "f", "d": "d", "t": "Q", "r": "I", "c": "I", "m": "4s"}


@lru_cache(maxsize=256)
def _plan(tags: bytes) -> tuple[tuple[str, struct.Struct | None, int], ...]:
    """How to read the arguments: runs of one fixed-size type at once. Kind f stands for f and d."""
    if not tags.startswith(b","):
        raise OscError("the type tags do not start with a comma")
    if len(tags) - 1 > MAX_ARGS:
        raise OscError(f"more than {MAX_ARGS} arguments")
    steps: list[tuple[str, struct.Struct | None, int]] = []
    for tag, run in groupby(tags[1:].decode("latin-1")):
        count = sum(1 for _ in run)
        if tag in _FORMATS:
            reader = struct.Struct(">" + _FORMATS[tag] * count)
            steps.append(("f" if tag == "d" else tag, reader, reader.size))
        elif tag in "sb" or tag in _CONSTANTS:
            steps += [(tag, None, 0)] * count
        else:
            raise OscError(f"unknown type tag {tag!r}")
    return tuple(steps)


def encode(address: str, args: Sequence[Any] = (), tags: str | None = None) -> bytes:
    """One message. Without `tags` (one letter an argument) bool, None, int, float, str, bytes, IMPULSE get T or F, N,
    i or h, f, s, b, I. Raises OscError for what `decode` would refuse or a tag that does not fit.
    """
    tags = "".join(map(_tag, args)) if tags is None else tags
    if len(tags) != len(args):
        raise OscError(f"{address}: {len(tags)} tags for {len(args)} arguments")
    try:
        packet = b"".join([_padded(address.encode()), _padded(b"," + tags.encode()),
                           *(_argument(tag, value) for tag, value in zip(tags, args, strict=True))])
    except (struct.error, OverflowError, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise OscError(f"{address}: an argument does not fit its tag in {tags!r} ({error})") from None
    decode(packet)
    return packet


def bundle(packets: Sequence[bytes], time: int = 1) -> bytes:
    """A bundle of packets; `time` is its 64-bit tag, 1 for at once."""
    parts = [part for packet in packets for part in (struct.pack(">i", len(packet)), packet)]
    return b"".join([_BUNDLE, struct.pack(">Q", time), *parts])


def _tag(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int):
        return "i" if -(1 << 31) <= value < 1 << 31 else "h"
    for kind, tag in ((type(None), "N"), (float, "f"), (str, "s"), (bytes, "b"), (Tag, "I")):
        if isinstance(value, kind):
            return tag
    raise OscError(f"no type tag for {type(value).__name__}")


def _padded(text: bytes) -> bytes:
    if 0 in text:
        raise OscError("a string holds a zero byte")
    return text + bytes(4 - len(text) % 4)


def _argument(tag: str, value: Any) -> bytes:
    if tag == "s":
        return _padded(value.encode())
    if tag == "b":
        return struct.pack(">i", len(value)) + value + bytes(-len(value) % 4)
    if tag == "m" and len(value) != 4:
        raise TypeError("m takes 4 bytes")
    if tag in _FORMATS:
        return struct.pack(">" + _FORMATS[tag], ord(value) if tag == "c" else value)
    if tag not in _CONSTANTS or _CONSTANTS[tag] is not value:
        raise TypeError(f"{value!r} is not {tag}")
    return b""
