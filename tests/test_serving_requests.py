"""Requests to a registered model: each limit and each refusal, in a short message."""

import json
import re
import time
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from pydantic import BaseModel

from ostinato.errors import RequestError
from ostinato.serving import requests

OPTIONS = {"top_k": 0}


class Input(BaseModel):
    strokes: list[list[float]]
    simplified: bool = False


class Response(BaseModel):
    label: str
    values: dict[str, list[float]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{inputs: ", "not JSON in UTF-8: Expecting property name"),
        ("", "not JSON in UTF-8"),
        ("7", "expected an object with the key 'inputs', found 7"),
        ("null", "found None"),
        ("[1, 2, 3]", "found a list of 3"),
        (b"\xff\xfe{", "not JSON in UTF-8"),
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"inputs": ' + "[" * 500 + "]" * 500 + "}", "nested more than 64 deep"),
        ('{"inputs": ' + '{"a": ' * 5_000 + "1" + "}" * 5_000 + "}", "nested more than 64 deep"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: str | bytes, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        requests.decode(body, OPTIONS)


def test_a_body_that_is_too_long_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "MAX_BYTES", 10)
    with pytest.raises(RequestError, match="the request has 12 bytes; at most 10 are read"):
        requests.decode(b"{no JSON at ", OPTIONS)
    assert requests.decode('{"inputs": []}', OPTIONS) == {"inputs": []}, "a file has no limit"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top_k": -1}, "params.top_k: expected a whole number from 0 to 2147483647, found -1"),
        ({"top_k": 2.5}, "found 2.5"),
        ({"top_k": "2"}, "found '2'"),
        ({"top_k": True}, "found True"),
        ({"top_k": None}, "found None"),
        ({"top_k": 10**30}, "found an integer of more than 64 bits"),
        ({"top_k": [1]}, "found a list of 1"),
        ({"topk": 2}, "params.'topk': unknown; did you mean 'top_k'?"),
        ([2], "params: expected an object, found a list of 1"),
    ],
)
def test_an_option_out_of_its_bounds_is_refused_by_name(given: Any, message: str) -> None:
    body = json.dumps({"inputs": [], "params": given})
    with pytest.raises(RequestError, match=re.escape(message)):
        requests.decode(body, OPTIONS)
    with pytest.raises(RequestError, match=re.escape(message)):
        requests.check_options(given, OPTIONS)


def test_the_options_of_a_request_complete_the_defaults() -> None:
    assert requests.check_options(None, OPTIONS) == {"top_k": 0}
    assert requests.check_options({"top_k": 3}, OPTIONS) == {"top_k": 3}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs: expected a list, found None"),
        ({"strokes": []}, "inputs: expected a list, found an object of 1"),
        ([None], "inputs[0]: Input should be a valid dictionary"),
        ([{"strokes": []}, {"ink": 3}], "inputs[1].strokes: Field required"),
        ([{"strokes": [[1], ["x" * 10_000]]}], "inputs[0].strokes[1][0]: Input should be a valid"),
        ([{"strokes": [["x"] * 100_000]}], "(and 99999 more)"),
    ],
)
def test_an_input_of_another_type_is_refused_by_field(inputs: Any, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as raised:
        requests.read_inputs(inputs, Input)
    assert len(str(raised.value)) < 400


def test_inputs_are_read_from_json_objects_and_tables() -> None:
    import pandas as pd

    one = {"strokes": [[1.0, 2.0]], "simplified": True}
    for inputs in ([one], [Input(**one)], pd.DataFrame([one])):  # type: ignore[arg-type]
        assert requests.read_inputs(inputs, Input) == [Input(**one)]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_response_is_json(value: float) -> None:
    good = Response(label="a", values={"low": [1.0, 2.0]})
    requests.check_finite([good])
    bad = Response(label="a", values={"low": [1.0, value]})
    with pytest.raises(RequestError, match=r"inputs\[1\]: its response has no finite values.low"):
        requests.check_finite([good, bad])


def test_a_million_numbers_are_checked_in_seconds() -> None:
    body = json.dumps({"inputs": [{"strokes": [[1.5] * 1_000_000]}]}).encode()
    began = time.monotonic()
    requests.read_inputs(requests.decode(body, OPTIONS)["inputs"], Input)
    assert time.monotonic() - began < 10


def test_the_server_of_mlflow_parses_requests_by_the_function_that_is_replaced() -> None:
    """`ostinato.serving.mlflow_model` replaces a function without a public name."""
    with pytest.raises(MlflowException):
        scoring_server._decode_json_input("{")
