// SPDX-License-Identifier: AGPL-3.0-or-later
// The performer as a stick figure, seen from the front and a little from the side.

import { CALM, Surface, colour } from './surface.js';
import { PARENTS } from './vocabulary.js';

const HIPS = 0.53; // height of standing hips, body heights
const TURN = 0.35; // rad, how far from the front the eye stands
const ENDS = [10, 14, 18, 22, 26]; // head, hands, toes: what leaves a trail
const TRAIL = 14; // poses

export class Figure {
  #poses = [];

  constructor(canvas) {
    this.surface = new Surface(canvas, () => this.draw());
  }

  /** A pose: 27 positions in body heights, relative to the hips, whose own slot holds their height above rest. */
  see(limbs, confidence) {
    const lift = HIPS + limbs[0][1];
    this.#poses.push(limbs.map(([x, y, z], i) => (i ? [x, y + lift, z] : [0, lift, 0])));
    if (this.#poses.length > TRAIL) this.#poses.shift();
    this.confidence = confidence;
  }

  /** Pixels of one body height. */
  get #size() {
    return Math.min(this.surface.height / 1.24, this.surface.width / 1.2);
  }

  #place([x, y, z]) {
    const { width, height } = this.surface, size = this.#size;
    const side = x * Math.cos(TURN) + z * Math.sin(TURN), depth = z * Math.cos(TURN) - x * Math.sin(TURN);
    const near = 1 + 0.12 * depth;
    return [width / 2 + side * size * near, height - 0.08 * size - (y - 0.06 * depth) * size * near];
  }

  draw() {
    const pen = this.surface.clear(), pose = this.#poses.at(-1);
    if (!pose) return;
    const size = this.#size;
    const [fx, fy] = this.#place([0, 0, 0]);
    pen.fillStyle = '#1a1e29';
    pen.beginPath();
    pen.ellipse(fx, fy, size * 0.34, size * 0.06, 0, 0, 7);
    pen.fill();
    pen.lineCap = 'round';
    if (!CALM.matches) this.#trails(pen, size);
    for (const [limb, parent] of PARENTS.entries()) {
      if (parent < 0) continue;
      const sure = Math.min(this.confidence?.[limb] ?? 1, this.confidence?.[parent] ?? 1);
      pen.strokeStyle = colour('text');
      pen.globalAlpha = 0.15 + 0.85 * sure;
      pen.lineWidth = size * (limb < 11 ? 0.03 : 0.024);
      pen.beginPath();
      pen.moveTo(...this.#place(pose[parent]));
      pen.lineTo(...this.#place(pose[limb]));
      pen.stroke();
    }
    const [hx, hy] = this.#place(pose[10]);
    pen.globalAlpha = 0.15 + 0.85 * (this.confidence?.[10] ?? 1);
    pen.fillStyle = colour('text');
    pen.beginPath();
    pen.arc(hx, hy - size * 0.035, size * 0.055, 0, 7);
    pen.fill();
    pen.globalAlpha = 1;
  }

  #trails(pen, size) {
    for (const [k, limb] of ENDS.entries()) {
      pen.strokeStyle = colour(['text', 't1', 't6', 't1', 't6'][k]);
      for (let i = 1; i < this.#poses.length; i += 1) {
        pen.globalAlpha = (0.7 * i) / this.#poses.length;
        pen.lineWidth = (size * 0.03 * i) / this.#poses.length;
        pen.beginPath();
        pen.moveTo(...this.#place(this.#poses[i - 1][limb]));
        pen.lineTo(...this.#place(this.#poses[i][limb]));
        pen.stroke();
      }
    }
    pen.globalAlpha = 1;
  }
}
