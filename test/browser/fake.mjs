// A made-up cluster behind the admin API's contract, for work on the console
// without a node: node test/browser/fake.mjs [PORT]. It knows what a test
// machine cannot easily have: 10,000 topics, 5,000 consumers, a dead node.
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';

const dist = new URL('../../internal/front/console/dist/', import.meta.url);
const start = Date.now() - 7_400_000;
const words = ['orders', 'invoices', 'payments', 'shipments', 'emails', 'clicks', 'audit-log', 'inventory', 'sessions', 'refunds'];
const names = [...words, ...Array.from({ length: 9989 }, (_, i) => `tenant-${String(i).padStart(4, '0')}.events`), 'a-name-of-exactly-sixty-four-characters-so-long-that-it-must-wrap'];
const index = new Map(names.map((n, i) => [n, i]));
const noise = (seed, t) => Math.sin(seed * 12.9898 + t / 7) * 0.5 + Math.sin(seed * 4.1 + t / 3) * 0.3 + 1;
const paused = new Set(['refunds/ledger']);
const gone = new Set();
const emptied = new Map();
const now = () => Date.now();
const tick = () => (now() - start) / 1000;

function channelsOf(topic) {
  const i = index.get(topic);
  if (i === 8) return [];
  const list = i < 8 ? ['audit', 'warehouse', 'mailer'] : i === 9 ? ['ledger'] : ['worker', 'archive'];
  return list.filter((c) => !gone.has(`${topic}/${c}`));
}

function channel(topic, name) {
  const i = index.get(topic) + 1;
  const s = i * 7 + name.length;
  const busy = i <= 10;
  const inRate = busy ? Math.round(900 / i * noise(i, tick())) : 0;
  const stuck = topic === 'payments' && name === 'mailer';
  const growing = topic === 'clicks' && name === 'warehouse';
  const none = topic === 'inventory' && name === 'audit';
  const since = (now() - (emptied.get(`${topic}/${name}`) ?? now() - 600_000)) / 1000;
  const backlog = stuck ? Math.round(48210 * since / 600 + since * 3) : growing ? Math.round(120 * since) : none ? 1284 : busy ? Math.round(noise(s, tick()) * 20) : 0;
  return {
    topic, name, paused: paused.has(`${topic}/${name}`), ephemeral: name.endsWith('#ephemeral'), consumers: none ? 0 : stuck ? 2 : topic === 'orders' && name === 'audit' ? 5000 : busy ? 4 : 0,
    backlog, in_flight: stuck ? 5 : busy && !none ? Math.round(noise(s + 1, tick()) * 12) : 0, deferred: busy ? s % 9 : 0,
    oldest_age_ms: stuck ? Math.round(since * 1000) : growing ? 41_000 : none ? 5_400_000 : backlog ? Math.round(noise(s, tick()) * 300) : null,
    in_rate: inRate, out_rate: stuck || none ? 0 : growing ? inRate * 0.6 : busy ? Math.round(inRate * (0.95 + noise(s, tick()) * 0.05)) : 0,
    requeue_rate: 0, timeout_rate: stuck ? 0.3 : 0, records_total: busy ? 1_000_000 * i : 12, requeued_total: s * 3, timed_out_total: stuck ? 214 : 0,
  };
}

function topic(name) {
  const i = index.get(name) + 1;
  const list = channelsOf(name).map((c) => channel(name, c));
  const sum = (k) => list.reduce((n, c) => n + (c[k] ?? 0), 0);
  const busy = i <= 10;
  return {
    name, paused: paused.has(name), ephemeral: false, partitions: busy ? 4 : 1, channels: list.length, consumers: sum('consumers'), waiting: list.length ? 0 : 812,
    backlog: sum('backlog'), in_flight: sum('in_flight'), deferred: sum('deferred'), oldest_age_ms: Math.max(0, ...list.map((c) => c.oldest_age_ms ?? 0)) || null,
    in_rate: busy ? Math.round(900 / i * noise(i, tick())) : 0, in_bytes_rate: busy ? 180_000 / i : 0, out_rate: sum('out_rate'),
    records_total: busy ? 1_000_000 * i : 12, bytes_total: busy ? 212_000_000 * i : 4000, log_bytes: busy ? 48_000_000 * i : 4000,
  };
}

