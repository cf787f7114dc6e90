// SPDX-License-Identifier: AGPL-3.0-or-later
// A timer in a worker: browsers slow the timers of a page that is out of sight, not these.
let timer;
self.onmessage = ({ data: milliseconds }) => {
  clearInterval(timer);
  timer = setInterval(() => self.postMessage(0), milliseconds);
};
