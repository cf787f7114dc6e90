// SPDX-License-Identifier: AGPL-3.0-or-later
// Numbers over the last seconds: z* as 32 lines one above the other, each scalar of the movement as a line of its own.

import { Surface, colour } from './surface.js';
import { DYNAMICS } from './vocabulary.js';

const SECONDS = 8;

/** Samples of the last seconds with their times. */
class History {
  times = [];
  rows = [];

  add(time, row) {
    this.times.push(time);
    this.rows.push(row);
    while (this.times[0] < time - SECONDS) {
      this.times.shift();
      this.rows.shift();
    }
  }

  /** x of each sample, the newest at the right edge. */
  across(width) {
    const end = this.times.at(-1);
    return this.times.map((t) => width * (1 - (end - t) / SECONDS));
  }
}

/** z* as hills behind hills; each line shows how far its number is from its mean over the window. */
export class Latent {
  #history = new History();

  constructor(canvas) {
    this.surface = new Surface(canvas, () => this.draw());
  }

  see(time, z) {
    this.#history.add(time, z);
  }

  draw() {
    const pen = this.surface.clear(), { width, height } = this.surface, { rows } = this.#history;
    if (rows.length < 2) return;
    const xs = this.#history.across(width), count = rows[0].length;
    const means = rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
    const spread = Math.max(0.02, Math.sqrt(rows.reduce((sum, row) => sum + row.reduce((s, x, i) => s + (x - means[i]) ** 2, 0), 0) / (rows.length * count)));
    const pitch = height / (count + 3), tall = (0.6 * pitch) / spread;
    pen.lineWidth = 1.5;
    pen.fillStyle = colour('panel');
    for (let i = 0; i < count; i += 1) {
      const base = pitch * (i + 2.5);
      const y = (row) => base - Math.max(-0.9 * pitch, Math.min(3 * pitch, (row[i] - means[i]) * tall));
      pen.beginPath();
      pen.moveTo(xs[0], y(rows[0]));
      for (let k = 1; k < rows.length; k += 1) pen.lineTo(xs[k], y(rows[k]));
      pen.strokeStyle = `oklch(${0.62 + 0.3 * ((i * 7) % 5) / 4} .11 ${200 + (130 * i) / count})`;
      pen.stroke();
      pen.lineTo(width, base + 3 * pitch); // hides what lies behind
      pen.lineTo(xs[0], base + 3 * pitch);
      pen.fill();
    }
  }
}

/** The 15 scalars: name, value, line. */
export class Movement {
  #history = new History();
  #rows;

  constructor(list) {
    this.#rows = Object.entries(DYNAMICS).map(([name, [low, high]]) => {
      const row = document.createElement('div'), term = document.createElement('dt');
      const value = document.createElement('dd'), canvas = document.createElement('canvas');
      term.textContent = name.replaceAll('_', ' ');
      value.textContent = '–';
      canvas.setAttribute('aria-hidden', 'true');
      const holder = document.createElement('dd');
      holder.className = 'line';
      holder.append(canvas);
      row.append(term, value, holder);
      list.append(row);
      return { name, low, high, value, surface: new Surface(canvas) };
    });
  }

  see(time, dynamics) {
    this.#history.add(time, dynamics);
  }

  draw() {
    const dynamics = this.#history.rows.at(-1);
    for (const row of this.#rows) {
      const value = dynamics[row.name];
      if (Number.isFinite(value)) row.value.textContent = value.toFixed(row.high > 10 ? 0 : 2);
      this.#line(row);
    }
  }

  /** The line, as high as its changes; a fifth of the range at least, so that stillness looks still. */
  #line({ name, low, high, surface }) {
    const pen = surface.clear(), { width, height } = surface, { rows } = this.#history;
    const xs = this.#history.across(width - 3);
    const [bottom, top] = zoomed(rows.map((row) => row[name]), low, high);
    const y = (value) => 2 + (height - 4) * (1 - (value - bottom) / (top - bottom));
    pen.strokeStyle = colour('accent');
    pen.lineWidth = 1.75;
    pen.beginPath();
    rows.forEach((row, k) => (k ? pen.lineTo(xs[k], y(row[name])) : pen.moveTo(xs[k], y(row[name]))));
    pen.stroke();
    pen.fillStyle = colour('text');
    pen.beginPath();
    pen.arc(xs.at(-1), y(rows.at(-1)[name]), 2.5, 0, 7);
    pen.fill();
  }
}

/** The part of [low, high] to draw: what the values fill, and a fifth of it at least. */
function zoomed(values, low, high) {
  const least = Math.min(...values), most = Math.max(...values), room = Math.max(most - least, (high - low) / 5);
  const bottom = Math.min(Math.max((least + most - room) / 2, low), high - room);
  return [bottom, bottom + room];
}
