// What is wrong now, in the viewer's language.
import { bytes, count, rate, span } from '../core/format.ts';
import { base } from '../core/page.ts';
import type { Finding } from '../core/types.ts';
import { t, has } from '../i18n/index.ts';
import { Icon } from '../ui/icons.tsx';
import { Card } from '../ui/parts.tsx';

// words formats the values of a finding by what their names say they are.
function words(f: Finding): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [k, v] of Object.entries(f.target)) out[k] = String(v);
  for (const [k, v] of Object.entries(f.values)) {
    if (typeof v === 'string') out[k] = v;
    else if (k.endsWith('_ms')) out[k.slice(0, -3)] = span(v / 1000);
    else if (k.endsWith('bytes')) out[k.replace(/_?bytes$/, '') || 'bytes'] = bytes(v);
    else out[k] = k === 'rate' ? rate(v) : count(v);
  }
  return out;
}

function say(kind: 'finding' | 'next', f: Finding, fallback: string | undefined): string | undefined {
  const key = `${kind}.${f.code}`;
  if (!has(key)) return fallback;
  const text = t(key, words(f));
  return /\{\w+\}/.test(text) ? fallback : text; // a value is missing
}

export function Findings({ list, more }: { list: Finding[]; more: number }) {
  return (
    <Card title={t('overview.wrong')} id="findings">
      {list.length === 0 ? (
        <p class="calm">
          <Icon name="ok" />
          {t('overview.nothing')}
        </p>
      ) : (
        <ul class="findings">
          {list.map((f) => (
            <Item key={f.id} f={f} />
          ))}
        </ul>
      )}
      {more > 0 && <div class="pager">{t('overview.more', { n: more })}</div>}
    </Card>
  );
}

function Item({ f }: { f: Finding }) {
  const tone = f.severity === 'critical' ? 'bad' : f.severity === 'warning' ? 'warn' : '';
  const next = say('next', f, f.next);
  const href = f.link ? base + f.link.replace(/^\//, '') : null;
  const what = say('finding', f, f.text);
  return (
    <li class={tone} data-finding={f.code} data-row>
      <span class="mark" title={t(`severity.${f.severity}`)}>
        <Icon name={tone === 'bad' ? 'bad' : 'warn'} />
      </span>
      <div class="grow">
        <div class="what">{href ? <a href={href} data-own>{what}</a> : what}</div>
        {next && <div class="why">{href && f.code === 'channel_stuck' ? <a class="link" href={href + '?tab=in_flight'} data-own>{next}</a> : next}</div>}
      </div>
      {f.since_at && <span class="faint nowrap hide-s">{t('since', { span: span((Date.now() - f.since_at) / 1000) })}</span>}
    </li>
  );
}
