"""Lipschitz bounds of the whole 60 Hz chain, for given weights: what a change of the body can do to the latent.

Two readings. *Frozen*: one limb frame held for ever, at the joint equilibrium,

    l -> (h*, y*) -> z_raw -> z* = tau (tau I + gamma B_11)^-1 z_raw,    rates 0.

*Real time*: the program as it runs, two motions from one start, in the largest change over time,

    sup_t |dz_t| <= L sup_t |dm_t|,    m_t the limb frames [27, 8].

Both hold for limbs of equal confidence in the two motions (a tracker that loses a limb is another input);
`feature_gain` says what changing confidences cost. Bounds are float64 numbers about the float32 program: `rounding` of
a certificate is what float32 may add, over all limbs within LIMITS.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from eqdiff_jax.contraction.lmi import implicit_lipschitz, lmi_bound
from eqdiff_jax.contraction.norms import spectral_norm
from eqdiff_jax.contraction.rounding import gamma as gamma_k
from eqdiff_jax.contraction.small_gain import CoupledReport, coupled_report
from eqdiff_jax.equilibrium import coupled_fixed_point
from eqdiff_jax.motion import dell, dynamics, lim_rps
from eqdiff_jax.motion.dell import BLEND, FAST, FEATURES, LIMBS, RATE, SCALES, SLOW, DellWeights
from eqdiff_jax.motion.lim_rps import BLOCK_SECONDS, FILTER_SECONDS, GAMMA, LATENT, SETTLE_FRAMES, STATE, STEPS, TAU
from eqdiff_jax.types import Array, Certificate, Kind

SAME_CONFIDENCE = "both motions have the same confidences, frame by frame"
SLACK = 1.0 + 2.0**-20  # constants of the program are float32; covers their rounding and this file's own
# Multipliers of the blocks (h, y) that are near the best for DELL's gains whatever the weights, up to a common scale;
# the inequality is verified with them, so they need no proof.
MULTIPLIERS, MULTIPLIER_SCALES = (1.0, 0.77), (0.72, 1.0, 1.4, 1.9, 2.6)
KERNEL_FRAMES = 256  # length to which the impulse response is summed; a tail bound covers the rest


def coupled(weights: DellWeights, inputs: Array) -> CoupledReport:
    """DELL's small-gain report at the joint equilibrium of the frozen features l = `inputs` [216].

    F1(h, y) = tanh(W_in l + W_rec h + b + 0.3 P y), F2(y, h) = tanh(0.5 W W_out h + U y + b_y). The gains are proved:
    singular values of these weights' matrices, tanh being 1-Lipschitz.
    """
    w, e = dell.norms(weights), np.asarray(weights.w_slow, np.float64) @ np.asarray(weights.w_out, np.float64)
    gains = [[w["w_rec"], w["lift"]], [min(w["w_slow"] * w["w_out"], spectral_norm(e)), w["u_slow"]]]

    def fast(h: Array, y: Array) -> Array:
        return dell.fast_map(weights, h, y, inputs)

    def slow(y: Array, h: Array) -> Array:
        return dell.slow_map(weights, y, weights.w_out @ h)

    h, y = coupled_fixed_point((lambda z: fast(*z), lambda z: slow(z[1], z[0])),
                               (jnp.zeros(FAST), jnp.zeros(SLOW)), sweep="gauss_seidel", rtol=1e-6).value
    return coupled_report(fast, slow, h, y, gains=gains)


class Filter(NamedTuple):
    """Gains from sup_t |z_raw| of the LIM-RPS filter, per output block."""

    z: float
    velocity: float  # per second
    acceleration: float  # per second squared


def feature_gain(same_confidence: bool = True) -> Certificate:
    """Lipschitz constant of `dell.features` from a limb frame [216] to l [216].

    With equal confidences c in [0, 1] the map is diagonal, c / scale: 1 / min scale = 2. Else each limb's Jacobian is
    J = [[c / s, v], [0, 1/4]], v = (value - rest) / s. |J| = |abs J| after flipping signs of rows and columns, and the
    norm of a non-negative matrix grows with its entries: the supremum is at c = 1 and the largest |v| in LIMITS.
    Clipping is 1-Lipschitz and the box convex, so the supremum of |J| is the Lipschitz constant.
    """
    error = 2 * float(np.linalg.norm(gamma_k(4, np.float32) * dell.FEATURE_LIMITS))
    if same_confidence:
        return Certificate(float(1 / SCALES.min()), Kind.PROVED, "1 / smallest scale", (SAME_CONFIDENCE,), error)
    worst = 0.0
    for largest in dell.FEATURE_LIMITS.reshape(LIMBS, FEATURES)[:, :7]:
        jacobian = np.diag(1 / SCALES.astype(np.float64))
        jacobian[:7, 7] = largest
        worst = max(worst, spectral_norm(jacobian))
    return Certificate(worst, Kind.PROVED, "singular value at the corner of the box LIMITS", (), error)


def scales() -> np.ndarray:
    """1 / scale of the 216 features as one float64 vector: |diag| of the feature map for confidence 1."""
    return np.tile(1 / SCALES.astype(np.float64), LIMBS)


def joint_system(weights: DellWeights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, U, C of the joint equilibrium s = tanh(W s + U l + b), z_raw = C s, s = (h, y). float64

        W = [[W_rec, 0.3 P], [0.5 W W_out, U]]    U = [W_in; 0]    C = [0.7 W_out, 0.3 I]
    """
    w = DellWeights(*(np.asarray(m, np.float64) for m in weights))  # type: ignore[arg-type]  # NumPy, for float64
    recurrent = np.block([[w.w_rec, w.lift], [w.w_slow @ w.w_out, w.u_slow]])
    inputs = np.vstack([w.w_in, np.zeros((SLOW, w.w_in.shape[1]))])
    return recurrent, inputs, np.hstack([BLEND[0] * w.w_out, BLEND[1] * np.eye(SLOW)])


