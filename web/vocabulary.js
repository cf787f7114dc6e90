// SPDX-License-Identifier: AGPL-3.0-or-later
// What the numbers from the server stand for; the order of eqdiff_jax/music/vocabulary.py and its neighbours.

export const TRACKS = ['KICK', 'SNARE', 'HH', 'CLAP', 'BASS', 'PAD', 'LEAD', 'STAB', 'ARP', 'FX', 'VOX', 'AMB'];
export const SECTIONS = ['Intro', 'Groove', 'Build', 'Climax', 'Breakdown', 'Outro'];
export const STEPS = 32;

const CLASSES = ['C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B'];
const LOWEST = 36, HIGHEST = 84; // MIDI C2 and C6

const GROUPS = {
  rest: ['~'],
  pitch: Array.from({ length: HIGHEST - LOWEST + 1 }, (_, i) => CLASSES[i % 12] + (Math.floor(i / 12) + 2)),
  drum: ['bd', 'sd', 'hh', 'oh', 'cp', 'rim', 'tom', 'perc'],
  dynamics: ['pp', 'p', 'mp', 'mf', 'f', 'ff'],
  articulation: ['stac', 'legato', 'accent', 'ghost'],
  duration: ['16th', '8th', 'dotted-8th', 'quarter', 'half'],
  effect: ['lpf', 'hpf', 'delay', 'reverb', 'dist'],
  structure: ['repeat', 'fill', 'break'],
};

/** The 81 tokens in the order of their ids: {name, group}. */
export const TOKENS = Object.entries(GROUPS).flatMap(([group, names]) => names.map((name) => ({ name, group })));

/** Of each of the 15 scalars its lowest and highest value; eqdiff_jax/motion/dynamics.py. */
export const DYNAMICS = {
  energy: [0, 1], speed: [0, 4], acceleration: [0, 40], tension: [0, 1], transition_intensity: [0, 1],
  periodicity: [0, 1], internal_tempo: [30, 240], phase: [0, 1], curvature: [0, 1], curvature_rate: [-1, 1],
  grounding: [0, 1], verticality: [-1, 1], lr_pan: [-1, 1], coherence: [-1, 1], prediction_confidence: [0, 1],
};

/** The limb that each limb hangs on, -1 for the hips; eqdiff_jax/motion/skeleton.py. */
export const PARENTS = [
  -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, // hips, torso, neck, head
  7, 11, 12, 13, 7, 15, 16, 17, // arms
  0, 19, 20, 21, 0, 23, 24, 25, // legs
];
