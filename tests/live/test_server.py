import asyncio
import contextlib
import itertools
import json
import socket as sockets

import pytest
from pages import STATE, ask, closed, folders, hear, hello, run, say, server, socket
from websockets.exceptions import InvalidStatus

from eqdiff_jax.errors import InputError
from eqdiff_jax.live import gate
from eqdiff_jax.live import server as module
from eqdiff_jax.live.server import Inbox
from eqdiff_jax.live.wire import (
    RANGES,
    Clock,
    Error,
    Eval,
    Evaluated,
    Hello,
    Hush,
    MotionModulate,
    Pong,
    Request,
    SetParam,
    View,
    WireError,
    encode,
)


@pytest.fixture
def site(tmp_path):
    return folders(tmp_path)


async def until(condition) -> None:
    """Let the others work until this holds."""
    while not condition():
        await asyncio.sleep(0.001)


def test_the_page_and_its_parts_are_served(site):
    async def scenario():
        async with server(site) as here:
            for path, kind, body in (("/", "text/html", b"<!doctype html>page"), ("/live.css", "text/css", b"body {}"),
                                     ("/socket.js", "text/javascript", b"export {}"),
                                     ("/vendor/strudel/index.js", "text/javascript", b"var strudel = {}"),
                                     ("/vendor/strudel/chunks/a-1.b.mjs", "text/javascript", b"export {}"),
                                     ("/?view=stage", "text/html", b"<!doctype html>page")):
                answer = await ask(here, path)
                assert (answer.status, answer.body) == (200, body), path
                assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
                assert answer.headers["content-length"] == str(len(body))
            assert here.url == f"http://127.0.0.1:{here.port}/"
    run(scenario())


def test_a_file_larger_than_any_buffer_arrives_whole_also_at_a_slow_reader(site):
    big = bytes(range(256)) * 2000
    (site.node_modules / "@strudel" / "web" / "dist" / "index.js").write_bytes(big)

    async def scenario():
        async with server(site) as here:
            loop, slow = asyncio.get_running_loop(), sockets.socket()
            slow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", here.port))
            request = f"GET /vendor/strudel/index.js HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n\r\n"
            await loop.sock_sendall(slow, request.encode())
            answer = b""
            while piece := await loop.sock_recv(slow, 4096):
                answer += piece
                await asyncio.sleep(0.002)
            assert answer.partition(b"\r\n\r\n")[2] == big
            slow.close()
    run(scenario())


def test_hello_is_answered_with_everything_and_reaches_the_engine(site):
    async def scenario():
        async with server(site, clock=lambda: 42.0) as here, socket(here) as page:
            assert not here.player
            state = await hello(page)
            assert here.player
            assert state == json.loads(encode(STATE)) and state["ranges"]["bpm"] == list(RANGES["bpm"])
            assert await here.inbox.get() == (Hello(1, "session-1", "1.3.0", ("bd", "sd")), 42.0)
    run(scenario())


def test_messages_go_both_ways(site):
    said = [Clock(1.0, 1.2, 0.5, "running", 2.0, 2000.0, 0.01), Evaluated(7, 8.0), Error(None, "eval", "no", 3),
            Pong(1, 2.0, 3.0), Request("bpm", 90.0), Request("genre", None)]
    sent = [Eval('s("bd")', id=8), SetParam("bpm", 90.0), Hush(), MotionModulate("pan", 0.5, "lr_pan"),
            View([], [], [], {}, [], None, (), 0.0, 0, 1.0)]

    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            for message in said:
                await say(page, message)
            await here.inbox.get()
            assert [(await here.inbox.get())[0] for _ in said] == said
            for message in sent:
                here.send(message)
            assert [await hear(page) for _ in sent] == [json.loads(encode(message)) for message in sent]
    run(scenario())


def test_numbers_are_clamped_on_the_way_out_and_what_has_no_place_does_not_leave(site, caplog):
    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            here.send(SetParam("bpm", 1e9))
            assert (await hear(page))["value"] == 240.0
            for wrong in (SetParam("nothing", 1.0), MotionModulate("pan", float("nan"), "lr_pan")):
                with pytest.raises(WireError):
                    here.send(wrong)
            here.send(Eval("x", margin=float("nan")))
            await until(lambda: here.refused["unsendable"])
            here.send(Eval("y"))
            assert (await hear(page))["pattern"] == "y"
    run(scenario())
    assert [record.message[:8] for record in caplog.records if record.levelname == "ERROR"] == ["not sent"]


def test_without_a_page_messages_are_dropped_and_state_says_it_all(site):
    async def scenario():
        async with server(site) as here:
            for i in range(1000):
                here.send(Eval("x", id=i))
            async with socket(here) as page:
                assert (await hello(page))["type"] == "State"
                here.send(Hush())
                assert (await hear(page))["type"] == "Hush"
            await until(lambda: not here.player)
            here.state = lambda: STATE._replace(id=99, bpm=133.0)
            async with socket(here) as page:
                state = await hello(page)
                assert (state["id"], state["bpm"]) == (99, 133.0)
    run(scenario())


