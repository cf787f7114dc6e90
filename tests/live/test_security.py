import asyncio
import ipaddress
import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import STATE, ask, ask_raw, closed, folders, hear, hello, run, say, server, socket
from websockets.exceptions import InvalidStatus

from eqdiff_jax.live import gate
from eqdiff_jax.live import server as module
from eqdiff_jax.live.wire import Clock, Crossfade, Eval, Hello, Hush, MotionModulate, Pong, Request, SetParam

UPGRADE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")


@pytest.fixture
def site(tmp_path):
    return folders(tmp_path)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    place = folders(tmp_path_factory.mktemp("site"))
    return place, gate.Files(*place)


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def refused(opening) -> int:
    """HTTP status with which a socket is refused."""
    with pytest.raises(InvalidStatus) as raised:
        await opening
    return raised.value.response.status_code


async def assert_plays_on(here, page, number: int) -> None:
    """The page still hears and is heard."""
    here.send(Eval("x", id=number))
    assert (await hear(page))["id"] == number
    while not here.inbox.empty():
        here.inbox.get_nowait()
    await say(page, Pong(number, 0.0, 0.0))
    assert (await here.inbox.get())[0] == Pong(number, 0.0, 0.0)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the server ends the connection, politely or not."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1",
                                    "http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:{port}/",
                                    "http://localhost:{port}", "http://127.0.0.1:1", "file://", "", None])
def test_a_socket_that_another_site_opens_is_refused(site, origin):
    async def scenario():
        async with server(site) as here:
            theirs = origin and origin.format(port=here.port)
            assert await refused(socket(here, origin=theirs)) == 403
            assert here.refused == {"origin": 1}
            twice = f"Origin: http://127.0.0.1:{here.port}\r\n" * 2
            assert (await ask(here, "/ws", more=UPGRADE + twice)).status == 403
            async with socket(here) as page:
                await hello(page)
    run(scenario())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1:{port}.evil.example", "127.0.0.1",
                                  "localhost.:{port}", "0.0.0.0:{port}", "127.0.0.1:1", "user@127.0.0.1:{port}", "",
                                  "2130706433:{port}", "192.0.2.1:{port}"])
def test_a_name_that_somebody_pointed_at_this_computer_is_refused(site, host):
    async def scenario():
        async with server(site) as here:
            theirs = host.format(port=here.port)
            more = f"{UPGRADE}Origin: http://{theirs}\r\n"
            for path in ("/", "/live.css", "/vendor/strudel/index.js"):
                answer = await ask(here, path, host=theirs)
                assert answer.status == 403 and b"page" not in answer.body and b"strudel" not in answer.body
            assert (await ask(here, "/ws", host=theirs, more=more)).status == 403
            assert here.refused == {"host": 4}
    run(scenario())


def test_a_request_has_one_host(site):
    async def scenario():
        async with server(site) as here:
            ours = f"Host: 127.0.0.1:{here.port}\r\n"
            for hosts in ("", ours + ours, ours + "Host: evil.example\r\n"):
                assert (await ask_raw(here, f"GET / HTTP/1.1\r\n{hosts}\r\n".encode())).status == 403
            assert (await ask_raw(here, f"GET / HTTP/1.1\r\n{ours}\r\n".encode())).status == 200
            for name in ("localhost", "LocalHost", "[::1]"):
                assert (await ask(here, "/", host=f"{name}:{here.port}")).status == 200
    run(scenario())


def test_on_a_network_the_address_that_was_reached_is_a_host_too():
    assert gate.hosts("192.0.2.7", "0.0.0.0", 8080)[0] == "192.0.2.7:8080"
    assert "0.0.0.0:8080" not in gate.hosts("192.0.2.7", "0.0.0.0", 8080)
    assert "stage.local:8080" in gate.hosts("192.0.2.7", "Stage.local", 8080)
    assert gate.hosts("fd00::7", "::", 8080)[0] == "[fd00::7]:8080"
    assert {"127.0.0.1", "127.0.0.1:80", "[::1]"} <= set(gate.hosts("127.0.0.1", "localhost", 80))
    assert "127.0.0.1" not in gate.hosts("127.0.0.1", "localhost", 8080)


