"""Make music from movement (no flag: the demo dancer, 8 windows of two bars, into out/)"""

import argparse
import functools
import os
import sys

from eqdiff_jax import paths, performance
from eqdiff_jax.diffusion import SAMPLERS
from eqdiff_jax.music.conductor import GENRES
from eqdiff_jax.shell import Parser, cache_compilations, guarded
from eqdiff_jax.training import checkpoint


def auto_or(kind):
    """A flag's type: `auto` means 0, anything else is a positive `kind`."""
    def parse(text: str):
        value = 0 if text == "auto" else kind(text)
        if text != "auto" and not value > 0:
            raise ValueError(text)
        return value
    parse.__name__ = f"auto or a positive {kind.__name__}"
    return parse


def parser(prog: str) -> Parser:
    """The flags, as the README lists them."""
    p = Parser(prog=prog, allow_abbrev=False, description=__doc__,
               formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--motion", default="demo", help="a .bvh, .npy or .npz file, or demo[:STYLE]")
    p.add_argument("--checkpoint", default=str(paths.SHIPPED), metavar="DIR", help="weights, or a workdir of training")
    p.add_argument("--num", type=int, metavar="N", help="windows of two bars (all of a file, 8 of the demo)")
    p.add_argument("--seed", type=int, default=0, help="same seed, same machine: same files")
    p.add_argument("--genre", metavar="G", help=f"one of {', '.join(GENRES)}; left out: unspecified")
    p.add_argument("--bpm", type=float, default=120.0, help="tempo; a window is 480/bpm seconds of motion")
    p.add_argument("--steps", type=auto_or(int), default="auto", help="denoising steps; auto: by confidence, 4 to 50")
    p.add_argument("--temperature", type=auto_or(float), default="auto", help="auto: by confidence, 0.7 to 1.2")
    p.add_argument("--sampler", default="analytic", help=f"one of {', '.join(SAMPLERS)}; see docs/diffusion.md")
    p.add_argument("--candidates", type=int, default=performance.Settings().candidates, metavar="N",
                   help="grids drawn for each window, from which phrases are taken")
    p.add_argument("--control", type=float, default=1.0, metavar="X", help="how strongly the seven targets of the "
                   "movement count, 0 to 10; 0 leaves the music to the network")
    p.add_argument("--targets", metavar="FILE", help="what the movement asks of the music; `python -m "
                   "eqdiff_jax.targets > targets.toml` writes the default to edit")
    p.add_argument("--mode", default="diffusion", help="diffusion (the network) or threshold (the Conductor's rules)")
    p.add_argument("--out", default="out", metavar="DIR", help="folder for grids.npz, song.strudel.js, song.mid, …")
    return p


def main(argv: list[str] | None = None, prog: str = "sample.py") -> int:
    """Exit code 0 with the files written, or 2 with one line that says what to change."""
    args = parser(prog).parse_args(argv)
    cache_compilations()
    settings = performance.Settings(**{name: getattr(args, name) for name in performance.Settings._fields})

    def play() -> int:
        written = performance.run(args.motion, functools.partial(checkpoint.load, args.checkpoint), settings, args.out)
        print("wrote " + ", ".join(os.path.relpath(path) for path in written))
        return 0

    return guarded(prog, play)


def run() -> None:
    """The installed command eqdiff-sample."""
    sys.exit(main(prog="eqdiff-sample"))