const base = (name) => ({
  ...topic(name), at: now(), id: '00a1b2c3d4e5f607', created_at: start - 86_400_000, ack: 'default', ack_effective: 'quorum', missing: [],
  active_partitions: topic(name).partitions, partition_list: Array.from({ length: topic(name).partitions }, (_, p) => ({ partition: p, shard: 1 + (p * 3) % 8, leader: ['n1', 'n2'][p % 2], replicas: ['n1', 'n2', 'n3'], known: true, start_offset: 1000 * p, end_offset: 250_000 + 11 * p, hand_over_offset: 250_000 + 11 * p, records_total: 250_000, bytes_total: 53_000_000, log_bytes: 12_000_000 })),
});

function nodes() {
  const live = (name, i, self) => ({
    name, raft_id: `${i}a2f`, self, state: 'live', answered: true, ready: true, seen_ms: 300 * i, live_ms: 7_400_000, version: '0.5.0', started_at: start,
    addresses: { tcp: `10.0.0.${i}:4150`, http: `10.0.0.${i}:4151`, admin: `10.0.0.${i}:4180`, cluster: `10.0.0.${i}:4190`, lookup_tcp: `10.0.0.${i}:4160`, lookup_http: `10.0.0.${i}:4161`, broadcast: `10.0.0.${i}` },
    leads: 5 - i % 2, replicas: 9, in_rate: 900 * noise(i, tick()), in_bytes_rate: 190_000, delivered_rate: 1800 * noise(i + 3, tick()), connections: 2512, consumers: 2480, sync_ms: 1.8 + noise(i, tick()), disk_free_bytes: 182e9, disk_reserve_reached: false, memory_bytes: 210e6, goroutines: 212,
  });
  const spool = { depth: Math.round(812 * noise(5, tick()) + 40_000), oldest_age_ms: 94_000 + (tick() % 100) * 1000, bytes: 212e6, limit_bytes: 2 ** 30, forwarded_total: 1_204_221, refused_total: 0, connected: false, error: 'forward topic beacons: shard 3: no leader is known: NO_LEADER' };
  return [{ ...live('n1', 1, true), spool: { depth: 0, oldest_age_ms: 0, bytes: 1e6, limit_bytes: 2 ** 30, forwarded_total: 12, refused_total: 0, connected: true } }, { ...live('n2', 2, false), spool }, { name: 'n3', raft_id: '3a2f', self: false, state: 'down', answered: false, seen_ms: 94_000 + (tick() % 100) * 1000, leads: 0, replicas: 9 }];
}

const shards = () => Array.from({ length: 9 }, (_, i) => ({
  shard: i, metadata: i === 0, leader: ['n1', 'n2'][i % 2], preferred_leader: ['n1', 'n2', 'n3'][i % 3], term: 4 + i % 3, commit: 812_344 + i * 977, partitions: i ? 1250 : 0, leader_changes: i % 3 === 2 ? 2 : 1, leader_since_at: start + i * 60_000,
  replicas: ['n1', 'n2', 'n3'].map((n, k) => ({ node: n, role: 'voter', applied: 812_000, lag: k === 2 ? 14_200 + i * 31 : k && i % 2 ? 3 : 0, live: k !== 2 })),
}));

