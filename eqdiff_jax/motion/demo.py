"""The built-in demo dancer: joint-angle oscillators locked to a beat, on the 27-limb skeleton.

A style is a record of amplitudes and biases, so styles can be mixed and faded by arithmetic. The
upper body follows forward kinematics; the legs follow two-bone inverse kinematics to feet that
stand, step or jump, so that planted feet stay planted.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion.limbs import from_world
from eqdiff_jax.motion.resample import RATE
from eqdiff_jax.motion.skeleton import LIMB, OFFSETS, PARENTS, REST_HIPS, forward_kinematics

TEMPO = (92.0, 128.0)  # beats per minute, drawn from the key
CYCLE = 32.0  # s, about how long `build` and `show` take from calm to calm


Amount = float | np.ndarray  # where it varies, an array [T]


class Style(NamedTuple):
    """Amplitudes, lengths in body heights, angles in radians."""

    bounce: Amount = 0.0  # hips down and up, once per beat
    crouch: Amount = 0.0  # hips lower throughout
    sway: Amount = 0.0  # hips left and right, once per two beats
    circle: Amount = 0.0  # hips forward and back, a quarter cycle after sway
    roll: Amount = 0.0  # pelvis tilts with the sway
    twist: Amount = 0.0  # chest turns against the hips, once per two beats
    lean: Amount = 0.0  # spine bends forward and back, once per beat
    side: Amount = 0.0  # spine bends sideways, once per two beats
    nod: Amount = 0.0  # head, once per beat
    lift: Amount = 0.0  # arms are raised sideways throughout
    wave: Amount = 0.0  # and this much more and less, once per two beats
    swing: Amount = 0.0  # arms forward and back, opposite, once per two beats
    pump: Amount = 0.0  # arms up and down together, once per beat
    bend: Amount = 0.15  # elbows bent throughout
    flick: Amount = 0.0  # elbows, once per beat
    step: Amount = 0.0  # feet step sideways in turn, height of the lifted foot
    width: Amount = 0.0  # feet stand this much wider
    jump: Amount = 0.0  # both feet leave the floor, every second beat
    turn: Amount = 0.0  # facing left and right, once per sixteen beats
    snap: Amount = 0.0  # 0 a sine, 1 held poses with quick changes


STILL = Style()
CALM = Style(
    sway=0.012, roll=0.04, side=0.05, bounce=0.006, crouch=0.004, nod=0.05, bend=0.25, wave=0.08,
)  # fmt: skip
GROOVE = Style(
    bounce=0.022, crouch=0.012, sway=0.028, roll=0.08, twist=0.22, lean=0.06, side=0.08, nod=0.16,
    lift=0.15, wave=0.1, swing=0.4, bend=0.9, flick=0.25, step=0.045, width=0.015, turn=0.3,
)  # fmt: skip
WILD = Style(
    bounce=0.03, crouch=0.02, sway=0.045, roll=0.12, twist=0.45, lean=0.16, side=0.14, nod=0.3,
    lift=1.5, wave=0.4, swing=0.5, pump=0.55, bend=0.8, flick=0.5, step=0.05, width=0.05,
    jump=0.09, turn=0.7,
)  # fmt: skip
_STEADY = {
    "groove": GROOVE,
    "bounce": Style(
        bounce=0.045, crouch=0.02, lean=0.1, nod=0.22, lift=0.1, pump=0.12, bend=1.3, flick=0.3,
        width=0.03,
    ),
    "sway": Style(
        sway=0.05, roll=0.13, side=0.2, bounce=0.006, crouch=0.006, nod=0.05,
        lift=0.25, wave=0.25, bend=0.4, width=0.03, turn=0.25,
    ),
    "robot": Style(
        bounce=0.012, sway=0.012, twist=0.5, side=0.06, nod=0.12, lift=0.35, swing=0.55, bend=1.45,
        flick=0.55, turn=0.5, snap=1.0,
    ),
    "jump": Style(
        bounce=0.035, crouch=0.02, lean=0.08, nod=0.15, lift=1.1, wave=0.1, pump=0.7, bend=0.4,
        flick=0.3, width=0.04, jump=0.13, twist=0.12,
    ),
    "flow": Style(
        sway=0.04, circle=0.03, roll=0.1, twist=0.5, lean=0.1, side=0.22, nod=0.08, lift=1.0,
        wave=0.7, swing=0.35, bend=0.35, flick=0.2, crouch=0.015, bounce=0.008, width=0.06,
        turn=0.9,
    ),
    "rest": STILL,
}  # fmt: skip
# Fraction of a cycle -> style, faded in between.
_STORIES = {
    "build": [(0.0, STILL), (0.08, STILL), (0.3, GROOVE), (0.55, WILD), (0.65, WILD),
              (0.85, GROOVE), (1.0, STILL)],
    "show": [(0.0, CALM), (0.12, _STEADY["sway"]), (0.25, GROOVE), (0.42, GROOVE),
             (0.52, _STEADY["bounce"]), (0.66, WILD), (0.78, WILD), (0.9, _STEADY["flow"]),
             (1.0, CALM)],
}  # fmt: skip
STYLES = (*_STEADY, *_STORIES)


def demo(style: str, seconds: float, key: jax.Array | int) -> np.ndarray:
    """Limb frames f32 [T, 27, 8] of the demo dancer, T = round(60 seconds).

    Args:
      style: one of STYLES. "show" goes calm, groove, bounce, wild, flow, calm every 32 s or so.
      seconds: length, at least 1/60 s.
      key: a JAX key (consumed) or an integer seed; it sets tempo, phases and amplitudes.
    Raises:
      InputError: the style is unknown or the length is not a positive number.
    """
    if style not in STYLES:
        raise InputError(f"no demo dance is called {style!r}; choose one of {', '.join(STYLES)}")
    if not (np.isfinite(seconds) and round(seconds * RATE) >= 1):
        raise InputError(f"a demo of {seconds} s is no dance; give a length of 1/60 s or more")
    random = _generator(key)
    times = np.arange(round(seconds * RATE)) / RATE
    beats = times * random.uniform(*TEMPO) / 60.0 + random.integers(4)
    amounts = _varied(_over_time(style, times, seconds), random)
    positions, rotations = _dance(amounts, beats, random)
    confidence = np.ones(positions.shape[:2])
    return from_world(times, positions, rotations, confidence, height=1.0, rest_hips=REST_HIPS)


def _generator(key: jax.Array | int) -> np.random.Generator:
    """NumPy generator seeded by all the words of a key."""
    if isinstance(key, (int, np.integer)):
        key = jax.random.key(int(key))
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = np.asarray(jax.random.key_data(key) if typed else key)
    return np.random.default_rng([int(word) for word in words.ravel()])


def _over_time(style: str, times: np.ndarray, seconds: float) -> Style:
    """The style's amplitudes as arrays [T]; stories fade from one style to the next."""
    if style in _STEADY:
        return Style(*(np.full(len(times), amount) for amount in _STEADY[style]))
    period = seconds / max(1, round(seconds / CYCLE))
    marks, styles = zip(*_STORIES[style], strict=True)
    along = np.mod(times, period) / period
    return Style(*(np.interp(along, marks, amounts) for amounts in zip(*styles, strict=True)))


