"""The Conductor's pattern library: one bar per word, sixteen sixteenths, sparse levels before dense ones.

    .  rest        -  hold the note      x  note       X  accented note      g  ghost note
    o  open hat    r  rim                t  tom        p  percussion
    0 3 5 7 8  root, third, fifth, seventh and octave of the chord         n  step into the next chord

A line is a level of density and holds interchangeable variants; `bars(text)` reads such a block.
"""

GENRES = ("house", "techno", "breakbeat", "hiphop", "ambient", "pop", "rock", "latin")

Levels = tuple[tuple[str, ...], ...]  # level -> variants -> 16 characters


def bars(text: str) -> Levels:
    """Levels of a block: one per line, each the tuple of its 16-character bars."""
    return tuple(tuple(line.split()) for line in text.strip().splitlines())


# genre -> track -> levels
DRUMS: dict[str, dict[str, Levels]] = {
    "house": {
        "KICK": bars("""
            x.......x.......
            x...x...x...x... X...x...X...x...
            x...x...x...x... x...x...x...x..x
            x...x...x...x.x. x...x..xx...x..."""),
        "SNARE": bars("""
            ............x...
            ....x.......x... ....X.......X...
            ....x.......x.g. ....x..g....x...
            ....x.g....gx..g ....x..g.g..x.g."""),
        "HH": bars("""
            ..o.......o.....
            ..o...o...o...o.
            x.o.x.o.x.o.x.o. ..o...o.x.o...o.
            x.o.x.oxx.o.x.o. x.oxx.o.x.oxx.o.
            x.oxx.oxx.oxx.ox xxo.xxo.xxo.xxox"""),
        "CLAP": bars("""
            ............x...
            ....x.......x...
            ....x.......x... ....x......gx...
            ....x.......x.gx ....x..x....x..."""),
        "FX": bars("""
            ..............p.
            ......p.......p. ...p......p.....
            ..p..p....p..p.. ...p..p..p....p.
            .pp..p.p.pp..p.p ..pp..p.p.pp..p."""),
    },
    "techno": {
        "KICK": bars("""
            x.......x.......
            x...x...x...x...
            x...x...x...x... X...x...x...x...
            x...x...x...x.xx x..xx...x..xx..."""),
        "SNARE": bars("""
            ............r...
            ....x.......x... ...r......r.....
            ....x..r....x... ..r..r....r..r..
            ....x.gr..g.x.gr .r.rx..r.r.rx..."""),
        "HH": bars("""
            ..x...x...x...x.
            ..o...o...o...o. ..x...x...x...x.
            x.x.x.x.x.x.x.x. .xo..xo..xo..xo.
            xxo.xxo.xxo.xxo. x.xxx.xxx.xxx.xx
            xxoxxxoxxxoxxxo. xxxxxxoxxxxxxxo."""),
        "CLAP": bars("""
            ............x...
            ....x.......x...
            ....x.......x..g ............x..x
            ....x..x....x..x ....x.....x.x..."""),
        "FX": bars("""
            .......p........
            ...p......p..... .......p.....p..
            ...p..p..p..p... ..t..t....t..t..
            p..p..p..p..p.p. .p.pp..p.p.pp..p"""),
    },
    "breakbeat": {
        "KICK": bars("""
            x.........x.....
            x.x.......xx.... x.........xx....
            x.x.......xx..x. x..x..x...x.....
            x.x...x...xx..x. x.xx..x..xx...x."""),
        "SNARE": bars("""
            ....x.......x...
            ....x..g....x... ....X.......X..g
            ....x..g.g..x..g ....x..x.g....x.
            ....x.gx.g.gx.gx ....x..x.gg.x.xg"""),
        "HH": bars("""
            x...x...x...x...
            x.x.x.x.x.x.x.x. x.x.x.x.x.o.x.x.
            x.x.x.x.x.x.x.ox x.xxx.x.x.o.x.xx
            xxx.x.xxxxo.x.xx x.xxxxx.x.xxxxo.
            xxxxx.xxxxo.xxxx xxx.xxxxxxxoxxx."""),
        "CLAP": bars("""
            ............x...
            ....x.......x...
            ....x..g....x...
            ....x..x.g..x..x"""),
        "FX": bars("""
            ..........p.....
            ...p......p.....
            ..p..p.p..p..p.. ....p..t......t.
            .pp.p..p.p.pp.pt p..pp.t.p..pp.tt"""),
    },
    "hiphop": {
        "KICK": bars("""
            x.........x.....
            x......x..x..... x.....x...x.....
            x..x...x..x..... x.....xx..x.....
            x..x...x..xx..x. x.x...xx..x..x.."""),
        "SNARE": bars("""
            ........x.......
            ....x.......x... ....X.......X...
            ....x.......x..g ....x..g....x...
            ....x..g.g..x..g ....x.g..g.gx.g."""),
        "HH": bars("""
            x...x...x...x...
            x.x.x.x.x.x.x.x. x.x.x.x.x.x.x.o.
            x.xxx.x.x.xxx.x. x.x.x.xxx.x.x.o.
            x.xxx.xxx.x.xxxx xxx.x.x.xxx.xxx.
            xxxxx.xxxxx.xxxx x.xxxxxxx.xxxxo."""),
        "CLAP": bars("""
            ............x...
            ....x.......x...
            ....x.......x.g.
            ....x..g....x..x"""),
        "FX": bars("""
            ..............p.
            ...p..........p.
            ..p...p...p...p. ...p..p.......p.
            ..p.pp....p.pp.p ...p..p..p.p..p."""),
    },
    "ambient": {
        "KICK": bars("""
            x...............
            x.........x.....
            x.......x....... x.....x...x.....
            x.....x.x.....x."""),
        "SNARE": bars("""
            ............g...
            ........r.......
            ....r.......r... ........x......g
            ....r..g....r..g"""),
        "HH": bars("""
            ..............x.
            ....x.......x...
            ..x...x...x...x.
            x.x...x.x.x...x. ..x..x....x..x..
            x.x.x.x.x.x.x.x."""),
        "CLAP": bars("""
            ............g...
            ............x...
            ........x.......
            ....g.......x..."""),
        "FX": bars("""
            ..........p.....
            ...p............ ..........p..p..
            ...p......p..p.. .....p....p....p
            ..p..p..p..p..p. .p...p.p...p..p."""),
    },
    "pop": {
        "KICK": bars("""
            x.......x.......
            x.......x.x..... x......xx.......
            x...x...x...x... x..x....x.x.....
            x...x...x.x.x... x..x..x.x..x..x."""),
        "SNARE": bars("""
            ........x.......
            ....x.......x... ....X.......X...
            ....x.......x... ....x.......x..x
            ....x..g....x.xx ....x.......x.g."""),
        "HH": bars("""
            x...x...x...x...
            x.x.x.x.x.x.x.x. ..x...x...x...x.
            x.x.x.x.x.x.x.o. x.x.x.xxx.x.x.x.
            x.xxx.xxx.xxx.xx x.x.xxx.x.x.xxo.
            xxxxx.xxxxxxx.o. xxx.xxx.xxx.xxxo"""),
        "CLAP": bars("""
            ............x...
            ....x.......x...
            ....x.......x...
            ....x..x....x..x ....x.......x.xx"""),
        "FX": bars("""
            ..............p.
            ..p.......p.....
            ..p...p...p...p. ...p..p....p..p.
            p.pp..p.p.pp..p. ..p.p.pp..p.p.pp"""),
    },
    "rock": {
        "KICK": bars("""
            x.......x.......
            x.......x.x..... x......xx.......
            x.x.....x.x..... x..x....x.x...x.
            x.x..xx.x.x..x.. x.xx..x.x.xx..x."""),
        "SNARE": bars("""
            ........x.......
            ....x.......x... ....X.......X...
            ....X.......X..g ....X..g....X...
            ....X..g.g..X.xx ....X.x.....X.g."""),
        "HH": bars("""
            x...x...x...x...
            x.x.x.x.x.x.x.x. o...o...o...o...
            x.x.x.x.x.x.x.o. o.x.x.x.o.x.x.x.
            xxx.x.x.xxx.x.o. x.x.xxx.x.x.xxo.
            xxxxx.x.xxxxx.o. o.xxx.xxo.xxx.xx"""),
        "CLAP": bars("""
            ............x...
            ....x.......x...
            ....x.......x...
            ....x..x....x.x."""),
        "FX": bars("""
            ..............t.
            ..............tt ......p.......p.
            ..t...t...t..... p...p...p...p.tt
            t..t..t.t..t..tt ..t.t.tt..t.t.tt"""),
    },
    "latin": {
        "KICK": bars("""
            x...........x...
            x..x....x..x.... x...x...x...x...
            x..x..x.x..x..x. x...x..xx...x..x
            x..xx..xx..xx..x x..x..x.x..x.xx."""),
        "SNARE": bars("""
            ..........r.....
            ..r...r...r...r. ...x..x....x..x.
            r..r..r...r.r... ...x..x....x..xg
            r..r..rg..r.r.g. ..rx..x...rx..xg"""),
        "HH": bars("""
            ....x.......x...
            x...x...x...x... ..x...x...x...x.
            x.xxx.xxx.xxx.xx x..xx.x.x..xx.x.
            xxx.xxx.xxx.xxo. x.xxx.xxx.xxxxo.
            xxxxxxo.xxxxxxo. xxx.xxxxxxx.xxox"""),
        "CLAP": bars("""
            ............x...
            ..x.....x....... ....x.......x...
            ...x..x....x..x.
            x..x..x...x.x..."""),
        "FX": bars("""
            ............p...
            ...p..p....p..p. p.....p...p.....
            p..p..p...p.p... ..p.t.p...p.t.p.
            p.pp.tp.p.pp.tpp .pp.pttp.pp.pttp"""),
    },
}

