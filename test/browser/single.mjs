// The console on one node: a first start, every page, every action.
import { api, cli, consumer, dev, EFFECT, end, narrow, open, publish, slow, test, traffic, until, Viewer, zoomed } from './rig.mjs';

await open();
const node = await dev();
let v = await Viewer.at(node);

await test('a new node says what to type', async () => {
  await v.go('/');
  await v.sees('No topics yet');
  await v.sees(`tidings pub orders hello --server ${node.http}`);
  await v.shot('first-light-en');
  await v.sound('first');
});

await test('a topic is made and published to', async () => {
  await v.go('/topics');
  await v.button('Create topic').click();
  await v.page.getByLabel('Name').fill('orders');
  await v.button('Create').click();
  await v.page.getByRole('heading', { name: 'orders' }).waitFor();
  await v.button('Publish').click();
  await v.page.getByRole('textbox', { name: 'Message' }).fill('{"order": 17, "big": 12345678901234567890}');
  await v.shot('publish-light-en');
  await v.sound('publish');
  await v.page.locator('dialog').getByRole('button', { name: 'Publish' }).click();
  await v.sees('1 message is published to orders');
  await v.page.getByRole('link', { name: 'Messages' }).click();
  await v.page.locator('.line').first().click();
  await v.page.locator('.payload .n', { hasText: '12345678901234567890' }).waitFor({ timeout: EFFECT });
  await v.shot('message-light-en');
  await v.sound('message');
});

await test('messages wait for a channel, and the page says so', async () => {
  await v.go('/topics/orders');
  await v.sees('no channel takes them');
  await v.button('Create channel').click();
  await v.page.getByLabel('Name').fill('audit');
  await v.page.locator('dialog').getByRole('button', { name: 'Create' }).click();
  await v.page.locator('td .name', { hasText: 'audit' }).waitFor({ timeout: EFFECT });
});

await test('a channel is paused and goes on', async () => {
  await v.go('/topics/orders/channels/audit');
  await v.button('Pause').click();
  await v.page.locator('.title .badge', { hasText: 'Paused' }).waitFor({ timeout: EFFECT });
  await v.sees(`tidings channel pause orders audit --server ${node.http}`);
  if (!(await api(node, 'topics/orders/channels/audit')).paused) throw new Error('it is not paused');
  await v.button('Resume').click();
  await v.page.locator('.title .badge', { hasText: 'Paused' }).waitFor({ state: 'detached', timeout: EFFECT });
});

await test('what waits is looked at, and nothing is taken', async () => {
  await publish(node.http, 'orders', Array.from({ length: 30 }, (_, i) => `{"order": ${i}}`));
  await v.go('/topics/orders/channels/audit?tab=queued');
  await v.page.locator('.line').nth(20).waitFor();
  await v.page.locator('.line').first().click();
  await v.page.locator('.payload').waitFor();
  await v.sound('peek');
  await until('a backlog of 31', async () => (await api(node, 'topics/orders/channels/audit')).backlog === 31, EFFECT);
});

await test('emptying and deleting ask for the name', async () => {
  await v.go('/topics/orders/channels/audit');
  await v.page.locator('.actions').getByRole('button', { name: 'Empty' }).click();
  const dialog = v.page.locator('dialog');
  if (await dialog.getByRole('button', { name: 'Empty' }).isEnabled()) throw new Error('the button is enabled before the name is typed');
  await v.shot('empty-light-en');
  await v.sound('the question');
  await dialog.getByRole('textbox').fill('audit');
  await dialog.getByRole('button', { name: 'Empty' }).click();
  await v.page.locator('.figure', { hasText: 'Backlog' }).locator('.value', { hasText: /^0$/ }).waitFor({ timeout: EFFECT });
  await v.page.locator('.actions').getByRole('button', { name: 'Delete' }).click();
  await dialog.getByRole('textbox').fill('audit');
  await dialog.getByRole('button', { name: 'Delete' }).click();
  await v.page.getByRole('heading', { name: 'orders' }).waitFor({ timeout: EFFECT });
  await v.sees('No channels yet');
  await v.page.locator('.actions').getByRole('button', { name: 'Delete' }).click();
  await dialog.getByRole('textbox').fill('orders');
  await dialog.getByRole('button', { name: 'Delete' }).click();
  await v.page.getByRole('heading', { name: 'Topics', exact: true }).waitFor({ timeout: EFFECT });
  await v.sees('No topics yet', EFFECT);
});

