"""Figures of the documentation, made from the library itself: `python docs/figures.py [NAME ...]`, all by default.

A figure is one function -> Figure, listed in FIGURES under its file's name; it is written beside this file. Seeds are
fixed. About a minute on two CPU cores.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image

from eqdiff_jax import cascade, diffusion
from eqdiff_jax.equilibrium import flows
from eqdiff_jax.training import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from worlds import exact_predict, random_world, word_index

BLUE, ORANGE, GREEN, INK, DIM = "#2166ac", "#d95f02", "#1b9e77", "#1c1f26", "#8a8f9c"
STYLE = {
    "font.size": 10.5, "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": DIM, "text.color": INK,
    "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False, "legend.fontsize": 9.5,
    "lines.linewidth": 1.8, "lines.markersize": 5.5,
}

TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
LAW = flows.Gaussian(np.array([1.0, -0.5]), TURN @ np.diag([2.0, 0.25]) @ TURN.T)
PRECISION = np.linalg.inv(LAW.covariance)  # eigenvalues 0.5 and 4: Euler contracts below gamma = 0.5
WEIGHTS, MEANS, SCALE = np.array([0.3, 0.7]), np.array([[-1.5], [1.5]]), 0.7
GRID = np.linspace(-6.0, 6.0, 1201)
CHAINS = 20_000


def _gaussian_operator(z):
    return -flows.gaussian_score(LAW, z)


def _log_mixture(x, alpha=1.0):
    """log density of the mixture after the VP process; x [..., 1]."""
    scale = jnp.sqrt(alpha * SCALE**2 + 1.0 - alpha)
    return flows.mixture_log_density(x, WEIGHTS, jnp.sqrt(alpha) * MEANS, scale)


def _mixture_score(x, alpha=1.0):
    return flows.score_of(lambda x: _log_mixture(x, alpha))(x)


def _mixture_operator(x):
    return -_mixture_score(x)


def _mixture_density(alpha=1.0):
    return np.exp(np.asarray(_log_mixture(jnp.asarray(GRID, jnp.float32)[:, None], alpha)))


def _chains(operator, z0, gamma, seed):
    steps = int(np.clip(6 / gamma, 20, 1000))  # both start at p, and forget that within some units of time
    return np.asarray(jax.jit(lambda key, z: flows.langevin(key, operator, z, gamma, steps))(jax.random.key(seed), z0))


def _mixture_chains(gamma, seed=2):
    rng = np.random.default_rng(0)
    z0 = np.float32(rng.normal(MEANS[(rng.random(CHAINS) < WEIGHTS[1]).astype(int)], SCALE))
    return _chains(_mixture_operator, z0, gamma, seed)[:, 0]


def _mixture_stationary(gamma):
    return flows.stationary(flows.ula_kernel(jax.jit(_mixture_operator), GRID, gamma))


def _euler_error(ax: Axes) -> None:
    gammas = np.geomspace(0.004, 0.65, 40)
    start, errors = np.array([1.0, 1.5]), []
    for gamma in gammas:
        steps = int(6.0 / gamma)
        z = jax.lax.scan(lambda z, _, gamma=gamma: (flows.euler_step(_gaussian_operator, z, gamma),) * 2,
                         jnp.asarray(start, jnp.float32), length=steps)[1]
        exact = np.stack([flows.gradient_flow(LAW, start, gamma * (k + 1)) for k in range(steps)])
        errors.append(np.linalg.norm(np.asarray(z) - exact, axis=1).max())
    ax.loglog(gammas, errors, "o-", color=BLUE, markersize=3.5, label="Euler steps, $t \\leq 6$")
    ax.loglog(gammas, errors[0] * gammas / gammas[0], "--", color=DIM, label="slope 1")
    ax.axvline(0.5, color=ORANGE, linewidth=1.2)
    ax.text(0.46, errors[0], "beyond $\\gamma = 2/\\lambda_{\\max}$\nno contraction", color=ORANGE, ha="right")
    ax.set(title="1  z − γB(z) follows the gradient flow", xlabel="step size γ",
           ylabel="largest distance to exact flow", ylim=(errors[0] * 0.6, 60))
    ax.legend(loc="upper left")


def _langevin_bias(ax: Axes) -> None:
    fine, lines, dots = (np.geomspace(0.006, 0.4, count) for count in (60, 9, 6))
    w2 = [flows.gaussian_w2(LAW, LAW._replace(covariance=flows.ula_covariance(PRECISION, gamma))) for gamma in fine]
    ax.loglog(fine, w2, color=BLUE, label="Gaussian, $W_2$: exact")
    z0 = np.random.default_rng(1).multivariate_normal(LAW.mean, LAW.covariance, CHAINS).astype(np.float32)
    sampled = [_chains(_gaussian_operator, z0, gamma, 1) for gamma in dots]
    ax.loglog(dots, [flows.gaussian_w2(LAW, flows.Gaussian(z.mean(0), np.cov(z.T))) for z in sampled], "o", color=BLUE,
              label="simulated")

    density = _mixture_density()
    density /= density.sum()
    ax.loglog(lines, [0.5 * np.abs(_mixture_stationary(gamma) - density).sum() for gamma in lines], color=GREEN,
              label="mixture, TV: exact")
    cell = 20  # grid points per histogram cell
    edges = np.append(GRID[::cell][:-1], GRID[-1]) - 0.5 * (GRID[1] - GRID[0])
    cells = density[:-1].reshape(-1, cell).sum(1)
    distances = [0.5 * np.abs(np.histogram(_mixture_chains(gamma), edges)[0] / CHAINS - cells).sum() for gamma in dots]
    ax.loglog(dots, distances, "s", color=GREEN, label="simulated")
    floor = np.sqrt(cells * (1 - cells) / (2 * np.pi * CHAINS)).sum()  # E |n/N - p| / 2 of a normal count
    ax.axhline(floor, color=DIM, linestyle=":", label="TV by chance alone")
    ax.set(title="2  with noise: Langevin, biased by O(γ)", xlabel="step size γ", ylabel="distance to p",
           ylim=(7e-4, 1.2))
    ax.legend(loc="upper left", ncols=2, columnspacing=1.2, handletextpad=0.6)


def _mixture_histograms(ax: Axes) -> None:
    bins = np.linspace(-4.5, 4.5, 73)
    for gamma, colour in [(0.6, ORANGE), (0.05, BLUE)]:
        z = _mixture_chains(gamma)
        ax.hist(z, bins, density=True, histtype="stepfilled", color=colour, alpha=0.22)
        ax.plot(GRID, _mixture_stationary(gamma) / (GRID[1] - GRID[0]), color=colour,
                label=f"γ = {gamma}: exact law, samples")
    ax.plot(GRID, _mixture_density(), "--", color=INK, linewidth=1.4, label="p")
    ax.set(title="3  that bias on two modes", xlabel="z", ylabel="density", xlim=(-4.5, 4.5), ylim=(0, None))
    ax.legend(loc="upper left")


def _reverse_paths(ax: Axes) -> None:
    alphas, shown = np.geomspace(0.01, 1.0, 401), 9
    clock = -np.log(alphas)
    x = jax.random.choice(jax.random.key(3), jnp.asarray(GRID, jnp.float32), (20_000, 1),
                          p=jnp.asarray(_mixture_density(alphas[0])))
    x = x.at[:shown, 0].set(jnp.linspace(-1.9, 1.9, shown))
    flow = np.asarray(jax.jit(lambda x: flows.probability_flow(_mixture_score, x, alphas))(x))[..., 0]
    sde = np.asarray(jax.jit(lambda x: flows.reverse_sde(jax.random.key(4), _mixture_score, x, alphas))(x))[..., 0]

    inside = np.abs(GRID) <= 4
    shade = np.stack([_mixture_density(alpha)[inside] for alpha in alphas[::4]], axis=1)
    ax.imshow(shade, origin="lower", aspect="auto", extent=(clock[0], 0, -4, 4), cmap="Greys", vmax=0.8,
              interpolation="bilinear")
    ax.plot(clock, sde[:, 1:shown:3], color=ORANGE, linewidth=0.7)
    ax.plot(clock, flow[:, :shown], color=BLUE, linewidth=1.4)
    ax.plot([], [], color=BLUE, label="probability-flow ODE")
    ax.plot([], [], color=ORANGE, label="reverse SDE")
    ax.set(title="4  same marginals, another process", xlabel="noise level −log α", ylabel="x", xlim=(clock[0], 0),
           ylim=(-4, 4))
    ax.legend(loc="lower left", ncols=2)
    side = ax.inset_axes((1.02, 0.0, 0.2, 1.0), sharey=ax)
    bins = np.linspace(-4, 4, 61)
    for end, colour in [(sde[-1], ORANGE), (flow[-1], BLUE)]:
        side.hist(end, bins, density=True, orientation="horizontal", histtype="step", color=colour, linewidth=1.2)
    side.plot(_mixture_density(), GRID, "--", color=INK, linewidth=1.2)
    side.set_axis_off()


def structural_equivalence() -> Figure:
    """Equilibrium steps and diffusion: order of Euler, bias of Langevin, a mixture, two reverse equations."""
    figure = Figure(figsize=(10.4, 7.6), layout="constrained")
    panels = figure.subplots(2, 2)
    for panel, ax in zip([_euler_error, _langevin_bias, _mixture_histograms, _reverse_paths], panels.flat, strict=True):
        panel(ax)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_formatter(NullFormatter())
    return figure


def bounds() -> Figure:
    """The Lipschitz cascade of the shipped checkpoint; its table is printed as well."""
    rows = cascade.lipschitz_cascade(checkpoint.load(Path(__file__).parents[1] / "checkpoints" / "default"))
    print(cascade.markdown(rows))
    return cascade.picture(rows)


def sampler_errors(count: int = 400_000) -> Figure:
    """Total variation between what each sampler draws and the data law, against the number of steps."""
    world = random_world(6, length=3)
    law, predict = world.law, exact_predict(world)
    process, steps = diffusion.absorbing(3, diffusion.SCHEDULES["cosine"]), np.array([1, 2, 4, 8, 16, 32, 64])
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    ax = figure.subplots()
    samplers = {"analytic = ancestral": (diffusion.Analytic(), BLUE, "o-"), "Euler": (diffusion.Euler(), ORANGE, "s-"),
                "ReMDM, cap 0.04": (diffusion.ReMDM(), GREEN, "^-"),
                "confidence, noise 4.5": (diffusion.Confidence(), "#7b3294", "v-"),
                "first hitting (3 calls)": (diffusion.FirstHitting(), INK, "d--")}
    for name, (sampler, colour, marker) in samplers.items():
        draw = jax.jit(lambda key, steps, s=sampler: diffusion.sample(
            key, predict, process, (count, 3), sampler=s, steps=steps).tokens)
        found = [np.bincount(word_index(world, draw(jax.random.key(0), int(n))), minlength=27) / count for n in steps]
        ax.loglog(steps, [0.5 * np.abs(f - law).sum() for f in found], marker, color=colour, label=name)
    ax.loglog(steps, 0.45 / steps, ":", color=DIM, label="1/T")
    noise = 0.5 * np.sqrt(2 / np.pi * law * (1 - law) / count).sum()
    ax.axhline(noise, color=DIM, linewidth=0.8)
    ax.text(1.05, noise * 0.94, f"noise of {count:,} draws", color=DIM, fontsize=9, va="top")
    ax.set_ylim(bottom=noise * 0.7)
    ax.set(xlabel="steps T", ylabel="total variation to the data law", xticks=steps, xticklabels=steps,
           title="Samplers on a world whose every law is known")
    ax.minorticks_off()
    ax.legend()
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "flows.png": structural_equivalence,
    "cascade.png": bounds,
    "samplers.png": sampler_errors,
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 255 colours, a third of the full size, without date or version."""
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Draw the figures named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)}; all by default")
    names = parser.parse_args().names or list(FIGURES)
    for name in names:
        if name not in FIGURES:
            parser.error(f"no figure is called {name!r}: choose from {', '.join(FIGURES)}")
    for name in names:
        with rc_context(STYLE):
            save(FIGURES[name](), Path(__file__).parent / name)


if __name__ == "__main__":
    main()
