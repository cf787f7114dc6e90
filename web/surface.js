// SPDX-License-Identifier: AGPL-3.0-or-later
// A canvas that knows its size on the screen, and the colours of the style sheet.

export const CALM = matchMedia('(prefers-reduced-motion: reduce)');

const style = getComputedStyle(document.documentElement);

/** A colour of the style sheet by its name. */
export const colour = (name) => style.getPropertyValue(`--${name}`).trim();

export const trackColour = (index) => colour(`t${index % 12}`);

/** Canvas with a 2D context in CSS pixels; `onresize` is called when its size has changed. */
export class Surface {
  constructor(canvas, onresize = () => {}) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    new ResizeObserver(() => {
      this.fit();
      onresize();
    }).observe(canvas);
    this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    const scale = Math.min(devicePixelRatio || 1, 2);
    this.width = clientWidth;
    this.height = clientHeight;
    this.canvas.width = Math.max(1, Math.round(clientWidth * scale));
    this.canvas.height = Math.max(1, Math.round(clientHeight * scale));
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
  }

  clear() {
    this.context.clearRect(0, 0, this.width, this.height);
    return this.context;
  }
}