await test('what was deleted elsewhere is gone here', async () => {
  cli('topic', 'create', 'passing', '--server', node.http);
  await v.go('/topics/passing');
  cli('topic', 'rm', 'passing', '--yes', '--server', node.http);
  await v.sees('passing is not there');
});

const long = 'a'.repeat(54) + '#ephemeral';
await test('a busy node', async () => {
  traffic([node], 'orders', 'audit', 300);
  traffic([node], 'clicks', 'counter', 120);
  await publish(node.http, 'files', [Buffer.from(Uint8Array.from({ length: 200 << 10 }, (_, i) => (i * 7) & 255)), 'needle in the hay', ...Array.from({ length: 40 }, (_, i) => `hay ${i}`)]);
  await publish(node.http, 'reminders', ['later'], '&defer=600000');
  consumer(node.tcp, 'payments', 'mailer', 0);
  consumer(node.tcp, 'invoices', 'printer', 0);
  await publish(node.http, 'invoices', Array.from({ length: 30 }, (_, i) => `{"invoice": ${i}}`));
  await publish(node.http, 'payments', Array.from({ length: 60 }, (_, i) => JSON.stringify({ payment: i, amount: 12.5 * i, customer: { name: '王小明' } })));
  await publish(node.http, 'reminders', ['now']);
  cli('channel', 'create', 'reminders', 'mailer', '--server', node.http);
  for (let i = 0; i < 60; i++) cli('topic', 'create', `tenant-${String(i).padStart(3, '0')}`, '--server', node.http);
  cli('topic', 'create', 'b'.repeat(64), '--server', node.http);
  cli('channel', 'create', 'orders', long, '--server', node.http);
});

await test('a large binary message is shown in hex', async () => {
  await v.go('/topics/files?tab=messages&from=earliest');
  await v.page.locator('.line').first().click();
  await v.page.locator('.payload.hex', { hasText: '00000000' }).waitFor();
  await v.button('64.0 KiB are shown; show all 200 KiB').click();
  await v.page.locator('.payload.hex', { hasText: '00031ff0' }).waitFor({ timeout: EFFECT });
  await v.fits('binary message');
});

await test('the log is searched, and the address says how', async () => {
  await v.go('/topics/files?tab=messages');
  await v.page.locator('main [data-search]').fill('needle');
  await v.sees('1 found in 42 messages');
  await v.page.locator('mark', { hasText: 'needle' }).waitFor();
  await v.page.locator('main [aria-pressed=true]', { hasText: 'Earliest' }).waitFor(); // where a search begins
  await v.page.reload();
  await v.sees('1 found in 42 messages', EFFECT * 2);
});

await test('the log is read backwards, page by page', async () => {
  await v.go('/topics/orders?tab=messages');
  const top = async () => Number((await v.page.locator('.line .place').first().textContent()).split('·')[1].replaceAll(',', ''));
  const newest = await top();
  await v.page.getByRole('link', { name: 'Older' }).click();
  await until('the page before', async () => (await top()) === newest - 50, EFFECT);
  await v.page.getByRole('link', { name: 'Newer' }).click();
  await until('the page after', async () => (await top()) === newest, EFFECT);
});

