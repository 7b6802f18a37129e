"""What upstream's sources say of bad input, word for word: clients and their tests look for it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import yarl

from tests.support.apiserver_process import ApiServerProcess

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
BASE = f"{CONFIG_MAPS}/base"
JSON, YAML, APPLY = "application/json", "application/yaml", "application/apply-patch+yaml"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

UNKNOWN = "the object provided is unrecognized (must be of type ConfigMap): "
NO_KIND = UNKNOWN + "couldn't get version/kind; json parse error: "
NOT_REGISTERED = 'in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
FORMATS = "the body of the request was in an unknown format - accepted media types include: "
HEAD = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
LABEL_NAME = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield process
    process.stop()


async def asked(
    server: ApiServerProcess, method: str, target: str, content_type: str = "", body: bytes = b""
) -> tuple[int, dict[str, Any]]:
    context = ssl.create_default_context(cafile=str(server.pki.ca_file))
    context.load_cert_chain(server.admin.cert_file, server.admin.key_file)
    headers = {"Content-Type": content_type} if content_type else {}
    url = yarl.URL(server.url + target, encoded=True)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), skip_auto_headers=("Content-Type",)
    ) as session:
        if method != "POST":
            data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "base"}, "data": {"a": "b"}}
            async with session.post(f"{server.url}{CONFIG_MAPS}", json=data):
                pass
        async with session.request(method, url, data=body or None, headers=headers) as answer:
            return answer.status, await answer.json()


def config_map(**more: Any) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, **more}).encode()


BODIES = [
    (JSON, b"", NO_KIND + "unexpected end of JSON input (<empty>)"),
    (JSON, b'{"kind":', NO_KIND + 'unexpected end of JSON input ({"kind":)'),
    (JSON, b"xyz", NO_KIND + "invalid character 'x' looking for beginning of value (78797a)"),
    (JSON, b"[]", NO_KIND + f"json: cannot unmarshal array into Go value of type {HEAD} (5b5d)"),
    (JSON, b'{"kind":1}', NO_KIND + 'json: cannot unmarshal number into Go struct field .kind of type string '
     '({"kind":1})'),
    (YAML, b"a: b: c", UNKNOWN + "yaml: line 1: mapping values are not allowed in this context (613a20623a2063)"),
    (JSON, b'{"kind":"Nope","apiVersion":"v1"}', 'Nope in version "v1" cannot be handled as a ConfigMap: '
     f'no kind "Nope" is registered for version "v1" {NOT_REGISTERED}'),
    (JSON, b'{"kind":"ConfigMap","apiVersion":"v9"}', 'ConfigMap in version "v9" cannot be handled as a ConfigMap: '
     f'no kind "ConfigMap" is registered for version "v9" {NOT_REGISTERED}'),
    (JSON, b'{"kind":"Deployment","apiVersion":"apps/v1"}', 'Deployment in version "v1" cannot be handled as a '
     "ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion"),
    (JSON, config_map(data={"a": 1}), 'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
     "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
    ("text/plain", b"{}", FORMATS + "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
]  # fmt: skip


@pytest.mark.parametrize(("content_type", "body", "message"), BODIES)
async def test_bodies(server: ApiServerProcess, content_type: str, body: bytes, message: str) -> None:
    code, status = await asked(server, "POST", CONFIG_MAPS, content_type, body)
    assert status["message"] == message
    assert (code, status["reason"]) == (
        (415, "UnsupportedMediaType") if message.startswith(FORMATS) else (400, "BadRequest")
    )


QUERIES = [
    ("GET", "limit=abc", 'strconv.ParseInt: parsing "abc": invalid syntax'),
    ("GET", "watch=1&timeoutSeconds=abc", 'strconv.ParseInt: parsing "abc": invalid syntax'),
    ("GET", "timeout=abc", 'invalid timeout specified in the request URL - time: invalid duration "abc"'),
    ("GET", "resourceVersion=abc", 'invalid resource version: resourceVersion: Invalid value: "abc": '
     'strconv.ParseUint: parsing "abc": invalid syntax'),
    ("GET", "labelSelector=%28%28", "found '(', expected: !, identifier, or 'end of string'"),
    ("GET", "labelSelector=a,", "found '', expected: identifier after ','"),
    ("GET", "labelSelector=a%3D%3D%3Db", "unable to parse requirement: found '=', expected: identifier"),
    ("GET", "labelSelector=a+b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
    ("GET", "labelSelector=a+in+b", "unable to parse requirement: found 'b' expected: '('"),
    ("GET", "labelSelector=-a", f'unable to parse requirement: <nil>: Invalid value: "-a": {LABEL_NAME}'),
    ("GET", "fieldSelector=abc", "invalid selector: 'abc'; can't understand 'abc'"),
    ("GET", "fieldSelector=a%3Db", '"a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
    ("DELETE", "gracePeriodSeconds=abc", 'strconv.ParseInt: parsing "abc": invalid syntax'),
]  # fmt: skip


@pytest.mark.parametrize(("method", "query", "message"), QUERIES)
async def test_queries(server: ApiServerProcess, method: str, query: str, message: str) -> None:
    target = BASE if method == "DELETE" else CONFIG_MAPS
    code, status = await asked(server, method, f"{target}?{query}")
    assert (code, status["reason"], status["message"]) == (400, "BadRequest", message)


FORBIDDEN = "FieldValueForbidden"
OPTIONS = [
    ("POST", "fieldValidation=abc", "CreateOptions", "fieldValidation", "FieldValueNotSupported",
     'Unsupported value: "abc": supported values: "Ignore", "Strict", "Warn"'),
    ("POST", "dryRun=abc", "CreateOptions", "dryRun", "FieldValueNotSupported",
     'Unsupported value: ["abc"]: supported values: "All"'),
    ("POST", "fieldManager=a%01", "CreateOptions", "fieldManager", "FieldValueInvalid",
     'Invalid value: "a\\x01": invalid character U+0001 (at position 1)'),
    ("PUT", "dryRun=abc", "UpdateOptions", "dryRun", "FieldValueNotSupported",
     'Unsupported value: ["abc"]: supported values: "All"'),
    ("PATCH", "force=1", "PatchOptions", "force", FORBIDDEN, "Forbidden: may not be specified for non-apply patch"),
    ("DELETE", "propagationPolicy=abc", "DeleteOptions", "propagationPolicy", "FieldValueNotSupported",
     'Unsupported value: "abc": supported values: "Foreground", "Background", "Orphan", "nil"'),
    ("DELETE", "propagationPolicy=Orphan&orphanDependents=1", "DeleteOptions", "propagationPolicy",
     "FieldValueInvalid",
     'Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set'),
    ("GET", "resourceVersionMatch=Exact", "ListOptions", "resourceVersionMatch", FORBIDDEN,
     "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
    ("GET", "resourceVersionMatch=abc&resourceVersion=5", "ListOptions", "resourceVersionMatch",
     "FieldValueNotSupported", 'Unsupported value: "abc": supported values: "Exact", "NotOlderThan", ""'),
    ("GET", "sendInitialEvents=1", "ListOptions", "sendInitialEvents", FORBIDDEN,
     "Forbidden: sendInitialEvents is forbidden for list"),
    ("GET", "watch=1&sendInitialEvents=1", "ListOptions", "resourceVersionMatch", FORBIDDEN,
     "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "query", "kind", "field", "reason", "message"), OPTIONS)
async def test_options(
    server: ApiServerProcess, method: str, query: str, kind: str, field: str, reason: str, message: str
) -> None:
    target = CONFIG_MAPS if method in ("POST", "GET") else BASE
    body, content_type = (b"{}", MERGE) if method == "PATCH" else (config_map(), JSON)
    if method in ("GET", "DELETE"):
        body, content_type = b"", ""
    code, status = await asked(server, method, f"{target}?{query}", content_type, body)
    assert (code, status["reason"]) == (422, "Invalid")
    assert status["details"]["causes"] == [{"reason": reason, "message": message, "field": field}]
    assert status["message"] == f'{kind}.meta.k8s.io "" is invalid: {field}: {message}'


PATCHES = [
    (MERGE, b"[", 400, "error decoding patch: unexpected end of JSON input"),
    (MERGE, b"[]", 400, "error decoding patch: json: cannot unmarshal array into Go value of type "
     "map[string]interface {}"),
    (STRATEGIC, b"{", 400, "unexpected end of JSON input"),
    (JSON_PATCH, b"{}", 400, "error decoding patch: json: cannot unmarshal object into Go value of type "
     "[]handlers.jsonPatchOp"),
    (JSON_PATCH, b'[{"op":"remove","path":"/data/z"}]', 422,
     "the server rejected our request due to an error in our request"),
    (JSON_PATCH, b"[" + b",".join([b"{}"] * 10_001) + b"]", 413, "Request entity too large: "
     "The allowed maximum operations in a JSON patch is 10000, got 10001"),
    (APPLY, b"a: b: c", 400, "error decoding YAML: yaml: line 1: mapping values are not allowed in this context"),
    (JSON, b"{}", 415, f"{FORMATS}{JSON_PATCH}, {MERGE}, {STRATEGIC}, {APPLY}"),
]  # fmt: skip


@pytest.mark.parametrize(("content_type", "body", "code", "message"), PATCHES, ids=range(len(PATCHES)))
async def test_patches(server: ApiServerProcess, content_type: str, body: bytes, code: int, message: str) -> None:
    target = f"{BASE}?fieldManager=t" if content_type == APPLY else BASE
    got, status = await asked(server, "PATCH", target, content_type, body)
    assert (got, status["message"]) == (code, message)


async def test_what_a_patch_leaves_is_not_of_its_kind(server: ApiServerProcess) -> None:
    code, status = await asked(server, "PATCH", BASE, STRATEGIC, b'{"data":5}')
    why = "json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string"
    cause = {"reason": "FieldValueInvalid", "message": f'Invalid value: "map[data:5]": {why}', "field": "patch"}
    assert (code, status["details"]) == (422, {"causes": [cause]})
    code, status = await asked(server, "PATCH", f"{BASE}?fieldValidation=Strict", MERGE, b'{"foo":1}')
    assert (code, status["details"]["causes"][0]["field"]) == (422, "patch")
    assert status["message"].endswith('strict decoding error: unknown field "foo"')


async def test_a_watch_from_nonsense(server: ApiServerProcess) -> None:
    code, status = await asked(server, "GET", f"{CONFIG_MAPS}?watch=1&resourceVersion=abc")
    why = 'Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax'
    assert (code, status["message"]) == (422, f'configmaps "" is invalid: resourceVersion: {why}')
