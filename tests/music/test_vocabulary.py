"""The 81 tokens and what stands where."""

import pytest

from eqdiff_jax.music.vocabulary import LENGTHS, VELOCITIES, VOCABULARY, pitch_name

SIZES = {"rest": 1, "pitch": 49, "drum": 8, "dynamics": 6, "articulation": 4, "duration": 5, "effect": 5,
         "structure": 3}


def test_groups_follow_each_other_and_sum_to_81():
    assert {group: len(ids) for group, ids in VOCABULARY.ranges.items()} == SIZES
    assert [i for ids in VOCABULARY.ranges.values() for i in ids] == list(range(81))
    assert len(VOCABULARY) == VOCABULARY.mask == 81
    assert len(set(VOCABULARY.names)) == 81


@pytest.mark.parametrize(("name", "token"), [
    ("~", 0), ("C2", 1), ("C#2", 2), ("C4", 25), ("C6", 49), ("bd", 50), ("perc", 57), ("pp", 58), ("ff", 63),
    ("stac", 64), ("ghost", 67), ("16th", 68), ("half", 72), ("lpf", 73), ("dist", 77), ("repeat", 78),
    ("fill", 79), ("break", 80)])
def test_ids_that_others_rely_on(name, token):
    assert VOCABULARY.ids[name] == token
    assert VOCABULARY.names[token] == name


def test_pitches_and_their_tokens_are_inverse():
    for pitch in range(36, 85):
        token = VOCABULARY.pitch_token(pitch)
        assert VOCABULARY.pitch(token) == pitch
        assert VOCABULARY.names[token] == pitch_name(pitch)
        assert VOCABULARY.group(token) == "pitch"
    assert (pitch_name(36), pitch_name(60), pitch_name(84)) == ("C2", "C4", "C6")


def test_values_are_given_for_every_token_of_their_group():
    assert tuple(VELOCITIES) == VOCABULARY.groups["dynamics"]
    assert tuple(VELOCITIES.values()) == (33, 49, 64, 80, 96, 112)
    assert tuple(LENGTHS) == VOCABULARY.groups["duration"]
    assert tuple(LENGTHS.values()) == (1, 2, 3, 4, 8)
