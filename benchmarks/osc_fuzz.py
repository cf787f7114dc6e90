"""Damaged packets into the receivers: python benchmarks/osc_fuzz.py [--count 2000000] [--seed 0] [--inbox]

Valid packets (VMC frames, phones, trackers, every type tag, mocopi) are mutated; each goes into the strict decoder,
or, with --inbox, through the whole of what a packet meets. Printed by kind of mutation: how many were still whole
packets, how many were refused, how many raised anything else (none may), and the time per packet. Seconds are of the
process, so that other work on the machine does not count.
"""

import argparse
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import senders

from eqdiff_jax.live import mocopi, osc
from eqdiff_jax.live.controls import load_map
from eqdiff_jax.live.inbox import Inbox
from eqdiff_jax.live.performers import Cast

Random = np.random.Generator
TAGS = "ifsbhdTFNItcrm"
MAPS = ("zigsim", "gyrosc", "touchosc", "wek_inputs", "mediapipe", "oschook")
ADDRESSES = [("127.0.0.1", 5000 + i) for i in range(8)]


def corpus() -> list[bytes]:
    """Valid packets of every kind that the receivers know."""
    dance = senders.body(1.0)
    positions, rotations = dance.world(1.7)
    worn = {"head": 10, "1": 0, "2": 21, "3": 25}
    packets = [senders.vmc_packet(dance, 0), senders.vmc_packet(dance, 9, metres=1.6),
               senders.mocopi_packet(dance, 3), senders.mocopi_skeleton()]
    packets += [one.dgram for one in senders.tracker_messages(positions[5], rotations[5], worn)]
    packets += [one.dgram for one in senders.vmc_messages(dance, 7)[:4]]
    values = {"i": -7, "f": 0.5, "s": "Hips", "b": b"blob", "h": 1 << 40, "d": 0.25, "T": True, "F": False, "N": None,
              "I": osc.IMPULSE, "t": 1 << 60, "c": "x", "r": 0xFF00FF00, "m": b"\x00\x90\x40\x7f"}
    packets.append(osc.encode("/all", [values[tag] for tag in TAGS], TAGS))
    packets += [osc.encode("/phone/accel", [0.1, -0.2, 1.0]), osc.encode("/phone/quaternion", [0.0, 0.0, 0.0, 1.0]),
                osc.encode("/gyrosc/rrate", [0.1, 0.2, 0.3]), osc.encode("/gyrosc/grav", [0.0, 0.0, -1.0]),
                osc.encode("/accxyz", [0.0, 0.0, -1.0]), osc.encode("/1/fader1", [0.5]),
                osc.encode("/wek/inputs", [0.1 * i for i in range(5)]),
                osc.encode("/mediapipe/pose", [1, *np.linspace(-1.0, 1.0, 132).tolist()]),
                osc.encode("/VMC/Ext/OK", [1, 3, 0, 1]), osc.encode("/VMC/Ext/T", [12.5])]
    packets.append(osc.bundle([osc.bundle([packets[-1], packets[-2]]), packets[-3]]))
    return packets


def _flip(random: Random, packet: bytes) -> bytes:
    """1 to 16 bits turned over."""
    damaged = bytearray(packet)
    for bit in random.integers(0, 8 * len(damaged), random.integers(1, 17)).tolist():
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def _bytes(random: Random, packet: bytes) -> bytes:
    """1 to 8 bytes replaced, often by those that mean something."""
    damaged = bytearray(packet)
    for at in random.integers(0, len(damaged), random.integers(1, 9)).tolist():
        damaged[at] = int(random.choice([0, 0xFF, 0x7F, 0x80, ord("/"), ord(","), ord("#"), random.integers(256)]))
    return bytes(damaged)


def _cut(random: Random, packet: bytes) -> bytes:
    """Its end, or its beginning, is missing; half the time at a word's border."""
    at = int(random.integers(0, len(packet) + 1))
    at = at & ~3 if random.random() < 0.5 else at
    return packet[:at] if random.random() < 0.8 else packet[at:]


