"""mocopi's own packets: agreement with an independent forward kinematics, handedness, named refusals, damage."""

import struct

import numpy as np
import pytest
import senders
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.live import mocopi, osc
from eqdiff_jax.motion.skeleton import LIMB

DANCE = senders.body(0.5)


@pytest.mark.parametrize("left_handed", [False, True])
def test_agrees_with_forward_kinematics(left_handed):
    positions, rotations = DANCE.world(1.7)
    for i in range(0, len(DANCE.times), 5):
        packet = senders.mocopi_packet(DANCE, i, left_handed=left_handed)
        pose = mocopi.to_pose(mocopi.decode(packet))
        np.testing.assert_allclose(pose.positions, positions[i], atol=1e-5)
        assert (1.0 - np.abs((pose.rotations * rotations[i]).sum(-1))).max() < 1e-6
        np.testing.assert_array_equal(pose.confidence, 1.0)
        assert pose.stamp == pytest.approx((1000 + i) / 60.0) and pose.height is None
    assert pose.positions[LIMB["l_up_leg"], 0] != pose.positions[LIMB["r_up_leg"], 0]


def test_a_skeleton_is_no_frame():
    assert mocopi.decode(senders.mocopi_skeleton()) is None


def test_is_told_apart_from_osc():
    assert mocopi.looks_like(senders.mocopi_packet(DANCE, 0)) and mocopi.looks_like(senders.mocopi_skeleton())
    assert not any(map(mocopi.looks_like, (b"", b"/a", senders.vmc_packet(DANCE, 0), osc.encode("/head"))))
    with pytest.raises(osc.OscError):
        osc.decode(senders.mocopi_packet(DANCE, 0))


HEAD = senders.mocopi_head()
TRAN = (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)


NUMBER = senders.chunk("fnum", struct.pack("<I", 5))


def frame(bones: bytes, number=NUMBER) -> bytes:
    return HEAD + senders.chunk("fram", number + senders.chunk("btrs", bones))


def bones(count=27, first=TRAN, kind="btdt"):
    return b"".join(senders.mocopi_bone(kind, i, *(first if i == 0 else TRAN)) for i in range(count))


@pytest.mark.parametrize(("packet", "words"), [
    (b"", "no chunk b'head'"),
    (b"\0\0\0", "cut off"),
    (struct.pack("<I", 9999) + b"head", "9999 bytes where 0 are left"),
    (HEAD + b"\1\2\3", "cut off"),
    (HEAD, "no frame and no skeleton"),
    (frame(bones()) + senders.chunk("skdf", b""), "or both"),
    (HEAD + HEAD, "comes twice"),
    (HEAD.replace(b"sony", b"tony") + senders.chunk("skdf", b""), "not version 1"),
    (HEAD.replace(b"vrsn\1", b"vrsn\2") + senders.chunk("skdf", b""), "not version 1"),
    (frame(bones(26)), "26 bones"),
    (frame(bones(28)), "bone 27"),
    (frame(bones() + senders.mocopi_bone("btdt", 3, *TRAN)), "bone 3 comes twice"),
    (frame(bones(kind="bndt")), "among the bones"),
    (frame(bones(), senders.chunk("fnum", b"\0\0")), "2 bytes where 4"),
    (frame(bones(), b""), "no chunk b'fnum'"),
    (frame(bones(first=((np.nan, 0, 0, 1), (0, 0, 0)))), "bone 0"),
    (frame(bones(first=((0, 0, 0, 1), (0, np.inf, 0)))), "bone 0"),
    (frame(bones(first=((0, 0, 0, 0), (0, 0, 0)))), "bone 0"),
    (frame(senders.chunk("btdt", senders.chunk("bnid", b"\0\0"))), "no chunk b'tran'"),
    (frame(senders.chunk("btdt", senders.chunk("bnid", b"\0\0") + senders.chunk("tran", bytes(24)))), "24 bytes"),
    (frame(bones() * 8), "more than 8192"),
])
def test_refusals_say_why(packet, words):
    with pytest.raises(mocopi.MocopiError, match=words):
        mocopi.decode(packet)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 2000))
def test_damaged_packets_are_poses_or_refused(changes, length):
    packet = bytearray(senders.mocopi_packet(DANCE, 4))
    for at, value in changes:
        packet[at % len(packet)] = value
    for damaged in (bytes(packet), bytes(packet[:length])):
        try:
            found = mocopi.decode(damaged)
        except mocopi.MocopiError:
            continue
        if found is not None:
            pose = mocopi.to_pose(found)
            assert np.isfinite(pose.positions).all() and np.isfinite(pose.rotations).all()
