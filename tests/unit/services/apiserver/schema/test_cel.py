"""CEL rules of custom resources, and Kubernetes' functions in CEL."""

from __future__ import annotations

from typing import Any

import pytest

from machinery import cel
from services.apiserver.schema import rules_check
from services.apiserver.schema.custom import CustomSchema

Obj = dict[str, Any]

TRUE = [
    "self.items.isSorted()",
    "self.items.sum() == 6 && self.items.min() == 1 && self.items.max() == 3",
    "self.items.all(x, x > 0) && self.items.exists_one(x, x == 2)",
    "sets.contains(self.items, [1, 3]) && !sets.intersects(self.items, [9])",
    "sets.equivalent([1, 2, 2], [2, 1])",
    "'abc 123'.find('[0-9]+') == '123'",
    "'1a2b'.findAll('[0-9]') == ['1', '2'] && '1a2b'.findAll('[0-9]', 1) == ['1']",
    "url('https://u@example.com:443/a?k=v').getHost() == 'example.com:443'",
    "url('https://[::1]:80/').getHostname() == '::1' && url('https://a/b').getPort() == ''",
    "isURL('/path') && !isURL('no')",
    "url('https://a/?k=v').getQuery()['k'] == ['v']",
    "ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('300.0.0.1')",
    "ip.isCanonical('::1') && !ip.isCanonical('0:0::1')",
    "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
    "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8",
    "quantity('1Gi') == quantity('1024Mi') && quantity('500m').isLessThan(quantity('1'))",
    "quantity('1').add(quantity('500m')).sub(1).compareTo(quantity('0.5')) == 0",
    "quantity('10').isInteger() && quantity('10').asInteger() == 10 && quantity('-1').sign() == -1",
    "isQuantity('1k') && !isQuantity('1x')",
    "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))",
    "semver('v1.2', true).minor() == 2 && !isSemver('1.2')",
    "self.?missing.orValue('x') == 'x' && !self.?missing.hasValue()",
    "has(self.name) && self.name.lowerAscii() == 'web'",
    "'a,b'.split(',').size() == 2 && ['a', 'b'].join('-') == 'a-b'",
    "duration('90m') > duration('1h') && timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')",
    "math.greatest(1, 5) == 5",
    "cel.bind(n, self.items.size(), n == 3 && n < 10)",
    "cidr('10.0.0.0/8').ip() == ip('10.0.0.0')",
    "[3, 1, 3].distinct() == [3, 1] && [3, 1].sort() == [1, 3] && ['b', 'a'].sort() == ['a', 'b']",
    "[1, 2, 3].slice(1, 3) == [2, 3] && [[1], [2, [3]]].flatten() == [1, 2, [3]] && lists.range(3) == [0, 1, 2]",
    "[[1], [2, [3]]].flatten(2) == [1, 2, 3]",
]


@pytest.mark.parametrize("source", TRUE)
def test_functions(source: str) -> None:
    value = {"self": {"items": [1, 2, 3], "name": "Web"}, "oldSelf": None}
    assert cel.compile(source).evaluate(value) is True


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("self.nope.x", "no such key: nope"),
        ("quantity('x')", "not a quantity"),
        ("ip('x')", "parse error"),
        ("1 / 0", "divide by zero"),
        ("[].min()", "min called on empty list"),
    ],
)
def test_evaluations_that_fail_say_why(source: str, error: str) -> None:
    with pytest.raises(cel.CelError, match=error):
        cel.compile(source).evaluate({"self": {}, "oldSelf": None})


@pytest.mark.parametrize("source", ["self.", "unknown(1)", "other.x", "x" * 20_000, "1 + 'a'"])
def test_expressions_that_do_not_compile(source: str) -> None:
    with pytest.raises(cel.CelError):
        cel.compile(source)


def kind(spec: Obj, *rules: Obj) -> CustomSchema:
    whole = {"type": "object", "properties": spec, "x-kubernetes-validations": list(rules)}
    return CustomSchema({"type": "object", "properties": {"spec": whole}}, kind="Shirt", version="v1")


INTEGER: Obj = {"type": "integer"}
RANGE: Obj = {"min": INTEGER, "max": INTEGER}


def judged(of_kind: CustomSchema, spec: Obj, old: Obj | None = None) -> list[tuple[str, str, str]]:
    new = {"metadata": {"name": "a"}, "spec": spec}
    found = (
        of_kind.validate_create(new)
        if old is None
        else of_kind.validate_update(new, {"metadata": {"name": "a"}, "spec": old})
    )
    return [(cause.reason, cause.field, cause.message) for cause in found]


