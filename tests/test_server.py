"""The server: answers, limits, errors, keys, versions that change, and what it writes."""

import argparse
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from ostinato import cli
from ostinato.errors import ParamsError, RequestError
from ostinato.serving import access, loading, settings
from ostinato.serving.request_log import read
from ostinato.serving.server import BODIES_AT_ONCE, _refused
from tests.echo import BUG, NAN, URL, EchoSource, Running, running, until

KEYS = ("a key of sixteen characters", "another key of a client")


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    """A server with the defaults."""
    with running(max_items=10, max_queue=20, max_body_mb=0.01) as server:
        yield server


def error(response: httpx.Response, status: int) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()["error"]


# Answers


def test_one_and_many_inputs_are_answered_in_order(plain: Running) -> None:
    one, many = plain.ask(3), plain.ask(1, 2, 3, params={"scale": 10})
    content = one.json()
    assert (content["model"], content["version"]) == ("echo", "1")
    assert content["responses"] == [
        {"doubled": 6, "ratio": 0.5, "note": "", "version": "1", "scale": 1}
    ]
    assert [each["doubled"] for each in many.json()["responses"]] == [20, 40, 60]
    assert one.headers["x-request-id"] == content["request_id"]
    assert one.json()["request_id"] != many.json()["request_id"]


def test_requests_at_once_share_batches_and_have_their_own_answers() -> None:
    source = EchoSource(seconds=0.02)
    with running(source) as server, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda value: server.ask(value).json(), range(100)))
        assert [each["responses"][0]["doubled"] for each in found] == [2 * v for v in range(100)]
        service = source.services[0]()
        assert service
        assert max(map(len, service.batches[3:])) > 4


def test_invocations_answer_as_mlflow_does(plain: Running) -> None:
    right = plain.http.post("/invocations", json={"inputs": [{"value": 4}], "params": {"scale": 2}})
    assert right.json() == {
        "predictions": [{"doubled": 16, "ratio": 0.5, "note": "", "version": "1", "scale": 2}]
    }
    for body in ({"inputs": [{"value": -4}]}, {"inputs": [{"value": "x"}]}, {"instances": [1]}):
        wrong = plain.http.post("/invocations", json=body)
        assert wrong.status_code == 400
        assert wrong.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "number 0: -4" in plain.http.post("/invocations", json={"inputs": [{"value": -4}]}).text


def test_models_says_what_is_served(plain: Running) -> None:
    assert plain.models() == {
        "name": "echo",
        "domain": "echo",
        "ready": True,
        "version": "1",
        "lineage": {"run": "echo"},
        "failure": None,
        "about": "Doubles numbers.",
        "options": {"scale": 1},
        "example": {"value": 1},
        "kind": "",
        "reads": {},
        "limits": {"body_bytes": 10_000, "items": 10},
        "waiting": 0,
    }


def test_several_models_are_told_apart_by_name() -> None:
    with running(EchoSource("m4.daily"), EchoSource("m4.daily@challenger")) as server:
        for name in ("m4.daily", "m4.daily@challenger"):
            found = server.http.post(f"/v1/models/{name}:predict", json={"inputs": [{"value": 1}]})
            assert found.json()["model"] == name
        wrong = server.http.post("/v1/models/m4.dail:predict", json={"inputs": [{"value": 1}]})
        assert error(wrong, 404)["message"] == "no model 'm4.dail'; did you mean 'm4.daily'?"


# Errors

BAD: dict[str, tuple[Any, Any, str | None, str]] = {
    "refused by the model": ([{"value": 1}, {"value": -2}], 1, "value", "number 1: -2 is negative"),
    "a missing field": ([{"value": 1}, {"note": "x"}], 1, "value", "Field required"),
    "a wrong type": ([{"value": 1}, {"value": 1, "note": 7}], 1, "note", "valid string"),
    "no object": ([{"value": 1}, {"value": 2}, 3], 2, None, "an object"),
    "no list": ({"value": 1}, None, "inputs", "valid array"),
    "no inputs": ([], None, "inputs", "at least 1 item"),
    "too many inputs": ([{"value": 1}] * 11, None, "inputs", "at most 10 items"),
}


