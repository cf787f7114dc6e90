"""The port: real senders over real UDP, ten at once, floods, damage, and what belongs to whom."""

import asyncio
import shutil
import socket
import subprocess

import numpy as np
import pytest
import senders
from pythonosc.udp_client import SimpleUDPClient

from benchmarks.osc_fuzz import fuzz, whole_inbox
from eqdiff_jax.errors import InputError
from eqdiff_jax.live import osc
from eqdiff_jax.live.controls import load_map, parse_map
from eqdiff_jax.live.inbox import BURST, FORGOTTEN, SOURCES, WEIGHT, Inbox
from eqdiff_jax.live.performers import Cast
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.skeleton import LIMB

DANCE = senders.body(4.0)
FADER = parse_map('[[row]]\naddress = "/1/fader1"\nargument = 0\nto = "density"\n')


class Clock:
    """Time as the test says."""

    now = 0.0

    def __call__(self):
        return self.now


def quiet(**how):
    """An inbox without a socket, its cast and its clock."""
    cast, clock = Cast(), Clock()
    return Inbox(cast, "127.0.0.1", 39539, clock=clock, **how), cast, clock


def feed(inbox, clock, packets, address=("10.0.0.1", 5000), fps=60.0, start=0.0):
    for i, packet in enumerate(packets):
        clock.now = start + i / fps
        inbox.datagram_received(packet, address)


async def until(condition, seconds=20.0):
    """Waits, without counting on it, until the condition holds."""
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("what was sent has not come")


def test_each_kind_of_sender_moves_the_cast():
    inbox, cast, clock = quiet(map=load_map("mediapipe"))
    feed(inbox, clock, [senders.vmc_packet(DANCE, i) for i in range(60)])
    feed(inbox, clock, [senders.mocopi_packet(DANCE, i) for i in range(60)], ("10.0.0.2", 1))
    inbox.datagram_received(senders.mocopi_skeleton(), ("10.0.0.2", 1))
    positions, rotations = DANCE.world(1.7)
    worn = {"head": 10, "1": 0, "2": LIMB["l_foot"], "3": LIMB["r_foot"]}
    for i in range(60):
        clock.now = i / 60.0
        for one in senders.tracker_messages(positions[i], rotations[i], worn):
            inbox.datagram_received(one.dgram, ("10.0.0.3", 1))
    landmarks = np.random.default_rng(0).uniform(0.2, 0.8, (33, 4))
    feed(inbox, clock, [osc.encode("/mediapipe/pose", [1, *landmarks.ravel().tolist()])] * 60, ("10.0.0.4", 1))
    assert cast.active(clock.now) == ["vmc 10.0.0.1", "mocopi 10.0.0.2", "trackers 10.0.0.3", "points 10.0.0.4"]
    assert inbox.refused == inbox.dropped == 0 and inbox.failed is None
    for name in cast.active(clock.now):
        cast.choose(name)
        frame = np.stack([cast.frame(clock.now + 0.01 * i) for i in range(5)])[-1]
        assert cast.lead == name and not np.array_equal(frame, REST_FRAME) and np.isfinite(frame).all()


def test_the_same_dance_by_vmc_and_by_mocopi_is_the_same_movement():
    frames = []
    for packet in (lambda i: senders.vmc_packet(DANCE, i, metres=1.7), lambda i: senders.mocopi_packet(DANCE, i)):
        inbox, cast, clock = quiet()
        shown = []
        for i in range(200):
            feed(inbox, clock, [packet(i)], start=i / 60.0)
            shown.append(cast.frame(i / 60.0 + 0.002))
        frames.append(np.stack(shown)[90:])
    vmc, mocopi = frames
    named = [LIMB[limb] for limb in senders.BONES.values() if limb != "root"]
    # VMC's T comes after the frame here, so that mocopi's frame is the same one or the next
    assert min(np.abs(vmc[1:][:, named, :7] - mocopi[:-1][:, named, :7]).max(),
               np.abs(vmc[:, named, :7] - mocopi[:, named, :7]).max()) < 0.05


