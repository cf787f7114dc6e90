"""Solvers against exact answers and against Picard's count; statuses, batches, dtypes, pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from eqdiff_jax.equilibrium import SOLVERS, Anderson, Picard, Status, fixed_point, picard, require
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import dell, lim_rps
from eqdiff_jax.parallel import data_parallel, replicate, unreplicate

NATIVE = ("anderson", "picard", "broyden")
_compiled: dict = {}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def solve(problem: zoo.Problem, solver="anderson", dtype=np.float64, **knobs):
    """The problem under zoo's stopping rule, one compilation per f, shape, dtype and solver."""
    solver = SOLVERS[solver] if isinstance(solver, str) else solver
    knobs = {"rtol": zoo.TOLERANCE, "atol": zoo.TOLERANCE, "max_steps": 3000, **knobs}
    args = [np.asarray(a, dtype) for a in problem.args]
    key = (problem.f, problem.z0.shape, dtype, solver, tuple(knobs.items()))
    if key not in _compiled:
        _compiled[key] = jax.jit(lambda z, *a: fixed_point(problem.f, z, *a, solver=solver, **knobs))
    return jax.tree.map(np.asarray, _compiled[key](np.asarray(problem.z0, dtype), *args))


def dell_problem() -> zoo.Problem:
    """Both DELL equilibria as one vector (h, y), for a random pose."""
    w = dell.weights(dell.init_params(jax.random.key(1)))
    inputs = 0.3 * np.random.default_rng(0).normal(size=216)

    def f(z, w_in, w_rec, w_out, lift, w_slow, u_slow):
        h, y = z[:dell.FAST], z[dell.FAST:]
        return jnp.concatenate([jnp.tanh(w_rec @ h + lift @ y + w_in @ inputs),
                                jnp.tanh(u_slow @ y + w_slow @ (w_out @ h))])

    return zoo.Problem(f, np.zeros(dell.FAST + dell.SLOW), tuple(w[:6]), 0.9)


def lim_rps_problem() -> zoo.Problem:
    """The proximal step of a random cross-modal matrix."""
    rng = np.random.default_rng(2)
    operator = lim_rps.weights(lim_rps.LimParams(jnp.asarray(rng.normal(size=(96, 96)), jnp.float32)))
    step = (np.eye(96) - lim_rps.GAMMA * np.asarray(operator, np.float64)) / (1 + lim_rps.TAU)
    drive = lim_rps.TAU / (1 + lim_rps.TAU) * rng.normal(size=96)
    return zoo.Problem(zoo.affine(0.5).f, np.zeros(96), (step, drive), 0.88)


def contractions() -> list[tuple[str, zoo.Problem]]:
    """Every certified contraction with n >= 32, and cos."""
    rows = [(f"{kind} {rate} {n}", zoo.tanh_problem(kind, rate, n, seed))
            for kind in zoo.KINDS for rate in zoo.RATES for n in zoo.SIZES for seed in ((0,) if n > 500 else (0, 1, 2))]
    rows += [(f"affine {rate}", zoo.affine(rate)) for rate in (0.5, 0.9, 0.99)]
    return [*rows, ("dell", dell_problem()), ("lim_rps", lim_rps_problem()), ("cos", zoo.cosine())]


def geometric(values) -> float:
    return float(np.exp(np.mean(np.log(values))))


def test_never_worse_than_picard_plus_one():
    """And as far ahead of it, and of jaxopt, as the README says."""
    counts: dict[str, dict[str, int]] = {}
    for name, problem in contractions():
        runs = {solver: solve(problem, solver) for solver in ("anderson", "picard", "jaxopt_anderson")}
        assert all(run.status == Status.CONVERGED for run in runs.values()), name
        counts[name] = {solver: int(run.steps) for solver, run in runs.items()}
    ahead = {}
    for name, row in counts.items():
        assert row["anderson"] <= row["picard"] + 1, (name, row)
        ahead[name] = row["picard"] / row["anderson"]
    assert geometric([v for k, v in ahead.items() if k.startswith("symmetric 0.99")]) >= 4.0
    assert geometric([v for k, v in ahead.items() if k.startswith("orthogonal 0.99")]) >= 1.2
    tanh = [row for name, row in counts.items() if name.startswith(zoo.KINDS)]
    assert geometric([row["anderson"] / row["jaxopt_anderson"] for row in tanh]) <= 0.5