@pytest.mark.parametrize("given", [None, "a-token-of-mine"])
def test_an_address_that_others_reach_needs_the_token(site, given):
    async def scenario():
        async with server(site, host="0.0.0.0", token=given) as here:
            token = here.token
            assert token == given if given else len(token) >= 20
            url = urlsplit(here.url)
            assert parse_qs(url.query) == {"token": [token]} and not ipaddress.ip_address(url.hostname).is_unspecified
            queries = ["", "?token=", "?token", f"?token={token}x", f"?token={token[:-1]}", f"?TOKEN={token}",
                       f"?token={token}&token={token}", f"?token=x&token={token}", f"?a=b;token={token}",
                       "?token=%ff%00"]
            for query in queries:
                answer = await ask(here, f"/{query}")
                assert answer.status == 403 and b"<!doctype" not in answer.body and token.encode() not in answer.body
                more = f"{UPGRADE}Origin: http://127.0.0.1:{here.port}\r\n"
                assert (await ask(here, f"/ws{query}", more=more)).status == 403
            assert here.refused == {"token": 2 * len(queries)}
            assert (await ask(here, f"/?token={token}")).status == 200
            for path in ("/live.css", "/socket.js", "/vendor/strudel/index.js"):  # public source
                assert (await ask(here, path)).status == 200
            assert await refused(socket(here, token=token, origin="http://evil.example")) == 403
            async with socket(here, token=token) as page:
                assert (await hello(page))["type"] == "State"
    run(scenario())


def test_every_start_makes_another_token_and_loopback_needs_none_but_may_have_one(site):
    async def scenario():
        async with server(site, host="0.0.0.0") as one, server(site, host="0.0.0.0") as other:
            assert one.token != other.token
        async with server(site) as here:
            assert here.token is None
        async with server(site, token="only-for-us") as here:
            assert (await ask(here, "/")).status == 403
            assert (await ask(here, "/?token=only-for-us")).status == 200
            assert await refused(socket(here)) == 403
    run(scenario())


@pytest.mark.parametrize("message", [Eval("while(true){}"), Crossfade("x", 4.0), MotionModulate("pan", 0.0, "me"),
                                     SetParam("bpm", 60.0), Hush(), STATE])
def test_a_page_that_speaks_as_the_server_is_shut_out(site, message):
    async def scenario():
        async with server(site) as here:
            async with socket(here) as page:
                await say(page, message)
                code, reason = await closed(page)
                assert code == 1008 and f"unknown type '{type(message).__name__}'" in reason
            async with socket(here) as page:
                await hello(page)
                await say(page, message)
                assert (await closed(page))[0] == 1008
            await until(lambda: not here.player)
            assert here.refused == {"message": 2}
            assert [type(m).__name__ for m, _ in [here.inbox.get_nowait()]] == ["Hello"] and here.inbox.empty()
    run(scenario())


@pytest.mark.parametrize(("data", "code", "rule"), [
    (b'{"v":1,"type":"Hush"}', 1003, "binary"), ("not json", 1008, "message"), ("[" * 60000, 1008, "message"),
    ('{"v":1,"type":"' + "ä" * 200 + '"}', 1008, "message"), ("{}", 1008, "message"),
    ("x" * 70_000, 1009, None), (["x" * 40_000, "y" * 40_000], 1009, None), (b"x" * 70_000, 1009, None)])
def test_a_page_that_sends_something_else_is_closed_with_the_reason(site, data, code, rule):
    async def scenario():
        async with server(site) as here:
            for first in (True, False):
                async with socket(here) as page:
                    if not first:
                        await hello(page)
                    await page.send(data)
                    assert (await closed(page))[0] == code
            assert here.refused == ({rule: 2} if rule else {})
            await until(lambda: not here.player)
            async with socket(here) as page:
                await hello(page, "another-one")
                await assert_plays_on(here, page, 1)
    run(scenario())


def test_more_messages_than_a_hand_can_send_close_the_socket(site):
    async def scenario():
        async with server(site, clock=lambda: 0.0) as here, socket(here) as page:
            await hello(page)
            for _ in range(int(module.BURST) + 1):
                await say(page, Request("bpm", 99.0))
            assert await closed(page) == (1008, "more than 100 messages a second")
            assert here.refused == {"rate": 1} and here.inbox.qsize() == 1 + module.BURST
    run(scenario())


def test_who_says_nothing_or_something_else_first_is_not_let_in(site, monkeypatch):
    monkeypatch.setattr(module, "HELLO_SECONDS", 0.1)

    async def scenario():
        async with server(site) as here, socket(here) as silent:
            assert await closed(silent) == (1008, "say Hello first")
            async with socket(here) as rude:
                await say(rude, Clock(0.0, 0.0, 0.5, "running", 0.0, 0.0))
                assert await closed(rude) == (1008, "say Hello first")
            assert here.refused == {"hello": 2} and not here.player and here.inbox.empty()
    run(scenario())


def test_a_second_page_cannot_take_over(site):
    async def scenario():
        async with server(site) as here, socket(here) as first:
            await hello(first)
            for i in range(20):
                async with socket(here) as thief:
                    await say(thief, Hello(1, f"session-of-thief-{i}"))
                    assert await closed(thief) == (4001, "another page plays")
                    await assert_plays_on(here, first, i)
            assert here.refused == {"page": 20}
            await first.close()
            await until(lambda: not here.player)
            async with socket(here) as second:
                assert (await hello(second, "session-2"))["type"] == "State"
    run(scenario())


