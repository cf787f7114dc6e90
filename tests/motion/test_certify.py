"""Bounds of the 60 Hz chain: they hold for a thousand parameters, after absurd training, and no pair breaks them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqdiff_jax import motion
from eqdiff_jax.cascade_search import REST_FRAME, latent_slots
from eqdiff_jax.contraction.lmi import lmi_bound
from eqdiff_jax.motion import certify, dell, dynamics, lim_rps
from eqdiff_jax.motion.dynamics import TABLE
from eqdiff_jax.motion.windows import padded_trajectory

prepare = jax.jit(lambda params: jax.lax.map(motion.prepare, params))  # batched LU is no faster on a CPU


def draws(count, seed):
    """`count` random parameter sets as one batch, sizes from 1e-3 to 1e3, some entries 0."""
    template = jax.eval_shape(motion.init_params, jax.random.key(0))
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-3, 3, count)

    def draw(leaf):
        values = rng.normal(size=(count, *leaf.shape)) * (rng.random((count, *leaf.shape)) < 0.8)
        return np.float32(values * scale.reshape(-1, *[1] * len(leaf.shape)))

    return jax.tree.map(draw, template)


def below(stack, gain):
    """Every matrix has norm < gain: gain^2 I - W W^T has a Cholesky factor in float64 (quicker than an SVD)."""
    w = np.asarray(stack, np.float64)
    w = w if w.shape[-2] <= w.shape[-1] else np.swapaxes(w, -2, -1)
    try:
        np.linalg.cholesky(gain**2 * np.eye(w.shape[-2]) - w @ np.swapaxes(w, -2, -1))
    except np.linalg.LinAlgError:
        return False
    return True


def assert_gains(weights):
    for name, gain in dell.NOMINAL.items():
        assert below(getattr(weights.dell, name), gain), name
        assert name == "w_in" or not below(getattr(weights.dell, name), 0.999 * gain), name  # isometries
    assert below(weights.cross, 1.0)


@jax.jit
def ratios(key, weights):
    """|f(x) - f(y)| and |x - y| of the fast, slow and proximal maps for one random pair per parameter set."""
    def one(key, w):
        k = jax.random.split(key, 8)
        size = 10.0 ** jax.random.uniform(k[0], (), minval=-2, maxval=1)
        h, g = jax.random.uniform(k[1], (2, 128), minval=-1) * jnp.minimum(size, 1)
        y, v = jax.random.uniform(k[2], (2, 32), minval=-1) * jnp.minimum(size, 1)
        s, r = jax.random.normal(k[3], (2, 96)) * size
        inputs, x = jax.random.normal(k[4], (216,)), jax.random.normal(k[5], (32,))
        measured = jax.random.normal(k[6], (96,))
        fast = dell.fast_map(w.dell, h, y, inputs) - dell.fast_map(w.dell, g, y, inputs)
        slow = dell.slow_map(w.dell, y, x) - dell.slow_map(w.dell, v, x)
        prox = lim_rps.proximal_step(w.cross, s, measured) - lim_rps.proximal_step(w.cross, r, measured)
        return jnp.array([[jnp.linalg.norm(a), jnp.linalg.norm(b)]
                          for a, b in ((fast, h - g), (slow, y - v), (prox, s - r))])
    return jax.vmap(one)(jax.random.split(key, len(weights.cross)), weights)


LIMIT = np.array([dell.RECURRENT_GAIN, dell.SLOW_GAIN, lim_rps.contraction_factor()])


@pytest.mark.parametrize("seed", range(4))
def test_gains_and_contractions_hold_for_a_thousand_parameters(seed):
    weights = prepare(draws(250, seed))
    assert_gains(weights)
    changed, apart = np.moveaxis(np.asarray(ratios(jax.random.key(seed), weights), np.float64), -1, 0)
    assert (changed <= LIMIT * apart + 1e-4).all()
    # not for want of trying: random directions through a multiple of an isometry keep much of its gain
    assert ((changed / apart).max(axis=0) > 0.5 * LIMIT).all()


def test_gains_survive_two_hundred_steps_at_an_absurd_learning_rate():
    limbs = jnp.asarray(motion.demo("jump", 1.0, 0)[:12])
    params, optimiser = motion.init_params(jax.random.key(1)), optax.adam(10.0)

    def loss(params):
        return -jnp.sum(latent_slots(motion.prepare(params), limbs) ** 2)

    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    train = jax.jit(lambda p: jax.lax.scan(step, (p, optimiser.init(p)), length=200)[0][0])
    after = train(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    assert max(np.abs(x).max() for x in jax.tree.leaves(after)) > 100  # it did leave
    weights = jax.jit(motion.prepare)(after)
    assert dell.violations(weights.dell) == ()
    assert_gains(weights)
    found = dell.certificates(weights.dell) | lim_rps.certificates(weights.cross)
    assert all(found[name].contraction for name in ("fast", "slow", "coupled", "step"))
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (250, *x.shape)), weights)
    changed, apart = np.moveaxis(np.asarray(ratios(jax.random.key(9), batch), np.float64), -1, 0)
    assert (changed <= LIMIT * apart + 1e-4).all()


@pytest.mark.parametrize("same", [True, False])
def test_feature_gain_is_the_supremum(same):
    certificate = certify.feature_gain(same)
    rng, features = np.random.default_rng(0), jax.jit(jax.vmap(dell.features))
    low = np.where(np.arange(8) < 7, -dell.LIMITS, 0)
    x, y = rng.uniform(low, dell.LIMITS, (2, 2000, 27, 8)).astype(np.float32)
    x[1000:] = y[1000:] + 0.01 * (x - y)[1000:]
    if same:
        x[..., 7] = y[..., 7]
    changed = np.linalg.norm(np.asarray(features(x) - features(y), np.float64), axis=1)
    apart = np.linalg.norm((np.float64(x) - y).reshape(2000, -1), axis=1)
    assert (changed <= certificate.bound * apart + certificate.rounding).all()
    # attained: one position, or the confidence of the limb whose features can be largest
    limb = int(np.argmax(np.linalg.norm(dell.FEATURE_LIMITS.reshape(27, 8)[:, :7], axis=1)))
    corner = np.where(REST_FRAME > 0, -1, 1) * dell.LIMITS * np.float32(0.999)
    corner[:, 7] = 0.999
    point, direction = np.float32(corner), np.zeros((27, 8), np.float32)
    direction[0, 0] = 1.0
    if not same:
        jacobian = jax.jacobian(dell.features)(point)[8 * limb:8 * limb + 8, limb]
        direction = np.zeros((27, 8), np.float32)
        direction[limb] = np.linalg.svd(jacobian)[2][0]
    change = jax.jvp(dell.features, (point,), (direction,))[1]
    assert 0.99 * certificate.bound <= np.linalg.norm(change) <= certificate.bound * (1 + 1e-6)


@pytest.fixture(scope="module")
def weights():
    """Ordinary weights, but with a cross-modal operator that is no shift: every block of the triangle is used."""
    params = motion.init_params(jax.random.key(4))
    cross = np.random.default_rng(4).normal(size=(96, 96)).astype(np.float32)
    cross[:32, :32] += 4 * np.eye(32, dtype=np.float32)
    return jax.jit(motion.prepare)(params._replace(lim_rps=lim_rps.LimParams(cross)))


def test_the_coupled_report_of_dell(weights):
    """Proved gains, (a) and (b) at 0.9, (c) smaller, at a point that is the equilibrium."""
    inputs = jnp.asarray(0.3 * np.random.default_rng(3).normal(size=216), jnp.float32)
    report = certify.coupled(weights.dell, inputs)
    assert (report.gains <= dell.gains() + 1e-12).all()
    assert report.kind == "proved" and report.row_sums.holds and report.perron_root.holds and report.local.holds
    assert 0.89 < report.perron_root.value <= report.row_sums.value < 0.9001
    assert report.local.value < report.perron_root.value
    assert report.residual < 1e-4 and report.distance < 1e-3
    assert report.limits[0].both < report.limits[1].both < report.limits[2].both


def test_frozen_bounds_cover_exact_equilibria(weights):
    found = certify.frozen(weights.dell, weights.cross)
    recurrent, inputs, out = certify.joint_system(weights.dell)
    solve = lim_rps.TAU * np.linalg.inv(lim_rps.TAU * np.eye(96) + lim_rps.GAMMA * np.float64(weights.cross))
    prox, rng = solve[:32, :32], np.random.default_rng(0)

    def jacobian(slopes):
        return out @ np.linalg.solve(np.eye(160) - slopes[:, None] * recurrent, slopes[:, None] * inputs)

    worst = 0.0
    for i in range(60):  # any slopes in [0, 1] are allowed to the certificate
        slopes = np.ones(160) if i == 0 else rng.uniform(0, 1, 160) ** rng.uniform(0, 2)
        j = jacobian(slopes)
        assert np.linalg.norm(j, 2) <= found["z_raw"].bound
        assert np.linalg.norm(prox @ j, 2) <= found["z"].bound
        worst = max(worst, np.linalg.norm(prox @ j * certify.scales(), 2))
    assert worst <= found["limbs"].bound <= 1.6 * worst  # nearly tight
    assert found["z_raw"].bound < 0.6 * dell.small_gain(weights.dell).z_raw


def test_fixed_multipliers_are_nearly_the_best(weights):
    quick = certify.frozen(weights.dell, weights.cross)["z_raw"].bound
    recurrent, inputs, out = certify.joint_system(weights.dell)
    finer = min(lmi_bound(recurrent, inputs, out, s * np.repeat([1.0, r], (128, 32)))
                for s in (1.7, 2.0, 2.3) for r in (0.6, 0.72))
    assert quick <= 1.05 * finer


def test_filter_gains_cover_every_bounded_input_from_the_start(weights):
    gains = certify.filter_gains(weights.cross)
    operator = jnp.asarray(weights.cross)

    @jax.jit
    def run(z_raw):
        return jax.lax.scan(lambda s, z: lim_rps.step(operator, s, z), lim_rps.init_state(), z_raw)[1]

    rng = np.random.default_rng(1)
    kinds = {"noise": rng.normal(size=(80, 32)), "constant": np.ones((80, 32)),
             "flip each frame": (-1.0) ** np.arange(80)[:, None] * rng.normal(size=32),
             "jump as settling ends": np.where(np.arange(80)[:, None] < 8, -1.0, 1.0) * rng.normal(size=32)}

    @functools.partial(jax.jit, static_argnames="name")
    def ascend(z, name):
        out, back = jax.vjp(lambda z: getattr(run(z), name)[-1], z)
        d = back(out)[0]
        return d / jnp.maximum(jnp.linalg.norm(d, axis=1, keepdims=True), 1e-12)

    worst = dict.fromkeys(("z", "velocity", "acceleration"), 0.0)
    for values in kinds.values():
        z = np.float32(values / np.linalg.norm(values, axis=1, keepdims=True))
        for name in worst:
            best = z
            for _ in range(6):
                best = ascend(best, name)
            for candidate in (z, best):
                size = np.linalg.norm(np.float64(getattr(run(candidate), name)), axis=1).max()
                assert size <= getattr(gains, name) * (1 + 1e-5), name
                worst[name] = max(worst[name], size)
    for name, size in worst.items():
        assert getattr(gains, name) <= 1.6 * size, name  # and nearly attained


@pytest.mark.parametrize("window", [1, 5, 8, 30, 60])
def test_window_means_stay_within_the_gain_of_means(weights, window):
    gains, operator = certify.filter_gains(weights.cross, window), jnp.asarray(weights.cross)
    means = np.stack([np.where((np.arange(80) >= i) & (np.arange(80) < i + window), 1 / window, 0)
                      for i in range(0, 81 - window)]).astype(np.float32)

    @jax.jit
    def outputs(z):
        out = jax.lax.scan(lambda s, x: lim_rps.step(operator, s, x), lim_rps.init_state(), z)[1]
        return jnp.asarray(means) @ out.z, jnp.asarray(means) @ out.velocity

    @jax.jit
    def ascend(z, which, row):
        out, back = jax.vjp(lambda z: outputs(z)[0] * which + outputs(z)[1] * (1 - which), z)
        d = back(jnp.zeros_like(out).at[row].set(out[row]))[0]
        return d / jnp.maximum(jnp.linalg.norm(d, axis=1, keepdims=True), 1e-12)

    rng, worst = np.random.default_rng(2), np.zeros(2)
    for which in (1.0, 0.0):
        for row in {0, 4, len(means) - 1} & set(range(len(means))):
            z = rng.normal(size=(80, 32))
            z = np.float32(z / np.linalg.norm(z, axis=1, keepdims=True))
            for _ in range(8):
                z = ascend(z, which, row)
            sizes = [np.linalg.norm(np.float64(x), axis=1).max() for x in outputs(z)]
            assert sizes[0] <= gains.z * (1 + 1e-5) and sizes[1] <= gains.velocity * (1 + 1e-5)
            worst = np.maximum(worst, sizes)
    assert gains.z <= 1.7 * worst[0] and gains.velocity <= 2.5 * worst[1]
    if window == 60:
        assert gains.velocity < 0.2 * certify.filter_gains(weights.cross).velocity


@pytest.fixture(scope="module")
def bent(weights):
    """Bounds of the running chain, and pairs of motions with the changes they make."""
    chain = certify.realtime(weights.dell, weights.cross)
    raw = np.float32(np.random.default_rng(4).normal(size=(96, 96)))
    raw[:32, :32] += 4 * np.eye(32, dtype=np.float32)
    params = motion.init_params(jax.random.key(4))._replace(lim_rps=lim_rps.LimParams(raw))
    rng, base = np.random.default_rng(2), motion.demo("show", 16.0, 0)
    still = np.broadcast_to(REST_FRAME, base.shape).copy()
    jolt = np.zeros_like(base)
    jolt[400:, :, :3] = 0.3
    pairs = [(base, base + np.float32(s * rng.normal(size=base.shape) * (np.arange(8) < 7))) for s in (0.01, 0.1, 1.0)]
    pairs += [(base, base + jolt), (still, still + jolt), (base, motion.demo("show", 16.0, 3)), (base, base[::-1])]
    made = []
    for a, b in pairs:
        b = b.copy()
        b[..., 7] = a[..., 7]
        size = np.linalg.norm((np.float64(a) - b).reshape(len(a), -1), axis=1).max()
        made.append((size, padded_trajectory(params, a), padded_trajectory(params, b)))
    return chain, made


def test_running_chain_stays_within_its_bounds(bent):
    chain, made = bent
    for size, a, b in made:
        for name in ("x_fast", "y_slow", "z", "velocity"):
            moved = np.linalg.norm(np.float64(getattr(a, name)) - getattr(b, name), axis=1).max()
            assert moved <= chain[name].bound * size + chain[name].rounding, name


def test_dynamics_stay_within_their_gains(bent):
    chain, made = bent
    gains = certify.dynamics_gains(chain)
    seen = dict.fromkeys(gains, 0.0)
    for size, a, b in made:
        for name, gain in gains.items():
            moved = np.abs(np.float64(getattr(a.dynamics, name)) - getattr(b.dynamics, name)).max()
            row = getattr(TABLE, name)
            assert moved <= min(gain * size, row.high - row.low) + 1e-4, name
            seen[name] = max(seen[name], moved / size / gain)
    for name in ("tension", "grounding", "verticality", "energy"):  # within reach, not astronomically loose
        assert seen[name] > 0.01, name
    assert set(gains) < set(dynamics.TABLE._fields)


def test_uncertified_weights_have_no_bound(weights):
    wild = weights.dell._replace(w_rec=2 * weights.dell.w_rec)
    for found in (certify.realtime(wild, weights.cross), certify.frozen(wild, weights.cross)):
        assert all(c.bound == np.inf and "w_rec has norm 1.19" in c.method for c in found.values())
    for found in (certify.realtime(weights.dell, 2 * np.eye(96)), certify.frozen(weights.dell, 2 * np.eye(96))):
        assert all(c.bound == np.inf and "B has norm 2" in c.method for c in found.values())