def _varied(style: Style, random: np.random.Generator) -> Style:
    """Each amplitude scaled by 0.8 to 1.2, so that every key dances its own way."""
    scales = random.uniform(0.8, 1.2, len(style))
    return Style(*(amount * scale for amount, scale in zip(style, scales, strict=True)))


def _dance(
    style: Style, beats: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """World positions [T, 27, 3] and quaternions [T, 27, 4] of the dance at `beats` [T]."""
    lag = dict(zip(("spine", "arms", "hands", "head"), random.uniform(0.0, 0.12, 4), strict=True))
    mirror = random.choice([-1.0, 1.0])
    phrase = 1.0 + 0.15 * np.sin(2.0 * np.pi * (beats / 16.0 + random.uniform()))

    def swing(cycles: float, lag_beats: float = 0.0) -> np.ndarray:
        """Oscillation [T] with this many cycles per beat, quick one way; `snap` squares it."""
        angle = 2.0 * np.pi * cycles * (beats - lag_beats)
        wave = np.sin(angle + 0.35 * np.cos(angle) * (cycles == 1.0))
        sharp = 1.0 + 2.0 * style.snap
        return phrase * np.where(style.snap > 0.01, np.tanh(sharp * wave) / np.tanh(sharp), wave)

    down = 0.5 - 0.5 * swing(1.0, 0.25)  # 1 near the beat, 0 off it
    wide = mirror * swing(0.5)
    facing = style.turn * np.sin(2.0 * np.pi * beats / 16.0)
    air, squat = _leap(beats)

    angles = np.zeros((len(beats), 27, 3))  # rotation vectors: x forward, y to the left, z sideways
    angles[:, 0, 2] = style.roll * wide
    spine = np.stack(
        [
            style.lean * (down - 0.3) + 0.5 * style.jump * squat,
            style.twist * mirror * swing(0.5, lag["spine"]),
            -(style.roll + style.side) * mirror * swing(0.5, lag["spine"]),
        ],
        axis=-1,
    )
    angles[:, 1:8] = spine[:, None] / 7.0
    angles[:, 8:11, 0] = (style.nod * (down - 0.4) - 0.3 * spine[:, 0])[:, None] / 3.0
    angles[:, 8:11, 1] = -0.25 * spine[:, None, 1]
    angles[:, 10, 2] = 0.5 * style.nod * mirror * swing(0.5, lag["head"])
    for side, sign in (("l", 1.0), ("r", -1.0)):
        _arm(angles, style, swing, down, lag, side, sign * mirror, sign)

    root = np.zeros((len(beats), 3))
    root[:, 0] = style.sway * wide
    root[:, 2] = style.circle * mirror * swing(0.5, 0.5)
    drop = style.crouch + style.bounce * down + style.jump * 0.7 * squat
    root[:, 1] = REST_HIPS - drop + style.jump * air
    return _posed(root, angles, facing, style, beats, mirror, air)


def _leap(beats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height and squat [T] in 0..1 of a jump every two beats: a parabola over 0.9 beats, landing
    on the beat, and bent knees around it."""
    along = np.mod(beats, 2.0)
    flight = (along - 1.1) / 0.9
    air = np.where(flight > 0.0, 4.0 * flight * (1.0 - flight), 0.0)
    squat = np.where(flight > 0.0, 0.0, np.sin(np.pi * np.clip(along / 1.1, 0.0, 1.0)) ** 2)
    return air, squat


def _arm(angles, style: Style, swing, down, lag, side: str, phase: float, sign: float) -> None:
    """Writes one arm's rotation vectors; `sign` is +1 on the left, `phase` opposes the sides."""
    shoulder = LIMB[f"{side}_shoulder"]
    raised = style.lift + phase * style.wave * swing(0.5, lag["arms"])
    raised = np.clip(raised + style.pump * (1.0 - 2.0 * down), 0.0, 2.6)
    forward = style.swing * phase * swing(0.5, lag["arms"]) + 0.3 * style.bend
    elbow = np.clip(style.bend + style.flick * phase * swing(1.0, lag["hands"]), 0.02, 2.3)
    angles[:, shoulder, 2] = sign * 0.15 * raised
    upper = Rotation.from_rotvec(np.outer(sign * 0.9 * raised, [0.0, 0.0, 1.0]))
    reach = Rotation.from_rotvec(np.outer(-forward, [1.0, 0.0, 0.0]))
    angles[:, shoulder + 1] = (upper * reach).as_rotvec()
    angles[:, shoulder + 2, 0] = -elbow
    angles[:, shoulder + 3, 0] = -0.2 * style.flick * swing(1.0, lag["hands"] + 0.1)


def _posed(root, angles, facing, style: Style, beats, mirror: float, air):
    """World pose from the root's path [T, 3], joint angles [T, 27, 3] and the feet's steps."""
    frames = len(beats)
    local = Rotation.from_rotvec(angles.reshape(-1, 3)).as_quat().reshape(frames, 27, 4)
    translations = np.tile(OFFSETS, (frames, 1, 1))
    translations[:, 0] = root
    positions, rotations = forward_kinematics(PARENTS, translations, local)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        hip = LIMB[f"{side}_up_leg"]
        along = np.mod(beats / 2.0 + (0.0 if sign * mirror > 0.0 else 0.5), 1.0)
        stepping = np.sin(np.pi * np.clip(along / 0.5, 0.0, 1.0)) ** 2  # lifted on its own beat
        ankle = np.empty((frames, 3))
        ankle[:, 0] = sign * (0.052 + style.width + 0.5 * style.step * stepping)
        ankle[:, 1] = 0.039 + style.step * stepping + style.jump * air
        ankle[:, 2] = 0.3 * style.step * stepping
        _leg(positions, rotations, hip, ankle, splay=sign * 0.15)
    turned = Rotation.from_rotvec(np.outer(facing, [0.0, 1.0, 0.0]))
    for limb in range(27):
        positions[:, limb] = turned.apply(positions[:, limb])
        rotations[:, limb] = (turned * Rotation.from_quat(rotations[:, limb])).as_quat()
    return positions, rotations


def _leg(positions, rotations, hip: int, ankle: np.ndarray, splay: float) -> None:
    """Two-bone inverse kinematics, in place: thigh and shin from the hip joint to `ankle` [T, 3].

    With lengths a, b and distance d the knee lies (a^2 - b^2 + d^2) / 2d along the line and the
    rest of a in front of it; an ankle out of reach is pulled in.
    """
    thigh, shin = np.linalg.norm(OFFSETS[hip + 1]), np.linalg.norm(OFFSETS[hip + 2])
    start = positions[:, hip]
    line = ankle - start
    distance = np.maximum(np.linalg.norm(line, axis=-1, keepdims=True), 1e-6)
    line = line / distance
    distance = np.clip(distance, 0.1, 0.9995 * (thigh + shin))
    front = np.array([splay, 0.0, 1.0])
    front = front - (line @ front)[:, None] * line
    front = front / np.linalg.norm(front, axis=-1, keepdims=True)
    near = (thigh**2 - shin**2 + distance**2) / (2.0 * distance)
    knee = start + near * line + np.sqrt(np.maximum(thigh**2 - near**2, 0.0)) * front
    positions[:, hip + 1] = knee
    positions[:, hip + 2] = start + distance * line
    flat = _frame(np.array([0.0, -1.0, 0.0]), front)
    positions[:, hip + 3] = positions[:, hip + 2] + flat.apply(OFFSETS[hip + 3])
    rotations[:, hip] = _frame(knee - start, front).as_quat()
    rotations[:, hip + 1] = _frame(positions[:, hip + 2] - knee, front).as_quat()
    rotations[:, hip + 2] = rotations[:, hip + 3] = flat.as_quat()


def _frame(down: np.ndarray, front: np.ndarray) -> Rotation:
    """Rotations [T] that take -y to `down` and +z as near to `front` [T, 3] as that allows."""
    y = -down / np.linalg.norm(down, axis=-1, keepdims=True)
    y = np.broadcast_to(y, front.shape)
    z = front - (front * y).sum(-1, keepdims=True) * y
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    return Rotation.from_matrix(np.stack([np.cross(y, z), y, z], axis=-1))
