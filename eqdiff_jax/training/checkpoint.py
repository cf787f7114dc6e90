"""Checkpoints: the full training state for resuming, and the small folder of weights that people use.

A weights folder holds `model.json` (config, shapes, a SHA-256 per file, the model card, statistics of the training
data) and `weights/` (orbax). Encoder and denoiser are stored in bfloat16, the motion chain in float32.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from eqdiff_jax import motion, statistics
from eqdiff_jax.conditioning import SIZE, encoder
from eqdiff_jax.denoiser import roformer_of
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.types import Params

if TYPE_CHECKING:
    from eqdiff_jax.training.state import TrainState

MODEL, WEIGHTS, STATISTICS = "model.json", "weights", "statistics.json"


def manager(workdir: str | Path, keep: int = 2) -> ocp.CheckpointManager:
    """The checkpoints of a run, in workdir/checkpoints; the newest `keep` are kept. For the first process alone."""
    folder = (Path(workdir) / "checkpoints").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=False, create=False, multiprocessing_options=_alone()))


def _alone() -> ocp.options.MultiprocessingOptions:
    """Let the first process write without waiting for the others."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="first")


def save(checkpoints: ocp.CheckpointManager, state: "TrainState") -> None:
    """Write the state under its own step, and its files' hashes to hashes/STEP.json; InputError when that fails."""
    step, root = int(state.step), Path(checkpoints.directory)
    try:
        # As numpy: what one process alone writes must not look like an array of all.
        checkpoints.save(step, args=ocp.args.StandardSave(
            state if jax.process_count() == 1 else jax.tree.map(np.asarray, state)))
        note = _note(root, step)
        note.parent.mkdir(exist_ok=True)
        scratch = note.with_suffix(".tmp")
        scratch.write_text(json.dumps(_hashes(root / str(step), root / str(step))))
        os.replace(scratch, note)
        for old in note.parent.glob("*.json"):
            if not (root / old.stem).is_dir():
                old.unlink()
    except Exception as error:
        raise InputError(f"{root}: the checkpoint of step {step} could not be written ({_first_line(error)}); make "
                         "room and run again, the earlier ones are intact") from error


def restore(checkpoints: ocp.CheckpointManager, like: "TrainState") -> "TrainState":
    """The newest state that is whole, or `like` when there is none.

    A step whose files do not have the hashes noted for them, or that cannot be read, is moved to `damaged/`, with a
    line on stderr, and the one before it is taken. Raises InputError when steps are there but none fits.
    """
    root, steps = Path(checkpoints.directory), sorted(checkpoints.all_steps(), reverse=True)
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    for step in steps:
        try:
            _verify(root, step)
            return checkpoints.restore(step, args=ocp.args.StandardRestore(target))
        except Exception as error:
            if step == steps[-1]:
                raise InputError(f"{root}/{step} does not fit this config or is damaged ({_first_line(error)}): use "
                                 "another --workdir, or delete that step") from error
            print(f"checkpoint {step} is damaged ({_first_line(error)}): going on from the one before, it is kept in "
                  "damaged/", file=sys.stderr)
        aside = root.parent / "damaged" / f"{step}-{os.getpid()}"
        aside.parent.mkdir(exist_ok=True)
        os.replace(root / str(step), aside)
        checkpoints.reload()
    return like


def _note(root: Path, step: int) -> Path:
    return root.parent / "hashes" / f"{step}.json"


def _verify(root: Path, step: int) -> None:
    """Raise InputError when the files of a step are not those that were written; a step without a note passes."""
    note = _note(root, step)
    if note.is_file() and json.loads(note.read_text()) != _hashes(root / str(step), root / str(step)):
        raise InputError("its files have changed since they were written")


def export(folder: str | Path, params: Params, motion_params, config: ConfigDict, card: str, stored: Mapping) -> None:
    """Write a weights folder: EMA weights {encoder, denoiser} in bfloat16, the motion chain in float32.

    `stored` are the statistics of the training data (`data.quantiles.statistics`). Written beside its place and
    renamed, replacing a folder of the same name.
    """
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The trees are stored as nested dicts, which need no class to be read again.
    tree = {name: jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params[name])
            for name in ("encoder", "denoiser")}
    tree["motion"] = _as_dict(motion_params)
    if jax.process_count() > 1:
        tree = jax.tree.map(np.asarray, tree)
    scratch = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    scratch.chmod(0o755)
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        checkpointer.save(scratch / WEIGHTS, tree)
    for trace in (scratch / WEIGHTS).rglob("commit_success.txt"):
        trace.unlink()  # it names the folder that the weights were written in
    shapes = {"/".join(k.key for k in path): [list(x.shape), x.dtype.name]
              for path, x in jax.tree_util.tree_leaves_with_path(tree)}
    hashes = _hashes(scratch / WEIGHTS, scratch)
    (scratch / MODEL).write_text(json.dumps(
        {"card": card, "config": config.to_dict() | {"data_dir": ""}, "statistics": dict(stored), "shapes": shapes,
         "sha256": hashes}, indent=1))
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(scratch, folder)


