# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestro_py.client.stream import quote
from maestro_py.daemon.router import (
    MethodNotAllowed,
    Role,
    Route,
    Router,
    bound,
    check_query,
    decode,
    parse_query,
)
from maestro_py.errors import MaestroError, NotFound


def router(*rows: str) -> Router:
    return Router(Route(*row.split(" "), handler=None) for row in rows)  # type: ignore[misc,arg-type]


def found(table: Router, method: str, path: str) -> tuple[str, dict[str, str]]:
    route, params = table.match(method, path)
    return route.pattern, params


TABLE = router(
    "GET /",
    "GET /v1/status",
    "GET /v1/jobs/{job}/why",
    "POST /v1/jobs/{job}/start",
    "GET /v1/jobs/all/why",
    "GET /v1/configs/{job}/{name}",
    "PUT /v1/configs/{job}/{name}",
    "DELETE /v1/configs/{job}/{name}",
)


def test_fixed_paths_and_parameters_are_found() -> None:
    assert found(TABLE, "GET", "/") == ("/", {})
    assert found(TABLE, "GET", "/v1/status") == ("/v1/status", {})
    assert found(TABLE, "GET", "/v1/jobs/web/why") == ("/v1/jobs/{job}/why", {"job": "web"})
    assert found(TABLE, "PUT", "/v1/configs/a/b") == ("/v1/configs/{job}/{name}", {"job": "a", "name": "b"})


def test_a_fixed_segment_goes_before_a_parameter() -> None:
    assert found(TABLE, "GET", "/v1/jobs/all/why") == ("/v1/jobs/all/why", {})


def test_a_method_a_closer_path_lacks_is_taken_from_the_parameter_path() -> None:
    table = router("GET /jobs/all", "DELETE /jobs/{job}")
    assert found(table, "DELETE", "/jobs/all") == ("/jobs/{job}", {"job": "all"})


def test_parameters_are_decoded_after_the_path_is_cut() -> None:
    assert found(TABLE, "GET", "/v1/jobs/a%2Fb%20%C3%BC/why")[1] == {"job": "a/b ü"}
    assert found(TABLE, "GET", "/v1/%73tatus") == ("/v1/status", {})
    assert found(TABLE, "GET", "/v1/jobs/a+b/why")[1] == {"job": "a+b"}


@pytest.mark.parametrize(
    "path", ["", "v1/status", "/v1/status/", "//v1/status", "/v1", "/v1/jobs//why", "/v1/jobs/web/why/", "*"]
)
def test_another_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="no such path"):
        TABLE.match("GET", path)


def test_a_wrong_method_names_the_right_ones() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        TABLE.match("POST", "/v1/configs/a/b")
    assert caught.value.allow == ("DELETE", "GET", "HEAD", "PUT")
    with pytest.raises(MethodNotAllowed) as caught:
        TABLE.match("GET", "/v1/jobs/web/start")
    assert caught.value.allow == ("POST",)


def test_head_finds_the_route_of_get() -> None:
    assert found(TABLE, "HEAD", "/v1/status") == ("/v1/status", {})
    with pytest.raises(MethodNotAllowed):
        TABLE.match("HEAD", "/v1/jobs/web/start")


@pytest.mark.parametrize(
    "path", ["/v1/jobs/%/why", "/v1/jobs/%4/why", "/v1/jobs/%zz/why", "/v1/jobs/%ff/why"]
)
def test_a_malformed_encoding_is_a_bad_request(path: str) -> None:
    with pytest.raises(MaestroError, match="percent-encoding") as caught:
        TABLE.match("GET", path)
    assert caught.value.code == "bad-request"


def test_handlers_are_bound_by_name() -> None:
    class Jobs:
        def why(self) -> str:
            return "because"

    class Handlers:
        jobs = Jobs()

    [route] = bound([Route("GET", "/why", "jobs.why", Role.READ)], Handlers())
    assert route.handler() == "because"
    with pytest.raises(AttributeError):
        bound([Route("GET", "/why", "jobs.whay")], Handlers())


def test_a_query_parameter_nobody_reads_is_refused() -> None:
    check_query({"n": ["1"]}, {"n", "follow"})
    with pytest.raises(MaestroError, match=r"'folow': it takes follow, n$") as caught:
        check_query({"n": ["1"], "folow": [""]}, {"n", "follow"})
    assert caught.value.code == "bad-request"
    with pytest.raises(MaestroError, match="it takes none"):
        check_query({"x": [""]}, ())


@pytest.mark.parametrize(
    "rows",
    [("GET /a", "GET /a"), ("GET /a/{x}", "GET /a/{y}"), ("GET /a-{x}",), ("GET /{X}",), ("GET /{a}{b}",)],
)
def test_a_table_that_cannot_work_is_refused_at_start(rows: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"two routes|whole segment"):
        router(*rows)


def test_a_role_includes_those_before_it() -> None:
    assert Role.NONE < Role.READ < Role.OPERATE < Role.ADMIN
    assert Route("GET", "/", None).role is Role.ADMIN


def test_a_query_keeps_all_values_in_order() -> None:
    assert parse_query("job=a&n=5&job=b+c%26&follow&=x&&e=") == {
        "job": ["a", "b c&"],
        "n": ["5"],
        "follow": [""],
        "": ["x"],
        "e": [""],
    }
    assert parse_query("") == {}


@given(st.text())
def test_what_the_client_quotes_the_router_decodes(text: str) -> None:
    assert decode(quote(text)) == text
    assert quote(text) == urllib.parse.quote(text, safe="")
    assert quote("\udcff").isascii()


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1)))
def test_a_query_is_read_as_the_standard_library_writes_it(query: dict[str, list[str]]) -> None:
    assert parse_query(urllib.parse.urlencode(query, doseq=True)) == query


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)), st.sampled_from(["GET", "PUT", "HEAD"])
)
def test_any_path_is_matched_or_refused_with_an_error_for_people(path: str, method: str) -> None:
    try:
        TABLE.match(method, "/" + path)
    except NotFound:
        pass
    except MaestroError as error:
        if error.code != "bad-request":
            raise