@pytest.mark.parametrize(("inputs", "item", "field", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_input_is_named_with_its_field(
    plain: Running, inputs: Any, item: Any, field: str | None, message: str
) -> None:
    found = error(plain.http.post(URL, json={"inputs": inputs}), 422)
    assert found["code"] == "invalid_input"
    (detail,) = found["details"]
    assert (detail["item"], detail["field"]) == (item, field)
    assert message in detail["message"]


BODIES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b'{"inputs": [', "Invalid JSON"),
    "not UTF-8": (b'{"inputs": ["\xff"]}', "Invalid JSON"),
    "no object": (b"[1]", "an object"),
    "an unknown key": (b'{"inputs": [{"value": 1}], "options": {}}', "options: Extra inputs"),
    "an unknown option": (b'{"inputs": [{"value": 1}], "params": {"k": 1}}', "params.k: Extra"),
    "an option's type": (b'{"inputs": [{"value": 1}], "params": {"scale": "2"}}', "params.scale"),
    "a negative option": (b'{"inputs": [{"value": 1}], "params": {"scale": -1}}', "params.scale"),
    "empty": (b"", "Invalid JSON"),
    "too deep": (b'{"inputs": ' + b"[" * 3000 + b"]" * 3000 + b"}", "recursion limit"),
}


@pytest.mark.parametrize(("body", "message"), BODIES.values(), ids=BODIES.keys())
def test_a_bad_body_is_a_422_that_says_what_is_wrong(
    plain: Running, body: bytes, message: str
) -> None:
    sent = plain.http.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert message in error(sent, 422)["message"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("input 2: dates: 7 to 9", "dates"),
        ("input 2: value 7, of 2026, is not a number", "values"),
        ("input 2: unknown series 'values'", "series"),
        ("input 2: too much", None),
    ],
)
def test_the_field_is_the_first_that_the_model_mentions(message: str, field: str | None) -> None:
    class Input(BaseModel):
        dates: list[str]
        values: list[float]
        series: str | None = None

    interface = loading.Interface(Input, Input, {}, None, "")
    (detail,) = _refused(RequestError(message), interface).details or ()
    assert (detail["item"], detail["field"]) == (2, field)


def test_a_response_that_json_cannot_hold_is_refused_with_its_input() -> None:
    source = EchoSource()
    with running(source) as server:
        found = server.ask(1, NAN, 3)
        (detail,) = error(found, 422)["details"]
        assert detail["item"] == 1
        assert "no finite ratio" in detail["message"]
        assert server.ask(1, params=None).json()["responses"][0]["ratio"] == 0.5


def test_all_problems_are_listed_up_to_a_bound(plain: Running) -> None:
    found = error(plain.http.post(URL, json={"inputs": [{}] * 10, "params": {"a": 1}}), 422)
    assert [each["item"] for each in found["details"]] == [*range(10), None]
    assert "(11 problems)" in found["message"]


def test_paths_and_methods_that_do_not_exist_have_the_same_kind_of_error(plain: Running) -> None:
    assert error(plain.http.get("/nowhere"), 404)["code"] == "not_found"
    assert error(plain.http.get("/docs"), 404)["code"] == "not_found"
    found = plain.http.get(URL)
    assert error(found, 405)["code"] == "method_not_allowed"
    assert found.headers["allow"] == "POST"


def test_a_fault_of_the_model_is_a_500_and_the_next_request_is_answered(plain: Running) -> None:
    assert error(plain.ask(BUG), 500)["code"] == "model_failed"
    assert plain.ask(1).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=["a form of another site", "compressed"],
)
def test_only_plain_json_is_read(plain: Running, headers: dict[str, str]) -> None:
    sent = plain.http.post(URL, content=b'{"inputs": [{"value": 1}]}', headers=headers)
    error(sent, 415)


# Limits


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield b" " * 1000


