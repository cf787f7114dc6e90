"""OSC packets: round trips, two independent senders, named refusals, and damage of every kind."""

import math
import shutil
import socket
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonosc.osc_bundle import OscBundle
from pythonosc.osc_bundle_builder import OscBundleBuilder
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from benchmarks.osc_fuzz import MUTATIONS, decoders, fuzz
from eqdiff_jax.live import mocopi, osc

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)
SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLE = st.floats(allow_nan=False, allow_infinity=False)
COMMON = [  # tags that python-osc knows and reads as the same values
    st.tuples(st.just("i"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("h"), st.integers(-(2**63), 2**63 - 1)), st.tuples(st.just("f"), SINGLE),
    st.tuples(st.just("d"), DOUBLE), st.tuples(st.just("s"), TEXT),
    st.tuples(st.just("b"), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("r"), st.integers(0, 2**32 - 1)), st.just(("T", True)), st.just(("F", False)),
    st.just(("N", None))]
OURS = [st.tuples(st.just("t"), st.integers(0, 2**64 - 1)), st.tuples(st.just("m"), st.binary(min_size=4, max_size=4)),
        st.tuples(st.just("c"), st.characters(max_codepoint=127, min_codepoint=0)), st.just(("I", osc.IMPULSE)),
        st.just(("b", b""))]
ADDRESS = st.text(st.characters(whitelist_categories=["L", "N"], whitelist_characters="/_-.*"), max_size=20).map(
    lambda name: "/" + name)


@settings(deadline=None)
@given(ADDRESS, st.lists(st.one_of(COMMON + OURS), max_size=12))
def test_what_is_encoded_is_decoded(address, typed):
    tags, values = "".join(tag for tag, _ in typed), tuple(value for _, value in typed)
    packet = osc.encode(address, values, tags)
    assert len(packet) % 4 == 0
    assert osc.decode(packet) == ((address, values),)


@settings(deadline=None)
@given(st.recursive(st.lists(SINGLE, max_size=4), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=8))
def test_bundles_are_flattened_in_order(nested):
    expected = []

    def build(part):
        if any(isinstance(x, list) for x in part):
            return osc.bundle([build(x) for x in part if isinstance(x, list)], 2**64 - 1)
        expected.append(("/x", tuple(part)))
        return osc.encode("/x", part)

    assert osc.decode(build(nested)) == tuple(expected)


@settings(deadline=None)
@given(st.lists(st.lists(st.one_of(COMMON), max_size=8), min_size=1, max_size=4), st.integers(0, 2_085_978_000))
def test_reads_what_python_osc_writes(messages, later):
    builder, expected = OscBundleBuilder(float(later)), []  # a time tag of the past or the far future alike
    for i, typed in enumerate(messages):
        one = OscMessageBuilder(address=f"/message/{i}")
        for tag, value in typed:
            one.add_arg(value, tag)
        builder.add_content(one.build())
        expected.append((f"/message/{i}", tuple(value for _, value in typed)))
        assert osc.decode(one.build().dgram) == (expected[-1],)
    assert osc.decode(builder.build().dgram) == tuple(expected)


@settings(deadline=None)
@given(st.lists(st.lists(st.one_of(COMMON), max_size=8), min_size=1, max_size=4))
def test_python_osc_reads_what_we_write(messages):
    packets = [osc.encode(f"/message/{i}", [value for _, value in typed], "".join(tag for tag, _ in typed))
               for i, typed in enumerate(messages)]
    for i, (packet, typed) in enumerate(zip(packets, messages, strict=True)):
        read = OscMessage(packet)
        assert read.address == f"/message/{i}"
        assert read.params == [value for _, value in typed]
    assert [part.dgram for part in OscBundle(osc.bundle(packets))] == packets


def test_reads_what_oscsend_sends(need):
    need(shutil.which("oscsend"), "no oscsend: install liblo-tools")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10.0)

        def sent(*args: str):
            subprocess.run(["oscsend", "localhost", str(server.getsockname()[1]), *args], check=True)
            return osc.decode(server.recv(65536))

        assert sent("/none") == (("/none", ()),)
        ((address, args),) = sent("/all", "ifshdcmTFNI", "-7", "0.5", "Hüfte links", str(2**40), "1e100", "x",
                                  "00903c7f")
        assert address == "/all"
        assert args[:6] == (-7, 0.5, "Hüfte links", 2**40, 1e100, "x")
        assert isinstance(args[6], bytes) and len(args[6]) == 4
        assert args[7:] == (True, False, None, osc.IMPULSE)
        ((address, args),) = sent("/VMC/Ext/Bone/Pos", "sfffffff", "Head", *["0.25"] * 7)
        assert (address, args) == ("/VMC/Ext/Bone/Pos", ("Head", *[0.25] * 7))


def test_tags_are_inferred():
    args = (True, False, None, 3, 2**40, 0.5, "text", b"blob", osc.IMPULSE)
    packet = osc.encode("/x", args)
    assert b",TFNihfsbI\0" in packet
    assert osc.decode(packet) == (("/x", args),)


