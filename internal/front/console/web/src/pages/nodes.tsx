// The nodes, and one of them.
import { address, useGet } from '../core/api.ts';
import { bytes, count, span, stamp } from '../core/format.ts';
import { serverNow, useWatch } from '../core/live.ts';
import { url } from '../core/router.ts';
import type { NodeDetail, NodeRow, NodeState } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Badge, Card, Fact, Figure, Figures, Head, MissingNote, Skeleton, Trouble, type Tone } from '../ui/parts.tsx';
import { Table, type Column } from '../ui/table.tsx';
import { perSecond, showRate, sized } from './columns.tsx';
import { late, SpoolCard } from './spool.tsx';
import { useTitle } from './title.ts';

export const nodeUrl = (n: NodeRow): string => url(['nodes', n.name]);

const tones: Record<NodeRow['state'], Tone> = { live: 'good', down: 'bad', unknown: 'warn', gone: '', starting: 'warn' };

export function StateOf({ node }: { node: NodeRow }) {
  if (node.state === 'live' && node.ready === false) return <Badge tone="warn" dot>{t('node.notReady')}</Badge>;
  return <Badge tone={tones[node.state]} dot>{t(`node.${node.state}`)}</Badge>;
}

const ms = (n: number | undefined): string => (n === undefined ? '–' : span(n / 1000));

// slow gives the colour of a sync time: a healthy disk takes a few milliseconds.
const slow = (n: number | undefined): string => (n === undefined || n < 100 ? '' : n < 1000 ? 'warn' : 'bad');

export const nodeColumns = (): Column<NodeRow>[] => [
  { id: 'name', title: t('node'), cell: (n) => <span class="name"><a href={nodeUrl(n)} data-own>{n.name || n.raft_id}</a>{n.self && <Badge>{t('node.self')}</Badge>}</span> },
  { id: 'state', title: t('node.state'), cell: (n) => <StateOf node={n} /> },
  { id: 'in', title: t('in'), num: true, hide: 'hide-s', hint: t('hint.in'), cell: (n) => showRate(n.in_rate) },
  { id: 'out', title: t('delivered'), num: true, hide: 'hide-m', hint: t('hint.delivered'), cell: (n) => showRate(n.delivered_rate) },
  { id: 'leads', title: t('node.leads'), num: true, hint: t('hint.leads'), cell: (n) => `${n.leads}/${n.replicas}` },
  { id: 'sync', title: t('node.sync'), num: true, hint: t('hint.sync'), cell: (n) => ms(n.sync_ms), tone: (n) => slow(n.sync_ms) },
  { id: 'connections', title: t('node.connections'), num: true, hide: 'hide-m', cell: (n) => (n.connections === undefined ? '–' : count(n.connections)) },
  { id: 'disk', title: t('node.disk'), num: true, hide: 'hide-m', cell: (n) => (n.disk_free_bytes === undefined ? '–' : bytes(n.disk_free_bytes)), tone: (n) => (n.disk_reserve_reached ? 'bad' : '') },
  { id: 'memory', title: t('node.memory'), num: true, hide: 'hide-l', cell: (n) => (n.memory_bytes === undefined ? '–' : bytes(n.memory_bytes)) },
  { id: 'seen', title: t('node.seen'), num: true, hide: 'hide-l', hint: t('hint.seen'), cell: (n) => (n.self ? '–' : ms(n.seen_ms)) },
];

// columnsFor has a column for spools where a node has one.
function columnsFor(rows: NodeRow[]): Column<NodeRow>[] {
  const list = nodeColumns();
  if (!rows.some((n) => n.spool)) return list;
  const spool: Column<NodeRow> = { id: 'spool', title: t('spool'), num: true, hide: 'hide-s', hint: t('hint.spool'), cell: (n) => (n.spool ? count(n.spool.depth) : '–'), tone: (n) => (n.spool ? late(n.spool) || (n.spool.depth ? '' : 'zero') : 'zero') };
  return list.toSpliced(list.findIndex((c) => c.id === 'sync'), 0, spool);
}

export function NodesPage() {
  useTitle(t('nav.nodes'));
  const { data } = useWatch<NodeState>('nodes');
  return (
    <div class="page">
      <Head title={t('nav.nodes')} lead={t('nodes.lead')} />
      <MissingNote missing={data?.missing} />
      <Card>
        {!data ? <Skeleton rows={3} /> : (
          <Table<NodeRow> label={t('nav.nodes')} columns={columnsFor(Object.values(data.nodes))} rows={Object.values(data.nodes)} id={(n) => n.name || n.raft_id || ''} href={nodeUrl} />
        )}
      </Card>
    </div>
  );
}