def test_not_above_the_best_ridge_of_jaxopt():
    ratios = []
    for kind in zoo.KINDS:
        for n in zoo.SIZES:
            problem = zoo.tanh_problem(kind, 0.99, n)
            theirs = [solve(problem, SOLVERS["jaxopt_anderson"]._replace(ridge=r)).steps for r in (1e-5, 1e-8, 1e-12)]
            ratios.append(solve(problem).steps / min(theirs))
    assert geometric(ratios) <= 1.0


@pytest.mark.parametrize("seed", range(40))
def test_excess_over_picard_is_small_on_tiny_and_saturated_problems(seed):
    """Not promised there; the safeguard's bound holds: a rejection per doubling."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    problem = zoo.tanh_problem("gaussian", rng.uniform(0.3, 0.999), n, seed)
    problem = problem._replace(args=(problem.args[0], problem.args[1] * rng.choice([1, 30])))
    ours, picard = solve(problem).steps, solve(problem, "picard").steps
    assert ours <= picard + 2 + np.log2(picard + 1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_solutions_match_numpy(solver, dtype):
    for problem in (zoo.tanh_problem("gaussian", 0.9, 32), zoo.tanh_problem("symmetric", 0.9, 32), zoo.affine(0.5)):
        found = solve(problem, solver, dtype)
        exact = zoo.reference(problem)
        assert found.status == Status.CONVERGED
        assert found.value.dtype == dtype
        # |z - z*| <= residual / (1 - L), the a posteriori bound of a contraction
        limit = found.residual / (1 - problem.rate) + 20 * np.finfo(dtype).eps * np.linalg.norm(exact)
        assert np.linalg.norm(found.value - exact) <= limit


def test_known_fixed_points():
    assert solve(zoo.cosine(), rtol=0.0, atol=1e-14).value == pytest.approx(0.7390851332151607, abs=1e-13)
    turning = zoo.rotation()
    for solver in ("anderson", "broyden"):
        found = solve(turning, solver, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.value, zoo.reference(turning), atol=1e-10)
    attending = zoo.attention()
    found = solve(attending, rtol=0.0, atol=1e-12)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(attending.f(found.value, *attending.args), found.value, atol=1e-12)


@pytest.mark.parametrize("solver", NATIVE)
def test_residual_and_trace_are_what_they_say(solver):
    problem = zoo.tanh_problem("orthogonal", 0.9, 32)
    found = solve(problem, solver, max_steps=200, trace=True)
    again = np.asarray(problem.f(found.value, *problem.args))
    assert np.linalg.norm(again - found.value) == pytest.approx(found.residual, rel=1e-9)
    assert found.relative == pytest.approx(found.residual / np.linalg.norm(again), rel=1e-9)
    assert np.isfinite(found.trace[:found.steps]).all()
    assert np.isnan(found.trace[found.steps:]).all()
    assert np.nanmin(found.trace) == found.residual
    start = np.asarray(problem.f(problem.z0, *problem.args)) - problem.z0
    assert found.trace[0] == pytest.approx(np.linalg.norm(start))


@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_count_every_call(solver):
    """A Python counter inside f, called by the running program, agrees; line searches included."""
    calls = []

    def f(z, w, x):
        jax.debug.callback(lambda: calls.append(1))
        return zoo.layer(z, w, x)

    problem = zoo.tanh_problem("gaussian", 0.9, 32)
    found = fixed_point(f, jnp.asarray(problem.z0), *map(jnp.asarray, problem.args), solver=SOLVERS[solver])
    jax.effects_barrier()
    assert len(calls) == found.steps


def test_statuses_say_why():
    diverging = zoo.rotation(2.0)
    for problem, solver, status in ((zoo.affine(0.99), "picard", Status.STEP_LIMIT),
                                    (diverging, "picard", Status.DIVERGED),
                                    (zoo.runaway(), "picard", Status.DIVERGED)):
        found = solve(problem, solver, max_steps=50)
        assert found.status == status
        assert np.isfinite(found.value).all()
    broken = fixed_point(lambda z: jnp.log(z), jnp.asarray(-1.0))
    assert broken.status == Status.NOT_FINITE
    assert np.isfinite(broken.value)
    for found in (solve(zoo.runaway(), solver, max_steps=100) for solver in NATIVE):
        assert found.status != Status.CONVERGED
    with pytest.raises(ArithmeticError, match="not finite"):
        require(broken)
    assert require(solve(zoo.cosine())) == pytest.approx(0.7390851, abs=1e-5)
    assert "raise max_steps" in str(Status.of(1))


def test_least_residual_iterate_is_returned():
    problem = zoo.rotation(1.5)
    found = solve(problem, "picard", max_steps=30, trace=True)
    assert np.nanargmin(found.trace) == 0  # it only gets worse from there
    np.testing.assert_array_equal(found.value, problem.z0)


@pytest.mark.parametrize("solver", NATIVE)
def test_batches_stop_one_by_one(solver):
    """Three examples, one hard, one easy, one broken: each as if alone, whatever its neighbours do."""
    w = np.stack([zoo.matrix("symmetric", 0.97, 32), zoo.matrix("gaussian", 0.2, 32, 1), np.full((32, 32), np.nan)])
    x = 0.1 * np.random.default_rng(0).normal(size=(3, 32))

    def one(w, x):
        return fixed_point(zoo.layer, jnp.zeros(32), w, x, solver=SOLVERS[solver], trace=True, max_steps=400)

    together = jax.jit(jax.vmap(one))(w, x)
    assert together.steps[0] > together.steps[1]
    np.testing.assert_array_equal(together.status, [Status.CONVERGED, Status.CONVERGED, Status.NOT_FINITE])
    for i in range(3):
        alone = jax.jit(one)(w[i], x[i])
        assert alone.steps == together.steps[i]
        np.testing.assert_allclose(together.value[i], alone.value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(together.trace[i], alone.trace, rtol=1e-4, atol=1e-12)
    nested = jax.vmap(jax.vmap(one))(w[None], x[None])
    np.testing.assert_array_equal(nested.steps[0], together.steps)


def test_closed_over_and_unbatched_values():
    problem = zoo.tanh_problem("gaussian", 0.9, 32)
    w, x = map(jnp.asarray, problem.args)
    shifts = jnp.asarray([0.0, 0.5])
    found = jax.vmap(lambda s: fixed_point(lambda z: jnp.tanh(w @ z + x + s), jnp.zeros(32)).value)(shifts)
    for i in range(2):
        np.testing.assert_allclose(found[i], fixed_point(zoo.layer, jnp.zeros(32), w, x + shifts[i]).value, rtol=1e-9)
    tolerances = jax.vmap(lambda tol: fixed_point(zoo.layer, jnp.zeros(32), w, x, rtol=tol, atol=0.0).steps)
    loose, tight = tolerances(jnp.asarray([1e-2, 1e-8]))
    assert loose < tight


def test_pytrees_and_no_jit():
    def f(state, x):
        return {"a": 0.5 * jnp.tanh(state["b"][0] + x), "b": (0.3 * state["a"] + 0.1, state["b"][1] * 0.5)}

    z0 = {"a": jnp.zeros(3), "b": (jnp.zeros(3), jnp.ones((2, 2)))}
    for found in (fixed_point(f, z0, 1.0, rtol=1e-10), jax.jit(lambda z: fixed_point(f, z, 1.0, rtol=1e-10))(z0)):
        assert found.status == Status.CONVERGED
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), f(found.value, 1.0), found.value)
    np.testing.assert_allclose(found.value["b"][1], 0, atol=1e-5)


def test_inside_scan_and_pmap():
    problem = zoo.tanh_problem("gaussian", 0.5, 32)
    w, x = map(jnp.asarray, problem.args)

    def loss(scale):
        return jnp.sum(fixed_point(zoo.layer, jnp.zeros(32), w, scale * x, rtol=1e-12, atol=1e-12).value)

    expected = jax.grad(loss)(1.0)
    assert jax.lax.scan(lambda c, s: (c, jax.grad(loss)(s)), 0, jnp.ones(2))[1][1] == pytest.approx(expected)
    spread = data_parallel(jax.grad(loss), donate=())(replicate(jnp.asarray(1.0)))
    assert unreplicate(spread) == pytest.approx(expected)


@given(st.integers(0, 2**31), st.floats(0.05, 0.98), st.sampled_from(zoo.KINDS))
@settings(max_examples=25, deadline=None)
def test_any_contraction_is_solved(seed, rate, kind):
    problem = zoo.tanh_problem(kind, rate, 32, seed)
    found = solve(problem)
    assert found.status == Status.CONVERGED
    assert np.linalg.norm(found.value - zoo.reference(problem)) <= found.residual / (1 - rate) + 1e-12


@pytest.mark.parametrize("solver", NATIVE)
@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e20, 1e36])
def test_the_range_of_float32_is_used_whole(solver, size):
    """z = R z + size b: squares of residuals would under- or overflow, and the answer scales with b."""
    problem = zoo.affine(0.5)
    w, b = (np.asarray(a, np.float32) for a in problem.args)
    run = jax.jit(lambda b: fixed_point(problem.f, jnp.zeros(b.shape, b.dtype), w, b, solver=SOLVERS[solver],
                                        rtol=1e-5, atol=0.0))
    found, usual = run(np.float32(size) * b), run(b)
    assert found.status == usual.status == Status.CONVERGED
    np.testing.assert_allclose(np.float64(found.value) / size, usual.value, rtol=1e-3, atol=1e-4)
    assert 0 < found.relative <= 1e-5


def test_an_exact_fixed_point_has_residual_nought_and_nothing_is_nan():
    """f(z) = z at the start, and a constant map, hit exactly by the second step."""
    for found in (fixed_point(lambda z: 1.0 * z, jnp.zeros(3), trace=True),
                  fixed_point(lambda z: 0.0 * z + 2.0, jnp.ones(3), trace=True)):
        assert found.status == Status.CONVERGED
        assert found.residual == found.relative == 0
        assert np.isfinite(found.trace[:found.steps]).all()


def test_a_traced_rate_is_judged_by_value():
    assert jax.jit(picard.error_bound)(0.5, jnp.ones(4)) == pytest.approx(2.0)
    assert jax.jit(picard.error_bound)(1.0, jnp.ones(4)) == np.inf


def test_damping_tames_what_picard_cannot():
    """-1.5 z + 1: slope -1.5 leaves the unit disc, damped by 0.5 it is -0.25."""
    z0, f = jnp.zeros(2), lambda z: -1.5 * z + 1.0
    assert fixed_point(f, z0, solver=Picard()).status == Status.DIVERGED
    damped = fixed_point(f, z0, solver=Picard(damping=0.5), rtol=1e-10, atol=0.0)
    np.testing.assert_allclose(damped.value, 0.4, atol=1e-9)


def test_the_safeguard_rejects_and_recovers():
    """A map whose slope flips far from its fixed point: unsafeguarded mixing overshoots, the safeguard does not."""
    def f(z):
        return jnp.where(jnp.abs(z) < 1, 0.9 * z, 0.9 * jnp.sign(z)) + 0.05 * jnp.sin(7 * z)

    z0 = jnp.asarray(np.random.default_rng(3).normal(size=40) * 3)
    safe, bold = (fixed_point(f, z0, solver=Anderson(decrease=d), trace=True, max_steps=400) for d in (0.999, 1e30))
    picard = fixed_point(f, z0, solver=Picard(), max_steps=400)
    assert (np.diff(np.asarray(bold.trace)[:bold.steps]) > 0).any()  # there was something to reject
    assert safe.status == Status.CONVERGED
    assert safe.steps <= picard.steps + 2 + np.log2(picard.steps)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fixed_point(jnp.cos, jnp.asarray(1)), "floating"),
    (lambda: fixed_point(jnp.cos, jnp.asarray(1, jnp.bfloat16)), "cast inside f"),
    (lambda: picard.error_bound(1.0, jnp.ones(2)), "needs a contraction"),
    (lambda: fixed_point(lambda z: z[:1], jnp.zeros(2)), "same structure"),
    (lambda: fixed_point(jnp.cos, jnp.zeros(2), max_steps=0), "max_steps"),
    (lambda: fixed_point(lambda z: {"a": z}, jnp.zeros(2)), "same structure"),
    (lambda: fixed_point(jnp.cos, jnp.zeros(2), solver="picard"), r"SOLVERS\[name\]"),
    (lambda: fixed_point(jnp.cos, jnp.zeros(2), adjoint="implicit"), "Implicit()"),
    (lambda: fixed_point(jnp.cos, jnp.zeros(2), solver=Anderson(window=0)), "window"),
    (lambda: fixed_point(jnp.cos, jnp.zeros(2), rtol=-1e-3), "rtol"),
    (lambda: fixed_point(jnp.cos, jnp.zeros(2), atol=np.nan), "atol"),
    (lambda: picard.iterate(jnp.cos, jnp.zeros(2), 0, 0.5), "at least once"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