NAN, INF = struct.pack(">f", math.nan), struct.pack(">f", math.inf)
HEAD = b"#bundle\0" + bytes(7) + b"\1"
DEEP = b"/a\0\0"
for _ in range(osc.MAX_DEPTH + 1):
    DEEP = HEAD + struct.pack(">i", len(DEEP)) + DEEP


@pytest.mark.parametrize(("packet", "words"), [
    (b"", "not a positive multiple"),
    (b"/a\0", "not a positive multiple"),
    (b"/" + bytes(osc.MAX_SIZE + 3), "more than 65536"),
    (b"/abc", "without its end"),
    (b"GET / HTTP/1.1\r\n\r\n\0\0", "start with /"),
    (b"/a\0b,\0\0\0", "padding"),
    (b"/\xff\xfe\0", "not UTF-8"),
    (b"/a\n\0", "control characters"),
    (b"/a\0\0\0\0\0\0", "comma"),
    (b"/a\0\0,x\0\0", "unknown type tag 'x'"),
    (b"/a\0\0,[]\0", "unknown type tag '\\['"),
    (b"/a\0\0,f\0\0", "cut off"),
    (b"/a\0\0,f\0\0" + NAN, "not finite"),
    (b"/a\0\0,ff\0" + INF + struct.pack(">f", -math.inf), "not finite"),
    (b"/a\0\0,d\0\0" + struct.pack(">d", math.inf), "not finite"),
    (b"/a\0\0,i\0\0" + bytes(8), "4 bytes after"),
    (b"/a\0\0,s\0\0\xff\xff\xff\0", "not UTF-8"),
    (b"/a\0\0,s\0\0abcd", "without its end"),
    (b"/a\0\0,b\0\0" + struct.pack(">i", -4) + bytes(4), "blob"),
    (b"/a\0\0,b\0\0" + struct.pack(">i", 99) + bytes(4), "blob"),
    (b"/a\0\0,b\0\0" + struct.pack(">i", 1) + b"x\0\0y", "padding"),
    (b"/a\0\0,c\0\0" + struct.pack(">I", 200), "not ASCII"),
    (b"#bundle\0" + bytes(4), "without a time tag"),
    (HEAD + struct.pack(">i", -4), "element of -4 bytes"),  # python-osc never comes back from this one
    (HEAD + struct.pack(">i", 0), "element of 0 bytes"),
    (HEAD + struct.pack(">i", 9999) + b"/a\0\0", "element of 9999 bytes"),
    (HEAD + struct.pack(">i", 6) + b"/a\0\0\0\0\0\0", "element of 6 bytes"),
    (DEEP, "deep"),
    (HEAD + (b"\0\0\0\4/a\0\0") * (osc.MAX_MESSAGES + 1), "more than 512 messages"),
    (b"/a\0\0," + b"T" * (osc.MAX_ARGS + 1) + bytes(2), "more than 1024 arguments"),
])
def test_refusals_say_why(packet, words):
    with pytest.raises(osc.OscError, match=words) as caught:
        osc.decode(packet)
    assert "\n" not in str(caught.value)


def test_a_large_finite_sum_is_no_infinity():
    largest = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]
    assert osc.decode(osc.encode("/x", [largest] * 8))[0].args == (largest,) * 8
    assert osc.decode(osc.encode("/x", [1e308] * 4, "dddd"))[0].args == (1e308,) * 4


@pytest.mark.parametrize(("args", "tags"), [
    ([math.nan], None), ([math.inf], "f"), ([1e39], "f"), ([2**31], "i"), (["a\0b"], None), ([object()], None),
    (["text"], "i"), ([b"abc"], "m"), ([1, 2], "i"), ([True], "F"), ([3], "q"), (["ä"], "c"), (["\ud800"], None)])
def test_encode_refuses_what_decode_would(args, tags):
    with pytest.raises(osc.OscError):
        osc.encode("/x", args, tags)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120).map(lambda raw: raw[:len(raw) & ~3]))
def test_random_bytes_decode_or_are_refused(raw):
    for packet in (raw, b"/a\0\0," + raw, HEAD + raw):
        try:
            messages = osc.decode(packet)
        except osc.OscError:
            assert not decoders(packet) or mocopi.looks_like(packet)
            continue
        assert all(one.address.startswith("/") for one in messages)
        assert all(math.isfinite(x) for one in messages for x in one.args if isinstance(x, float))


def test_damaged_packets_raise_nothing_else():
    """30,000 of them; benchmarks/osc_fuzz.py sends two million."""
    outcomes = fuzz(30_000, 7, decoders)
    assert all(one.stray == 0 for one in outcomes.values())
    assert all(one.whole + one.refused == len(one.seconds) > 0 for one in outcomes.values()) and set(outcomes) == set(
        MUTATIONS)
    assert sum(one.refused for one in outcomes.values()) > 15_000
    assert sum(one.whole for one in outcomes.values()) > 3_000