await test('the attempts of a channel are limited', async () => {
  await v.go('/topics/orders/channels/audit');
  await v.button('Limit attempts').click();
  await v.page.getByLabel('Deliveries at most').fill('5');
  await v.sound('limit');
  await v.shot('limit-light-en');
  await v.button('Save').click();
  await v.sees(`tidings channel set orders audit --max-attempts 5 --server ${node.http}`);
  await v.page.getByRole('link', { name: 'orders.audit.dead' }).waitFor({ timeout: EFFECT });
  if ((await api(node, 'topics/orders/channels/audit')).max_attempts !== 5) throw new Error('there is no limit');
});

await test('a topic gets more partitions', async () => {
  await publish(node.http, 'ledger', ['one', 'two']);
  await v.go('/topics/ledger');
  await v.button('Add partitions').click();
  const dialog = v.page.locator('dialog');
  await dialog.getByRole('textbox').fill('1');
  if (await dialog.getByRole('button', { name: 'Add partitions' }).isEnabled()) throw new Error('it offers to have no more than there are');
  cli('topic', 'set', 'ledger', '--partitions', '4', '--server', node.http); // somebody else is faster
  await dialog.getByRole('textbox').fill('3');
  await v.sound('partitions');
  v.expected = /Failed to load resource/; // the refusal
  await v.button('Raise to 3').click();
  await v.sees('raise partitions of topic ledger to 3');
  await v.shot('raise-light-en');
  await dialog.getByRole('textbox').fill('6');
  await v.button('Raise to 6').click();
  await v.sees(`tidings topic set ledger --partitions 6 --server ${node.http}`, EFFECT * 2);
  await v.page.locator('.tabs a', { hasText: 'Partitions' }).locator('.tally', { hasText: '6' }).waitFor({ timeout: EFFECT });
  v.expected = undefined;
});

await test('topics are filtered, sorted and paged', async () => {
  await v.go('/topics');
  await v.page.getByRole('link', { name: 'Next' }).click();
  await v.page.locator('td .name', { hasText: 'tenant-059' }).waitFor({ timeout: EFFECT });
  await v.page.getByRole('link', { name: 'Previous' }).click();
  await v.page.locator('td .name', { hasText: 'clicks' }).waitFor({ timeout: EFFECT });
  await v.page.getByRole('link', { name: 'In', exact: true }).click();
  await until('the busiest first', async () => (await v.page.locator('td .name a').first().textContent()) === 'orders', EFFECT * 3); // the pointer held the rows
  await v.page.locator('main [data-search]').fill('tenant-01');
  await until('ten topics', async () => (await v.page.locator('tbody tr').count()) === 10, EFFECT);
  if (!v.page.url().includes('q=tenant-01') || !v.page.url().includes('sort=-in_rate')) throw new Error(v.page.url());
});

await test("a link to nsqadmin's page of a channel leads to ours", async () => {
  await v.go('/topics/orders/audit');
  await v.page.getByRole('heading', { name: 'audit' }).waitFor({ timeout: EFFECT });
  if (!v.page.url().endsWith('/topics/orders/channels/audit')) throw new Error(v.page.url());
});

await test('by keyboard alone', async () => {
  await v.go('/');
  const key = (...list) => list.reduce((p, k) => p.then(() => v.page.keyboard.press(k)), Promise.resolve());
  await key('g', 't');
  await v.page.getByRole('heading', { name: 'Topics', exact: true }).waitFor({ timeout: EFFECT });
  await v.settled();
  await key('/');
  await v.page.keyboard.type('orders');
  await until('one topic', async () => (await v.page.locator('tbody tr').count()) === 1, EFFECT);
  await key('Escape', 'j', 'Enter');
  await v.page.getByRole('heading', { name: 'orders' }).waitFor({ timeout: EFFECT });
  await key('u');
  await v.page.getByRole('heading', { name: 'Topics', exact: true }).waitFor({ timeout: EFFECT });
  await key('Control+k');
  await v.page.keyboard.type('audit');
  await v.page.getByRole('option', { name: 'orders / audit' }).waitFor();
  await v.shot('goto-light-en');
  await v.sound('go to');
  await key('ArrowDown', 'ArrowUp', 'Enter');
  await v.page.getByRole('heading', { name: 'audit' }).waitFor({ timeout: EFFECT });
  await key('g', 't');
  await v.page.getByRole('heading', { name: 'Topics', exact: true }).waitFor({ timeout: EFFECT });
  await key('?');
  await v.page.getByRole('dialog').waitFor({ timeout: EFFECT });
  await v.shot('keys-light-en');
  await v.sound('help');
  await key('Escape');
  await v.page.getByRole('dialog').waitFor({ state: 'detached', timeout: EFFECT });
});

