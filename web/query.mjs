// Evaluate Strudel programs without a browser and print their events.
//
//   node query.mjs [FILE] < programs.jsonl > events.jsonl
//
// One JSON value per line in: a program's text, or {"code": text, "cycles": 2}.
// One JSON object per line out: {"cps": c, "events": [[onset, length, value], ...]}, times in cycles as
// fractions "n/d" of the event's whole, sorted by onset; or {"error": message}.
import { readFileSync } from 'node:fs';
import { register } from 'node:module';

register('./resolve_hook.mjs', import.meta.url);
console.log = () => {}; // the packages greet on standard output, which carries only the answers
const core = await import('@strudel/core');
const mini = await import('@strudel/mini');
const { transpiler } = await import('@strudel/transpiler');

let failure;
const repl = core.repl({
  defaultOutput: () => {},
  getTime: () => 0,
  transpiler,
  onEvalError: (error) => { failure = error; },
});
await core.evalScope(core, mini);
mini.miniAllStrings();

async function query(request) {
  const { code, cycles = 2 } = typeof request === 'string' ? { code: request } : request;
  failure = undefined;
  repl.setCps(0.5); // the tempo outlives a program
  const pattern = await repl.evaluate(code, false); // reports errors only through onEvalError
  if (failure) throw failure;
  if (!pattern?.query) throw new Error('the code gives no pattern');
  const events = pattern
    .query(new core.State(new core.TimeSpan(0, cycles))) // queryArc would swallow errors
    .filter((hap) => hap.hasOnset())
    .sort((a, b) => a.whole.begin.compare(b.whole.begin))
    .map((hap) => [hap.whole.begin.toFraction(), hap.duration.toFraction(), hap.value]);
  return { cps: repl.scheduler.cps, events };
}

for (const line of readFileSync(process.argv[2] ?? 0, 'utf8').split('\n')) {
  if (!line.trim()) continue;
  const answer = await query(JSON.parse(line)).catch((error) => ({ error: String(error?.message ?? error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