function findings() {
  const c = channel('payments', 'mailer');
  const list = [
    { id: '1', severity: 'critical', code: 'node_down', text: 'n3 is down', target: { node: 'n3' }, values: { age_ms: 94_000 }, link: '/nodes/n3', since_at: now() - 94_000 },
    { id: '3', severity: 'warning', code: 'channel_growing', text: 'grows', target: { topic: 'clicks', channel: 'warehouse' }, values: { backlog: channel('clicks', 'warehouse').backlog, rate: 120 }, link: '/topics/clicks/channels/warehouse', since_at: now() - 320_000 },
    { id: '4', severity: 'warning', code: 'channel_no_consumers', text: 'none', target: { topic: 'inventory', channel: 'audit' }, values: { backlog: 1284, age_ms: 5_400_000 }, link: '/topics/inventory/channels/audit', since_at: now() - 5_400_000 },
    { id: '6', severity: 'warning', code: 'spool_behind', text: 'behind', target: { node: 'n2' }, values: { depth: 40_000, age_ms: 94_000 }, link: '/nodes/n2' },
    { id: '5', severity: 'warning', code: 'topic_no_channel', text: 'no channel', target: { topic: 'sessions' }, values: { waiting: 812 }, link: '/topics/sessions' },
  ];
  if (c.backlog > 1000) list.splice(1, 0, { id: '2', severity: 'critical', code: 'channel_stuck', text: 'stuck', target: { topic: 'payments', channel: 'mailer' }, values: { backlog: c.backlog, age_ms: c.oldest_age_ms, consumers: 2 }, link: '/topics/payments/channels/mailer', since_at: now() - 600_000 });
  return list;
}

function overview() {
  const few = names.slice(0, 12).map(topic);
  const chans = names.slice(0, 12).flatMap((n) => channelsOf(n).map((c) => channel(n, c)));
  const sum = (k) => few.reduce((n, x) => n + (x[k] ?? 0), 0);
  const by = (k) => chans.filter((c) => c[k]).sort((a, b) => b[k] - a[k]).slice(0, 10);
  return {
    at: now(), cluster: '7f3a', healthy: false, nodes: nodes(), shards: { total: 9, leaderless: 0, behind: 9 }, findings: findings(), findings_more: 0, missing: [{ node: 'n3', reason: 'down' }],
    totals: { topics: names.length, channels: 20_012, consumers: 5100, connections: 5024, in_rate: sum('in_rate'), in_bytes_rate: sum('in_bytes_rate'), out_rate: sum('out_rate'), delivered_rate: sum('out_rate'), requeue_rate: 0.2, timeout_rate: 0.3, backlog: sum('backlog'), waiting: 812, in_flight: sum('in_flight'), deferred: sum('deferred'), oldest_age_ms: 5_400_000, oldest: { topic: 'inventory', channel: 'audit' }, log_bytes: 9e9 },
    oldest: by('oldest_age_ms'), backlogs: by('backlog'), busiest: few.sort((a, b) => b.in_rate - a.in_rate).slice(0, 10),
  };
}

function page(rows, q, value) {
  const sort = q.get('sort') ?? 'name';
  const key = sort.replace(/^-/, '');
  const sign = sort.startsWith('-') ? -1 : 1;
  const part = (q.get('q') ?? '').toLowerCase();
  const list = rows.filter((r) => String(value(r, '')).toLowerCase().includes(part));
  list.sort((a, b) => { const x = value(a, key), y = value(b, key); return sign * (x < y ? -1 : x > y ? 1 : 0); });
  const at = Number(q.get('cursor') ?? 0), limit = Number(q.get('limit') ?? 50);
  return { at: now(), items: list.slice(at, at + limit), total: list.length, next: at + limit < list.length ? String(at + limit) : undefined, dead_lettered_total: c === 'mailer' ? 214 : 0, missing: [] };
}

const rowValue = (r, k) => ({ '': r.name, oldest: r.oldest_age_ms ?? -1, log: r.log_bytes, requeued: r.requeued_total, timed_out: r.timed_out_total }[k] ?? r[k]);
const topics = (q) => page(names.filter((n) => !gone.has(n)).map(topic), q, rowValue);
const binary = randomBytes(200 << 10);