BASS: dict[str, Levels] = {
    "house": bars("""
        0-------........ 0---......0-....
        ..0-......0-..8- 0-....0-....0-..
        ..0-..0-..0-..8- 0-.0..0-..0.8-5.
        ..00..0-..08..0- .00-.00-.08-.00n 0-.80-.50-.80-n-"""),
    "techno": bars("""
        0---............ ........0---....
        ..0-......0-.... ..0...0...0...0.
        ..00..00..00..00 .0.0.0...0.0.08.
        .000.000.000.008 .00.0.00.00.0.0n"""),
    "breakbeat": bars("""
        0-------........ 0-----....5-....
        0---..0-..8-.... 0-....0-....7-..
        0-.0..0-..8-.5.. 0-..8-0-..7-5-..
        0-00..8-0.0-5.7n 00.8.00-.508.0-n"""),
    "hiphop": bars("""
        0-------........ 0---......0-----
        0-----.0..5-.... 0---...0..0-....
        0--0...0..5-3-.. 0--8..0-..0-7-5-
        0-.0.8.0..5-3-0n 0--0-.8-0-.57-n-"""),
    "ambient": bars("""
        0-------........
        0-------5-------
        0---....5-------
        0---5---8---5--- 0-5-8-------5---"""),
    "pop": bars("""
        0-------0-------
        0-----0-0-----.. 0-----0-....5-..
        0-0-0-0-0-0-0-0- 0--0--0-0--0--5-
        0-0-8-0-0-0-8-0n 0-000-8-0-005-n-"""),
    "rock": bars("""
        0---....0---....
        0-0-....0-0-5-.. 0-----0-0-....5-
        0-0-0-0-0-0-0-0- 0-0-3-0-0-0-5-n-
        0000000.0000005n 00.00.8.00.005n."""),
    "latin": bars("""
        0-----5-........ 0---........5---
        0-----5-----8-.. 0--.0-..5--.5-..
        0--0--5-..5-..8- 0-.5-.8-..5-..n-
        0-.5-.0-.58-5-n- 0--50-8-.0-5.8n-"""),
}

