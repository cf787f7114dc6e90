"""The training run: prepare data, resume, step, log, checkpoint, export.

On several hosts every process runs this same program (parallel.join): each takes its part of every batch, and the first
one alone writes.
"""

import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from eqdiff_jax import data, motion, statistics
from eqdiff_jax.data import quantiles
from eqdiff_jax.equilibrium import SOLVERS
from eqdiff_jax.errors import InputError
from eqdiff_jax.parallel import data_parallel, first_to_all, is_first, part, replicate, shard, unreplicate
from eqdiff_jax.training import checkpoint
from eqdiff_jax.training.objective import OBJECTIVES
from eqdiff_jax.training.perception import MODES, perceived
from eqdiff_jax.training.preview import preview
from eqdiff_jax.training.score import groups, observed, rate, score
from eqdiff_jax.training.state import TrainState, init_state, network
from eqdiff_jax.training.step import make_step
from eqdiff_jax.training.throughput import throughput


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Train as the config says; run again with the same workdir, it resumes where it stopped.

    Writes workdir/config.json, statistics.json (of the training rows), checkpoints/, metrics.jsonl (rows with `step`,
    `loss` in nats per scored cell, tokens and floating-point operations per second), samples/ every `sample_every`
    steps and, at the end, weights/ (EMA in bfloat16, what sample.py --checkpoint takes). An interrupted run ends with
    the same bits as an uninterrupted one of the same config. `steps` may be raised later, which bends the learning
    rate.

    Raises:
      InputError for a config that cannot work, a workdir that belongs to another config, data or checkpoints that
      cannot be read, a loss or gradient that is not finite.
    """
    workdir = Path(workdir)
    check(config, jax.device_count())
    if is_first():
        _claim(workdir, config)
    train, validation, limbs = _prepared(config, workdir)
    stored = _statistics(workdir / checkpoint.STATISTICS, train, config) if is_first() else {}

    root = jax.random.key(config.seed)
    key_init, key_steps, key_validation, key_preview = (jax.random.fold_in(root, i) for i in range(4))
    checkpoints = checkpoint.manager(workdir) if is_first() else None
    state = _initial(key_init, config)
    state = first_to_all(checkpoint.restore(checkpoints, state) if checkpoints else state)
    first = int(state.step)
    log = _Log(workdir, config, first)
    step_fn = data_parallel(make_step(config))
    state = replicate(state)

    losses, mine = [], part(config.batch)
    place = shard(np.arange(config.batch, dtype=np.int32)[mine])
    bar = tqdm(total=config.steps, initial=first, unit="step", disable=None if is_first() else True)
    for step in range(first, config.steps):
        rows = data.batch_rows(config.seed, step, config.batch, train.sizes, train.shares)[mine]
        batch = shard(rows_of(train.columns, rows, limbs)) | {"place": place}
        state, metrics = step_fn(state, replicate(jax.random.fold_in(key_steps, step)), batch)
        metrics = unreplicate(metrics)
        losses.append(metrics["loss"])
        bar.update()
        done = step + 1
        last = done == config.steps
        if done % config.checkpoint_every == 0 and not np.isfinite(float(metrics["grad_norm"])):
            raise InputError(f"the gradient is not finite at step {done}: lower learning_rate "
                             f"({config.learning_rate:g}); the last checkpoint is intact")
        if done % config.log_every == 0 or last:
            loss = float(np.mean(losses))
            if not np.isfinite(loss):
                raise InputError(f"the loss is not finite at step {done}: lower learning_rate "
                                 f"({config.learning_rate:g}) and resume from the last checkpoint")
            row = {"step": done} | {name: float(value) for name, value in metrics.items()} | {"loss": loss}
            if is_first() and (done % config.validate_every == 0 or last):
                ema = unreplicate(state).ema
                held = perceived(ema["motion"], validation, solver=SOLVERS[config.solver]) if limbs else validation
                bits = score(key_validation, ema, held, draws=8)
                row["validation_bits"] = rate(bits, observed(held), groups(held)).bits
            log.write(row, len(losses))
            bar.set_postfix(loss=f"{loss:.3f}")
            losses = []
        if checkpoints and (done % config.checkpoint_every == 0 or last):
            checkpoint.save(checkpoints, unreplicate(state))
        if is_first() and config.sample_every and (done % config.sample_every == 0 or last):
            weights = unreplicate(state).ema | {"statistics": statistics.parse(stored)}
            preview(key_preview, weights, validation["conditioning"], workdir / "samples", done)
    bar.close()
    state = unreplicate(state)
    if checkpoints:
        checkpoints.close()
        # The chain that made the pairs, or the one that was trained with the rest.
        chain = state.ema.get("motion", motion.init_params(jax.random.key(data.motion_seed(config.data))))
        checkpoint.export(workdir / "weights", state.ema, chain, config, config.card, stored)
    return first_to_all(state)  # which also keeps the others until the first has written all


def _prepared(config: ConfigDict, workdir: Path) -> tuple[data.Mixture, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All training rows, `validate_size` validation rows, evenly spaced, and the recordings where limbs are needed.

    The first process builds what is not there; the others wait.
    """
    folder = config.data_dir or workdir / "data"
    if is_first():
        train = data.mixture(config.data, folder, "train")
    first_to_all(jnp.zeros(()))
    if not is_first():
        train = data.mixture(config.data, folder, "train")
    held = data.mixture(config.data, folder, "validation").columns
    limbs = {} if config.perception == "given" else data.recordings(
        data.config_of(config.data).sources, ("train", "validation"))
    count = len(held["tokens"])
    chosen = np.linspace(0, count - 1, min(config.validate_size, count)).astype(int)
    return train, rows_of(held, chosen, limbs), limbs


