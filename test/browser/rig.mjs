// What the browser tests stand on: real nodes with traffic, one browser, and
// checks that every page must pass.
import { spawn, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

export const bin = process.env.TIDINGS;
export const shots = process.env.SHOTS ?? fileURLToPath(new URL('../../build/screenshots', import.meta.url));
export const slow = Number(process.env.SLOW ?? 1); // how many times as long all may take, on a machine that does other things too
export const EFFECT = slow * 2000; // ms in which an action must show
const PATIENCE = slow * 30_000; // ms in which anything must come

const started = new Set();
const work = mkdtempSync(join(tmpdir(), 'tidings-browser-'));
let folder = 0;

// Whatever ends this process ends what it has started: the end of the tests, an
// error outside of a test, a signal; and the kernel where it is killed (run).
process.on('exit', () => {
  for (const p of started) p.kill('SIGKILL');
  rmSync(work, { recursive: true, force: true, maxRetries: 5 });
});
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]]) process.on(signal, () => process.exit(code));

export const fresh = () => join(work, String(folder++));

// run starts the binary in the background.
export function run(args, options = {}) {
  const p = spawn('setpriv', ['--pdeathsig', 'KILL', '--', bin, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } });
  p.log = '';
  p.out = '';
  p.stdout.on('data', (d) => (p.out += d));
  p.stderr.on('data', (d) => (p.log = (p.log + d).slice(-8000)));
  p.gone = new Promise((done) => p.on('exit', (code) => (started.delete(p), done(code))));
  started.add(p);
  return p;
}

