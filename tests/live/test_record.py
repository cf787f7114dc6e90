"""Limb frames as they come: readable at every moment, and after whatever was cut off."""

import jax
import numpy as np
import pytest

from eqdiff_jax import motion
from eqdiff_jax.errors import InputError
from eqdiff_jax.live.record import FRAME, LimbRecord


@pytest.fixture(scope="module")
def dance():
    return motion.demo("groove", 60.0, jax.random.key(0))


def test_a_minute_of_dance_is_read_back_to_half_precision(dance, tmp_path):
    record = LimbRecord(tmp_path / "deep" / "night.limbs.npy")
    for frame in dance:
        record.append(frame)
    record.close()
    back = motion.load(tmp_path / "deep" / "night.limbs.npy")
    np.testing.assert_allclose(back, dance, rtol=2**-11, atol=1e-6)
    assert (tmp_path / "deep" / "night.limbs.npy").stat().st_size == 128 + 3600 * 432 < 1.56e6
    assert (record.frames, record.lost, record.error) == (3600, 0, "")


def test_it_is_whole_at_every_moment(dance, tmp_path):
    path = tmp_path / "night.limbs.npy"
    record = LimbRecord(path, chunk=7)
    for i in range(0, 60, 3):
        record.append(dance[i:i + 3])
        assert len(np.load(path)) == record.frames and i + 3 - 9 < record.frames <= i + 3
    record.close()
    assert len(np.load(path)) == record.frames == 60
    assert path.stat().st_size == 128 + 60 * FRAME


@pytest.mark.parametrize("cut", [FRAME * 30 + 128, FRAME * 30 + 129, FRAME * 10 + 200, 128])
def test_opened_again_it_goes_on(cut, dance, tmp_path):
    path = tmp_path / "night.limbs.npy"
    record = LimbRecord(path, chunk=10)
    record.append(dance[:30])
    record.close()
    with open(path, "r+b") as file:  # a power cut: fewer bytes, or more, than the header says
        file.truncate(cut)
        file.seek(0, 2)
        file.write(b"\1" * 77)
    again = LimbRecord(path)
    kept = min((cut + 77 - 128) // FRAME, 30)
    assert again.frames == kept
    again.append(dance[30:50])
    again.close()
    back = motion.load(path)
    assert len(back) == kept + 20
    np.testing.assert_allclose(back[kept:], dance[30:50], rtol=2**-11, atol=1e-6)


def test_what_is_out_of_range_is_kept_out(tmp_path):
    record = LimbRecord(tmp_path / "odd.npy")
    odd = np.full((3, 27, 8), 1e9)
    odd[1] = np.nan
    odd[2] = -np.inf
    with np.errstate(all="raise"):
        record.append(odd)
        record.append(np.zeros((1, 27, 8)))
    record.close()
    assert np.isfinite(motion.load(tmp_path / "odd.npy")).all()


def test_no_frames_leave_no_file_and_other_files_are_left_alone(tmp_path):
    LimbRecord(tmp_path / "none.npy").close()
    assert not (tmp_path / "none.npy").exists()
    np.save(tmp_path / "float32.npy", np.zeros((4, 27, 8), np.float32))
    np.save(tmp_path / "other.npy", np.zeros((4, 3), np.float16))
    (tmp_path / "text.npy").write_text("hello")
    for name in ("float32.npy", "other.npy", "text.npy"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(InputError, match="is no record of limb frames"):
            LimbRecord(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        LimbRecord(tmp_path)
