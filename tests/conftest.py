"""What tests share: needs that may be absent, the real Strudel, random grids.

A need that is absent skips a test with the reason, except where CI=true: there it fails.
"""

import atexit
import gc
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from eqdiff_jax.music.grid import LEGAL, SHAPE
from eqdiff_jax.music.vocabulary import VOCABULARY

# One compilation cache for the whole session, where sample.py and live.py look, too: tests and the programs that they
# start reuse what one of them has built.
_cache = tempfile.TemporaryDirectory(prefix="eqdiff-cache-", ignore_cleanup_errors=True)
atexit.register(_cache.cleanup)
os.environ["XDG_CACHE_HOME"] = _cache.name
jax.config.update("jax_compilation_cache_dir", str(Path(_cache.name) / "eqdiff_jax" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

WEB = Path(__file__).parent.parent / "web"


@pytest.fixture(autouse=True, scope="module")
def _release_programs() -> Iterator[None]:
    """Every compiled program holds memory maps, of which Linux gives a process 65,530: drop a module's at its end."""
    yield
    jax.clear_caches()
    gc.collect()


def _need(condition: object, reason: str) -> None:
    if not condition:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.fixture(scope="session")
def need() -> Callable[[object, str], None]:
    """need(condition, reason): skip, or fail where CI=true, unless the condition holds."""
    return _need


@pytest.fixture(scope="session")
def eqdiff_data() -> Path:
    """Folder of real music and motion, from the environment variable EQDIFF_DATA."""
    folder = os.environ.get("EQDIFF_DATA", "")
    _need(folder and Path(folder).is_dir(), "no real data: set EQDIFF_DATA to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def query_strudel() -> Callable[[list], list[dict]]:
    """Evaluates programs with the real Strudel, many in one process: list of code -> list of answers."""
    node = shutil.which("node")
    _need(node, "no node: install Node.js 20 or newer")
    _need((WEB / "node_modules" / "@strudel").is_dir(), "no Strudel: run `npm ci --prefix web`")

    def query(programs: list) -> list[dict]:
        run = subprocess.run([node, str(WEB / "query.mjs")], input="\n".join(map(json.dumps, programs)),
                             capture_output=True, text=True, check=True)
        answers = [json.loads(line) for line in run.stdout.splitlines()]
        assert len(answers) == len(programs)
        return answers
    return query


@pytest.fixture(scope="session")
def random_grid() -> Callable[[np.random.Generator], np.ndarray]:
    """rng -> a legal grid, int32 [12, 32], of random density, with every kind of token."""
    groups = [VOCABULARY.group(token) for token in range(len(VOCABULARY))]

    def draw(rng: np.random.Generator) -> np.ndarray:
        density, structure = 0.02 + 0.8 * rng.beta(1, 2), rng.uniform(0, 0.8)
        weight = {"rest": 0.0, "pitch": 0.25, "drum": 6.0, "structure": structure}
        weights = LEGAL * np.array([weight.get(group, 1.0) for group in groups])
        filled = np.stack([rng.choice(len(VOCABULARY), SHAPE[1], p=row / row.sum()) for row in weights])
        return np.where(rng.random(SHAPE) < density, filled, 0).astype(np.int32)
    return draw