// cli runs a command to its end and gives what it printed.
export const cli = (...args) => execFileSync(bin, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

export async function until(what, check, patience = PATIENCE) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    try {
      last = await check();
      if (last) return last;
    } catch (e) {
      last = e;
    }
    if (Date.now() > end) throw new Error(`${what} did not come in ${patience} ms: ${last?.message ?? last}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function serving(p) {
  const line = await until('the node', () => {
    if (p.exitCode !== null) throw new Error(p.log);
    return p.out.includes('\n') && p.out;
  });
  const a = JSON.parse(line);
  return { process: p, tcp: a.tcp_address, http: a.http_address, url: `http://${a.admin_address}`, admin: a.admin_address };
}

const nowhere = ['--tcp-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0', '--admin-address', '127.0.0.1:0', '--lookup-tcp-address', '127.0.0.1:0', '--lookup-http-address', '127.0.0.1:0'];

export const dev = (...flags) => serving(run(['dev', '--json', '--data-path', fresh(), ...nowhere, ...flags]));

// freePort is one that nobody listens on now; the seeds of a cluster must be
// known before its nodes start.
const freePort = () =>
  new Promise((done) => {
    const s = createServer().listen(0, '127.0.0.1', () => {
      const { port } = s.address();
      s.close(() => done(port));
    });
  });

export async function cluster(names) {
  const certs = fresh();
  cli('cluster', 'cert', '--dir', certs, ...names);
  const ports = await Promise.all(names.map(freePort));
  const seeds = names.map((n, i) => `${n}=127.0.0.1:${ports[i]}`).join(',');
  const start = (i) =>
    serving(run(['serve', '--json', '--node', names[i], '--seeds', seeds, '--data-path', join(certs, names[i]), '--cluster-address', `127.0.0.1:${ports[i]}`, '--cluster-ca', `${certs}/ca.crt`, '--cluster-cert', `${certs}/${names[i]}.crt`, '--cluster-key', `${certs}/${names[i]}.key`, ...nowhere]));
  return Promise.all(names.map((_, i) => start(i)));
}

// consumer speaks NSQ's protocol and finishes as many messages a second as it is
// told; with 0 it holds what it gets, with Infinity it finishes all at once.
export function consumer(tcp, topic, channel, perSecond) {
  const [host, port] = tcp.split(':');
  const s = connect(Number(port), host);
  const stop = { kill: () => s.destroy() };
  started.add(stop);
  s.on('close', () => started.delete(stop));
  let buffer = Buffer.alloc(0);
  const held = [];
  s.on('error', () => {});
  s.write(`  V2SUB ${topic} ${channel}\nRDY 20\n`);
  s.on('data', (d) => {
    buffer = Buffer.concat([buffer, d]);
    while (buffer.length >= 4 && buffer.length >= 4 + buffer.readInt32BE(0)) {
      const frame = buffer.subarray(4, 4 + buffer.readInt32BE(0));
      buffer = buffer.subarray(4 + frame.length);
      if (frame.readInt32BE(0) === 2) {
        const id = frame.subarray(14, 30).toString();
        if (perSecond === Infinity) s.write(`FIN ${id}\n`);
        else held.push(id);
      }
      else if (frame.subarray(4).toString() === '_heartbeat_') s.write('NOP\n');
    }
  });
  if (perSecond > 0 && perSecond < Infinity) setInterval(() => held.length > 0 && s.write(`FIN ${held.shift()}\n`), 1000 / perSecond).unref();
  return s;
}

// publish sends messages through NSQ's HTTP API.
export async function publish(http, topic, bodies, query = '') {
  for (const body of bodies) {
    const r = await fetch(`http://${http}/pub?topic=${encodeURIComponent(topic)}${query}`, { method: 'POST', body });
    if (!r.ok) throw new Error(`publish: ${r.status} ${await r.text()}`);
  }
}

// traffic publishes to the first node at a rate, and consumes from all.
export function traffic(nodes, topic, channel, rate) {
  for (const n of nodes) consumer(n.tcp, topic, channel, Infinity);
  run(['pub', topic, '{"order": 1, "customer": "Ada"}', '--count', '1000000', '--rate', String(rate), '--server', nodes[0].http]);
}

export async function api(node, path, init = {}) {
  const r = await fetch(`${node.url}/api/v1/${path}`, { ...init, headers: { 'X-Tidings': '1', ...(init.body ? { 'Content-Type': 'application/json' } : {}) } });
  if (!r.ok) throw new Error(`${path}: ${r.status} ${await r.text()}`);
  return r.json();
}

const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
let browser;

export async function open() {
  mkdirSync(shots, { recursive: true });
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
}

export const wide = { viewport: { width: 1440, height: 900 } };
export const narrow = { viewport: { width: 320, height: 720 } };
export const zoomed = { viewport: { width: 640, height: 450 }, deviceScaleFactor: 2 }; // 1280 × 900 at 200 %

// Viewer is one tab. Errors of the page and of its console fail the test.
export class Viewer {
  static async at(node, options = {}) {
    const v = new Viewer();
    v.node = node;
    v.errors = [];
    v.context = await browser.newContext({ locale: 'en-US', colorScheme: 'light', reducedMotion: 'reduce', ...wide, ...options });
    v.page = await v.context.newPage();
    v.page.setDefaultTimeout(slow * 10_000);
    v.page.on('pageerror', (e) => v.errors.push(`error: ${e.message}`));
    v.page.on('console', (m) => ['error', 'warning'].includes(m.type()) && !v.expected?.test(m.text()) && v.errors.push(`console: ${m.text()}`));
    return v;
  }

  async go(path) {
    await this.page.goto(this.node.url + path);
    await this.settled();
  }

  // settled: the page has its data.
  async settled() {
    await this.page.waitForSelector('main h1, main .empty');
    await this.page.waitForFunction(() => !document.querySelector('main .skeleton'));
  }

  // drawn: the charts show what the server had; they are drawn once a second.
  drawn() {
    return this.page.waitForFunction(() => [...document.querySelectorAll('.chart canvas')].every((c) => {
      const { data } = c.getContext('2d').getImageData(c.width * 0.2, 0, c.width * 0.7, c.height);
      const colours = new Set();
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60) colours.add(i);
      return colours.size > 20;
    }), null, { polling: 200 });
  }

  // sees waits for a text in the page.
  sees(text, patience = EFFECT) {
    return this.page.getByText(text).filter({ visible: true }).first().waitFor({ timeout: patience });
  }

  button(name) {
    return this.page.getByRole('button', { name, exact: true });
  }

  async shot(name) {
    await this.page.screenshot({ path: `${shots}/${name}.png`, animations: 'disabled' });
  }

  // fits: nothing is cut off at the right, and nothing went wrong.
  async fits(where) {
    const wider = await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wider > 0) throw new Error(`${where}: the page is ${wider} px wider than the window`);
    this.calm(where);
  }

  // sound: it fits, and axe finds nothing serious.
  async sound(where) {
    await this.fits(where);
    await this.page.evaluate(axe);
    const found = await this.page.evaluate(async () => {
      const rest = ['tbody tr:nth-child(n+6)', '.messages > li:nth-child(n+6)']; // rows are alike
      const r = await globalThis.axe.run({ include: ['html'], exclude: rest }, { resultTypes: ['violations'], iframes: false, preload: false });
      return r.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join('  ')}`);
    });
    if (found.length > 0) throw new Error(`${where}: axe finds\n  ${found.join('\n  ')}`);
  }

  calm(where) {
    if (this.errors.length > 0) throw new Error(`${where}: ${this.errors.join('\n')}`);
  }

  async close() {
    this.calm('at the end');
    await this.context.close();
  }
}

let failed = 0;

// test runs one after the other; a failure does not stop the rest.
export async function test(name, f) {
  const start = Date.now();
  try {
    await f();
    console.log(`ok    ${String(Date.now() - start).padStart(6)} ms  ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAIL  ${String(Date.now() - start).padStart(6)} ms  ${name}\n${e.stack ?? e}`);
  }
}

// end stops the process, and all that was started with it.
export async function end() {
  await browser?.close();
  process.exit(failed ? 1 : 0);
}
