// One channel: how much waits and for how long, who takes it, what it is.
import { address, change } from '../core/api.ts';
import { count, short, span, stamp } from '../core/format.ts';
import { channelWatch, useWatch } from '../core/live.ts';
import { go, here, url, usePlace } from '../core/router.ts';
import { cli, mayChange, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { ChannelDetail, ChannelPartition } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { act, ask, show } from '../ui/ask.tsx';
import { Chart, Legend, timeSteps, type Line } from '../ui/chart.tsx';
import { Icon } from '../ui/icons.tsx';
import { Badge, Card, Fact, Figure, Figures, Head, MissingNote, Skeleton, Tabs } from '../ui/parts.tsx';
import { Table, type Column } from '../ui/table.tsx';
import { channelUrl, Flags, old, showAge, perSecond, showRate, topicUrl } from './columns.tsx';
import { Consumers } from './consumers.tsx';
import { Gone } from './gone.tsx';
import { LimitForm } from './limit.tsx';
import { backlogLines } from './overview.tsx';
import { Peek } from './peek.tsx';
import { useTitle } from './title.ts';

const ageLines = (): Line[] => [{ name: t('oldest'), number: 3, tint: 'age', fill: true }];
const rates = (): Line[] => [
  { name: t('in'), number: 0, tint: 'in', fill: true },
  { name: t('out'), number: 1, tint: 'out' },
];

export function ChannelPage({ topic, channel }: { topic: string; channel: string }) {
  useTitle(channel, topic);
  useStore(self);
  const { path, query } = usePlace();
  const { data, gone } = useWatch<ChannelDetail>(channelWatch(topic, channel));
  const tab = query.get('tab') ?? 'overview';
  const crumbs = [{ text: t('nav.topics'), href: url(['topics']) }, { text: topic, href: topicUrl(topic) }];
  if (gone) return <Gone crumbs={crumbs} title={channel} failure={gone} cli={cli('channel', 'create', topic, channel)} />;
  const to = (id: string) => url(path, { tab: id });
  const tabs = [
    { id: 'overview', text: t('nav.overview'), href: channelUrl(topic, channel) },
    { id: 'queued', text: t('backlog'), href: to('queued'), tally: data ? short(data.backlog) : undefined },
    { id: 'in_flight', text: t('inFlight'), href: to('in_flight'), tally: data ? short(data.in_flight) : undefined },
    { id: 'deferred', text: t('deferred'), href: to('deferred'), tally: data ? short(data.deferred) : undefined },
    { id: 'consumers', text: t('consumers'), href: to('consumers'), tally: data ? short(data.consumers) : undefined },
  ];
  return (
    <div class="page">
      <Head crumbs={crumbs} title={channel} badges={data && <States data={data} />} actions={mayChange() && <Actions topic={topic} channel={channel} data={data} />} />
      <MissingNote missing={data?.missing} />
      {!data ? <Card><Skeleton rows={8} /></Card> : (
        <>
          <Numbers data={data} />
          <Tabs tabs={tabs} at={tab} />
          {tab === 'overview' && <Overview data={data} />}
          {(tab === 'queued' || tab === 'in_flight' || tab === 'deferred') && <Peek key={tab} topic={topic} channel={channel} state={tab} />}
          {tab === 'consumers' && <Consumers topic={topic} channel={channel} />}
        </>
      )}
    </div>
  );
}

function States({ data }: { data: ChannelDetail }) {
  const stuck = data.backlog > 0 && data.consumers > 0 && data.out_rate === 0 && (data.oldest_age_ms ?? 0) > 15_000 && !data.paused;
  return (
    <>
      <Flags row={data} />
      {data.topic_paused && <Badge tone="warn">{t('channel.topicPaused')}</Badge>}
      {data.backlog > 0 && data.consumers === 0 && <Badge tone="warn" dot>{t('channel.noConsumer')}</Badge>}
      {stuck && <Badge tone="bad" dot>{t('channel.stuck')}</Badge>}
    </>
  );
}

function Actions({ topic, channel, data }: { topic: string; channel: string; data: ChannelDetail | null }) {
  const path = ['topics', topic, 'channels', channel];
  const flow = data?.paused ? 'resume' : 'pause';
  const name = `${topic} / ${channel}`;
  const all = data ? data.backlog + data.in_flight + data.deferred : 0;
  return (
    <>
      <button type="button" class="button" disabled={!data} title={cli('channel', flow, topic, channel)}
        onClick={() => act(() => change('POST', address([...path, flow])), t(flow === 'pause' ? 'channel.paused' : 'channel.resumed', { name }), cli('channel', flow, topic, channel))}>
        <Icon name={flow === 'pause' ? 'pause' : 'play'} />{t(flow)}
      </button>
      <button type="button" class="button danger" onClick={() => ask({
        title: t('channel.empty', { name }), text: t('channel.emptyText', { n: all, count: count(all) }), verb: t('empty'), danger: true, name: channel,
        cli: cli('channel', 'empty', topic, channel, '--yes'), run: () => change('POST', address([...path, 'empty'])), done: t('channel.emptied', { name }),
        then: () => go(here({ opened: null, cursor: null }), true),
      })}><Icon name="empty" />{t('empty')}</button>
      <button type="button" class="button danger" onClick={() => ask({
        title: t('channel.delete', { name }), text: t('channel.deleteText', { n: all, count: count(all) }), verb: t('delete'), danger: true, name: channel,
        cli: cli('channel', 'rm', topic, channel, '--yes'), run: () => change('DELETE', address(path)), done: t('channel.deleted', { name }),
        then: () => go(topicUrl(topic)),
      })}><Icon name="trash" />{t('delete')}</button>
    </>
  );
}

function Numbers({ data }: { data: ChannelDetail }) {
  return (
    <Figures>
      <Figure name={t('backlog')} tint="depth" value={short(data.backlog)} note={drain(data)} title={t('hint.backlog')} />
      <Figure name={t('oldest')} tint="age" value={showAge(data.oldest_age_ms)} tone={old(data.oldest_age_ms)} title={t('hint.oldest')} />
      <Figure name={t('in')} tint="in" value={showRate(data.in_rate)} unit={perSecond(data.in_rate)} title={t('hint.in')} />
      <Figure name={t('out')} tint="out" value={showRate(data.out_rate)} unit={perSecond(data.out_rate)} title={t('hint.out')} />
      <Figure name={t('inFlight')} value={short(data.in_flight)} note={t('channel.consumers', { n: data.consumers, count: count(data.consumers) })} title={t('hint.inFlight')} />
      <Figure name={t('requeued')} value={short(data.requeued_total)} note={t('channel.timeouts', { n: data.timed_out_total, count: short(data.timed_out_total) })} tone={data.timeout_rate ? 'warn' : ''} title={t('hint.requeued')} />
    </Figures>
  );
}

// drain says how long the backlog takes at this pace.
function drain(d: ChannelDetail): string {
  const pace = (d.out_rate ?? 0) - (d.in_rate ?? 0);
  if (d.backlog === 0) return '';
  if (pace > 0) return t('channel.drains', { span: span(d.backlog / pace) });
  return (d.in_rate ?? 0) > (d.out_rate ?? 0) ? t('channel.grows') : '';
}

function Overview({ data }: { data: ChannelDetail }) {
  const watch = channelWatch(data.topic, data.name);
  const charts: { title: string; lines: Line[]; show: (v: number) => string; steps?: number[] }[] = [
    { title: t('chart.backlog'), lines: backlogLines(), show: short },
    { title: t('chart.age'), lines: ageLines(), show: span, steps: timeSteps },
    { title: t('chart.rates'), lines: rates(), show: short },
  ];
  return (
    <>
      <div class="grid-2">
        {charts.slice(0, 2).map((c) => (
          <Card key={c.title} title={c.title}>
            <div class="pad"><Chart watch={watch} lines={c.lines} show={c.show} steps={c.steps} label={c.title} /></div>
          </Card>
        ))}
      </div>
      <Card title={charts[2]!.title} end={<Legend lines={charts[2]!.lines} />}>
        <div class="pad"><Chart watch={watch} lines={charts[2]!.lines} show={short} label={charts[2]!.title} /></div>
      </Card>
      <Card title={t('partitions')}>
        <Table<ChannelPartition> label={t('partitions')} columns={columns()} rows={data.partition_list} id={(p) => String(p.partition)} />
      </Card>
      <Card title={t('facts')} end={mayChange() && data.id && <LimitButton data={data} />}>
        <dl class="facts pad">
          <Fact name={t('limit.most')}>{data.max_attempts ? t('limit.deliveries', { n: data.max_attempts, count: count(data.max_attempts) }) : t('limit.none')}</Fact>
          {data.dead_letter && <Fact name={t('limit.dead')}><a class="link" href={topicUrl(data.dead_letter)} data-own>{data.dead_letter}</a></Fact>}
          {(data.dead_letter || data.dead_lettered_total > 0) && <Fact name={t('limit.letters')}>{count(data.dead_lettered_total)}</Fact>}
          <Fact name={t('createdAt')}>{data.created_at ? stamp(data.created_at) : '–'}</Fact>
          <Fact name={t('channel.taken')}>{count(data.records_total)}</Fact>
          <Fact name={t('requeued')}>{count(data.requeued_total)}</Fact>
          <Fact name={t('timedOut')}>{count(data.timed_out_total)}</Fact>
        </dl>
      </Card>
    </>
  );
}

const LimitButton = ({ data }: { data: ChannelDetail }) => (
  <button type="button" class="button small" onClick={() => show(t('limit.title', { name: data.name }), (close) => <LimitForm data={data} close={close} />)}>
    {t('limit.change')}
  </button>
);

const number = (n: number | undefined): string => (n === undefined ? '–' : count(n));

const columns = (): Column<ChannelPartition>[] => [
  { id: 'partition', title: t('partition'), cell: (p) => p.partition },
  { id: 'leader', title: t('leader'), cell: (p) => p.leader || <Badge tone="bad" dot>{t('leader.none')}</Badge> },
  { id: 'floor', title: t('partition.floor'), num: true, hide: 'hide-s', hint: t('hint.floor'), cell: (p) => number(p.floor_offset) },
  { id: 'end', title: t('partition.end'), num: true, hide: 'hide-s', hint: t('hint.end'), cell: (p) => number(p.end_offset) },
  { id: 'unfinished', title: t('partition.unfinished'), num: true, hint: t('hint.unfinished'), cell: (p) => number(p.unfinished) },
  { id: 'parked', title: t('partition.parked'), num: true, hide: 'hide-m', hint: t('hint.parked'), cell: (p) => number(p.parked) },
  { id: 'ranges', title: t('partition.ranges'), num: true, hide: 'hide-m', hint: t('hint.ranges'), cell: (p) => number(p.finished_ranges) },
];

