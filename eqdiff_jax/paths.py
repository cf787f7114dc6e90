"""Where the shipped weights, the page and the configs are: in a checkout, or inside the installed package."""

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent
INSTALLED = (_HERE / "shipped").is_dir()  # a wheel holds them there (setup.py)
ROOT = _HERE / "shipped" if INSTALLED else _HERE.parent
SHIPPED = ROOT / "checkpoints" / "default"
CONFIGS = ROOT / "configs"
WEB = ROOT / "web"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eqdiff_jax" / "xla"
STRUDEL = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "eqdiff_jax" / "page"
INSTALL = "eqdiff-live --fetch-page" if INSTALLED else "npm ci --prefix web"  # what installs Strudel


def node_modules(web: Path = WEB, page: str | Path | None = None) -> Path:
    """Where Strudel's packages are: below `page`; by default beside the page, or where --fetch-page puts them."""
    if page is not None:
        return Path(page) / "node_modules"
    beside, fetched = web / "node_modules", STRUDEL / "node_modules"
    return fetched if fetched.is_dir() and not beside.is_dir() else beside
