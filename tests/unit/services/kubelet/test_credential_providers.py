"""Programs that know registries' passwords: when they are asked, what they are told, how long an answer is kept."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lightkube.models import core_v1

from services.kubelet.credential_providers import Account, CredentialProviders, Provider, matches, parse_config

API = "credentialprovider.kubelet.k8s.io/v1"
IMAGE = "registry.example.com/team/app:1"


def pod(**spec: Any) -> core_v1.Pod:
    value = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"containers": [{"name": "c"}], **spec}}
    return msgspec.convert(value, core_v1.Pod)


class World:
    """A directory with one program, which notes what it was asked and answers with `answer`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        program = path / "corp"
        notes = f'cat >> {path}/asked; echo >> {path}/asked; echo "$@ $EXTRA" >> {path}/args'
        program.write_text(f"#!/bin/sh\n{notes}; cat {path}/answer; exit $(cat {path}/code)\n")
        program.chmod(0o755)
        (path / "code").write_text("0")
        self.answer({"*.example.com": {"username": "u", "password": "p"}})

    def answer(self, auth: Any, **more: Any) -> None:
        value = {"kind": "CredentialProviderResponse", "apiVersion": API, "cacheKeyType": "Registry", "auth": auth}
        (self.path / "answer").write_text(json.dumps(value | more))

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "asked").read_text().splitlines()]

    def providers(self, **fields: Any) -> CredentialProviders:
        provider = {
            "name": "corp", "matchImages": ["*.example.com"], "defaultCacheDuration": "10m", "apiVersion": API,
            **fields,
        }  # fmt: skip

        async def account_of(_pod: core_v1.Pod, audience: str) -> Account:
            return Account("ns", "robot", "uid", {"corp/role": "r"}, f"token-for-{audience}")

        return CredentialProviders(
            [msgspec.convert(provider, Provider)], str(self.path), account_of, clock=lambda: self.now
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "image", "fits"),
    [
        ("registry.example.com", IMAGE, True),
        ("*.example.com", IMAGE, True),
        ("*.com", IMAGE, False),
        ("r*.example.com/team", IMAGE, True),
        ("registry.example.com/other", IMAGE, False),
        ("registry.example.com:5000", IMAGE, False),
        ("registry.example.com:5000", "registry.example.com:5000/x:1", True),
        ("registry.example.com", "registry.example.com:5000/x:1", False),
    ],
)
def test_patterns(pattern: str, image: str, fits: bool) -> None:
    assert matches(pattern, image) is fits


async def test_a_program_is_asked_for_its_registries_only_and_its_answer_is_kept(world: World) -> None:
    providers = world.providers(args=["get", "it"], env=[{"name": "EXTRA", "value": "more"}])
    assert await providers.credentials(pod(), "docker.io/library/nginx:1") == []
    for image in (IMAGE, IMAGE, "registry.example.com/another:2"):
        [auth] = await providers.credentials(pod(), image)
        assert (auth.username, auth.password) == ("u", "p")
    assert world.asked == [{"kind": "CredentialProviderRequest", "apiVersion": API, "image": IMAGE}]
    assert (world.path / "args").read_text() == "get it more\n"
    world.now += 601
    await providers.credentials(pod(), IMAGE)
    assert len(world.asked) == 2


async def test_an_answer_says_itself_how_long_and_for_what_it_is_good(world: World) -> None:
    world.answer({"registry.example.com": {"username": "a", "password": "b"}}, cacheKeyType="Image", cacheDuration="0s")
    providers = world.providers()
    await providers.credentials(pod(), IMAGE)
    await providers.credentials(pod(), IMAGE)
    assert len(world.asked) == 2
    world.answer({"registry.example.com": {"username": "a", "password": "b"}}, cacheKeyType="Image", cacheDuration="1h")
    await providers.credentials(pod(), IMAGE)
    await providers.credentials(pod(), "registry.example.com/other:1")
    await providers.credentials(pod(), IMAGE)
    assert len(world.asked) == 4


async def test_the_best_match_comes_first_and_others_registries_passwords_are_not_sent(world: World) -> None:
    world.answer(
        {
            "registry.example.com": {"username": "wide", "password": "1"},
            "registry.example.com/team": {"username": "narrow", "password": "2"},
            "evil.example.org": {"username": "other", "password": "3"},
        }
    )
    found = await world.providers().credentials(pod(), IMAGE)
    assert [auth.username for auth in found] == ["narrow", "wide"]


@pytest.mark.parametrize(
    "answer", ['{"kind": "x"}', "not json", '{"kind": "CredentialProviderResponse", "apiVersion": "v0"}']
)
async def test_a_program_that_fails_is_passed_over(world: World, answer: str) -> None:
    (world.path / "answer").write_text(answer)
    assert await world.providers().credentials(pod(), IMAGE) == []
    world.answer({"*.example.com": {"username": "u", "password": "p"}})
    (world.path / "code").write_text("3")
    assert await world.providers().credentials(pod(), IMAGE) == []


async def test_a_provider_gets_a_token_of_the_pods_service_account(world: World) -> None:
    attributes = {
        "serviceAccountTokenAudience": "corp", "requireServiceAccount": True,
        "requiredServiceAccountAnnotationKeys": ["corp/role"], "cacheType": "ServiceAccount",
    }  # fmt: skip
    providers = world.providers(tokenAttributes=attributes)
    assert len(await providers.credentials(pod(serviceAccountName="robot"), IMAGE)) == 1
    text = (world.path / "asked").read_text()
    assert '"serviceAccountToken":"token-for-corp"' in text
    assert '"serviceAccountAnnotations":{"corp/role":"r"}' in text
    assert await providers.credentials(pod(), IMAGE) == []
    attributes["requiredServiceAccountAnnotationKeys"] = ["absent"]
    assert await world.providers(tokenAttributes=attributes).credentials(pod(serviceAccountName="robot"), IMAGE) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "../corp"}, r"providers\[0\].name"),
        ({"name": "absent"}, "is not a program"),
        ({"matchImages": []}, "matchImages"),
        ({"defaultCacheDuration": "soon"}, "defaultCacheDuration"),
        ({"apiVersion": "v9"}, "apiVersion"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_configuration_names_file_and_field(world: World, change: dict[str, Any], word: str) -> None:
    provider = {"name": "corp", "matchImages": ["a.b"], "defaultCacheDuration": "1h30m", "apiVersion": API}
    config = {"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [provider]}
    assert [p.name for p in parse_config(json.dumps(config), str(world.path), "f.yaml")] == ["corp"]
    provider |= change
    with pytest.raises(ValueError, match=f"f.yaml.*{word}"):
        parse_config(json.dumps(config), str(world.path), "f.yaml")
