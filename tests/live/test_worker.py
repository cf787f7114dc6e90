"""Grids from another process: the same ones, whatever happens to the process."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sample import export

from eqdiff_jax import motion
from eqdiff_jax.composer import compose, music
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.contraction import spectral_radius
from eqdiff_jax.diffusion.bounded_change import UNITS
from eqdiff_jax.live.worker import (
    SCORING,
    Failed,
    Made,
    Ready,
    Worker,
    first_job,
    load,
    local_margin,
    make,
    warm_up,
)
from eqdiff_jax.motion import dell
from eqdiff_jax.music import LEGAL
from eqdiff_jax.targets import DEFAULT_RULES, Rule, compiled, targets

CANDIDATES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module")
def params(folder):
    return load(folder)


@pytest.fixture(scope="module")
def frame():
    return motion.demo("groove", 2.0, 0)[-1]


@pytest.fixture
def worker(folder, tmp_path):
    made = Worker(folder, str(tmp_path / "xla"), CANDIDATES)
    yield made
    made.close()


def answer(worker):
    """What the worker says next; the test's own time limit ends a wait for nothing."""
    while (said := worker.poll()) is None:
        time.sleep(0.005)
    return said


def test_make_follows_the_commitment_unless_time_is_short(params):
    job = first_job(3)
    free = make(params, job)
    assert isinstance(free, Made) and free.wanted == free.steps == 4  # rest is the surest of movements
    unsure = job._replace(dynamics=job.dynamics._replace(prediction_confidence=0.1))
    assert [make(params, unsure._replace(most=most)).steps for most in (0, 50, 20, 4)] == [45, 45, 20, 4]
    assert make(params, unsure._replace(steps=7, most=4)).steps == 7
    np.testing.assert_array_equal(make(params, unsure).tokens, make(params, unsure._replace(steps=45)).tokens)


def test_make_counts_what_it_did(params):
    first = make(params, first_job())
    assert first.changed == first.budget == 384 and LEGAL[np.arange(12)[:, None], first.tokens].all()
    job = first_job()._replace(window=1, previous=first.tokens, previous_conditioning=first.conditioning, most=9)
    second = make(params, job)
    assert second.changed <= second.budget < 384
    assert second.changed == (second.tokens != first.tokens).sum()
    assert first.calls == first.steps + SCORING and second.calls == second.steps + SCORING
    assert second.seconds > 0 and second.overhead > 0


def test_a_grid_is_what_compose_makes_of_its_job(params):
    first, rules = make(params, first_job()), DEFAULT_RULES | {"range": Rule("tension", 0.2, 0.9)}
    before = first.conditioning + np.float32(0.02)
    job = first_job(4)._replace(window=1, previous=first.tokens, previous_conditioning=before, temperature=1.2,
                                candidates=2, control=0.7, rules=rules, bucket=3 * UNITS,
                                activations=first.conditioning[LAYOUT["activations"]])
    made, target_map = make(params, job), compiled(rules)
    np.testing.assert_array_equal(made.conditioning, first.conditioning)
    want = compose(jax.random.fold_in(jax.random.key(4), 1), music(params), jnp.asarray(first.conditioning),
                   jnp.asarray(first.tokens), previous_conditioning=jnp.asarray(before), bucket=3 * UNITS, candidates=2,
                   control=0.7, target_map=target_map, temperature=1.2)
    np.testing.assert_array_equal(made.tokens, want.tokens)
    assert (made.budget, made.bucket, made.calls) == (want.budget, want.bucket, want.evaluations + SCORING)
    np.testing.assert_array_equal(made.asked, targets(first.conditioning, params["statistics"], target_map))
    assert (made.asked != make(params, job._replace(rules=None)).asked).any()
    poorer = make(params, job._replace(bucket=0))
    assert made.budget == poorer.budget + 3  # cells
    assert made.bucket >= (made.budget - made.changed) * UNITS > 0  # and what is left goes on


@pytest.mark.parametrize("bars", [1, 2])
def test_the_conductor_counts_the_bars_of_a_job(params, bars):
    job = first_job()._replace(mode="threshold", bars=bars)
    made = make(params, job)
    assert made.conductor.total == made.conductor.bars == bars
    assert make(params, job._replace(conductor=made.conductor)).conductor.total == 2 * bars


