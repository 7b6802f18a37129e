"""Configuration, records, names, CNI documents, signals, the pause program, image building."""

import os
import struct
import tarfile
from pathlib import Path

import pytest
from cri_api.v1 import api_pb2 as cri

from cri import cni, config, container_io, container_stop, pause, records, state
from cri.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from cri.images.build import build
from cri.images.platform import choose
from cri.images.unpack import chain_ids
from cri.records import StatusRecord


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("socket: 7", "socket"),
        ("sockt: /x", "sockt"),
        ("cni: {confdir: /x}", "confdir"),
        ("socket: relative", "not an absolute path"),
        (": :\n- [", "not YAML"),
    ],
)
def test_a_wrong_configuration_names_its_field(text: str, message: str) -> None:
    with pytest.raises(config.ConfigError, match=message):
        config.parse(text)


def test_an_empty_configuration_is_the_default() -> None:
    assert config.parse("") == config.Config()


def test_a_record_is_replaced_whole_and_a_broken_one_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    records.write(path, records.encode(StatusRecord(exit_code=3)))
    assert records.read(path, StatusRecord) == StatusRecord(exit_code=3)
    assert path.stat().st_mode & 0o777 == 0o600
    for broken in (b"", b"{", b'{"exit_code": "x"}'):
        path.write_bytes(broken)
        assert records.read(path, StatusRecord) is None
    assert os.listdir(tmp_path) == ["status.json"]


class Item:
    def __init__(self, item_id: str) -> None:
        self.id = item_id


def test_an_index_finds_by_beginning_and_keeps_names_apart() -> None:
    index: state.Index[Item] = state.Index("thing")
    index.add(Item("abc1"))
    index.add(Item("abd2"))
    index.reserve("name", "abc1")
    index.reserve("name", "abc1")
    with pytest.raises(AlreadyExists, match="reserved for abc1"):
        index.reserve("name", "abd2")
    assert index.get("abc").id == "abc1"
    with pytest.raises(InvalidArgument, match="ambiguous"):
        index.get("ab")
    with pytest.raises(NotFound):
        index.get("x")
    assert index.find("") is None
    index.remove("abc1")
    index.reserve("name", "abd2")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 15),
        ("SIGTERM", 15),
        ("TERM", 15),
        ("9", 9),
        ("sigusr1", 10),
        ("SIGRTMIN+3", 37),
        ("SIGRTMINPLUS3", 37),
        ("SIGRTMAX-2", 62),
        ("SIGCLD", 17),
        ("nonsense", 15),
    ],
)
def test_signals_by_every_spelling(text: str, number: int) -> None:
    assert container_stop.signal_number(text) == number


@pytest.mark.parametrize("relative", ["../x", "/x", "a/../../x", "..", "."])
def test_a_log_path_outside_is_refused(relative: str) -> None:
    with pytest.raises(InvalidArgument):
        container_io.log_path("/logs/pod", relative)


def test_a_log_path_inside_is_taken() -> None:
    assert container_io.log_path("/logs/pod", "c/0.log") == "/logs/pod/c/0.log"
    assert container_io.log_path("", "c") == container_io.log_path("/logs", "") == ""


NETWORK = (
    b'{"cniVersion":"1.0.0","name":"n","plugins":['
    b'{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true}}]}'
)


