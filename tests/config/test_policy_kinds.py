"""The kinds of values that only policies have: limits, hedges, names of choices and of fields."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.kinds import FieldName, HedgeAfter, Limit, PriorityName, WhatIfAllOpen
from gateway.core.policy import Hedge, PriorityClass, WhenAllOpen


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (HedgeAfter, "p95", Hedge(quantile=0.95)),
        (HedgeAfter, "p99.9", Hedge(quantile=0.999)),
        (HedgeAfter, "50ms", Hedge(after_s=0.05)),
        (HedgeAfter, "off", None),
        (Limit, 7, 7),
        (Limit, "auto", "auto"),
        (PriorityName, "sheddable", PriorityClass.SHEDDABLE),
        (WhatIfAllOpen, "route_anyway", WhenAllOpen.ROUTE_ANYWAY),
        (FieldName, "X-Request-Timeout-Ms", b"x-request-timeout-ms"),
        (FieldName, "grpc-timeout", b"grpc-timeout"),
    ],
)
def test_a_right_value_becomes_the_cores_own(kind: Any, value: object, expected: object) -> None:
    read = TypeAdapter(kind).validate_python(value)

    assert expected == read


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (HedgeAfter, "p0", "'p0' leaves nobody to hedge; write p95 or p99"),
        (HedgeAfter, "p100", "'p100' is neither a quantile nor a duration; write p95"),
        (HedgeAfter, 95, "95 is neither a quantile nor a duration; write p95"),
        (Limit, 0, "0 is no limit; write a whole number above 0, or auto"),
        (Limit, True, "true is no limit; write a whole number above 0, or auto"),
        (Limit, "many", "'many' is no limit; write a whole number above 0, or auto"),
        (
            PriorityName,
            "high",
            "'high' is not known; write critical or normal or sheddable",
        ),
        (WhatIfAllOpen, 1, "1 is not known; write probe or route_anyway"),
        (FieldName, "x y", "'x y' is no name of a field; write X-Request-Timeout-Ms"),
        (FieldName, "Host", "Host means something else; write X-Request-Timeout-Ms"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(
    kind: Any, value: object, message: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(kind).validate_python(value)

    assert refused.value.errors()[0]["msg"].removeprefix("Value error, ") == message