def test_only_so_many_sockets_at_a_time(site):
    async def scenario():
        async with server(site, max_clients=3) as here, socket(here) as first:
            await hello(first)
            idle = [await socket(here) for _ in range(2)]
            assert await refused(socket(here)) == 503
            assert here.refused == {"clients": 1}
            await assert_plays_on(here, first, 1)
            assert (await ask(here, "/")).status == 200
            await idle.pop().close()
            await until(lambda: len(here.connections) == 2)
            async with socket(here) as late:
                await say(late, Hello(1, "session-2"))
                assert (await closed(late))[0] == 4001
            await idle.pop().close()
    run(scenario())


def test_half_requests_are_dropped_in_time(site, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_SECONDS", 2.0)

    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            halves = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(8)]
            for i, (_, writer) in enumerate(halves):
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "[:5 * i])
            for reader, writer in halves:
                assert await rest_of(reader) == b""
                writer.close()
            await assert_plays_on(here, page, 1)
    run(scenario())


def test_connections_of_one_address_keep_no_other_out(site, monkeypatch):
    monkeypatch.setattr(module, "PER_ADDRESS", 6)

    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            greedy = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(12)]
            await until(lambda: here.refused["connections"] == 7)  # five beside the page
            assert len(here.connections) == 6
            assert (await ask(here, "/")).status == 0
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port, local_addr=("127.0.0.2", 0))
            writer.write(f"GET /live.css HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n\r\n".encode())
            assert (await rest_of(reader)).endswith(b"body {}")
            await assert_plays_on(here, page, 1)
            for other in (writer, *(writer for _, writer in greedy)):
                other.close()
            await until(lambda: len(here.connections) == 1)
            assert (await ask(here, "/")).status == 200
    run(scenario())


def test_not_more_connections_than_the_computer_has_files(site, monkeypatch):
    monkeypatch.setattr(module, "IN_ALL", 4)

    async def scenario():
        async with server(site) as here:
            some = [await asyncio.open_connection("127.0.0.1", here.port, local_addr=(f"127.0.0.{i}", 0))
                    for i in range(1, 9)]
            await until(lambda: here.refused["connections"] == 4)
            assert len(here.connections) == 4
            for _, writer in some:
                writer.close()
            await until(lambda: not here.connections)
            assert (await ask(here, "/")).status == 200
    run(scenario())


PATHS = ["/../secret.js", "/%2e%2e/secret.js", "/..%2fsecret.js", "/%2e%2e%2fsecret.js", "//secret.js", "/./live.css",
         "/..\\secret.js", "/%5c..%5csecret.js", "/live.css/../../secret.js", "/vendor/strudel/../outside.js",
         "/vendor/strudel/..%2foutside.js", "/vendor/strudel/%2e%2e/outside.js", "/vendor/strudel//index.js",
         "/vendor/strudel/chunks/../index.js", "/vendor/strudel/chunks/../../outside.js", "/vendor/strudel/",
         "/vendor/strudel", "/vendor/strudel/chunks", "/vendor/strudel/chunks/", "/vendor/strudel/index.js.map",
         "/vendor/strudel/.js", "/vendor/../live.css", "/vendor/", "/node_modules/hidden.js", "/node_modules/",
         "/package.json", "/query.mjs", "/.env.js", "/index.html", "/live.css%00.js", "/live.css?/../secret.js#",
         "/LIVE.CSS", "/live.css/", "/live.css%20", "/socket.js;a.js", "/ws/", "/wss", "/favicon.ico", "*",
         "/proc/self/environ", "/etc/passwd", "/" + "a/" * 2000, "/%ff", "/link.js", "/alias.js",
         "/vendor/strudel/out.js", "/vendor/strudel/up/secret.js",
         "/folder.js", "http://evil.example/", "http://127.0.0.1/live.css", ""]


def test_no_path_leads_out_of_the_public_files(site):
    dist = site.node_modules / "@strudel" / "web" / "dist"
    (site.web / "link.js").symlink_to("/etc/passwd")
    (site.web / "alias.js").symlink_to("package.json")
    (dist / "out.js").symlink_to(site.web.parent / "secret.js")
    (dist / "up").symlink_to(site.web.parent)
    (site.web / "folder.js").mkdir()

    async def scenario():
        async with server(site) as here:
            secret = [str(site.web.parent / "secret.js"), "/" + str(site.web / "live.css")]
            for path in [*PATHS, *secret]:
                answer = await ask(here, path)
                if path.startswith("/live.css?"):
                    assert answer.body == b"body {}"
                    continue
                assert answer.status in (0, 400, 404), path
                assert not any(word in answer.body for word in (b"SECRET", b"root:", b"index.js", b"body")), path
            assert (await ask(here, "/live.css")).status == 200
    run(scenario())