function message(name, o) {
  const body = o % 7 === 3 ? binary.subarray(0, 1024) : o % 5 === 4 ? Buffer.from(`plain text line number ${o}: the quick brown fox`) : Buffer.from(JSON.stringify({ order: 880_000 + o, customer: { id: o * 31, name: '王小明', vip: o % 2 === 0 }, items: [{ sku: 'A-17', n: 2, price: 19.95 }, { sku: 'B-02', n: 1, price: 4.5 }], note: null, big: 12345678901234 }));
  return { partition: o % 4, offset: o, id: (0x0a1b2c3d4e5f6000 + o).toString(16).padStart(16, '0').slice(0, 16), timestamp_at: now() - (1000 - o % 1000) * 900, timestamp_ns: '0', size_bytes: o % 7 === 3 ? 200 << 10 : body.length, body: body.toString('base64'), truncated: o % 7 === 3, key: o % 2 ? Buffer.from(`customer-${o}`).toString('base64') : undefined };
}

function messages(name, q) {
  const from = Number(q.get('cursor') ?? q.get('offset') ?? 250_000);
  const items = Array.from({ length: Number(q.get('limit') ?? 25) }, (_, i) => message(name, from + i));
  const find = q.get('search');
  const hits = find ? items.filter((m) => Buffer.from(m.body, 'base64').includes(find)).slice(0, 8) : items;
  return { at: now(), items: hits, next: String(from + items.length), gaps: from === 0 ? [{ partition: 0, first: 0, last: 999, reason: 'deleted' }] : [], scanned: { records: find ? 10_000 : items.length, bytes: 2_100_000, complete: false }, missing: [] };
}

function peek(name, ch, q) {
  const state = q.get('state') ?? 'queued';
  const items = Array.from({ length: 25 }, (_, i) => ({ ...message(name, 1000 + i), state, attempts: state === 'queued' ? i % 3 : 3, ...(state === 'deferred' ? { due_at: now() + i * 60_000 } : {}), ...(state === 'in_flight' ? { deadline_at: now() + 60_000 - i * 1000, consumer: '10.0.0.7:50112' } : {}) }));
  return { at: now(), items, next: '2', gaps: [], scanned: { records: 25, bytes: 1, complete: false }, missing: [] };
}

const consumers = (q) => page(Array.from({ length: 5000 }, (_, i) => ({ id: String(i), node: ['n1', 'n2'][i % 2], client_id: `worker-${i}`, hostname: `worker-${i}.example`, remote_address: `10.1.${i >> 8}.${i & 255}:50${100 + i % 800}`, user_agent: 'go-nsq/1.1.0', connected_at: start + i * 100, ready: i % 50 ? 200 : 0, in_flight: i % 7, delivered_total: 1000 + i, finished_total: 990 + i, requeued_total: i % 11, timed_out_total: i % 40 ? 0 : 2, tls: i % 3 === 0, compression: i % 4 ? '' : 'snappy' })), q, (r, k) => ({ '': r.client_id, client: r.client_id, connected: r.connected_at, address: r.remote_address, finished: r.finished_total, requeued: r.requeued_total, timed_out: r.timed_out_total }[k] ?? r[k]));

const config = () => ({ file: '/etc/tidings.toml', settings: [
  { key: 'tcp_address', flag: '--tcp-address', env: 'TIDINGS_TCP_ADDRESS', type: 'string', value: '0.0.0.0:4150', default: '127.0.0.1:4150', origin: 'file', help: 'address for NSQ TCP clients' },
  { key: 'max_msg_size', flag: '--max-msg-size', env: 'TIDINGS_MAX_MSG_SIZE', type: 'size', value: '1MiB', default: '1MiB', origin: 'default', help: 'largest message' },
  { key: 'auth_secret', flag: '--auth-secret', env: 'TIDINGS_AUTH_SECRET', type: 'string', value: '***', default: '', origin: 'environment', secret: true, help: 'secret of this node' },
  { key: 'node', flag: '--node', env: 'TIDINGS_NODE', type: 'string', value: 'n1', default: '', origin: 'flag', help: 'name of this node' },
] });

