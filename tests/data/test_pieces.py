"""Files to pieces to windows: regions, quantisation, legality, fingerprints, reasons."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import DRUM, band, midi

from eqdiff_jax.data import pieces
from eqdiff_jax.data.pieces import REASONS, windows
from eqdiff_jax.data.readers import Part, Piece, read_beats, read_lmms, read_midi
from eqdiff_jax.data.roles import PITCHED, Placed
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL, TRACKS, VOCABULARY, descriptors, events, from_events
from eqdiff_jax.music.conductor import instrument_activations

ROW = {name: row for row, name in enumerate(TRACKS)}
DRUMS = ("KICK", "SNARE", "HH", "CLAP", "FX")
ONE = [(s, 1, 60 + s % 5, 80) for s in range(0, 32, 2)]  # two bars of something


def only(counts: Counter) -> dict[str, int]:
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def one_part(notes, program=80, **kwargs) -> Piece:
    return read_midi(midi([("", 0, program, notes)], **kwargs))


# Reading.

def test_regions_of_four_four_and_what_is_left_out():
    notes = [(s, 1, 60, 80) for s in range(0, 160, 2)]
    piece = one_part(notes, meters=[(0, 4, 4), (32, 3, 4), (80, 2, 2), (112, 4, 4)])
    assert piece.regions == ((0, 32), (80, 160))  # 2/2 and 4/4 are one stretch
    kept, counts = windows(piece)
    assert [w.number for w in kept] == [0, 1, 2]  # the last bar has no second one
    assert counts["windows"] == 4 and only(counts) == {"not 4/4": 1}  # three bars of 3/4


def test_a_pickup_moves_the_bar_line():
    piece = one_part([(2 + onset, *rest) for onset, *rest in ONE], meters=[(0, 1, 8), (2, 4, 4)])
    assert piece.regions == ((2, 34),)
    kept, _ = windows(piece)
    assert [e.onset for e in events(kept[0].tokens)] == list(range(0, 32, 2))


def test_no_time_signature_is_four_four():
    assert one_part(ONE, meters=[]).regions == ((0, 32),)


def test_a_bad_key_signature_is_passed_over():
    data = midi([("", 0, 0, ONE)])
    end = data.index(b"\xff\x58")  # before the time signature's delta time comes our own event
    key = b"\xff\x59\x02\x01\xff\x00"
    size = int.from_bytes(data[18:22], "big") + len(key)
    broken = data[:18] + size.to_bytes(4, "big") + data[22:end] + key + data[end:]
    assert len(read_midi(broken).parts[0].notes) == len(ONE)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_broken_bytes_are_read_or_refused_but_never_crash(draw):
    data = bytearray(midi(band(bars=2)))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = data[:draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else data
    try:
        piece = read_midi(bytes(data))
    except InputError:
        return
    kept, counts = windows(piece)
    assert counts["windows"] == len(kept) + sum(only(counts).values())


def test_what_is_no_midi_is_refused():
    for data in (b"", b"MThd", b"RIFF" + bytes(40), midi(band())[:200]):
        with pytest.raises(InputError, match="no MIDI file"):
            read_midi(data)


def test_beats_straighten_a_slowing_recording():
    # Beats at 0.5, 0.52, 0.54 .. seconds; a note on each beat and one right between; MIDI itself at 120 bpm.
    times = np.concatenate([[1.0], 1.0 + np.cumsum(0.5 + 0.02 * np.arange(16))])
    beats = "\n".join(f"{t:.6f} {i % 2 == 0:.1f} {i % 4 == 0:.1f}" for i, t in enumerate(times))
    onsets = sorted([*times[:8], *(times[:8] + times[1:9]) / 2])
    # 8 sixteenths a second
    data = midi([("MELODY", 0, 0, [(8 * t, 1, 60 + i % 12, 80) for i, t in enumerate(onsets)])])
    piece = read_beats(data, beats.encode())
    np.testing.assert_allclose(piece.parts[0].notes[:, 0], np.arange(0, 32, 2), atol=0.02)
    assert piece.regions == ((0, 64),)
    kept, _ = windows(piece, ("LEAD",))
    assert kept[0].confidence == 1.0 and kept[0].bpm == pytest.approx(8 * 60 / (times[8] - times[0]), abs=0.01)
    three = "\n".join(f"{t} 0 {i % 3 == 0:.0f}" for i, t in enumerate(times))
    assert read_beats(data, three.encode()).regions == ()
    with pytest.raises(InputError, match="list of beats"):
        read_beats(data, b"0.1 0\n")


def test_lmms_songs():
    def track(name, notes, basenote, sample=None, muted=False):
        return {"name": name, "sample": sample, "basenote": basenote, "muted": muted, "notes": notes}
    song = {"bpm": "140", "timesig": ["4", "4"], "ticks_per_bar": 192, "tracks": [
        track("Lead", [[0, 24, 57, 100], [24, 12, 60, 100]], "57"),
        track("New", [[0, 24, 69, 100]], "69"),
        track("kick04.ogg", [[0, 0, 57, 100]], "57", "factorysample:drums/kick04.ogg"),
        track("Kick bass", [[12 * i, 12, 40 + i, 100] for i in range(9)], "57"),
        track("Silent", [[0, 12, 57, 100]], "57", muted=True)]}
    piece = read_lmms(json.dumps(song).encode())
    lead, new, kick, bass = piece.parts
    np.testing.assert_array_equal(lead.notes[:, :3], [[0, 2, 69], [2, 1, 72]])
    assert new.notes[0, 2] == 69
    assert kick.drums and kick.notes[0].tolist() == [0, 1, 36, 100]
    assert not bass.drums and piece.tempi == ((0.0, 140.0),)
    with pytest.raises(InputError, match="no flat JSON"):
        read_lmms(b"{}")


# Windows.

def test_a_band_comes_through_as_written():
    piece = read_midi(midi(band(seed=3)))
    kept, counts = windows(piece)
    assert len(kept) == 2 and counts["windows"] == 2 and counts["lost"] == 0 and all(w.full for w in kept)
    (_, _, _, drums), (_, _, _, bass), (_, _, _, chords), (_, _, _, flute) = band(seed=3)
    for w in kept:
        found = {(TRACKS[e.track], e.onset + 32 * w.number, e.sound) for e in events(w.tokens)}
        names = {36: ("KICK", "bd"), 38: ("SNARE", "sd"), 42: ("HH", "hh")}
        here = range(32 * w.number, 32 * w.number + 32)
        assert {(names[p][0], s, names[p][1]) for s, _, p, _ in drums if s in here} <= found
        assert {("BASS", s, p) for s, _, p, _ in bass if s in here} <= found
        assert {("LEAD", s, p) for s, _, p, _ in flute if s in here} <= found
        assert {(s, p) for s, _, p, _ in chords if s in here} <= {
            (s, p) for t, s, p in found if t not in ("LEAD", "BASS")}
        assert (w.confidence, w.bpm, w.lost) == (1.0, 120.0, 0.0)
        np.testing.assert_array_equal(w.descriptors, np.array(descriptors(w.tokens), np.float32))
    np.testing.assert_array_equal(kept[0].activations, np.zeros(12))
    np.testing.assert_array_equal(kept[1].activations, instrument_activations(kept[0].tokens))
    assert kept[1].activations.any()


notes_of_a_part = st.lists(st.tuples(st.floats(0, 63.4), st.floats(0.1, 20), st.integers(0, 127), st.integers(1, 127)),
                           min_size=1, max_size=60)


@given(st.lists(st.tuples(notes_of_a_part, st.booleans(), st.integers(-1, 127)), min_size=1, max_size=6),
       st.sets(st.sampled_from(TRACKS), min_size=1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_grids_are_legal_without_macros_and_masked_where_not_observed(parts, observed, on_grid):
    def array(notes):
        found = np.array(sorted(notes), float)
        return np.column_stack([np.floor(found[:, 0]) if on_grid else found[:, 0], found[:, 1:]])
    piece = Piece(tuple(Part("", program, drums, array(notes)) for notes, drums, program in parts), ((0.0, 64.0),),
                  ((0.0, 100.0),), 64.0)
    kept, counts = windows(piece, tuple(observed))
    assert counts["windows"] == len(kept) + sum(only(counts).values()) == 2
    seen = np.isin(TRACKS, list(observed))
    for w in kept:
        assert (w.tokens[~seen] == VOCABULARY.mask).all() and w.tokens.dtype == np.uint8
        assert LEGAL[np.flatnonzero(seen)[:, None], w.tokens[seen]].all()
        assert not np.isin(w.tokens, list(VOCABULARY.ranges["structure"])).any()
        assert np.isfinite(w.descriptors).all() and not w.activations[~seen].any()


@given(st.lists(st.tuples(st.sampled_from(range(12)), st.integers(0, 31), st.floats(0.25, 40), st.floats(1, 127)),
                max_size=60, unique_by=lambda n: n[:2]))
@settings(max_examples=150, deadline=None)
def test_simplified_notes_can_be_said_exactly(drawn):
    sounds = {"KICK": "bd", "SNARE": "sd", "HH": "hh", "CLAP": "cp", "FX": "tom"}
    placed = [Placed(row, step, sounds.get(TRACKS[row], 60), length, velocity) for row, step, length, velocity in drawn]
    simple = pieces.simplified(placed)
    assert sorted((e.track, e.onset, e.sound) for e in simple) == sorted((p.row, p.step, p.sound) for p in placed)
    assert events(from_events(simple)) == simple


def test_loud_and_soft_become_a_level_with_accents_and_ghosts():
    velocities = [97, 96, 127, 95, 45, 96, 97, 96]
    simple = pieces.simplified([Placed(ROW["SNARE"], 4 * i, "sd", 1, v) for i, v in enumerate(velocities)])
    factors = [1, 1, 1.25, 1, 0.5, 1, 1, 1]
    assert [e.gain for e in simple] == pytest.approx([96 * f / 127 for f in factors])


@pytest.mark.parametrize(("notes", "reason"), [
    ([(0, 1, 60, 80), (40, 1, 60, 80)], "too few notes"),
    ([(16 * bar, 16, 48 + 3 * i, 80) for i in range(6) for bar in (0, 1)], "too few notes"),  # two chords
    ([(2 * i + (0.4 if i % 2 else -0.4) * (i > 0), 1, 60, 80) for i in range(16)], "off the grid"),
])
def test_reasons(notes, reason):
    kept, counts = windows(one_part(notes, program=0))
    assert not kept and reason in only(counts)


def test_too_many_lost_notes_drop_a_window():
    clusters = [(s, 4, 50 + i, 80) for s in range(0, 32, 8) for i in range(12)]
    kept, counts = windows(one_part(clusters))
    assert not kept and only(counts) == {"too many notes lost": 1} and counts["lost"] == 4 * 6


def test_silence_in_between_is_counted_and_resets_the_activations():
    notes = [*ONE, *((64 + onset, *rest) for onset, *rest in ONE)]
    kept, counts = windows(one_part(notes))
    assert [w.number for w in kept] == [0, 2] and only(counts) == {"empty": 1}
    assert not kept[1].activations.any()


def test_a_constant_delay_is_taken_out_but_swing_is_not_mistaken_for_one():
    straight, _ = windows(read_midi(midi(band())))
    late, _ = windows(read_midi(midi(band(late=0.22))))
    assert len(late) == len(straight) == 2
    for a, b in zip(straight, late, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert b.confidence == 1.0
    swing = np.array([4 * i + x for i in range(8) for x in (0, 8 / 3)])
    assert pieces.lead(swing) == 0.0 and pieces.lead(swing + 0.1) == pytest.approx(0.1)
    kept, counts = windows(one_part([(s, 1, 60, 80) for s in swing]))
    assert not kept and only(counts) == {"off the grid": 1}  # half of it lies between sixteenths


@pytest.mark.parametrize(("tempi", "bpm"), [
    ([(0, 126)], 126), ([(0, 240)], 120), ([(0, 40)], 80), ([(0, 14)], 112), ([(0, 100), (16, 50)], 200 / 3)])
def test_tempo_is_averaged_and_folded(tempi, bpm):
    kept, _ = windows(one_part(ONE, tempi=tempi))
    assert kept[0].bpm == pytest.approx(bpm, abs=0.02)


# Fingerprints.

@given(st.integers(0, 50), st.integers(-4, 4))
@settings(max_examples=25, deadline=None)
def test_transposed_files_have_equal_fingerprints(seed, up):
    original, _ = windows(read_midi(midi(band(seed))))
    moved, _ = windows(read_midi(midi(band(seed, up=up))))
    assert [w.fingerprint for w in original] == [w.fingerprint for w in moved] and len(original) == 2
    if up:
        assert any((a.tokens != b.tokens).any() for a, b in zip(original, moved, strict=True))


def test_fingerprints_of_grids(random_grid):
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(40):
        notes = events(random_grid(rng))
        key = pieces.fingerprint(notes)
        seen.add(key)
        assert len(key) == 16
        for up in range(1, 12):
            moved = [n if isinstance(n.sound, str) else n._replace(sound=n.sound + up) for n in notes]
            assert pieces.fingerprint(moved[::-1]) == key
        assert pieces.fingerprint([n._replace(gain=0.5, length=1.0) for n in notes]) == key
    assert len(seen) == 40
    # One pitched note moved alone, one onset, one drum: other music.
    base = [n for n in events(random_grid(rng)) if n.onset != 31]
    note = next(n for n in base if n.track in PITCHED)
    key = pieces.fingerprint(base)
    for other in (note._replace(onset=31), note._replace(onset=31, track=0, sound="bd")):
        assert pieces.fingerprint([*base, other]) != key
    two = [note._replace(onset=0, sound=60), note._replace(onset=4, sound=64)]
    assert pieces.fingerprint(two) != pieces.fingerprint([two[0], two[1]._replace(sound=63)])


def test_a_window_with_everything_is_full_and_others_are_not():
    for left_out in range(3):
        parts = [p for i, p in enumerate(band()) if i != left_out and not (left_out == 2 and i == 3)]
        kept, _ = windows(read_midi(midi(parts)))
        assert kept and not any(w.full for w in kept)


def test_drums_alone_from_a_source_of_drums():
    kept, _ = windows(read_midi(midi([("", DRUM, 0, band()[0][3])])), DRUMS)
    assert kept and not kept[0].full
    assert (kept[0].tokens[list(PITCHED)] == VOCABULARY.mask).all()
    assert kept[0].descriptors[0] > 0 and kept[0].descriptors[1] == 0
