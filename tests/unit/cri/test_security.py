"""Capabilities, seccomp, accounts, sysctl names: the decisions that isolate."""

import pytest
from cri_api.v1 import api_pb2 as cri
from hypothesis import given
from hypothesis import strategies as st

from cri import accounts, namespaces, oci_security, seccomp
from cri.errors import CriError, InvalidArgument, NotFound
from cri.oci_security import Profile

KINDS = cri.SecurityProfile.ProfileType


def _caps(**fields: list[str]) -> cri.LinuxContainerSecurityContext:
    return cri.LinuxContainerSecurityContext(capabilities=cri.Capability(**fields))


def _sets(**fields: list[str]) -> set[str]:
    return set(oci_security.capabilities(_caps(**fields), oci_security.ALL)["effective"])


def test_capabilities_start_from_the_default() -> None:
    assert _sets() == set(oci_security.DEFAULT)
    assert _sets(add_capabilities=["net_admin"]) == set(oci_security.DEFAULT) | {"CAP_NET_ADMIN"}
    assert _sets(drop_capabilities=["CAP_CHOWN"]) == set(oci_security.DEFAULT) - {"CAP_CHOWN"}
    assert _sets(drop_capabilities=["ALL"]) == set()
    assert _sets(drop_capabilities=["ALL"], add_capabilities=["KILL"]) == {"CAP_KILL"}
    assert _sets(add_capabilities=["ALL"]) == set(oci_security.ALL)
    assert _sets(add_capabilities=["ALL"], drop_capabilities=["KILL"]) == set(oci_security.ALL) - {"CAP_KILL"}


def test_only_ambient_capabilities_are_inheritable() -> None:
    sets = oci_security.capabilities(_caps(add_ambient_capabilities=["NET_ADMIN"]), oci_security.ALL)
    assert sets["ambient"] == sets["inheritable"] == ["CAP_NET_ADMIN"]
    assert "inheritable" not in oci_security.capabilities(_caps(), oci_security.ALL)


def test_a_mask_names_its_bits() -> None:
    assert oci_security.from_mask(0b1000000000001) == ("CAP_CHOWN", "CAP_NET_ADMIN")


@pytest.mark.parametrize(
    ("context", "unset", "expected"),
    [
        (cri.LinuxContainerSecurityContext(), "", Profile("unconfined")),
        (cri.LinuxContainerSecurityContext(), "RuntimeDefault", Profile("default")),
        (
            cri.LinuxContainerSecurityContext(seccomp=cri.SecurityProfile(profile_type=KINDS.RuntimeDefault)),
            "",
            Profile("default"),
        ),
        (
            cri.LinuxContainerSecurityContext(seccomp=cri.SecurityProfile(profile_type=KINDS.Unconfined)),
            "RuntimeDefault",
            Profile("unconfined"),
        ),
        (
            cri.LinuxContainerSecurityContext(
                seccomp=cri.SecurityProfile(profile_type=KINDS.Localhost, localhost_ref="/p")
            ),
            "",
            Profile("localhost", "/p"),
        ),
        (cri.LinuxContainerSecurityContext(seccomp_profile_path="runtime/default"), "", Profile("default")),
        (cri.LinuxContainerSecurityContext(seccomp_profile_path="localhost//p"), "", Profile("localhost", "/p")),
        (cri.LinuxContainerSecurityContext(privileged=True), "RuntimeDefault", Profile("unconfined")),
    ],
)
def test_the_seccomp_profile_that_applies(
    context: cri.LinuxContainerSecurityContext, unset: str, expected: Profile
) -> None:
    assert oci_security.seccomp_profile(context, unset) == expected


def test_the_default_profile_opens_with_capabilities() -> None:
    def allowed(caps: list[str]) -> set[str]:
        rules = seccomp.default_profile(caps, "amd64")["syscalls"]
        return {
            name
            for rule in rules
            if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
            for name in rule["names"]
        }

    plain = allowed([])
    assert {"read", "execve", "arch_prctl", "openat2"} <= plain
    assert (
        not {"mount", "unshare", "keyctl", "add_key", "bpf", "kexec_load", "init_module", "clone3", "userfaultfd"}
        & plain
    )
    assert {"mount", "unshare", "clone", "clone3"} <= allowed(["CAP_SYS_ADMIN"])
    assert "init_module" in allowed(["CAP_SYS_MODULE"])