def frozen(weights: DellWeights, operator: Array, *, optimise: bool = False) -> dict[str, Certificate]:
    """Certificates of the equilibrium of one frozen frame: `z_raw` from l, `z` from l, `limbs` from the frame to z*.

    The smaller of two proved bounds. (1) A matrix inequality with one multiplier per block (h, y), which sees that
    the same tanh slopes act everywhere (`contraction.implicit_lipschitz`). (2) `dell.small_gain`. For `z` and `limbs`
    the last map is folded into C and the feature map into U: for confidences c the columns of U are scaled by
    c / scale <= 1 / scale, which the bound for 1 / scale covers. `optimise` searches the multipliers (half a minute),
    else a few fixed ones are tried (half a second, within 3 % for ordinary weights).
    """
    broken = dell.violations(weights)
    limit = lim_rps.certificates(operator)["latent"]
    if broken or not np.isfinite(limit.bound):
        why = "not certified: " + "; ".join((*broken, *([] if np.isfinite(limit.bound) else [limit.method])))
        return {name: Certificate(float("inf"), Kind.RANGE, why) for name in ("z_raw", "z", "limbs")}
    recurrent, inputs, out = joint_system(weights)
    prox = TAU * np.linalg.inv(TAU * np.eye(STATE) + GAMMA * np.asarray(operator, np.float64))[:LATENT, :LATENT]
    folded = spectral_norm(np.asarray(weights.w_in, np.float64) * scales())
    error = 2 * dell.accumulated(weights).z_raw
    assumptions = dell.ASSUMPTIONS
    cases = {
        "z_raw": (inputs, out, dell.small_gain(weights).z_raw, assumptions, error),
        "z": (inputs, prox @ out, dell.small_gain(weights).z_raw * limit.bound, assumptions,
              error * limit.bound + limit.rounding),
        "limbs": (inputs * scales(), prox @ out, dell.small_gain(weights, folded).z_raw * limit.bound,
                  (*assumptions, SAME_CONFIDENCE), error * limit.bound + limit.rounding),
    }
    found = {}
    for name, (u, c, simple, assumed, rounding) in cases.items():
        if optimise:
            sharp = implicit_lipschitz(recurrent, u, c, blocks=(FAST, SLOW)).bound
        else:
            sharp = min(lmi_bound(recurrent, u, c, scale * np.repeat(MULTIPLIERS, (FAST, SLOW)))
                        for scale in MULTIPLIER_SCALES)
        bound, how = min((sharp, "matrix inequality with a multiplier per block"), (simple, "small gain"))
        found[name] = Certificate(bound * SLACK, Kind.PROVED, how, assumed, rounding)
    return found


