"""Printed code against the real Strudel, and read back."""

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.drums import DRUMS
from eqdiff_jax.music.grid import TRACKS, Event, events
from eqdiff_jax.music.mini_parse import parse_mini
from eqdiff_jax.music.strudel import EFFECTS, SYNTHS, notes_to_strudel, song_to_strudel, to_strudel
from eqdiff_jax.music.strudel_parse import from_strudel, song_from_strudel
from eqdiff_jax.music.vocabulary import VOCABULARY, pitch_name

IDS = VOCABULARY.ids


def grid_of(**rows: str) -> np.ndarray:
    """A grid from rows of tokens by track, `x*3` for three times x, with rests to the end."""
    grid = np.zeros((12, 32), np.int32)
    for track, row in rows.items():
        words = [word.partition("*") for word in row.split()]
        tokens = [IDS[name] for name, _, times in words for _ in range(int(times or 1))]
        grid[TRACKS.index(track), :len(tokens)] = tokens
    return grid


def expected(grid: np.ndarray, cycle: int = 0) -> list[tuple]:
    """What Strudel has to say of a grid that starts at a cycle: rows of (onset, length, value, gain)."""
    return expected_of(events(grid), cycle)


def expected_of(notes: list[Event], cycle: int = 0) -> list[tuple]:
    """The same of notes."""
    rows = []
    for e in notes:
        drum = isinstance(e.sound, str)
        value = {"s": e.sound} if drum else {
            "s": SYNTHS[TRACKS[e.track]], "note": pitch_name(e.sound).lower()}
        value |= {EFFECTS[name][1]: float(EFFECTS[name][2]) for name in e.effects}
        rows.append((Fraction(e.onset, 16) + cycle, Fraction(e.length) / 16, sorted(value.items()), e.gain))
    return sorted(rows)


def heard(answer: dict) -> list[tuple]:
    """The rows of an answer of the real Strudel, in the same form."""
    assert "error" not in answer, answer["error"]
    return sorted((Fraction(onset), Fraction(length), sorted((k, v) for k, v in value.items() if k != "gain"),
                   value["gain"]) for onset, length, value in answer["events"])


def assert_same(answer: dict, rows: list[tuple], code: str) -> None:
    found = heard(answer)
    assert [row[:3] for row in found] == [row[:3] for row in rows], code
    np.testing.assert_allclose([row[3] for row in found], [row[3] for row in rows], atol=1e-3, err_msg=code)


@pytest.fixture(scope="module")
def grids(random_grid) -> list[np.ndarray]:
    """1,000 legal grids and 200 arbitrary arrays."""
    rng = np.random.default_rng(0)
    return [*(random_grid(rng) for _ in range(1000)), *rng.integers(-3, 90, (200, 12, 32))]


@pytest.fixture(scope="module")
def codes(grids) -> list[str]:
    return [to_strudel(grid) for grid in grids]


