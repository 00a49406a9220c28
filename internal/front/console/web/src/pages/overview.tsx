// The cluster at a glance: what goes in and out, what waits and for how long,
// and what is wrong.
import { bytes, count, short } from '../core/format.ts';
import { useWatch } from '../core/live.ts';
import { url } from '../core/router.ts';
import { cli, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { NodeRow, Overview } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Chart, Legend, type Line } from '../ui/chart.tsx';
import { Badge, Card, Cli, Dot, Empty, Figure, Figures, Head, MissingNote, Skeleton, type Tone } from '../ui/parts.tsx';
import { Table } from '../ui/table.tsx';
import { channelColumns, old, showAge, perSecond, showRate, topicColumns, topicUrl, channelUrl } from './columns.tsx';
import { Findings } from './findings.tsx';
import { nodeColumns, nodeUrl } from './nodes.tsx';
import { useTitle } from './title.ts';

export const rateLines = (): Line[] => [
  { name: t('in'), number: 0, tint: 'in', fill: true },
  { name: t('out'), number: 1, tint: 'out' },
];
export const backlogLines = (): Line[] => [{ name: t('backlog'), number: 2, tint: 'depth', fill: true }];

export function OverviewPage() {
  useTitle(t('nav.overview'));
  const { data } = useWatch<Overview>('overview');
  if (!data) {
    return (
      <div class="page">
        <Head title={t('nav.overview')} />
        <Card><Skeleton rows={8} /></Card>
      </div>
    );
  }
  const bad = data.findings.some((f) => f.severity === 'critical');
  const wrong = data.findings.filter((f) => f.severity !== 'info').length + data.findings_more;
  const badge = data.healthy ? <Badge tone="good" dot>{t('overview.healthy')}</Badge> : <Badge tone={bad ? 'bad' : 'warn'} dot>{t('overview.unwell', { n: wrong })}</Badge>;
  return (
    <div class="page">
      <Head title={t('nav.overview')} badges={badge} />
      <MissingNote missing={data.missing.filter((m) => !data.findings.some((f) => f.target.node === m.node))} />
      <Numbers data={data} />
      <Findings list={data.findings} more={data.findings_more} />
      {data.totals.topics === 0 ? <First /> : <Activity data={data} />}
      <Card title={t('nav.nodes')} end={<a class="link" href={url(['nodes'])} data-own>{t('all')}</a>}>
        <Table<NodeRow> label={t('nav.nodes')} columns={nodeColumns()} rows={data.nodes} id={(n) => n.name || n.raft_id || ''} href={(n) => nodeUrl(n)} />
      </Card>
    </div>
  );
}

function Numbers({ data }: { data: Overview }) {
  const x = data.totals;
  const live = data.nodes.filter((n) => n.state === 'live').length;
  const members = data.nodes.filter((n) => n.state !== 'gone').length;
  const oldest = x.oldest?.topic ? `${x.oldest.topic}${x.oldest.channel ? ' / ' + x.oldest.channel : ''}` : '';
  const shards = data.shards;
  const shardTone: Tone = shards.leaderless ? 'bad' : shards.behind ? 'warn' : '';
  return (
    <Figures>
      <Figure name={t('in')} tint="in" value={showRate(x.in_rate)} unit={perSecond(x.in_rate)} note={x.in_bytes_rate ? t('bytesRate', { size: bytes(x.in_bytes_rate) }) : ''} title={t('hint.in')} />
      <Figure name={t('out')} tint="out" value={showRate(x.out_rate)} unit={perSecond(x.out_rate)} note={t('overview.inFlight', { n: short(x.in_flight) })} title={t('hint.out')} />
      <Figure name={t('backlog')} tint="depth" value={short(x.backlog)} note={x.deferred ? t('overview.deferred', { n: short(x.deferred) }) : x.waiting ? t('overview.waiting', { n: short(x.waiting) }) : ''} title={t('hint.backlog')} />
      <Figure name={t('oldest')} tint="age" value={showAge(x.oldest_age_ms)} tone={old(x.oldest_age_ms)} note={oldest && x.oldest?.channel ? <a class="link" href={channelUrl(x.oldest!.topic!, x.oldest!.channel)} data-own title={oldest}>{oldest}</a> : oldest} title={t('hint.oldest')} />
      <Figure name={t('nav.nodes')} value={`${live}/${members}`} tone={live < members ? 'bad' : ''} note={t('overview.connections', { n: x.connections, count: count(x.connections) })} />
      <Figure name={t('nav.shards')} value={count(shards.total)} tone={shardTone} note={shards.leaderless ? t('overview.leaderless', { n: shards.leaderless }) : shards.behind ? t('overview.behind', { n: shards.behind }) : t('overview.led')} />
    </Figures>
  );
}

function Activity({ data }: { data: Overview }) {
  const plain = <T extends { sorts?: boolean; hide?: string; id: string }>(list: T[], keep: string[]): T[] =>
    list.filter((c) => keep.includes(c.id)).map((c) => ({ ...c, sorts: false }));
  const lists = [
    { title: t('overview.oldest'), rows: data.oldest.slice(0, 5), sort: '-oldest' },
    { title: t('overview.backlogs'), rows: data.backlogs.slice(0, 5), sort: '-backlog' },
  ];
  return (
    <>
      <div class="grid-2">
        <Card title={t('chart.rates')} end={<Legend lines={rateLines()} />}>
          <div class="pad"><Chart watch="overview" lines={rateLines()} show={(v) => short(v)} label={t('chart.rates')} /></div>
        </Card>
        <Card title={t('chart.backlog')}>
          <div class="pad"><Chart watch="overview" lines={backlogLines()} show={(v) => short(v)} label={t('chart.backlog')} /></div>
        </Card>
      </div>
      <div class="grid-2">
        {lists.map((l) => (
          <Card key={l.sort} title={l.title} end={<a class="link" href={url(['channels'], { sort: l.sort })} data-own>{t('all')}</a>}>
            {l.rows.length === 0 ? <p class="calm"><Dot tone="good" />{t('overview.noBacklog')}</p> : (
              <Table label={l.title} columns={plain(channelColumns(true), ['name', 'backlog', 'oldest', 'out_rate', 'consumers'])} rows={l.rows} id={(c) => c.topic + '/' + c.name} href={(c) => channelUrl(c.topic, c.name)} />
            )}
          </Card>
        ))}
      </div>
      {data.busiest.length > 0 && (
        <Card title={t('overview.busiest')} end={<a class="link" href={url(['topics'], { sort: '-in_rate' })} data-own>{t('all')}</a>}>
          <Table label={t('overview.busiest')} columns={plain(topicColumns(), ['name', 'in_rate', 'out_rate', 'backlog', 'oldest', 'consumers'])} rows={data.busiest.slice(0, 5)} id={(x) => x.name} href={(x) => topicUrl(x.name)} />
        </Card>
      )}
    </>
  );
}

// First is what a new node shows: what to type.
function First() {
  useStore(self); // the lines name its address
  return (
    <Card>
      <Empty icon="topics" title={t('first.title')} text={t('first.text')}>
        <Cli line={cli('pub', 'orders', 'hello')} />
        <Cli line={cli('sub', 'orders', '-C', 'audit', '--follow')} />
      </Empty>
    </Card>
  );
}
