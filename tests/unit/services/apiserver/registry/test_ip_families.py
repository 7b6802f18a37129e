"""What a cluster with IPv4 addresses answers to those who ask for another family: upstream's words."""

import pytest

from services.apiserver.registry.ip_families import settle

NOT_HERE = "not configured on this cluster"
WEB = {"selector": {"app": "web"}}


def judged(spec, old=None):
    wrong = settle(spec, old or {}, "IPv4")
    return [(cause.field, cause.message.rpartition(": ")[2]) for cause in wrong]


@pytest.mark.parametrize(
    ("asked", "policy", "families"),
    [
        ({**WEB}, "SingleStack", ["IPv4"]),
        ({**WEB, "ipFamilies": ["IPv4"]}, "SingleStack", ["IPv4"]),
        # Welcome where there are two, and no fault where there is one.
        ({**WEB, "ipFamilyPolicy": "PreferDualStack"}, "PreferDualStack", ["IPv4"]),
        ({**WEB, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]}, "SingleStack", ["IPv4"]),
        ({**WEB, "clusterIPs": ["None"]}, "SingleStack", ["IPv4"]),
        # Without a selector nobody knows what the endpoints will be.
        ({"clusterIPs": ["None"]}, "RequireDualStack", ["IPv4", "IPv6"]),
        ({"clusterIPs": ["None"], "ipFamilies": ["IPv6"]}, "RequireDualStack", ["IPv6", "IPv4"]),
        ({"clusterIPs": ["None"], "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}, "SingleStack", ["IPv6"]),
    ],
)
def test_what_is_left_out_is_filled_in(asked, policy, families):
    assert judged(asked) == []
    assert (asked["ipFamilyPolicy"], asked["ipFamilies"]) == (policy, families)


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"ipFamilies": ["IPv6"]}, [("spec.ipFamilies[0]", NOT_HERE)]),
        ({"ipFamilies": ["IPv6"], "clusterIPs": ["None"]}, [("spec.ipFamilies[0]", NOT_HERE)]),
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            [("spec.ipFamilyPolicy", "this cluster is not configured for dual-stack services")],
        ),
        ({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}, [("spec.ipFamilies[1]", NOT_HERE)]),
        (
            {"ipFamilies": ["IPv4", "IPv6"]},
            [
                (
                    "spec.ipFamilyPolicy",
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
                )
            ],
        ),
        (
            {"clusterIPs": ["10.96.0.7", "fd00::7"], "ipFamilyPolicy": "PreferDualStack"},
            [("spec.clusterIPs[1]", "IPv6 is not configured on this cluster")],
        ),
        ({"clusterIPs": ["fd00::7"]}, [("spec.clusterIPs[0]", "IPv6 is not configured on this cluster")]),
        (
            {"clusterIPs": ["fd00::7"], "ipFamilies": ["IPv4"]},
            [("spec.clusterIPs[0]", "expected an IPv4 value as indicated by `ipFamilies[0]`")],
        ),
        (
            {"clusterIPs": ["10.96.0.7", "10.96.0.8"], "ipFamilyPolicy": "PreferDualStack"},
            [("spec.clusterIPs", "may specify no more than one IP for each IP family")],
        ),
        ({"clusterIPs": ["None", "10.96.0.8"]}, [("spec.clusterIPs", "'None' must be the first and only value")]),
    ],
)
def test_another_family_is_refused_by_its_field(asked, wrong):
    assert judged({**WEB, **asked}) == wrong


def test_an_update_lets_the_second_family_go_only_when_it_says_so():
    old = {"clusterIPs": ["None"], "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}
    fewer = {**old, "ipFamilies": ["IPv4"]}
    assert judged(fewer, old) == [("spec.ipFamilyPolicy", "must be 'SingleStack' to release the secondary IP family")]
    single = {**old, "ipFamilyPolicy": "SingleStack"}
    assert judged(single, old) == []
    assert single["ipFamilies"] == ["IPv4"]
    # The Service gets a selector: now it asks for what is not there.
    assert judged({**old, **WEB}, old)[0] == (
        "spec.ipFamilyPolicy",
        "this cluster is not configured for dual-stack services",
    )
