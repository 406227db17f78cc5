"""Values that the Helm chart takes and refuses: a misspelt one never goes unnoticed."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from tests.fakes.helm import CHART, RefusedError, Values, helm, render

REFUSED = [
    pytest.param({"replicas": 3}, "replicas", id="unknown key"),
    pytest.param({"image": {"name": "x"}}, "name", id="unknown nested key"),
    pytest.param({"replicaCount": "3"}, "replicaCount", id="number as text"),
    pytest.param({"accessLog": True}, "accessLog", id="on without quotes"),
    pytest.param({"service": {"type": "ExternalName"}}, "type", id="unknown service type"),
    pytest.param({"service": {"port": 70000}}, "port", id="port out of range"),
    pytest.param({"drain": {"delaySeconds": "5s"}}, "delaySeconds", id="duration with unit"),
    pytest.param({"podSecurityContext": {"runAsUser": 0}}, "runAsUser", id="root"),
    pytest.param({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot", id="may be root"),
    pytest.param({"consul": {"address": "consul:8500"}}, "address", id="Consul without scheme"),
    pytest.param({"trustedProxies": ["everybody"]}, "trustedProxies", id="not a network"),
    pytest.param({"routes": {"version": 1}}, "routes", id="routes not as text"),
    pytest.param({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable", id="no drain"),
]


@pytest.mark.parametrize(("values", "named"), REFUSED)
def test_wrong_values_are_refused_by_name(values: Values, named: str) -> None:
    with pytest.raises(RefusedError, match=named):
        render(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"routes": "version: [1\n"}, "routes is not YAML"),
        ({"routes": "- a list\n"}, "routes is not YAML"),
        ({"autoscaling": {"enabled": True, "minReplicas": 20}}, "greater than"),
        ({"service": {"externalTrafficPolicy": "Local"}}, "only for NodePort"),
    ],
)
def test_values_that_make_no_sense_together_are_refused(values: Values, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        render(values)


def test_the_schema_is_a_schema_and_names_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema, cls=jsonschema.Draft7Validator)

    assert schema["properties"].keys() - {"global"} == values.keys()


def test_every_value_is_used_by_a_template() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    templates = "".join(
        path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir()
    )

    assert [name for name in values if f".Values.{name}" not in templates] == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "It has no routes yet"),
        ({"existingConfigMap": "mine"}, "ConfigMap mine"),
        ({"routes": "version: 1\nroutes: [{}]\n"}, "service/gw-gateway-admin 9901:9901"),
    ],
)
def test_the_notes_say_what_comes_next(values: Values, said: str) -> None:
    notes = helm("install", "gw", CHART, "--dry-run=client", values=values).split("NOTES:")[1]

    assert said in notes