def filter_gains(operator: Array, window: int = 1) -> Filter:
    """Worst mean of `window` consecutive frames |mean out_t| / sup_t |z_raw,t| of the LIM-RPS frame filter, its start
    included; window 1: sup_t |out_t|. inf where not certified.

    The filter is linear: for a constant past it is a convolution out_t = sum_k K_k z_{t-k}, K_k [32, 32], whose gain
    in the sup-over-time norm is at most sum_k |K_k|. The start is not of that form, and costs one more term:
    - before SETTLE_FRAMES are over, s is reset to (z_raw, 0, 0) and iterated twice: s_t = R z_t, gain |R|;
    - afterwards rates see z_s - z_{s-1} from the last settling frame e on, exactly as if z had always been z_e
      before it, so the convolution holds with that past, except that s_e = R z_e where the constant past gives
      S z_e, S = (I - M)^-1 c E_1: the difference decays as M^2 per frame and adds |M^(2n) (R - S)| |z_e|.
    Summing w outputs convolves with P_i - P_(i-w), P the running sum of K: gain A_w = sum_i |P_i - P_(i-w)|.
    A window that holds j settling frames sums to at most j |R| + A_(w-j) plus the differences. For rates this is far
    below w times the gain of one frame: a mean velocity telescopes to the two ends of the window.
    """
    b = np.asarray(operator, np.float64)
    infinite = Filter(*[float("inf")] * 3)
    if spectral_norm(b) > 1:
        return infinite
    shrink, pull, alpha = (np.eye(STATE) - GAMMA * b) / (1 + TAU), TAU / (1 + TAU), lim_rps.smoothing(FILTER_SECONDS)
    units = BLOCK_SECONDS ** -np.arange(3.0)

    def iterate(s: np.ndarray, measured: np.ndarray) -> np.ndarray:
        for _ in range(STEPS):
            s = shrink @ s + pull * measured
        return s

    def sizes(states: list[np.ndarray]) -> np.ndarray:
        """|block| for every state [96, 32]: [len, 3]"""
        blocks = np.stack(states).reshape(len(states), 3, LATENT, LATENT)
        return np.linalg.svd(blocks, compute_uv=False)[..., 0]

    zero, eye = np.zeros((LATENT, LATENT)), np.eye(LATENT)
    s, past, rate, rate2, kernel = np.zeros((STATE, LATENT)), zero, zero, zero, []
    for frame in range(KERNEL_FRAMES):
        z = eye if frame == 0 else zero
        last, rate = rate, rate + alpha * (RATE * (z - past) - rate)
        rate2 = rate2 + alpha * (RATE * (rate - last) - rate2)
        s = iterate(s, np.concatenate([z, BLOCK_SECONDS * rate, BLOCK_SECONDS**2 * rate2]))
        past = z
        kernel.append(s)
    # Tail: no input any more; |rate| sums to at most |rate|/alpha, |rate2| to (|rate2| + alpha RATE |rate|)/alpha.
    contract = spectral_norm(shrink) ** STEPS
    left = [np.linalg.norm(x, 2) for x in (rate, rate2, s)]
    drive = BLOCK_SECONDS * left[0] / alpha + BLOCK_SECONDS**2 * (left[1] + alpha * RATE * left[0]) / alpha
    tail = (left[2] + STEPS * pull * drive) / (1 - contract)
    running = np.cumsum([*kernel, *[0 * s] * window], axis=0)

    def convolved(frames: int) -> np.ndarray:
        """A_frames, 0 for none"""
        if frames < 1:
            return np.zeros(3)
        past = np.concatenate([np.zeros((frames, *s.shape)), running])[:len(running)]
        return sizes(running - past).sum(axis=0) + frames * tail

    first = np.concatenate([eye, zero, zero])
    begin = iterate(first, first)
    per_frame = np.linalg.matrix_power(shrink, STEPS)
    gaps = [begin - np.linalg.solve(np.eye(STATE) - shrink, pull * first)]
    for _ in range(64):
        gaps.append(per_frame @ gaps[-1])
    lost = np.linalg.norm(gaps[-1], 2)
    # Of the `window` differences those add up that are largest; the ones beyond the 64 shrink by `contract` each.
    extra = np.sort(sizes(gaps[1:]), axis=0)[::-1][:window].sum(axis=0) + lost * contract / (1 - contract)
    settle = min(window, SETTLE_FRAMES)
    begun = [j * sizes([begin])[0] + convolved(window - j) + (extra if j < window else 0) for j in range(settle + 1)]
    gains = np.max(begun, axis=0) / window * units * SLACK
    return Filter(*map(float, gains))


