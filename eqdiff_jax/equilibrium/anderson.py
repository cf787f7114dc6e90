"""Anderson acceleration, type II, safeguarded: a Picard iteration that also looks back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.types import Array, Map, Step


class AndersonMemory(NamedTuple):
    """What is carried; the rows are a ring in which step k writes row k mod m."""

    values: Array  # [m, n] f(z_i)
    residuals: Array  # [m, n] g_i = f(z_i) - z_i
    gram: Array  # [m, m] g_i . g_j
    accepted: Array  # [n] f at the last accepted point: the Picard step to fall back to
    norm: Array  # [] |g| there
    mixed: Array  # [] bool, the point to be evaluated came from mixing
    wait: Array  # [] int32 Picard steps left before mixing is tried again
    backoff: Array  # [] int32 length of that wait after the next rejection
    streak: Array  # [] int32 mixed points accepted in a row


class Anderson(NamedTuple):
    """z <- sum_i a_i f(z_i), a minimising |sum_i a_i g_i|^2 + ridge with sum_i a_i = 1, over the last `window` points.

    The Gram matrix is first scaled to a unit diagonal and the ridge is `ridge` times its trace, so that it shrinks
    with the residual: an absolute ridge stops the mixing as soon as residuals are small against it. `ridge` 0 takes
    max(1e-10, 4 eps) of the dtype.

    Safeguard: a mixed point whose residual exceeds `decrease` times that of the last accepted one is rejected, the
    Picard step from that one is taken, and mixing pauses for 1, 3, 7, ... steps; each `window` acceptances in a row
    take one doubling back. Its evaluation is not lost, it stays in the window.

    Worst case. For an affine L-contraction (Euclidean norm) each mixed point has |g_{k+1}| <= L |g_k|, because
    a = e_k is admissible and g_{k+1} = J sum_i a_i g_i: the a priori count of Picard holds. For any L-contraction
    the number of evaluations is at most (1 + 1/window) log(|g_0| / tolerance) / log(1 / max(L, decrease)) plus one
    rejection per doubling, log2 of that. Reference: Walker and Ni 2011, doi:10.1137/10078356X, section 2.
    """

    window: int = 12
    ridge: float = 0.0
    decrease: float = 0.999

    def init(self, f: Map, z: Array) -> tuple[Array, AndersonMemory]:
        """The first point to evaluate, and an empty window."""
        del f
        rows = jnp.zeros((self.window, z.size), z.dtype)
        zero = jnp.int32(0)
        return z, AndersonMemory(rows, rows, jnp.eye(self.window, dtype=z.dtype), z,
                                 jnp.asarray(jnp.inf, z.dtype), jnp.asarray(False), zero, zero, zero)

    def step(self, f: Map, z: Array, memory: AndersonMemory, k: Array) -> Step:
        """One evaluation, then either a mixed point or a Picard step."""
        m = memory
        fz = f(z)
        g = fz - z
        slot = k % self.window
        values = m.values.at[slot].set(fz)
        residuals = m.residuals.at[slot].set(g)
        row = residuals @ g
        gram = m.gram.at[slot].set(row).at[:, slot].set(row)
        norm = jnp.sqrt(row[slot])

        rejected = m.mixed & ~(norm <= self.decrease * m.norm)
        streak = jnp.where(rejected, 0, m.streak + m.mixed)
        shrink = streak >= self.window
        backoff = jnp.where(rejected, jnp.minimum(2 * m.backoff + 1, 1 << 20), jnp.where(shrink, m.backoff // 2,
                                                                                        m.backoff))
        wait = jnp.where(rejected, backoff, jnp.maximum(m.wait - 1, 0))
        accepted = jnp.where(rejected, m.accepted, fz)

        used = jnp.arange(self.window) <= k
        weights = mixing_weights(gram, used, self.ridge)
        total = jnp.sum(weights)
        # One point has nothing to mix with. A sum that is not positive means a Gram matrix lost to rounding.
        mix = ~rejected & (wait == 0) & (k > 0) & (total > 0) & jnp.isfinite(total)
        blend = (weights / jnp.where(mix, total, 1.0)) @ values
        after = jnp.where(mix, blend, accepted)
        return Step(z, fz, after, AndersonMemory(
            values, residuals, gram, accepted, jnp.where(rejected, m.norm, norm), mix, wait, backoff,
            jnp.where(shrink, 0, streak)), jnp.int32(1))


def mixing_weights(gram: Array, used: Array, ridge: float) -> Array:
    """a [m], up to its sum, with (H + r tr(H) I) a' = d, a = d a', H = D gram D of unit diagonal, d its scaling.

    gram [m, m] of the residuals; used bool [m], the others get weight 0. NaN where rounding has made the matrix
    indefinite.
    """
    info = jnp.finfo(gram.dtype)
    lift = (ridge or max(1e-10, 4 * float(info.eps))) * jnp.sum(used).astype(gram.dtype)
    scale = jnp.where(used, jax.lax.rsqrt(jnp.maximum(jnp.diagonal(gram), info.tiny)), 0.0)
    scaled = gram * scale[:, None] * scale + jnp.diag(jnp.where(used, lift, 1.0))
    lower = jnp.linalg.cholesky(scaled, symmetrize_input=False)
    return jax.scipy.linalg.cho_solve((lower, True), scale) * scale
