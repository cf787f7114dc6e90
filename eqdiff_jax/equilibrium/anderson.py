"""Anderson acceleration, type II, safeguarded: a Picard iteration that also looks back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eqdiff_jax.contraction.rounding import length, scaling
from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Map, Step


class AndersonMemory(NamedTuple):
    """What is carried; the rows are a ring in which step k writes row k mod m. g_i = f(z_i) - z_i."""

    values: Array  # [m, n] f(z_i)
    directions: Array  # [m, n] g_i / |g_i|
    sizes: Array  # [m] |g_i|, 0 for a row not in use
    cosines: Array  # [m, m] directions times their transpose
    accepted: Array  # [n] f at the last accepted point: the Picard step to fall back to
    norm: Array  # [] |g| there
    mixed: Array  # [] bool, the point to be evaluated came from mixing
    wait: Array  # [] int32 Picard steps left before mixing is tried again
    backoff: Array  # [] int32 length of that wait after the next rejection
    streak: Array  # [] int32 mixed points accepted in a row


class Anderson(NamedTuple):
    """z <- sum_i a_i f(z_i), a minimising |sum_i a_i g_i|^2 + ridge with sum_i a_i = 1, over the last `window` points.

    Residuals enter by direction and size, so that neither under- nor overflows: the Gram matrix is one of cosines, and
    the ridge is `ridge` times its trace, shrinking with the residuals. An absolute ridge stops the mixing as soon as
    they are small against it. `ridge` 0 takes max(1e-10, 4 eps) of the dtype.

    Safeguard: a mixed point whose residual exceeds `decrease` times that of the last accepted one is rejected, the
    Picard step from that one is taken, and mixing pauses for 1, 3, 7, ... steps; each `window` acceptances in a row
    take one doubling back. Its evaluation is not lost, it stays in the window.

    Worst case, in exact arithmetic. For an affine L-contraction (Euclidean norm) a mixed point has
    |g_{k+1}| <= L sqrt(1 + r m) |g_k|, r the ridge and m the points in use: g_{k+1} = J sum_i a_i g_i, and a = e_k is
    admissible. For any L-contraction the residuals of accepted points fall by max(L, decrease) at least, so with
    N = log(|g_0| / tolerance) / log(1 / max(L, decrease)) of them it stops after 1 + (1 + 1/window) N evaluations plus
    one rejection per doubling, log2 N. Reference: Walker and Ni 2011, doi:10.1137/10078356X, section 2.
    """

    window: int = 12
    ridge: float = 0.0
    decrease: float = 0.999

    def init(self, f: Map, z: Array) -> tuple[Array, AndersonMemory]:
        """The first point to evaluate, and an empty window. Raises: InputError for a window below 1."""
        del f
        if self.window < 1:
            raise InputError(f"Anderson's window is {self.window}: keep at least one point, 5 to 12 as a rule")
        rows = jnp.zeros((self.window, z.size), z.dtype)
        zero = jnp.int32(0)
        return z, AndersonMemory(rows, rows, rows[:, 0], jnp.zeros((self.window,) * 2, z.dtype), z,
                                 jnp.asarray(jnp.inf, z.dtype), jnp.asarray(False), zero, zero, zero)

    def step(self, f: Map, z: Array, memory: AndersonMemory, k: Array) -> Step:
        """One evaluation, then either a mixed point or a Picard step."""
        m = memory
        fz = f(z)
        g = fz - z
        down, up = scaling(g)
        size = length(down(g))
        direction, norm = down(g) / jnp.where(size == 0, 1.0, size), up(size)
        slot = k % self.window
        values = m.values.at[slot].set(fz)
        directions = m.directions.at[slot].set(direction)
        sizes = m.sizes.at[slot].set(norm)
        row = directions @ direction
        cosines = m.cosines.at[slot].set(row).at[:, slot].set(row)

        rejected = m.mixed & ~(norm <= self.decrease * m.norm)
        streak = jnp.where(rejected, 0, m.streak + m.mixed)
        shrink = streak >= self.window
        backoff = jnp.where(rejected, jnp.minimum(2 * m.backoff + 1, 1 << 20), jnp.where(shrink, m.backoff // 2,
                                                                                        m.backoff))
        wait = jnp.where(rejected, backoff, jnp.maximum(m.wait - 1, 0))
        accepted = jnp.where(rejected, m.accepted, fz)

        weights = mixing_weights(cosines, sizes, self.ridge)
        # One point has nothing to mix with; no weights means a matrix lost to rounding.
        mix = ~rejected & (wait == 0) & (k > 0) & jnp.any(weights != 0)
        after = jnp.where(mix, weights @ values, accepted)
        return Step(z, fz, after, AndersonMemory(
            values, directions, sizes, cosines, accepted, jnp.where(rejected, m.norm, norm), mix, wait, backoff,
            jnp.where(shrink, 0, streak)), jnp.int32(1))


def mixing_weights(cosines: Array, sizes: Array, ridge: float) -> Array:
    """a [m], sum 1: a = d a' / (d . a') with (H + r tr(H) I) a' = d, H the cosines [m, m], d = 1 / sizes [m].

    Rows of size 0 are not in use and get weight 0. All 0 where rounding has made the matrix indefinite.
    """
    used = sizes > 0
    safe = jnp.where(used, sizes, 1.0)
    least = jax.lax.stop_gradient(jnp.min(jnp.where(used, sizes, jnp.inf)))
    inverse = jnp.where(used, jnp.where(jnp.isfinite(least), least, 1.0) / safe, 0.0)
    lift = (ridge or max(1e-10, 4 * float(jnp.finfo(sizes.dtype).eps))) * jnp.sum(used).astype(sizes.dtype)
    weights = solve_positive(cosines + jnp.diag(jnp.where(used, lift, 1.0)), inverse) * inverse
    weights = jnp.where(jnp.all(jnp.isfinite(weights)), weights, 0.0)
    total = jnp.sum(weights)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)


@jax.custom_jvp
def solve_positive(matrix: Array, b: Array) -> Array:
    """x with matrix x = b by Cholesky, NaN with derivative 0 where matrix [m, m] is not positive definite. [m]"""
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(matrix, symmetrize_input=False), True), b)


@solve_positive.defjvp
def _(primals, tangents):
    (matrix, b), (matrix_dot, b_dot) = primals, tangents
    x = solve_positive(matrix, b)
    sound = jnp.all(jnp.isfinite(x))
    x_safe, safe = jnp.where(sound, x, 0.0), jnp.where(sound, matrix, jnp.eye(b.size, dtype=b.dtype))
    return x, jnp.where(sound, solve_positive(safe, b_dot - matrix_dot @ x_safe), 0.0)