def test_a_profile_in_dockers_form_is_read() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"name": "write", "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        ],
    }
    result = seccomp.from_document(document, [], "amd64")
    assert result["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"] for rule in result["syscalls"]] == [["read"]]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"defaultAction":"x","syscalls":[{}]}'])
def test_a_profile_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        oci_security.seccomp_spec(Profile("localhost", "/p"), text, [], "amd64")


ACCOUNTS = accounts.parse(
    "root:x:0:0::/:\nalice:x:1000:1000::/:\n#no:x:5:5::/:\nbroken\nbad:x:nan:1::/:\n",
    "root:x:0:\nstaff:x:50:alice,bob\nempty:x:51:\n",
)


@pytest.mark.parametrize(
    ("image_user", "expected"),
    [
        ("", (0, 0, (0,))),
        ("alice", (1000, 1000, (1000, 50))),
        ("1000", (1000, 1000, (1000, 50))),
        ("1000:7", (1000, 7, (7, 50))),
        ("alice:staff", (1000, 50, (50,))),
        ("4242", (4242, 0, (0,))),
    ],
)
def test_the_images_user(image_user: str, expected: tuple[int, int, tuple[int, ...]]) -> None:
    user = accounts.resolve(cri.LinuxContainerSecurityContext(), image_user, ACCOUNTS)
    assert (user.uid, user.gid, user.groups) == expected


def test_the_request_goes_before_the_image() -> None:
    context = cri.LinuxContainerSecurityContext(
        run_as_user=cri.Int64Value(value=1000), run_as_group=cri.Int64Value(value=7), supplemental_groups=[8]
    )
    assert accounts.resolve(context, "root", ACCOUNTS).groups == (7, 50, 8)
    context.supplemental_groups_policy = cri.Strict
    assert accounts.resolve(context, "root", ACCOUNTS).groups == (7, 8)


def test_unknown_names_are_told() -> None:
    with pytest.raises(NotFound, match="mallory"):
        accounts.resolve(cri.LinuxContainerSecurityContext(run_as_username="mallory"), "", ACCOUNTS)
    with pytest.raises(NotFound, match="nogroup"):
        accounts.resolve(cri.LinuxContainerSecurityContext(), "alice:nogroup", ACCOUNTS)


@given(st.integers())
def test_no_user_id_is_ever_out_of_bounds(number: int) -> None:
    try:
        user = accounts.resolve(cri.LinuxContainerSecurityContext(), str(number), ACCOUNTS)
    except CriError:
        assert not 0 <= number <= accounts.ID_MAX
    else:
        assert user.uid == number
        assert 0 <= number <= accounts.ID_MAX


@given(st.text(), st.text())
def test_any_passwd_file_can_be_read(passwd: str, group: str) -> None:
    accounts.parse(passwd, group)


def test_sysctls_belong_to_a_namespace_or_to_the_node() -> None:
    assert namespaces.sysctl_namespace("net.ipv4.ip_forward") == "net"
    assert namespaces.sysctl_namespace("kernel.shmmax") == "ipc"
    assert namespaces.sysctl_namespace("fs.mqueue.msg_max") == "ipc"
    assert namespaces.sysctl_namespace("kernel.core_pattern") == ""
    assert namespaces._sysctl_path("net.ipv4.conf.all.rp_filter") == "/proc/sys/net/ipv4/conf/all/rp_filter"
    assert namespaces._sysctl_path("net/ipv4/conf/eth0.1/rp_filter") == "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
    with pytest.raises(ValueError):
        namespaces._sysctl_path("net/../kernel/core_pattern")


def test_the_apparmor_profile_that_applies() -> None:
    def profile(kind: int | None, reference: str = "", *, enabled: bool = True, privileged: bool = False) -> str:
        context = cri.LinuxContainerSecurityContext(privileged=privileged)
        if kind is not None:
            context.apparmor.CopyFrom(cri.SecurityProfile(profile_type=kind, localhost_ref=reference))
        return oci_security.apparmor_profile(context, enabled, "default-name" if enabled else "")

    assert profile(None) == profile(KINDS.RuntimeDefault) == "default-name"
    assert profile(KINDS.Unconfined) == profile(None, privileged=True) == ""
    assert profile(KINDS.Localhost, "mine") == "mine"
    assert profile(None, enabled=False) == ""
    with pytest.raises(InvalidArgument, match="no AppArmor"):
        profile(KINDS.Localhost, "mine", enabled=False)
