"""Joint training: the loss reaches the motion chain through its equilibria, and the certificates stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_pairs import TINY, made_grids
from tiny import tiny

from eqdiff_jax import data, motion
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.data import limb_windows, quantiles, recordings, source
from eqdiff_jax.data.limb_windows import FRAMES
from eqdiff_jax.data.paired_music import PairedConfig
from eqdiff_jax.equilibrium.jaxopt_backend import JaxoptAnderson, JaxoptBroyden
from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import dell, lim_rps
from eqdiff_jax.motion.chain import prepare
from eqdiff_jax.targets import targets
from eqdiff_jax.training import checkpoint, train_and_evaluate
from eqdiff_jax.training.perception import perceive, perceived
from eqdiff_jax.types import Kind


@pytest.fixture(scope="module")
def world(random_grid, tmp_path_factory):
    """A folder of made pairs, known to the loop under the name tiny_real."""
    config = PairedConfig(name="tiny_real", grids=made_grids(random_grid), sources=(TINY,), repeats=1,
                          partial_repeats=1, leftovers=True)
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(source.CONFIGS, "tiny_real", config)
        yield folder, data.arrays(data.prepare("tiny_real", folder), "train")


@pytest.fixture(scope="module")
def limbs():
    return recordings((TINY,), ("train", "validation"))


def test_the_limbs_behind_a_pair_give_its_own_z(world, limbs):
    """At equilibrium the window's mean z is near the stage chain's, which the pair stores."""
    rows = np.flatnonzero(world[1]["paired"])[:8]
    found = limb_windows(limbs, [clip.decode() for clip in world[1]["clip"][rows]], world[1]["frames"][rows])
    length = world[1]["frames"][rows, 1] - world[1]["frames"][rows, 0]
    np.testing.assert_array_equal(found["inside"].sum(1), length)
    stored = world[1]["conditioning"][rows]
    made, roughness = perceive(motion.init_params(jax.random.key(0)), jnp.asarray(stored), found["limbs"],
                               found["inside"])
    z, ours = stored[:, LAYOUT["z"]], np.asarray(made)[:, LAYOUT["z"]]
    assert np.linalg.norm(z - ours) < 0.15 * np.linalg.norm(z)
    rest = np.r_[LAYOUT["velocity"].stop:104]
    np.testing.assert_array_equal(stored[:, rest], np.asarray(made)[:, rest])
    assert (np.asarray(roughness) > 0).all()


def test_a_pair_without_limbs_keeps_its_conditioning(limbs):
    found = limb_windows(limbs, [""], np.zeros((1, 2), int))
    assert found["limbs"].shape == (1, FRAMES, 27, 8) and not found["inside"].any()
    given = np.random.default_rng(0).normal(size=(1, 104)).astype(np.float32)
    kept = perceived(motion.init_params(jax.random.key(0)), {"conditioning": given, **found})
    np.testing.assert_array_equal(kept["conditioning"], given)
    assert "limbs" not in kept


def test_a_missing_recording_is_named(limbs):
    with pytest.raises(InputError, match="no recording 'gone'"):
        limb_windows(limbs, ["gone"], np.array([[0, 240]]))


def test_joint_training_moves_the_chain_and_keeps_its_certificates(world, tmp_path, monkeypatch):
    """Frozen leaves it bit for bit; joint at an absurd rate moves it far, and every bound is still proved. The config's
    solver is the one that runs."""
    folder, _ = world
    fresh = motion.init_params(jax.random.key(0))
    used = []
    for solver in (JaxoptAnderson, JaxoptBroyden):
        monkeypatch.setattr(solver, "step", lambda self, *args, step=solver.step: used.append(type(self)) or step(
            self, *args))
    for mode, solver in (("frozen", "jaxopt_anderson"), ("joint", "jaxopt_broyden")):
        config = tiny(folder, data="tiny_real", perception=mode, solver=solver, smoothness=1e-3,
                      learning_rate=0.03, steps=4, condition_dropout=0.0, batch=8)
        state = train_and_evaluate(config, tmp_path / mode)
        moved = [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(
            jax.tree.leaves(state.params["motion"]), jax.tree.leaves(fresh), strict=True)]
        assert max(moved) == 0.0 if mode == "frozen" else min(moved) > 0.01
    assert set(used) == {JaxoptAnderson, JaxoptBroyden}
    weights = prepare(state.params["motion"])
    found = dell.certificates(weights.dell) | lim_rps.certificates(weights.cross)
    assert all(c.kind == Kind.PROVED for c in found.values()) and found["coupled"].bound <= 0.9 + 1e-6
    loaded = checkpoint.load(tmp_path / "joint" / "weights")["motion"]
    np.testing.assert_array_equal(loaded.dell.w_in, state.ema["motion"].dell.w_in)
    again = checkpoint.load(tmp_path / "joint")["motion"]
    np.testing.assert_array_equal(again.dell.w_rec, state.ema["motion"].dell.w_rec)


def test_a_run_may_start_from_a_checkpoint(world, tmp_path):
    folder, _ = world
    first = train_and_evaluate(tiny(folder, data="tiny_real", steps=2), tmp_path / "first")
    config = tiny(folder, data="tiny_real", steps=2, learning_rate=0.0, initial=str(tmp_path / "first" / "weights"))
    second = train_and_evaluate(config, tmp_path / "second")
    np.testing.assert_allclose(second.params["denoiser"]["token"], first.ema["denoiser"]["token"], rtol=2**-8)
    with pytest.raises(InputError, match="a network of another shape"):
        train_and_evaluate(tiny(folder, data="tiny_real", width=128, initial=str(tmp_path / "first" / "weights")),
                           tmp_path / "third")


def test_a_checkpoint_is_steered_by_the_statistics_of_its_own_data(world, tmp_path):
    """Two runs on two datasets: each keeps its own tables, and the same movement asks for other ranks."""
    folder, rows = world
    loaded = {}
    for name, changes in {"tiny_real": {"guidance": 2.0}, "tiny": {}}.items():
        train_and_evaluate(tiny(folder, data=name, steps=2, **changes), tmp_path / name)
        loaded[name] = checkpoint.load(tmp_path / name)["statistics"]
    for made, row in zip(loaded["tiny_real"].sources, quantiles.source_quantiles(quantiles.complete(rows)[0]).values(),
                         strict=True):
        np.testing.assert_allclose(made, row, atol=2e-5)
    assert [float(found.guidance) for found in loaded.values()] == [2.0, 3.0]
    for name in ("sources", "values", "spreads", "notes"):
        ours, others = (getattr(found, name) for found in loaded.values())
        assert (np.asarray(ours) != others).any(), name
    asked = [np.asarray(targets(jnp.asarray(rows["conditioning"][:20]), found)) for found in loaded.values()]
    assert (np.abs(asked[0] - asked[1]).max(0) > 0.05).all()


def test_pairs_without_limbs_cannot_train_perception(tmp_path):
    with pytest.raises(InputError, match="needs the limbs behind the pairs, which tiny does not keep"):
        train_and_evaluate(tiny(tmp_path / "data", perception="joint"), tmp_path / "x")
    with pytest.raises(InputError, match="unknown perception 'some'"):
        train_and_evaluate(tiny(tmp_path / "data", perception="some"), tmp_path / "x")
