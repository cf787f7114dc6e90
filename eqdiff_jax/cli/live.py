"""Play movement live (no flag: the demo dancer until a sender comes; open the page it names)

A browser plays the music at http://127.0.0.1:8080/; VMC senders, mocopi and trackers move it at UDP port 39539.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import jax

from eqdiff_jax import paths
from eqdiff_jax.errors import InputError
from eqdiff_jax.live import stage
from eqdiff_jax.live.wire import LOOKAHEADS, MODES
from eqdiff_jax.music.conductor import GENRES
from eqdiff_jax.shell import Parser, cache_compilations, guarded


def parser(prog: str) -> Parser:
    """The flags, as docs/live.md lists them."""
    p = Parser(prog=prog, allow_abbrev=False, description=__doc__.partition("\n")[0],
               formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--motion", default="demo", help="demo[:STYLE]; osc; a .bvh, .npy or .npz file; or a SESSION.jsonl")
    p.add_argument("--mode", default="diffusion", help=f"one of {', '.join(MODES)}; the page can change it")
    p.add_argument("--osc", default="127.0.0.1:39539", metavar="HOST:PORT", help="UDP: VMC, mocopi, trackers, map file")
    p.add_argument("--http", default="127.0.0.1:8080", metavar="HOST:PORT", help="the page; others need its token")
    p.add_argument("--log", default="sessions", metavar="DIR", help="folder for the log and the limb frames")
    p.add_argument("--checkpoint", default=str(paths.SHIPPED), metavar="DIR", help="weights, or a workdir of training")
    p.add_argument("--bpm", type=float, default=120.0, help="tempo; the page can change it")
    p.add_argument("--genre", metavar="G", help=f"one of {', '.join(GENRES)}; left out: unspecified")
    p.add_argument("--candidates", type=int, default=1, metavar="N", help="grids drawn for each bar, from which "
                   "phrases are taken; more of them leave time for fewer steps")
    p.add_argument("--control", type=float, default=1.0, metavar="X", help="how strongly the seven targets of the "
                   "movement count, 0 to 10; 0 leaves the music to the network")
    p.add_argument("--targets", metavar="FILE", help="what the movement asks of the music; `python -m "
                   "eqdiff_jax.targets > targets.toml` writes the default to edit")
    p.add_argument("--seed", type=int, default=0, help="of the grids and the demo dancer")
    p.add_argument("--map", metavar="FILE", help="OSC addresses to limbs and parameters; a file or a preset's name")
    p.add_argument("--modulation", metavar="FILE", help="what of the movement moves which parameter")
    p.add_argument("--token", metavar="T", help="what pages must show; made up when others can reach --http")
    p.add_argument("--lookahead", default="safe", help=f"one of {', '.join(LOOKAHEADS)}: how far ahead notes are set")
    p.add_argument("--page", metavar="DIR", help="folder with Strudel's packages (node_modules), if not the usual one")
    p.add_argument("--fetch-page", nargs="?", const=str(paths.STRUDEL), metavar="DIR", help="install Strudel's "
                   f"JavaScript from npm into DIR ({paths.STRUDEL}) and end")
    p.add_argument("--no-browser", action="store_true", help="do not open the page")
    return p


def main(argv: list[str] | None = None, prog: str = "live.py") -> int:
    """Exit code 0 when it was stopped, or 2 with one line that says what to change."""
    args = parser(prog).parse_args(argv)
    if args.fetch_page is not None:
        return guarded(prog, lambda: fetch_page(Path(args.fetch_page)))
    cache_compilations()
    # The body's 60 frames a second are small work; an accelerator, if there is one, is for the process of the grids.
    jax.config.update("jax_platforms", "cpu")
    options = stage.Options(**{name: getattr(args, name) for name in stage.Options._fields})

    def show(playing: stage.Loop) -> None:
        if not args.no_browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
                                    or sys.platform in ("darwin", "win32")):
            webbrowser.open(playing.server.url)

    def play() -> int:
        summary = asyncio.run(stage.run(options, say=lambda text: print(text, flush=True), on_stage=show))
        if summary is not None:
            print(farewell(summary))
        return 0

    try:
        return guarded(prog, play)
    except KeyboardInterrupt:
        return 0


def fetch_page(folder: Path) -> int:
    """Install Strudel's packages from npm into the folder, in the versions that the page was tested with."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("npm is not installed, which Strudel comes with: install Node.js 20 or newer (apt install "
                         "npm, brew install node) and run this again")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(paths.WEB / name, folder / name)
    ended = subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=False)
    if ended.returncode:
        raise InputError(f"npm could not install Strudel into {folder} (its message is above): check the network, or "
                         "copy node_modules there from another machine")
    usual = "" if folder == paths.STRUDEL else f" --page {folder}"
    print(f"Strudel (AGPL-3.0-or-later) is in {folder}; play with: eqdiff-live{usual}")
    return 0


def farewell(summary: stage.Summary) -> str:
    """How it went, in a line or two."""
    missed = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.misses.items())) or "none missed"
    log = f"; {os.path.relpath(summary.log)}" if Path(summary.log).exists() else ""
    return (f"\n{summary.seconds:.0f} s, {summary.bars} bars, {summary.grids} grids, {missed}; the 60 Hz loop was at "
            f"worst {summary.worst_ms:.1f} ms late, 99 % within {summary.p99_ms:.1f} ms{log}")


def run() -> None:
    """The installed command eqdiff-live."""
    sys.exit(main(prog="eqdiff-live"))
