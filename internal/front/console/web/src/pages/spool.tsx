// What a node acknowledged alone, for topics with ack local, and brings to the cluster.
import { bytes, count } from '../core/format.ts';
import type { Spool } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Icon } from '../ui/icons.tsx';
import { Badge, Card, Fact, type Tone } from '../ui/parts.tsx';
import { showAge } from './columns.tsx';

const NEAR = 0.8; // of the room; a finding from there on

// late gives the colour of what is to be brought: half a minute is too long.
export const late = (s: Spool): 'warn' | 'bad' | '' => {
  if (s.depth === 0) return '';
  return s.bytes >= NEAR * s.limit_bytes ? 'bad' : s.oldest_age_ms >= 30_000 ? 'warn' : '';
};

const colours: Record<string, string> = { bad: 'var(--bad-dot)', warn: 'var(--warn-dot)' };

export function SpoolCard({ spool: s }: { spool: Spool }) {
  const tone: Tone = late(s) || (s.error ? 'warn' : 'good');
  const used = Math.min(100, (100 * s.bytes) / s.limit_bytes);
  return (
    <Card title={t('spool')} id="spool" end={<Badge tone={tone} dot>{t(s.depth === 0 ? 'spool.done' : s.error ? 'spool.held' : 'spool.moves')}</Badge>}>
      <div class="pad stack">
        <div class="muted">{t('spool.text')}</div>
        {s.error && (
          <div class="notice warn" role="status">
            <Icon name="warn" />
            <div class="grow" lang="en">{s.error}</div>
          </div>
        )}
        <dl class="facts">
          <Fact name={t('spool.depth')}>{count(s.depth)}</Fact>
          <Fact name={t('spool.oldest')}>{s.depth > 0 ? showAge(s.oldest_age_ms) : '–'}</Fact>
          <Fact name={t('spool.room')}>
            {t('spool.of', { used: bytes(s.bytes), limit: bytes(s.limit_bytes) })}{' '}
            <span class="meter" aria-hidden="true"><i style={{ width: `${used}%`, '--tint': colours[late(s)] ?? 'var(--accent)' }} /></span>
          </Fact>
          <Fact name={t('spool.forwarded')}>{count(s.forwarded_total)}</Fact>
          {s.refused_total > 0 && <Fact name={t('spool.refused')}><span class="bad-text">{count(s.refused_total)}</span></Fact>}
        </dl>
      </div>
    </Card>
  );
}
