"""Noise schedules in one convention, and the commitment rule that turns confidence into steps and temperature.

alpha(t) is the probability that a token has survived until t in [0, 1], decreasing from (about) 1; sigma = -log alpha.
A schedule is alpha, its rate sigma'(t) = -alpha'/alpha, and its inverse.

| name        | alpha(t)                                   | from                                             |
|-------------|--------------------------------------------|--------------------------------------------------|
| `loglinear` | 1 - (1 - eps) t, eps = 1e-3                | Lou et al. 2024 (SEDD); linear in Shi et al.     |
| `geometric` | exp(-smin^(1-t) smax^t), 1e-4 to 20        | Lou et al. 2024                                  |
| `cosine`    | cos(pi/2 ((1 - 2 w) t + w)) / same at 0    | Shi et al. 2024 (MD4); w = 1e-3 keeps alpha > 0  |
| `vq_linear` | 0.99999 + (9e-6 - 0.99999) t, 1 at t = 0   | Gu et al. 2022 (VQ-Diffusion), for T = 100       |
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqdiff_jax.errors import InputError
from eqdiff_jax.types import Array, Schedule

STEPS_MIN, STEPS_MAX = 4, 50


class LogLinear(NamedTuple):
    """alpha(t) = 1 - (1 - eps) t: the mask count falls linearly."""

    eps: float = 1e-3

    def alpha(self, t: Array) -> Array:
        """Survival, any shape."""
        return 1.0 - (1.0 - self.eps) * t

    def rate(self, t: Array) -> Array:
        """sigma' = (1 - eps) / alpha."""
        return (1.0 - self.eps) / self.alpha(t)

    def inverse(self, alpha: Array) -> Array:
        """t of a survival."""
        return (1.0 - alpha) / (1.0 - self.eps)


class Geometric(NamedTuple):
    """sigma(t) = smin^(1-t) smax^t. It starts at smin, not at 0: x_0 is clean only below t = 0."""

    least: float = 1e-4
    most: float = 20.0

    def alpha(self, t: Array) -> Array:
        """Survival, any shape."""
        return jnp.exp(-(self.least ** (1.0 - t)) * self.most**t)

    def rate(self, t: Array) -> Array:
        """sigma' = sigma log(smax/smin)."""
        return self.least ** (1.0 - t) * self.most**t * float(np.log(self.most / self.least))

    def inverse(self, alpha: Array) -> Array:
        """t of a survival."""
        return jnp.log(-jnp.log(alpha) / self.least) / float(np.log(self.most / self.least))


class Cosine(NamedTuple):
    """alpha(t) = cos(pi/2 ((1 - 2 w) t + w)) / cos(pi/2 w), w = `width`."""

    width: float = 1e-3

    def alpha(self, t: Array) -> Array:
        """Survival, any shape."""
        return jnp.cos(self._angle(t)) / float(np.cos(np.pi / 2 * self.width))

    def rate(self, t: Array) -> Array:
        """sigma' = pi/2 (1 - 2 w) tan(angle)."""
        return float(np.pi / 2 * (1 - 2 * self.width)) * jnp.tan(self._angle(t))

    def inverse(self, alpha: Array) -> Array:
        """t of a survival."""
        angle = jnp.arccos(jnp.clip(alpha * float(np.cos(np.pi / 2 * self.width)), -1.0, 1.0))
        return (angle / float(np.pi / 2) - self.width) / (1.0 - 2.0 * self.width)

    def _angle(self, t: Array) -> Array:
        return float(np.pi / 2) * ((1.0 - 2.0 * self.width) * t + self.width)


class Linear(NamedTuple):
    """alpha(t) = first + (last - first) t for t > 0, VQ-Diffusion's cumulative schedule; alpha(0) = 1."""

    first: float = 0.99999
    last: float = 9e-6

    def alpha(self, t: Array) -> Array:
        """Survival, any shape."""
        return jnp.where(t > 0, self.first + (self.last - self.first) * t, 1.0)

    def rate(self, t: Array) -> Array:
        """sigma' = (first - last) / alpha."""
        return (self.first - self.last) / self.alpha(t)

    def inverse(self, alpha: Array) -> Array:
        """t of a survival."""
        return jnp.clip((self.first - alpha) / (self.first - self.last), 0.0, 1.0)


SCHEDULES: dict[str, Schedule] = {
    "loglinear": LogLinear(), "geometric": Geometric(), "cosine": Cosine(), "vq_linear": Linear()}


def check(schedule: Schedule) -> None:
    """Raises InputError unless alpha falls from about 1 to above 0 on [0, 1] and never rises. Looks at 1,001 times."""
    with jax.ensure_compile_time_eval():  # processes may be built inside jit
        alpha = np.asarray(schedule.alpha(jnp.linspace(0.0, 1.0, 1001)), np.float64)
    if not np.isfinite(alpha).all():
        raise InputError(f"the schedule {schedule} gives NaN or infinity on [0, 1]: look at its parameters")
    rise = np.diff(alpha)
    if (rise > 0).any():
        at = int(np.argmax(rise > 0)) / 1000
        raise InputError(f"the schedule {schedule} rises after t = {at:g}: survival can only fall with time")
    if not (abs(alpha[0] - 1) < 0.01 and 0 < alpha[-1] < 0.5):
        raise InputError(f"the schedule {schedule} runs from {alpha[0]:.3g} to {alpha[-1]:.3g}: survival has to fall "
                         "from 1 to nearly, but not quite, 0")


def uniform_grid(fraction: Array) -> Array:
    """Sampling times t = u, u = 1 - k/T. Any shape."""
    return fraction


def cosine_grid(fraction: Array) -> Array:
    """Sampling times t = cos(pi/2 (1 - u)): small steps near t = 1, where most is masked (Shi et al. 2024)."""
    return jnp.cos(float(np.pi / 2) * (1.0 - fraction))


GRIDS = {"uniform": uniform_grid, "cosine": cosine_grid}


def commitment(confidence: Array) -> tuple[Array, Array]:
    """Steps and temperature of a confidence c in [0, 1]: T = round(50 - 46 c), temperature 1.2 - 0.5 c.

    Elementwise; c is clipped to [0, 1], NaN counts as 0. A sure performer gets 4 decisive steps, a searching one 50
    loose ones.
    """
    c = jnp.clip(jnp.nan_to_num(confidence), 0.0, 1.0)
    return jnp.round(STEPS_MAX - (STEPS_MAX - STEPS_MIN) * c).astype(jnp.int32), 1.2 - 0.5 * c
