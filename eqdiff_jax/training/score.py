"""Bits per observed cell: a network's bound beside the exact code lengths of laws that need no network."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from eqdiff_jax.composer import PROCESS, posterior, predictor
from eqdiff_jax.diffusion.losses import lambda_cross_entropy
from eqdiff_jax.music.grid import SHAPE, STEPS
from eqdiff_jax.training import baselines
from eqdiff_jax.types import Array, Params

TRUSTS = (0.25, 0.5, 0.75, 1.0)  # guidance weights to choose from on validation rows
FITTED_ON = 128  # rows, at most

# tokens [N, 12, 32], conditioning [N, 104], clip [N]; where the data has them observed [N, 12], paired [N] (False: no
# movement belongs to the row, its conditioning means nothing), source [N], piece [N].
Columns = dict[str, np.ndarray]


class Scored(NamedTuple):
    """What one law says of held-out grids."""

    name: str
    kind: str  # "bound" or "exact"
    bits: np.ndarray  # [N, 12] of each track, 0 where it is not observed


class Rate(NamedTuple):
    """Bits per observed cell."""

    bits: float  # nan where nothing is observed
    stderr: float  # over groups; nan for one group


def score(key: Array, params: Params, columns: Columns, *, draws: int = 16, batch: int = 32,
          guidance: float = 1.0, quiet: bool = True) -> np.ndarray:
    """Bound on the code length of each track of each grid, in bits: [N, 12], 0 for a track that is not observed.

        sum over the track's cells i of E_lambda [ i masked ] -log2 mu_i(x_i | cells not masked)/lambda

    The terms of `diffusion.nelbo` (lambda-DCE) gathered by track: their sum over tracks is the same bound, with the
    same noise. Cells not observed stay masked in the network's input and cost nothing, so what is bounded is the law
    of the observed ones. guidance: mu ~ mu_c^w mu_u^(1 - w), between the conditional (1) and the unconditional law (0),
    which rows that are not paired always have. The key is consumed.
    """
    count, made = len(columns["tokens"]), []
    seen, weight = observed(columns), np.float32(guidance) * paired(columns)
    music = {name: params[name] for name in ("encoder", "denoiser")}
    for start in tqdm(range(0, count, batch), desc=f"scoring, guidance {guidance:g}", disable=quiet or None):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        made.append(np.asarray(_track_nats(
            jax.random.fold_in(key, start), music, columns["tokens"][rows], seen[rows], columns["conditioning"][rows],
            weight[rows], draws, guidance not in (0.0, 1.0))))
    return np.concatenate(made)[:count] / np.log(2.0)


@partial(jax.jit, static_argnums=(6, 7))
def _track_nats(key, params, tokens, seen, conditioning, weight, draws, mixed):
    n, seen = len(tokens), seen[..., None]
    if mixed:
        predict = predictor(params, conditioning, weight[:, None, None, None])
    else:
        predict = posterior(params, conditioning, weight > 0)
    tokens = jnp.where(seen, tokens, 0).astype(jnp.int32)
    shift = jax.random.uniform(key, (n,))

    def one(index, total):
        level = (shift + index / draws) % 1.0
        noise = jax.random.uniform(jax.random.fold_in(key, index + 1), tokens.shape)
        masked = noise < level[:, None, None]
        logits = predict(jnp.where(masked | ~seen, PROCESS.mask, tokens), level)
        return total + lambda_cross_entropy(logits, tokens, masked & seen, jnp.maximum(level, 1e-9)).sum(-1)

    return jax.lax.fori_loop(0, draws, one, jnp.zeros((n, SHAPE[0]))) / draws


def fit_trust(key: Array, params: Params, validation: Columns, *, draws: int = 16, quiet: bool = True) -> float:
    """The guidance weight of TRUSTS with the fewest bits on at most FITTED_ON validation rows. The key is consumed.

    Pairs of held-out pieces and movements are looser than those of training, so less than 1 may be right.
    """
    count = len(validation["tokens"])
    rows = np.unique(np.linspace(0, count - 1, min(count, FITTED_ON)).astype(int))
    part = {name: column[rows] for name, column in validation.items()}
    return min(TRUSTS, key=lambda w: score(key, params, part, draws=draws, guidance=w, quiet=quiet).sum())


def observed(columns: Columns) -> np.ndarray:
    """Which tracks the source of each grid can speak of, bool [N, 12]; all unless the columns say."""
    return columns.get("observed", np.ones((len(columns["tokens"]), SHAPE[0]), bool))


def paired(columns: Columns) -> np.ndarray:
    """Which rows have a conditioning, bool [N]; all unless the columns say."""
    return columns.get("paired", np.ones(len(columns["tokens"]), bool)).astype(bool)


def groups(columns: Columns) -> np.ndarray:
    """What windows have in common and are therefore no independent samples: their piece, or else their clip. int [N]"""
    names = columns.get("piece", columns.get("clip", np.arange(len(columns["tokens"]))))
    return np.unique(names, return_inverse=True)[1]


def rate(bits: np.ndarray, seen: np.ndarray, members: np.ndarray) -> Rate:
    """Bits per observed cell, with a standard error that lets windows of one group depend on each other.

    r = sum_g b_g / sum_g n_g over groups,   stderr^2 = G/(G - 1) sum_g (b_g - r n_g)^2 / (sum_g n_g)^2.
    bits, seen [N, K] of K tracks; members int [N].
    """
    total, cells = (np.bincount(members, weights=x.sum(1)) for x in (bits, STEPS * seen))
    if not cells.sum():
        return Rate(np.nan, np.nan)
    total, cells = total[cells > 0], cells[cells > 0]
    ratio, count = total.sum() / cells.sum(), len(total)
    error = np.sqrt(count / (count - 1) * ((total - ratio * cells) ** 2).sum()) / cells.sum() if count > 1 else np.nan
    return Rate(float(ratio), float(error))


def compare(key: Array, params: Params, markov: baselines.Markov, train: Columns, validation: Columns, test: Columns, *,
            draws: int = 16, quiet: bool = True) -> list[Scored]:
    """The network at three guidance weights, and the baselines, on `test`. The key is consumed.

    The weights: the best of TRUSTS on `validation`, 1 (the conditional law), 0 (the unconditional one). Baselines count
    on `train`; the neighbour's share is fitted on `validation`, too, as the Markov mixture's weights are.
    """
    key_trust, key = jax.random.split(key)
    trust = fit_trust(key_trust, params, validation, draws=draws, quiet=quiet)
    seen = observed(test)
    law, flat = (baselines.unigram(train["tokens"], observed(train), steps=steps) for steps in (True, False))
    near = {name: train["tokens"][baselines.nearest(train["conditioning"], part["conditioning"])]
            for name, part in (("validation", validation), ("test", test))}
    share = baselines.fit_share(law, near["validation"], validation["tokens"], observed(validation))
    exact = {
        "Markov within tracks": baselines.markov_bits(markov, test["tokens"], seen),
        f"nearest neighbour x {share:.2f} + unigram": baselines.mixture_bits(
            share, law, near["test"], test["tokens"], seen),
        "unigram per cell": baselines.code_length(law, test["tokens"], seen),
        "unigram per track": baselines.code_length(flat, test["tokens"], seen)}
    return [
        *(Scored(name, "bound", score(key, params, test, draws=draws, guidance=guidance, quiet=quiet))
          for name, guidance in ((f"this checkpoint, guidance {trust:g} (fitted)", trust),
                                 ("this checkpoint, guidance 1", 1.0), ("the same network, unconditioned", 0.0))),
        *(Scored(name, "exact", bits.sum(-1)) for name, bits in exact.items())]
