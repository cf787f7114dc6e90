// SPDX-License-Identifier: AGPL-3.0-or-later
// The grid: 12 tracks by 32 sixteenths. Notes are drawn as long as they sound and, in pitched tracks, as high as they
// are; cells with other tokens carry a dot; cells that changed are framed; what sounds now is lit.

import { CALM, Surface, colour, trackColour } from './surface.js';
import { STEPS, TOKENS, TRACKS } from './vocabulary.js';

const GLOW = 0.35; // s after which the light of a note that ended is gone
const MARK = 1.5; // cycles that the frame of a changed cell stays bright

export class Grid {
  #pitches = new Map(); // orbit -> [lowest, highest]

  constructor(canvas, labels) {
    this.labels = labels;
    this.items = [];
    this.still = document.createElement('canvas');
    this.surface = new Surface(canvas, () => this.#paint());
    this.name(TRACKS);
  }

  name(tracks) {
    this.tracks = tracks;
    this.items = tracks.map((track, i) => {
      const item = document.createElement('li');
      item.textContent = track;
      item.style.setProperty('--c', `var(--t${i})`);
      return item;
    });
    this.labels.replaceChildren(...this.items);
  }

  /** The layer to show: its notes, tokens and changed cells. */
  show(layer) {
    this.layer = layer;
    this.#pitches.clear();
    for (const { orbit, note } of layer?.notes ?? []) {
      if (note === undefined) continue;
      const [low, high] = this.#pitches.get(orbit) ?? [note, note];
      this.#pitches.set(orbit, [Math.min(low, note), Math.max(high, note)]);
    }
    this.#paint();
    const counts = this.tracks.map((track, i) => [track, layer?.notes.filter((n) => n.orbit === i + 1).length ?? 0]);
    const said = counts.filter(([, n]) => n).map(([track, n]) => `${track} ${n}`).join(', ') || 'no note';
    this.surface.canvas.setAttribute('aria-label', `Notes in these two bars: ${said}`);
  }

  get #cell() {
    return [this.surface.width / STEPS, this.surface.height / TRACKS.length];
  }

  /** Where a note stands: x, y, width, height. */
  #box({ orbit, cycle, length, note }) {
    const [w, h] = this.#cell, row = (orbit - 1) % TRACKS.length, gap = Math.min(2, w * 0.12);
    const range = this.#pitches.get(orbit);
    const tall = note === undefined ? h * 0.74 : h * 0.42;
    const room = h * 0.86 - tall;
    const up = note === undefined || !range ? 0.5 : range[0] === range[1] ? 0.5 : (note - range[0]) / (range[1] - range[0]);
    return [(cycle % 2) * 16 * w + gap, row * h + h * 0.07 + room * (1 - up), Math.max(3, length * 16 * w - 2 * gap), tall];
  }

  /** What does not move, painted once per grid. */
  #paint() {
    const { canvas, width, height } = this.surface, [w, h] = this.#cell;
    this.still.width = canvas.width;
    this.still.height = canvas.height;
    const pen = this.still.getContext('2d');
    pen.scale(canvas.width / Math.max(1, width), canvas.height / Math.max(1, height));
    for (let row = 0; row < TRACKS.length; row += 1) {
      for (let step = 0; step < STEPS; step += 1) {
        pen.fillStyle = step % 4 === 0 ? '#1d212c' : '#161922';
        block(pen, step * w + 1, row * h + h * 0.07, w - 2, h * 0.86, 3);
      }
    }
    pen.fillStyle = colour('line');
    pen.fillRect(width / 2 - 1, 0, 2, height);
    if (!this.layer) return;
    for (const [row, cells] of (this.layer.shown.tokens ?? []).entries()) {
      for (const [step, token] of cells.entries()) {
        const { group } = TOKENS[token] ?? { group: 'rest' };
        if (group === 'rest' || group === 'pitch' || group === 'drum') continue;
        pen.fillStyle = trackColour(row);
        pen.globalAlpha = 0.55;
        pen.beginPath();
        pen.arc((step + 0.5) * w, (row + 0.5) * h, Math.min(w, h) * 0.1, 0, 7);
        pen.fill();
      }
    }
    for (const note of this.layer.notes) {
      pen.fillStyle = trackColour(note.orbit - 1);
      pen.globalAlpha = 0.4 + 0.6 * Math.min(1, note.gain);
      block(pen, ...this.#box(note), 3);
    }
    pen.globalAlpha = 1;
  }

  /** One picture: `heard` in cycles, `onsets` the notes handed over last. */
  draw(heard, cps, onsets) {
    const pen = this.surface.clear(), [w, h] = this.#cell, { width, height } = this.surface;
    pen.drawImage(this.still, 0, 0, width, height);
    const at = heard % 2;
    const lit = this.#lit(heard, cps, onsets);
    for (const [i, item] of this.items.entries()) item.classList.toggle('on', lit.some((l) => l.orbit === i + 1 && l.light > 0.3));
    this.#marks(pen, heard, w, h);
    if (!this.layer) return;
    const x = (CALM.matches ? Math.floor(at * 16) : at * 16) * w;
    pen.fillStyle = 'rgb(255 255 255 / .1)';
    pen.fillRect(Math.floor(at * 16) * w, 0, w, height);
    pen.fillStyle = 'rgb(255 255 255 / .85)';
    pen.fillRect(x - 1, 0, 2, height);
    for (const note of lit) {
      const [bx, by, bw, bh] = this.#box(note);
      pen.globalAlpha = note.light;
      pen.fillStyle = '#fff';
      block(pen, bx, by, bw, bh, 3);
      pen.globalAlpha = note.light * 0.35;
      pen.fillStyle = trackColour(note.orbit - 1);
      block(pen, bx - w * 0.25, by - h * 0.12, bw + w * 0.5, bh + h * 0.24, 8);
    }
    pen.globalAlpha = 1;
  }

  /** Notes that sound, or ended a moment ago, with how bright they are. */
  #lit(heard, cps, onsets) {
    const lit = [];
    for (let i = onsets.length - 1; i >= 0 && onsets[i].cycle > heard - 2.5; i -= 1) {
      const { cycle, length, orbit, note, velocity } = onsets[i];
      const since = (heard - cycle) / cps, over = (heard - cycle - length) / cps;
      if (since < 0 || over > GLOW) continue;
      const flash = CALM.matches ? 0 : 0.45 * Math.exp(-since / 0.12);
      const light = over > 0 ? (1 - over / GLOW) * 0.5 : 0.5 + flash;
      lit.push({ orbit, cycle, length, note, light: light * Math.min(1, velocity) });
    }
    return lit;
  }

  /** Frames round the cells that changed: bright while new, thin afterwards. */
  #marks(pen, heard, w, h) {
    const changed = this.layer?.shown.changed ?? [];
    if (!changed.length) return;
    const fresh = CALM.matches ? 0.6 : Math.max(0, 1 - (heard - this.layer.from) / MARK);
    pen.strokeStyle = '#fff';
    pen.lineWidth = 1 + Math.min(1.5, w * 0.06) * fresh;
    pen.globalAlpha = 0.35 + 0.65 * fresh;
    pen.beginPath();
    for (const [row, step] of changed) pen.roundRect(step * w + 1.5, row * h + h * 0.07 + 0.5, w - 3, h * 0.86 - 1, 3);
    pen.stroke();
    pen.globalAlpha = 1;
  }
}

function block(pen, x, y, w, h, r) {
  pen.beginPath();
  pen.roundRect(x, y, w, h, Math.max(0, Math.min(r, w / 2, h / 2)));
  pen.fill();
}