def test_a_plugin_gets_the_capabilities_that_it_declares() -> None:
    import json

    network = cni.parse_network(NETWORK, "x")
    pod = cri.PodSandboxConfig(
        port_mappings=[
            cri.PortMapping(host_port=80, container_port=8080, protocol=cri.UDP),
            cri.PortMapping(container_port=1),
        ],
        annotations={"kubernetes.io/ingress-bandwidth": "10M"},
    )
    given = cni.capabilities(pod)
    attachment = cni.Attachment(network=network, netns="/n", args="", capabilities=given)
    bridge = json.loads(cni.plugin_input(network, network.plugins[0], attachment, {}))
    assert bridge == {"type": "bridge", "name": "n", "cniVersion": "1.0.0"}
    portmap = json.loads(cni.plugin_input(network, network.plugins[1], attachment, {"ips": []}))
    assert portmap["runtimeConfig"] == {
        "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "udp", "hostIP": ""}]
    }
    assert portmap["prevResult"] == {"ips": []}
    assert given["bandwidth"]["ingressRate"] == 10_000_000


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"name":"n","plugins":[]}', b'{"name":"n","plugins":[{}]}', b'{"type":"bridge"}']
)
def test_a_broken_network_configuration_is_told(text: bytes) -> None:
    with pytest.raises(ValueError, match="x: "):
        cni.parse_network(text, "x")


def test_the_pods_own_addresses_are_taken_from_a_result() -> None:
    result = {
        "interfaces": [{"name": "br"}, {"name": "veth"}, {"name": "eth0", "sandbox": "/n"}],
        "ips": [
            {"address": "fd00::2/64", "interface": 2},
            {"address": "10.0.0.2/24", "interface": 2},
            {"address": "10.0.0.1/24", "interface": 0},
        ],
    }
    assert cni.pod_ips(result) == ["10.0.0.2", "fd00::2"]
    assert cni.pod_ips({"ips": [{"address": "10.0.0.9/8"}]}) == ["10.0.0.9"]
    assert cni.pod_ips({}) == []


def test_the_template_becomes_the_nodes_network(tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text('{"name":"n","plugins":[{"type":"bridge","ipam":{"subnet":"{{.PodCIDR}}"}}]}')
    conf = tmp_path / "conf"
    network = cni.Cni(config.Cni(conf_dir=str(conf), template=str(template)))
    network.write_network("10.1.2.0/24")
    assert network.network().plugins[0]["ipam"]["subnet"] == "10.1.2.0/24"
    with pytest.raises(InvalidArgument):
        network.write_network('10.1.2.0/24","x":"')
    (conf / "05-own.conflist").write_text('{"name":"own","plugins":[{"type":"ptp"}]}')
    network.write_network("10.9.9.0/24")
    assert network.network().name == "own"
    assert "10.1.2.0/24" in (conf / cni.GENERATED).read_text()
    network.close()


def test_the_pause_program_is_a_static_executable() -> None:
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        program = pause.program(machine)
        assert program[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", program, 18)[0] == number
        entry, size = struct.unpack_from("<Q", program, 24)[0], struct.unpack_from("<Q", program, 64 + 32)[0]
        assert entry == 0x400000 + 120
        assert size == len(program)
    with pytest.raises(Unimplemented):
        pause.program("vax")


def test_chain_ids() -> None:
    assert chain_ids([]) == []
    first, second = chain_ids(["sha256:" + "a" * 64, "sha256:" + "b" * 64])
    assert first == "sha256:" + "a" * 64
    assert second.startswith("sha256:")
    assert second != "sha256:" + "b" * 64


def test_no_platform_of_ours_is_told_with_what_there_is() -> None:
    digest = "sha256:" + "0" * 64
    with pytest.raises(NotFound, match="linux/mips"):
        choose([{"digest": digest, "platform": {"os": "linux", "architecture": "mips"}}], "x")


def test_the_same_directory_builds_the_same_bytes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "b/file").write_text("x")
    os.link(root / "b/file", root / "a-link")
    (root / "z").symlink_to("/etc/passwd")
    first = build(root, "example.org/x:1", tmp_path / "1.tar", {"Cmd": ["x"]})
    os.utime(root / "b/file", (1, 1))
    second = build(root, "example.org/x:1", tmp_path / "2.tar", {"Cmd": ["x"]})
    assert first == second
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        assert {"index.json", "oci-layout"} <= set(tar.getnames())
    with pytest.raises(InvalidArgument):
        build(tmp_path / "absent", "example.org/x:1", tmp_path / "3.tar")