def test_a_failed_rule_says_its_message() -> None:
    of_kind = kind(RANGE, {"rule": "self.min <= self.max", "message": "min must not exceed max"})
    assert judged(of_kind, {"min": 1, "max": 2}) == []
    assert judged(of_kind, {"min": 3, "max": 2}) == [
        ("FieldValueInvalid", "spec", 'Invalid value: "object": min must not exceed max')
    ]


def test_without_a_message_the_rule_itself_is_shown_and_an_expression_can_word_one() -> None:
    plain = kind(RANGE, {"rule": "self.min <= self.max"})
    assert judged(plain, {"min": 3, "max": 2})[0][2] == 'Invalid value: "object": failed rule: self.min <= self.max'
    worded = kind(
        RANGE, {"rule": "self.min <= self.max", "messageExpression": "'min is ' + string(self.min)", "message": "m"}
    )
    assert judged(worded, {"min": 3, "max": 2})[0][2] == 'Invalid value: "object": min is 3'


def test_reason_and_field_path() -> None:
    rule = {"rule": "self.min <= self.max", "message": "no", "reason": "FieldValueForbidden", "fieldPath": ".min"}
    assert judged(kind(RANGE, rule), {"min": 3, "max": 2}) == [("FieldValueForbidden", "spec.min", "Forbidden: no")]


def test_transition_rules_apply_to_changes_alone() -> None:
    of_kind = kind(RANGE, {"rule": "self.max >= oldSelf.max", "message": "max may not shrink"})
    assert judged(of_kind, {"max": 1}) == []
    assert judged(of_kind, {"max": 2}, {"max": 1}) == []
    assert judged(of_kind, {"max": 1}, {"max": 2})[0][2] == 'Invalid value: "object": max may not shrink'


def test_an_optional_old_self_is_judged_on_creation_too() -> None:
    rule = {"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": True, "message": "must start at 0"}
    of_kind = kind(RANGE, rule)
    assert judged(of_kind, {"min": 1})[0][2] == 'Invalid value: "object": must start at 0'
    assert judged(of_kind, {"min": 1}, {"min": 0}) == []


def test_what_did_not_change_is_not_judged_again() -> None:
    of_kind = kind({**RANGE, "note": {"type": "string"}}, {"rule": "self.min <= self.max"})
    assert judged(of_kind, {"min": 3, "max": 2}, {"min": 3, "max": 2}) == []
    assert judged(of_kind, {"min": 4, "max": 2}, {"min": 3, "max": 2}) != []


def test_rules_on_items_of_map_lists_see_what_the_item_was() -> None:
    item = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "size": INTEGER},
        "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "shrunk"}],
    }
    items = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    of_kind = kind({"disks": items})
    old = {"disks": [{"name": "a", "size": 5}, {"name": "b", "size": 5}]}
    new = {"disks": [{"name": "b", "size": 4}, {"name": "c", "size": 1}]}
    assert judged(of_kind, new, old) == [("FieldValueInvalid", "spec.disks[0]", 'Invalid value: "object": shrunk')]


def test_typed_fields_and_escaped_names() -> None:
    spec: Obj = {
        "at": {"type": "string", "format": "date-time"},
        "for": {"type": "string", "format": "duration"},
        "a-b": INTEGER,
        "in": INTEGER,
        "ratio": {"type": "number"},
    }
    rules = [
        {"rule": "self.at > timestamp('2026-01-01T00:00:00Z')"},
        {"rule": "self.__for__ < duration('1h')"},
        {"rule": "self.a__dash__b == self.__in__"},
        {"rule": "self.ratio + 0.5 == 1.5"},
    ]
    assert judged(kind(spec, *rules), {"at": "2026-06-01T00:00:00Z", "for": "5m", "a-b": 1, "in": 1, "ratio": 1}) == []


def test_an_evaluation_that_fails_is_a_cause_with_the_rule() -> None:
    found = judged(kind(RANGE, {"rule": "self.min > 0"}), {})
    assert found == [
        ("FieldValueInvalid", "spec", 'Invalid value: "object": no such key: min evaluating rule: self.min > 0')
    ]


