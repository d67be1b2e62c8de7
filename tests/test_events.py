import dataclasses
import json
import math
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_core import errors, events
from lora_core.events import KINDS, Finished, Loss, Note, event_from_json, event_to_json
from lora_core.wire import decode, encode, error_from_wire, error_to_wire

texts = st.text(st.characters(codec="utf-8"))
report = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts)
any_event = st.one_of(
    *(
        st.from_type(cls)
        if cls is not Finished
        else st.builds(Finished, st.lists(texts).map(tuple), report, st.booleans())
        for cls in KINDS.values()
    )
)


def same(a: object, b: object) -> bool:
    """Equal, NaN counted as equal to itself."""
    one, two = dataclasses.asdict(a), dataclasses.asdict(b)  # type: ignore[call-overload]
    floats = [(x, two[k]) for k, x in one.items() if isinstance(x, float) and math.isnan(x)]
    return all(math.isnan(y) for _, y in floats) and {k: v for k, v in one.items() if v == v} == {
        k: v for k, v in two.items() if v == v
    }


@given(any_event)
def test_every_event_survives_the_wire(event):
    line = encode(event_to_json(event))
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()
    back = event_from_json(decode(line))
    assert type(back) is type(event) and same(back, event)


def test_every_kind_of_event_is_known_by_its_name():
    assert set(KINDS.values()) == set(typing.get_args(events.Event))
    assert all(name == cls.__name__ for name, cls in KINDS.items())


def test_an_unknown_event_is_an_error():
    with pytest.raises(KeyError):
        event_from_json({"event": "Surprise"})
    with pytest.raises(TypeError):
        event_from_json({"event": "Note", "colour": "red"})


def test_numbers_of_other_libraries_and_lone_surrogates_cross_the_wire(tmp_path):
    numpy = pytest.importorskip("numpy")
    event = Finished((str(tmp_path),), {"loss": numpy.float32(0.5), "folder": tmp_path, "name": "a\udc80b"})
    back = event_from_json(decode(encode(event_to_json(event))))
    assert back == Finished((str(tmp_path),), {"loss": 0.5, "folder": str(tmp_path), "name": "a\udc80b"})


def test_the_json_of_an_event_is_readable_by_others():
    assert json.loads(encode(event_to_json(Note("ü", "warning")))) == {"event": "Note", "text": "ü", "level": "warning"}
    assert event_to_json(Loss(1, 0.5, 0.5, 1e-4))["held_out"] is None


def test_what_is_not_an_object_is_no_message():
    for line in (b"[1]\n", b"nonsense\n", b"\xff\n", b'"text"\n'):
        with pytest.raises(ValueError):
            decode(line)


@given(st.sampled_from(sorted(errors.BY_NAME)), texts)
def test_errors_keep_class_and_sentence_on_the_wire(name, sentence):
    back = error_from_wire(decode(encode(error_to_wire(errors.BY_NAME[name](sentence)))))
    assert type(back) is errors.BY_NAME[name] and str(back) == sentence


def test_the_problems_of_a_config_error_stay_a_list():
    back = error_from_wire(decode(encode(error_to_wire(errors.ConfigError(["one.", "two.\nlines"])))))
    assert isinstance(back, errors.ConfigError) and back.problems == ["one.", "two.\nlines"]


def test_a_subclass_travels_as_its_known_base():
    class Special(errors.FileError):
        pass

    assert type(error_from_wire(error_to_wire(Special("gone")))) is errors.FileError


def test_by_name_holds_every_error():
    defined = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.LoomError)}
    assert set(errors.BY_NAME.values()) == defined
