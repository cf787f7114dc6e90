// SPDX-License-Identifier: AGPL-3.0-or-later
// Plays Strudel code: evaluates it, changes to it exactly on a bar line, and hands its notes to superdough a little
// ahead of time. The last good pattern plays on, whatever comes.

import { registerDrums } from './drums.js';
import { Mixer } from './mixer.js';
import { Layers, Tempo, border, level, nextBar } from './timeline.js';

/* global strudel */

// Seconds between two looks at the patterns, and how far ahead notes are handed over. `safe` is about what stock Strudel
// does (clock 0.05/0.1/0.1 and a latency of 0.1); `tight` answers a gesture sooner. A page that is held up for so long
// that notes might come late looks further ahead, up to `most`, and comes back slowly.
export const LOOKAHEAD = {
  safe: { tick: 0.04, ahead: 0.25, most: 1 },
  tight: { tick: 0.012, ahead: 0.05, most: 0.25 },
};
const REST = 3; // looking takes at most one part in so many of the page's time
const RETURN = 6; // s, time constant of coming back
const LATEST = 0.1; // s; a note later than this is left out, one less late is played at once
const SOON = 0.012; // s from now that a late note is played
const GIVE_UP = 5; // s; after a longer stop of the page the music goes on at the present moment
const REMEMBERED = 8192; // onsets
const POLYPHONY = 128; // notes that sound at once; beyond it the oldest fade

export class Player extends EventTarget {
  static async create(tracks) {
    const player = new Player();
    player.repl = await strudel.initStrudel({ onEvalError: (error) => (player.failure = error) });
    player.context = strudel.getAudioContext();
    await strudel.evalScope({ param: player.param });
    registerDrums(strudel, player.context);
    player.mixer = new Mixer(player.context, strudel.getSuperdoughAudioController(), tracks);
    player.context.onstatechange = () => player.#tell('audio', player.context.state);
    return player;
  }

  tempo = new Tempo(0.5);
  layers = new Layers();
  params = Object.create(null); // values that patterns read through param('name', default)
  onsets = []; // the notes handed over last: {cycle, length, orbit, sound, note, time, velocity, id, late, value}
  lookahead = 'safe';
  ahead = LOOKAHEAD.safe.ahead; // s, just now
  started = false;
  held = false; // a person's hush, which holds until they play on
  silenced = false; // the server's hush, which ends with the next pattern
  frontier = 0; // cycle up to which notes have been handed over
  late = 0; // notes that came after their time
  #queue = Promise.resolve();
  #rested = 0; // when the patterns may be looked at again
  #missing = new Set();
  #told = new Map();

  param = (name, otherwise) => strudel.signal(() => this.params[name] ?? otherwise);

  get sounds() {
    return Object.keys(strudel.soundMap.get());
  }

  /** Seconds between two calls of tick. */
  get period() {
    return LOOKAHEAD[this.lookahead].tick;
  }

  get running() {
    return this.started && this.context.state === 'running';
  }

  /** Let it sound; call it from a click or a key, without which browsers keep the audio clock still. */
  async start() {
    await this.context.resume(); // Strudel's initAudio does not
    await strudel.initAudio({ maxPolyphony: POLYPHONY });
    if (!this.started) {
      this.tempo.begin(this.context.currentTime + this.ahead + 0.05);
      this.started = true;
    }
    this.#tell('audio', this.context.state);
  }

