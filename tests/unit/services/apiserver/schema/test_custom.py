"""Custom resources: structural schemas, pruning, defaulting, validation, and the definitions themselves."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from machinery.api import errors, kinds
from services.apiserver.schema import defaults, intake, structural, validate
from services.apiserver.schema.custom import CustomSchema
from services.apiserver.schema.formats import FORMATS

Obj = dict[str, Any]
AT = "spec.versions[0].schema.openAPIV3Schema"


def of(**properties: Any) -> Obj:
    return {"type": "object", "properties": properties}


def schema(**spec: Any) -> CustomSchema:
    return CustomSchema(of(spec=of(**spec)), kind="Shirt", version="v1")


def shirt(**spec: Any) -> Obj:
    return {"apiVersion": "stable.example.com/v1", "kind": "Shirt", "metadata": {"name": "a"}, "spec": spec}


def judged(of_kind: CustomSchema, obj: Obj, old: Obj | None = None) -> list[str]:
    found = of_kind.validate_create(obj) if old is None else of_kind.validate_update(obj, old)
    return [f"{cause.field}: {cause.message}" for cause in found]


STRING: Obj = {"type": "string"}

VALUES = [
    ({"type": "string"}, 1, 'spec.f: Invalid value: "integer": spec.f in body must be of type string: "integer"'),
    ({"type": "integer"}, "1", 'spec.f: Invalid value: "string": spec.f in body must be of type integer: "string"'),
    ({"type": "integer"}, 1.5, 'spec.f: Invalid value: "number": spec.f in body must be of type integer: "number"'),
    ({"type": "boolean"}, "true", 'spec.f: Invalid value: "string": spec.f in body must be of type boolean: "string"'),
    (
        {"type": "array", "items": STRING},
        {},
        'spec.f: Invalid value: "object": spec.f in body must be of type array: "object"',
    ),
    (
        {"type": "integer", "minimum": 1},
        0,
        "spec.f: Invalid value: 0: spec.f in body should be greater than or equal to 1",
    ),
    (
        {"type": "integer", "maximum": 3},
        4,
        "spec.f: Invalid value: 4: spec.f in body should be less than or equal to 3",
    ),
    (
        {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
        1,
        "spec.f: Invalid value: 1: spec.f in body should be greater than 1",
    ),
    ({"type": "integer", "multipleOf": 5}, 7, "spec.f: Invalid value: 7: spec.f in body should be a multiple of 5"),
    ({"type": "string", "enum": ["S", "M"]}, "L", 'spec.f: Unsupported value: "L": supported values: "S", "M"'),
    ({"type": "string", "pattern": "^a+$"}, "b", "spec.f: Invalid value: \"b\": spec.f in body should match '^a+$'"),
    ({"type": "string", "pattern": "(?i)^ab$"}, "AB", None),
    (
        {"type": "string", "pattern": "(?i)^ab$"},
        "b",
        "spec.f: Invalid value: \"b\": spec.f in body should match '(?i)^ab$'",
    ),
    ({"type": "string", "pattern": r"\Aab\z"}, "ab", None),
    ({"type": "string", "maxLength": 2}, "abc", "spec.f: Too long: may not be more than 2 bytes"),
    (
        {"type": "string", "minLength": 2},
        "a",
        'spec.f: Invalid value: "a": spec.f in body should be at least 2 chars long',
    ),
    ({"type": "array", "items": STRING, "maxItems": 1}, ["a", "b"], "spec.f: Too many: 2: must have at most 1 items"),
    (
        {"type": "array", "items": STRING, "minItems": 1},
        [],
        "spec.f: Invalid value: 0: spec.f in body should have at least 1 items",
    ),
    ({"type": "object", "required": ["a"], "properties": {"a": STRING}}, {}, "spec.f.a: Required value"),
    (
        {"type": "string", "format": "date-time"},
        "noon",
        'spec.f: Invalid value: "noon": spec.f in body must be of type date-time: "noon"',
    ),
    (
        {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
        ["a", "a"],
        'spec.f[1]: Duplicate value: "a"',
    ),
    (
        {"x-kubernetes-int-or-string": True},
        True,
        'spec.f: Invalid value: "boolean": spec.f in body must be of type integer,string: "boolean"',
    ),
    ({"x-kubernetes-int-or-string": True}, "50%", None),
    ({"x-kubernetes-int-or-string": True}, 3, None),
    ({"type": "string", "nullable": True}, None, None),
    ({"type": "string"}, None, 'spec.f: Invalid value: "null": spec.f in body must be of type string: "null"'),
    (
        {"type": "integer", "oneOf": [{"minimum": 5}, {"multipleOf": 2}]},
        6,
        'spec.f: Invalid value: "": "spec.f" must validate one and only one schema (oneOf). Found 2 valid alternatives',
    ),
    (
        {"type": "integer", "anyOf": [{"minimum": 5}, {"multipleOf": 2}]},
        3,
        'spec.f: Invalid value: "": "spec.f" must validate at least one schema (anyOf)',
    ),
    (
        {"type": "integer", "not": {"minimum": 5}},
        6,
        'spec.f: Invalid value: "": "spec.f" must not validate the schema (not)',
    ),
    (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"a": "b"},
        'spec.f.a: Invalid value: "string": spec.f.a in body must be of type integer: "string"',
    ),
]


@pytest.mark.parametrize(("of_field", "value", "expected"), VALUES, ids=lambda value: str(value)[:40])
def test_values(of_field: Obj, value: Any, expected: str | None) -> None:
    kind = schema(f=of_field)
    assert structural.problems(kind.schema, AT) == []
    assert judged(kind, shirt(f=value)) == ([] if expected is None else [expected])


def test_patterns_take_linear_time() -> None:
    kind = schema(f={"type": "string", "pattern": "^(a+)+$"})
    (line,) = judged(kind, shirt(f="a" * 5000 + "b"))
    assert line.startswith("spec.f: Invalid value: ")


def test_map_lists_are_unique_by_their_keys() -> None:
    item = {"type": "object", "required": ["name"], "properties": {"name": STRING, "value": STRING}}
    kind = schema(
        env={"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    twice = shirt(env=[{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])
    assert judged(kind, twice) == ['spec.env[1]: Duplicate value: {"name":"a"}']


def test_unknown_fields_are_pruned_and_named() -> None:
    kind = schema(color=STRING, items={"type": "array", "items": of(a=STRING)})
    obj = {**shirt(color="blue", sice="XL", items=[{"a": "x", "b": "y"}]), "extra": 1}
    assert kind.take_in(copy.deepcopy(obj)) == [
        'unknown field "spec.sice"',
        'unknown field "spec.items[0].b"',
        'unknown field "extra"',
    ]
    with pytest.raises(errors.BadRequest, match=r'strict decoding error: unknown field "spec\.sice"'):
        kind.take_in(copy.deepcopy(obj), "Strict")
    kind.take_in(obj, "Ignore")
    assert obj == shirt(color="blue", items=[{"a": "x"}])


def test_what_is_to_be_preserved_is_preserved() -> None:
    kind = schema(
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"known": of(a=STRING)}},
        map={"type": "object", "additionalProperties": of(a=STRING)},
        template={
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
    )
    obj = shirt(
        free={"x": {"y": 1}, "known": {"a": "1", "b": "2"}},
        map={"k": {"a": "1", "b": "2"}},
        template={"kind": "Pod", "metadata": {"name": "x"}, "spec": {}},
    )
    assert kind.take_in(obj) == ['unknown field "spec.free.known.b"', 'unknown field "spec.map.k.b"']
    assert obj["spec"]["free"] == {"x": {"y": 1}, "known": {"a": "1"}}
    assert obj["spec"]["template"]["metadata"] == {"name": "x"}


def test_metadata_is_decoded_like_any_kinds() -> None:
    kind = schema(color=STRING)
    obj = {**shirt(color="x"), "metadata": {"name": "a", "nme": "b", "creationTimestamp": None}}
    assert kind.take_in(obj) == ['unknown field "metadata.nme"']
    assert obj["metadata"] == {"name": "a"}
    with pytest.raises(errors.BadRequest, match="cannot unmarshal number"):
        kind.take_in({**shirt(), "metadata": {"labels": {"a": 1}}})


def test_embedded_objects_have_metadata_whatever_their_schema_names_of_it() -> None:
    template = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "properties": {"metadata": of(name=STRING), "spec": of(a=STRING)},
    }
    kind = schema(template=template)
    inner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": "y", "nope": "z"},
        "spec": {"b": 1},
    }
    obj = shirt(template=inner)
    assert kind.take_in(obj) == [
        'unknown field "spec.template.metadata.nope"',
        'unknown field "spec.template.spec.b"',
    ]
    assert obj["spec"]["template"]["metadata"] == {"name": "x", "namespace": "y"}
    assert judged(kind, obj) == []


def test_defaults_are_filled_in_at_every_depth() -> None:
    inner = {"type": "object", "default": {}, "properties": {"size": {"type": "integer", "default": 3}}}
    kind = schema(
        inner=inner,
        list={"type": "array", "items": inner},
        nullable={"type": "string", "nullable": True, "default": "x"},
    )
    obj = shirt(list=[{}, {"size": 1}], nullable=None)
    kind.default(obj)
    assert obj["spec"] == {"inner": {"size": 3}, "list": [{"size": 3}, {"size": 1}], "nullable": None}
    obj = shirt(inner=None)
    kind.default(obj)
    assert obj["spec"]["inner"] == {"size": 3}


def test_without_a_schema_everything_is_kept() -> None:
    kind = CustomSchema(None, kind="Any", version="v1")
    obj = {**shirt(a=[{"b": 1}]), "more": {"c": None}}
    assert kind.take_in(obj, "Strict") == []
    assert kind.validate_create(obj) == []


def test_what_was_wrong_before_and_did_not_change_is_forgiven() -> None:
    kind = schema(color={"type": "string", "enum": ["red"]}, size={"type": "integer"})
    old = shirt(color="blue", size=1)
    assert judged(kind, shirt(color="blue", size=2), old) == []
    assert judged(kind, shirt(color="green", size=1), old) == [
        'spec.color: Unsupported value: "green": supported values: "red"'
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("ipv4", "10.0.0.1", "10.0.0.256"), ("ipv6", "::1", "1.2.3.4"), ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("uuid", "123e4567-e89b-42d3-a456-426614174000", "123"), ("date", "2026-02-28", "2026-02-30"),
        ("date-time", "2026-01-01T00:00:00Z", "2026-01-01"), ("duration", "1h30m", "soon"), ("byte", "aGk=", "a"),
        ("email", "a@b.c", "a"), ("hostname", "a.b", "-a"), ("mac", "00:00:5e:00:53:01", "00:00"),
        ("uri", "https://a/b", "a b"), ("hexcolor", "#fff", "#ff"), ("rgbcolor", "rgb(1,2,3)", "rgb(1,2,300)"),
        ("isbn10", "0-306-40615-2", "1"), ("k8s-short-name", "a-b", "A"), ("k8s-long-name", "a.b", "a_b"),
    ],
)  # fmt: skip
def test_formats(name: str, good: str, bad: str) -> None:
    assert FORMATS[name](good)
    assert not FORMATS[name](bad)


NOT_STRUCTURAL = [
    ({"properties": {}}, f"{AT}.type: Required value: must not be empty at the root"),
    (of(a={}), f"{AT}.properties[a].type: Required value: must not be empty for specified object fields"),
    (of(a={"type": "text"}), f'{AT}.properties[a].type: Unsupported value: "text": supported values: "array"'),
    (of(a={"type": "array"}), f"{AT}.properties[a].items: Required value: must be specified"),
    (
        of(a={"type": "object", "properties": {"b": STRING}, "additionalProperties": STRING}),
        "additionalProperties and properties are mutual exclusive",
    ),
    (
        of(a={"type": "string", "x-kubernetes-int-or-string": True}),
        "must be empty if x-kubernetes-int-or-string is true",
    ),
    (of(a={"type": "string", "uniqueItems": True}), "uniqueItems cannot be set to true"),
    (of(a={"$ref": "#/x", "type": "object"}), "$ref: Forbidden"),
    (
        of(a={"type": "array", "items": STRING, "x-kubernetes-list-type": "map"}),
        "x-kubernetes-list-map-keys: Required value",
    ),
    (
        of(
            a={
                "type": "array",
                "items": of(k=STRING),
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
            }
        ),
        "must have a default or be a required property",
    ),
    (
        {**of(a=STRING), "anyOf": [{"properties": {"b": {"minLength": 1}}}]},
        f"{AT}.properties[b]: Required value: because it is defined in {AT}.anyOf[0].properties[b]",
    ),
    (
        {**of(a=STRING), "allOf": [{"properties": {"a": {"type": "string"}}}]},
        "type: Forbidden: must be empty to be structural",
    ),
    (
        of(metadata={"type": "object", "properties": {"labels": {"type": "object"}}}),
        "must not specify anything other than name and generateName",
    ),
    (of(a={"type": "string", "pattern": "("}), "must be a valid regular expression"),
]


@pytest.mark.parametrize(("bad", "expected"), NOT_STRUCTURAL, ids=lambda value: str(value)[:50])
def test_schemas_that_are_not_structural(bad: Obj, expected: str) -> None:
    found = [f"{cause.field}: {cause.message}" for cause in structural.problems(bad, AT)]
    assert any(expected in line for line in found), found


def test_a_schema_nested_without_end_is_refused() -> None:
    deep: Obj = STRING
    for _ in range(200):
        deep = of(a=deep)
    assert any("nested deeper" in cause.message for cause in structural.problems(deep, AT))


def definition(**changes: Any) -> Obj:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": of(spec=of(color=STRING, size=STRING))},
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
        **changes.pop("version", {}),
    }
    spec = {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {"plural": "shirts", "singular": "shirt", "kind": "Shirt"},
        "versions": [version],
        **changes,
    }
    return {"metadata": {"name": "shirts.stable.example.com"}, "spec": spec}


def judged_definition(obj: Obj) -> list[str]:
    kind = kinds.CUSTOM_RESOURCE_DEFINITION
    intake.take_in(kind, obj, "Strict")
    defaults.apply_defaults(kind, obj)
    return [f"{cause.field}: {cause.message}" for cause in validate.validate_create(kind, obj)]


def test_a_definition_is_completed_and_accepted() -> None:
    obj = definition()
    assert judged_definition(obj) == []
    assert obj["spec"]["names"]["listKind"] == "ShirtList"
    assert obj["spec"]["conversion"] == {"strategy": "None"}


DEFINITIONS = [
    (definition(group="nodots"), 'spec.group: Invalid value: "nodots": should be a domain with at least one dot'),
    (definition(scope="World"), 'spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"'),
    (
        definition(names={"plural": "socks", "kind": "Sock"}),
        'metadata.name: Invalid value: "shirts.stable.example.com": must be spec.names.plural+"."+spec.group',
    ),
    (
        definition(version={"storage": False}),
        'spec.versions: Invalid value: ["v1"]: must have exactly one version marked as storage version',
    ),
    (
        definition(version={"schema": {}}),
        "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
    ),
    (
        definition(version={"selectableFields": [{"jsonPath": ".spec.weight"}]}),
        "selectableFields[0].jsonPath: Invalid value",
    ),
    (definition(version={"name": "V1"}), 'spec.versions[0].name: Invalid value: "V1": a DNS-1035 label'),
    (
        definition(
            version={"schema": {"openAPIV3Schema": of(a={"type": "integer", "default": "x"})}, "selectableFields": []}
        ),
        "properties[a].default: Invalid value",
    ),
    (
        definition(
            version={
                "schema": {"openAPIV3Schema": {**of(a=STRING), "x-kubernetes-validations": [{"rule": "self.a ="}]}},
                "selectableFields": [],
            }
        ),
        'x-kubernetes-validations[0].rule: Invalid value: "self.a =": compilation failed',
    ),
    (definition(conversion={"strategy": "Webhook"}), "spec.conversion.webhook.clientConfig: Required value"),
]


@pytest.mark.parametrize(("obj", "expected"), DEFINITIONS, ids=lambda value: str(value)[:50])
def test_definitions_that_are_refused(obj: Obj, expected: str) -> None:
    found = judged_definition(copy.deepcopy(obj))
    assert any(expected in line for line in found), found


def test_what_objects_are_known_by_stays() -> None:
    kind = kinds.CUSTOM_RESOURCE_DEFINITION
    old = defaults.apply_defaults(kind, definition())
    new = copy.deepcopy(old)
    new["spec"]["scope"] = "Cluster"
    new["spec"]["versions"][0]["name"] = "v2"
    fields = [cause.field for cause in validate.validate_update(kind, new, old)]
    assert fields == ["spec.scope", "status.storedVersions[0]"]
