"""live.py and a real browser: what is heard is what the log says, whoever dances, with the server and without it."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from browser import RMS, until, wait
from senders import body, bundle, vmc_messages
from test_sample import export

import live
from eqdiff_jax.music import events
from eqdiff_jax.music.grid import BAR


class Program:
    """live.py in a process of its own, at a fixed port."""

    def __init__(self, weights, folder, port=0, osc=0):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(live.__file__)), "--checkpoint", str(weights), "--log", str(folder), "--http",
             f"127.0.0.1:{port}", "--osc", f"127.0.0.1:{osc}", "--bpm", "240", "--no-browser"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.banner = {}
        for line in self.process.stdout:
            word, _, rest = line.partition(" ")
            self.banner[word] = rest.split()[0] if rest.split() else ""
            if word == "Ctrl-C":
                break
        assert "page" in self.banner, self.process.stderr.read()

    @property
    def port(self):
        return int(self.banner["page"].rstrip("/").rpartition(":")[2])

    def lines(self):
        """The log so far."""
        text = Path(self.banner["log"]).read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def stop(self):
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate()
        assert self.process.returncode == 0 and err == ""
        return out


def dance(port, seconds):
    """A VMC sender for so long, in real time."""
    moves = body(seconds=4.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < seconds:
            out.sendto(bundle(vmc_messages(moves, round(passed * 60) % 240)), ("127.0.0.1", port))
            time.sleep(1 / 60)


@pytest.fixture(scope="module")
def evening(tmp_path_factory, browser):
    """A performance with a browser: a dancer, a performer who comes and goes, a server that stops and comes back."""
    folder = tmp_path_factory.mktemp("evening")
    weights, seen = export(folder / "small"), {}
    program = Program(weights, folder)
    page = browser.new_page()
    troubles = seen["troubles"] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(program.banner["page"])
    wait(page, "window.eqdiff?.link.state === 'connected'")
    page.get_by_role("button", name="Start").click()
    wait(page, f"{RMS} > 0.003")
    until(page, program.lines, "a bar")
    before = program.lines()[-1]["window"]
    until(page, lambda: program.lines()[-1]["window"] >= before + 6, "six grids")
    sender = threading.Thread(target=dance, args=(int(program.banner["OSC"].rpartition(":")[2]), 6.0))
    sender.start()
    wait(page, "document.getElementById('lead').textContent.startsWith('vmc')")
    sender.join()
    wait(page, "!document.getElementById('lead').textContent.startsWith('vmc')")
    seen["first"], seen["onsets"] = program.lines(), page.evaluate("eqdiff.onsets")
    seen["farewell"] = program.stop()
    before = page.evaluate("eqdiff.player.heard()")
    wait(page, f"eqdiff.player.heard() > {before + 4}")
    wait(page, f"{RMS} > 0.003")
    seen["alone"] = [note for note in page.evaluate("eqdiff.onsets") if note["cycle"] > before]
    again = Program(weights, folder, port=program.port)
    wait(page, "eqdiff.link.state === 'connected'")
    until(page, lambda: len({line["window"] for line in again.lines()}) >= 4, "four more grids")
    seen["second"], seen["heard"] = again.lines(), page.evaluate("eqdiff.player.heard()")
    again.stop()
    page.close()
    return seen


def test_every_grid_sounds_as_the_log_says_with_no_note_doubled_or_lost(evening):
    """All notes that the page handed over, bar by bar, against that bar of the grid that the log names: the first of
    its two at even bars, the second at odd ones."""
    grids = {line["window"]: np.array(line["tokens"]) for line in evening["first"]}
    heard = defaultdict(Counter)
    for note in evening["onsets"]:
        bar = int(note["cycle"])
        heard[bar, note["id"]][note["orbit"] - 1, round(16 * (note["cycle"] - bar))] += 1
    bars = sorted({bar for bar, _ in heard})[1:-1]  # whole ones
    compared = []
    for bar, window in heard:
        if bar in bars and window in grids:
            due = Counter((e.track, e.onset % BAR) for e in events(grids[window]) if e.onset // BAR == bar % 2)
            assert heard[bar, window] == due, (bar, window)
            compared.append((bar % 2, window))
    assert len({window for half, window in compared if half}) >= 3 <= len({w for half, w in compared if not half})
    for bar in bars:  # one grid at a time
        assert len([window for b, window in heard if b == bar]) == 1


def test_a_performer_comes_and_goes_without_a_gap(evening):
    bars = [line["bar"] for line in evening["first"]]
    jumps = [b for a, b in zip(bars, bars[1:], strict=False) if b != a + 1]
    assert len(jumps) <= 1  # the page's start
    cycles = np.unique([int(note["cycle"]) for note in evening["onsets"]])
    silent = {line["bar"] for line in evening["first"] if not events(np.array(line["tokens"]))}
    assert set(range(cycles[0], cycles[-1] + 1)) - set(cycles) <= silent | {b + 1 for b in silent}


def test_without_the_server_the_last_grid_plays_on_and_a_new_server_takes_over(evening):
    assert len({note["id"] for note in evening["alone"]}) <= 2 and evening["alone"]
    second = evening["second"]
    assert second[-1]["bar"] > second[0]["bar"] and abs(second[-1]["bar"] - evening["heard"]) < 8  # the page's bars
    assert "bars" in evening["farewell"]


def test_nothing_failed_in_the_page(evening):
    assert evening["troubles"] == []
