"""What precision does to rare events: 1,000 categories of probability p beside one near 1.

    python benchmarks/rare_events.py                    # about 8 minutes on two cores

For each p: draws, rare events expected and seen in the precise and in the fast mode, and the chi-square p-value of the
precise one over ten blocks of categories and the rest. Fixed seed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from eqdiff_jax.diffusion import categorical

RARE, BATCH = 1000, 5000


def counts(p: float, draws: int, mode: str) -> np.ndarray:
    """How often each category came."""
    logits = jnp.log(jnp.concatenate([jnp.array([1.0 - RARE * p]), jnp.full(RARE, p)]))

    def some(total, key):
        drawn = categorical(key, jnp.broadcast_to(logits, (BATCH, RARE + 1)), mode=mode)
        return total + jnp.bincount(drawn, length=RARE + 1), None

    keys = jax.random.split(jax.random.key(0), draws // BATCH)
    return np.asarray(jax.jit(lambda: jax.lax.scan(some, jnp.zeros(RARE + 1, jnp.int32), keys)[0])())


def p_value(found: np.ndarray, p: float) -> float:
    """Chi-square over ten blocks of rare categories and the common one."""
    draws, expected = found.sum(), found.sum() * p * RARE
    blocks = found[1:].reshape(10, -1).sum(axis=1)
    return float(scipy.stats.chisquare(np.r_[found[0], blocks],
                                       np.r_[draws - expected, np.full(10, expected / 10)]).pvalue)


def main() -> None:
    """Print the table in Markdown."""
    print("| p of each | draws | expected | precise | p-value | fast |\n|---|---|---|---|---|---|", flush=True)
    for p, draws in ((1e-8, 5_000_000), (1e-7, 1_000_000), (1e-6, 200_000), (1e-5, 100_000), (1e-4, 100_000)):
        precise, fast = counts(p, draws, "high"), counts(p, draws, "low")
        print(f"| {p:.0e} | {draws:,} | {draws * p * RARE:.0f} | {precise[1:].sum()} | {p_value(precise, p):.2f} | "
              f"{fast[1:].sum()} |", flush=True)


if __name__ == "__main__":
    main()
