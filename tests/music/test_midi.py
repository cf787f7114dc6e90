"""Grids as MIDI and back, and MIDI from elsewhere."""

import io
import tarfile

import mido
import numpy as np
import pytest

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.encode import GAINS
from eqdiff_jax.music.grid import LEGAL, TRACKS, events
from eqdiff_jax.music.midi import TICKS_PER_STEP, from_midi, notes_to_midi, song_from_midi, to_midi
from eqdiff_jax.music.midi_tables import CHANNELS, DRUM_NOTES, DRUM_OF_NOTE, EFFECT_CONTROLS
from eqdiff_jax.music.vocabulary import VOCABULARY

ROWS = np.arange(12)[:, None]


def as_bytes(midi: mido.MidiFile) -> bytes:
    buffer = io.BytesIO()
    midi.save(file=buffer)
    return buffer.getvalue()


def test_songs_come_back_with_the_same_events(random_grid):
    rng = np.random.default_rng(0)
    for count in (1, 2, 5) * 20:
        song = np.stack([random_grid(rng) for _ in range(count)])
        back = song_from_midi(as_bytes(to_midi(song, rng.uniform(60, 180))))
        assert [events(g) for g in back] == [events(g) for g in song]


def test_arbitrary_arrays_come_back_too():
    for grid in np.random.default_rng(1).integers(-3, 90, (60, 12, 32)):
        assert events(from_midi(to_midi(grid))) == events(grid)


def test_one_grid_of_a_song_is_found_by_its_bar(random_grid):
    rng = np.random.default_rng(2)
    song = np.stack([random_grid(rng) for _ in range(3)])
    midi = to_midi(song)
    for k, grid in enumerate(song):
        assert events(from_midi(midi, bar=2 * k)) == events(grid)
    with pytest.raises(InputError, match="bar 6"):
        from_midi(midi, bar=6)
    with pytest.raises(InputError, match="bar -1"):
        from_midi(midi, bar=-1)


def test_velocities_stay_distinct_and_find_their_gain():
    rounded = {int(127 * gain + 0.5): gain for gain in GAINS}
    assert len(rounded) == len(GAINS) == 17
    for velocity, gain in rounded.items():
        assert min(GAINS, key=lambda g: abs(g - velocity / 127)) == gain


def test_the_file_is_what_the_tables_say(random_grid):
    grid = np.zeros((12, 32), np.int32)
    ids = VOCABULARY.ids
    grid[0, [0, 4]] = ids["bd"]
    grid[4, :6] = [ids[t] for t in ("C2", "quarter", "~", "~", "D2", "lpf")]
    midi = to_midi(grid, 90)
    assert [t.name for t in midi.tracks] == ["eqdiff_jax", *TRACKS]
    assert midi.length == pytest.approx(8 * 60 / 90)
    assert [m.tempo for m in midi.tracks[0] if m.type == "set_tempo"] == [mido.bpm2tempo(90)]
    kick = [(m.channel, m.note, m.velocity) for m in midi.tracks[1] if m.type == "note_on"]
    assert kick == [(9, 36, 80)] * 2
    bass = [(m.type, m.time) for m in midi.tracks[5] if not m.is_meta]
    assert bass == [("program_change", 0), ("control_change", 0), ("note_on", 0), ("note_off", 480),
                    ("control_change", 0), ("note_on", 0), ("note_off", 120)]
    controls = [(m.control, m.value) for m in midi.tracks[5] if m.type == "control_change"]
    assert controls == [(74, 127), (74, 64)]  # open first: a player may still have it on
    assert len({CHANNELS[t] for t in CHANNELS}) == 8
    assert all(DRUM_OF_NOTE.get(note, "perc") == drum for drum, note in DRUM_NOTES.items())
    assert len({control for control, _, _ in EFFECT_CONTROLS.values()}) == 5


def test_effects_are_off_again_in_the_next_grid():
    grid = np.zeros((12, 32), np.int32)
    grid[4, :2] = VOCABULARY.ids["C2"], VOCABULARY.ids["dist"]
    plain = np.where(grid == VOCABULARY.ids["dist"], 0, grid)
    back = song_from_midi(to_midi(np.stack([grid, plain, grid])))
    assert [events(g)[0].effects for g in back] == [("dist",), (), ("dist",)]


def test_writing_leaves_one_whole_file_or_none(tmp_path):
    path = tmp_path / "song.mid"
    to_midi(np.zeros((2, 12, 32), int), path=path)
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]
    assert song_from_midi(path).shape == (2, 12, 32)
    with pytest.raises(InputError):
        to_midi(np.zeros((12, 32), int), path=tmp_path / "none" / "song.mid")


def test_notes_of_no_one_grid_are_written_like_a_grid_s(random_grid):
    """What was heard of a session is the first bar of one grid and the second of another."""
    rng = np.random.default_rng(5)
    song = np.stack([random_grid(rng) for _ in range(3)])
    assert as_bytes(notes_to_midi([events(grid) for grid in song], 93)) == as_bytes(to_midi(song, 93))
    joined = [note for note in events(song[0]) if note.onset + note.length <= 16]
    joined += [note for note in events(song[1]) if note.onset >= 16]
    joined.sort(key=lambda note: (note.track, note.onset))
    assert joined != events(song[0]) != events(song[1])
    back = song_from_midi(as_bytes(notes_to_midi([joined, [], joined])))
    for read, wrote in zip(map(events, back), (joined, [], joined), strict=True):
        assert [note[:4] for note in read] == [note[:4] for note in wrote]
    assert notes_to_midi([[], []]).length == pytest.approx(8.0)