# Rhythms of the pitched tracks, by feel.
FEELS = {
    "house": "straight", "techno": "straight", "pop": "straight", "rock": "straight",
    "breakbeat": "broken", "hiphop": "broken", "latin": "clave", "ambient": "floating",
}

LEADS: dict[str, Levels] = {
    "straight": bars("""
        x-------........ ........x---x---
        x---..x-x---.... ..x-x---..x-x---
        x-x-..x-x-..x-x- x--x--x-x--x--x- ..x-x-x---..x-x-
        x-xxx-x-x-xxx-x- xx.xx.x-xx.xx.x- x-x.xxx-x.x-xxx-"""),
    "broken": bars("""
        ..x-----........ x-----....x-....
        x--x----..x-.... ..x--x----..x--.
        x--x--x-..xx.-.. ..xx-.x--x.x--x- x-.x-.x-.x-.x---
        xx.x-xx-.xx.x-x- x.xx-x.xx-x.xx-- .xx-xx.x-xx-x.x-"""),
    "clave": bars("""
        x-----x-........ x--.....x---....
        x--x--x-........ ..x-x---..x-..x-
        x--x--x-..x-x--- x-.x-.x-..x-x-.. ..x-x--x--x-x---
        x-xx-xx-.xx-x-x- xx.xx.x-.xx-xx.- x.xx.xx-x.x-xx--"""),
    "floating": bars("""
        x-------........ ....x-----------
        x-----x-----.... ..x-----....x---
        x---..x-----x--- ..x--x--..x-----
        x--x--x--x--x--- x-x-x---x-x-x---"""),
}
STABS: dict[str, Levels] = {
    "straight": bars("""
        ......x......... x...............
        ..x.......x..... x..x............ ...x......x.....
        ..x...x...x...x. x..x..x.....x... ...x..x....x..x.
        x.xx..x.x.xx..x. ..xx..xx..xx..x. x..x..xx.x..x.x."""),
    "broken": bars("""
        ..........x..... ...x............
        ...x......x..... x......x........
        x..x...x..x..... ..x..x....x..x..
        x.xx..xx..x..xx. .xx.x..x.xx.x.x."""),
    "clave": bars("""
        x..x............ ......x...x.....
        x..x..x......... ..x..x....x.....
        x..x..x...x.x... .x..xx.x.x..xx..
        x.xx.xx.x.xx.xx. xx.x.xx.xx.x.x.x"""),
    "floating": bars("""
        x...............
        ......x......... ..........x.....
        x.....x...x.....
        x..x..x...x..x.. ..x..x..x..x...."""),
}
ARPS: dict[str, Levels] = {
    "straight": bars("""
        x-......x-...... x---....x---....
        x-..x-..x-..x-.. x--x--x-........
        x.x.x.x.x.x.x.x. x--x--x-x--x--x- x.x-x.x-x.x-x.x-
        xxxxxxx.xxxxxxx. xxx.xxx.xxx.xxx. x.xxx.xxx.xxx.xx"""),
    "broken": bars("""
        ..x-......x-.... x--.......x-....
        x--x--......x-.. ..x-.x-..x-.....
        x.xx..x.x.xx..x. x--x--x--x--x-x-
        xx.xxx.xxx.xxx.x xxx.xx.xxxx.xx.x"""),
    "clave": bars("""
        x--x--x-........ ....x-......x-..
        x--x--x-..x-x-.. ..xx....x-x.....
        x.x.xx.xx.x.xx.x x.xx.xx.x.xx.x.x
        x.xxx.xxxx.xxx.x xx.xxx.xxx.xx.xx"""),
    "floating": bars("""
        x-------........ ....x---........
        x---....x---.... x-----x-----....
        x-..x-..x-..x-.. x--x--x--x--x---
        x.x.x.x.x.x.x.x. x-xx.x-xx.x-xx.-"""),
}
VOICES: Levels = bars("""
    x-------........ ........x-------
    x-----x-........ ....x---....x--- ..x-----........
    x---x-x-....x--- ..x-x---..x-x--- x--x--x-....x---
    x-x-x---x-x-x--- x--x--x-x-x-x-.. ..x-x-x---x-x-x-""")
