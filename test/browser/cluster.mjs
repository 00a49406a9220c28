// The console on three nodes with traffic: what is wrong shows on the overview
// without a click.
import { pictured } from './pictures.mjs';
import { cli, cluster, consumer, EFFECT, end, open, publish, run, slow, test, traffic, until, Viewer } from './rig.mjs';

await open();
const nodes = await cluster(['n1', 'n2', 'n3']);
const [first] = nodes;
await until('a cluster', async () => (await fetch(`${first.url}/readyz`)).ok);
const v = await Viewer.at(first);

// Consumers are connected to every node: each gets what its own node leads.
await test('traffic on all nodes', async () => {
  traffic(nodes, 'orders', 'worker', 60);
  traffic(nodes, 'clicks', 'worker', 30);
  for (const n of nodes) {
    consumer(n.tcp, 'payments', 'mailer', 0);
    consumer(n.tcp, 'emails', 'sender', 5);
  }
  await publish(first.http, 'payments', Array.from({ length: 80 }, (_, i) => JSON.stringify({ payment: i, amount: 12.5 })));
  run(['pub', 'emails', 'hello', '--count', '1000000', '--rate', '200', '--server', first.http]);
});

await test('three nodes serve', async () => {
  await v.go('/');
  await v.page.locator('.figure', { hasText: 'Nodes' }).locator('.value', { hasText: '3/3' }).waitFor({ timeout: slow * 10_000 });
  await until('a rate', async () => /[1-9]/.test(await v.page.locator('.figure').first().locator('.value').textContent()), slow * 10_000);
});

// Pages that stay open all the time, so that their charts have something to show.
const dark = await Viewer.at(first, { colorScheme: 'dark', locale: 'zh-CN' });
await dark.go('/');
const growing = await Viewer.at(first);
await growing.go('/topics/emails/channels/sender');

await test('a leader moves', async () => {
  const w = await Viewer.at(first);
  await w.go('/shards');
  const moves = w.page.locator('tbody tr').nth(1).locator('td').nth(3); // the cluster may give it back at once
  const before = Number(await moves.textContent());
  await w.button('Move the leader of shard 1').click();
  const to = await w.page.locator('dialog select').inputValue();
  await w.shot('move-light-en');
  await w.sound('move');
  await w.page.locator('dialog').getByRole('button', { name: 'Move' }).click();
  await w.sees(`${to} leads shard 1`, slow * 10_000); // the answer comes when it leads
  await until('the move', async () => Number(await moves.textContent()) > before, EFFECT);
  await w.close();
});

await test('a node shows its own spool', async () => {
  cli('topic', 'create', 'beacons', '--ack', 'local', '--server', nodes[1].http);
  await publish(nodes[1].http, 'beacons', ['one', 'two', 'three']);
  const w = await Viewer.at(first);
  await w.go('/nodes/n2');
  await w.page.locator('#spool', { hasText: 'All brought' }).getByText('3', { exact: true }).waitFor({ timeout: EFFECT * 3 }); // it asks every two seconds
  await w.go('/nodes/n1');
  if (await w.page.locator('#spool').count()) throw new Error('a node shows a spool that nobody has asked for');
  await w.close();
  cli('topic', 'rm', 'beacons', '--yes', '--server', first.http); // which would be a finding: it has no channel
});

await test('a stuck channel and a growing backlog show by themselves', async () => {
  await v.page.locator('[data-finding=channel_stuck]', { hasText: 'payments / mailer' }).waitFor({ timeout: slow * 40_000 });
  await v.page.locator('[data-finding=channel_growing]', { hasText: 'emails / sender' }).waitFor({ timeout: slow * 40_000 });
});

await test('a killed node shows by itself', async () => {
  v.expected = /Failed to load resource|ERR_/; // what a dead node breaks off
  nodes[2].process.kill('SIGKILL');
  await v.page.locator('[data-finding=node_down]', { hasText: 'n3' }).waitFor({ timeout: slow * 12_000 });
  await v.page.locator('.figure', { hasText: 'Nodes' }).locator('.value', { hasText: '2/3' }).waitFor({ timeout: EFFECT });
});

const pages = { node: '/nodes/n2', deadnode: '/nodes/n3', shards: '/shards', topic: '/topics/emails', channel: '/topics/payments/channels/mailer', lookup: '/lookup', overview: '/' };
const looks = [
  ['light-en', Object.keys(pages), {}],
  ['dark-zh', ['shards'], { colorScheme: 'dark', locale: 'zh-CN' }],
];
const picturesOnly = !!process.env.PICTURES; // see pictures.mjs
for (const [look, names, options] of picturesOnly ? [] : looks) {
  await test(`pages of a cluster with a dead node, ${look}`, async () => {
    const w = await Viewer.at(first, options);
    for (const name of names) {
      await w.go(pages[name]);
      await w.shot(`cluster-${name}-${look}`);
      await (look === 'light-en' && name !== 'topic' ? w.sound(name) : w.fits(name));
    }
    await w.close();
  });
}
// The README's pictures: the overview of this cluster. They are made together, so
// two of them tell whether all are of the present page.
for (const [name, options] of [
  ['console-light', {}],
  ['console-zh-dark', { locale: 'zh-CN', colorScheme: 'dark' }],
  ['console-dark', { colorScheme: 'dark' }],
  ['console-zh-light', { locale: 'zh-CN' }],
].slice(0, picturesOnly ? 4 : 2)) {
  await test(`the picture ${name}`, async () => {
    const w = await Viewer.at(first, { viewport: { width: 1280, height: 800 }, ...options });
    await w.go('/');
    await w.page.waitForFunction(() => document.fonts.ready.then(() => document.querySelectorAll('.chart canvas').length === 2));
    await w.page.locator('.side .live.on').waitFor();
    await w.drawn();
    await pictured(w, name);
    await w.close();
  });
}

await test('the pages that stood open all the time', async () => {
  for (const [name, viewer] of Object.entries({ 'overview-light-en': v, 'overview-dark-zh': dark, 'channel-light-en': growing })) {
    viewer.expected ??= v.expected;
    await viewer.shot(`long-${name}`);
    await viewer.close();
  }
});

await end();
