// How often the messages of a channel are delivered, and where they go then.
import { useState } from 'preact/hooks';
import { address, change } from '../core/api.ts';
import { cli } from '../core/self.ts';
import type { ChannelDetail } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { act } from '../ui/ask.tsx';
import { Cli } from '../ui/parts.tsx';

const MOST = 65_534;

export function LimitForm({ data, close }: { data: ChannelDetail; close: () => void }) {
  const [most, setMost] = useState(data.max_attempts ? String(data.max_attempts) : '');
  const [dead, setDead] = useState(data.dead_letter ?? '');
  const n = Number(most || '0');
  const usual = `${data.topic}.${data.name}.dead`;
  const good = n <= MOST && (n === 0 || dead === '' || (/^[.a-zA-Z0-9_-]{1,64}$/.test(dead) && dead !== data.topic));
  const to = n > 0 && dead && dead !== data.dead_letter ? dead : '';
  const line = cli('channel', 'set', data.topic, data.name, '--max-attempts', String(n), ...(to ? ['--dead-letter', to] : []));
  const submit = (e: Event) => {
    e.preventDefault();
    if (!good) return;
    close();
    const body = { max_attempts: n, ...(to ? { dead_letter: to } : {}) };
    void act(() => change('PATCH', address(['topics', data.topic, 'channels', data.name]), body), t(n ? 'limit.set' : 'limit.lifted', { n, name: data.name }), line);
  };
  return (
    <form onSubmit={submit}>
      <h2>{t('limit.title', { name: data.name })}</h2>
      <div class="muted">{t('limit.text')}</div>
      <label class="field">
        <span>{t('limit.most')} <span class="hint">{t('limit.mostHint')}</span></span>
        <input class="input mono" inputMode="numeric" value={most} placeholder="0" autofocus autocomplete="off" aria-invalid={n > MOST} onInput={(e) => setMost(e.currentTarget.value.replace(/\D/g, ''))} />
      </label>
      <label class="field">
        <span>{t('limit.dead')} <span class="hint">{t('optional')}</span></span>
        <input class="input mono" value={dead} placeholder={usual} maxLength={64} disabled={n === 0} autocomplete="off" spellcheck={false} aria-invalid={!good && n <= MOST} onInput={(e) => setDead(e.currentTarget.value)} />
      </label>
      <div class="field">
        <span>{t('cli.equal')}</span>
        <Cli line={line} />
      </div>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>{t('cancel')}</button>
        <button type="submit" class="button primary" disabled={!good}>{t('limit.save')}</button>
      </div>
    </form>
  );
}