@pytest.mark.parametrize("size", [10_001, 300_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_a_413(plain: Running, size: int, chunked: bool) -> None:
    body: Any = chunks(size + 1000) if chunked else b" " * size
    sent = plain.http.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert "10,000 bytes" in error(sent, 413)["message"]
    assert plain.ask(1).status_code == 200


def test_a_client_that_lies_about_the_size_is_not_believed(plain: Running) -> None:
    with socket.create_connection(("127.0.0.1", int(plain.url.rpartition(":")[2]))) as raw:
        head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999"
        raw.sendall(f"POST {URL} HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
        raw.settimeout(10)
        assert b" 413 " in raw.recv(1000)


def test_a_full_queue_is_a_429_with_the_time_to_come_back() -> None:
    source = EchoSource()
    source.gate = threading.Event()
    source.gate.set()
    with running(source, max_items=3, max_queue=4) as server, ThreadPoolExecutor(3) as pool:
        source.gate.clear()
        first = pool.submit(server.ask, 1)
        until(lambda: server.server.endpoints["echo"].batcher._busy)
        waiting = pool.submit(server.ask, 1, 2, 3)
        until(lambda: server.models()["waiting"] == 3)
        full = server.ask(1, 2)
        assert error(full, 429)["code"] == "queue_full"
        assert 1 <= int(full.headers["retry-after"]) <= 60
        mlflow = server.http.post("/invocations", json={"inputs": [{"value": 1}] * 3})
        assert (mlflow.status_code, mlflow.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
        assert mlflow.headers["retry-after"]
        source.gate.set()
        assert first.result().status_code == waiting.result().status_code == 200
        assert server.ask(1, 2).status_code == 200
        assert server.models()["waiting"] == 0


def test_bodies_that_are_too_large_together_are_a_429(plain: Running) -> None:
    plain.server.body_bytes = plain.server.max_body * BODIES_AT_ONCE
    try:
        assert error(plain.ask(1), 429)["code"] == "too_many_bytes"
    finally:
        plain.server.body_bytes = 0
    assert plain.ask(1).status_code == 200
    assert plain.server.body_bytes == 0


def test_an_answer_that_takes_too_long_is_a_503() -> None:
    source = EchoSource()
    source.gate = threading.Event()
    source.gate.set()
    with running(source, timeout_s=0.3) as server:
        source.gate.clear()
        late = server.ask(1)
        source.gate.set()
        assert error(late, 503)["code"] == "timeout"
        assert late.headers["retry-after"] == "1"
        assert server.ask(2).json()["responses"][0]["doubled"] == 4


def test_a_body_that_comes_too_slowly_is_a_503() -> None:
    def slowly() -> Iterator[bytes]:
        yield b'{"inputs": '
        time.sleep(1)
        yield b"[]}"

    with running(timeout_s=0.2) as server:
        sent = server.http.post(URL, content=slowly(), headers={"Content-Type": "application/json"})
        assert error(sent, 503)["code"] == "timeout"


def test_a_client_that_goes_away_disturbs_nobody(
    plain: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", int(plain.url.rpartition(":")[2]))) as raw:
        head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 900"
        raw.sendall(f"POST {URL} HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
    until(lambda: plain.server.body_bytes == 0)
    assert plain.ask(1).status_code == 200
    assert "ERROR" not in caplog.text


# Readiness and versions


def test_a_model_that_is_loading_is_a_503_and_the_process_is_alive() -> None:
    source = EchoSource()
    source.gate = threading.Event()
    with running(source, ready=False) as server:
        assert server.http.get("/health/live").status_code == 200
        ready = server.http.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "loading": ["echo"]})
        early = server.ask(1)
        assert error(early, 503)["code"] == "not_ready"
        assert int(early.headers["retry-after"]) > 0
        source.gate.set()
        until(lambda: server.http.get("/health/ready").status_code == 200)
        assert server.ask(1).status_code == 200


def test_a_version_is_warm_before_it_answers() -> None:
    source = EchoSource()
    with running(source, batch_size=5):
        service = source.services[0]()
        assert service
        assert service.batches == [[1], [1] * 5, [1]]


def test_a_new_version_takes_over_without_a_failed_request_and_the_old_one_is_released() -> None:
    source = EchoSource(seconds=0.001)
    seen: list[str] = []
    with running(source) as server, ThreadPoolExecutor(8) as pool:

        def ask(value: int) -> None:
            if value == 300:
                source.alias = "2"
            answer = server.ask(value, value + 1).json()  # raises where there is no answer
            versions = {each["version"] for each in answer["responses"]}
            assert versions == {answer["version"]}
            assert [each["doubled"] for each in answer["responses"]] == [2 * value, 2 * value + 2]
            seen.append(answer["version"])

        list(pool.map(ask, range(600)))
        server.wait("2")
        assert server.ask(1).json()["version"] == "2"
        assert seen[0] == "1"
        assert len(seen) == 600
        assert source.loads == ["1", "2"]
        until(lambda: source.alive() == 1)
        text = server.http.get("/metrics").text
        assert 'ostinato_model_version{model="echo",version="1"} 0.0' in text
        assert 'ostinato_model_version{model="echo",version="2"} 1.0' in text


def test_a_version_that_does_not_load_leaves_the_old_one_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = EchoSource()
    source.broken = {"2"}
    with running(source) as server, caplog.at_level(logging.INFO):
        source.alias = "2"
        until(lambda: server.models()["failure"])
        failure = server.models()["failure"]
        assert failure == {"version": "2", "message": "OSError: version 2 has no weights"}
        time.sleep(0.1)
        assert source.loads == ["1", "2"]  # it is not tried at each look
        assert caplog.text.count("has no weights; version 1 stays in use") == 1
        assert server.ask(1).json()["version"] == "1"
        assert server.http.get("/health/ready").status_code == 200
        assert 'ostinato_model_load_failing{model="echo"} 1.0' in server.http.get("/metrics").text
        source.alias = "3"
        server.wait("3")
        assert server.models()["failure"] is None
        assert 'ostinato_model_load_failing{model="echo"} 0.0' in server.http.get("/metrics").text


def test_a_version_that_failed_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "RETRY_S", 0.1)
    source = EchoSource()
    source.broken = {"1"}
    with running(source, ready=False) as server:
        until(lambda: server.models()["failure"])
        assert error(server.ask(1), 503)["code"] == "not_ready"
        source.broken = set()
        server.wait("1")
        assert server.ask(1).status_code == 200


def test_a_version_that_fails_its_first_prediction_is_not_used() -> None:
    source = EchoSource()
    with running(source) as server:
        load = source.load

        def broken(version: str) -> loading.Loaded:
            loaded = load(version)
            return loading.Loaded(version, loaded.service, {}, {"value": -1})

        source.load = broken  # type: ignore[method-assign]
        source.alias = "2"
        until(lambda: server.models()["failure"])
        assert "RequestError" in server.models()["failure"]["message"]
        assert server.ask(1).json()["version"] == "1"


def test_a_registry_that_does_not_answer_changes_nothing() -> None:
    source = EchoSource()
    with running(source) as server:
        source.down = True
        until(lambda: server.models()["failure"])
        assert server.ask(1).json()["version"] == "1"
        source.down = False
        until(lambda: server.models()["failure"] is None)
        assert source.loads == ["1"]


def test_a_graceful_stop_answers_what_was_accepted_and_writes_the_log(tmp_path: Path) -> None:
    source = EchoSource(seconds=0.05)
    with running(source, log_folder=tmp_path, log_interval_s=3600, batch_size=2) as server:
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(server.ask, value) for value in range(12)]
            until(lambda: server.models()["waiting"] >= 8)
            server.stop()
            found = [each.result().json()["responses"][0]["doubled"] for each in asked]
        assert found == [2 * value for value in range(12)]
    assert len(read(tmp_path, "requests")) == 12
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health/live")


# Access


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_needed_where_there_are_some(key: str) -> None:
    with running(keys=KEYS, ready=False) as server:
        assert server.http.get("/health/live").status_code == 200
        assert server.http.get("/health/ready").status_code in (200, 503)
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            found = server.http.get(path)
            assert error(found, 401)["code"] == "unauthorized"
            assert found.headers["www-authenticate"] == "Bearer"
        assert server.ask(1).status_code == 401
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            assert server.http.get("/v1/models", headers=headers).status_code == 200
        for wrong in (f"Bearer {key}x", f"Bearer {key[:-1]}", f"Basic {key}", "Bearer", key):
            headers = {"Authorization": wrong}
            assert server.http.get("/v1/models", headers=headers).status_code == 401
        headers = {"Authorization": f"Bearer {key}", "Host": "models.example.org"}
        assert server.http.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200),
        ("[::1]", 200), ("127.8.9.1", 200), ("example.org", 421), ("localhost.example.org:80", 421),
        ("0.0.0.0", 421), ("", 421),
    ],
)  # fmt: skip
def test_without_keys_only_loopback_names_are_answered(
    plain: Running, host: str, status: int
) -> None:
    """A page of another site could have its own name lead to 127.0.0.1."""
    assert plain.http.get("/v1/models", headers={"Host": host}).status_code == status


