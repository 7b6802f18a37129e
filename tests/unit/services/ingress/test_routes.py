"""What routes Ingresses ask for, who wins, and what is told of what is wrong."""

import pytest

from services.ingress import classes, presence, writer
from services.ingress.api import IngressClass, Node
from services.ingress.endpoints import endpoints_of
from services.ingress.table import Certificate, Endpoint
from tests.support.ingress_objects import BROKEN, ENDING, ingress, path, piece, service, table

CERTIFICATE = Certificate("PEM", ("a.test",), 2e9)


def reasons(built):
    return [problem.reason for problem in built.problems]


def served(built):
    return {(route.host, route.path): route.service for route in built.routes if not route.error}


def ingress_class(name, controller=classes.CONTROLLER, *, default=False):
    import msgspec

    annotations = {classes.DEFAULT_ANNOTATION: "true"} if default else {}
    return msgspec.convert(
        {"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}}, IngressClass
    )


def test_an_ingress_belongs_to_the_class_that_it_names_by_field_or_annotation_or_to_the_default_one():
    by_field = ingress("field", ingressClassName="mine")
    by_annotation = ingress("annotation", annotations={classes.CLASS_ANNOTATION: "mine"})
    foreign = ingress("foreign", ingressClassName="other")
    unnamed = ingress("unnamed")
    everything = [unnamed, foreign, by_annotation, by_field]
    own, other = ingress_class("mine"), ingress_class("other", "k8s.io/other", default=True)

    def names(*known):
        return [i.metadata.name for i in classes.ours(everything, known, classes.CONTROLLER)]

    assert names(own, other) == ["field", "annotation"]
    assert names(ingress_class("mine", default=True), other) == ["field", "annotation", "unnamed"]
    assert names(other) == []


def test_of_two_ingresses_with_one_path_the_older_has_it_and_the_younger_is_told():
    older, younger = ingress("z-older", paths=[path("/x", "one")]), ingress("a-younger", paths=[path("/x/", "two")])
    built = table(younger, older)
    assert served(built) == {("a.test", "/x"): "one"}
    (problem,) = built.problems
    assert problem.ingress == "d/a-younger"
    assert problem.reason == "DuplicateRoute"
    assert "by Ingress d/z-older, which is older" in problem.message


def test_exact_and_prefix_of_one_path_are_two_routes():
    built = table(ingress(paths=[path("/x", "one"), path("/x", "two", kind="Exact")]))
    assert not built.problems
    assert len(built.routes) == 2


@pytest.mark.parametrize(
    ("services", "reason"),
    [
        ([service("other")], "ServiceNotFound"),
        ([service(type="ExternalName", externalName="x.test")], "ExternalNameNotSupported"),
        ([service(ports=[{"name": "http", "port": 81}])], "PortNotFound"),
        ([service(ports=[{"name": "http", "port": 80, "protocol": "UDP"}])], "PortNotFound"),
    ],
)
def test_a_backend_that_is_not_there_is_told_and_the_rest_is_served(services, reason):
    good = service("good")
    built = table(ingress(paths=[path("/bad"), path("/good", "good")]), services=[*services, good])
    assert reasons(built) == [reason]
    assert served(built) == {("a.test", "/good"): "good"}
    bad = next(route for route in built.routes if route.path == "/bad")
    assert bad.claimed, "requests for it must not reach another route"
    assert bad.backend is None


def test_a_resource_backend_is_told_to_be_unsupported():
    resource = {"path": "/", "pathType": "Prefix", "backend": {"resource": {"kind": "StorageBucket", "name": "b"}}}
    assert reasons(table(ingress(paths=[resource]))) == ["ResourceNotSupported"]


def test_a_service_port_is_found_by_number_and_by_name():
    ports = [{"name": "admin", "port": 8080}, {"name": "web", "port": 80}]
    built = table(ingress(paths=[path("/a", port="web"), path("/b", port=8080)]), services=[service(ports=ports)])
    assert {route.path: route.backend.port_name for route in built.routes} == {"/a": "web", "/b": "admin"}


def test_a_default_backend_is_for_the_hosts_of_its_ingress_and_for_what_nobody_serves():
    default = {"service": {"name": "rest", "port": {"number": 80}}}
    built = table(ingress(paths=[path("/a")], defaultBackend=default))
    assert {(r.host, r.path_type) for r in built.routes if r.service == "rest"} == {
        ("a.test", "Default"),
        ("", "Default"),
    }
    alone = ingress("alone", rules=None, defaultBackend=default)
    assert reasons(table(ingress("first", rules=None, defaultBackend=default), alone)) == ["DuplicateRoute"]


@pytest.mark.parametrize(
    ("secret", "reason"), [(None, "CertificateNotFound"), ("data[tls.key]: is missing", "InvalidCertificate")]
)
def test_a_bad_certificate_is_told_and_its_host_is_served_with_the_default_one(secret, reason):
    tls = [{"hosts": ["a.test"], "secretName": "c"}]
    built = table(ingress(tls=tls), secrets={"d/c": secret})
    assert reasons(built) == [reason]
    assert not built.tls
    (route,) = built.routes
    assert route.backend.options.redirect_to_tls


def test_certificates_that_fit_badly_are_served_and_told():
    tls = [{"hosts": ["b.test"], "secretName": "c"}]
    built = table(ingress(host="b.test", tls=tls), secrets={"d/c": CERTIFICATE}, now=3e9)
    assert reasons(built) == ["CertificateExpired", "CertificateMismatch"]
    assert built.tls == {"b.test": "d/c"}


def test_two_certificates_for_one_host_the_older_wins():
    first = ingress("one", tls=[{"hosts": ["a.test"], "secretName": "c"}])
    second = ingress("two", paths=[path("/two")], tls=[{"hosts": ["a.test"], "secretName": "e"}])
    built = table(first, second, secrets={"d/c": CERTIFICATE, "d/e": CERTIFICATE})
    assert built.tls == {"a.test": "d/c"}
    assert reasons(built) == ["CertificateConflict"]


@pytest.mark.parametrize(
    ("annotations", "tls", "redirects"),
    [
        ({}, True, True),
        ({"ssl-redirect": "false"}, True, False),
        ({"ingress.kubernetes.io/ssl-redirect": "false"}, True, False),
        ({"ssl-redirect": "true"}, False, False),
        ({"force-ssl-redirect": "true"}, False, True),
    ],
)
def test_plain_http_is_redirected_where_there_is_tls_unless_told_otherwise(annotations, tls, redirects):
    spec = {"tls": [{"hosts": ["a.test"], "secretName": "c"}]} if tls else {}
    built = table(ingress(annotations=annotations, **spec), secrets={"d/c": CERTIFICATE})
    assert built.routes[0].backend.options.redirect_to_tls is redirects


def test_annotations_become_options():
    given = {
        "backend-protocol": "GRPC", "proxy-body-size": "8m", "proxy-read-timeout": "30", "proxy-connect-timeout": "2",
        "affinity": "cookie", "session-cookie-name": "route", "session-cookie-max-age": "60",
        "whitelist-source-range": "10.0.0.0/8, 192.0.2.1",
    }  # fmt: skip
    built = table(ingress(annotations=given))
    assert not built.problems
    options = built.routes[0].backend.options
    assert (options.protocol, options.body_bytes_max, options.read_seconds) == ("grpc", 8 << 20, 30)
    assert (options.affinity.cookie, options.affinity.max_age_seconds) == ("route", 60)
    assert options.allow == ("10.0.0.0/8", "192.0.2.1/32")


def test_the_protocol_of_a_service_port_counts_where_no_annotation_says_more():
    built = table(ingress(), services=[service(ports=[{"port": 80, "appProtocol": "kubernetes.io/h2c"}])])
    assert built.routes[0].backend.options.protocol == "h2c"


def test_an_unknown_annotation_is_told_and_one_that_guards_keeps_the_ingress_from_being_open():
    built = table(ingress(annotations={"proxy-buffers-number": "8"}))
    assert reasons(built) == ["AnnotationIgnored"]
    assert served(built)
    built = table(ingress(annotations={"auth-url": "https://auth.test"}))
    assert set(reasons(built)) == {"NotServed"}
    assert not served(built)


def test_endpoints_are_ready_or_draining_and_only_of_the_port():
    (backend,) = table(ingress()).backends.values()
    slices = [piece("10.0.0.2", ("10.0.0.1", ENDING), ("10.0.0.3", BROKEN)), piece("10.0.0.9", name="other")]
    assert endpoints_of(backend, slices) == (Endpoint("10.0.0.1", 8080, True), Endpoint("10.0.0.2", 8080))


def test_endpoints_that_all_terminate_go_on_serving():
    (backend,) = table(ingress()).backends.values()
    assert endpoints_of(backend, [piece(("10.0.0.1", ENDING))]) == (Endpoint("10.0.0.1", 8080),)


def test_addresses_of_the_node_itself_are_no_endpoints():
    (backend,) = table(ingress()).backends.values()
    assert endpoints_of(backend, [piece("127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1")]) == ()


def node(name, ready=True):
    import msgspec

    status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return msgspec.convert({"metadata": {"name": name}, "status": status}, Node)


def test_the_addresses_are_those_of_instances_on_ready_nodes_and_the_first_writes_them():
    import msgspec

    from machinery.api.service_views import EndpointSlice

    slices = [
        msgspec.convert(presence.endpoint_slice(name, ip, 80, 443), EndpointSlice)
        for name, ip in (("n2", "10.1.0.2"), ("n1", "10.1.0.1"), ("n3", "10.1.0.3"))
    ]
    found = presence.serving(slices, [node("n1", ready=False), node("n2"), node("n3")])
    assert list(found.items()) == [("n2", "10.1.0.2"), ("n3", "10.1.0.3")]
    assert presence.is_writer("n2", found)
    assert not presence.is_writer("n3", found)
    assert not presence.is_writer("n2", {})


def test_a_status_is_written_only_where_it_differs():
    one = ingress("one")
    ((_, patch),) = writer.status_patches([one], ["10.1.0.1"])
    assert patch == {"status": {"loadBalancer": {"ingress": [{"ip": "10.1.0.1"}]}}}
    import msgspec

    from services.ingress.api import IngressStatus

    one.status = msgspec.convert(patch["status"], IngressStatus)
    assert writer.status_patches([one], ["10.1.0.1"]) == []
