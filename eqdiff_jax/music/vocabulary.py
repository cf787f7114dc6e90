"""The 81 tokens, as ordered ranges: ids are derived from the order, never written by hand.

    rest 1 | pitches C2..C6 49 | drums 8 | dynamics 6 | articulations 4 | durations 5 | effects 5 | structure 3

The mask of absorbing diffusion is id 81, one past the last token, and is no token itself.
"""

from dataclasses import dataclass

LOWEST_PITCH, HIGHEST_PITCH = 36, 84  # MIDI C2 and C6 with C4 = 60
_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def pitch_name(pitch: int) -> str:
    """Name of a MIDI pitch: 36 -> 'C2', 61 -> 'C#4'."""
    return f"{_PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


_GROUPS: dict[str, tuple[str, ...]] = {
    "rest": ("~",),
    "pitch": tuple(pitch_name(p) for p in range(LOWEST_PITCH, HIGHEST_PITCH + 1)),
    "drum": ("bd", "sd", "hh", "oh", "cp", "rim", "tom", "perc"),
    "dynamics": ("pp", "p", "mp", "mf", "f", "ff"),
    "articulation": ("stac", "legato", "accent", "ghost"),
    "duration": ("16th", "8th", "dotted-8th", "quarter", "half"),
    "effect": ("lpf", "hpf", "delay", "reverb", "dist"),
    "structure": ("repeat", "fill", "break"),
}

VELOCITIES = {"pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112}
DEFAULT_DYNAMICS = "mf"
LENGTHS = {"16th": 1, "8th": 2, "dotted-8th": 3, "quarter": 4, "half": 8}  # in sixteenths


@dataclass(frozen=True)
class Vocabulary:
    """Ordered token names with their groups; `ids[name]` and `ranges[group]` follow from the order."""

    groups: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        names: list[str] = []
        ranges: dict[str, range] = {}
        for group, members in self.groups.items():
            ranges[group] = range(len(names), len(names) + len(members))
            names.extend(members)
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "ranges", ranges)
        object.__setattr__(self, "ids", {name: i for i, name in enumerate(names)})

    names: tuple[str, ...] = ()  # [81] token names in id order
    ranges: dict[str, range] = None  # type: ignore[assignment]  # group -> its ids
    ids: dict[str, int] = None  # type: ignore[assignment]  # name -> id

    def __len__(self) -> int:
        return len(self.names)

    @property
    def mask(self) -> int:
        """Id of the absorbing mask: one past the last token."""
        return len(self.names)

    def group(self, token: int) -> str:
        """Group of a token id."""
        return next(g for g, ids in self.ranges.items() if token in ids)

    def pitch(self, token: int) -> int:
        """MIDI pitch of a pitch token."""
        return LOWEST_PITCH + self.ranges["pitch"].index(token)

    def pitch_token(self, pitch: int) -> int:
        """Token of a MIDI pitch in C2..C6."""
        return self.ranges["pitch"][pitch - LOWEST_PITCH]


VOCABULARY = Vocabulary(_GROUPS)
