"""Session logs: valid line by line, whole after a kill, replayed to the same grids, exported, read by training."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jsonschema
import mido
import numpy as np
import pytest
from bars import pair
from grids import grid_of
from test_sample import export as small_checkpoint

from eqdiff_jax import motion
from eqdiff_jax.composer import PROCESS
from eqdiff_jax.data.sessions import session_rows, snapshots
from eqdiff_jax.errors import InputError
from eqdiff_jax.live import log
from eqdiff_jax.live.log import BAR_SCHEMA, SessionLog, replay, snapshot, song
from eqdiff_jax.live.worker import Job, Made, make
from eqdiff_jax.motion.limbs import REST_FRAME
from eqdiff_jax.motion.windows import boundaries, padded_trajectory, window_means
from eqdiff_jax.music import events, song_from_midi, song_from_strudel
from eqdiff_jax.music.conductor import initial_state
from eqdiff_jax.music.grid import BAR, STEPS
from eqdiff_jax.targets import DEFAULT_RULES, Rule

TESTS = Path(__file__).parents[1]
VALIDATOR = jsonschema.Draft202012Validator(BAR_SCHEMA)
RULES = DEFAULT_RULES | {"range": Rule("tension", 0.1, 0.8, "s", 0.5, {"Climax": 0.25})}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_is_valid(tmp_path):
    VALIDATOR.check_schema(BAR_SCHEMA)
    rng = np.random.default_rng(0)
    written = SessionLog(tmp_path / "a" / "night.jsonl")
    before = None
    for window in range(40):
        job, made = pair(rng, window, before=before, mode=("diffusion", "threshold", "modulate")[window % 3])
        made = made._replace(margin=float("nan")) if window == 5 else made
        for bar in (2 * window, 2 * window + 1):
            written.append(job, made, bar=bar, tempo=120.0, missed=("late",) * (window % 2), frame=240 * bar)
        before = made if window % 7 else pair(rng)[1]  # now and then from a grid that was never heard
    written.close()
    lines = lines_of(tmp_path / "a" / "night.jsonl")
    assert len(lines) == 80 and not written.lost
    for line in lines:
        VALIDATOR.validate(line)
    assert set().union(*lines) == set(BAR_SCHEMA["properties"])
    assert [i for i, line in enumerate(lines) if "previous" in line] == [2 * k for k in range(1, 40) if k % 7 == 1]
    assert max(map(len, map(json.dumps, lines))) < 12000


def test_the_schema_refuses_what_is_no_bar():
    line = snapshot(*pair(np.random.default_rng(1)), bar=0, tempo=120.0, timestamp=1.0)
    assert not list(VALIDATOR.iter_errors(line))
    wrong = [{k: v for k, v in line.items() if k != name} for name in BAR_SCHEMA["required"]]
    assert len(wrong) == 7
    wrong += [line | change for change in (
        {"z": line["z"][:-1]}, {"z": ["0"] * 32}, {"genre": "polka"}, {"bpm": 0}, {"bpm": "fast"},
        {"dynamics": line["dynamics"] | {"energy": 1.5}}, {"dynamics": line["dynamics"] | {"anger": 0.5}},
        {"dynamics": {"energy": 1.0}}, {"instrumentActivations": [2.0] * 12}, {"tokens": [[81] * 32] * 12},
        {"tokens": line["tokens"][:-1]}, {"section": [0.2] * 5}, {"mode": "joint"}, {"window": -1}, {"steps": 1.5},
        {"activePattern": None}, {"previous": {"tokens": line["tokens"]}}, {"candidates": 1.5}, {"control": -1},
        {"targets": line["targets"][:-1]}, {"targets": [2.0] * 7}, {"rules": {"loudness": ["energy", 0, 1]}},
        {"rules": {"range": "energy"}}, {"bucket": -1}, {"bars": 0.5})]
    assert all(list(VALIDATOR.iter_errors(bar)) for bar in wrong)


def test_training_reads_the_conditioning_that_a_bar_was_played_from(params, played, tmp_path):
    path = tmp_path / "night.jsonl"
    write(path, played)
    rows = list(session_rows(path))
    assert [name for name, _ in rows] == [f"night/{i}" for i in range(len(lines_of(path)))]
    bars = [made for _, made, count in played for _ in range(count)]
    for (_, row), made in zip(rows, bars, strict=True):
        np.testing.assert_array_equal(row["conditioning"], made.conditioning)
        np.testing.assert_array_equal(row["tokens"], made.tokens)
        assert row["source"] == "session" and row["observed"].all()


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    from eqdiff_jax.training import checkpoint
    tree = checkpoint.load(small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small"))
    return tree | {"weights": jax.jit(motion.prepare)(tree["motion"])}


@pytest.fixture(scope="module")
def played(params) -> list[tuple[Job, Made, int]]:
    """(job, grid, bars heard) of a session as the engine plays it: modes and genres change, grids get lost."""
    bpm, count = 150.0, 9
    edges = boundaries(round(60 * 480 / bpm * count), bpm)
    limbs = motion.demo("build", 480 / bpm * count, jax.random.key(3))
    z, velocity, dynamics = window_means(padded_trajectory(params["motion"], limbs[:edges[-1]]), edges)
    heard, newest, lost = [], None, None
    for i in range(count):
        now = jax.tree.map(lambda x, i=i: float(x[i]), dynamics)
        origin = lost if i == 6 else newest  # the page was sent it, and never played it
        before = origin[1] if origin else None
        mode = ("diffusion", "diffusion", "diffusion", "threshold", "modulate")[i % 5]
        job = Job(i, 11, mode, z[i], velocity[i], now, REST_FRAME, "techno" if i > 3 else None, bpm,
                  before.conductor if before else initial_state(11),
                  before.tokens if before else np.full((12, 32), PROCESS.mask, np.int32),
                  before.conditioning if before else None,
                  before.activations if before else np.zeros(12, np.float32), most=9 if i in (2, 7) else 0,
                  candidates=3 if i == 1 else 1, control=0.5 if i == 2 else 1.0, rules=RULES if i in (1, 6) else None,
                  bucket=before.bucket if before else 0, bars=1 if mode == "diffusion" else 2)
        made = make(params, job)
        if i == 5:
            lost = (job, made)
        else:
            newest = (job, made)
            heard.append((job, made, {"diffusion": 1, "threshold": 2, "modulate": 4}[mode]))
    assert any(job.bucket for job, _, _ in heard)
    return heard


def write(path, played):
    written, bar = SessionLog(path), 0
    for job, made, count in played:
        for _ in range(count):
            written.append(job, made, bar=bar, tempo=job.bpm)
            bar += 1
    written.close()


def test_replay_gives_the_same_grids(params, played, tmp_path):
    path = tmp_path / "night.jsonl"
    write(path, played)
    again = list(replay(path))
    assert [p.job.window for p in again] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert sum("previous" in line for line in lines_of(path)) == 1  # of the grid that was made from one never heard
    assert {p.job.mode for p in again} == {"diffusion", "threshold", "modulate"}
    for found, (job, made, count) in zip(again, played, strict=True):
        remade = make(params, found.job)
        np.testing.assert_array_equal(remade.tokens, made.tokens)
        np.testing.assert_array_equal(found.tokens, made.tokens)
        np.testing.assert_array_equal(remade.conditioning, made.conditioning)
        assert remade.code == found.code == made.code and remade.conductor == made.conductor
        assert (found.bars, found.tempo, remade.steps, remade.temperature) == (
            count, job.bpm, made.steps, made.temperature)
        assert found.job.dynamics == job.dynamics and found.job[-5:] == job[-5:] == (
            job.candidates, job.control, job.rules, job.bucket, job.bars)
        assert remade.bucket == made.bucket and (remade.asked == made.asked).all()
    assert {p.tokens.tobytes() for p in again} != {again[0].tokens.tobytes()}


def test_another_seed_is_another_session(params, played, tmp_path):
    path = tmp_path / "night.jsonl"
    write(path, [(job._replace(seed=12), made, count) for job, made, count in played[:2]])
    first = next(replay(path))
    assert (make(params, first.job).tokens != first.tokens).any()


def test_a_log_that_goes_on_after_a_crash_begins_anew(tmp_path):
    rng, path = np.random.default_rng(3), tmp_path / "night.jsonl"
    first, second = pair(rng), pair(rng)  # both window 0, from nothing
    write(path, [(*first, 2)])
    write(path, [(*second, 2), (*pair(rng, 1, before=second[1]), 2)])
    again = list(replay(path))
    assert [p.job.window for p in again] == [0, 0, 1] and [p.bars for p in again] == [2, 2, 2]
    assert again[1].job.previous_conditioning is None and (again[1].job.previous == PROCESS.mask).all()
    np.testing.assert_array_equal(again[2].job.previous, second[1].tokens)
    assert [("previous" in line) for line in lines_of(path)] == [False, False, True, False, False, False]
    assert all(VALIDATOR.is_valid(line) for line in lines_of(path))


@pytest.mark.parametrize(("change", "words"), [
    ({"seed": None}, "it lacks 'seed'"),
    ({"conductor": [1, 2]}, "bar 3"),
    ({"mode": "joint"}, "unknown mode 'joint'"),
    ({"tokens": None}, "it lacks 'tokens'"),
    ({"previous": {"tokens": []}}, "it lacks 'conditioning'|reshape"),
    ({"previous": 3}, "not subscriptable"),
])
def test_a_log_that_cannot_be_replayed_is_named(change, words, tmp_path):
    rng = np.random.default_rng(2)
    lines = [snapshot(*pair(rng, i), bar=i, tempo=120.0, timestamp=0.0) for i in range(4)]
    lines[2] = {k: v for k, v in (lines[2] | change).items() if v is not None}
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=words) as error:
        list(replay(tmp_path / "bad.jsonl"))
    assert "bar 3: does not say how its grid was made" in str(error.value) and "\n" not in str(error.value)


# Crashes.

def apart(program, *args):
    """What a program prints, as JSON, run in a process of its own."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program, *map(str, args)], capture_output=True,
                         text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


