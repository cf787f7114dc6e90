// SPDX-License-Identifier: AGPL-3.0-or-later
// What stands between Strudel and the loudspeakers: one bus per track, a room they share, the master with a
// limiter, and a meter. Everything here is an AudioParam, so it moves at once and no pattern is evaluated again.
//
//   orbit -> hpf -> lpf -> pan -> gain -+-> Strudel's output -> hpf -> lpf -> gain -> volume -> mute -> limiter -> out
//                                       +-> room ---^

const OPEN_LPF = 20000, OPEN_HPF = 10; // Hz; a filter that lets all through
const GLIDE = 0.012; // s, time constant of every move: soon, without a click
const ROOM_SECONDS = 1.8;

// Parameters by name: what they move, and on which tracks (none: on the master). The table of
// eqdiff_jax/music/modulation.py; names bus_<track>_<control> and master_<control> work as well.
const CHORDS = ['PAD', 'LEAD', 'STAB', 'ARP', 'VOX', 'AMB'];
export const ROUTES = {
  bass_gain: ['gain', ['KICK', 'BASS']],
  drums_gain: ['gain', ['SNARE', 'HH', 'CLAP', 'FX']],
  pads_gain: ['gain', ['PAD', 'AMB']],
  pump_gain: ['gain', ['STAB', 'ARP', 'VOX']],
  pan: ['pan', ['HH', 'LEAD', 'STAB', 'ARP', 'FX']],
  lead_lpf: ['lpf', ['LEAD', 'ARP']],
  lift_hpf: ['hpf', CHORDS],
  room: ['room', ['SNARE', 'CLAP', 'FX', ...CHORDS]],
  master_lpf: ['lpf', []],
  master_gain: ['gain', []],
};
const LIMITS = { gain: [0, 2], pan: [-1, 1], lpf: [20, OPEN_LPF], hpf: [OPEN_HPF, 18000], room: [0, 1] };

/** [control, tracks] of a parameter that lives on a bus, or undefined. */
export function routeOf(name) {
  if (Object.hasOwn(ROUTES, name)) return ROUTES[name];
  const track = /^bus_([a-z]+)_(gain|pan|lpf|hpf|room)$/.exec(name);
  if (track) return [track[2], [track[1].toUpperCase()]];
  const master = /^master_(gain|lpf|hpf)$/.exec(name);
  return master ? [master[1], []] : undefined;
}

export class Mixer {
  #set = new Map(); // parameter -> value