pieces = st.lists(st.sampled_from([
    "/", "..", ".", "%2e", "%2f", "\\", "live.css", "index.js", "index.html", "vendor", "strudel", "chunks",
    "a-1.b.mjs", "secret.js", "outside.js", "package.json", "socket.js", "\x00", "\n", "/vendor/strudel/", "~",
    "C:"]) | st.text(max_size=3), max_size=9).map("".join)


@settings(max_examples=500, deadline=None)
@given(pieces)
def test_whatever_the_path_a_file_is_public(public, path):
    place, files = public
    file = files.find(path)
    dist = (place.node_modules / "@strudel" / "web" / "dist").resolve()
    assert file in {None, place.web / "index.html", place.web / "live.css", place.web / "socket.js",
                    dist / "index.js", dist / "chunks" / "a-1.b.mjs"}
    assert file is None or path in {"/", f"/{file.name}", f"/vendor/strudel/{file.name}",
                                    f"/vendor/strudel/chunks/{file.name}"}


def test_only_get(site):
    async def scenario():
        async with server(site) as here:
            for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "BREW"):
                for path in ("/", "/live.css", "/ws"):
                    answer = await ask(here, path, method=method, more="Content-Length: 0\r\n")
                    assert answer.status in (0, 405), (method, path)
                    assert b"page" not in answer.body and "access-control-allow-origin" not in answer.headers
            body = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\nContent-Length: 9\r\n\r\n{{\"a\": 1}}"
            assert (await ask_raw(here, body.encode())).status in (0, 400, 405)
            assert (await ask(here, "/")).status == 200
    run(scenario())


def test_every_answer_carries_the_headers(site):
    async def scenario():
        async with server(site) as here:
            place = f"127.0.0.1:{here.port}"
            paths = ("/", "/live.css", "/vendor/strudel/index.js", "/nothing", "/ws")
            answers = [await ask(here, path) for path in paths]
            answers.append(await ask(here, "/", method="HEAD"))
            answers.append(await ask(here, "/", more="Origin: http://evil.example\r\n"))
            assert [a.status for a in answers] == [200, 200, 200, 404, 403, 405, 200]
            async with socket(here) as page:
                answers.append(answers[0]._replace(headers={k.lower(): v for k, v in page.response.headers.items()}))
                assert "sec-websocket-extensions" not in page.response.headers
            async with socket(here, compression="deflate") as page:  # a small message may not become a large one
                assert "sec-websocket-extensions" not in page.response.headers
            for answer in answers:
                headers = answer.headers
                assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["cross-origin-resource-policy"] == "same-origin"
                assert not any(name.startswith("access-control") for name in headers) and "server" not in headers
                rules = {name: rest for name, _, rest in (
                    rule.strip().partition(" ") for rule in headers["content-security-policy"].split(";"))}
                assert rules == {
                    "default-src": "'none'", "script-src": "'self' 'unsafe-eval' data: blob:",
                    "worker-src": "'self' blob: data:", "connect-src": f"'self' ws://{place}",
                    "style-src": "'self' 'unsafe-inline'", "img-src": "'self' data:",
                    "media-src": "'self' blob: data:", "frame-ancestors": "'none'", "base-uri": "'none'",
                    "form-action": "'none'"}
            other = await ask(here, "/", host="evil.example; script-src *")
            assert "evil" not in json.dumps(other.headers)
    run(scenario())


def test_noise_on_the_port_disturbs_nobody(site, caplog):
    rng = np.random.default_rng(0)
    upgrade = UPGRADE + "Origin: http://127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}\r\n\r\n"

    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            opening = ("GET /ws HTTP/1.1\r\n" + upgrade.format(port=here.port)).encode()
            head = f"GET /live.css HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n".encode()
            noise = [rng.bytes(int(n)) for n in rng.integers(1, 3000, 60)]
            noise += [opening + rng.bytes(int(n)) for n in rng.integers(1, 300, 60)]
            for _ in range(80):
                broken = bytearray(opening)
                for _ in range(int(rng.integers(1, 5))):
                    broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
                noise.append(bytes(broken))
            noise += [b"\x16\x03\x01" + rng.bytes(500), b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
                      head + b"X: y\r\n" * 5000 + b"\r\n", head + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
                      head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                      head + b"Content-Length: -1\r\n\r\n", b"\r\n" * 2000,
                      b"GET /live.css HTTP/0.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
            for i, data in enumerate(noise):
                _, writer = await asyncio.open_connection("127.0.0.1", here.port)
                writer.write(data)
                writer.write_eof()
                writer.close()
                if i % 20 == 0:
                    await assert_plays_on(here, page, i)
            await until(lambda: len(here.connections) == 1)
            await assert_plays_on(here, page, 1000)
            assert (await ask(here, "/")).status == 200
    run(scenario())
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
