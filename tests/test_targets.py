"""Targets: monotone, Lipschitz with the stated constants, a file that a person can edit, and what silence has."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from grids import grid_of
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import STATISTICS, STORED

from eqdiff_jax import targets as module
from eqdiff_jax.conditioning import LAYOUT
from eqdiff_jax.errors import InputError
from eqdiff_jax.music.attributes import Attributes, attributes
from eqdiff_jax.music.conductor import SECTIONS
from eqdiff_jax.music.modulation import CURVES
from eqdiff_jax.statistics import LEVELS, SOURCES
from eqdiff_jax.targets import DEFAULT, DEFAULT_RULES, NAMES, Rule, compiled, formatted, load, parse

QUANTILES = STORED["sources"]


def targets(c, *rules):
    return module.targets(c, STATISTICS, *rules)


def achieved(measured):
    return module.achieved(measured, STATISTICS)


def wanted(name, rank):
    return module.wanted(name, rank, STATISTICS)


def lipschitz(rules):
    return module.lipschitz(STATISTICS, rules)


def ordered(pair):
    return min(pair), max(pair)


share = st.floats(0, 1)
rule = st.builds(lambda source, ends, curve, weight, sections: Rule(source, *ordered(ends), curve, weight, sections),
                 st.sampled_from(list(SOURCES)), st.tuples(share, share), st.sampled_from(list(CURVES)),
                 st.floats(0, 10), st.dictionaries(st.sampled_from(SECTIONS), st.floats(-1, 1)))
all_rules = st.fixed_dictionaries(dict.fromkeys(NAMES, rule))


def moved(name, values):
    """Conditionings [N, 104] that differ in one slot."""
    c = np.tile(np.random.default_rng(0).normal(size=104) * 0.2, (len(values), 1))
    c[:, LAYOUT[name].start] = values
    return jnp.asarray(c, jnp.float32)


@given(all_rules)
@settings(max_examples=40, deadline=None)
def test_every_target_rises_with_its_source_and_with_nothing_else(rules):
    chosen, grid = compiled(rules), np.linspace(-1.5, 1.5, 61)
    for source in SOURCES:
        found = np.asarray(targets(moved(source, grid), chosen))
        assert found.shape == (61, 7) and found.min() >= 0 and found.max() <= 1
        follows = np.array([rules[name].source == source for name in NAMES])
        assert (np.diff(found, axis=0) >= -1e-6).all() and (found[:, ~follows] == found[0, ~follows]).all()


def test_ends_and_middle_of_a_rule():
    """Its lowest where the source is lowest in training, its highest where it is highest, the curve between."""
    for curve, bent in CURVES.items():
        rules = DEFAULT_RULES | {"density": Rule("tension", 0.2, 0.6, curve)}
        values = [-9.0, QUANTILES["tension"][0], QUANTILES["tension"][4], QUANTILES["tension"][-1], 9.0]
        found = np.asarray(targets(moved("tension", values), compiled(rules)))[:, 0]
        np.testing.assert_allclose(found, [0.2, 0.2, 0.2 + 0.4 * bent.at(LEVELS[4]), 0.6, 0.6], atol=4e-3)
    section = jnp.zeros((1, 104)).at[0, LAYOUT["section"].start + SECTIONS.index("Climax")].set(0.5)
    rules = {name: Rule("tension", 0.2, 0.2, sections={"Climax": 0.4}) for name in NAMES}
    np.testing.assert_allclose(targets(section, compiled(rules)), 0.4, atol=1e-6)


def test_whatever_the_axes_and_however_far():
    c = 1e3 * np.random.default_rng(1).normal(size=(3, 2, 104)).astype(np.float32)
    found = np.asarray(targets(jnp.asarray(c)))
    assert found.shape == (3, 2, 7) and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(found[1, 0], targets(jnp.asarray(c[1, 0])))


@given(all_rules, st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_pair_is_further_apart_than_the_constant_says(rules, seed):
    rng = np.random.default_rng(seed)
    places = [np.interp(rng.uniform(0, 1, 200), LEVELS, QUANTILES[name]) for name in SOURCES]
    c = rng.normal(size=(200, 104))
    c[:, [LAYOUT[name].start for name in SOURCES]] = np.transpose(places)
    c[:, LAYOUT["section"]] = rng.dirichlet(np.ones(len(SECTIONS)), 200)
    d = c + rng.normal(size=c.shape) * 10.0 ** rng.uniform(-5, 0, (200, 1)) * (rng.random(c.shape) < 0.5)
    c, d = c.astype(np.float32), d.astype(np.float32)
    a, b = (np.asarray(targets(jnp.asarray(x), compiled(rules)), np.float64) for x in (c, d))
    bound = np.array([lipschitz(rules)[name] for name in NAMES])
    far = np.linalg.norm(c.astype(np.float64) - d, axis=1)[:, None]
    # float32: the targets' own rounding, and that of a slot's value, which its slope enlarges.
    assert (np.abs(a - b) <= bound * (far * (1 + 1e-4) + 2e-7) + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_constant_is_attained(name):
    """Across the steepest piece of the table, along the gradient: no smaller one would do."""
    chosen = DEFAULT_RULES[name]._replace(curve="linear", low=0.1, high=0.9)
    values, shifts = np.array(QUANTILES[chosen.source]), np.array([chosen.sections.get(s, 0.0) for s in SECTIONS])
    steep = int(np.argmax(1 / np.diff(values)))
    gradient = np.zeros(104)
    gradient[LAYOUT[chosen.source].start] = 0.8 * np.max(np.diff(LEVELS) / np.diff(values))
    gradient[LAYOUT["section"]] = shifts
    step = gradient * 0.4 * (values[steep + 1] - values[steep]) / gradient[LAYOUT[chosen.source].start]
    middle = np.asarray(moved(chosen.source, [values[steep:steep + 2].mean()]), np.float64)[0]
    middle[LAYOUT["section"]] = 0.0
    ends = np.stack([middle - step, middle + step]).astype(np.float32)
    rules = DEFAULT_RULES | {name: chosen}
    low, high = np.asarray(targets(jnp.asarray(ends), compiled(rules)), np.float64)[:, NAMES.index(name)]
    ratio = (high - low) / np.linalg.norm(ends[1].astype(np.float64) - ends[0])
    assert ratio == pytest.approx(lipschitz(rules)[name], rel=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_achieved_rises_and_undoes_wanted(name):
    values, ranks = STATISTICS.values[NAMES.index(name)], STATISTICS.ranks[NAMES.index(name)]
    low, high = values[np.flatnonzero(ranks == 0)[-1]], values[-1]  # between them no two values share a rank
    levels = np.linspace(0, 1, 101)
    found = np.asarray(achieved(Attributes(*[jnp.asarray(levels)] * 7)))[:, NAMES.index(name)]
    assert (np.diff(found) >= 0).all() and found[0] == 0 and found[-1] == 1
    inside = (levels >= low) & (levels <= high)
    np.testing.assert_allclose(wanted(name, jnp.asarray(found[inside])), levels[inside], atol=1e-5)
    back = np.asarray(achieved(Attributes(*[wanted(name, jnp.asarray(levels))] * 7)))[:, NAMES.index(name)]
    np.testing.assert_allclose(back, levels, atol=1e-4)


def test_silence_can_be_asked_for():
    """And who asks for no tracks asks for what the empty grid has: a rank of 0."""
    rules = DEFAULT_RULES | {name: Rule("energy", 0.0, 1.0, "s") for name in ("density", "intensity", "layers")}
    silent = np.asarray(achieved(attributes(jnp.asarray(grid_of()))))
    loud = np.asarray(achieved(attributes(jnp.asarray(grid_of(KICK="bd ~ bd", BASS="C2")))))
    asked = np.asarray(targets(moved("energy", [0.0]), compiled(rules)))[0]
    for name in ("density", "intensity", "layers"):
        assert silent[NAMES.index(name)] == asked[NAMES.index(name)] == 0.0 < loud[NAMES.index(name)]
    assert silent[NAMES.index("stability")] == 1.0


def test_another_map_needs_no_new_compilation():
    c = moved("energy", [0.3])
    targets(c, DEFAULT)
    before = module.targets._cache_size()
    targets(c, compiled(DEFAULT_RULES | {"range": Rule("lr_pan", 0.3, 0.4, "log", 2.0, {"Intro": 0.2})}))
    assert module.targets._cache_size() == before


@given(all_rules)
@settings(max_examples=100, deadline=None)
def test_a_file_says_what_the_rules_say(rules):
    assert parse(formatted(rules)) == rules


def test_what_a_file_leaves_out_stays():
    assert parse("") == load(None) == DEFAULT_RULES
    changed = parse("[layers]\nlow = 0\nsections = {}\n[density]\nsource = 'energy'\n")
    assert changed["layers"] == DEFAULT_RULES["layers"]._replace(low=0.0, sections={})
    assert changed["density"] == DEFAULT_RULES["density"]._replace(source="energy")
    assert all(changed[name] == DEFAULT_RULES[name] for name in NAMES if name not in ("layers", "density"))


@pytest.mark.parametrize(("text", "says"), [
    ("[densty]\nlow = 0", "did you mean density"),
    ("[volume]\nlow = 0", "choose one of density"),
    ("[density]\nlo = 0", "did you mean low"),
    ("[density]\nsource = 'tensoin'", "did you mean tension"),
    ("[density]\nsource = 3", "choose one of"),
    ("[density]\nsource = 'z'", "choose one of"),
    ("[density]\ncurve = 'cubic'", "choose one of linear"),
    ("[density]\nlow = 0.9\nhigh = 0.1", "exchange them"),
    ("[density]\nlow = nan", "write a number from 0 to 1"),
    ("[density]\nhigh = 1.5", "write a number from 0 to 1"),
    ("[density]\nhigh = true", "write a number from 0 to 1"),
    ("[density]\nhigh = '1'", "write a number from 0 to 1"),
    ("[density]\nweight = -1", "write a number from 0 to 10"),
    ("[density]\nweight = inf", "write a number from 0 to 10"),
    ("[density]\nsections = { Climx = 0.1 }", "did you mean Climax"),
    ("[density]\nsections = { Climax = 2 }", "write a number from -1 to 1"),
    ("[density]\nsections = 1", "write { Breakdown = -0.2 }"),
    ("density = 1", "below [density]"),
    ("low", "not TOML"),
    ("[density]\nlow = 0\nlow = 1", "not TOML"),
])
def test_what_is_wrong_in_a_file_is_said_in_one_line_with_a_way_out(text, says):
    with pytest.raises(InputError) as error:
        parse(text, "my.toml")
    assert "\n" not in str(error.value) and str(error.value).startswith("my.toml") and says in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read .* give a file of targets"):
        load(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read .* give a file of targets"):
        load(tmp_path)
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe[density]")
    with pytest.raises(InputError, match="not UTF-8 text; give a file of targets"):
        load(tmp_path / "odd.toml")


def test_the_command_prints_a_file_that_loads(tmp_path):
    run = subprocess.run([sys.executable, "-m", "eqdiff_jax.targets"], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    (tmp_path / "targets.toml").write_text(run.stdout)
    assert load(tmp_path / "targets.toml") == DEFAULT_RULES
    assert all(name in run.stdout for name in (*NAMES, *SOURCES, *SECTIONS, *CURVES))


def test_numbers_and_nesting_beyond_reason_are_one_line():
    for text in ("[range]\nweight = " + "9" * 5000, "[range]\nlow = " + "[" * 20_000):
        with pytest.raises(InputError, match="^targets: not TOML, "):
            parse(text)
