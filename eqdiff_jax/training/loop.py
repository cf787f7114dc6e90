"""The training run: prepare data, resume, step, log, checkpoint, export."""

import json
import os
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from eqdiff_jax import data, motion
from eqdiff_jax.composer import PROCESS, posterior
from eqdiff_jax.diffusion import nelbo
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.parallel import data_parallel, replicate, shard, unreplicate
from eqdiff_jax.training import checkpoint
from eqdiff_jax.training.state import TrainState, init_state
from eqdiff_jax.training.step import make_step
from eqdiff_jax.types import Nelbo, Params

CELLS = SHAPE[0] * SHAPE[1]


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Train as the config says; run again with the same workdir, it resumes where it stopped.

    Writes workdir/config.json, checkpoints/, metrics.jsonl (rows with `step` and `loss`, nats per scored cell)
    and, at the end, weights/ (EMA in bfloat16, what sample.py --checkpoint takes). An interrupted run ends with the
    same bits as an uninterrupted one of the same config. `steps` may be raised later, which bends the learning rate.

    Raises:
      InputError for a config that cannot work, or a workdir that belongs to another config.
    """
    workdir, devices = Path(workdir), jax.local_device_count()
    check(config, devices)
    _claim(workdir, config)
    builder = data.prepare(config.data, config.data_dir or workdir / "data")
    train, validation = data.arrays(builder, "train"), data.arrays(builder, "validation")
    fields = ("tokens", "conditioning")

    root = jax.random.key(config.seed)
    key_init, key_steps, key_validation = (jax.random.fold_in(root, i) for i in range(3))
    checkpoints = checkpoint.manager(workdir)
    state = checkpoint.restore(checkpoints, init_state(key_init, config))
    first = int(state.step)
    _drop_rows_after(workdir / "metrics.jsonl", first)
    step_fn = data_parallel(make_step(config))
    state = replicate(state)

    started, losses = time.perf_counter(), []
    with tqdm(total=config.steps, initial=first, unit="step", disable=None) as bar:
        for step in range(first, config.steps):
            rows = data.batch_rows(config.seed, step, config.batch, len(train["tokens"]))
            batch = shard({name: train[name][rows] for name in fields})
            keys = jax.random.split(jax.random.fold_in(key_steps, step), devices)
            state, metrics = step_fn(state, keys, batch)
            losses.append(metrics["loss"])
            if (step + 1) % config.checkpoint_every == 0 and not np.isfinite(float(metrics["grad_norm"][0])):
                raise InputError(f"the gradient is not finite at step {step + 1}: lower learning_rate "
                                 f"({config.learning_rate:g}); the last checkpoint is intact")
            bar.update()
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                loss = float(np.mean([x[0] for x in losses]))
                if not np.isfinite(loss):
                    raise InputError(f"the loss is not finite at step {done}: lower learning_rate "
                                     f"({config.learning_rate:g}) and resume from the last checkpoint")
                rate = len(losses) * config.batch * CELLS / (time.perf_counter() - started)
                row = {"step": done, "loss": loss, "grad_norm": float(metrics["grad_norm"][0]),
                       "tokens_per_second": rate}
                if done % config.validate_every == 0 or done == config.steps:
                    part = {name: validation[name][:config.validate_size] for name in fields}
                    bound = evaluate_nelbo(key_validation, unreplicate(state).ema, part)
                    row["validation_bits"] = float(bound.nats / np.log(2))
                with open(workdir / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(row) + "\n")
                bar.set_postfix(loss=f"{loss:.3f}")
                started, losses = time.perf_counter(), []
            if done % config.checkpoint_every == 0 or done == config.steps:
                checkpoint.save(checkpoints, unreplicate(state))
    checkpoints.close()
    state = unreplicate(state)
    chain = motion.init_params(jax.random.key(builder.builder_config.motion_seed))  # the one that made the pairs
    checkpoint.export(workdir / "weights", state.ema, chain, config, config.card)
    return state


def evaluate_nelbo(key, params: Params, columns: dict[str, np.ndarray], *, draws: int = 8, batch: int = 32,
                   given: bool = True) -> Nelbo:
    """Bound on the code length of grids given their conditioning (given=False: without), nats per cell.

    columns: tokens [N, 12, 32], conditioning [N, 104]. The key is consumed. Every example counts once.
    """
    count = len(columns["tokens"])
    chunks = []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)  # the last batch is padded, then cut
        chunks.append(np.asarray(_nelbo(jax.random.fold_in(key, start), params, columns["tokens"][rows],
                                        columns["conditioning"][rows], given, draws)))
    values = np.concatenate(chunks)[:count]
    return Nelbo(values.mean(), values.std(ddof=1) / np.sqrt(count), values)


@partial(jax.jit, static_argnums=5)
def _nelbo(key, params, tokens, conditioning, given, draws):
    predict = posterior(params, conditioning, jnp.full(len(tokens), given))
    return nelbo(key, predict, PROCESS, jnp.asarray(tokens, jnp.int32), draws=draws).per_example


def check(config: ConfigDict, devices: int = 1) -> None:
    """Raise InputError, one line, for a config that cannot work."""
    if config.data not in data.CONFIGS:
        raise InputError(f"unknown data config {config.data!r}: choose one of {', '.join(data.CONFIGS)}")
    if data.CONFIGS[config.data].bvh:
        data.salsa_archive()
    for name, multiple in (("batch", devices), ("width", 64), ("validate_every", config.log_every)):
        if config[name] < 1 or config[name] % multiple:
            raise InputError(f"{name} {config[name]} is not a positive multiple of {multiple}: change it")
    if config.patch not in (1, 2, 4, 8) or config.dtype not in ("float32", "bfloat16"):
        raise InputError(f"patch {config.patch} and dtype {config.dtype!r}: patch is 1, 2, 4 or 8, dtype float32 or "
                         "bfloat16")
    for name in ("steps", "depth", "log_every", "checkpoint_every", "validate_size"):
        if config[name] < 1:
            raise InputError(f"{name} is {config[name]}: use 1 or more")


def _claim(workdir: Path, config: ConfigDict) -> None:
    """Write config.json, or check that the one there belongs to this run (its length may change)."""
    path, text = workdir / "config.json", json.dumps(config.to_dict(), indent=1, sort_keys=True)
    free = {"steps", "log_every", "checkpoint_every", "data_dir"}
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
