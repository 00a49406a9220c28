// Columns that several pages share.
import { bytes, count, rate, short, span } from '../core/format.ts';
import { url } from '../core/router.ts';
import type { Age, ChannelRow, Rate, TopicRow } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Badge } from '../ui/parts.tsx';
import type { Column } from '../ui/table.tsx';

export const topicUrl = (topic: string): string => url(['topics', topic]);
export const channelUrl = (topic: string, channel: string): string => url(['topics', topic, 'channels', channel]);

export const showRate = (v: Rate): string => (v === null || v === undefined ? '–' : rate(v));
export const perSecond = (v: Rate): string => (v === null || v === undefined ? '' : t('perSecond'));
// sized parts a number of bytes from its unit, for a figure.
export const sized = (n: number | undefined): { value: string; unit?: string } => {
  const [value, unit] = n === undefined ? ['–'] : bytes(n).split(' ');
  return { value: value!, unit };
};

export const showAge = (v: Age): string => (v === null || v === undefined ? '–' : span(v / 1000));

const zero = (v: number | null | undefined): string => (v ? '' : 'zero');

// old gives the colour of an age: a minute is worth a look, ten are worth a worry.
export const old = (age: Age, idle = false): '' | 'warn' | 'bad' => (idle || !age || age < 60_000 ? '' : age < 600_000 ? 'warn' : 'bad');

export function Flags({ row }: { row: { paused: boolean; ephemeral: boolean } }) {
  return (
    <>
      {row.paused && <Badge tone="warn">{t('paused')}</Badge>}
      {row.ephemeral && <Badge>{t('ephemeral')}</Badge>}
    </>
  );
}

export const topicColumns = (): Column<TopicRow>[] => [
  { id: 'name', title: t('topic'), sorts: true, cell: (r) => <span class="name"><a href={topicUrl(r.name)} data-own>{r.name}</a><Flags row={r} /></span> },
  { id: 'in_rate', title: t('in'), num: true, sorts: true, hint: t('hint.in'), cell: (r) => showRate(r.in_rate), tone: (r) => zero(r.in_rate) },
  { id: 'out_rate', title: t('out'), num: true, sorts: true, hide: 'hide-s', hint: t('hint.out'), cell: (r) => showRate(r.out_rate), tone: (r) => zero(r.out_rate) },
  { id: 'backlog', title: t('backlog'), num: true, sorts: true, hint: t('hint.backlog'), cell: (r) => short(r.backlog), tone: (r) => zero(r.backlog) },
  { id: 'waiting', title: t('waiting'), num: true, sorts: true, hide: 'hide-m', hint: t('hint.waiting'), cell: (r) => short(r.waiting), tone: (r) => (r.channels === 0 && r.waiting ? 'warn' : zero(r.waiting)) },
  { id: 'oldest', title: t('oldest'), num: true, sorts: true, hide: 'hide-s', hint: t('hint.oldest'), cell: (r) => showAge(r.oldest_age_ms), tone: (r) => old(r.oldest_age_ms) || zero(r.oldest_age_ms) },
  { id: 'channels', title: t('channels'), num: true, sorts: true, hide: 'hide-m', cell: (r) => count(r.channels), tone: (r) => zero(r.channels) },
  { id: 'consumers', title: t('consumers'), num: true, sorts: true, hide: 'hide-m', cell: (r) => count(r.consumers), tone: (r) => zero(r.consumers) },
  { id: 'log', title: t('log'), num: true, sorts: true, hide: 'hide-l', hint: t('hint.log'), cell: (r) => bytes(r.log_bytes), tone: (r) => zero(r.log_bytes) },
];

export const channelColumns = (withTopic: boolean): Column<ChannelRow>[] => [
  {
    id: 'name', title: t('channel'), sorts: true,
    cell: (r) => (
      <span class="name">
        <a href={channelUrl(r.topic, r.name)} title={`${r.topic} / ${r.name}`} data-own>{withTopic ? <><span class="muted">{r.topic} / </span>{r.name}</> : r.name}</a>
        <Flags row={r} />
      </span>
    ),
  },
  { id: 'backlog', title: t('backlog'), num: true, sorts: true, hint: t('hint.backlog'), cell: (r) => short(r.backlog), tone: (r) => zero(r.backlog) },
  { id: 'oldest', title: t('oldest'), num: true, sorts: true, hint: t('hint.oldest'), cell: (r) => showAge(r.oldest_age_ms), tone: (r) => old(r.oldest_age_ms) || zero(r.oldest_age_ms) },
  { id: 'in_flight', title: t('inFlight'), num: true, sorts: true, hide: 'hide-s', hint: t('hint.inFlight'), cell: (r) => short(r.in_flight), tone: (r) => zero(r.in_flight) },
  { id: 'deferred', title: t('deferred'), num: true, sorts: true, hide: 'hide-m', hint: t('hint.deferred'), cell: (r) => short(r.deferred), tone: (r) => zero(r.deferred) },
  { id: 'in_rate', title: t('in'), num: true, sorts: true, hide: 'hide-s', hint: t('hint.in'), cell: (r) => showRate(r.in_rate), tone: (r) => zero(r.in_rate) },
  { id: 'out_rate', title: t('out'), num: true, sorts: true, hide: 'hide-s', hint: t('hint.out'), cell: (r) => showRate(r.out_rate), tone: (r) => zero(r.out_rate) },
  { id: 'requeued', title: t('requeued'), num: true, sorts: true, hide: 'hide-l', hint: t('hint.requeued'), cell: (r) => short(r.requeued_total), tone: (r) => zero(r.requeued_total) },
  { id: 'timed_out', title: t('timedOut'), num: true, sorts: true, hide: 'hide-l', hint: t('hint.timedOut'), cell: (r) => short(r.timed_out_total), tone: (r) => zero(r.timed_out_total) },
  { id: 'consumers', title: t('consumers'), num: true, sorts: true, hide: 'hide-s', cell: (r) => count(r.consumers), tone: (r) => (r.backlog && !r.consumers ? 'warn' : zero(r.consumers)) },
];

// channelValue gives what a column sorts by.
export function channelValue(r: ChannelRow, id: string): string | number | null | undefined {
  switch (id) {
    case 'oldest':
      return r.oldest_age_ms;
    case 'requeued':
      return r.requeued_total;
    case 'timed_out':
      return r.timed_out_total;
  }
  return (r as unknown as Record<string, string | number | null>)[id];
}
