// SPDX-License-Identifier: AGPL-3.0-or-later
// The eight drums, computed once, so that nothing is downloaded. They sound as those at the top of a printed song do.

const SECONDS = 0.68;
const fade = (t, seconds) => Math.exp(-t / seconds);
const tone = (turns) => Math.sin(2 * Math.PI * turns);

/** White noise in -1 .. 1, the same each time. */
function noiseFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Name -> a fresh function of the time in seconds, called once per sample in order. */
export const DRUMS = {
  bd: () => (t) => fade(t, 0.1) * tone(45 * t - 4 * fade(t, 0.03)),
  sd: () => {
    const noise = bright(1);
    return (t) => 0.5 * fade(t, 0.04) * tone(190 * t - fade(t, 0.02)) + 0.5 * fade(t, 0.05) * noise();
  },
  hh: () => {
    const noise = bright(2);
    return (t) => fade(t, 0.02) * noise();
  },
  oh: () => {
    const noise = bright(3);
    return (t) => fade(t, 0.1) * noise();
  },
  cp: () => {
    const noise = dull(4); // three short claps, then the room
    return (t) => (t < 0.036 ? fade(t % 0.012, 0.004) : fade(t - 0.036, 0.05)) * noise() * tone(1300 * t) * 2.2;
  },
  rim: () => (t) => 0.5 * fade(t, 0.01) * (tone(1700 * t) + tone(480 * t)),
  tom: () => (t) => fade(t, 0.1) * tone(90 * t - 2 * fade(t, 0.05)),
  perc: () => (t) => 0.5 * fade(t, 0.03) * (tone(560 * t) + tone(840 * t)),
};

function bright(seed) {
  const noise = noiseFrom(seed);
  let last = 0;
  return () => (last - (last = noise())) / 2;
}

function dull(seed) {
  const noise = noiseFrom(seed);
  let low = 0;
  return () => (low += 0.15 * (noise() - low));
}

/** One sound of the kind Strudel's registerSound takes. */
function drumSound(context, wave) {
  const buffer = new AudioBuffer({ length: Math.ceil(SECONDS * context.sampleRate), sampleRate: context.sampleRate });
  const sample = wave();
  buffer.getChannelData(0).forEach((_, i, data) => {
    data[i] = 0.6 * sample(i / context.sampleRate);
  });
  return (start, _value, onended) => {
    const node = new AudioBufferSourceNode(context, { buffer });
    node.onended = onended;
    node.start(Math.round(start * context.sampleRate) / context.sampleRate); // between samples, noise would be softer
    return { node, stop: (time) => node.stop(time) };
  };
}

/** Give Strudel all eight under their usual names. */
export function registerDrums(strudel, context) {
  for (const [name, wave] of Object.entries(DRUMS)) strudel.registerSound(name, drumSound(context, wave), { type: 'drum' });
}