WRITER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
from bars import pair
from eqdiff_jax.live.log import SessionLog
from eqdiff_jax.live.record import LimbRecord

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
rng, job, made = random.Random(0), *pair(np.random.default_rng(0))
acknowledged, recorded, next_bar, lives = [], [], 0, []
for life in range(kills):
    ears, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        log, limbs, bar = SessionLog(folder / 'night.jsonl'), LimbRecord(folder / 'night.limbs.npy', chunk=7), next_bar
        while True:
            log.append(job, made, bar=bar, tempo=120.0, frame=limbs.frames)
            for i in range(20):
                limbs.append(np.full((27, 8), bar % 50, np.float32))
            os.write(mouth, json.dumps([bar, limbs.frames]).encode() + b'\\n')
            bar += 1
    os.close(mouth)
    with os.fdopen(ears, 'rb') as pipe:
        heard = b''.join(pipe.readline() for _ in range(rng.randrange(5)))  # none: it may die before its first bar
        time.sleep(rng.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said = [json.loads(line) for line in (heard + pipe.read()).split(b'\\n') if line.endswith(b']')]
    if said:
        acknowledged += [bar for bar, _ in said]
        recorded.append(said[-1][1])
        next_bar = said[-1][0] + 1
    lives.append(len(said))
print(json.dumps([acknowledged, recorded, lives]))
"""


def test_fifty_kills_lose_no_bar_that_was_written(tmp_path):
    acknowledged, recorded, lives = apart(WRITER, tmp_path, 50)
    assert len(lives) == 50 and sum(n > 0 for n in lives) > 25
    path = tmp_path / "night.jsonl"
    bars = [bar["bar"] for bar in snapshots(path)]
    assert set(acknowledged) <= set(bars)
    # A bar may be on disk though its writer was killed before it could say so; then the next one writes it again.
    assert sorted(set(bars)) == list(range(max(bars) + 1)) and len(bars) - len(set(bars)) <= 50
    for line in lines_of(path):
        VALIDATOR.validate(line)
    limbs = motion.load(tmp_path / "night.limbs.npy")
    assert recorded == sorted(recorded) and len(limbs) >= recorded[-1]
    print(f"{len(bars)} bars, {len(limbs)} frames, {sum(n == 0 for n in lives)} writers killed before their first bar")


def test_a_torn_line_is_cut_off_wherever_it_is_torn(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "night.jsonl"
    first, second = pair(rng), pair(rng, 1)
    write(path, [(*first, 1), (*second, 1)])
    whole = path.read_bytes()
    ends = [whole.index(b"\n") + 1, len(whole)]
    cuts = [0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[1] - 1, *rng.integers(0, len(whole), 40)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        assert len(list(snapshots(path))) == kept + (cut in (ends[0] - 1, ends[1] - 1))  # whole but for its newline
        again = SessionLog(path)
        again.append(*first, bar=9, tempo=99.0)
        again.close()
        lines = lines_of(path)
        assert len(lines) == kept + 1 and lines[-1]["tempo"] == 99.0
    path.write_bytes(whole + b"\0" * 200000)  # what some file systems leave after a power cut
    SessionLog(path).close()
    assert path.read_bytes() == whole


FULL = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
from bars import pair
from eqdiff_jax.live.log import SessionLog
from eqdiff_jax.live.record import LimbRecord

folder = Path(sys.argv[1])
log, limbs = SessionLog(folder / 'night.jsonl'), LimbRecord(folder / 'night.limbs.npy', chunk=10)
job, made = pair(np.random.default_rng(0))

def play(bars):
    for bar in bars:
        log.append(job, made, bar=bar, tempo=120.0)
        limbs.append(np.zeros((10, 27, 8)))

play(range(3))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = (folder / 'night.jsonl').stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
play(range(3, 5))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
play(range(5, 7))
print(json.dumps([log.lost, log.error, limbs.lost, limbs.error, limbs.frames]))
"""


def test_a_full_disk_costs_the_lines_that_do_not_fit_and_nothing_else(tmp_path):
    """A limit on the size of a file stands for the disk."""
    lost, error, frames_lost, limbs_error, frames = apart(FULL, tmp_path)
    assert lost == 2 and re.search(r"night.jsonl: cannot be written \(.+\)", error)
    assert [bar["bar"] for bar in snapshots(tmp_path / "night.jsonl")] == [0, 1, 2, 5, 6]
    assert frames_lost + frames == 70 and bool(frames_lost) == bool(limbs_error)
    assert len(motion.load(tmp_path / "night.limbs.npy")) == frames


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "night.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be written") as error:
            SessionLog(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


# Export.

@pytest.fixture
def session(tmp_path, random_grid):
    """A log of five grids, the third of which stays for four bars, and its grids two bars at a time."""
    rng, path, bar, heard = np.random.default_rng(4), tmp_path / "night.jsonl", 0, []
    written = SessionLog(path)
    for window, count in enumerate((2, 2, 4, 2, 2)):
        job, made = pair(rng, window, tokens=random_grid(rng))
        for _ in range(count):
            written.append(job, made, bar=bar, tempo=120.0 if bar < 6 else 90.0)
            bar += 1
        heard += [made.tokens] * (count // 2)
    written.close()
    return path, np.stack(heard)


def test_export_plays_what_was_heard(session, tmp_path, query_strudel):
    path, heard = session
    parts, tempos = song(path)
    assert parts == [events(grid) for grid in heard]
    assert tempos == [120.0] * 3 + [90.0] * 3
    paths = log.export(path, tmp_path / "out")
    assert [p.name for p in paths] == ["night.mid", "night.strudel.js"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["night.mid", "night.strudel.js"]
    for back in (song_from_midi(paths[0]), song_from_strudel(paths[1].read_text())):
        assert [[e[:4] for e in events(g)] for g in back] == [[e[:4] for e in events(g)] for g in heard]
    answer = query_strudel([{"code": paths[1].read_text(), "cycles": 2 * len(heard)}])[0]
    assert len(answer["events"]) == sum(len(events(g)) for g in heard) and answer["cps"] in (0.5, 90 / 240)
    assert mido.MidiFile(paths[0]).length == pytest.approx(3 * 480 / 120 + 3 * 480 / 90)  # seconds


def test_a_log_from_elsewhere_exports_by_twos(tmp_path, random_grid):
    rng = np.random.default_rng(5)
    lines = [snapshot(*pair(rng, i // 2, tokens=random_grid(rng)), bar=0, tempo=100.0, timestamp=0.0) for i in range(5)]
    for line in lines:
        for name in ("bar", "tempo"):
            del line[name]
        line["bpm"] = 100.0
    lines[1]["tempo"], lines[2]["tempo"], lines[4]["bar"] = "fast", -3, "x"
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts, tempos = song(tmp_path / "old.jsonl")
    read = [events(np.array(line["tokens"], np.int32)) for line in lines]
    for part, (i, j) in zip(parts, ((0, 1), (2, 3), (4, 4)), strict=True):
        assert begun(part) == sorted(begun(n for n in read[i] if n.onset < BAR) + begun(
            n for n in read[j] if n.onset >= BAR))
    assert tempos == [100.0] * 3


def begun(notes):
    """What begins when; the sound as text, so that it can be sorted."""
    return [(n.track, n.onset, str(n.sound), n.gain) for n in notes]


def lengths(notes):
    """Onset and length of each note, by track."""
    return {track: [(n.onset, n.length) for n in notes if n.track == track] for track in {n.track for n in notes}}


def test_a_bar_of_one_grid_goes_on_in_the_second_bar_of_the_next(tmp_path):
    """Bar 0 is the first of grid A, bar 1 the second of B, bar 2 the first of C and bar 3 its second."""
    long = " ".join(["~"] * 14)
    a = grid_of(BASS=f"{long} C2 legato", PAD=f"{long} C3 legato", LEAD=f"{long} C4 legato", KICK="bd")
    b = grid_of(BASS=" ".join(["~"] * 20) + " D2", LEAD=" ".join(["~"] * 16) + " D4", SNARE="sd")
    c = grid_of(KICK=" ".join(["bd ~ ~ ~"] * 8))
    rng, written = np.random.default_rng(6), SessionLog(tmp_path / "night.jsonl")
    for bar, (window, grid) in enumerate(((0, a), (1, b), (2, c), (2, c))):
        written.append(*pair(rng, window, tokens=grid), bar=8 + bar, tempo=120.0)
    written.close()
    first, second = song(tmp_path / "night.jsonl")[0]
    alone = lengths(events(a))
    assert alone[4] == [(14, 18.0)] and alone[5] == [(14, 18.0)]  # held to the end of their own grid
    assert lengths(first) == {0: [(0, 1.0)], 4: [(14, 6.0), (20, 1.0)], 5: [(14, 18.0)], 6: [(14, 2.0), (16, 1.0)]}
    assert all(note.sound == "bd" or note.onset >= 14 for note in first)  # the snare of B's first bar is not heard
    assert second == events(c)


@pytest.mark.parametrize("odd", [False, True])
def test_grids_of_one_bar_export_as_they_were_heard(tmp_path, random_grid, odd):
    """Each bar is that of its own line's grid, and no note lasts into another of its track."""
    rng, path = np.random.default_rng(8), tmp_path / "night.jsonl"
    grids, written = [random_grid(rng) for _ in range(12)], SessionLog(path)
    for bar, grid in enumerate(grids):
        written.append(*pair(rng, bar, tokens=grid), bar=bar + odd, tempo=120.0)
    written.close()
    parts, tempos = song(path)
    assert len(parts) == len(tempos) == 6 + odd
    for bar, grid in enumerate(grids, int(odd)):
        part, half = divmod(bar, 2)
        assert begun(n for n in parts[part] if n.onset // BAR == half) == begun(
            n for n in events(grid) if n.onset // BAR == half)
    for part in parts:
        for a, b in zip(part, part[1:], strict=False):
            assert a.track < b.track or a.onset + a.length <= b.onset
        assert all(n.onset + n.length <= STEPS for n in part)
    paths = log.export(path, tmp_path / "out")
    assert mido.MidiFile(paths[0]).length == pytest.approx((6 + odd) * 480 / 120)


def test_the_command_exports_or_says_in_one_line_what_is_wrong(session, tmp_path, capsys):
    path, _ = session
    assert log.main([str(path), "--out", str(tmp_path / "a" / "b")]) == 0
    assert (tmp_path / "a" / "b" / "night.mid").exists() and "night.strudel.js" in capsys.readouterr().out
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "text.jsonl").write_text("hello\nworld\n")
    (tmp_path / "here").write_text("")
    for source, out, words in (("none.jsonl", "c", "cannot be read"), ("empty.jsonl", "c", "holds no grid"),
                               ("text.jsonl", "c", "line 1: not a bar's snapshot"), (".", "c", "cannot be read"),
                               ("night.jsonl", "here", "cannot write to --out")):
        assert log.main([str(tmp_path / source), "--out", str(tmp_path / out)]) == 2
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and not said.out
        assert not (tmp_path / "c").exists()