const lookup = () => ({ served: true, producers_total: 4, lookupds: [{ address: '10.0.0.9:4160', connected: true, version: '1.3.0', hostname: 'lookup1' }, { address: '10.0.0.10:4160', connected: false, error: 'dial tcp 10.0.0.10:4160: connection refused' }], producers: [1, 2].map((i) => ({ hostname: `n${i}`, broadcast_address: `10.0.0.${i}`, tcp_port: 4150, http_port: 4151, version: '0.5.0', member: true, topics: 5000 })).concat([{ hostname: 'old-nsqd', broadcast_address: '10.0.0.30', tcp_port: 4150, http_port: 4151, version: '1.3.0', remote_address: '10.0.0.30:41022', member: false, topics: 12, last_ping_at: now() - 9000, tombstones: ['orders'] }]) });

function watched(w) {
  const [kind, rest] = [w.split(/[:?]/)[0], w.slice(w.search(/[:?]|$/) + 1)];
  if (kind === 'overview') return overview();
  if (kind === 'topics') { const p = topics(new URLSearchParams(rest)); return { at: p.at, order: p.items.map((x) => x.name), rows: Object.fromEntries(p.items.map((x) => [x.name, x])), total: p.total, missing: [] }; }
  if (kind === 'nodes') return { at: now(), nodes: Object.fromEntries(nodes().map((n) => [n.name, n])), shards: Object.fromEntries(shards().map((s) => [s.shard, s])), missing: [] };
  const [t, c] = rest.split('/').map(decodeURIComponent);
  if (!index.has(t) || gone.has(t)) return null;
  if (kind === 'topic') return { ...base(t), channel_rows: Object.fromEntries(channelsOf(t).map((n) => [n, channel(t, n)])) };
  if (!channelsOf(t).includes(c)) return null;
  return { ...channel(t, c), at: now(), created_at: start, topic_paused: paused.has(t), max_attempts: c === 'mailer' ? 5 : 0, dead_letter: c === 'mailer' ? `${t}.${c}.dead` : undefined, missing: [], partition_list: base(t).partition_list.map((p) => ({ partition: p.partition, leader: p.leader, known: true, floor_offset: 249_000, end_offset: p.end_offset, unfinished: 31, parked: 2, finished_ranges: 4, oldest_at: now() - 60_000 })) };
}

// past is a day like others: a point every ten seconds of fifteen minutes.
const past = (watch) => Array.from({ length: 90 }, (_, i) => {
  const t = tick() - (90 - i) * 10;
  const rate = Math.round(900 * noise(watch.length, t));
  return { at: start + t * 1000, in_rate: rate, out_rate: Math.round(rate * 0.97), backlog: Math.round(200 * noise(watch.length + 1, t)), oldest_age_ms: Math.round(900 * noise(watch.length + 2, t)) };
});

function events(req, res, q) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  let kind = 'state';
  const send = () => {
    for (const w of q.getAll('watch')) {
      const data = watched(w);
      res.write(data ? `event: ${kind}\ndata: ${JSON.stringify({ watch: w, at: now(), data })}\n\n` : `event: gone\ndata: ${JSON.stringify({ watch: w, at: now(), data: { code: 'NOT_FOUND', message: 'not there' } })}\n\n`);
    }
    kind = 'patch';
  };
  send();
  const timer = setInterval(send, 1000);
  req.on('close', () => clearInterval(timer));
}

function tail(req, res, name) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream' });
  let o = 250_000;
  const timer = setInterval(() => res.write(`event: messages\ndata: ${JSON.stringify({ at: now(), items: [message(name, o++), message(name, o++)], left_out: 3 })}\n\n`), 500);
  req.on('close', () => clearInterval(timer));
}

