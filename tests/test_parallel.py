"""Chains over devices: one result, however many there are."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from eqdiff_jax.parallel import data_parallel, replicate

DEVICES = """
import sys; sys.path[:0] = [{tests!r}, {root!r}]
import jax, numpy as np
from worlds import exact_predict, random_world
from eqdiff_jax.diffusion import absorbing, sample
from eqdiff_jax.parallel import chains
assert jax.local_device_count() == {count}
predict, process = exact_predict(random_world(3)), absorbing(3)
found = chains(lambda key, first, n: sample(key, predict, process, (n, 2), sampler="{name}", steps=9, first=first),
               jax.random.key(5), 13)
print(np.asarray(found.tokens).tolist())
"""


@pytest.mark.parametrize("name", ["analytic", "remdm", "parallel"])
def test_chains_are_the_same_on_one_device_and_on_eight(name):
    root = Path(__file__).parents[1]
    outputs = []
    for count in (1, 8):
        code = DEVICES.format(tests=str(root / "tests"), root=str(root), count=count, name=name)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "PATH": "/usr/bin:/bin"})
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1] and outputs[0].count("[") == 14


def test_copies_are_laid_out_as_the_step_leaves_them():
    """Otherwise a state that comes back would compile the step a second time."""
    first = replicate({"w": jnp.arange(6.0).reshape(2, 3), "step": jnp.int32(0)})
    step = data_parallel(lambda state: {"w": state["w"] * 0.5, "step": state["step"] + 1}, donate=())
    after = step(first)
    assert {name: x.sharding for name, x in after.items()} == {name: x.sharding for name, x in first.items()}
    assert {name: x.format for name, x in after.items()} == {name: x.format for name, x in first.items()}
