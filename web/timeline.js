// SPDX-License-Identifier: AGPL-3.0-or-later
// Time as the music counts it: cycles (1 cycle = 1 bar) against seconds of the audio clock, and which pattern
// plays from which cycle on. Nothing here touches audio, so all of it can be tested without a browser.

const GRAIN = 1024; // a cycle is cut into this many parts; a power of two, so that borders are exact in floats

/** The last border at or before a cycle. */
export const border = (cycle) => Math.floor(cycle * GRAIN) / GRAIN;

/** The tempo over time: straight pieces, each from a cycle at a time on with its cycles per second. */
export class Tempo {
  constructor(cps) {
    this.pieces = [{ time: 0, cycle: 0, cps }];
  }

  get cps() {
    return this.pieces.at(-1).cps;
  }

  /** Count cycles from 0 at this time. */
  begin(time) {
    this.pieces = [{ time, cycle: 0, cps: this.cps }];
  }

  /** Another tempo from this cycle on, which must not lie before the last change. */
  change(cycle, cps) {
    const piece = { time: this.timeOf(cycle), cycle, cps };
    const kept = this.pieces.filter((p) => p.cycle < cycle);
    this.pieces = [...kept.slice(-8), piece];
  }

  timeOf(cycle) {
    const p = this.pieces.findLast((piece) => piece.cycle <= cycle) ?? this.pieces[0];
    return p.time + (cycle - p.cycle) / p.cps;
  }

  cycleAt(time) {
    const p = this.pieces.findLast((piece) => piece.time <= time) ?? this.pieces[0];
    return p.cycle + (time - p.time) * p.cps;
  }
}

/** First multiple of `bars` at or after a cycle. */
export const nextBar = (cycle, bars = 1) => Math.ceil(cycle / bars) * bars;

const rise = (cycle, [from, to]) => Math.sin((Math.PI / 2) * Math.min(Math.max((cycle - from) / (to - from), 0), 1));
const fall = (cycle, [from, to]) => Math.cos((Math.PI / 2) * Math.min(Math.max((cycle - from) / (to - from), 0), 1));

/**
 * Which patterns play when. A layer is {pattern, id, from, to, ...}: it plays from cycle `from` up to, not including, `to`.
 * Layers overlap only while one fades into the other.
 */
export class Layers {
  constructor() {
    this.list = [];
  }

  /** The layer plays alone from a cycle on; whatever was meant to begin there or later is dropped. */
  switchTo(layer, cycle) {
    this.list = this.list.filter((l) => l.from < cycle).map((l) => ({ ...l, to: Math.min(l.to, cycle) }));
    return this.#add(layer, cycle);
  }

  /** The layer fades in over `length` cycles while the others fade out, with equal power at every moment. */
  fadeTo(layer, cycle, length) {
    const span = [cycle, cycle + Math.max(1 / GRAIN, border(length))];
    this.list = this.list
      .filter((l) => l.from <= cycle)
      .map((l) => ({ ...l, to: Math.min(l.to, span[1]), out: [...(l.out ?? []), span] }));
    return this.#add({ ...layer, in: span }, cycle);
  }

  #add(layer, from) {
    const added = { ...layer, from, to: Infinity };
    this.list.push(added);
    return added;
  }

  clear() {
    this.list = [];
  }

  /** Another pattern in the place of a layer, or nothing. */
  replace(layer, other) {
    this.list = this.list.flatMap((l) => (l !== layer ? [l] : other ? [{ ...other, from: l.from, to: l.to }] : []));
  }

  /** Forget what ended before a cycle. */
  prune(cycle) {
    if (this.list.some((l) => l.to <= cycle)) this.list = this.list.filter((l) => l.to > cycle);
  }

  /** The pieces of [begin, end) with the layers that play in them. */
  within(begin, end) {
    return this.list
      .map((layer) => ({ layer, begin: Math.max(begin, layer.from), end: Math.min(end, layer.to) }))
      .filter((piece) => piece.begin < piece.end);
  }

  /** The layer that a listener would name at a cycle: the newest that has begun. */
  at(cycle) {
    return this.list.findLast((l) => l.from <= cycle && cycle < l.to);
  }
}

/** How much of its velocity a note of a layer has at a cycle, 0 to 1. */
export function level(layer, cycle) {
  const falls = (layer.out ?? []).map((span) => fall(cycle, span));
  return [layer.in ? rise(cycle, layer.in) : 1, ...falls].reduce((a, b) => a * b, 1);
}