def realtime(weights: DellWeights, operator: Array, window: int = 240) -> dict[str, Certificate]:
    """Certificates of the running program: sup_t |dm_t| -> sup_t of `h`, `x_fast`, `y_slow`, `z_raw`, `z`, `velocity`,
    and to the means of z and velocity over a window of that many frames, `mean_z` and `mean_velocity`.

    DELL by `dell.small_gain` with |W_in diag(1/scale)| for |W_in|: it covers the 4 and 6 warm-started iterations, the
    glide of y_slow and the means of 24 frames. LIM-RPS by `filter_gains`.
    """
    folded = spectral_norm(np.asarray(weights.w_in, np.float64) * scales())
    gains, errors = dell.small_gain(weights, folded), dell.accumulated(weights)
    outer, means = filter_gains(operator), filter_gains(operator, window)
    local = filter_rounding(weights, operator)
    broken = dell.violations(weights)
    assumptions = (*dell.ASSUMPTIONS, SAME_CONFIDENCE, "both motions start from the same state")
    found = {}
    for name, field in (("h", "h"), ("x_fast", "x"), ("y_slow", "y"), ("z_raw", "z_raw")):
        found[name] = (getattr(gains, field), 2 * getattr(errors, field), "small gain")
    units = {"z": 1.0, "velocity": 1.0 / BLOCK_SECONDS}
    for name, (source, unit) in {**{name: (outer, unit) for name, unit in units.items()},
                                 **{f"mean_{name}": (means, unit) for name, unit in units.items()}}.items():
        factor = getattr(source, name.removeprefix("mean_"))
        found[name] = (gains.z_raw * factor, 2 * (factor * errors.z_raw + unit * local),
                       f"small gain times {factor:.4g}, the l1 norm of the LIM-RPS filter's kernel; in any case no "
                       f"more than {2 * factor * largest_latent(weights):.3g}, the width of its range")
    if broken or not np.isfinite(outer.z):
        why = "not certified: " + ("; ".join(broken) or f"B has norm {spectral_norm(operator):.6g} > 1")
        return {name: Certificate(float("inf"), Kind.RANGE, why) for name in found}
    return {name: Certificate(bound * SLACK, Kind.PROVED, how, assumptions, error)
            for name, (bound, error, how) in found.items()}


def largest_latent(weights: DellWeights) -> float:
    """|z_raw| <= 0.7 |W_out| sqrt(128) + 0.3 sqrt(32), whatever the body does: tanh stays within [-1, 1]."""
    return BLEND[0] * spectral_norm(weights.w_out) * FAST**0.5 + BLEND[1] * SLOW**0.5


