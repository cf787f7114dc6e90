"""The objectives: one bound in four forms, unobserved tracks left out, the batch cut anyhow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from eqdiff_jax.composer import PROCESS
from eqdiff_jax.diffusion import legal_log_posterior
from eqdiff_jax.errors import InputError
from eqdiff_jax.music import LEGAL, VOCABULARY
from eqdiff_jax.training.objective import AUXILIARY, OBJECTIVES
from eqdiff_jax.training.state import init_params
from eqdiff_jax.training.step import make_loss

BATCH = 1024


def _law() -> np.ndarray:
    """One law per track over its legal tokens, the same for every cell, as log probabilities [12, 1, 81]."""
    logits = np.random.default_rng(0).normal(size=(12, 1, len(VOCABULARY)))
    return np.asarray(legal_log_posterior(jnp.asarray(logits), LEGAL[:, None, :]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_the_mean_of_the_exact_code_length(name):
    """A predictor that knows the law of independent cells: the bound is tight, -log p of each cell on average."""
    law, rng = _law(), np.random.default_rng(1)
    grid = np.stack([rng.choice(81, 32, p=np.exp(row[0])) for row in law]).astype(np.int32)
    tokens = jnp.broadcast_to(grid, (BATCH, 12, 32))
    t = 1e-3 + (1 - 1e-3) * (jnp.arange(BATCH) + 0.5) / BATCH
    objective = OBJECTIVES[name]

    @jax.jit
    def cost(key, tokens, t):
        noisy, level = objective.draw(key, tokens, t)
        assert noisy.shape == tokens.shape
        return objective.cost(jnp.broadcast_to(law, (*tokens.shape, 81)), tokens, noisy, level).mean(0)

    parts = [cost(jax.random.fold_in(jax.random.key(0), i), tokens[i::4], t[i::4]) for i in range(4)]
    measured = np.asarray(sum(parts) / 4)
    exact = -np.take_along_axis(np.broadcast_to(law, (12, 32, 81)), grid[..., None], axis=-1)[..., 0]
    mean, expected = measured.mean(), exact.mean()
    if name == "d3pm":  # what the auxiliary term adds: every cell is masked half of the time
        mean -= AUXILIARY * expected * 0.505
    assert mean == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unobserved_tracks_say_and_cost_nothing(name, tmp_path):
    config = tiny(tmp_path, loss=name, batch=8)
    params = init_params(jax.random.key(0), config)
    loss = jax.jit(jax.value_and_grad(make_loss(config), has_aux=True))
    rng = np.random.default_rng(0)
    batch = {"tokens": np.zeros((8, 12, 32), np.int32), "conditioning": np.float32(rng.normal(size=(8, 104))),
             "observed": np.arange(12)[None] < np.array([[12], [5], [5], [1], [12], [7], [5], [5]]),
             "paired": np.ones(8, bool), "place": np.arange(8, dtype=np.int32)}
    (nats, sums), grads = loss(params, jax.random.key(1), batch)
    hidden = np.where(batch["observed"][..., None], batch["tokens"], PROCESS.mask)
    (other, again), others = loss(params, jax.random.key(1), batch | {"tokens": hidden})
    assert int(sums.cells) == int(again.cells) == 32 * batch["observed"].sum()
    assert float(nats) == float(sums.loss) == float(other) > 0
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


def test_an_example_pays_the_same_wherever_it_is_computed(tmp_path):
    """Cut in two with their places, the halves of a batch add up to the whole."""
    config = tiny(tmp_path, batch=8)
    params = init_params(jax.random.key(0), config)
    loss = jax.jit(make_loss(config))
    rng = np.random.default_rng(0)
    batch = {"tokens": np.zeros((8, 12, 32), np.int32), "conditioning": np.float32(rng.normal(size=(8, 104))),
             "observed": np.ones((8, 12), bool), "paired": np.ones(8, bool), "place": np.arange(8, dtype=np.int32)}
    whole, _ = loss(params, jax.random.key(1), batch)
    halves = [loss(params, jax.random.key(1), {k: v[half] for k, v in batch.items()})[0]
              for half in (slice(0, 3), slice(3, 8))]
    assert float(sum(halves)) == pytest.approx(float(whole), rel=1e-5)


def test_where_leaves_cells_out_of_the_bound():
    """Cells that do not count are masked in the input and free; the bound is on the marginal of the others."""
    from worlds import exact_predict, random_world

    from eqdiff_jax.diffusion import absorbing, nelbo, uniform
    world = random_world(3)
    predict, process = exact_predict(world), absorbing(3)
    tokens = jnp.asarray([[a, b] for a in range(3) for b in range(3)], jnp.int32)
    where = jnp.asarray([True, False])
    found = nelbo(jax.random.key(0), predict, process, tokens, draws=20_000, where=where)
    marginal = world.law.reshape(3, 3).sum(1)
    np.testing.assert_allclose(found.per_example, -np.log(marginal)[np.asarray(tokens[:, 0])], rtol=0.05)
    changed = tokens.at[:, 1].set(3)  # even a mask may stand there
    again = nelbo(jax.random.key(0), predict, process, changed, draws=20_000, where=where)
    np.testing.assert_array_equal(found.per_example, again.per_example)
    with pytest.raises(InputError, match="only the absorbing process"):
        nelbo(jax.random.key(0), predict, uniform(3), tokens, where=where)