def test_other_origins_are_let_in_by_name_only() -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    with running(keys=KEYS, cors_origins=["https://example.org"]) as server:
        for origin, allowed in (("https://example.org", True), ("https://example.com", False)):
            found = server.http.options(URL, headers={"Origin": origin, **asked})
            assert (found.headers.get("access-control-allow-origin") == origin) is allowed
    with running() as server:
        found = server.http.options(URL, headers={"Origin": "https://example.org", **asked})
        assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_another_address_than_loopback_needs_a_key(host: str) -> None:
    chosen = settings.Settings.model_validate({"models": ["echo"], "host": host})
    with pytest.raises(ParamsError, match="OSTINATO_API_KEYS"):
        access.check_address(chosen, ())
    access.check_address(chosen, KEYS)


def test_keys_are_read_from_the_environment() -> None:
    assert access.api_keys({}) == ()
    assert access.api_keys({"OSTINATO_API_KEYS": f" {KEYS[0]},{KEYS[1]} ,"}) == KEYS
    with pytest.raises(ParamsError, match="16 characters") as caught:
        access.api_keys({"OSTINATO_API_KEYS": f"{KEYS[0]},short-key"})
    assert "short-key" not in str(caught.value)


def test_hashes_need_a_secret() -> None:
    chosen = settings.Settings.model_validate({"models": ["echo"], "log_inputs": "hash"})
    with pytest.raises(ParamsError, match="OSTINATO_LOG_KEY"):
        access.log_key(chosen, {})
    assert access.log_key(chosen, {"OSTINATO_LOG_KEY": KEYS[0]}) == KEYS[0].encode()


