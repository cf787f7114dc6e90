"""A page of real grids to look at and to hear, and the counts of what was kept.

    python -m eqdiff_jax.data.page --data experiment --out DIR [--data_dir DIR] [--seed S]
    python -m eqdiff_jax.data.page --folder DIR --out DIR
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from eqdiff_jax import music
from eqdiff_jax.data.real_grids import CONFIGS, RealGrids, counts, counts_table, folder_config
from eqdiff_jax.errors import InputError

GRIDS = 24


def page(builder: RealGrids, out: str | Path, seed: int = 0, number: int = GRIDS) -> Path:
    """Write page.png, page.strudel.js and counts.md below `out`; the sources take turns. Returns the folder.

    Tracks that a grid does not observe are rests.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = _sample(builder, np.random.default_rng(seed), number)
    grids = np.stack([np.where(row["observed"][:, None], row["tokens"], 0) for row in rows]).astype(np.int32)
    titles = [f"{_text(row['piece'])} {row['bpm']:.0f}" for row in rows]
    music.draw(grids, out / "page.png", titles=titles)
    (out / "page.strudel.js").write_text(music.song_to_strudel(grids, float(np.median([r["bpm"] for r in rows]))))
    (out / "counts.md").write_text(counts_table(counts(builder)) + "\n")
    return out


def _sample(builder: RealGrids, rng: np.random.Generator, number: int) -> list[dict]:
    """Rows of one split, train if there is one, the same number of each source as far as there are."""
    source = builder.as_data_source(split="train" if "train" in builder.info.splits else min(builder.info.splits))
    by_source: dict[str, list[int]] = {}
    for i in rng.permutation(len(source)).tolist():
        by_source.setdefault(_text(source[i]["source"]), []).append(i)
    turns = [(turn, name, i) for name, mine in by_source.items() for turn, i in enumerate(mine[:number])]
    return [source[i] for _, _, i in sorted(sorted(turns)[:number], key=lambda t: (t[1], t[0]))]


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def main(argv: list[str] | None = None) -> None:
    """Flags only."""
    parser = argparse.ArgumentParser(description="A page of real grids, as a picture and as Strudel, and the counts.")
    parser.add_argument("--data", default="experiment", choices=list(CONFIGS), help="config of RealGrids")
    parser.add_argument("--out", default="out", help="folder to write to")
    parser.add_argument("--data_dir", default="data", help="where data sets are built")
    parser.add_argument("--folder", help="a folder of MIDI files, instead of --data")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    try:
        config = folder_config(flags.folder) if flags.folder else flags.data
        builder = RealGrids(config=config, data_dir=flags.data_dir, file_format="array_record")
        builder.download_and_prepare()
        print(page(builder, flags.out, flags.seed))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
