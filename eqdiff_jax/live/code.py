"""A grid as the Strudel code that plays live: the lines of `music.to_strudel`, each on an orbit of its own.

No tempo stands in it (it would act before the code does), and no drums (the page has its own). In mode `modulate`
the lines also read the `event` parameters of music/modulation.py, which the page moves without evaluating again:

    density     notes on the weakest sixteenths are left out first, the first beat stays
    range       the outer notes of a line leap an octave away from the others
    dissonance  some notes get a second voice, a semitone off (in another octave)
    stability   some notes come a sixteenth late, others in each cycle
    length      all pitched notes are shortened
    hats        some hi-hats are struck twice

At the defaults all of it falls away. What is drawn by chance is drawn by the cycle's number: a bar played again
with the same parameters is the same.
"""

from collections.abc import Sequence

from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import TRACKS, Event, events
from eqdiff_jax.music.mini_print import sampled
from eqdiff_jax.music.modulation import PARAMETERS
from eqdiff_jax.music.strudel import to_strudel
from eqdiff_jax.music.vocabulary import HIGHEST_PITCH

MODES = ("threshold", "modulate", "diffusion")
ORBITS = {name: row + 1 for row, name in enumerate(TRACKS)}  # the bus that each track plays on
NEVER = 2.0  # a threshold that no parameter reaches
# The density at which each sixteenth of a bar may sound.
METRE = (0, .95, .6, .7, .35, .9, .55, .8, .3, .95, .5, .75, .4, .9, .65, .85)


def _param(name: str) -> str:
    """A parameter as the page's signal; in double quotes its name would be mini-notation."""
    return f"param('{name}', {PARAMETERS[name].default:g})"


def _number(value: float) -> str:
    return f"{value:g}".replace("0.", ".", 1) if 0 < value < 1 else f"{value:g}"


HELPERS = f"""\
const dense = "{' '.join(map(_number, METRE))}".lte({_param('density')})
const leap = x => note(x.lte({_param('range')}).fmap(yes => 12 * yes))
const rough = n => x => x.mask(rand.lt({_param('dissonance')})).add(note(n)).mul(gain(.6))
const calm = rand.lt({_param('stability')})
const loose = x => stack(x.mask(calm), x.mask(calm.inv()).late(1/16))
const twice = x => x.mask(rand.lt({_param('hats')})).late(1/32)
"""


def live_code(grid, mode: str = "diffusion") -> str:
    """Strudel code of one grid, int [12, 32], for two cycles; in the modes threshold and diffusion exactly its events.

    Mode modulate expects a function `param(name, default)` in scope that gives a pattern. Raises InputError for another
    mode or shape.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")
    lines = to_strudel(grid).splitlines()[1:]  # the first sets the tempo
    if lines == ["silence"]:
        return "silence\n"
    notes = events(grid) if mode == "modulate" else []
    out = []
    for line in lines:
        track = line.partition(":")[0].upper()
        row = TRACKS.index(track)
        calls = _calls(track, [e for e in notes if e.track == row]) if notes else ""
        out.append(f"{line}{calls}.orbit({ORBITS[track]})\n")
    return (HELPERS if notes else "") + "".join(out)


def _calls(track: str, notes: Sequence[Event]) -> str:
    """The calls by which one track follows the parameters."""
    calls = ""
    up = all(isinstance(n.sound, str) or n.sound + 12 <= HIGHEST_PITCH for n in notes)
    if track in PARAMETERS["range"].tracks:
        at = {2 * n.onset: _number(t) for n, t in zip(notes, _leaps(track, [n.pitch for n in notes], up), strict=True)}
        if set(at.values()) != {_number(NEVER)}:
            calls += f'.{"add" if up else "sub"}(leap("{sampled(at)}"))'
    if track in PARAMETERS["dissonance"].tracks:
        calls += f".superimpose(rough({13 if up else -11}))"
    if track in PARAMETERS["length"].tracks:
        calls += f".clip({_param('length')})"
    if track in PARAMETERS["density"].tracks:
        calls += ".mask(dense)"
    if track in PARAMETERS["hats"].tracks:
        calls += ".superimpose(twice)"
    if track in PARAMETERS["stability"].tracks:
        calls += f".apply(loose).seed({ORBITS[track]})"
    return calls


def _leaps(track: str, pitches: Sequence[int], up: bool) -> list[float]:
    """The range from which each note leaps: those of the outer half, the outermost first; NEVER for the others.

    Of a line on one pitch every other note leaps. The tracks do it one after the other.
    """
    tracks = PARAMETERS["range"].tracks
    turn = (tracks.index(track) + 1) / (len(tracks) + 1)
    heights = sorted(set(pitches), reverse=up)  # from the outermost
    if len(heights) == 1:
        return [round(turn, 2) if i % 2 else NEVER for i in range(len(pitches))]
    outer = heights[:len(heights) // 2]
    at = {pitch: round((i + turn) / len(outer), 2) for i, pitch in enumerate(outer)}
    return [at.get(pitch, NEVER) for pitch in pitches]
