"""Laws of grids that need no network, as code lengths and as samplers.

Every law here is normalised over the legal tokens, so its code length is exact: an arithmetic coder would need it. All
work on tokens int [N, R, S] with observed bool [N, R] (tracks that count; default all) and give bits per cell
[N, R, S], 0 where a cell is not observed.

    unigram   : p(x | track), or p(x | track, step)
    Markov    : sum_k w_k p_k(x | context k), left to right within each track; weights fitted on the validation part
    neighbour : w [the token of the nearest training example by conditioning] + (1 - w) unigram
"""

from typing import NamedTuple

import numpy as np

from eqdiff_jax.music.grid import BAR, LEGAL, REST, STEPS

PSEUDO_COUNT = 0.1  # per legal token and cell, so that nothing legal is impossible
BACK_OFF = 0.5  # weight of a context's parent, in counts
SHARES = np.linspace(0.0, 0.98, 50)  # candidates for the neighbour's share
# The contexts of the Markov mixture, each with its parent (what it falls back on, part of itself; None: the track's
# unigram). Always the track; `step` in the grid; `previous`, `before`, `third`: one to three steps to the left;
# `earlier`: one bar to the left; `last`: the latest token that is no rest, or none yet, which keeps silent tracks
# silent; `past`: all that stands to the left, which is worth most where patterns recur whole.
CONTEXTS: tuple[tuple[tuple[str, ...], int | None], ...] = (
    (("step",), None),
    (("step", "last"), 0),
    (("step", "last", "previous"), 1),
    (("step", "last", "previous", "before"), 2),
    (("step", "last", "previous", "before", "third"), 3),
    (("step", "last", "previous", "earlier"), 2),
    (("step", "last", "previous", "before", "earlier"), 5),
    (("step", "last", "previous", "before", "third", "earlier"), 6),
    (("past",), 4),
    (("last", "earlier"), None),
    (("previous", "before", "third"), None))
_HASH = 0x2545F4914F6CDD1D  # odd; two pasts with one number (hardly ever) would share a law, still a law


class Table(NamedTuple):
    """How often training saw what after which context."""

    keys: np.ndarray  # int64 [contexts] ascending
    totals: np.ndarray  # [contexts] cells with this context
    pairs: np.ndarray  # int64 [pairs] ascending, V (place of the context) + token
    counts: np.ndarray  # [pairs] cells with this context and token


class Markov(NamedTuple):
    """A mixture of context laws."""

    base: np.ndarray  # [R, V] p(x | track)
    tables: tuple[Table, ...]  # of CONTEXTS
    weights: np.ndarray  # [R, 2, K] of the mixture, per track and for the first and the later bars; sums to 1
    bar: int  # steps between a cell and the one a bar earlier


def unigram(tokens: np.ndarray, observed=None, *, legal: np.ndarray = LEGAL, steps: bool = True) -> np.ndarray:
    """p(token | track, step), smoothed over the track's legal tokens; steps=False: p(token | track). [R, S, V]"""
    tokens = np.where(_seen(observed, tokens), tokens, -1)
    counts = np.stack([(tokens == v).sum(0) for v in range(legal.shape[1])], axis=-1).astype(np.float64)
    if not steps:
        counts = np.broadcast_to(counts.sum(1, keepdims=True), counts.shape)
    counts = counts + PSEUDO_COUNT * legal[:, None, :]
    return counts / counts.sum(-1, keepdims=True)


def code_length(law: np.ndarray, tokens: np.ndarray, observed=None) -> np.ndarray:
    """Bits of each cell when cells are independent. law [R, S, V], tokens [N, R, S] -> [N, R, S]"""
    return _bits(_at(law[None], tokens), tokens, observed)