await test('the log level is changed', async () => {
  await v.go('/config');
  await v.page.getByLabel('Log level').selectOption('error');
  await v.sees(`curl -X PUT -d error http://${node.http}/config/log_level`);
  await until('the level', async () => (await api(node, 'log-level')).level === 'error', EFFECT);
});

await test('theme and language stay chosen', async () => {
  await v.go('/');
  await v.button('Theme: as the system').click();
  await v.button('Theme: light').click();
  await v.button('中文').click();
  await v.page.getByRole('heading', { name: '总览' }).waitFor({ timeout: EFFECT });
  await v.page.reload();
  await v.page.getByRole('heading', { name: '总览' }).waitFor();
  const look = await v.page.evaluate(() => document.documentElement.dataset.theme + ' ' + document.documentElement.lang);
  if (look !== 'dark zh-CN') throw new Error(look);
});
await test('nothing went wrong on the way', () => v.close());

v = await Viewer.at(node);
await test('new messages come by themselves', async () => {
  await v.go('/tail?topic=orders');
  await v.page.locator('.line').nth(5).waitFor({ timeout: EFFECT * 2 });
  await v.shot('tail-running-light-en');
  await v.button('Hold').click(); // axe would look at hundreds of lines that come and go
  await v.sound('tail');
});

await test('a hidden page closes its stream', async () => {
  await v.go('/');
  await v.page.locator('.side .live.on').waitFor({ timeout: EFFECT });
  const hide = (hidden) => v.page.evaluate((h) => {
    Object.defineProperty(document, 'hidden', { value: h, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  const ended = v.page.waitForEvent('requestfailed', { predicate: (r) => r.url().includes('/events') });
  await hide(true);
  await ended;
  await v.page.locator('.side').getByText('Paused').waitFor({ timeout: EFFECT });
  await hide(false);
  await v.page.locator('.side .live.on').waitFor({ timeout: EFFECT });
});
await test('nothing went wrong since', () => v.close());

await test('5,000 consumers on one channel', async () => {
  const crowd = Array.from({ length: 5000 }, () => consumer(node.tcp, 'crowd', 'all', 0));
  await until('5,000 consumers', async () => (await api(node, 'topics/crowd/channels/all')).consumers === 5000);
  const viewer = await Viewer.at(node);
  await viewer.go('/topics/crowd/channels/all?tab=consumers&sort=-address');
  await viewer.sees('1–50 of 5,000');
  await viewer.page.getByRole('link', { name: 'Next' }).click();
  await viewer.sees('51–100 of 5,000');
  await viewer.page.locator('main [data-search]').fill(String(crowd[4321].localPort));
  await until('the one', async () => (await viewer.page.locator('tbody tr').count()) === 1, EFFECT);
  await viewer.shot('crowd-light-en');
  await viewer.close();
  for (const c of crowd) c.destroy();
});

const pages = {
  overview: '/', topics: '/topics', topic: '/topics/orders', messages: '/topics/payments?tab=messages', partitions: '/topics/orders?tab=partitions',
  channel: '/topics/payments/channels/mailer', inflight: '/topics/payments/channels/mailer?tab=in_flight', deferred: '/topics/reminders/channels/mailer?tab=deferred',
  consumers: '/topics/orders/channels/audit?tab=consumers', channels: '/channels', nodes: '/nodes', shards: '/shards', lookup: '/lookup', config: '/config', tail: '/tail?topic=orders',
  longtopic: '/topics/' + 'b'.repeat(64), longchannel: '/topics/orders/channels/' + encodeURIComponent(long), nowhere: '/there/is/no/such/page', gone: '/topics/never-made',
};
// What differs from another page in its data only, axe need not look at.
const alike = ['inflight', 'deferred', 'partitions', 'longtopic', 'longchannel', 'channels', 'gone', 'nowhere'];
// axe looks at both themes, both languages and both widths, in two of the looks.
const looks = [
  ['light-en', true, {}],
  ['narrow-dark-zh', true, { ...narrow, colorScheme: 'dark', locale: 'zh-CN' }],
  ['dark-zh', false, { colorScheme: 'dark', locale: 'zh-CN' }, ['overview', 'topics', 'topic', 'messages', 'channel', 'config']],
  ['narrow-light-en', false, narrow, ['overview', 'topic', 'messages', 'shards', 'longtopic', 'longchannel']],
  ['zoomed-light-en', false, zoomed, ['overview', 'topics', 'messages', 'channel', 'consumers', 'config']],
];
for (const [look, deep, options, some = Object.keys(pages)] of looks) {
  await test(`pages, ${look}`, async () => {
    const viewer = await Viewer.at(node, options);
    for (const name of some) {
      await viewer.go(pages[name]);
      await viewer.shot(`${name}-${look}`);
      await (deep && !alike.includes(name) ? viewer.sound(`${name} ${look}`) : viewer.fits(`${name} ${look}`));
    }
    await viewer.close();
  });
}

await test('a stuck channel is found, read and emptied by keyboard alone', async () => {
  const w = await Viewer.at(node);
  const press = async (...keys) => {
    for (const key of keys) await w.page.keyboard.press(key);
  };
  // reach goes along what can have the focus until that begins with a text.
  const reach = async (key, text) => {
    for (let i = 0; i < 80; i++) {
      await press(key);
      if (await w.page.evaluate((begin) => document.activeElement.textContent.trim().startsWith(begin), text)) return;
    }
    throw new Error(`${key} does not reach ${text}`);
  };
  await w.go('/');
  const finding = w.page.locator('[data-finding=channel_stuck]', { hasText: 'invoices / printer is stuck' });
  await finding.waitFor({ timeout: slow * 20_000 });
  for (let i = 0; i < 20 && !/\bat\b/.test(await finding.getAttribute('class')); i++) await press('j');
  await reach('Tab', 'Look at what its consumers hold');
  await press('Enter');
  await w.page.locator('.tabs [aria-current=page]', { hasText: 'In flight' }).waitFor({ timeout: EFFECT });
  await w.page.locator('.line').first().waitFor({ timeout: EFFECT });
  await press('j', 'Enter');
  await w.page.locator('.payload', { hasText: '"invoice"' }).waitFor({ timeout: EFFECT });
  await reach('Shift+Tab', 'Empty');
  await press('Enter');
  await w.page.locator('dialog').waitFor({ timeout: EFFECT });
  await w.page.keyboard.type('printer');
  await press('Enter');
  await w.sees('Nothing is in flight');
  await w.page.locator('.figure', { hasText: 'Backlog' }).locator('.value', { hasText: /^0$/ }).waitFor({ timeout: EFFECT });
  await press('g', 'o');
  await w.page.getByRole('heading', { name: 'Overview' }).waitFor({ timeout: EFFECT });
  await finding.waitFor({ state: 'detached', timeout: EFFECT * 2 });
  await w.close();
});

await test('a node that is read-only offers no change', async () => {
  const still = await dev('--admin-read-only');
  const viewer = await Viewer.at(still);
  await viewer.go('/topics');
  await viewer.sees('Read-only');
  if (await viewer.button('Create topic').count()) throw new Error('it offers to make a topic');
  await viewer.sound('read-only');
  await viewer.close();
});

await end();
