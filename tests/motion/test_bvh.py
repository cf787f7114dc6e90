"""BVH files: kinematics against bvhio's own, real recordings, and every way to be damaged."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eqdiff_jax.errors import InputError
from eqdiff_jax.motion import bvh
from eqdiff_jax.motion.limbs import body_height, load
from eqdiff_jax.motion.skeleton import LIMBS, OFFSETS, PARENTS, match

ORDERS = ("Zrotation Xrotation Yrotation", "Zrotation Yrotation Xrotation", "Xrotation Yrotation")
PLACE = "Xposition Yposition Zposition"


def bvh_text(names=LIMBS, frames=5, fps=30, seed=0, placed=False):
    """A BVH of the 27-limb tree in centimetres, random poses, a different Euler order per joint."""
    rng = np.random.default_rng(seed)
    channels = [f"{PLACE} {ORDERS[0]}"] + [
        (f"{PLACE} " if placed else "") + ORDERS[joint % 3] for joint in range(1, 27)
    ]
    lines = ["HIERARCHY"]

    def joint(index, depth):
        pad = "  " * depth
        offset = " ".join(f"{value:.6f}" for value in 170.0 * OFFSETS[index])
        labels = channels[index]
        lines.extend([f"{pad}{'JOINT' if depth else 'ROOT'} {names[index]}", f"{pad}{{"])
        lines.extend([f"{pad}  OFFSET {offset}", f"{pad}  CHANNELS {len(labels.split())} {labels}"])
        children = [child for child in range(27) if PARENTS[child] == index]
        for child in children:
            joint(child, depth + 1)
        if not children:
            lines.extend([f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET 0 1 0", f"{pad}  }}"])
        lines.append(f"{pad}}}")

    joint(0, 0)
    lines += ["MOTION", f"Frames: {frames}", f"Frame Time: {1 / fps:.7f}"]
    base = np.cumsum(rng.normal(size=(frames, 27, 3)), axis=0)  # a smooth enough walk of angles
    for frame in range(frames):
        row = []
        for index in range(27):
            for label in channels[index].split():
                axis = "XYZ".index(label[0])
                if label.endswith("position"):
                    row.append(170.0 * OFFSETS[index, axis] + 0.1 * base[frame, index, axis])
                else:
                    row.append(3.0 * base[frame, index, axis] + 10.0 * axis)
        lines.append(" ".join(f"{value:.6f}" for value in row))
    return "\n".join(lines) + "\n"


def written(folder, text, name="dance.bvh"):
    path = folder / name
    path.write_text(text)
    return path


def real(relative):
    """A path inside EQDIFF_DATA, or a skip that says what is missing."""
    root = os.environ.get("EQDIFF_DATA")
    if not root:
        pytest.skip("EQDIFF_DATA is not set: no real recordings here")
    path = Path(root) / relative
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


def unpacked(archive, folder, every):
    """Every n-th BVH file of an archive, written into `folder`."""
    paths = []
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.isfile() and m.name.lower().endswith(".bvh")]
        for number, member in enumerate(members[::every]):
            path = folder / f"{number}_{Path(member.name).name}"
            path.write_bytes(tar.extractfile(member).read())
            paths.append(path)
    return paths


def assert_kinematics_of_bvhio(path, tolerance):
    """World positions equal those of bvhio's own hierarchy, an independent path."""
    clip = bvh.read_bvh(path)
    hierarchy = bvh.bvhio.readAsHierarchy(str(path))
    for frame in range(0, len(clip.times), max(1, len(clip.times) // 5)):
        layout = hierarchy.loadPose(frame).layout()
        assert [joint.Name for joint, _, _ in layout] == list(clip.names)
        theirs = np.array([list(joint.PositionWorld) for joint, _, _ in layout])
        np.testing.assert_allclose(clip.positions[frame], theirs, atol=tolerance)


@pytest.mark.parametrize("placed", [False, True])
def test_world_positions_equal_those_of_bvhio(tmp_path, placed):
    assert_kinematics_of_bvhio(written(tmp_path, bvh_text(placed=placed)), tolerance=1e-3)


def test_real_mocopi_file_has_all_limbs_and_the_kinematics_of_bvhio():
    path = real("motion/mocopi/Mocopi_Jumpingjacks.head.BVH")
    clip = bvh.read_bvh(path)
    assert clip.names == LIMBS
    assert clip.parents == tuple(PARENTS)
    assert 165.0 < body_height(clip.positions, np.ones(27, bool)) < 180.0  # centimetres
    assert_kinematics_of_bvhio(path, tolerance=2e-3)
    limbs = load(path)
    assert (limbs[..., 7] == 1.0).all()
    assert np.abs(limbs[..., 3:6]).max() < 0.1  # the leading rest pose is gone: nobody leaps


@pytest.mark.parametrize(
    ("archive", "every", "joints", "height"),
    [
        ("bandai_namco_dataset1_CCBYNC4", 29, 21, (145.0, 170.0)),
        ("cmu_salsa_acrnn_MIT", 6, 19, (160.0, 180.0)),
    ],
)
def test_real_archives_load(tmp_path, archive, every, joints, height):
    paths = unpacked(real(f"motion/{archive}.tar.xz"), tmp_path, every)
    assert len(paths) >= 3
    for path in paths:
        clip, limbs = bvh.read_bvh(path), load(path)
        mapped = match(clip.names)
        assert (mapped >= 0).sum() == joints
        assert height[0] < body_height(clip.positions[:, mapped], mapped >= 0) < height[1]
        assert limbs.dtype == np.float32
        assert np.isfinite(limbs).all()
        seconds = clip.times[-1] - clip.times[0]
        assert abs(len(limbs) - 1 - 60.0 * seconds) <= 8  # a leading rest pose may be dropped
        np.testing.assert_array_equal(limbs[:, mapped < 0, 7], 0.0)
        np.testing.assert_array_equal(limbs[:, mapped >= 0, 7], 1.0)
        assert 0.15 < np.median(limbs[:, 10, 1]) < 0.45  # the head is over the hips
        assert np.median(np.abs(limbs[:, 0, 1])) < 0.12  # the hips near their rest height
    assert_kinematics_of_bvhio(min(paths, key=lambda path: path.stat().st_size), tolerance=2e-2)


def test_names_with_spaces_survive(tmp_path):
    names = [f"Bip01 {name.replace('_', ' ')}" for name in LIMBS]
    clip = bvh.read_bvh(written(tmp_path, bvh_text(names)))
    np.testing.assert_array_equal(match(clip.names), np.arange(27))


def test_windows_line_ends_and_upper_case_suffix(tmp_path):
    text = bvh_text()
    path = tmp_path / "DANCE.BVH"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(load(path), load(written(tmp_path, text)))


def test_a_leading_rest_pose_is_dropped(tmp_path):
    text = bvh_text(frames=12, fps=120)
    head, rows = text.split("Frame Time: 0.0083333\n")
    rest = " ".join(["-300 90 0 0 0 0"] + ["0"] * (len(rows.split("\n")[0].split()) - 6))
    longer = head.replace("Frames: 12", "Frames: 13") + f"Frame Time: 0.0083333\n{rest}\n{rows}"
    clip = bvh.without_lead_in(bvh.read_bvh(written(tmp_path, longer)))
    assert len(clip.times) == 12
    same = bvh.read_bvh(written(tmp_path, text))
    np.testing.assert_allclose(clip.positions, same.positions)
    assert len(bvh.without_lead_in(same).times) == 12


def test_a_non_finite_number_costs_its_own_branch_only(tmp_path):
    head, last = bvh_text(frames=8).rstrip("\n").rsplit("\n", 1)
    values = last.split()
    arm = 6 + sum(len(ORDERS[joint % 3].split()) for joint in range(1, 12))  # l_up_arm's first
    values[arm] = "nan"
    path = written(tmp_path, f"{head}\n{' '.join(values)}\n")
    limbs = load(path)
    assert np.isfinite(limbs).all()
    lost = [LIMBS[limb] for limb in np.flatnonzero(limbs[-1, :, 7] == 0.0)]
    assert lost == ["l_up_arm", "l_low_arm", "l_hand"]
    assert (limbs[0, :, 7] == 1.0).all()


def _damaged():
    text = bvh_text()
    rows = text.rstrip("\n").split("\n")
    yield "empty", "", "not a BVH file"
    yield "prose", "Once upon a time\n", "not a BVH file"
    yield "no motion", text.split("MOTION")[0], "cut or damaged"
    yield "in the hierarchy", text[: text.index("torso_5")], "cut or damaged"
    yield "in the header", text[: text.index("Frame Time")], "cut or damaged"
    yield "no frames at all", text[: text.index("Frame Time")] + "Frame Time: 0.03\n", "holds 0"
    yield "a frame less", "\n".join(rows[:-1]), "announces 5 frames and holds 4"
    yield "short line", text[: len(text) - 200], "frame 5 has"
    yield "word", text.replace("MOTION", "MOTION", 1)[:-3] + "x\n", "other than numbers"
    yield "brace", text.replace("}", "", 1), "in its hierarchy"
    yield "channels", text.replace("CHANNELS 3", "CHANNELS 4", 1), "Channel count mismatch"
    yield "offset", text.replace("OFFSET", "OFFSET zero", 1), "hierarchy is damaged"
    yield "axis", text.replace("Zrotation", "Wrotation", 1), "unknown channels"
    yield "frame time", text.replace("Frame Time: 0.03", "Frame Time: -0.03"), "Frame Time"
    yield "frame count", text.replace("Frames: 5", "Frames: many"), "not numbers"
    yield "strangers", bvh_text([f"bone{i}x" for i in range(27)]), "no joint is named like the hips"
    finite = text.index("Frame Time")
    start = text.index("\n", finite) + 1
    nans = " ".join(["nan"] * len(rows[-1].split()))
    yield "nan", text[:start] + "\n".join([nans] * 5) + "\n", "no frame holds a finite pose"


@pytest.mark.parametrize(("text", "message"), [pytest.param(t, m, id=i) for i, t, m in _damaged()])
def test_damage_is_one_line_that_names_the_file_and_the_fix(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert line.count(";") >= 1  # reason; fix


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        bvh.read_bvh(tmp_path / "absent.bvh")
    path = tmp_path / "noise.bvh"
    path.write_bytes(b"HIERARCHY\n\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        bvh.read_bvh(path)


TEXT = bvh_text(frames=2)
shared_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@shared_folder
@given(cut=st.integers(0, len(TEXT) - 12))
def test_a_file_cut_anywhere_is_refused_and_never_hangs(tmp_path, cut):
    with pytest.raises(InputError):
        bvh.read_bvh(written(tmp_path, TEXT[:cut]))


@shared_folder
@given(data=st.data())
def test_a_file_with_lost_or_doubled_words_is_refused_or_finite(tmp_path, data):
    words = TEXT.split(" ")
    place = data.draw(st.integers(0, min(len(words) - 1, 500)))
    instead = st.sampled_from([words[place], "}\n", "{", "nan", "JOINT x\n", "1e999", "MOTION\n"])
    lost = data.draw(st.integers(0, 3))
    words[place : place + lost] = data.draw(st.lists(instead, max_size=2))
    path = written(tmp_path, " ".join(words))
    try:
        limbs = load(path)
    except InputError as error:
        message = str(error)
    else:
        message = ""
        assert np.isfinite(limbs).all()
    assert "\n" not in message
