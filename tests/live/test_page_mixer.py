"""The page's mixer, rendered without a loudspeaker: what each bus control does to the sound, and that nothing clips."""

import numpy as np
import pytest
from browser import open_page

RATE = 44100
# A second of a signal through one track's bus of a real Mixer, in an audio context that renders at once.
RENDER = """async ([rate, kind, level, track, settings]) => {
  const { Mixer } = await import('/mixer.js'), { TRACKS } = await import('/vocabulary.js');
  const context = new OfflineAudioContext(2, rate, rate), destinationGain = new GainNode(context);
  destinationGain.connect(context.destination);
  const orbits = {}, getOrbit = (n) => (orbits[n] ??= { output: new GainNode(context) });
  const output = { destinationGain, connectToDestination: (node) => node.connect(destinationGain) };
  const mixer = new Mixer(context, { output, getOrbit }, TRACKS);
  for (const [name, value] of settings) mixer.set(name, value);
  const buffer = new AudioBuffer({ numberOfChannels: 2, length: rate, sampleRate: rate });
  let state = 1;
  const noise = () => (state = (state * 16807) % 2147483647) / 1073741824 - 1;
  for (const channel of [0, 1]) buffer.getChannelData(channel).forEach((_, i, data) => {
    const beat = i % 11025 < 300 ? 1 : 0;
    const x = noise(), kinds = { noise: x, tone: Math.sin(i * 0.05), hits: beat * x, half: i < rate / 2 ? x : 0 };
    data[i] = level * kinds[kind];
  });
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(getOrbit(1 + TRACKS.indexOf(track)).output);
  source.start();
  const rendered = await context.startRendering();
  return [0, 1].map((channel) => [...rendered.getChannelData(channel)]);
}"""


@pytest.fixture
def render(browser, stage):
    """(kind, level, track, settings) -> sound [2, RATE]."""
    page = open_page(browser, stage, start=False)
    yield lambda kind, level, track="PAD", *settings: np.array(
        page.evaluate(RENDER, [RATE, kind, level, track, settings]))
    page.close()


def bands(sound: np.ndarray) -> np.ndarray:
    """Energies [2 channels, 3 bands] below 300 Hz, in between and above 6 kHz, from the second half on."""
    power = np.abs(np.fft.rfft(sound[:, RATE // 2:])) ** 2
    frequency = np.fft.rfftfreq(RATE - RATE // 2, 1 / RATE)
    edges = (frequency < 300, (frequency >= 300) & (frequency < 6000), frequency >= 6000)
    return np.stack([power[:, band].sum(1) for band in edges], 1)


def test_each_control_does_what_it_says(render):
    plain = bands(render("noise", 0.05))
    share = {name: bands(render("noise", 0.05, "PAD", (name, value))) / plain for name, value in {
        "pads_gain": 0.5, "bus_pad_gain": 0.5, "bus_pad_pan": -1, "bus_pad_lpf": 500, "bus_pad_hpf": 3000,
        "master_gain": 0.5, "master_lpf": 500, "master_hpf": 3000, "bass_gain": 0.5, "bus_pad_room": 0.8}.items()}
    for name in ("pads_gain", "bus_pad_gain", "master_gain"):
        assert share[name] == pytest.approx(0.25, rel=0.01), name
    assert share["bass_gain"] == pytest.approx(1.0), "another track's"
    left, right = share["bus_pad_pan"]
    assert left.min() > 1.8 and right.max() < 1e-3
    for name in ("bus_pad_lpf", "master_lpf"):
        low, _, high = share[name].T
        assert low.min() > 0.8 and high.max() < 0.01, name
    for name in ("bus_pad_hpf", "master_hpf"):
        low, _, high = share[name].T
        assert low.max() < 0.01 and high.min() > 0.9, name
    assert (share["bus_pad_room"] > 1.02).all()


def test_the_room_rings_on_after_the_sound(render):
    dry, wet = (np.abs(render("half", 0.1, "PAD", ("room", value))[:, 26000:30000]).max() for value in (0.0, 0.5))
    assert wet > 30 * dry


def test_a_quiet_sound_passes_as_it_is(render):
    tone = render("tone", 0.1)[:, 5000:]
    assert np.abs(tone).max() == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("kind", ["noise", "tone", "hits"])
def test_however_loud_nothing_clips(render, kind):
    peak = np.abs(render(kind, 300.0, "KICK")).max()
    assert 0.5 < peak <= 0.981