def _statistics(path: Path, train: data.Mixture, config: ConfigDict) -> dict:
    """Those of the training rows, kept in a file: a resumed run computes nothing."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # a new run, or a file torn by a kill
        stored = quantiles.statistics(train.columns) | {name: config[name] for name in statistics.SAMPLING}
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(stored))
    os.replace(scratch, path)
    return stored


def rows_of(columns: dict[str, np.ndarray], rows: np.ndarray, limbs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fields that the step reads of these rows, and their limb windows where there are recordings."""
    found = {name: columns[name][rows] for name in data.FIELDS}
    if limbs:
        found |= data.limb_windows(limbs, [clip.decode() for clip in columns["clip"][rows]], columns["frames"][rows])
    return found


def _initial(key, config: ConfigDict) -> TrainState:
    """Fresh parameters, or those of the checkpoint that `config.initial` names."""
    state = init_state(key, config)
    if not config.initial:
        return state
    loaded = checkpoint.load(config.initial)
    params = {name: loaded[name] for name in state.params}
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, state.params):
        raise InputError(f"initial {config.initial}: a network of another shape than width, depth, patch, rank and "
                         "condition_tokens say: make them the same")
    return state._replace(params=params, ema=jax.tree.map(jnp.copy, params))


class _Log:
    """metrics.jsonl, and TensorBoard events where the config asks for them; only the first process writes."""

    def __init__(self, workdir: Path, config: ConfigDict, first: int) -> None:
        self.path, self.config, self.network = workdir / "metrics.jsonl", config, network(config)
        self.started, self.board = time.perf_counter(), None
        if is_first():
            _drop_rows_after(self.path, first)
            if config.tensorboard:
                from tensorboardX import SummaryWriter
                self.board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first)

    def write(self, row: dict[str, float], steps: int) -> None:
        """One row, with the speed of the `steps` steps since the last."""
        row = row | throughput(self.network, self.config.batch * steps / (time.perf_counter() - self.started))
        if is_first():
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name in row.keys() - {"step"}:
                self.board.add_scalar(name, row[name], row["step"])
            self.board.flush()
        self.started = time.perf_counter()


def check(config: ConfigDict, devices: int = 1) -> None:
    """Raise InputError, one line, for a config that cannot work on so many devices, all hosts' together."""
    data.check(config.data)
    data.motion_seed(config.data)
    if config.loss not in OBJECTIVES:
        raise InputError(f"unknown loss {config.loss!r}: choose one of {', '.join(OBJECTIVES)}")
    for name in ("steps", "depth", "log_every", "checkpoint_every", "validate_size", "accumulate"):
        if config[name] < 1:
            raise InputError(f"{name} is {config[name]}: use 1 or more")
    for name, multiple in (("batch", devices * config.accumulate), ("width", 64), ("validate_every", config.log_every),
                           ("checkpoint_every", config.log_every)):
        if config[name] < 1 or config[name] % multiple:
            raise InputError(f"{name} {config[name]} is not a positive multiple of {multiple}: change it")
    if config.patch not in (1, 2, 4, 8) or config.dtype not in ("float32", "bfloat16"):
        raise InputError(f"patch {config.patch} and dtype {config.dtype!r}: patch is 1, 2, 4 or 8, dtype float32 or "
                         "bfloat16")
    if config.perception not in MODES:
        raise InputError(f"unknown perception {config.perception!r}: choose one of {', '.join(MODES)}")
    if config.solver not in SOLVERS:
        raise InputError(f"unknown solver {config.solver!r}: choose one of {', '.join(SOLVERS)}")
    if config.perception != "given" and ("+" in config.data or not getattr(data.config_of(config.data), "sources", ())):
        raise InputError(f"perception {config.perception} needs the limbs behind the pairs, which {config.data} does "
                         "not keep: use shippable or experiment")
    if config.tensorboard:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise InputError("tensorboard is on, but tensorboardX is not installed: pip install tensorboardX, or turn "
                             "it off") from error


def _claim(workdir: Path, config: ConfigDict) -> None:
    """Write config.json, or check that the one there belongs to this run (its length may change)."""
    path, text = workdir / "config.json", json.dumps(config.to_dict(), indent=1, sort_keys=True)
    free = {"steps", "log_every", "checkpoint_every", "sample_every", "tensorboard", "data_dir", "remat"}
    if path.exists():
        try:
            old, new = json.loads(path.read_text()), json.loads(text)
        except ValueError as error:
            raise InputError(f"{path} is damaged: use another --workdir") from error
        changed = sorted(k for k in old.keys() | new.keys() if k not in free and old.get(k) != new.get(k))
        if changed:
            raise InputError(f"{path} belongs to another run ({', '.join(changed)} differ): use another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(text)
        os.replace(scratch, path)
    except OSError as error:
        raise InputError(f"cannot write to {workdir} ({error.strerror}): choose another --workdir") from error


def _drop_rows_after(path: Path, step: int) -> None:
    """Forget log rows that a resumed run will write again."""
    if path.exists():
        rows = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        scratch = path.with_suffix(".tmp")
        scratch.write_text("".join(line + "\n" for line in rows))
        os.replace(scratch, path)


def _step_of(line: str) -> float:
    """Step of a log row; infinite for a row torn by a kill."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