def test_a_page_that_comes_before_there_is_a_state_may_come_again(site):
    async def scenario():
        async with server(site, state=None) as here:
            with pytest.raises(InvalidStatus, match="503"):
                await socket(here)
            assert (await ask(here, "/")).status == 200 and here.refused == {"early": 1}
            here.state = lambda: STATE
            async with socket(here) as page:
                assert (await hello(page))["type"] == "State"
    run(scenario())


def test_a_server_that_was_killed_and_started_again_gives_the_page_its_state(site):
    async def scenario():
        async with server(site) as here:
            port = here.port
            page = await socket(here)
            assert (await hello(page))["id"] == 7
            stopped = asyncio.create_task(closed(page))
        assert (await stopped)[0] == 1001
        with pytest.raises(OSError, match="refused|Connect"):
            await ask(here, "/")
        later = STATE._replace(id=8, params={"pan": -0.5})
        async with server(site, port=port, state=lambda: later) as again, socket(again) as page:
            state = await hello(page)
            assert state == json.loads(encode(later))
            again.send(Eval("x", id=9))
            assert (await hear(page))["id"] == 9
    run(scenario())


def test_the_same_session_takes_the_place_of_its_own_connection(site):
    async def scenario():
        async with server(site) as here, socket(here) as first, socket(here) as second:
            await hello(first)
            assert (await hello(second))["type"] == "State"
            assert await closed(first) == (4001, "another page plays")
            assert here.player
            here.send(Hush())
            assert (await hear(second))["type"] == "Hush"
            await say(second, Request("bpm", 99.0))
            await until(lambda: here.inbox.qsize() == 3)
    run(scenario())


def test_a_connection_that_broke_without_a_word_is_replaced_at_once(site):
    async def scenario():
        async with server(site) as here:
            dead = await socket(here)
            await hello(dead)
            dead.transport.pause_reading()  # as behind a network that is gone
            async with socket(here) as page:
                assert (await hello(page))["type"] == "State"
                await until(lambda: len(here.connections) == 1)
                assert here.player
            dead.transport.abort()
    run(scenario())


def test_a_replaced_connection_is_not_listened_to(site):
    async def scenario():
        async with server(site) as here, socket(here) as first, socket(here) as second:
            await hello(first)
            first.transport.pause_reading()  # it does not hear that it was replaced
            await hello(second)
            for i in range(5):
                await say(first, Pong(i, 0.0, 0.0))
            await until(lambda: len(here.connections) == 1)
            assert [type(here.inbox.get_nowait()[0]) for _ in range(here.inbox.qsize())] == [Hello, Hello]
            first.transport.abort()
    run(scenario())


def test_hello_again_on_the_same_socket_asks_for_state_again(site):
    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            here.state = lambda: STATE._replace(id=12)
            assert (await hello(page))["id"] == 12
            await say(page, Hello(1, "session-2"))
            assert (await closed(page))[0] == 1008
            await until(lambda: not here.player)
    run(scenario())


def test_a_page_that_reads_nothing_is_dropped_and_memory_does_not_grow(site, monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.2)

    async def scenario():
        async with server(site) as here:
            raw = sockets.socket()
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", here.port))
            page = await socket(here, sock=raw)
            await hello(page)
            page.transport.pause_reading()
            outbox = here._page.outbox
            i = 0
            while here.player:
                i += 1
                here.send(Eval("x" * 30_000, id=i))
                here.send(MotionModulate("pan", (i % 100) / 200, "lr_pan"))
                assert len(outbox) <= outbox.bound
                await asyncio.sleep(0.001)
            assert here.refused["slow"] == 1
            page.transport.abort()
            async with socket(here) as page:
                assert (await hello(page))["type"] == "State"
    run(scenario())


def test_a_full_inbox_gives_up_its_oldest_clock():
    async def scenario():
        def clock(i: int) -> Clock:
            return Clock(float(i), i + 0.1, 0.5, "running", 1.0, 1.0)

        inbox = Inbox(4)
        for message in (Request("hush", True), clock(1), Evaluated(1, 2.0), clock(2), clock(3), Request("bpm", 90.0)):
            inbox.push(message, 0.0)
        assert [inbox.get_nowait()[0] for _ in range(inbox.qsize())] == [
            Request("hush", True), Evaluated(1, 2.0), clock(3), Request("bpm", 90.0)]
        for i in range(6):
            inbox.push(Evaluated(i, 0.0), float(i))
        assert [inbox.get_nowait() for _ in range(4)] == [(Evaluated(i, 0.0), float(i)) for i in (2, 3, 4, 5)]
    run(scenario())