  /** `controller` is Strudel's audio controller; track i plays on orbit i + 1. */
  constructor(context, controller, tracks) {
    this.context = context;
    this.#buildMaster(controller.output.destinationGain);
    this.#buildRoom(controller.output.destinationGain);
    this.buses = Object.fromEntries(tracks.map((name, i) => [name, this.#bus(controller, i + 1)]));
    this.samples = new Float32Array(this.analyser.fftSize);
  }

  /** Move a bus parameter. False when no bus has it. */
  set(name, value) {
    const [control, tracks] = routeOf(name) ?? [];
    const buses = tracks?.length ? tracks.map((track) => this.buses[track]) : [this.master];
    const params = control ? buses.flatMap((bus) => bus?.[control] ?? []) : [];
    const [low, high] = LIMITS[control] ?? [];
    value = Math.min(Math.max(value, low), high);
    const before = this.#set.get(name) ?? NaN;
    if (Math.abs(value - before) <= 0.004 * Math.max(0.05, Math.abs(value))) return true; // nobody hears the difference
    this.#set.set(name, value);
    for (const param of params) this.glide(param, value);
    return params.length > 0;
  }

  /** Let a parameter run to a value from `time` on; the newest call wins. */
  glide(param, value, time = this.context.currentTime, seconds = GLIDE) {
    param.cancelScheduledValues(time);
    param.setTargetAtTime(value, time, seconds);
  }

  set volume(value) {
    this.glide(this.volumeNode.gain, value * value); // loudness follows about the square
  }

  /** Silence everything, tails too, or let it sound again from `time` on. */
  mute(silent, time) {
    this.glide(this.muteNode.gain, silent ? 0 : 1, time, 0.008);
  }

  /** Root mean square at the master over the last 46 ms, and the highest sample in it. */
  meter() {
    this.analyser.getFloatTimeDomainData(this.samples);
    let sum = 0, peak = 0;
    for (const x of this.samples) {
      sum += x * x;
      peak = Math.max(peak, Math.abs(x));
    }
    return { rms: Math.sqrt(sum / this.samples.length), peak };
  }

  #filter(type, frequency) {
    return new BiquadFilterNode(this.context, { type, frequency, Q: Math.SQRT1_2 });
  }

  #buildMaster(input) {
    const gain = (value = 1) => new GainNode(this.context, { gain: value });
    const hpf = this.#filter('highpass', OPEN_HPF), lpf = this.#filter('lowpass', OPEN_LPF), level = gain();
    this.volumeNode = gain();
    this.muteNode = gain();
    // Its make-up gain is (1 / gain at full scale)^0.6, here 10^(0.6 * 5.7 / 20), which `trim` takes back; with the
    // 1/2 the curve below sees -2 .. 2 as -1 .. 1.
    const limiter = new DynamicsCompressorNode(this.context, { threshold: -6, knee: 0, ratio: 20, attack: 0.002, release: 0.12 });
    const trim = gain(0.5 / 10 ** ((0.6 * 5.7) / 20));
    const ceiling = new WaveShaperNode(this.context, { curve: ceilingCurve() }); // whatever comes, no sample beyond it
    this.analyser = new AnalyserNode(this.context, { fftSize: 2048 });
    const chain = [input, hpf, lpf, level, this.volumeNode, this.muteNode, limiter, trim, ceiling, this.analyser];
    input.disconnect();
    chain.reduce((from, to) => from.connect(to)).connect(this.context.destination);
    this.master = { gain: level.gain, lpf: lpf.frequency, hpf: hpf.frequency };
  }

  #buildRoom(output) {
    const { sampleRate } = this.context;
    const buffer = new AudioBuffer({ numberOfChannels: 2, length: ROOM_SECONDS * sampleRate, sampleRate });
    for (const channel of [0, 1]) {
      let low = 0;
      buffer.getChannelData(channel).forEach((_, i, data) => {
        const t = i / sampleRate;
        low += (0.25 + 0.6 * Math.exp(-t / 0.3)) * (2 * Math.random() - 1 - low); // highs die first
        data[i] = low * Math.exp((-6.9 * t) / ROOM_SECONDS) * Math.min(1, t / 0.01);
      });
    }
    this.room = new ConvolverNode(this.context, { buffer });
    this.room.connect(output);
  }

  /** Put the chain of one track between its orbit and Strudel's output. */
  #bus(controller, number) {
    const channels = [0, 1];
    const orbit = controller.getOrbit(number, channels);
    const hpf = this.#filter('highpass', OPEN_HPF), lpf = this.#filter('lowpass', OPEN_LPF);
    const pan = new StereoPannerNode(this.context), level = new GainNode(this.context);
    const send = new GainNode(this.context, { gain: 0 });
    orbit.output.disconnect();
    [orbit.output, hpf, lpf, pan, level, send, this.room].reduce((from, to) => from.connect(to));
    controller.output.connectToDestination(level, channels);
    return { gain: level.gain, pan: pan.pan, lpf: lpf.frequency, hpf: hpf.frequency, room: send.gain };
  }
}

/** Straight up to 0.7, then bending towards 0.98; over -1 .. 1 for inputs of -2 .. 2. */
function ceilingCurve(points = 4097) {
  const soft = (x) => (x < 0.7 ? x : 0.7 + 0.28 * Math.tanh((x - 0.7) / 0.28));
  return Float32Array.from({ length: points }, (_, i) => {
    const x = 2 * ((2 * i) / (points - 1) - 1);
    return Math.sign(x) * soft(Math.abs(x));
  });
}
