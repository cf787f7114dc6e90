"""Parts to tracks: names, programs and shapes; chords over free tracks; what is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.data import roles
from eqdiff_jax.data.readers import Part
from eqdiff_jax.data.roles import Note
from eqdiff_jax.music.grid import LEGAL, TRACKS
from eqdiff_jax.music.vocabulary import VOCABULARY

ROW = {name: row for row, name in enumerate(TRACKS)}


def part(notes, name="", program=-1, drums=False) -> Part:
    """A part of (onset, length, pitch) notes."""
    return Part(name, program, drums, np.array([(*note, 80) for note in notes], float))


def line(pitches, step=2.0, length=1.0) -> list:
    return [(i * step, length, p) for i, p in enumerate(pitches)]


def chord_line(chords, step=8.0, length=8.0) -> list:
    return [(i * step, length, p) for i, chord in enumerate(chords) for p in chord]


CHORDS = [(60, 64, 67), (57, 60, 65), (59, 62, 67)]


@pytest.mark.parametrize(("given_part", "track"), [
    (part(line([40, 43, 45] * 4), program=33), "BASS"),
    (part(line([64, 67] * 6), name="Slap Bass"), "BASS"),
    (part(line([33, 36, 40] * 4)), "BASS"),  # low and single, nothing else known
    (part(chord_line(CHORDS), program=48), "PAD"),
    (part(chord_line(CHORDS), program=89), "PAD"),
    (part(chord_line(CHORDS, step=4, length=1), program=0), "STAB"),
    (part(chord_line(CHORDS, step=4, length=1), program=27), "STAB"),
    (part(line([72, 76, 79, 74] * 3, length=2), program=80), "LEAD"),
    (part(line([72, 76, 79, 74] * 3), name="MELODY"), "LEAD"),
    (part(line([60, 64, 67, 72] * 8, step=1, length=1), name="Arpeggio 3"), "ARP"),
    (part(line([60, 64, 62] * 3, step=4, length=4), program=53), "VOX"),
    (part(line([50, 48], step=32, length=32), name="Atmosphere"), "AMB"),
    (part(chord_line(CHORDS), name="  vox ", program=33), "VOX"),  # a track's own name beats everything
])
def test_main_track(given_part, track):
    assert TRACKS[roles.assign([given_part], [{0}])[0]] == track
    assert TRACKS[roles.wishes(given_part, ROW[track])[0]] == track


def test_bassoon_and_bass_drum_are_no_bass():
    bassoon = part(line([60, 62, 64, 65] * 3, length=2), name="Bassoon", program=70)
    assert TRACKS[roles.assign([bassoon], [{0}])[0]] != "BASS"
    assert roles.assign([part(line([36]), name="Bass drum", drums=True)], [{0}]) == [-1]


def test_parts_that_sound_together_get_different_tracks_and_others_may_share():
    strings = [part(chord_line(CHORDS * (n + 1)), program=48) for n in range(6)]
    together = roles.assign(strings, [{0, 1, 2}] * 6)
    assert len(set(together)) == 6
    assert len(set(roles.assign(strings, [{n} for n in range(6)]))) == 1


def test_a_chord_spreads_over_free_tracks_and_nothing_is_lost():
    chords = {0: [Note(p, 8, 80) for p in (60, 64, 67)], 16: [Note(p, 8, 80) for p in (57, 60, 64)]}
    placed, lost = roles.place([chords], [roles.wishes(part(chord_line(CHORDS), program=48), ROW["PAD"])])
    assert lost == 0 and len({n.row for n in placed}) == 3 and ROW["BASS"] not in {n.row for n in placed}
    for step, pitches in ((0, {60, 64, 67}), (16, {57, 60, 64})):
        assert {n.sound for n in placed if n.step == step} == pitches  # no octave changed
        # Higher notes in higher tracks.
        voices = sorted((n.sound, n.row) for n in placed if n.step == step)
        assert [row for _, row in voices] == sorted((row for _, row in voices), key=lambda r: sum(roles._RANGES[r]))


def test_a_single_note_of_a_part_with_chords_stays_in_its_main_track():
    chords = {0: [Note(p, 8, 80) for p in (60, 64, 67)], 8: [Note(67, 8, 80)], 16: [Note(p, 8, 80) for p in (57, 62)]}
    placed, _ = roles.place([chords], [[ROW[name] for name in ("PAD", "STAB", "AMB", "ARP")]])
    assert [(n.row, n.sound) for n in placed if n.step == 8] == [(ROW["PAD"], 67)]
    assert ROW["PAD"] in {n.row for n in placed if n.step == 16}


def test_tracks_of_other_parts_are_not_taken_and_losses_are_counted():
    cluster = {4: [Note(60 + i, 2, 80) for i in range(8)]}  # eight pitch classes for six tracks
    wished = [list(roles.PITCHED[1:]) + [ROW["BASS"]]]
    placed, lost = roles.place([cluster], wished)
    assert len(placed) == 6 and lost == 2
    melody = {0: [Note(72, 2, 80)]}
    placed, lost = roles.place([melody, cluster], [[ROW["LEAD"], ROW["PAD"]], *wished])
    assert lost == 3 and [n.step for n in placed if n.row == ROW["LEAD"]] == [0]


def test_octave_doublings_go_first_and_are_no_loss():
    octaves = {0: [Note(p, 4, 80) for p in (48, 52, 55, 60, 64, 67)]}
    three = [[ROW["STAB"], ROW["PAD"], ROW["AMB"]]]
    placed, lost = roles.place([octaves], three)
    assert lost == 0 and {n.sound % 12 for n in placed} == {0, 4, 7}


def test_the_bass_keeps_its_lowest_note():
    placed, lost = roles.place([{0: [Note(40, 2, 80), Note(47, 2, 80)]}], [[ROW["BASS"], ROW["PAD"]]])
    assert [(n.row, n.sound) for n in placed] == [(ROW["BASS"], 40)] and lost == 1


def test_a_line_moves_by_octaves_as_a_whole():
    low = {2 * i: [Note(p, 1, 80)] for i, p in enumerate((28, 33, 35, 40, 31))}
    placed, _ = roles.place([low], [[ROW["BASS"]]])
    assert [n.sound for n in placed] == [40, 45, 47, 52, 43]


@given(st.lists(st.dictionaries(st.integers(0, 31), st.lists(st.integers(0, 127), min_size=1, max_size=7), max_size=6),
                min_size=1, max_size=9), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_whatever_is_placed_is_legal_and_the_losses_are_what_is_missing(pitches, random):
    parts = [{step: [Note(p, 1 + p % 4, 80) for p in chord] for step, chord in mine.items()} for mine in pitches]
    wished = [random.sample(roles.PITCHED, len(roles.PITCHED)) for _ in parts]
    placed, lost = roles.place(parts, wished)
    assert len({(n.row, n.step) for n in placed}) == len(placed)
    assert all(LEGAL[n.row, VOCABULARY.pitch_token(n.sound)] for n in placed)
    missing = 0
    for step in range(32):
        heard = {n.sound % 12 for n in placed if n.step == step}
        asked = [p % 12 for mine in pitches for p in set(mine.get(step, ()))]
        assert heard <= set(asked) and bool(heard) == bool(asked)
        missing += sum(c not in heard for c in asked)
    assert lost == missing


def test_drums_go_by_note_and_the_louder_of_two_in_a_track_stays():
    hits = {0: [Note(36, 1, 90), Note(42, 1, 50), Note(46, 1, 70), Note(39, 1, 60), Note(77, 1, 60)],
            4: [Note(38, 1, 80), Note(38, 1, 90)]}
    placed, lost = roles.place_drums(hits)
    assert {(TRACKS[n.row], n.step, n.sound) for n in placed} == {
        ("KICK", 0, "bd"), ("HH", 0, "oh"), ("CLAP", 0, "cp"), ("FX", 0, "perc"), ("SNARE", 4, "sd")}
    assert lost == 1 and next(n.velocity for n in placed if n.step == 4) == 90
