// SPDX-License-Identifier: AGPL-3.0-or-later
// The connection to the server: says hello, comes back by itself, tells the clock ten times a second.

const VERSION = 1;
const FIRST_WAIT = 250, LONGEST_WAIT = 5000; // ms between two tries
const CLOCK_PERIOD = 100; // ms
const TAKEN = 4001; // close code: another page plays

/** A name for this tab that outlives a reload. */
function session() {
  const key = 'eqdiff-session';
  const made = sessionStorage.getItem(key) ?? crypto.getRandomValues(new Uint32Array(4)).join('-');
  sessionStorage.setItem(key, made);
  return made;
}

/**
 * Events: `message` (detail: the object), `state` (detail: 'connecting' | 'connected' | 'away' | 'taken').
 * `hello()` and `clock()` give the fields of those messages.
 */
export class Link extends EventTarget {
  constructor({ hello, clock }) {
    super();
    Object.assign(this, { hello, clock, state: 'connecting', wait: FIRST_WAIT, lastClock: -Infinity });
  }

  connect() {
    clearTimeout(this.retry);
    this.#become('connecting');
    const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(`${scheme}//${location.host}/ws${location.search}`);
    this.socket = socket;
    socket.onopen = () => {
      this.send('Hello', { protocol: VERSION, session: session(), ...this.hello() });
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  /** False when nobody listens. */
  send(type, fields) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify({ v: VERSION, type, ...fields }));
    return true;
  }

  /** Called by a timer, more often than the clock is told. */
  tick() {
    const now = performance.now();
    if (this.state !== 'connected' || now - this.lastClock < CLOCK_PERIOD - 5) return;
    this.lastClock = now;
    this.send('Clock', this.clock());
  }

  #receive(text) {
    const message = JSON.parse(text);
    if (message.v !== VERSION) return;
    if (message.type === 'Ping') this.send('Pong', { id: message.id, t0: message.t0, perf: performance.now() });
    if (message.type === 'State') {
      this.wait = FIRST_WAIT;
      this.#become('connected');
    }
    this.dispatchEvent(new CustomEvent('message', { detail: message }));
  }

  #closed(code, reason) {
    if (code === TAKEN) return this.#become('taken', reason);
    this.#become('away', reason);
    this.retry = setTimeout(() => this.connect(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
  }

  #become(state, reason = '') {
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: { state, reason } }));
  }
}