def test_an_engine_that_does_not_listen_costs_a_bounded_number_of_messages(site):
    slow = itertools.count(0.0, 2 / module.RATE).__next__  # a clock by which the page is never too fast

    async def scenario():
        async with server(site, clock=slow) as here, socket(here) as page:
            await hello(page)
            await say(page, Request("bpm", 77.0))
            for i in range(module.INBOX + 40):
                await say(page, Clock(float(i), 0.0, 0.5, "running", 1.0, 1.0))
            await until(lambda: here.inbox.full())
            await say(page, Evaluated(1, 2.0))
            await until(lambda: isinstance(here.inbox._queue[-1][0], Evaluated))
            waiting = [here.inbox.get_nowait()[0] for _ in range(here.inbox.qsize())]
            assert len(waiting) == module.INBOX
            assert waiting[1] == Request("bpm", 77.0)
            assert waiting[-2].heard == module.INBOX + 39
    run(scenario())


def test_an_engine_whose_state_fails_closes_the_socket_and_the_next_page_may_try(site, caplog):
    def broken():
        raise RuntimeError("no state yet")

    async def scenario():
        async with server(site, state=broken) as here:
            async with socket(here) as page:
                await say(page, Hello(1, "session-1"))
                assert (await closed(page))[0] == 1011
            await until(lambda: not here.player)
            here.state = lambda: STATE
            async with socket(here) as page:
                assert (await hello(page, "session-2"))["type"] == "State"
    run(scenario())
    assert "no state yet" in caplog.text


def test_localhost_is_where_people_type_127_0_0_1(site, monkeypatch):
    known = sockets.getaddrinfo("127.0.0.1", 0, type=sockets.SOCK_STREAM)
    other = (sockets.AF_INET6, sockets.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
    monkeypatch.setattr(gate.socket, "getaddrinfo", lambda *_, **__: [other, *known])

    async def scenario():
        async with server(site, host="localhost") as here:
            assert (await ask(here, "/")).status == 200
            assert (await ask(here, "/", host=f"localhost:{here.port}")).status == 200
    run(scenario())


def test_little_lies_in_the_system_s_buffers_where_newer_values_cannot_replace_it(site):
    async def scenario():
        async with server(site) as here, socket(here) as page:
            await hello(page)
            [connection] = here.connections
            buffer = connection.transport.get_extra_info("socket").getsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF)
            assert buffer <= 2 * gate.SEND_BUFFER  # Linux says twice what was asked for
    run(scenario())


def test_it_stops_although_nobody_answers(site):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            here = await stack.enter_async_context(server(site))
            page = await socket(here)
            await hello(page)
            page.transport.pause_reading()
            _, half = await asyncio.open_connection("127.0.0.1", here.port)
            half.write(b"GET / HT")
            await until(lambda: len(here.connections) == 2)
        assert not here.connections and not here.player
        half.close()
        page.transport.abort()
    run(scenario())


@pytest.mark.parametrize(("changes", "words"), [
    ({"host": "203.0.113.9"}, ["203.0.113.9", "no address of this computer", "127.0.0.1:0"]),
    ({"host": "no.such.name.invalid"}, ["no.such.name.invalid", "127.0.0.1"]),
    ({"host": "x" * 300}, ["no address of this computer"]),
    ({"port": 70000}, ["70000", "1024 .. 65535"]),
    ({"token": "short"}, ["--token", "8 to 128"]), ({"token": "spaces in it"}, ["--token"]),
    ({"token": ""}, ["--token"])])
def test_settings_that_cannot_be_used_are_named_in_one_line(site, changes, words):
    async def scenario():
        async with server(site, **changes):
            pass
    with pytest.raises(InputError) as raised:
        run(scenario())
    assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)


def test_a_taken_port_is_named(site):
    async def scenario():
        async with server(site) as here:
            with pytest.raises(InputError) as raised:
                async with server(site, port=here.port):
                    pass
            assert f"port {here.port} is taken" in str(raised.value) and "\n" not in str(raised.value)
            assert (await ask(here, "/")).status == 200
    run(scenario())


def test_missing_npm_packages_are_named_with_the_one_command(site):
    (site.node_modules / "@strudel" / "web" / "dist" / "index.js").unlink()
    with pytest.raises(InputError, match="Strudel is not installed .*: run `npm ci --prefix web`$") as raised:
        server(site)
    assert "\n" not in str(raised.value)
    (site.web / "index.html").unlink()
    with pytest.raises(InputError, match=r"index\.html"):
        server(site)


def test_small_messages_leave_at_once():
    """Connections inherit it: without it a value may wait 40 ms for the acknowledgement of the one before."""
    with gate.listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
        with sockets.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY)