def test_rules_that_could_cost_too_much_are_refused_when_written() -> None:
    lists = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
    rule = {"rule": "self.a.all(x, x.all(y, self.a.exists(z, z.size() > 1)))"}
    unbounded = {"type": "object", "properties": {"a": lists}, "x-kubernetes-validations": [rule]}
    first, share, whole = rules_check.problems(unbounded, "s")
    hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and"
    assert first.field == share.field == "s.x-kubernetes-validations[0].rule"
    assert first.message.startswith(f"Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}")
    assert share.message == (
        "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    )
    assert whole.field == "s"
    assert whole.message.startswith(
        "Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by"
    )
    few = {**lists, "maxItems": 5, "items": {**lists["items"], "maxItems": 5}}
    assert rules_check.problems({**unbounded, "properties": {"a": few}}, "s") == []


def test_old_self_needs_something_to_be_the_same_as() -> None:
    item = {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}
    (cause,) = rules_check.problems({"type": "object", "properties": {"l": {"type": "array", "items": item}}}, "s")
    assert "oldSelf cannot be used on the uncorrelatable portion" in cause.message


SPEC = {
    "type": "object",
    "properties": {
        "x": INTEGER,
        "a-b": INTEGER,
        "n": {"type": "number"},
        "s": {"type": "string"},
        "namespace": {"type": "string"},
        "any": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "many": {"type": "array", "items": {"type": "object", "properties": {"p": INTEGER}}},
        "pairs": {"type": "array", "items": {"type": "array", "items": INTEGER}},
        "by": {"type": "object", "additionalProperties": {"type": "string"}},
        "since": {"type": "string", "format": "date-time"},
    },
}


def complaints(text: str, **more: Any) -> list[str]:
    whole = {**SPEC, "x-kubernetes-validations": [{"rule": text, **more}]}
    found = rules_check.problems({"type": "object", "properties": {"spec": whole}}, "s")
    return [cause.message for cause in found if "estimated rule cost" not in cause.message]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("self.z == 100", "ERROR: <input>:1:5: undefined field 'z'\n | self.z == 100\n | ....^"),
        ("self.free.any.thing == 1", "undefined field 'any'"),
        ("self.many.all(m, m.q == 1)", "undefined field 'q'"),
        ("self.x == self.s", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.many.all(m, m.p == 'a')", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.s.matches('a') && self.x", "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("self.since > 'a'", "found no matching overload"),
        ("self.by['a'] == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.x", "cel expression must evaluate to a bool"),
        ("self = 42", "Syntax error"),
    ],
)
def test_rules_that_can_not_be_meant_are_refused(text: str, why: str) -> None:
    assert why in complaints(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        "self.x > 0", "self.a__dash__b > 0", "'self.z' == 'a'", "self.x in [1] || has(self.x)", "has(self.free)",
        "self.n > 1 && self.x < 2.5", "type(self.any) == int ? self.any > 3 : self.any.contains('x')",
        "self.namespace == self.__namespace__", "self.pairs.all(p, p.all(i, i > 0))",
        "self.by.all(k, self.by[k] != '')",
        "self.since > timestamp('2020-01-01T00:00:00Z')", "self == oldSelf", "self.?s.orValue('') == ''",
    ],
)  # fmt: skip
def test_rules_that_can_be_meant_are_taken(text: str) -> None:
    assert complaints(text) == []


def test_an_optional_old_self_is_asked_for_its_value() -> None:
    assert complaints("!oldSelf.hasValue() || oldSelf.value().x <= self.x", optionalOldSelf=True) == []


def test_the_root_knows_its_identity() -> None:
    root = {
        "type": "object",
        "properties": {},
        "x-kubernetes-validations": [{"rule": "self.metadata.name.size() < 9 && self.kind != ''"}],
    }
    assert rules_check.problems(root, "s") == []


def test_a_rule_inside_unbounded_lists_of_lists_exceeds_the_budget() -> None:
    inner = {
        "type": "array",
        "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(s, s == 'constant')"}],
    }
    cause, *_ = rules_check.problems({"type": "object", "properties": {"x": {"type": "array", "items": inner}}}, "s")
    assert "estimated rule cost exceeds budget" in cause.message


def rule(schema: Obj, *rules: Obj) -> Obj:
    return {**schema, "x-kubernetes-validations": list(rules)}


def problems_at_root(properties: Obj) -> list[str]:
    found = rules_check.problems(
        {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}, "s"
    )
    return [f"{cause.field}: {cause.message}" for cause in found]


def test_rules_that_are_cheap_one_by_one_may_be_too_many() -> None:
    texts = {"type": "array", "items": {"type": "string"}}
    costly = rule(texts, {"rule": "self.all(x, x.size() < 3)"})
    assert problems_at_root({f"l{number}": costly for number in range(15)}) == []
    found = problems_at_root({f"l{number:02}": costly for number in range(16)})
    assert len(found) == 5
    assert found[0].startswith("s.properties[spec].properties[l00].x-kubernetes-validations[0].rule: Forbidden: contr")
    assert "entire OpenAPIv3 schema exceeds budget by factor of 1.006632x (try" in found[-1]