def test_ten_senders_over_udp_all_arrive():
    """27 messages a frame, 60 frames, as VMC bundles from ten ports of one host."""
    async def main():
        cast = Cast()
        async with Inbox(cast, "127.0.0.1", 0) as inbox:
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
            try:
                sent = 0
                for i in range(60):
                    packet = senders.vmc_packet(DANCE, i, bones=(*senders.BONES,))
                    extra = [senders.message("/VMC/Ext/Blend/Val", name, 0.5) for name in ("A", "I", "U")]
                    for one in sockets:
                        one.sendto(packet, ("127.0.0.1", inbox.port))
                        one.sendto(senders.bundle(extra), ("127.0.0.1", inbox.port))
                        sent += 2
                    await asyncio.sleep(1 / 60)
                await until(lambda: inbox.packets == sent)
                assert inbox.messages == 600 * (22 + 2 + 3)
                assert inbox.dropped == inbox.refused == 0 and inbox.failed is None
                assert len(cast._members) == 10
                frame = cast.frame(inbox.clock())
                assert np.isfinite(frame).all()
            finally:
                for one in sockets:
                    one.close()
    asyncio.run(main())


def test_python_osc_and_oscsend_are_heard(need):
    need(shutil.which("oscsend"), "no oscsend: install liblo-tools")

    async def main():
        cast = Cast()
        async with Inbox(cast, "127.0.0.1", 0, map=FADER) as inbox:
            with SimpleUDPClient("127.0.0.1", inbox.port) as client:
                client.send_message("/1/fader1", 0.25)
                await until(lambda: inbox.controls == {"density": 0.25})
                for i in range(20):
                    for one in senders.vmc_messages(DANCE, i):
                        client.send(one)
                    client.send_message("/VMC/Ext/T", float(DANCE.times[i]))
                await until(lambda: cast.active(inbox.clock()))
            await asyncio.to_thread(subprocess.run, ["oscsend", "localhost", str(inbox.port), "/1/fader1", "f", "0.75"],
                                    check=True)
            await until(lambda: inbox.controls == {"density": 0.75})
            assert inbox.refused == inbox.dropped == 0
    asyncio.run(main())


def test_a_flood_is_dropped_and_another_sender_goes_through():
    inbox, cast, clock = quiet(map=FADER)
    flood, noise = osc.encode("/1/fader1", [0.5]), ("10.0.0.66", 666)
    for i in range(240):  # 20,000 packets/s beside 60 frames/s
        clock.now = i / 60.0
        for _ in range(333):
            inbox.datagram_received(flood, noise)
        inbox.datagram_received(senders.vmc_packet(DANCE, i), ("10.0.0.1", 5000))
    passed = 4000.0 * (BURST + 239 / 60.0) + 240
    assert inbox.packets == pytest.approx(passed, abs=20)
    assert inbox.dropped == 240 * 334 - inbox.packets
    assert cast.active(clock.now) == ["vmc 10.0.0.1"]
    performer = cast._members[0].player
    assert len(performer._poses) == 64 and performer.last == clock.now  # its latest 64 frames, none missing
    assert np.diff(performer._times).max() < 1.01 / 60.0


def test_a_flood_over_udp_leaves_the_loop_its_ticks():
    """Counts, not times: the bucket's clock stands still, so each source has what may come at once and no more."""
    async def main():
        cast = Cast()
        async with Inbox(cast, "127.0.0.1", 0, map=FADER, rate=300.0, clock=Clock()) as inbox:
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    cast.frame(ticks / 60.0)
                    ticks += 1
                    await asyncio.sleep(1 / 60)

            loop = asyncio.create_task(tick())
            flood, one = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
            packet = osc.encode("/1/fader1", [0.5])
            with flood, one:
                for i in range(60):
                    for _ in range(100):
                        flood.sendto(packet, ("127.0.0.1", inbox.port))
                    one.sendto(osc.encode("/VMC/Ext/T", [float(i)]), ("127.0.0.1", inbox.port))
                    await asyncio.sleep(0.005)
                await until(lambda: inbox.packets + inbox.dropped == 6060)
            loop.cancel()
            assert ticks > 10
            assert inbox.messages == inbox.packets == 60 + 300.0 * BURST and inbox.refused == 0
    asyncio.run(main())


def test_large_packets_count_as_several():
    inbox, _, clock = quiet(rate=100.0)
    packet = osc.encode("/a", [b"x" * (WEIGHT * 4)])
    for _ in range(50):
        inbox.datagram_received(packet, ("10.0.0.1", 1))
    assert inbox.packets == int(100.0 * BURST / 5)


def test_all_together_have_a_limit_too():
    inbox, _, clock = quiet(rate=1000.0, total=400.0)
    for i in range(1000):
        inbox.datagram_received(b"/a\0\0", ("10.0.0.1", i % 10))
    assert inbox.packets == 400.0 * BURST


def test_sources_are_bounded_and_the_silent_make_room():
    inbox, _, clock = quiet()
    for port in range(SOURCES + 20):
        inbox.datagram_received(b"/a\0\0", ("10.0.0.1", port))
    assert inbox.packets == SOURCES and inbox.dropped == 20
    clock.now = FORGOTTEN + 1.0
    inbox.datagram_received(b"/a\0\0", ("10.0.0.9", 1))
    assert inbox.packets == SOURCES + 1 and len(inbox._senders) == 1