PADS: Levels = bars("""
    x---------------
    x-------x------- x---------------
    x-------x------- x-----x---------
    x-------x---x--- x-----x-----x---""")
AMBIENCES: Levels = bars("""
    x-------........ x---------------
    x---------------
    x-------x-------
    x-------x---....""")

CONTOURS = ("01234567", "76543210", "03579753", "97531357", "05274169", "00990550", "24687531", "91827364",
            "45464745", "09080706", "13263849", "60728495")  # heights 0..9 in eighths of a phrase
ARPEGGIOS = ("0123", "3210", "012321", "0213", "0321", "01020304", "0312", "00112233")  # rungs of a ladder

# Chords of the four half-bars as scale degrees, in families from the stillest to the busiest.
PROGRESSIONS: dict[str, Levels] = {
    "minor": bars("""
        1111
        1166 1177 1144 1133
        1167 1647 1367 1465
        1473 1526 1637 4175"""),
    "major": bars("""
        1111
        1144 1155 1166 1122
        1564 1645 1425 1345
        1362 4536 1573 6241"""),
}
# Modes from bright to dark, as semitones above the tonic.
SCALES = {
    "lydian": (0, 2, 4, 6, 7, 9, 11), "major": (0, 2, 4, 5, 7, 9, 11), "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10), "minor": (0, 2, 3, 5, 7, 8, 10), "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
MODES = {
    "house": ("dorian", "minor"), "techno": ("minor", "phrygian"), "breakbeat": ("dorian", "minor"),
    "hiphop": ("dorian", "minor", "phrygian"), "ambient": ("lydian", "major", "dorian"),
    "pop": ("major", "mixolydian", "minor"), "rock": ("mixolydian", "dorian", "minor"),
    "latin": ("major", "dorian", "minor"),
}

# How much a section, or a genre, wants each track: KICK SNARE HH CLAP BASS PAD LEAD STAB ARP FX VOX AMB.
SECTION_TRACKS = ("324134213227", "969687465333", "785544457752", "978788788554", "213249542448", "212137312128")
GENRE_TRACKS = {
    "house": "947866264233", "techno": "947372255613", "breakbeat": "998374353432", "hiphop": "888474342353",
    "ambient": "212149423349", "pop": "877566534363", "rock": "988373742242", "latin": "778464555722",
}
# Fewest and most sounding tracks of a section, reached at energy 0 and 1.
SECTION_SIZES = ((2, 6), (4, 9), (5, 10), (7, 12), (2, 7), (1, 5))