def test_rules_as_widely_used_definitions_have_them_are_taken() -> None:
    name = {"type": "string", "maxLength": 253, "minLength": 1}
    reference = {
        "type": "object",
        "properties": {"group": name, "kind": name, "namespace": name, "name": name, "sectionName": name},
    }
    unique = (
        "self.all(p1, self.exists_one(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && "
        "(((!has(p1.__namespace__) || p1.__namespace__ == '') && "
        "(!has(p2.__namespace__) || p2.__namespace__ == '')) || "
        "(has(p1.__namespace__) && has(p2.__namespace__) && p1.__namespace__ == p2.__namespace__)) && "
        "(has(p1.sectionName) ? has(p2.sectionName) && p1.sectionName == p2.sectionName : !has(p2.sectionName))))"
    )
    listeners = {
        "type": "array", "maxItems": 64, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name", "port", "protocol"], "properties": {
            "name": name, "port": {"type": "integer"}, "protocol": {**name, "maxLength": 255},
            "hostname": name, "tls": {"type": "object", "properties": {"mode": {"type": "string", "enum": ["A", "B"]}}},
        }},
    }  # fmt: skip
    distinct = (
        "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && "
        "has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))"
    )
    assert problems_at_root({
        "parentRefs": rule({"type": "array", "maxItems": 32, "items": reference}, {"rule": unique}),
        "listeners": rule(
            listeners,
            {"rule": "self.all(l, !(l.protocol in ['HTTP', 'TCP']) || !has(l.tls))"}, {"rule": distinct},
        ),
        "dnsNames": rule(
            {"type": "array", "maxItems": 100, "items": name},
            {"rule": "self.all(n, n.split('.').all(p, p.size() < 64))"},
        ),
        "classRef": rule(reference, {"rule": "self == oldSelf", "message": "is immutable"}),
        "size": rule(
            {"x-kubernetes-int-or-string": True, "maxLength": 20},
            {"rule": "type(self) == string ? isQuantity(self) : self > 0"},
        ),
    }) == []  # fmt: skip


def test_texts_of_rules_are_well_formed() -> None:
    number = {"type": "integer"}
    for given, said in (
        ({"rule": " "}, "rule: Required value: rule is not specified"),
        ({"rule": "true", "message": " "}, 'message: Invalid value: " ": must be non-empty if specified'),
        ({"rule": "true", "message": "a\nb"}, "must not contain line breaks"),
        ({"rule": "true &&\nfalse"}, "message: Required value: message must be specified if rule contains line breaks"),
        (
            {"rule": "true", "reason": "Why"},
            'reason: Unsupported value: "Why": supported values: "FieldValueDuplicate"',
        ),
        ({"rule": "true", "optionalOldSelf": True}, "may not be set if oldSelf is not used in rule"),
        ({"rule": "1"}, "cel expression must evaluate to a bool"),
        ({"rule": "true", "messageExpression": "1"}, "messageExpression must evaluate to a string"),
    ):
        assert said in "; ".join(problems_at_root({"n": rule(number, given)}))


def test_rules_that_cost_too_much_together_end_an_objects_judgement() -> None:
    within = {"type": "array", "maxItems": 400, "items": {"type": "string", "maxLength": 1000}}
    searched = {"rule": "self.all(x, !x.matches('" + "a" * 40 + "'))"}
    of_kind = kind({f"l{number:02}": rule(within, searched) for number in range(30)})
    found = judged(of_kind, {f"l{number:02}": ["b" * 1000] * 400 for number in range(30)})
    assert len(found) == 1
    assert "validation failed due to running out of cost budget, no further validation rules will be run" in found[0][2]
    assert judged(of_kind, {f"l{number:02}": ["b" * 1000] * 400 for number in range(20)}) == []


def test_an_object_over_which_a_rule_would_take_too_long_is_refused() -> None:
    rule = {"rule": "self.all(x, self.all(y, x == y))"}
    large = {"type": "array", "maxItems": 725, "items": INTEGER, "x-kubernetes-validations": [rule]}
    of_kind = kind({"large": large})
    assert judged(of_kind, {"large": [20] * 10}) == []
    ((_, field, message),) = judged(of_kind, {"large": [20] * 725})
    assert field == "spec.large"
    assert "call cost exceeds limit" in message


def test_a_messages_expression_costs_no_more_than_a_rule_may() -> None:
    long = "string(size(lists.range(2000).map(i, lists.range(600))))"
    of_kind = kind(RANGE, {"rule": "self.min <= self.max", "messageExpression": long, "message": "m"})
    assert judged(of_kind, {"min": 3, "max": 2}) == [("FieldValueInvalid", "spec", 'Invalid value: "object": m')]
