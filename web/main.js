// SPDX-License-Identifier: AGPL-3.0-or-later
// Puts the page together: server -> player and view, person -> player and server.

import { Controls } from './controls.js';
import { Player } from './player.js';
import { Link } from './socket.js';
import { TRACKS } from './vocabulary.js';
import { View, say } from './view.js';

const STRUDEL = '@strudel/web 1.3.0';
const REST = 3; // drawing takes at most one part in so many of the page's time: the music comes first
const TROUBLE = 10000; // ms that a message about trouble stays

const view = new View();
const player = await Player.create(TRACKS).catch((error) => {
  say(document.getElementById('status'), `This browser cannot play: ${error.message}`);
  throw error;
});
const link = new Link({ hello: () => ({ strudel: STRUDEL, sounds: player.sounds }), clock: () => player.clock() });
const controls = new Controls(player, (name, value) => link.send('Request', { name, value }), tell);
let trouble = null;
let ranges = {};

/** What the server says. */
const heard = {
  State(message) {
    ranges = message.ranges;
    view.grid.name(message.tracks);
    controls.state(message);
    for (const [name, value] of Object.entries(message.params)) player.set(name, value);
    controls.set('bpm', message.bpm);
    controls.set('lookahead', message.lookahead === 'tight' ? 1 : 0);
    if (message.pattern && !player.layers.list.some(({ code }) => code === message.pattern)) player.play(message);
    if (player.held) link.send('Request', { name: 'hush', value: true }); // said while the server was away
  },
  Eval: (message) => player.play(message),
  Crossfade: (message) => player.play({ ...message, beats: message.duration_beats }),
  MotionModulate(message) {
    player.set(message.parameter, message.value);
    const [low, high] = ranges[message.parameter] ?? [0, 1];
    view.params.set(message.parameter, { ...message, place: (message.value - low) / (high - low), time: performance.now() });
  },
  SetParam: ({ name, value }) => controls.set(name, value),
  Hush: () => player.hush(),
  View(message) {
    view.see(message);
    controls.cast(message);
  },
};

link.addEventListener('message', ({ detail }) => {
  heard[detail.type]?.(detail);
});
link.addEventListener('state', tell);
player.addEventListener('audio', tell);
player.addEventListener('evaluated', ({ detail }) => {
  if (detail.id !== null) link.send('Evaluated', detail);
});
player.addEventListener('failed', ({ detail }) => {
  link.send('Error', detail);
  worry(`${detail.message.split('\n')[0].slice(0, 160)} – the last pattern plays on`);
});
player.addEventListener('missing', ({ detail }) => {
  link.send('Missing', detail);
  worry(`no sound called ${detail.sounds.join(', ')}`);
});

function worry(text) {
  trouble = { text, until: performance.now() + TROUBLE };
  tell();
}

/** The state line: one sentence, the most urgent one. */
function tell() {
  const [mood, text] = sentence();
  const node = document.getElementById('status');
  node.dataset.mood = mood;
  say(node, text);
  controls.show(link.state !== 'taken');
}

function sentence() {
  if (link.state === 'taken') return ['bad', 'Another page plays; this one only watches. Close that one and reload'];
  if (!player.started) return ['wait', link.state === 'connected' ? 'Ready: press start or space' : 'Waiting for the server'];
  if (!player.running) return ['bad', 'The browser stopped the audio: press start'];
  if (player.held) return ['warn', 'Hushed: space plays on'];
  if (link.state !== 'connected') return ['warn', 'Server away: the music goes on, trying to come back'];
  if (trouble && performance.now() < trouble.until) return ['warn', trouble.text];
  if (player.silenced) return ['warn', 'Hushed by the server'];
  if (!player.layers.list.length) return ['wait', 'Waiting for the first grid'];
  return ['good', 'Playing'];
}

const ticker = new Worker('/ticker.js');
let timed = 0;
ticker.onmessage = () => {
  player.tick();
  link.tick();
  const now = performance.now();
  if (now - timed < 250) return;
  timed = now;
  view.timing(player);
  tell();
};
player.addEventListener('lookahead', () => ticker.postMessage(1000 * player.period));
ticker.postMessage(1000 * player.period);

let rested = 0; // when the next picture may be drawn
function frame(now) {
  requestAnimationFrame(frame); // first, so that a picture that fails does not end them all
  if (now < rested) return;
  const begun = performance.now();
  view.draw(player);
  rested = begun + REST * (performance.now() - begun);
}
requestAnimationFrame(frame);

link.connect();
tell();
window.eqdiff = { player, link, view, onsets: player.onsets };