function act(method, p) {
  const key = p.slice(1).filter((x, i) => i !== 1 || x !== 'channels').join('/');
  const id = p[2] === 'channels' ? `${p[1]}/${p[3]}` : p[1];
  const verb = p.at(-1);
  if (method === 'DELETE') gone.add(id);
  if (verb === 'pause') paused.add(id);
  if (verb === 'resume') paused.delete(id);
  if (verb === 'empty') emptied.set(id, now());
  return { cli: 'tidings ' + key };
}

function api(req, res, p, q) {
  const send = (v, status = 200) => { res.writeHead(v ? status : 404, { 'Content-Type': 'application/json' }); res.end(JSON.stringify(v ?? { code: 'NOT_FOUND', message: 'there is no such thing' })); };
  if (req.method !== 'GET') return req.resume().on('end', () => send(act(req.method, p)));
  if (p[0] === 'self') return send({ node: 'n1', version: '0.5.0', nsq_version: '1.3.0', go_version: 'go1.26', platform: 'linux/amd64', started_at: start, now_at: now(), cluster: '7f3a9c', alone: false, stage: 'formed', read_only: false, ready: true, addresses: nodes()[0].addresses, limits: { max_msg_bytes: 1 << 20, max_defer_ms: 36e5 } });
  if (p[0] === 'events') return events(req, res, q);
  if (p[0] === 'overview') return send(overview());
  if (p[0] === 'history') return send({ at: now(), step_ms: 10_000, points: past(q.get('watch')) });
  if (p[0] === 'nodes') return send(p[1] ? { ...nodes().find((n) => n.name === p[1]), at: now(), log: { log_bytes: 6.4e7, syncs_total: 182_334, sync_mean_ms: 1.9, sync_p50_ms: 1.6, sync_p99_ms: 6.2, sync_max_ms: 41, segments_recycled_total: 12, cut_bytes: 0, tail_bytes: 3e6, segments: 412, damage_total: 0 }, shards: shards().map((s) => ({ shard: s.shard, leads: s.leader === p[1], role: 'voter', applied: s.commit, lag: 0 })) } : { at: now(), items: nodes(), missing: [] });
  if (p[0] === 'shards') return send({ at: now(), items: shards() });
  if (p[0] === 'lookup') return send(lookup());
  if (p[0] === 'config') return send(config());
  if (p[0] === 'channels') return send(page(names.slice(0, 40).flatMap((n) => channelsOf(n).map((c) => channel(n, c))), q, rowValue));
  if (p[0] !== 'topics') return send(null);
  if (!p[1]) return send(topics(q));
  if (p[2] === 'tail') return tail(req, res, p[1]);
  if (p[2] === 'messages' && p[4]) return send({ ...message(p[1], Number(p[4])), ...(Number(p[4]) % 7 === 3 ? { body: binary.toString('base64'), truncated: false } : {}) });
  if (p[2] === 'messages') return send(messages(p[1], q));
  if (p[4] === 'messages') return send(peek(p[1], p[3], q));
  if (p[4] === 'consumers') return send(consumers(q));
  return send(watched(`topic:${encodeURIComponent(p[1])}`));
}

const kinds = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', html: 'text/html; charset=utf-8' };
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

createServer((req, res) => {
  const url = new URL(req.url, 'http://x');
  const p = url.pathname.split('/').filter(Boolean).map(decodeURIComponent);
  if (p[0] === 'api') return api(req, res, p.slice(2), url.searchParams);
  const name = p[0] === 'assets' ? p[1] : 'index.html';
  const text = readFileSync(new URL(name, dist), 'utf8').replace('{{base}}', '/').replace('{{read-only}}', 'false').replace(/\{\{([\w.]+)\}\}/g, '/assets/$1');
  res.writeHead(200, { 'Content-Type': kinds[name.split('.').pop()], 'Content-Security-Policy': policy });
  res.end(text);
}).listen(Number(process.argv[2] ?? 0), '127.0.0.1', function () { console.log(`http://127.0.0.1:${this.address().port}/`); });