@pytest.fixture(scope="module")
def answers(codes, query_strudel) -> Iterator[Future]:
    """What the real Strudel answers to the codes, computed beside the other tests."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(query_strudel, codes)


def test_reading_back_gives_a_structure_free_grid_with_the_same_events(grids, codes, answers):
    del answers  # started; Node works while this does
    for grid, code in zip(grids, codes, strict=True):
        back = from_strudel(code)
        assert events(back) == events(grid), code
        assert back.max() < VOCABULARY.ranges["structure"].start


def test_the_real_strudel_plays_exactly_the_events(grids, codes, answers):
    for grid, code, answer in zip(grids, codes, answers.result(), strict=True):
        assert_same(answer, expected(grid), code)


def test_songs_play_their_grids_one_after_the_other(random_grid, query_strudel):
    rng = np.random.default_rng(1)
    songs = [np.stack([random_grid(rng) for _ in range(count)]) for count in range(1, 9)]
    songs.append(np.repeat(songs[3], [1, 3, 0, 2], axis=0))  # neighbours that are equal
    songs.append(np.concatenate([songs[1], np.zeros_like(songs[1]), songs[1]]))
    codes = [song_to_strudel(song, 93.5) for song in songs]
    programs = [{"code": code, "cycles": 4 * len(song)} for code, song in zip(codes, songs, strict=True)]
    for song, code, answer in zip(songs, codes, query_strudel(programs), strict=True):
        rows = [row for k in range(2 * len(song)) for row in expected(song[k % len(song)], 2 * k)]
        assert_same(answer, sorted(rows), code)
        assert answer["cps"] == pytest.approx(93.5 / 240)
        back = song_from_strudel(code)
        assert [events(g) for g in back] == [events(g) for g in song]


def test_notes_of_no_one_grid_are_played_as_they_are(random_grid, query_strudel):
    """What was heard of a session is the first bar of one grid and the second of another."""
    rng = np.random.default_rng(5)
    song = np.stack([random_grid(rng) for _ in range(3)])
    assert notes_to_strudel([events(grid) for grid in song], 93) == song_to_strudel(song, 93)
    joined = [note for note in events(song[0]) if note.onset + note.length <= 16]
    joined += [note for note in events(song[1]) if note.onset >= 16]
    joined.sort(key=lambda note: (note.track, note.onset))
    # Somewhere the second bar lacks an effect of the first, as no grid can.
    assert any(a.track == b.track and set(a.effects) - set(b.effects) for a, b in zip(joined, joined[1:], strict=False))
    code = notes_to_strudel([joined, [], joined], 93)
    answer, = query_strudel([{"code": code, "cycles": 6}])
    assert_same(answer, sorted([*expected_of(joined), *expected_of(joined, 4)]), code)
    assert notes_to_strudel([[], []], 93) == DRUMS + "setcpm(93/4)\nsilence\n"


def test_a_song_brings_its_drums_along(random_grid, query_strudel):
    rng = np.random.default_rng(3)
    grids = [random_grid(rng) for _ in range(20)] + [np.zeros((12, 32), np.int32)]
    plain, songs = [to_strudel(g, 90) for g in grids], [song_to_strudel(g[None], 90) for g in grids]
    assert songs == [DRUMS + code for code in plain]
    assert not re.search('["`]', DRUMS)  # would be mini-notation
    both = query_strudel([*plain, *songs, *songs])  # the second time in the same session
    assert both[:21] == both[21:42] == both[42:] and not any("error" in answer for answer in both)
    assert all(events(song_from_strudel(song)[0]) == events(g) for song, g in zip(songs, grids, strict=True))


def test_the_drums_in_a_song_may_be_edited_and_errors_still_name_their_place():
    drums = DRUMS.replace(".6 * wave", ".3 * wave").replace("  drum('bd'", "  // softer\n  drum('bd'")
    assert drums.count("\n") == DRUMS.count("\n") + 1
    assert events(from_strudel(drums + HOUSE_CODE)) == events(from_strudel(HOUSE_CODE))
    with pytest.raises(InputError, match=f"line {drums.count(chr(10)) + 1}, column 1: 'bongo' is no track"):
        from_strudel(drums + 'bongo: s("bd")')
    with pytest.raises(InputError, match="not understood"):
        from_strudel(DRUMS.rstrip("}\n") + "\n" + HOUSE_CODE)  # the block never ends
    with pytest.raises(InputError, match="line 1, column 23: '{' is not understood"):
        from_strudel('if (globalThis.other) {\nkick: s("bd")\n}\n')


# Stands for the browser: keeps what is registered, and starts each sound once.
FAKE_AUDIO = """
let seed = 1;
Math.random = () => (seed = seed * 16807 % 2147483647) / 2147483647;  // the same noise every time
const sounds = {}, played = [];
globalThis.AudioBuffer = class {
  constructor({ length }) { this.data = new Float32Array(length); }
  getChannelData() { return this.data; }
};
globalThis.AudioBufferSourceNode = class {
  constructor(context, { buffer }) { this.buffer = buffer; }
  start(at) { played.push([at, this.buffer]); }
};
globalThis.getAudioContext = () => ({ sampleRate: 48000 });
globalThis.registerSound = (name, trigger) => { sounds[name] = trigger; };
for (let times = 0; times < 2; times++) { CODE }
for (const name in sounds) sounds[name](played.length, {}, () => {});
console.log(JSON.stringify(Object.keys(sounds).map((name, i) => [name, played[i][0], [...played[i][1].data]])));
"""


def test_the_drums_of_a_song_are_short_sounds_of_bounded_level(need):
    node = shutil.which("node")
    need(node, "no node: install Node.js 20 or newer")
    run = subprocess.run([node, "-e", FAKE_AUDIO.replace("CODE", DRUMS)], capture_output=True, text=True, check=True)
    sounds = json.loads(run.stdout)
    assert [name for name, _, _ in sounds] == list(VOCABULARY.groups["drum"])
    for at, (name, start, samples) in enumerate(sounds):
        wave = np.array(samples, float)
        assert start == at
        assert 0.2 < np.abs(wave).max() < 0.9, name
        assert np.abs(wave[-1000:]).max() < 2e-3, name  # no click at its end
        assert np.abs(wave[:4410]).max() == np.abs(wave).max(), name


def test_printed_code_is_compact(grids, codes):
    characters, notes = sum(map(len, codes[:1000])), sum(len(events(grid)) for grid in grids[:1000])
    assert characters < 1000 * 1000  # per random grid of twelve tracks
    assert characters < 30 * notes  # gains, effects and labels included
    assert not any("~ ~ ~" in code or len(line) > 400 for code in codes for line in code.split("\n"))


HOUSE = {
    "KICK": "bd ~*3 " * 8, "SNARE": "~*4 sd ~*7 sd ~*3 " * 2, "HH": "~*2 hh ghost " * 8,
    "BASS": "C2 8th ~*2 " * 7 + "G2 8th ~*2",
    "PAD": "C4 legato p ~*13 D#4 half lpf", "STAB": "~*3 D#4 stac ~*3 D#4 stac ~*2 reverb",
}
HOUSE_CODE = """\
setcpm(126/4)
kick: s("[bd ~@3]*4").gain(.63)
snare: s("[~ [sd ~@3]]*2").gain(.63)
hh: s("[~ ~ hh ~]*4").gain(.315)
bass: note("<[c2 ~]*4 [[c2 ~]!3 [g2 ~]]>").s("sawtooth").gain(.63)
pad: note("<c4 [d#4 ~]>").s("triangle").gain(.386).when("<0 1>", x => x.lpf(800))
stab: note("<[~@3 [d#4 ~] ~@4 [d#4 ~] ~@7] ~>").s("sawtooth").gain(.63).when("<[0 1] 1>", x => x.room(.5))
"""


def test_a_house_loop_reads_as_a_person_would_write_it(query_strudel):
    grid = grid_of(**HOUSE)
    assert to_strudel(grid, 126) == HOUSE_CODE
    assert_same(query_strudel([HOUSE_CODE])[0], expected(grid), HOUSE_CODE)


def test_traps_of_the_real_strudel(random_grid, query_strudel):
    rng = np.random.default_rng(2)
    code = to_strudel(random_grid(rng))
    labels = re.findall(r"^(\w+):", code, re.MULTILINE)
    assert labels
    assert all(label == label.lower() for label in labels)  # Snare: would silence the others
    assert '""' not in code  # an empty pattern is an error
    held = grid_of(BASS="~*12 C2 half")
    drums = grid_of(KICK="bd ~*3 " * 8)
    plain = grid_of(LEAD="C5 ~*3 D5")
    switched = grid_of(LEAD="C5 half ~*2 D5 lpf E5")  # C5 is held while lpf switches on
    empty = np.zeros((12, 32), np.int32)
    answers = query_strudel([to_strudel(g) for g in (held, drums, plain, switched, empty)])
    assert [e[:2] for e in answers[0]["events"]] == [["3/4", "1/2"]]  # one note over the bar line
    assert {e[1] for e in answers[1]["events"]} == {"1/16"}  # bd*4 would be four times as long
    assert {tuple(sorted(e[2])) for e in answers[2]["events"]} == {("gain", "note", "s")}  # no neutral effects
    assert ["cutoff" in e[2] for e in answers[3]["events"]] == [False, True, True]
    assert answers[4]["events"] == []


def test_the_empty_grid_is_silence():
    assert to_strudel(np.zeros((12, 32), int), 90) == "setcpm(90/4)\nsilence\n"
    assert not from_strudel("setcpm(90/4)\nsilence\n").any()
    assert not from_strudel("").any()


@pytest.mark.parametrize("bpm", [0, -1, float("nan"), float("inf")])
def test_a_tempo_that_is_none_is_refused(bpm):
    with pytest.raises(InputError, match="bpm"):
        to_strudel(np.zeros((12, 32), int), bpm)
    with pytest.raises(InputError, match="bpm"):
        notes_to_strudel([[]], bpm)


@pytest.mark.parametrize("shape", [(32, 12), (0, 12, 32), (1, 12, 31)])
def test_another_shape_is_refused(shape):
    with pytest.raises(InputError):
        song_to_strudel(np.zeros(shape, int))


HAND_WRITTEN = [
    'kick: s("bd - - - . bd - - - . bd - - - . bd - - -")',
    "kick: s(`<[bd bd bd bd]\n      [bd ~ bd [~ bd]]>`).gain(\"1 .5\") // louder",
    'kick: sound("bd!4").lpf(500)\nhh: s("~ hh ~ hh ~ hh ~ [hh oh]").gain(.6).hpf(2000).delay(.2);',
    'bass: note("c2 _ eb2 g2@1 ".fast(2))\n  .s("square")\n  .gain("<.75 .63>")',
    'lead: note("60 [62 64] <65 67> ~").s("sine").dist(2)',
    '/* muted */ _snare: s("sd*2")\nclap: s("~ cp").fast(2).room(.3)',
    'bass: s("sawtooth!4").note("<c2 c3>").gain(.5)',
    'pad: note("[~@20 c4@8 ~@4]/2").when("<0 1>", x => x.room(.4).lpf(900))',
    'arp: note("<c4 e4 g4 c5>*4").s("triangle").when("0 1".slow(2), y => y.delay(.3))',
    "amb: note(48).s('sine').slow(2)",
]


@pytest.mark.parametrize("code", HAND_WRITTEN)
def test_hand_edits_are_read_as_the_real_strudel_plays_them(code, query_strudel):
    found = [(onset, length, value.get("note", value.get("s"))) for onset, length, value
             in query_strudel([code])[0]["events"]]
    grid = from_strudel(code)
    again = query_strudel([to_strudel(grid)])[0]["events"]
    as_numbers = {"60": "c4", "62": "d4", "64": "e4", "65": "f4", "67": "g4", "48": "c3", "eb2": "d#2"}
    assert [(o, n, as_numbers.get(str(v), v)) for o, n, v in found] == [
        (o, n, v.get("note", v["s"])) for o, n, v in again]


@pytest.mark.parametrize(("code", "words"), [
    ('kick: s("bd*4").jux(rev)', "line 1, column 17: expected a call that a grid can play, found 'jux'"),
    ('\n  bongo: s("bd")', "line 2, column 3: 'bongo' is no track"),
    ('$: s("bd")', "'$' is no track"),
    ('kick: s("bd sd")', "KICK has no sound 'sd'"),
    ('kick: s("bd bd bd")', "off the grid"),
    ('kick: s("bd(3,8)")', "'('"),
    ('bass: note("[c2,e2]")', "','"),
    ('kick: s("bd?")', "'?'"),
    ('kick: s("bd [sd")', "']' is missing"),
    ('kick: s("")', "empty sequence"),
    ('kick: s("bd*0")', "'*' needs a positive number"),
    ('kick: s("bd!9999999")', "a step of weight"),
    ('kick: s("bd"', "expected ')', found 'the end of the code'"),
    ('kick: s("bd)', "is not understood"),
    ('kick: s("bd").gain(2)', "gain 2 is not between 0 and 1"),
    ('kick: s("bd").gain("loud")', "gain loud"),
    ('bass: note("h9")', "'h9' is no note"),
    ('bass: note("c9")', "BASS has no sound 120"),
    ('bass: s("sawtooth")', "BASS has no sound 'sawtooth'"),
    ('bass: note("c2").slow(4)', "two bars"),
    ('bass: note("<c2 d2 e2>")', "repeats after more than two bars"),
    ('kick: s("bd")\nkick: s("bd")', "line 2, column 1: kick stands twice"),
    ('kick: arrange([1, s("bd")])', "even number of cycles"),
    ('kick: arrange([2, s("bd*4")], [2, silence])', "2 grids"),
    ('bass: note("c2@5 ~@11")', "BASS, step 0: a length of 5"),
    ('pad: note("c4*4").when("<1 0>", x => x.lpf(800))', "PAD, step 16: lpf is off again"),
    ("setcpm(alert())", "expected a number"),
    ("kick: s(" + "'bd'" + ").when(1, x => y.lpf(1))", "expected 'x'"),
    ("kick", "expected ':'"),
    ("@", "'@' is not understood"),
    ('kick: s("bd*64*64*64*64")', "more than 256 events"),
    ('kick: s("' + "[" * 5000 + '")', "nested"),
])
def test_what_is_not_understood_is_named_in_one_line(code, words):
    with pytest.raises(InputError) as error:
        from_strudel(code)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def random_mini(rng: random.Random, depth: int = 0) -> str:
    """A random string of the subset of mini-notation that is read."""
    words = []
    for _ in range(rng.randint(1, 4 - depth)):
        kind = rng.random()
        if kind < 0.5 or depth == 2:
            word = rng.choice(["bd", "sd", "hh", "~", "-"])
        else:
            word = ("[{}]" if kind < 0.8 else "<{}>").format(random_mini(rng, depth + 1))
        for _ in range(rng.choice([0, 0, 1, 2])):
            word += rng.choice(["*2", "*3", "*1.5", "/2", "/4", "/1.5", "!2", "!3", "!", "@2", "@3", "@1.5"])
        words.append(word)
        if rng.random() < 0.1:
            words.append("_")
    if depth == 0 and rng.random() < 0.2:
        words += [".", rng.choice(["bd", "[sd ~]"])]
    return " ".join(words)


def test_mini_notation_is_read_as_the_real_strudel_reads_it(query_strudel):
    rng = random.Random(0)
    texts = [random_mini(rng) for _ in range(300)]
    answers = query_strudel([f's("{text}")' for text in texts])
    for text, answer in zip(texts, answers, strict=True):
        assert "error" not in answer, text
        read = sorted((h.whole_begin, h.whole_end - h.whole_begin, h.value)
                      for h in parse_mini(text)(Fraction(0), Fraction(2)) if h.begin == h.whole_begin)
        assert read == sorted((Fraction(o), Fraction(n), v["s"]) for o, n, v in answer["events"]), text


def test_typing_errors_are_refused_or_read_as_the_real_strudel_plays_them(query_strudel):
    rng, accepted = random.Random(0), []
    for _ in range(1500):
        letters = list(rng.choice([HOUSE_CODE, *HAND_WRITTEN]))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(letters))
            letters[place:place + rng.randint(0, 1)] = rng.choice(["", *"[]<>*!@/~-_ .,:;()\"'`0123x=>ab\n"])
        code = "".join(letters)
        try:
            accepted.append((code, events(from_strudel(code))))
        except InputError:
            continue
    assert len(accepted) > 50
    for (code, found), answer in zip(accepted, query_strudel([c for c, _ in accepted]), strict=True):
        if "error" not in answer:
            assert sorted((Fraction(e.onset, 16), Fraction(e.length) / 16) for e in found) == sorted(
                (Fraction(onset), Fraction(length)) for onset, length, _ in answer["events"]), code