def test_an_effect_goes_off_where_the_notes_of_another_grid_begin():
    grid = np.zeros((12, 32), np.int32)
    grid[4, :2] = VOCABULARY.ids["C2"], VOCABULARY.ids["dist"]
    wet, = events(grid)
    midi = notes_to_midi([[wet, wet._replace(onset=16, effects=())]])
    number, off, on = EFFECT_CONTROLS["dist"]
    times, now = [], 0
    for message in midi.tracks[1 + wet.track]:
        now += message.time
        times += [(now, message.value)] if message.type == "control_change" and message.control == number else []
    assert times == [(0, on), (16 * TICKS_PER_STEP, off)]


@pytest.mark.parametrize("bpm", [0, 1e9, float("nan")])
def test_a_tempo_that_midi_cannot_say_is_refused(bpm):
    with pytest.raises(InputError, match="bpm"):
        to_midi(np.zeros((12, 32), int), bpm)
    with pytest.raises(InputError, match="bpm"):
        notes_to_midi([[]], bpm)


def test_what_is_no_midi_file_is_refused_in_one_line(tmp_path, random_grid):
    data = as_bytes(to_midi(random_grid(np.random.default_rng(3))))
    text = tmp_path / "text.mid"
    text.write_text("no music")
    for source in (b"", b"MThd", data[:100], data[:-7], text, tmp_path / "missing.mid", tmp_path,
                   data[:12] + b"\xe7\x28" + data[14:]):
        with pytest.raises(InputError) as error:
            from_midi(source)
        assert "\n" not in str(error.value)


def test_broken_bytes_give_a_legal_grid_or_an_input_error(random_grid):
    rng = np.random.default_rng(4)
    data = np.frombuffer(as_bytes(to_midi(random_grid(rng))), np.uint8)
    refused: list[str] = []
    for _ in range(150):
        broken = data.copy()
        places = rng.integers(0, len(data), rng.integers(1, 6))
        broken[places] = rng.integers(0, 256, len(places))
        try:
            grids = song_from_midi(broken.tobytes()[:rng.integers(len(data) // 2, 2 * len(data))])[:4]
        except InputError as error:
            refused.append(str(error))
        else:
            assert LEGAL[ROWS, grids].all()
    assert 0 < len(refused) < 150
    assert not any("\n" in reason for reason in refused)


def foreign(*parts: tuple[int, int, str, list[tuple[float, float, int]]]) -> mido.MidiFile:
    """A file of parts (channel, program, name, [(beat, beats, pitch)])."""
    midi = mido.MidiFile(ticks_per_beat=96)
    for channel, program, name, notes in parts:
        timed = [(0.0, mido.Message("program_change", channel=channel, program=program))]
        for start, length, pitch in notes:
            timed.append((start, mido.Message("note_on", channel=channel, note=pitch, velocity=70)))
            timed.append((start + length, mido.Message("note_on", channel=channel, note=pitch, velocity=0)))
        track, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
        for beat, message in sorted(timed, key=lambda m: m[0]):
            track.append(message.copy(time=round(96 * beat) - now))
            now = round(96 * beat)
        midi.tracks.append(track)
    return midi


def test_parts_of_other_files_get_roles():
    midi = foreign(
        (9, 0, "drums", [(0, 0.1, 35), (1, 0.1, 40), (0.5, 0.1, 44), (2, 0.1, 49), (3, 0.1, 64), (3.02, 1, 36)]),
        (0, 33, "", [(0, 1, 28), (0, 1, 40), (1.01, 0.9, 31)]),  # out of range: an octave up
        (1, 81, "solo", [(0, 2, 96), (2, 0.24, 72)]),
        (2, 90, "", [(0, 4, 60), (0, 4, 64), (0, 4, 67)]),  # of a chord the highest
        (3, 0, "vox", [(1, 1, 60)]),  # by its name
        (4, 81, "", [(0, 0.5, 70)]))  # LEAD has gone to the busier part
    found = {(TRACKS[e.track], e.onset): (e.sound, e.length) for e in events(from_midi(midi))}
    assert found == {
        ("KICK", 0): ("bd", 1), ("KICK", 12): ("bd", 1), ("SNARE", 4): ("sd", 1), ("HH", 2): ("hh", 1),
        ("HH", 8): ("oh", 1), ("FX", 12): ("perc", 1), ("BASS", 0): (40, 4), ("BASS", 4): (43, 4),
        ("LEAD", 0): (84, 8), ("LEAD", 8): (72, 1), ("PAD", 0): (67, found["PAD", 0][1]),
        ("VOX", 4): (60, 4), ("ARP", 0): (70, 2)}
    assert found["PAD", 0][1] in (8, 32)  # 16 sixteenths have no token


@pytest.mark.parametrize("archive", ["freedoom_BSD3", "openmsx_GPL2", "simutrans_Artistic"])
def test_real_files_give_legal_grids(archive, eqdiff_data):
    path = eqdiff_data / "music" / f"{archive}.tar.xz"
    files = windows = notes = drums = 0
    with tarfile.open(path) as tar:
        members = (m for m in tar if m.name.lower().endswith(".mid"))
        for _, member in zip(range(5), members, strict=False):
            grids = song_from_midi(tar.extractfile(member).read())
            assert LEGAL[ROWS, grids].all()
            files, windows = files + 1, windows + len(grids)
            found = [e for grid in grids[::4] for e in events(grid)]
            notes, drums = notes + len(found), drums + sum(isinstance(e.sound, str) for e in found)
    assert files == 5
    assert windows > 50
    assert notes > 20 * windows / 4
    assert drums > 0.1 * notes