def load(folder: str | Path) -> Params:
    """Parameters {encoder, denoiser, motion} and `statistics` of a weights folder or a training workdir, float32.

    Of a workdir: its exported weights/ if the run has finished, else the EMA of its newest checkpoint.

    Raises InputError, one line, when the folder is missing, damaged, or holds a network of another shape.
    """
    folder = Path(folder)
    if (folder / MODEL).is_file():
        params, stored = _load_weights(folder)
    elif (folder / WEIGHTS / MODEL).is_file():
        params, stored = _load_weights(folder / WEIGHTS)  # a finished run's export, which is hashed
    elif (folder / "checkpoints").is_dir() and (folder / "config.json").is_file():
        params, stored = _load_workdir(folder)
    else:
        raise InputError(f"{folder}: no checkpoint there (neither {MODEL} nor a training run's checkpoints/ and "
                         "config.json); give the folder that train.py wrote, or leave --checkpoint out")
    return _checked(params, folder) | {"statistics": statistics.parse(stored, str(folder))}


def _load_weights(folder: Path) -> tuple[Params, Mapping]:
    try:
        model = json.loads((folder / MODEL).read_text())
        hashes, shapes = model["sha256"], model["shapes"]
        stored = json.loads((folder / WEIGHTS / "_METADATA").read_text())["tree_metadata"]
        actual = {"/".join(k["key"] for k in leaf["key_metadata"]): leaf["value_metadata"].get("write_shape")
                  for leaf in stored.values()}
        targets = {path: jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=_one_device())
                   for path, (shape, dtype) in shapes.items()}
        hashes.items()
        stored = model.get("statistics", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / MODEL} is damaged ({_first_line(error)}): copy the checkpoint again") from error
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise InputError(f"{path} is missing, truncated or altered: copy the checkpoint again")
    target: dict = {}
    for path, leaf_target in targets.items():
        *parents, leaf = path.split("/")
        node = target
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = leaf_target
    # Before orbax starts: a restore that fails half-way leaves its tasks behind.
    if actual.keys() != targets.keys() or any(  # without a shape: written by one of several processes, as numpy
            shape is not None and shape != list(targets[path].shape) for path, shape in actual.items()):
        raise InputError(f"{folder}: a checkpoint of another shape than its {MODEL} says: copy it again")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore((folder / WEIGHTS).absolute(), target)
    except Exception as error:
        raise InputError(f"{folder}: a checkpoint of another shape than its {MODEL} says, or damaged "
                         f"({_first_line(error)}): copy it again") from error
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree), stored


def _load_workdir(folder: Path) -> tuple[Params, Mapping]:
    from eqdiff_jax import data  # who plays finished weights needs no datasets
    from eqdiff_jax.training.state import init_state
    try:
        config = ConfigDict(json.loads((folder / "config.json").read_text()))
        like = jax.eval_shape(lambda: init_state(jax.random.key(0), config))
        motion_params = motion.init_params(jax.random.key(data.motion_seed(config.data)))
        stored = json.loads((folder / STATISTICS).read_text())
    except OSError as error:
        raise InputError(f"{folder / STATISTICS} cannot be read: train on, which writes it again") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: config.json or {STATISTICS} is damaged ({_first_line(error)})") from error
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_one_device()), like)
    checkpoints = manager(folder)
    if checkpoints.latest_step() is None:
        raise InputError(f"{folder}/checkpoints is empty: train longer before using it")
    try:
        state = checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore(like))
    except Exception as error:
        raise InputError(f"{folder}/checkpoints cannot be read ({_first_line(error)}): it is damaged or of another "
                         "shape than config.json says") from error
    return {**state.ema, "motion": _as_dict(state.ema.get("motion", motion_params))}, stored


def _checked(params: Params, folder: Path) -> Params:
    """The parameters with the motion chain as its records, once every shape is the one that the code expects."""
    fresh = jax.eval_shape(motion.init_params, jax.random.key(0))
    try:
        network = roformer_of(params["denoiser"])
        expected = {
            "encoder": jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, SIZE)))["params"],
            "denoiser": jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *SHAPE), jnp.int32),
                                       jnp.zeros((1, 768)))["params"],
            "motion": _as_dict(fresh)}
        wrong = next((f"{jax.tree_util.keystr(path)} has shape {got.shape}, expected {want.shape}"
                      for (path, want), got in zip(jax.tree_util.tree_leaves_with_path(expected),
                                                   jax.tree.leaves(params), strict=True)
                      if want.shape != got.shape), None)
        if jax.tree.structure(expected) != jax.tree.structure(params):  # type: ignore[operator]  # PyTreeDef is untyped
            wrong = "its parameter names differ"
    except (KeyError, ValueError, IndexError, AttributeError, TypeError, ZeroDivisionError) as error:
        wrong = f"its parameters are not this network's ({_first_line(error)})"
    if wrong:
        raise InputError(f"{folder}: a checkpoint of another shape: {wrong}; use one trained with this version")
    if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(params)):
        raise InputError(f"{folder}: the weights hold NaN or infinity; use an earlier checkpoint")
    return params | {"motion": jax.tree.unflatten(jax.tree.structure(fresh), jax.tree.leaves(params["motion"]))}


def _as_dict(record) -> dict:
    """Nested NamedTuples as nested dicts whose sorted keys keep the field order."""
    if not hasattr(record, "_fields"):
        return record
    return {f"{i:02d}_{name}": _as_dict(value)
            for i, (name, value) in enumerate(zip(record._fields, record, strict=True))}


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _hashes(folder: Path, root: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path from `root`."""
    return {str(f.relative_to(root)): _sha256(f) for f in sorted(folder.rglob("*")) if f.is_file()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
