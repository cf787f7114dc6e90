// SPDX-License-Identifier: AGPL-3.0-or-later
// What a person does: buttons, fields and keys. The page's own things act at once, the rest is asked of the server.

const find = (id) => document.getElementById(id);
const TYPED = 'select, input[type=number]'; // where keys are meant for the field
const STEERED = 'input'; // where arrows are

export class Controls {
  /** `ask(name, value)` sends a Request; `tell()` renews the state line. */
  constructor(player, ask, tell) {
    Object.assign(this, { player, ask, tell });
    this.button = find('play');
    this.button.disabled = false;
    this.button.addEventListener('click', () => this.press());
    this.#chosen('tempo', (value) => this.tempo(Number(value)));
    this.#chosen('genre', (value) => ask('genre', value || null));
    this.#chosen('leads', (value) => ask('lead', (this.lead = value) || null));
    find('volume').addEventListener('input', ({ target }) => {
      player.set('volume', Number(target.value));
      ask('volume', Number(target.value));
    });
    find('modes').addEventListener('change', ({ target }) => ask('mode', target.value));
    find('lookaheads').addEventListener('change', ({ target }) => this.lookahead(target.value));
    document.addEventListener('keydown', (event) => this.key(event));
    this.set('volume', Number(find('volume').value));
    this.set('bpm', Number(find('tempo').value));
  }

  /** What to do with a field's new value; afterwards the keys are the page's again. */
  #chosen(id, act) {
    find(id).addEventListener('change', ({ target }) => {
      act(target.value);
      target.blur();
    });
  }

  /** Start, hush, play on: one button, one key. */
  async press() {
    const { player } = this;
    if (!player.running) {
      await player.start();
      navigator.wakeLock?.request('screen').catch(() => {}); // a stage's screen stays on
    } else {
      player.hold(!player.held);
      this.ask('hush', player.held);
    }
    this.tell();
  }

  tempo(bpm) {
    const { min, max } = find('tempo');
    if (Number.isFinite(bpm)) this.ask('bpm', Math.min(Math.max(bpm, Number(min)), Number(max)));
  }

  lookahead(name) {
    this.set('lookahead', name === 'tight' ? 1 : 0);
    this.ask('lookahead', name);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPED)) return;
    const act = this.#action(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  #action({ key, repeat, target, shiftKey }) {
    const step = shiftKey ? 10 : 1;
    if (key === ' ') return target.closest('button, a, summary') || repeat ? null : () => this.press();
    if (key.startsWith('Arrow') && target.closest(STEERED)) return null;
    if (key === 'ArrowUp') return () => this.tempo(this.bpm + step);
    if (key === 'ArrowDown') return () => this.tempo(this.bpm - step);
    if (key.toLowerCase() === 'l') return () => this.lookahead(this.player.lookahead === 'tight' ? 'safe' : 'tight');
    if (key.toLowerCase() === 'f') return () => this.#fullScreen();
    const mode = find('modes').querySelectorAll('input')[Number(key) - 1];
    return mode ? () => mode.click() : null;
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.();
  }

  /** What the server plays with. */
  state({ mode, modes, genre, genres, ranges }) {
    find('modes').replaceChildren(find('modes').firstElementChild, ...modes.map((name) => {
      const label = document.createElement('label'), input = document.createElement('input');
      Object.assign(input, { type: 'radio', name: 'mode', value: name, checked: name === mode });
      label.append(input, ` ${name}`);
      return label;
    }));
    options(find('genre'), [['', 'any'], ...genres.map((name) => [name, name])], genre ?? '');
    const [low, high] = ranges.bpm ?? [40, 240];
    Object.assign(find('tempo'), { min: low, max: high });
  }

  /** A setting has changed. */
  set(name, value) {
    this.player.set(name, value);
    if (name === 'bpm') {
      this.bpm = value;
      find('bpm').textContent = String(Math.round(value * 10) / 10);
      if (document.activeElement !== find('tempo')) find('tempo').value = String(value);
    } else if (name === 'volume') {
      if (document.activeElement !== find('volume')) find('volume').value = String(value);
    } else if (name === 'lookahead') {
      for (const input of find('lookaheads').querySelectorAll('input')) input.checked = input.value === this.player.lookahead;
    }
  }

  /** Who may lead. */
  cast({ active }) {
    const key = active.join('\n');
    if (key === this.active) return;
    this.active = key;
    options(find('leads'), [['', 'first to move'], ...active.map((name) => [name, name])], this.lead ?? '');
  }

  /** Bring the button up to date; a page that may not play has none to press. */
  show(allowed) {
    const { player, button } = this;
    button.hidden = !allowed;
    const text = !player.running ? 'Start' : player.held ? 'Play on' : 'Hush';
    if (button.textContent !== text) button.textContent = text;
    button.toggleAttribute('data-on', text === 'Hush');
    button.toggleAttribute('data-start', text === 'Start');
  }
}

function options(select, rows, value) {
  select.replaceChildren(...rows.map(([key, text]) => new Option(text, key, false, key === value)));
}
