"""Drums without samples: JavaScript that stands at the top of a printed song.

Strudel plays bd, sd, hh .. from samples that it downloads. Where its audio functions are in scope, these lines
register a computed sound under each drum's name; elsewhere they do nothing. Strudel takes double-quoted strings
and template literals for mini-notation, so there are none.
"""

DRUMS = """\
// The drums, computed so that nothing is downloaded; without this block Strudel plays the samples it knows.
if (globalThis.registerSound && globalThis.getAudioContext) {
  const fade = (t, seconds) => Math.exp(-t / seconds), tone = (turns) => Math.sin(2 * Math.PI * turns);
  let low = 0, last = 0;
  const noise = () => 2 * Math.random() - 1;
  const dull = () => low += .15 * (noise() - low), bright = () => (last - (last = noise())) / 2;
  const drum = (name, wave) => {
    const buffer = new AudioBuffer({ length: 30000, sampleRate: 44100 });
    buffer.getChannelData(0).forEach((_, i, samples) => { samples[i] = .6 * wave(i / 44100); });
    registerSound(name, (start, _, onended) => {
      const audio = getAudioContext(), node = new AudioBufferSourceNode(audio, { buffer });
      node.onended = onended;
      node.start(Math.round(start * audio.sampleRate) / audio.sampleRate); // between samples, noise would be softer
      return { node, stop: (at) => node.stop(at) };
    });
  };
  // t in seconds
  drum('bd', (t) => fade(t, .1) * tone(45 * t - 4 * fade(t, .03)));
  drum('sd', (t) => fade(t, .04) * tone(190 * t - fade(t, .02)) / 2 + fade(t, .05) * bright() / 2);
  drum('hh', (t) => fade(t, .02) * bright());
  drum('oh', (t) => fade(t, .1) * bright());
  drum('cp', (t) => (t < .036 ? fade(t % .012, .004) : fade(t - .036, .05)) * dull() * tone(1300 * t) * 2.2);
  drum('rim', (t) => fade(t, .01) * (tone(1700 * t) + tone(480 * t)) / 2);
  drum('tom', (t) => fade(t, .1) * tone(90 * t - 2 * fade(t, .05)));
  drum('perc', (t) => fade(t, .03) * (tone(560 * t) + tone(840 * t)) / 2);
}
"""