def test_bones_of_two_sources_do_not_mix():
    inbox, cast, clock = quiet()
    other = senders.body(4.0, seed=9)
    for i in range(120):
        clock.now = i / 60.0
        parts = zip(senders.vmc_messages(DANCE, i), senders.vmc_messages(other, i), strict=True)
        for one, two in parts:  # interleaved, message by message
            inbox.datagram_received(one.dgram, ("10.0.0.1", 5000))
            inbox.datagram_received(two.dgram, ("10.0.0.1", 5001))
        for port in (5000, 5001):
            inbox.datagram_received(osc.encode("/VMC/Ext/T", [float(DANCE.times[i])]), ("10.0.0.1", port))
    assert cast.active(clock.now) == ["vmc 10.0.0.1", "vmc 10.0.0.1 2"]
    for member, dance in zip(cast._members, (DANCE, other), strict=True):
        last = member.player._poses[-1]
        truth = dance.world()[0][119]
        np.testing.assert_allclose(last.positions - last.positions[0], truth - truth[0], atol=1e-5)


def test_phones_become_one_performer_of_sensors():
    inbox, cast, clock = quiet(map=load_map("zigsim"))
    halves = 0.02 * np.arange(90)
    turns = np.stack([0.0 * halves, 0.0 * halves, np.sin(halves), np.cos(halves)], -1).tolist()
    feed(inbox, clock, [osc.encode("/me/quaternion", turn) for turn in turns])
    assert cast.active(clock.now) == ["sensors"]
    frame = cast.frame(clock.now)
    assert frame[LIMB["r_hand"], 7] == 1.0 and frame[..., 7].sum() == 1.0
    assert frame[LIMB["r_hand"], 6] == pytest.approx(2.4, rel=0.05)


def test_what_is_no_packet_is_refused_and_counted():
    inbox, _, clock = quiet()
    for packet in (b"", b"GET / HTTP/1.1\r\n\r\n", b"#bundle\0" + bytes(8) + b"\xff\xff\xff\xfc", senders.mocopi_head(),
                   b"/VMC/Ext/T\0\0,f\0\0\x7f\xc0\0\0"):
        inbox.datagram_received(packet, ("10.0.0.1", 1))
    assert (inbox.packets, inbox.refused, inbox.messages, inbox.failed) == (5, 5, 0, None)
    feed(inbox, clock, [osc.encode("/unknown", [1])])
    assert (inbox.packets, inbox.refused, inbox.messages) == (6, 5, 1)


def test_a_fault_of_ours_does_not_stop_the_port(monkeypatch):
    inbox, cast, clock = quiet()
    monkeypatch.setattr(cast, "update", lambda *_: 1 / 0)
    feed(inbox, clock, [senders.mocopi_packet(DANCE, 0)])
    assert isinstance(inbox.failed, ZeroDivisionError) and inbox.refused == 1


def test_damaged_packets_through_all_of_it():
    """12,000 of them through the inbox with every preset, and a frame of the cast after every eighth."""
    outcomes = fuzz(12_000, 3, whole_inbox())
    assert all(one.stray == 0 for one in outcomes.values())
    assert sum(one.whole for one in outcomes.values()) > 1_000 < sum(one.refused for one in outcomes.values())


def test_one_packet_cannot_bring_much_work():
    inbox, cast, clock = quiet()
    packet = osc.bundle([one.dgram for i in range(30) for one in senders.vmc_messages(DANCE, i)[:12]])
    calls = []
    cast.update = lambda source, now, pose: calls.append(pose)
    inbox.datagram_received(packet, ("10.0.0.1", 1))
    assert 1 <= len(calls) <= 5


def test_a_port_that_is_taken_is_one_line():
    async def main():
        async with Inbox(Cast(), "127.0.0.1", 0) as inbox:
            with pytest.raises(InputError, match=f"UDP port {inbox.port} of 127.0.0.1 is taken .*--osc 127.0.0.1:PORT"):
                async with Inbox(Cast(), "127.0.0.1", inbox.port):
                    pass
        with pytest.raises(InputError, match="cannot listen on UDP 192.0.2.1:4000 .*--osc HOST:PORT") as caught:
            async with Inbox(Cast(), "192.0.2.1", 4000):
                pass
        assert "\n" not in str(caught.value)
        async with Inbox(Cast(), "127.0.0.1", inbox.port):  # free again
            pass
    asyncio.run(main())