def test_no_input_and_no_key_is_in_the_server_s_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, secret = EchoSource(), "SECRET-INPUT"
    with caplog.at_level(logging.DEBUG), running(source, keys=KEYS, log_folder=tmp_path) as server:
        server.http.headers["Authorization"] = f"Bearer {KEYS[0]}"
        until(lambda: server.http.get("/health/ready").status_code == 200)
        for value in (1, -1, BUG, "x", {"deep": secret}):
            body = {"inputs": [{"value": value, "note": secret}]}
            server.http.post(URL, json=body)
            server.http.post("/invocations", json=body)
        server.http.post(URL, content=secret.encode())
        server.http.post("/v1/feedback", json={"truth": secret})
        server.http.get("/v1/models", headers={"Authorization": "Bearer WRONG-SECRET-INPUT"})
        server.server.endpoints["echo"].request_type = None  # type: ignore[assignment]
        assert error(server.ask(1), 500)["code"] == "internal"  # a bug of the server
    mine = [
        record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    text = "\n".join(logging.Formatter().format(record) for record in mine)
    assert "AttributeError at " in text
    assert secret not in text
    assert KEYS[0] not in text


# Metrics and OpenAPI


def test_metrics_count_requests_batches_and_versions() -> None:
    with running(EchoSource()) as server:
        for values in ((1,), (1, 2, 3), (-1,)):
            server.ask(*values)
        server.http.get("/nowhere/at/all")
        text = server.http.get("/metrics").text
    for line in (
        f'ostinato_requests_total{{route="{URL}",status="200"}} 2.0',
        f'ostinato_requests_total{{route="{URL}",status="422"}} 1.0',
        'ostinato_requests_total{route="other",status="404"} 1.0',
        f'ostinato_request_seconds_count{{route="{URL}"}} 3.0',
        'ostinato_batch_items_sum{model="echo"} 5.0',
        'ostinato_batch_seconds_count{model="echo"} 3.0',
        'ostinato_queue_items{model="echo"} 0.0',
        'ostinato_model_version{model="echo",version="1"} 1.0',
    ):
        assert line in text
    assert "process_resident_memory_bytes" in text


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def test_openapi_has_the_types_of_each_model_with_an_example(plain: Running) -> None:
    document = plain.http.get("/openapi.json").json()
    found = set(references(document))
    for reference in found:
        part = document
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]
    operation = document["paths"][URL]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert plain.http.post(URL, json=body["example"]).status_code == 200
    request = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    assert request["properties"]["inputs"]["maxItems"] == 10
    item = request["properties"]["inputs"]["items"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][item]["properties"].keys() == {"value", "note"}
    assert operation["responses"].keys() == {"200", "401", "413", "415", "422", "429", "503"}
    assert {"/invocations", "/v1/feedback", "/v1/models", "/metrics"} < document["paths"].keys()