def _size(random: Random, packet: bytes) -> bytes:
    """A size field says something else: -4, 0, huge; in a bundle the first one, else any word."""
    value = int(random.choice([-4, 0, -1, 3, 9999, 2**31 - 1, -(2**31), 4, 8, len(packet)]))
    at = 16 if packet.startswith(b"#bundle") and random.random() < 0.7 else 4 * int(random.integers(len(packet) // 4))
    return packet[:at] + struct.pack(">i", value) + packet[at + 4:]


def _time(random: Random, packet: bytes) -> bytes:
    """A bundle for later, up to years ahead."""
    inner = packet if not packet.startswith(b"#bundle") else packet[20:20 + struct.unpack(">i", packet[16:20])[0]]
    return osc.bundle([inner], int(random.integers(1, 2**63)) * 2 + 1)


def _number(random: Random, packet: bytes) -> bytes:
    """A word becomes NaN, infinite, denormal or the largest there is."""
    words = [b"\x7f\xc0\0\0", b"\x7f\x80\0\0", b"\xff\x80\0\0", b"\0\0\0\x01", b"\x7f\x7f\xff\xff", b"\xff\x7f\xff\xff"]
    at = 4 * int(random.integers(len(packet) // 4))
    return packet[:at] + words[random.integers(len(words))] + packet[at + 4:]


def _bomb(random: Random, packet: bytes) -> bytes:
    """Bundles in bundles, many deep or many wide."""
    inner = packet[:packet.find(b"\0") + 4 & ~3] if random.random() < 0.5 else osc.encode("/a")
    inner = inner if len(inner) % 4 == 0 else b"/a\0\0"
    if random.random() < 0.5:
        for _ in range(int(random.integers(1, 60))):
            inner = b"#bundle\0" + bytes(8) + struct.pack(">i", len(inner)) + inner
        return inner
    element = struct.pack(">i", len(inner)) + inner
    return b"#bundle\0" + bytes(8) + element * int(random.integers(1, 2000 // len(element) + 2))


def _large(random: Random, packet: bytes) -> bytes:
    """64 kB: of messages, of arguments, of text, or of the packet again and again."""
    kind = random.integers(5)
    if kind == 0:
        return b"#bundle\0" + bytes(8) + (b"\0\0\0\4/\0\0\0") * 8185
    if kind == 1:
        return b"/a\0\0" + b",".ljust(int(random.integers(1, 40000)), b"fTNi"[random.integers(4):][:1])[:39999] + bytes(
            25497)
    if kind == 2:
        return (b"/" + b"a" * 65000 + bytes(4))[:65000 + int(random.integers(5))]
    if kind == 3:
        element = struct.pack(">i", len(packet)) + packet
        return b"#bundle\0" + bytes(8) + element * (65000 // len(element))
    return random.bytes(65504)


def _noise(random: Random, packet: bytes) -> bytes:
    """Random bytes, sometimes behind a good beginning."""
    noise = random.bytes(int(random.integers(0, 200)))
    return noise if random.random() < 0.5 else packet[:int(random.integers(0, 32)) & ~3] + noise


def _splice(random: Random, packet: bytes) -> bytes:
    """A piece taken out, doubled or moved."""
    a, b, c = sorted((4 * random.integers(0, len(packet) // 4 + 1, 3)).tolist())
    return packet[:a] + [packet[b:c] + packet[a:b], packet[a:b] * 2, b""][random.integers(3)] + packet[c:]


MUTATIONS: dict[str, tuple[Callable[[Random, bytes], bytes], float]] = {
    "bits": (_flip, 0.25), "bytes": (_bytes, 0.2), "cut": (_cut, 0.12), "sizes": (_size, 0.12),
    "time tags": (_time, 0.05), "numbers": (_number, 0.1), "bombs": (_bomb, 0.05), "64 kB": (_large, 0.01),
    "noise": (_noise, 0.04), "splices": (_splice, 0.06)}


class Outcome(NamedTuple):
    """What became of the packets of one kind."""

    whole: int
    refused: int
    stray: int  # raised something else
    seconds: np.ndarray  # of each packet


def fuzz(count: int, seed: int, receive: Callable[[bytes], bool]) -> dict[str, Outcome]:
    """`count` mutated packets into `receive`, which says whether a packet was whole, or raises."""
    random = np.random.default_rng(seed)
    packets, names = corpus(), list(MUTATIONS)
    kinds = random.choice(len(names), count, p=[share for _, share in MUTATIONS.values()])
    tally, seconds = np.zeros((len(names), 3), int), np.zeros(count)
    chosen = random.integers(len(packets), size=count).tolist()
    for i, (kind, which) in enumerate(zip(kinds.tolist(), chosen, strict=True)):
        packet = MUTATIONS[names[kind]][0](random, packets[which])
        start = time.thread_time()
        try:
            outcome = 0 if receive(packet) else 1
        except Exception as error:
            outcome = 2
            print(f"stray {error!r} from {packet[:200].hex()}", file=sys.stderr)
        seconds[i] = time.thread_time() - start
        tally[kind, outcome] += 1
    return {name: Outcome(*tally[kind].tolist(), seconds[kinds == kind]) for kind, name in enumerate(names)}


def decoders(packet: bytes) -> bool:
    """The strict decoders alone."""
    try:
        mocopi.decode(packet) if mocopi.looks_like(packet) else osc.decode(packet)
    except (osc.OscError, mocopi.MocopiError):
        return False
    return True


def whole_inbox() -> Callable[[bytes], bool]:
    """All that a packet meets, with every preset in the map and no limit on the rate."""
    now = [0.0]
    inbox = Inbox(Cast(), "127.0.0.1", 0, map=[row for name in MAPS for row in load_map(name)],
                  clock=lambda: now[0], rate=1e9, total=1e9)

    def receive(packet: bytes) -> bool:
        now[0] += 1.0 / 500.0
        refused = inbox.refused
        inbox.datagram_received(packet, ADDRESSES[int(now[0] * 500.0) % len(ADDRESSES)])
        if inbox.failed is not None:
            error, inbox.failed = inbox.failed, None
            raise error
        if int(now[0] * 500.0) % 8 == 0:
            frame = inbox.cast.frame(now[0])
            if not np.isfinite(frame).all():
                raise ArithmeticError("a limb frame is not finite")
        return inbox.refused == refused

    return receive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inbox", action="store_true", help="through the whole receiver, not the decoders alone")
    flags = parser.parse_args()
    outcomes = fuzz(flags.count, flags.seed, whole_inbox() if flags.inbox else decoders)
    print("| mutation | packets | whole | refused | stray | median us | 99.9 % us | worst us |\n|---|" + "--:|" * 7)
    every = Outcome(*(sum(getattr(one, field) for one in outcomes.values()) for field in Outcome._fields[:3]),
                    np.concatenate([one.seconds for one in outcomes.values()]))
    for name, one in (*outcomes.items(), ("all", every)):
        median, high, worst = 1e6 * np.quantile(one.seconds, [0.5, 0.999, 1.0]) if len(one.seconds) else (0.0,) * 3
        print(f"| {name} | {len(one.seconds)} | {one.whole} | {one.refused} | {one.stray} | {median:.1f} | {high:.0f} "
              f"| {worst:.0f} |")
    if every.stray:
        sys.exit(1)


if __name__ == "__main__":
    main()