def filter_rounding(weights: DellWeights, operator: Array) -> float:
    """What float32 adds inside LIM-RPS to |s| at any frame, the measured z_raw being exact.

    Sizes first: a rate is at most 2 RATE times the largest value that it is the rate of. Each recursion errs locally by
    gamma_k times the sizes it adds, and forgets at rate alpha.
    """
    b, alpha = np.asarray(operator, np.float64), lim_rps.smoothing(FILTER_SECONDS)
    contract = spectral_norm(np.eye(STATE) - GAMMA * b) / (1 + TAU)
    if contract >= 1:
        return float("inf")
    z = largest_latent(weights)
    rate = 2 * alpha * RATE * z
    rate2 = 2 * alpha * RATE * rate
    few = gamma_k(6, np.float32)
    wrong = few * ((1 + alpha) * rate + 2 * alpha * RATE * z) / alpha
    wrong2 = (few * ((1 + alpha) * rate2 + 2 * alpha * RATE * rate) + 2 * alpha * RATE * wrong) / alpha
    measured = z + BLOCK_SECONDS * rate + BLOCK_SECONDS**2 * rate2
    off = BLOCK_SECONDS * wrong + BLOCK_SECONDS**2 * wrong2 + few * measured
    pull = TAU / (1 + TAU)
    state = measured * max(1.0, pull / (1 - contract))
    added = state * (1 + GAMMA * spectral_norm(np.abs(b))) + TAU * measured
    step = gamma_k(STATE + 5, np.float32) * added / (1 + TAU)
    return max(off, (pull * off + step) / (1 - contract))



def dynamics_gains(chain: dict[str, Certificate]) -> dict[str, float]:
    """sup_t |dm_t| -> sup_t |d slot| of those dynamics whose constant is proved, in exact arithmetic; clips are free.

    `chain` is what `realtime` gives. For limbs of equal confidences; filters start from the same state. Used: a
    one-pole low-pass is a convex combination of its past; x^2/(x^2 + a^2) has slope at most h/a, h = 3 sqrt(3)/8;
    sqrt of a low-passed sum of squares is a Euclidean norm over time and limbs, so it is 1-Lipschitz in what was
    squared (the triangle inequality), though the square itself has no constant; a normalised mean over limbs of
    speeds has gain |a|_2 <= 1, a the weights.
    - tension: d tension' = (1 - leak) d tension + fill d effort with leak >= 1/(60 T_down), fill <= 1/(60 T_up), thus
      T_down/T_up times that of effort; the pull (v - lowpass v)/0.05 s has gain 2 (1 - alpha)/0.05 per limb.
    - grounding: min(|a|, |b|) is 1-Lipschitz in (a, b). verticality: tanh(rise/RISE).
    - lr_pan: the gradient of (r - l)/(r + l + f) has norm at most sqrt(2)/f, the spread slope 1 + PAN_GAIN.
    - coherence: x / sqrt(|x|^2 + f^2) is 1/f-Lipschitz, and x less its running mean has gain 2.
    - prediction_confidence: v - lowpass v has gain 2 (1 - alpha).
    - transition_intensity: log(q^2 + f) is 1/sqrt(f)-Lipschitz in q, for two energies; two mean poses.
    Not proved, range only: curvature, curvature_rate, periodicity, phase, internal_tempo.
    """
    d, smoothing = dynamics, lim_rps.smoothing
    hill = 3 * 3**0.5 / 8
    weights = d.LIMB_WEIGHTS.astype(np.float64)
    push = 2 * (1 - smoothing(0.05)) / 0.05 * float(np.linalg.norm(weights) / weights.sum())
    bend = 2 * (1 - smoothing(0.1)) * chain["velocity"].bound
    energies, poses = 2 / d.ENERGY_FLOOR**0.5 / d.ENERGY_FOLD, 2 * chain["z"].bound / d.POSE_NOVELTY
    gains = {
        "tension": d.TENSION_DOWN / d.TENSION_UP * hill / d.EFFORT_HALF * push,
        "grounding": hill / d.GROUND_HALF,
        "verticality": 1 / d.RISE,
        "lr_pan": 2**0.5 / d.PAN_FLOOR * (1 + d.PAN_GAIN),
        "coherence": 2 / d.COHERENCE_FLOOR * (chain["x_fast"].bound + chain["y_slow"].bound),
        "energy": hill / d.ENERGY_HALF**0.5,
        "transition_intensity": hill * float(np.hypot(energies, poses)),
        "prediction_confidence": hill / d.UNSTEADY_HALF * bend,
    }
    return {name: gain * SLACK for name, gain in gains.items()}
