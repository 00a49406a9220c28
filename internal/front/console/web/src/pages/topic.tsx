// One topic: its channels, its messages, where its partitions are.
import { address, change, useGet } from '../core/api.ts';
import { bytes, count, short, stamp } from '../core/format.ts';
import { topicWatch, useWatch } from '../core/live.ts';
import { go, here, url, usePlace } from '../core/router.ts';
import { cli, mayChange, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { ChannelRow, Page, Partition, TopicState } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { act, ask, show } from '../ui/ask.tsx';
import { Chart, Legend } from '../ui/chart.tsx';
import { Icon } from '../ui/icons.tsx';
import { Badge, Card, Empty, Fact, Figure, Figures, Head, MissingNote, SearchBox, Skeleton, Tabs } from '../ui/parts.tsx';
import { Pager, sorted, Table, type Column } from '../ui/table.tsx';
import { Browse } from './browse.tsx';
import { channelColumns, channelUrl, channelValue, Flags, old, showAge, perSecond, showRate, sized, topicUrl } from './columns.tsx';
import { Gone } from './gone.tsx';
import { backlogLines, rateLines } from './overview.tsx';
import { publish } from './publish.tsx';
import { RaiseForm } from './raise.tsx';
import { useTitle } from './title.ts';
import { NameForm } from './topics.tsx';

export function TopicPage({ topic }: { topic: string }) {
  useTitle(topic);
  useStore(self);
  const { path, query } = usePlace();
  const { data, gone } = useWatch<TopicState>(topicWatch(topic));
  const tab = query.get('tab') ?? 'channels';
  const crumbs = [{ text: t('nav.topics'), href: url(['topics']) }];
  if (gone) return <Gone crumbs={crumbs} title={topic} failure={gone} cli={cli('pub', topic, 'hello')} />;
  const tabs = [
    { id: 'channels', text: t('channels'), href: topicUrl(topic), tally: data ? count(data.channels) : undefined },
    { id: 'messages', text: t('messages'), href: url(path, { tab: 'messages' }) },
    { id: 'partitions', text: t('partitions'), href: url(path, { tab: 'partitions' }), tally: data ? count(data.partitions) : undefined },
  ];
  return (
    <div class="page">
      <Head crumbs={crumbs} title={topic} badges={data && <Flags row={data} />} actions={<Actions topic={topic} data={data} />} />
      <MissingNote missing={data?.missing} />
      {!data ? <Card><Skeleton rows={8} /></Card> : (
        <>
          <Numbers data={data} />
          <Tabs tabs={tabs} at={tab} />
          {tab === 'channels' && <Channels data={data} />}
          {tab === 'messages' && <Browse topic={topic} partitions={data.partitions} ephemeral={data.ephemeral} />}
          {tab === 'partitions' && <Partitions data={data} />}
        </>
      )}
    </div>
  );
}

function Actions({ topic, data }: { topic: string; data: TopicState | null }) {
  const path = ['topics', topic];
  const tail = <a class="button" href={url(['tail'], { topic })} data-own><Icon name="tail" />{t('nav.tail')}</a>;
  if (!mayChange()) return tail;
  const flow = data?.paused ? 'resume' : 'pause';
  return (
    <>
      <button type="button" class="button primary" onClick={() => publish(topic)}><Icon name="send" />{t('publish')}</button>
      {tail}
      <button type="button" class="button" disabled={!data} title={cli('topic', flow, topic)}
        onClick={() => act(() => change('POST', address([...path, flow])), t(flow === 'pause' ? 'topic.paused' : 'topic.resumed', { name: topic }), cli('topic', flow, topic))}>
        <Icon name={flow === 'pause' ? 'pause' : 'play'} />{t(flow)}
      </button>
      {data && !data.ephemeral && (
        <button type="button" class="button" onClick={() => show(t('raise.title', { name: topic }), (close) => <RaiseForm topic={topic} from={data} close={close} />)}>
          <Icon name="split" />{t('raise')}
        </button>
      )}
      <button type="button" class="button danger" onClick={() => ask({
        title: t('topic.empty', { name: topic }), text: t('topic.emptyText', { n: data?.waiting ?? 0, count: count(data?.waiting ?? 0) }), verb: t('empty'), danger: true, name: topic,
        cli: cli('topic', 'empty', topic, '--yes'), run: () => change('POST', address([...path, 'empty'])), done: t('topic.emptied', { name: topic }),
      })}><Icon name="empty" />{t('empty')}</button>
      <button type="button" class="button danger" onClick={() => ask({
        title: t('topic.delete', { name: topic }), text: t('topic.deleteText', { n: data?.channels ?? 0, size: bytes(data?.log_bytes ?? 0) }), verb: t('delete'), danger: true, name: topic,
        cli: cli('topic', 'rm', topic, '--yes'), run: () => change('DELETE', address(path)), done: t('topic.deleted', { name: topic }),
        then: () => go(url(['topics'])),
      })}><Icon name="trash" />{t('delete')}</button>
    </>
  );
}

function Numbers({ data }: { data: TopicState }) {
  return (
    <Figures>
      <Figure name={t('in')} tint="in" value={showRate(data.in_rate)} unit={perSecond(data.in_rate)} note={data.in_bytes_rate ? t('bytesRate', { size: bytes(data.in_bytes_rate) }) : ''} title={t('hint.in')} />
      <Figure name={t('out')} tint="out" value={showRate(data.out_rate)} unit={perSecond(data.out_rate)} note={t('overview.inFlight', { n: short(data.in_flight) })} title={t('hint.out')} />
      <Figure name={t('backlog')} tint="depth" value={short(data.backlog)} note={t('ofChannels', { n: data.channels })} title={t('hint.backlog')} />
      <Figure name={t('oldest')} tint="age" value={showAge(data.oldest_age_ms)} tone={old(data.oldest_age_ms)} title={t('hint.oldest')} />
      <Figure name={t('waiting')} value={short(data.waiting)} tone={data.channels === 0 && data.waiting > 0 ? 'warn' : ''} note={data.channels === 0 && data.waiting > 0 ? t('topic.noChannel') : ''} title={t('hint.waiting')} />
      <Figure name={t('log')} {...sized(data.log_bytes)} note={t('topic.records', { n: data.records_total, count: short(data.records_total) })} title={t('hint.log')} />
    </Figures>
  );
}

const FEW = 200; // channels that the stream shows

function Channels({ data }: { data: TopicState }) {
  const { query } = usePlace();
  const q = query.get('q') ?? '';
  const sort = query.get('sort') ?? 'name';
  const cursor = query.get('cursor') ?? '';
  const many = data.channels > FEW;
  const page = useGet<Page<ChannelRow>>(many ? address(['topics', data.name, 'channels'], { q, sort, cursor, limit: 50 }) : null, 2000);
  const here_ = Object.values(data.channel_rows).filter((c) => c.name.toLowerCase().includes(q.toLowerCase()));
  const rows = many ? (page.data?.items ?? []) : sorted(here_, sort, channelValue);
  const watch = topicWatch(data.name);
  return (
    <>
      <div class="grid-2">
        <Card title={t('chart.rates')} end={<Legend lines={rateLines()} />}>
          <div class="pad"><Chart watch={watch} lines={rateLines()} show={short} label={t('chart.rates')} /></div>
        </Card>
        <Card title={t('chart.backlog')}>
          <div class="pad"><Chart watch={watch} lines={backlogLines()} show={short} label={t('chart.backlog')} /></div>
        </Card>
      </div>
      <Card>
        <div class="bar">
          <SearchBox label={t('channels.search')} value={q} onChange={(v) => go(here({ q: v, cursor: null, at: null }), true)} />
          {mayChange() && <div class="end"><CreateChannel topic={data.name} /></div>}
        </div>
        {rows.length > 0 ? (
          <Table<ChannelRow> label={t('channels')} columns={channelColumns(false)} rows={rows} id={(c) => c.name} href={(c) => channelUrl(c.topic, c.name)} sort={sort} />
        ) : many && !page.data ? <Skeleton /> : q ? <Empty icon="search" title={t('nothing.found')} text={t('nothing.foundText')} /> : (
          <Empty icon="empty" title={t('channels.none')} text={t('topic.noChannelText')} cli={cli('sub', data.name, '-C', 'audit', '--follow')} />
        )}
        {many && page.data && <Pager total={page.data.total} shown={rows.length} next={page.data.next} cursor={cursor} at={Number(query.get('at') ?? 0)} />}
      </Card>
    </>
  );
}

function CreateChannel({ topic }: { topic: string }) {
  const make = (close: () => void) => (name: string) => {
    close();
    void act(() => change('POST', address(['topics', topic, 'channels']), { name }), t('channel.created', { name }), cli('channel', 'create', topic, name));
  };
  return (
    <button type="button" class="button" onClick={() => show(t('channel.create'), (close) => (
      <NameForm title={t('channel.create')} example="audit" close={close} line={(n) => cli('channel', 'create', topic, n)} make={make(close)} />
    ))}>
      <Icon name="plus" />{t('channel.create')}
    </button>
  );
}

const offset = (n: number | undefined): string => (n === undefined ? '–' : count(n));

const partitionColumns = (topic: string): Column<Partition>[] => [
  { id: 'partition', title: t('partition'), cell: (p) => <a class="link" href={url(['topics', topic], { tab: 'messages', partition: p.partition })} data-own>{p.partition}</a> },
  { id: 'leader', title: t('leader'), cell: (p) => (p.leader ? <a href={url(['nodes', p.leader])} data-own>{p.leader}</a> : <Badge tone="bad" dot>{t('leader.none')}</Badge>) },
  { id: 'shard', title: t('shard'), num: true, hide: 'hide-s', cell: (p) => p.shard },
  { id: 'replicas', title: t('replicas'), hide: 'hide-m', cell: (p) => <span class="muted">{p.replicas.join(', ')}</span> },
  { id: 'start', title: t('partition.start'), num: true, hide: 'hide-s', hint: t('hint.start'), cell: (p) => offset(p.start_offset) },
  { id: 'handover', title: t('partition.handOver'), num: true, hide: 'hide-m', hint: t('hint.handOver'), cell: (p) => offset(p.hand_over_offset) },
  { id: 'end', title: t('partition.end'), num: true, hint: t('hint.end'), cell: (p) => offset(p.end_offset) },
  { id: 'log', title: t('log'), num: true, cell: (p) => (p.log_bytes === undefined ? '–' : bytes(p.log_bytes)) },
];

function Partitions({ data }: { data: TopicState }) {
  return (
    <>
      <Card>
        <Table<Partition> label={t('partitions')} columns={partitionColumns(data.name)} rows={data.partition_list} id={(p) => String(p.partition)} />
      </Card>
      <Card title={t('facts')}>
        <dl class="facts pad">
          <Fact name={t('topic.id')}><span class="mono">{data.id}</span></Fact>
          <Fact name={t('createdAt')}>{data.created_at ? stamp(data.created_at) : '–'}</Fact>
          <Fact name={t('topic.ack')}>{data.ack_effective}{data.ack === 'default' ? ` (${t('default')})` : ''}</Fact>
          {data.active_partitions < data.partition_list.length && (
            <Fact name={t('topic.raise')}>{data.active_partitions} → {data.partition_list.length}</Fact>
          )}
          {data.home && <Fact name={t('topic.home')}>{data.home}</Fact>}
          <Fact name={t('topic.published')}>{count(data.records_total)} · {bytes(data.bytes_total)}</Fact>
        </dl>
      </Card>
    </>
  );
}