  /**
   * Evaluate code and play it from a bar line on: the first multiple of `bars` at or after `cycle` whose notes are not
   * handed over yet. With `beats` it fades in over so many beats. Resolves to the layer, or null when the code is bad.
   */
  play({ id = null, pattern, at = 'bar', bars = 2, cycle = 0, beats = 0, ...shown }) {
    const job = async () => {
      const made = await this.#evaluate(id, pattern);
      if (!made) return null;
      const earliest = Math.max(this.frontier, cycle);
      const from = at === 'now' ? border(earliest) : nextBar(earliest, bars); // nothing may wait from here to the switch
      const notes = this.#check(id, made, from, bars);
      if (!notes) return null;
      const layer = { id, pattern: made, code: pattern, notes, bars, shown, before: this.last };
      if (this.last) this.last.before = undefined; // one step back is enough
      const added = beats > 0 ? this.layers.fadeTo(layer, from, beats / 4) : this.layers.switchTo(layer, from);
      this.last = layer;
      this.silenced = false;
      this.#sound(this.tempo.timeOf(from) - 0.02);
      this.#tell('evaluated', { id, at_cycle: from });
      return added;
    };
    return (this.#queue = this.#queue.then(job, job)); // one after the other: Strudel collects labels in one place
  }

  /** Silence until the next pattern. */
  hush() {
    this.layers.clear();
    this.silenced = true;
    this.#sound();
  }

  /** A person's hush: silence until hold(false), while patterns change underneath. */
  hold(silent) {
    this.held = silent;
    if (!silent && this.silenced && this.last) {
      this.layers.switchTo(this.last, this.frontier);
      this.silenced = false;
    }
    this.#sound();
  }

  /** A setting or parameter. Tempo changes here only. */
  set(name, value) {
    if (name === 'bpm') this.#setCps(value / 240);
    else if (name === 'lookahead') this.#setLookahead(value >= 0.5 ? 'tight' : 'safe');
    else if (name === 'volume') this.mixer.volume = value;
    else if (!this.mixer.set(name, value)) this.params[name] = value;
  }

  /** Cycle that is in the air at this moment of the audio clock. */
  heard(time = this.context.currentTime) {
    return this.started ? Math.max(0, this.tempo.cycleAt(time - (this.context.outputLatency || 0))) : 0;
  }

  clock() {
    return {
      heard: this.heard(), frontier: this.frontier, cps: this.tempo.cps,
      audio_state: this.started ? this.context.state : 'suspended', // some browsers let it run before the start
      audio_time: this.context.currentTime, perf_now: performance.now(), output_latency: this.context.outputLatency || 0,
    };
  }

  /** Hand over the notes up to the lookahead; called by a timer. */
  tick() {
    const begun = performance.now();
    if (!this.running || begun < this.#rested) return;
    const now = this.context.currentTime;
    this.#lookAhead(this.tempo.timeOf(this.frontier) - now);
    if (this.tempo.timeOf(this.frontier) < now - GIVE_UP) this.frontier = border(this.tempo.cycleAt(now));
    const end = border(this.tempo.cycleAt(now + this.ahead));
    if (end <= this.frontier) return;
    for (const piece of this.layers.within(this.frontier, end)) this.#handOver(piece);
    this.frontier = end;
    this.layers.prune(this.heard() - 1);
    this.#rested = begun + Math.min(REST * (performance.now() - begun), 250 * this.ahead);
  }

  /** How far ahead from now on; `left` is how much of what was handed over is still to come, in seconds. */
  #lookAhead(left) {
    const { tick, ahead, most } = LOOKAHEAD[this.lookahead];
    if (left < ahead / 4) this.ahead = Math.min(most, this.ahead + ahead / 2);
    else this.ahead += (ahead - this.ahead) * (tick / RETURN);
  }

  #handOver({ layer, begin, end }) {
    let notes;
    try {
      notes = this.#query(layer.pattern, begin, end);
    } catch (error) {
      this.#tell('failed', { id: layer.id, stage: 'query', ...described(error) });
      const good = layer.before && { ...layer.before, in: layer.in, out: layer.out };
      this.layers.replace(layer, good); // the code worked for its first bars only: back to the one before
      if (good) this.#handOver({ layer: good, begin, end });
      return;
    }
    for (const note of notes) this.#trigger(note, layer);
  }