# The log and feedback


def test_requests_are_logged_if_a_folder_is_given(tmp_path: Path) -> None:
    with running(log_folder=tmp_path) as server:
        answers = [server.ask(value, value + 1, params={"scale": 3}).json() for value in range(5)]
        assert server.ask(-1).status_code == 422
    logged = read(tmp_path, "requests").to_pylist()
    assert len(logged) == 10
    for row in logged:
        (answer,) = [each for each in answers if each["request_id"] == row["request_id"]]
        assert json.loads(row["output"]) == answer["responses"][row["item"]]
        assert json.loads(row["input"])["value"] * 6 == answer["responses"][row["item"]]["doubled"]
        assert json.loads(row["options"]) == {"scale": 3}
        assert (row["model"], row["version"]) == ("echo", "1")
        assert 0 < row["latency_ms"] < 10_000


def test_a_share_of_the_requests_is_logged(tmp_path: Path) -> None:
    with running(log_folder=tmp_path, log_share=0.5) as server:
        for value in range(80):
            server.ask(value, value)
    rows = read(tmp_path, "requests")["request_id"].to_pylist()
    assert 20 < len(rows) / 2 < 60
    assert all(rows.count(each) == 2 for each in rows)  # a request is logged as a whole


def test_a_request_that_asks_for_it_is_not_logged(tmp_path: Path) -> None:
    with running(log_folder=tmp_path) as server:
        body = {"inputs": [{"value": 1}]}
        assert server.http.post(URL, json=body, headers={"X-Log": "no"}).status_code == 200
        assert server.ask(2).status_code == 200
    assert [json.loads(x) for x in read(tmp_path, "requests")["input"].to_pylist()] == [
        {"value": 2}
    ]


def test_a_disk_that_is_slow_delays_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ostinato.serving import request_log

    free = threading.Event()
    extend = request_log.Writer._extend

    def slow(self: Any, *arguments: Any) -> None:
        assert free.wait(20)
        extend(self, *arguments)

    monkeypatch.setattr(request_log.Writer, "_extend", slow)
    with running(log_folder=tmp_path, log_interval_s=0.01) as server:
        started = time.monotonic()
        for value in range(20):
            assert server.ask(value).status_code == 200
        assert time.monotonic() - started < 5
        free.set()
    assert len(read(tmp_path, "requests")) == 20


def test_feedback_is_kept_with_the_request_that_it_is_about(tmp_path: Path) -> None:
    with running(log_folder=tmp_path) as server:
        asked = server.ask(1, 2).json()["request_id"]
        sent = {"request_id": asked, "item": 1, "model": "echo", "truth": {"doubled": 5}}
        kept = server.http.post("/v1/feedback", json=sent)
        assert (kept.status_code, kept.json()) == (202, {"accepted": True})
        assert server.http.post("/v1/feedback", json={**sent, "item": 0}).status_code == 202
        until(lambda: len(read(tmp_path, "feedback")) == 2)
        text = server.http.get("/metrics").text
        assert 'ostinato_log_rows{outcome="written",table="feedback"} 2.0' in text
    one, other = read(tmp_path, "feedback").to_pylist()
    assert (one["request_id"], one["item"], one["model"]) == (asked, 1, "echo")
    assert json.loads(one["truth"]) == {"doubled": 5}
    assert other["item"] == 0
    assert one["time"].date() == datetime.now(UTC).date()


