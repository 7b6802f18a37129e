"""Devices by CDI name: found in their files, put into the container's specification."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cri import cdi
from cri.errors import InvalidArgument


def write(directory: Path, name: str, kind: str = "example.com/gpu", common: Any = None, **devices: Any) -> None:
    directory.mkdir(exist_ok=True)
    found = [{"name": device, "containerEdits": edits} for device, edits in devices.items()]
    (directory / name).write_text(
        json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": found, "containerEdits": common})
    )


def spec() -> dict[str, Any]:
    return {
        "process": {"env": ["PATH=/bin", "A=old"], "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"resources": {"devices": [{"allow": False}]}, "devices": []},
    }


def test_edits_of_the_file_come_once_before_those_of_its_devices(tmp_path: Path) -> None:
    write(tmp_path, "gpu.json", common={"env": ["ALL=1"]}, one={"env": ["ONE=1"]}, two={"env": ["TWO=1"]})
    found = cdi.edits(["example.com/gpu=one", "example.com/gpu=two"], [str(tmp_path)])
    assert [edit["env"] for edit in found] == [["ALL=1"], ["ONE=1"], ["TWO=1"]]


def test_a_later_directory_wins(tmp_path: Path) -> None:
    write(tmp_path / "etc", "gpu.json", one={"env": ["FROM=etc"]})
    write(tmp_path / "run", "gpu.json", one={"env": ["FROM=run"]})
    directories = [str(tmp_path / "etc"), str(tmp_path / "run"), str(tmp_path / "absent")]
    assert cdi.edits(["example.com/gpu=one"], directories) == [{"env": ["FROM=run"]}]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("example.com/gpu=absent", "unresolvable CDI device example.com/gpu=absent"),
        ("gpu", "'gpu' is not of the form vendor/class=device"),
        ("example.com/gpu=one=two", "is not of the form"),
    ],
)
def test_a_name_that_nothing_specifies_is_refused(tmp_path: Path, name: str, words: str) -> None:
    write(tmp_path, "gpu.json", one={})
    with pytest.raises(InvalidArgument, match=words):
        cdi.edits([name], [str(tmp_path)])


def test_a_broken_file_is_named_when_a_device_is_missing_and_harmless_otherwise(tmp_path: Path) -> None:
    write(tmp_path, "gpu.json", one={"env": ["A=1"]})
    (tmp_path / "broken.yaml").write_text("kind: [")
    assert cdi.edits(["example.com/gpu=one"], [str(tmp_path)])
    with pytest.raises(InvalidArgument, match=r"broken\.yaml"):
        cdi.edits(["example.com/gpu=two"], [str(tmp_path)])


def test_everything_that_a_device_needs_is_in_the_specification() -> None:
    made = spec()
    info = os.stat("/dev/zero")
    cdi.apply(
        made,
        [
            {
                "env": ["A=new", "B=1"],
                "deviceNodes": [
                    {"path": "/dev/gpu0", "hostPath": "/dev/zero", "permissions": "rw"},
                    {"path": "/dev/gpu1", "type": "c", "major": 195, "minor": 1, "uid": 5, "fileMode": 432},
                ],
                "mounts": [{"hostPath": "/opt/lib", "containerPath": "/lib/gpu", "options": ["ro", "rbind"]}],
                "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"]}],
                "additionalGids": [44, 44, 0],
            }
        ],
    )
    assert made["process"]["env"] == ["PATH=/bin", "A=new", "B=1"]
    assert made["process"]["user"]["additionalGids"] == [44]
    zero, other = made["linux"]["devices"]
    assert (zero["path"], zero["major"], zero["minor"]) == ("/dev/gpu0", os.major(info.st_rdev), os.minor(info.st_rdev))
    assert other == {"path": "/dev/gpu1", "type": "c", "major": 195, "minor": 1, "uid": 5, "fileMode": 432}
    rules = made["linux"]["resources"]["devices"]
    assert [(rule["allow"], rule.get("access")) for rule in rules] == [(False, None), (True, "rw"), (True, "rwm")]
    assert made["mounts"][-1]["destination"] == "/lib/gpu"
    assert made["hooks"] == {"createContainer": [{"path": "/bin/hook", "args": ["hook", "x"]}]}


def test_a_device_node_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="device node /dev/absent: No such file"):
        cdi.apply(spec(), [{"deviceNodes": [{"path": "/dev/absent"}]}])
