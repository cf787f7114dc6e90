// SPDX-License-Identifier: AGPL-3.0-or-later
// What people see: puts what the server and the player say where it belongs. It asks for nothing and decides nothing.

import { Figure } from './figure.js';
import { Grid } from './grid.js';
import { Latent, Movement } from './traces.js';
import { SECTIONS } from './vocabulary.js';

const find = (id) => document.getElementById(id);

/** Change a text only when it is another one, so that nothing is laid out or read aloud twice. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export class View {
  constructor() {
    this.grid = new Grid(find('grid'), find('tracks'));
    this.figure = new Figure(find('body'));
    this.latent = new Latent(find('traces'));
    this.movement = new Movement(find('dynamics'));
    this.params = new Map();
    this.beats = [...find('beats').children];
    this.sections = SECTIONS.map((name) => {
      const item = document.createElement('li');
      item.textContent = name;
      find('sections').append(item);
      return item;
    });
  }

  /** A View message: the performer now. */
  see(message) {
    this.unseen = this.sees = true;
    const now = performance.now() / 1000;
    this.figure.see(message.limbs, message.confidence);
    this.latent.see(now, message.z);
    this.movement.see(now, message.dynamics);
    this.section(message.section);
    say(find('lead'), message.active.length ? this.#cast(message) : 'the demo dancer');
    say(find('misses'), String(message.misses));
    this.#timing('lateness', `${message.late_ms.toFixed(1)} ms`, message.late_ms > 8);
    find('misses').toggleAttribute('data-bad', message.misses > 0);
  }

  #cast({ lead, active }) {
    const others = active.filter((name) => name !== lead);
    return [lead ?? active[0], ...(others.length ? [`and ${others.length} more`] : [])].join(' ');
  }

  /** Six probabilities, or the name of one. */
  section(given) {
    if (given === undefined || given === null) return;
    const shares = typeof given === 'string' ? SECTIONS.map((name) => Number(name === given)) : given;
    const best = shares.indexOf(Math.max(...shares));
    say(find('section'), SECTIONS[best] ?? '–');
    this.sections.forEach((item, i) => {
      item.style.setProperty('--p', (shares[i] ?? 0).toFixed(3));
      if (i === best) item.setAttribute('aria-current', 'true');
      else item.removeAttribute('aria-current');
    });
  }

  /** The layer that is heard from now on: grid, code and how it was made. */
  layer(layer) {
    this.grid.show(layer);
    const { confidence, steps, temperature, margin, seconds, section, changed, cascade } = layer?.shown ?? {};
    const number = (id, value, digits) => value !== undefined && value !== null && say(find(id), value.toFixed(digits));
    number('confidence', confidence, 2);
    number('steps', steps, 0);
    say(find('wanted'), cascade?.wanted > steps ? ` of ${cascade.wanted}` : ''); // there was time for no more
    number('temperature', temperature, 2);
    number('margin', margin, 2);
    if (Number.isFinite(seconds)) say(find('seconds'), `${seconds.toFixed(2)} s`);
    if (!this.sees) this.section(section);
    const allowed = cascade?.budget === undefined ? '' : ` of ${cascade.budget}`;
    say(find('changed'), `${changed?.length ?? 0}${allowed}`);
    find('code').replaceChildren(...codeLines(layer?.code ?? 'silence', this.grid.tracks));
  }

  /** One picture of what the player does; called for each frame of the screen. */
  draw(player) {
    const heard = player.heard(), layer = player.layers.at(heard);
    if (layer !== this.shown) {
      this.shown = layer;
      this.layer(layer);
    }
    this.grid.draw(heard, player.tempo.cps, player.onsets);
    if (this.unseen) for (const part of [this.figure, this.latent, this.movement]) part.draw();
    this.unseen = false;
    say(find('bar'), String(Math.floor(heard)));
    const beat = player.running ? Math.floor(heard * 4) % 4 : -1;
    this.beats.forEach((node, i) => node.classList.toggle('on', i === beat));
    this.#meter(player.mixer.meter().rms);
  }

  /** The slower numbers, a few times a second. */
  timing(player) {
    const ahead = player.running ? (player.frontier - player.heard()) / player.tempo.cps : 0;
    this.#timing('ahead', `${Math.round(1000 * ahead)} ms`);
    this.#timing('output', `${Math.round(1000 * (player.context.outputLatency || 0))} ms`);
    this.#timing('late', String(player.late), player.late > 0);
    this.#showParams();
  }

  /** The parameters that the movement sets, while it does: {parameter, value, source, place in its range 0 to 1, time}. */
  #showParams() {
    const now = performance.now();
    let seen = false;
    for (const param of this.params.values()) {
      const row = this.#paramRow(param);
      seen ||= now - param.time < 5000;
      say(row.lastElementChild, param.value >= 100 ? param.value.toFixed(0) : param.value.toFixed(2));
      row.style.setProperty('--p', param.place.toFixed(2));
    }
    find('params').hidden = !seen;
  }

  #paramRow({ parameter, source }) {
    const row = find('params').querySelector(`[data-name="${CSS.escape(parameter)}"]`) ?? document.createElement('div');
    if (!row.isConnected) {
      row.append(document.createElement('dt'), document.createElement('dd'));
      row.dataset.name = parameter;
      row.firstElementChild.textContent = parameter.replaceAll('_', ' ');
      row.title = `from ${source.replaceAll('_', ' ')}`;
      find('params').append(row);
    }
    return row;
  }

  #timing(id, text, bad = false) {
    say(find(id), text);
    find(id).toggleAttribute('data-bad', bad);
  }

  #meter(rms) {
    const decibels = Math.max(-60, 20 * Math.log10(rms + 1e-9));
    this.level = Math.max(decibels, (this.level ?? -60) - 1.5); // falls slower than it rises
    const meter = find('meter');
    meter.firstElementChild.style.transform = `scaleX(${(1 + this.level / 60).toFixed(3)})`;
    meter.setAttribute('aria-valuenow', String(Math.round(this.level)));
  }
}

/** Code as lines whose track name has the track's colour. */
function codeLines(code, tracks) {
  return code.trimEnd().split('\n').map((text) => {
    const line = document.createElement('span'), label = /^([a-z]+):/.exec(text);
    const track = label ? tracks.indexOf(label[1].toUpperCase()) : -1;
    if (track < 0) {
      line.textContent = text;
      line.className = 'aside';
      return line;
    }
    const name = document.createElement('b');
    name.textContent = label[1];
    name.style.setProperty('--c', `var(--t${track})`);
    line.append(name, text.slice(label[1].length));
    return line;
  });
}