FEEDBACK: dict[str, tuple[dict[str, Any], int]] = {
    "an unknown model": ({"model": "eco"}, 404),
    "no id": ({"request_id": "../../etc"}, 422),
    "a negative item": ({"item": -1}, 422),
    "an unknown key": ({"label": "cat"}, 422),
    "no truth": ({"truth": ...}, 422),
    "too large": ({"truth": "x" * 70_000}, 413),
}


@pytest.mark.parametrize(("change", "status"), FEEDBACK.values(), ids=FEEDBACK.keys())
def test_bad_feedback_is_refused(tmp_path: Path, change: dict[str, Any], status: int) -> None:
    sent = {"request_id": "0" * 32, "item": 0, "model": "echo", "truth": "cat", **change}
    with running(log_folder=tmp_path) as server:
        body = {key: value for key, value in sent.items() if value is not ...}
        error(server.http.post("/v1/feedback", json=body), status)
    assert len(read(tmp_path, "feedback")) == 0


def test_a_server_without_a_log_keeps_nothing(plain: Running) -> None:
    sent = {"request_id": "0" * 32, "item": 0, "model": "echo", "truth": "cat"}
    assert "--log-folder" in error(plain.http.post("/v1/feedback", json=sent), 404)["message"]


# The command


@pytest.mark.parametrize(
    ("message", "item", "renumbered"),
    [
        ("drawing 12: stroke 3: no ink", 12, "drawing 0: stroke 3: no ink"),
        ("inputs[3].text: Field required", 3, "inputs[0].text: Field required"),
        ("inputs[3]: no finite value", 3, "inputs[0]: no finite value"),
        ("inputs: found 9 characters in 3 texts", None, "inputs: found 9 characters in 3 texts"),
        ("no number", None, "no number"),
    ],
)
def test_an_error_of_a_request_knows_its_input(
    message: str, item: int | None, renumbered: str
) -> None:
    found = RequestError(message)
    assert found.item == item
    assert str(found.renumbered(0)) == renumbered


OPTIONS: dict[str, tuple[list[str], str]] = {
    "a bound": (["--port", "70000"], "--port: Input should be less than or equal to 65535"),
    "a type": (["--batch-size", "many"], "--batch-size: Input should be a valid integer"),
    "a share": (["--log-share", "1.5"], "--log-share"),
    "a request beyond the queue": (["--max-items", "50", "--max-queue", "40"], "never be accepted"),
    "an address": (["--host", "0.0.0.0"], "OSTINATO_API_KEYS"),
    "hashes": (["--log-inputs", "hash"], "OSTINATO_LOG_KEY"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_a_wrong_option_is_named(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OSTINATO_API_KEYS", raising=False)
    monkeypatch.delenv("OSTINATO_LOG_KEY", raising=False)
    assert cli.main(["serve", "results/none", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder/of/mine", "expected the folder of a result"),
        ("results/none", "params.yaml"),
        ("recipes/none/results/none", "params.yaml"),
    ],
)
def test_a_model_that_does_not_exist_is_an_error_before_the_server_starts(
    name: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", name]) == 2
    assert message in capsys.readouterr().err


def test_two_models_of_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "source", lambda text: EchoSource(text.rpartition("/")[2]))
    with pytest.raises(ParamsError, match="several models are called a"):
        loading.sources(["results/a", "recipes/b/results/a"])


def test_the_page_on_serving_lists_every_option() -> None:
    page = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    table = page.split("| option | default | meaning |\n|---|---|---|\n")[1].split("\n\n")[0]
    expected = []
    for name, field in settings.Settings.model_fields.items():
        if name != "models":
            default = "none" if field.default in (None, ()) else f"`{field.default}`"
            expected.append(f"| `--{name.replace('_', '-')}` | {default} | {field.description} |")
    assert table.splitlines() == expected
    options = set(re.findall(r"--[a-z][a-z-]+", page))
    parser = argparse.ArgumentParser()
    settings.add_arguments(parser)
    assert options <= set(parser._option_string_actions)


def test_the_command_line_does_not_import_the_server() -> None:
    code = (
        "import sys, ostinato.cli; print([m for m in ('fastapi', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout.strip() == "[]"
