"""The models: every key is explained, and every key of a policy belongs to a field of the core."""

from __future__ import annotations

import json

import pytest
from pydantic.fields import FieldInfo

from gateway.config.entry import Policy
from gateway.config.models import PLACES, RoutesFile
from gateway.config.policies import RetryEntry, TimeoutsEntry

FIELDS = [
    pytest.param(field, id=f"{place}.{key}")
    for place, entry in PLACES.items()
    for key, field in entry.model_fields.items()
]
POLICIES = [entry for entry in PLACES.values() if issubclass(entry, Policy)]


@pytest.mark.parametrize("field", FIELDS)
def test_every_key_is_described_in_a_sentence(field: FieldInfo) -> None:
    assert field.description is not None
    assert field.description.endswith(".")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_key_of_a_policy_sets_a_field_of_the_core_and_all_can_be_set(
    policy: type[Policy],
) -> None:
    fields = [policy.core_field(key) for key in policy.model_fields]

    assert sorted(fields) == sorted(policy.CORE.__dataclass_fields__)


def test_only_what_is_set_overrides_and_off_is_set_too() -> None:
    entry = TimeoutsEntry.model_validate({"connect": "1s", "idle": "off"})

    assert entry.overrides() == {"connect_s": 1.0, "idle_s": None}


def test_lists_override_as_sets() -> None:
    entry = RetryEntry.model_validate({"statuses": [503], "methods": ["get"], "buffer": "1KiB"})

    assert entry.overrides() == {
        "statuses": frozenset({503}),
        "methods": frozenset({b"GET"}),
        "buffer_bytes": 1024,
    }


def test_there_is_a_json_schema_for_editors() -> None:
    schema = RoutesFile.model_json_schema()

    assert schema["required"] == ["version", "routes"]
    assert json.loads(json.dumps(schema)) == schema
