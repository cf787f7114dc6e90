"""What the numbers of a MIDI file stand for: channels, programs, drum notes, controllers."""

MAKER = "eqdiff_jax"  # name of the first track of the files written here
DRUM_CHANNEL = 9  # "channel 10", counted from 0
DRUM_TRACKS = ("KICK", "SNARE", "HH", "CLAP", "FX")
# General MIDI programs, from 0: Synth Bass 1, Pad 2, Lead 1, Synth Brass 1, Lead 2, Voice Oohs, Pad 5.
PROGRAMS = {"BASS": 38, "PAD": 89, "LEAD": 80, "STAB": 62, "ARP": 81, "VOX": 53, "AMB": 92}
CHANNELS = {**dict.fromkeys(DRUM_TRACKS, DRUM_CHANNEL), **{name: i for i, name in enumerate(PROGRAMS)}}
DRUM_NOTES = {"bd": 36, "sd": 38, "hh": 42, "oh": 46, "cp": 39, "rim": 37, "tom": 45, "perc": 63}
DRUM_ROWS = {"bd": "KICK", "sd": "SNARE", "rim": "SNARE", "hh": "HH", "oh": "HH", "cp": "CLAP", "tom": "FX",
             "perc": "FX"}
# Effect -> controller, value when off, value when on.
EFFECT_CONTROLS = {
    "lpf": (74, 127, 64),  # brightness
    "hpf": (81, 0, 64),  # general purpose 6
    "delay": (94, 0, 51),  # effects 4 depth
    "reverb": (91, 0, 64),  # effects 1 depth
    "dist": (92, 0, 64),  # effects 2 depth
}
# Every General MIDI drum note as one of the eight drums; the rest are percussion.
DRUM_OF_NOTE = {note: drum for drum, notes in {
    "bd": (35, 36), "sd": (38, 40), "rim": (37, 31, 33), "hh": (42, 44), "cp": (39,),
    "oh": (46, 49, 51, 52, 53, 55, 57, 59), "tom": (41, 43, 45, 47, 48, 50)}.items() for note in notes}
# Tracks that a part of another program takes, the first that is free: (programs below, rows).
ROLES = (
    (8, ("STAB", "ARP", "PAD", "LEAD")),  # pianos
    (16, ("ARP", "STAB", "LEAD")),  # chromatic percussion
    (24, ("PAD", "AMB", "STAB")),  # organs
    (32, ("STAB", "ARP", "LEAD", "PAD")),  # guitars
    (40, ("BASS",)),  # basses
    (52, ("PAD", "AMB", "LEAD")),  # strings and ensembles
    (55, ("VOX", "PAD", "LEAD")),  # voices
    (64, ("STAB", "LEAD", "ARP")),  # orchestra hit, brass
    (88, ("LEAD", "VOX", "ARP")),  # reeds, pipes, synth leads
    (104, ("PAD", "AMB")),  # synth pads and effects
    (112, ("ARP", "LEAD", "STAB")),  # plucked strings of the world
    (128, ("AMB", "STAB")),  # percussive and sound effects
)
LOW = 45  # parts with a median pitch up to here prefer BASS, whatever their program