def nearest(train: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Index of the training row at the smallest Euclidean distance, per query. [M]"""
    square = (train**2).sum(1)
    return np.array([np.argmin(square - 2.0 * train @ q) for q in queries])


def mixture_bits(weight: float, law: np.ndarray, neighbour: np.ndarray, tokens: np.ndarray,
                 observed=None) -> np.ndarray:
    """Bits of each cell under w [neighbour's token] + (1 - w) unigram; neighbour, tokens [N, R, S] -> [N, R, S].

    Where the neighbour is not observed (its id is no token) the unigram stands alone, so the law stays normalised.
    """
    share = np.where(neighbour < law.shape[-1], weight, 0.0)
    return _bits(share * (neighbour == tokens) + (1.0 - share) * _at(law[None], tokens), tokens, observed)


def fit_share(law: np.ndarray, neighbour: np.ndarray, tokens: np.ndarray, observed=None) -> float:
    """The neighbour's share that codes the given (validation) grids best."""
    return float(min(SHARES, key=lambda w: mixture_bits(w, law, neighbour, tokens, observed).sum()))


def fit_markov(train: np.ndarray, validation: np.ndarray, train_observed=None, validation_observed=None, *,
               legal: np.ndarray = LEGAL, bar: int = BAR, iterations: int = 60) -> Markov:
    """Context laws counted on `train`, mixture weights by expectation maximisation on `validation`.

    p_k(x | c) = (count_k(c, x) + b p_parent(x | c)) / (count_k(c) + b),   b = 0.5,
    w_k <- mean over cells of w_k p_k / sum_j w_j p_j, which never raises the code length.
    """
    vocab = legal.shape[1]
    seen = _seen(train_observed, train) & (train >= 0) & (train < vocab)
    base = unigram(train, train_observed, legal=legal, steps=False)[:, 0]
    parts = {name: part[seen] for name, part in _parts(train, vocab, bar).items()}
    tables = tuple(_count(_key(parts, names, vocab), train[seen], vocab) for names, _ in CONTEXTS)
    flat = np.full((len(base), 2, len(CONTEXTS)), 1.0 / len(CONTEXTS))
    model = Markov(base, tables, flat, bar)
    p, seen = _components(model, validation), _seen(validation_observed, validation)
    weights, later = flat.copy(), np.arange(train.shape[2]) >= bar
    for row in range(len(base)):
        for part, steps in enumerate((~later, later)):
            cells = p[:, row, steps][seen[:, row, steps]]  # [cells, K]
            for _ in range(iterations if len(cells) else 0):
                mix = weights[row, part] * cells
                weights[row, part] = (mix / mix.sum(1, keepdims=True)).mean(0)
    return model._replace(weights=weights)


def markov_bits(model: Markov, tokens: np.ndarray, observed=None) -> np.ndarray:
    """Bits of each cell, left to right. tokens [N, R, S] -> [N, R, S]"""
    mixture = np.einsum("nrsk,rsk->nrs", _components(model, tokens), _weights(model, tokens.shape[2]))
    return _bits(mixture, tokens, observed)


def markov_law(model: Markov, tokens: np.ndarray, step: int) -> np.ndarray:
    """p(token at `step` | the tokens left of it), [N, R, V]; what stands at `step` and right of it is not read."""
    vocab = model.base.shape[1]
    here = {name: part[:, :, step, None] for name, part in _parts(tokens, vocab, model.bar).items()}
    base = np.broadcast_to(model.base, (len(tokens), *model.base.shape))
    return np.einsum("knrv,rk->nrv", _chain(model, here, np.arange(vocab), base),
                     _weights(model, tokens.shape[2])[:, step])


def sample_unigram(rng: np.random.Generator, law: np.ndarray, count: int) -> np.ndarray:
    """`count` grids with independent cells. law [R, S, V] -> int32 [count, R, S]"""
    return _draw(rng, np.broadcast_to(law, (count, *law.shape)))


def sample_markov(rng: np.random.Generator, model: Markov, count: int, steps: int) -> np.ndarray:
    """`count` grids, drawn step by step. int32 [count, R, steps]"""
    tokens = np.full((count, len(model.weights), steps), REST, np.int32)
    for step in range(steps):
        tokens[:, :, step] = _draw(rng, markov_law(model, tokens, step))
    return tokens


def _draw(rng: np.random.Generator, law: np.ndarray) -> np.ndarray:
    """A token per law [..., V], by inversion; never one of probability 0."""
    total = np.cumsum(law, axis=-1, dtype=np.float64)
    return (total <= rng.random(law.shape[:-1])[..., None] * total[..., -1:]).sum(-1).astype(np.int32)


def _parts(tokens: np.ndarray, vocab: int, bar: int) -> dict[str, np.ndarray]:
    """What contexts are made of, [N, R, S] each. `vocab` stands for a token that is not there."""
    tracks, steps = tokens.shape[1:]
    tokens = np.where((tokens >= 0) & (tokens < vocab), tokens, vocab).astype(np.int16)

    def back(by: int) -> np.ndarray:
        nothing = np.full((len(tokens), tracks, min(by, steps)), vocab, np.int16)
        return np.concatenate([nothing, tokens], axis=2)[..., :steps]

    sounded = np.where((tokens != REST) & (tokens < vocab), np.arange(steps, dtype=np.int16), -1)
    latest = np.maximum.accumulate(sounded, axis=2)  # the step of the latest token that is no rest
    latest = np.concatenate([np.full((len(tokens), tracks, 1), -1, np.int16), latest[..., :-1]], axis=2)
    last = np.where(latest < 0, vocab, np.take_along_axis(tokens, np.maximum(latest, 0), axis=2))
    past = np.zeros(tokens.shape, np.int64)
    for step in range(1, steps):  # the word to the left as one number, modulo 2^64
        past[..., step] = past[..., step - 1] * _HASH + tokens[..., step - 1] + 1
    return {"track": np.broadcast_to(np.arange(tracks, dtype=np.int16)[:, None], tokens.shape),
            "step": np.broadcast_to(np.arange(steps, dtype=np.int16), tokens.shape), "previous": back(1),
            "before": back(2), "third": back(3), "earlier": back(bar), "last": last, "past": past}


def _key(parts: dict[str, np.ndarray], names: tuple[str, ...], vocab: int) -> np.ndarray:
    """A context as a number: its parts are digits, below STEPS for the step, at most vocab for tokens."""
    key = parts["track"].astype(np.int64)
    for name in names:
        key = key * (STEPS if name == "step" else vocab + 1) + parts[name]
    return key


def _count(keys: np.ndarray, tokens: np.ndarray, vocab: int) -> Table:
    """The table of cells with these contexts and tokens, [cells] each."""
    keys, index = np.unique(keys, return_inverse=True)
    return Table(keys, np.bincount(index, minlength=len(keys)),
                 *np.unique(index * vocab + tokens, return_counts=True))


def _find(known: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each wanted number in `known` (ascending), and its value, 0 where it is not there."""
    if not len(known):
        return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return place, np.where(known[place] == wanted, values[place], 0)


def _chain(model: Markov, parts: dict[str, np.ndarray], tokens: np.ndarray, base: np.ndarray) -> np.ndarray:
    """p_k(token | context), [K, ...]: parts and tokens broadcast to base [...], the tokens' p(x | track)."""
    vocab, found = model.base.shape[1], list[np.ndarray]()
    for table, (names, parent) in zip(model.tables, CONTEXTS, strict=True):
        place, total = _find(table.keys, table.totals, _key(parts, names, vocab))
        _, count = _find(table.pairs, table.counts, place * vocab + tokens)
        count = np.where(total > 0, count, 0)
        found.append((count + BACK_OFF * (base if parent is None else found[parent])) / (total + BACK_OFF))
    return np.stack(found)


def _components(model: Markov, tokens: np.ndarray) -> np.ndarray:
    """p_k of each cell's token, [N, R, S, K]."""
    vocab = model.base.shape[1]
    inside = _inside(tokens, vocab)
    base = model.base[np.arange(tokens.shape[1])[:, None], inside]
    return np.moveaxis(_chain(model, _parts(tokens, vocab, model.bar), inside, base), 0, -1)


def _weights(model: Markov, steps: int) -> np.ndarray:
    """The mixture's weights at each step, [R, S, K]."""
    return model.weights[:, (np.arange(steps) >= model.bar).astype(int)]


def _inside(tokens: np.ndarray, vocab: int) -> np.ndarray:
    return np.where((tokens >= 0) & (tokens < vocab), tokens, REST)


def _at(law: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return np.take_along_axis(law, _inside(tokens, law.shape[-1])[..., None], axis=-1)[..., 0]


def _seen(observed, tokens: np.ndarray) -> np.ndarray:
    return np.broadcast_to(True if observed is None else np.asarray(observed)[..., None], tokens.shape)


def _bits(p: np.ndarray, tokens: np.ndarray, observed) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a token that its track cannot say costs infinitely much
        return -np.log2(np.where(_seen(observed, tokens), p, 1.0))
