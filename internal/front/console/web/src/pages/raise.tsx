// More partitions for a topic, which can't be taken back.
import { useState } from 'preact/hooks';
import { address, change, Refusal } from '../core/api.ts';
import { count } from '../core/format.ts';
import { cli } from '../core/self.ts';
import type { TopicState } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Cli, say, Trouble } from '../ui/parts.tsx';

const MOST = 4096;

export function RaiseForm({ topic, from, close }: { topic: string; from: Pick<TopicState, 'partitions' | 'active_partitions'>; close: () => void }) {
  const [typed, set] = useState('');
  const [busy, work] = useState(false);
  const [error, fail] = useState<Refusal | null>(null);
  const now = from.partitions;
  const raising = from.active_partitions < now; // to be waited for again
  const n = Number(typed);
  const good = typed !== '' && n <= MOST && (n > now || raising && n === now);
  const line = cli('topic', 'set', topic, '--partitions', typed || String(Math.min(2 * now, MOST)));
  const submit = async (e: Event) => {
    e.preventDefault();
    if (!good || busy) return;
    work(true);
    fail(null);
    try {
      await change('PATCH', address(['topics', topic]), { partitions: n });
      close();
      say(t('raise.done', { name: topic, n, count: count(n) }), { cli: line });
    } catch (e) {
      work(false);
      fail(e instanceof Refusal ? e : new Refusal(0, { code: '', message: String(e) }));
    }
  };
  return (
    <form onSubmit={submit}>
      <h2>{t('raise.title', { name: topic })}</h2>
      <div class="muted">{t('raise.text')}</div>
      <ul class="points">
        <li>{t('raise.order')}</li>
        <li>{t('raise.wait')}</li>
        <li><strong>{t('raise.final')}</strong></li>
      </ul>
      <label class="field">
        <span>{t('partitions')} <span class="hint">{t('raise.now', { n: now, count: count(now) })}</span></span>
        <input class="input mono" inputMode="numeric" value={typed} placeholder={String(Math.min(2 * now, MOST))} autofocus autocomplete="off" disabled={busy}
          aria-invalid={typed !== '' && !good} onInput={(e) => set(e.currentTarget.value.replace(/\D/g, '').slice(0, 4))} />
      </label>
      {error && <Trouble error={error} />}
      <div class="field">
        <span>{t('cli.equal')}</span>
        <Cli line={line} />
      </div>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>{t('cancel')}</button>
        <button type="submit" class="button primary" disabled={!good || busy}>{busy ? t('working') : good ? t('raise.to', { count: count(n) }) : t('raise')}</button>
      </div>
    </form>
  );
}
