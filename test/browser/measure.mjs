// What the console costs, on a node of its own: how soon lists answer with many
// topics, and what viewers cost. It prints what it finds and judges nothing.
// Usage: TIDINGS=bin/tidings node test/browser/measure.mjs [TOPICS [VIEWERS [SECONDS]]]
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { dev, until } from './rig.mjs';

const [topics, viewers, seconds] = [10_000, 20, 30].map((usual, i) => Number(process.argv[2 + i] ?? usual));
const ticks = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
const node = await dev();
const { pid } = node.process;

// used is the CPU time of the node, in seconds.
function used() {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}

async function post(path) {
  const r = await fetch(`http://${node.http}${path}`, { method: 'POST' });
  if (!r.ok) throw new Error(`${path}: ${r.status}`);
  await r.arrayBuffer();
}

console.log(`${cpus().length} cores, load ${loadavg()[0].toFixed(1)}; ${topics} topics with 3 channels each`);
const names = Array.from({ length: topics }, (_, i) => `tenant-${String(i).padStart(5, '0')}.events`);
let next = 0;
await Promise.all(Array.from({ length: 64 }, async () => {
  while (next < names.length) {
    const topic = names[next++];
    await post(`/topic/create?topic=${topic}`);
    for (const channel of ['worker', 'archive', 'audit']) await post(`/channel/create?topic=${topic}&channel=${channel}`);
  }
}));

// firstByte is how long a request waits for the head of its answer, in ms.
async function firstByte(path) {
  const start = performance.now();
  const r = await fetch(`${node.url}/api/v1/${path}`);
  const took = performance.now() - start;
  if (!r.ok) throw new Error(`${path}: ${r.status}`);
  await r.arrayBuffer();
  return took;
}
for (const [what, path] of [
  ['list', 'topics?limit=50'], ['filter', 'topics?limit=50&q=77'], ['sort', 'topics?limit=50&sort=-backlog'], ['sort by name, backwards', 'topics?limit=50&sort=-name'],
  ['all channels, sorted', 'channels?limit=50&sort=-oldest'], ['filter of channels', 'channels?limit=50&q=77'], ['overview', 'overview'],
]) {
  await new Promise((done) => setTimeout(done, 20_000)); // the samples are forgotten: the first answer takes a new one
  const cold = await firstByte(path);
  const warm = [];
  for (let i = 0; i < 20; i++) warm.push(await firstByte(path));
  warm.sort((a, b) => a - b);
  console.log(`${what.padEnd(24)} first byte: cold ${cold.toFixed(0)} ms; then median ${warm[10].toFixed(0)} ms, longest ${warm[19].toFixed(0)} ms`);
}

// cost is the share of a core that the node uses, in percent.
async function cost() {
  const [cpu, start] = [used(), performance.now()];
  await new Promise((done) => setTimeout(done, seconds * 1000));
  return (100_000 * (used() - cpu)) / (performance.now() - start);
}
await new Promise((done) => setTimeout(done, 20_000));
const idle = await cost();
const watches = ['overview', 'topics?limit=50', `topic:${names[0]}`, `channel:${names[0]}/worker`, 'nodes'];
const streams = await Promise.all(Array.from({ length: viewers }, async (_, i) => {
  const stop = new AbortController();
  const r = await fetch(`${node.url}/api/v1/events?watch=overview&watch=${encodeURIComponent(watches[i % watches.length])}`, { signal: stop.signal });
  let bytes = 0;
  (async () => {
    for await (const part of r.body) bytes += part.length;
  })().catch(() => {});
  return { stop, seen: () => bytes };
}));
await until('all see something', () => streams.every((s) => s.seen() > 500));
const watched = await cost();
for (const s of streams) s.stop.abort();
await new Promise((done) => setTimeout(done, 2000));
const after = await cost();
console.log(`over ${seconds} s each, in percent of a core: idle ${idle.toFixed(2)}, ${viewers} viewers ${watched.toFixed(2)}, after they have left ${after.toFixed(2)}`);
process.exit(0);