export function NodePage({ node }: { node: string }) {
  useTitle(node);
  const { data, error, reload } = useGet<NodeDetail>(address(['nodes', node]), 2000);
  const crumbs = [{ text: t('nav.nodes'), href: url(['nodes']) }];
  if (!data) {
    return (
      <div class="page">
        <Head crumbs={crumbs} title={node} />
        {error ? <Trouble error={error} again={reload} /> : <Card><Skeleton /></Card>}
      </div>
    );
  }
  const a = data.addresses ?? {};
  const facts: [string, string | undefined][] = [
    ['NSQ TCP', a.tcp], ['HTTP', a.http], ['HTTPS', a.https], [t('node.admin'), a.admin], [t('node.cluster'), a.cluster],
    [t('nav.lookup'), [a.lookup_tcp, a.lookup_http].filter(Boolean).join(' · ')], [t('node.broadcast'), a.broadcast],
    [t('version'), data.version], [t('node.started'), data.started_at ? `${stamp(data.started_at)} (${span((serverNow() - data.started_at) / 1000)})` : undefined],
    [t('node.goroutines'), data.goroutines === undefined ? undefined : count(data.goroutines)],
  ];
  return (
    <div class="page">
      <Head crumbs={crumbs} title={node} badges={<><StateOf node={data} />{data.self && <Badge>{t('node.self')}</Badge>}</>} lead={data.ready === false ? data.not_ready_reason : undefined} />
      {error && <Trouble error={error} again={reload} />}
      <Figures>
        <Figure name={t('in')} tint="in" value={showRate(data.in_rate)} unit={perSecond(data.in_rate)} note={data.in_bytes_rate ? t('bytesRate', { size: bytes(data.in_bytes_rate) }) : ''} title={t('hint.in')} />
        <Figure name={t('delivered')} tint="out" value={showRate(data.delivered_rate)} unit={perSecond(data.delivered_rate)} title={t('hint.delivered')} />
        <Figure name={t('node.leads')} value={`${data.leads}/${data.replicas}`} title={t('hint.leads')} />
        <Figure name={t('node.syncP99')} value={data.log ? ms(data.log.sync_p99_ms) : '–'} tone={slow(data.log?.sync_p99_ms) as Tone} note={data.log && t('node.syncMean', { mean: ms(data.log.sync_mean_ms) })} title={t('hint.sync')} />
        <Figure name={t('node.disk')} {...sized(data.disk_free_bytes)} tone={data.disk_reserve_reached ? 'bad' : ''} />
        <Figure name={t('node.memory')} {...sized(data.memory_bytes)} />
      </Figures>
      {data.spool && <SpoolCard spool={data.spool} />}
      {data.log && (
        <Card title={t('node.log')}>
          <dl class="facts pad">
            <Fact name={t('node.syncs')}>{count(data.log.syncs_total)}</Fact>
            <Fact name={t('node.syncP50')}>{ms(data.log.sync_p50_ms)}</Fact>
            <Fact name={t('node.syncP99')}>{ms(data.log.sync_p99_ms)}</Fact>
            <Fact name={t('node.syncMax')}>{ms(data.log.sync_max_ms)}</Fact>
            <Fact name={t('node.logSize')}>{bytes(data.log.log_bytes)}</Fact>
            <Fact name={t('node.tail')}>{bytes(data.log.tail_bytes)}</Fact>
            <Fact name={t('node.segments')}>{count(data.log.segments)}</Fact>
            <Fact name={t('node.damage')}><span class={data.log.damage_total ? 'bad-text' : ''}>{count(data.log.damage_total)}</span></Fact>
          </dl>
        </Card>
      )}
      <Card title={t('facts')}>
        <dl class="facts pad">
          {facts.filter(([, v]) => v).map(([k, v]) => <Fact key={k} name={k}><span class="mono">{v}</span></Fact>)}
        </dl>
      </Card>
      <Card title={t('nav.shards')} end={<a class="link" href={url(['shards'])} data-own>{t('all')}</a>}>
        <Table label={t('nav.shards')} columns={replicaColumns()} rows={data.shards} id={(s) => String(s.shard)} />
      </Card>
    </div>
  );
}

const replicaColumns = (): Column<NodeDetail['shards'][number]>[] => [
  { id: 'shard', title: t('shard'), cell: (s) => <span class="name">{s.shard === 0 ? t('shard.metadata') : s.shard}</span> },
  { id: 'role', title: t('shard.role'), cell: (s) => (s.leads ? <Badge tone="accent">{t('leader')}</Badge> : <Badge>{t(s.role === 'learner' ? 'role.learner' : 'role.voter')}</Badge>) },
  { id: 'applied', title: t('shard.applied'), num: true, cell: (s) => count(s.applied) },
  { id: 'lag', title: t('shard.lag'), num: true, hint: t('hint.lag'), cell: (s) => count(s.lag), tone: (s) => (s.lag > 1000 ? 'warn' : 'zero') },
];