  #trigger({ value, ...note }, layer) {
    const { cycle } = note, { cps } = this.tempo;
    const played = { ...value, velocity: (value.velocity ?? 1) * level(layer, cycle) };
    const due = this.tempo.timeOf(cycle), now = this.context.currentTime;
    const late = Math.max(now - due, 0), time = late ? now + SOON : due;
    if (late) this.late += 1;
    this.onsets.push({ ...note, time, velocity: played.velocity, id: layer.id, late, value });
    if (this.onsets.length > REMEMBERED) this.onsets.splice(0, REMEMBERED / 4);
    const unknown = this.#unknown(value);
    if (unknown) return this.#report([unknown]);
    if (late > LATEST) return;
    strudel.superdough(played, time, note.length / cps, cps, cycle).catch((error) =>
      this.#tellOnce('failed', { id: layer.id, stage: 'sound', ...described(error) }));
  }

  async #evaluate(id, code) {
    this.failure = undefined;
    try {
      const pattern = await this.repl.evaluate(code, false); // says errors only through onEvalError
      if (this.failure) throw this.failure;
      if (pattern === strudel.silence && !code.includes('silence')) throw new Error('the code gives no pattern');
      return pattern;
    } catch (error) {
      this.#tell('failed', { id, stage: 'evaluate', ...described(error) });
      return null;
    }
  }

  /** The notes of the first `bars` cycles, two at least, or null if they cannot be played. */
  #check(id, pattern, from, bars) {
    try {
      const notes = this.#query(pattern, from, from + Math.max(bars, 2));
      this.#report(notes.map(({ value }) => this.#unknown(value)).filter(Boolean));
      return notes;
    } catch (error) {
      this.#tell('failed', { id, stage: 'query', ...described(error) });
      return null;
    }
  }

  /** The notes that begin in [begin, end), in order; throws for what is no sound. */
  #query(pattern, begin, end) {
    const state = new strudel.State(new strudel.TimeSpan(begin, end), { _cps: this.tempo.cps });
    return pattern.query(state) // queryArc would hide errors
      .filter((hap) => hap.hasOnset())
      .map(read)
      .sort((a, b) => a.cycle - b.cycle);
  }

  /** Name of the sound when the page does not have it. */
  #unknown({ s = 'triangle', bank }) {
    const name = bank ? `${bank}_${s}` : s;
    if (['~', '-', '_'].includes(s) || strudel.getSound(String(name))) return undefined;
    return String(name).replace(/[^ -~]/g, '?').slice(0, 64); // as long as the server takes
  }

  #report(names) {
    const sounds = [...new Set(names)].filter((name) => !this.#missing.has(name));
    for (const name of sounds) this.#missing.add(name);
    if (sounds.length) this.#tell('missing', { sounds });
  }

  #setCps(cps) {
    if (!(cps > 0) || cps === this.tempo.cps) return;
    this.tempo.change(this.frontier, cps);
    this.repl.setCps(cps); // for what patterns ask of it; its own clock stands still
  }

  #setLookahead(name) {
    this.lookahead = name;
    this.ahead = LOOKAHEAD[name].ahead;
    this.#tell('lookahead', name);
  }

  #sound(time) {
    this.mixer.mute(this.held || this.silenced, time === undefined ? undefined : Math.max(time, this.context.currentTime));
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** The same once in five seconds, so that a note that fails in each bar does not flood anyone. */
  #tellOnce(name, detail) {
    const now = performance.now();
    if (now - (this.#told.get(detail.message) ?? -Infinity) < 5000) return;
    this.#told.set(detail.message, now);
    this.#tell(name, detail);
  }
}

/** A hap as plain numbers; throws when it says no sound or no note. */
function read(hap) {
  const { value } = hap;
  if (typeof value !== 'object') throw new Error(`"${value}" is no sound: end the line with .note() or .s()`);
  return {
    cycle: hap.whole.begin.valueOf(), length: hap.duration.valueOf(), orbit: value.orbit ?? 1, sound: value.s,
    note: typeof value.note === 'string' ? strudel.noteToMidi(value.note) : value.note, gain: value.gain ?? 0.8, value,
  };
}

/** What is wrong, and in which line when that is known. */
function described(error) {
  const line = error?.loc?.line ?? Number(/line (\d+)/.exec(error?.message)?.[1] ?? NaN);
  return { message: String(error?.message ?? error), line: Number.isFinite(line) ? line : null };
}