@pytest.mark.parametrize("mode", ["threshold", "modulate"])
def test_the_rules_need_no_network(params, mode):
    made = make({name: params[name] for name in ("weights", "statistics")}, first_job()._replace(mode=mode))
    assert (made.steps, made.wanted, made.calls, made.temperature) == (0, 0, 0, 0.0)
    assert made.code and (made.mode == mode)


def test_what_is_not_finite_makes_no_grid(params):
    job = first_job()._replace(z=np.full(32, np.nan, np.float32))
    assert "conditioning" in make(params, job).reason
    bad = params | {"denoiser": jax.tree.map(lambda x: x * np.nan, params["denoiser"])}
    assert make(bad, first_job()._replace(window=5)) == Failed(5, "the network gave NaN; its weights are damaged")


def test_local_margin_is_one_less_the_spectral_radius_at_the_equilibrium(params, frame):
    weights, inputs = params["weights"].dell, dell.features(frame)

    def joint(z):
        h, y = z[:dell.FAST], z[dell.FAST:]
        return jnp.concatenate([dell.fast_map(weights, h, y, inputs), dell.slow_map(weights, y, weights.w_out @ h)])

    z = jnp.zeros(dell.FAST + dell.SLOW)
    for _ in range(200):  # plain Jacobi sweeps, in place of the module's Gauss-Seidel
        z = joint(z)
    margin = local_margin(params["weights"], frame)
    assert margin == pytest.approx(1.0 - spectral_radius(joint, z), abs=1e-3)
    assert margin > 1.0 - dell.certificates(weights)["coupled"].bound > 0.0


def test_warm_up_measures(params):
    ready = warm_up(params)
    assert ready.per_call > 0.0 and ready.overhead > 0.0
    assert ready.margin == pytest.approx(0.1, abs=1e-3)


def test_another_process_makes_the_same_grids_and_is_replaced_when_it_dies(worker, params, frame):
    worker.start()
    assert worker.running and not worker.idle
    assert isinstance(answer(worker), Ready) and worker.idle
    os.kill(worker.pid, signal.SIGINT)  # Ctrl-C in the terminal reaches it, too
    job = first_job(7)._replace(limbs=frame, most=6, candidates=CANDIDATES)
    worker.submit(job)
    assert not worker.idle
    there, here = answer(worker), make(params, job)
    assert worker.idle
    for name in ("tokens", "conditioning", "section", "activations"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    assert (there.code, there.conductor, there.steps) == (here.code, here.conductor, here.steps)

    worker.submit(job)
    os.kill(worker.pid, signal.SIGKILL)
    said = answer(worker)
    if isinstance(said, Made):  # it was faster
        said = answer(worker)
    assert isinstance(said, Failed) and said.window is None and "-9" in said.reason
    assert not worker.running and not worker.idle and worker.poll() is None

    worker.start()
    assert isinstance(answer(worker), Ready) and worker.starts == 2
    os.kill(worker.pid, signal.SIGSTOP)  # it hangs: nothing here waits for it
    worker.submit(job)
    assert worker.poll() is None
    worker.kill()
    assert not worker.running and worker.poll() is None
    worker.close()


def test_a_process_that_cannot_load_says_why(tmp_path):
    worker = Worker(tmp_path / "nothing")
    worker.start()
    said = answer(worker)
    assert said.window is None and "no checkpoint there" in said.reason and not worker.running
    worker.close()


def test_it_goes_with_the_one_who_started_it(folder):
    program = textwrap.dedent(f"""
        import os, time
        from eqdiff_jax.live.worker import Worker
        if __name__ == "__main__":
            worker = Worker({str(folder)!r})
            worker.start()
            while worker.poll() is None:
                time.sleep(0.02)
            print(worker.pid, flush=True)
            os._exit(1)
    """)
    # Its output is a pipe that the process of the grids holds, too: run returns when both have gone.
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1 and int(run.stdout) > 0


def test_jobs_and_grids_are_small_enough_for_the_pipe(params):
    """A pipe takes 64 kB at once, so nobody waits for the other side to read."""
    rng = np.random.default_rng(0)
    busy = first_job()._replace(previous=rng.integers(0, 81, (12, 32)), previous_conditioning=np.ones(104))
    assert len(pickle.dumps(busy)) < 1 << 14
    assert len(pickle.dumps(make(params, first_job()._replace(mode="modulate")))) < 1 << 14
