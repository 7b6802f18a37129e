import pytest

from machinery.api.service_views import EndpointSlice, slice_service
from machinery.client.informer import Lister, Packed


def piece(name, service, *addresses):
    import msgspec

    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "d", "labels": {"kubernetes.io/service-name": service}},
            "endpoints": [{"addresses": [a], "conditions": {"ready": False}, "nodeName": "n1"} for a in addresses],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
        EndpointSlice,
    )


@pytest.fixture(params=["as they are", "packed"])
def lister(request):
    packing = Packed(EndpointSlice) if request.param == "packed" else None
    return Lister({"service": slice_service}, packing)


def test_a_lister_hands_out_what_was_put_however_it_is_kept(lister):
    one, other = piece("a", "web", "10.0.0.1", "10.0.0.2"), piece("b", "web")
    assert lister._put("d/a", one) is None
    lister._put("d/b", other)
    assert lister.by_key("d/a") == lister.get("d", "a") == one
    assert lister.list("d") == lister.list() == [*lister] == [one, other]
    assert lister.by_index("service", "d/web") == [one, other]
    assert lister.by_key("d/c") is None


def test_a_change_and_an_end_move_an_object_in_every_index(lister):
    old, new = piece("a", "web"), piece("a", "db")
    lister._put("d/a", old)
    assert lister._put("d/a", new) == old
    assert lister.by_index("service", "d/web") == []
    assert lister.by_index("service", "d/db") == [new]
    assert lister._remove("d/a") == new
    assert lister._remove("d/a") is None
    assert (len(lister), lister.by_index("service", "d/db"), lister.list("d")) == (0, [], [])


def test_what_only_one_object_has_and_then_another_and_then_one_again(lister):
    one, other = piece("a", "web"), piece("b", "web")
    for obj in (one, other, one):
        lister._put(f"d/{obj.metadata.name}", obj)
    assert lister.by_index("service", "d/web") == [other, one]
    lister._remove("d/b")
    assert lister.by_index("service", "d/web") == [one]
    lister._remove("d/a")
    assert lister.by_index("service", "d/web") == []


def test_packed_objects_are_kept_without_the_names_of_their_fields():
    packing = Packed(EndpointSlice)
    obj = piece("a", "web", "10.0.0.1", "10.0.0.2")
    kept = packing.pack(obj)
    assert packing.unpack(kept) == obj
    assert b"10.0.0.2" in kept
    assert not any(name in kept for name in (b"addresses", b"nodeName", b"node_name", b"conditions"))
