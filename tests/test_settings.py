import dataclasses
import json
import typing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_core.errors import ConfigError
from lora_core.jobs import GenerateJob, InpaintJob, LoraUse, Subset, TrainJob
from lora_core.run import RUNNERS
from lora_core.settings import describe, from_json, group, problems, replace_by_name, setting, spell, to_json

JOBS = (TrainJob, GenerateJob, InpaintJob)
finite = {"allow_nan": False, "allow_infinity": False}
st.register_type_strategy(float, st.floats(**finite))


@dataclass(frozen=True)
class Inner:
    depth: int = setting(1, "Depth", min=0)


@dataclass(frozen=True)
class Small:
    name: str = setting("x", "Name")
    hidden: str = "not declared"
    inner: Inner = group(Inner, "Inner")


@settings(max_examples=40, deadline=None)
@given(st.one_of(*(st.from_type(job) for job in JOBS)))
def test_every_job_survives_json(job):
    assert from_json(type(job), json.loads(json.dumps(to_json(job)))) == job


@pytest.mark.parametrize("cls", JOBS)
def test_names_are_unique_and_defaults_are_allowed(cls):
    leaves = describe(cls)
    names = [s.name for s in leaves]
    assert len(names) == len(set(names))
    assert all(s.declaration.label for s in leaves)
    assert problems(cls()) == []


@pytest.mark.parametrize("cls", JOBS)
def test_every_field_is_declared_or_a_tuple_of_values(cls):
    declared = {s.path for s in describe(cls)}

    def walk(kind, prefix):
        for name, field_type in typing.get_type_hints(kind).items():
            if dataclasses.is_dataclass(field_type):
                yield from walk(field_type, (*prefix, name))
            elif typing.get_origin(field_type) is not tuple or field_type == tuple[str, ...]:
                yield (*prefix, name)

    assert set(walk(cls, ())) == declared


@pytest.mark.parametrize("cls", JOBS)
def test_each_bound_is_named_when_it_is_crossed(cls):
    for s in describe(cls):
        for limit, beyond in ((s.declaration.min, -1), (s.declaration.max, 1)):
            if limit is not None:
                value = type(limit)(limit) + beyond
                job = replace_by_name(cls(), {s.name: int(value) if s.type is int else float(value)})
                assert any(f"({s.name})" in p and f"{limit:g}" in p for p in problems(job)), s.name
                at = replace_by_name(cls(), {s.name: int(limit) if s.type is int else float(limit)})
                assert problems(at) == [], s.name


@pytest.mark.parametrize("cls", JOBS)
def test_a_choice_that_is_not_offered_is_named_with_the_offers(cls):
    for s in describe(cls):
        if s.declaration.choices:
            faults = problems(replace_by_name(cls(), {s.name: "something else"}))
            assert len(faults) == 1 and all(c in faults[0] for c in s.declaration.choices)


@given(st.sampled_from([float("nan"), float("inf"), float("-inf")]))
def test_numbers_must_be_finite(value):
    assert "finite" in problems(replace_by_name(TrainJob(), {"learning_rate": value}))[0]


def test_unknown_fields_are_all_named():
    with pytest.raises(ConfigError) as fault:
        from_json(TrainJob, {"bass": "x", "network": {"rang": 4, "alfa": 1}})
    text = str(fault.value)
    assert len(fault.value.problems) == 3 and all(w in text for w in ("bass", "network.rang", "network.alfa"))


WRONG = [
    ({"seed": "1"}, "seed", "a whole number"),
    ({"seed": 1.5}, "seed", "a whole number"),
    ({"seed": True}, "seed", "a whole number"),
    ({"resume": 1}, "resume", "true or false"),
    ({"base": None}, "base", "a text"),
    ({"optimization": {"learning_rate": "fast"}}, "optimization.learning_rate", "a number"),
    ({"saves": {"preview_prompts": "one"}}, "saves.preview_prompts", "a list"),
    ({"saves": {"preview_prompts": [1]}}, "saves.preview_prompts[0]", "a text"),
    ({"network": 16}, "network", "an object"),
    ({"dataset": {"subsets": [{"repeats": 2}]}}, "dataset.subsets[0].folder", "missing"),
]


@pytest.mark.parametrize(("data", "where", "words"), WRONG)
def test_wrong_types_are_named_with_their_place(data, where, words):
    with pytest.raises(ConfigError) as fault:
        from_json(TrainJob, data)
    assert where in str(fault.value) and words in str(fault.value)


def test_whole_numbers_are_numbers_and_none_is_kept():
    job = from_json(TrainJob, {"optimization": {"learning_rate": 1, "text_encoder_lr": None}})
    assert job.optimization.learning_rate == 1.0 and isinstance(job.optimization.learning_rate, float)
    assert job.optimization.text_encoder_lr is None


def test_nested_tuples_come_back_as_values():
    job = TrainJob(dataset=dataclasses.replace(TrainJob().dataset, subsets=(Subset("a", keep_tokens=2), Subset("b"))))
    assert from_json(TrainJob, json.loads(json.dumps(to_json(job)))) == job
    job = GenerateJob(loras=(LoraUse("x", 0.5),))
    assert from_json(GenerateJob, to_json(job)) == job


def test_replace_by_name_reaches_groups_and_names_what_it_does_not_know():
    job = replace_by_name(TrainJob(), {"rank": 4, "name": "x", "preview_prompts": ("a", "b")})
    assert (job.network.rank, job.name, job.saves.preview_prompts) == (4, "x", ("a", "b"))
    with pytest.raises(ConfigError) as fault:
        replace_by_name(TrainJob(), {"rang": 4, "nam": "x"})
    assert len(fault.value.problems) == 2


def test_describe_of_a_small_job():
    assert [(s.path, s.group, s.type) for s in describe(Small)] == [
        (("name",), "", str),
        (("inner", "depth"), "inner", int),
    ]


@pytest.mark.parametrize(
    ("kind", "words"), [(bool, "true or false"), (int, "a whole number"), (tuple[str, ...], "a list (of a text)")]
)
def test_types_in_words(kind, words):
    assert spell(kind) == words


def test_every_runner_has_a_job_with_problems():
    assert all(callable(runner.job.problems) for runner in RUNNERS.values())


def test_a_job_without_anything_names_every_missing_thing():
    text = "\n".join(TrainJob().problems())
    assert all(word in text for word in ("base", "output_dir", "folder"))


@pytest.mark.parametrize("name", ["a/b", "a:b", " a", "a.", "", "a,b", "x>y", "tab\t", "(a)"])
def test_names_that_hosts_cannot_take(name):
    assert any("name" in p for p in replace_by_name(TrainJob(), {"name": name}).problems()), name
