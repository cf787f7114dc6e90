"""The chain at its equilibria: what the 60 Hz chain tends to, with exact derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqdiff_jax import motion
from eqdiff_jax.equilibrium import SOLVERS, Status
from eqdiff_jax.motion import dell, lim_rps
from eqdiff_jax.motion.chain import prepare
from eqdiff_jax.motion.equilibrium_chain import PERIOD, equilibrium_chain


@pytest.fixture(scope="module")
def params():
    fresh = motion.init_params(jax.random.key(3))
    cross = fresh.lim_rps.cross + 0.1 * jax.random.normal(jax.random.key(4), fresh.lim_rps.cross.shape)
    return fresh._replace(lim_rps=lim_rps.LimParams(cross))


def test_every_equation_is_solved(params):
    """A still body: after the slow equilibria have met, h*, y* and s* satisfy their own equations."""
    pose = motion.demo("sway", 1.0, jax.random.key(0))[30]
    pose[:, 3:7] = 0.0
    found = equilibrium_chain(params, np.repeat(pose[None], 60 * PERIOD, axis=0))
    weights = prepare(params)
    h, y = jnp.zeros(dell.FAST), jnp.zeros(dell.SLOW)
    for _ in range(400):
        h = dell.fast_map(weights.dell, h, y, dell.features(pose))
        y = dell.slow_map(weights.dell, y, weights.dell.w_out @ h)
    z_raw = dell.BLEND[0] * weights.dell.w_out @ h + dell.BLEND[1] * y
    measured = jnp.concatenate([z_raw, jnp.zeros(64)])
    s = measured
    for _ in range(400):
        s = lim_rps.proximal_step(weights.cross, s, measured)
    np.testing.assert_allclose(found.z[-1], s[:32], atol=2e-5)
    np.testing.assert_allclose(found.velocity[-1], 0.0, atol=1e-4)


def test_it_is_what_the_stage_chain_tends_to(params):
    """On slow movement the 60 Hz chain with its few iterations stays near; its own bounds say how near."""
    limbs = motion.demo("sway", 6.0, jax.random.key(0))
    limbs = limbs[:len(limbs) // PERIOD * PERIOD]
    stage, exact = motion.trajectory(params, limbs), equilibrium_chain(params, limbs)
    late = slice(4 * PERIOD, None)
    distance = np.linalg.norm(np.asarray(stage.z - exact.z)[late], axis=1)
    assert np.median(distance) < 0.1 * np.linalg.norm(np.asarray(exact.z)[late], axis=1).mean()
    assert np.isfinite(exact.velocity).all()


def test_gradients_against_central_differences(params):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), params)
        limbs = jnp.asarray(motion.demo("robot", 2.0, jax.random.key(1))[:4 * PERIOD], jnp.float64)
        target = jax.random.normal(jax.random.key(2), (32,), jnp.float64)

        def loss(params):
            found = equilibrium_chain(params, limbs)
            return jnp.sum((found.z.mean(0) - target) ** 2) + 1e-3 * jnp.sum(found.velocity[-1] ** 2)

        grads = jax.grad(loss)(wide)
        leaves, tree = jax.tree.flatten(wide)
        directions = [jax.random.normal(jax.random.key(i), x.shape, jnp.float64) for i, x in enumerate(leaves)]
        for i, (x, d) in enumerate(zip(leaves, directions, strict=True)):
            step = 1e-5
            up, down = (loss(jax.tree.unflatten(tree, [*leaves[:i], x + s * d, *leaves[i + 1:]]))
                        for s in (step, -step))
            expected, got = (up - down) / (2 * step), jnp.vdot(jax.tree.leaves(grads)[i], d)
            np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_finds_the_same_equilibria(params, name):
    """Of a block of frames one after the other, and of a frame that is held for ever."""
    limbs = motion.demo("robot", 2.0, jax.random.key(1))[:3 * PERIOD]
    found, plain = (jax.jit(lambda p, x, s=s: equilibrium_chain(p, x, solver=SOLVERS[s]))(params, limbs)
                    for s in (name, "picard"))
    np.testing.assert_allclose(found.z, plain.z, atol=2e-4)
    weights, inputs = prepare(params).dell, dell.features(limbs[30])
    joint = jax.jit(lambda w, x: dell.equilibrium(w, x, solver=SOLVERS[name]))(weights, inputs)
    assert int(joint.status) == Status.CONVERGED
    for new, old in zip(dell.joint_map(weights, *joint.value, inputs), joint.value, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-4)
