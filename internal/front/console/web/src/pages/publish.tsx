// Publishing a message from the console.
import { useState } from 'preact/hooks';
import { address, change, Refusal } from '../core/api.ts';
import { count } from '../core/format.ts';
import { cli } from '../core/self.ts';
import { t } from '../i18n/index.ts';
import { say, Cli, Trouble } from '../ui/parts.tsx';
import { show } from '../ui/ask.tsx';

export const publish = (topic: string): void => show(t('publish.title', { name: topic }), (close) => <Form topic={topic} close={close} />, true);

const seconds: Record<string, number> = { '': 1, s: 1, ms: 0.001, m: 60, h: 3600, d: 86400 };

// delay reads a span such as 10m; undefined for what is none.
function delay(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)$/.exec(text.trim());
  return text.trim() === '' ? 0 : m ? Math.round(Number(m[1]) * seconds[m[2]!]! * 1000) : undefined;
}

function Form({ topic, close }: { topic: string; close: () => void }) {
  const [body, setBody] = useState('');
  const [lines, setLines] = useState(false);
  const [key, setKey] = useState('');
  const [wait, setWait] = useState('');
  const [busy, work] = useState(false);
  const [error, fail] = useState<Refusal | null>(null);
  const messages = (lines ? body.split('\n') : [body]).filter((x) => x !== '');
  const ms = delay(wait);
  const ready = !busy && messages.length > 0 && messages.length <= 1000 && ms !== undefined;
  const line = cli('pub', topic, ...(key ? ['--key', key] : []), ...(ms ? ['--delay', `${ms / 1000}s`] : []), ...(lines ? ['-'] : body.startsWith('-') ? ['--', body] : [body || 'hello']));
  const submit = async (e: Event) => {
    e.preventDefault();
    if (!ready) return;
    work(true);
    fail(null);
    try {
      const list = messages.map((text) => (key ? { text, key } : { text }));
      await change('POST', address(['topics', topic, 'messages']), ms ? { messages: list, defer_ms: ms } : { messages: list });
      close();
      say(t('published', { n: list.length, count: count(list.length), name: topic }), { cli: line });
    } catch (err) {
      work(false);
      fail(err instanceof Refusal ? err : new Refusal(0, { code: '', message: String(err) }));
    }
  };
  const enter = (e: KeyboardEvent) => {
    if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) void submit(e);
  };
  return (
    <form onSubmit={submit} onKeyDown={enter}>
      <h2>{t('publish.title', { name: topic })}</h2>
      <label class="field">
        <span>{t('publish.body')} <span class="hint">{lines ? t('publish.count', { n: messages.length }) : jsonHint(body)}</span></span>
        <textarea class="input" rows={8} value={body} autofocus spellcheck={false} placeholder={'{"order": 1}'} onInput={(e) => setBody(e.currentTarget.value)} />
      </label>
      <label class="check">
        <input type="checkbox" checked={lines} onChange={(e) => setLines(e.currentTarget.checked)} />
        {t('publish.lines')}
      </label>
      <div class="pair">
        <label class="field">
          <span>{t('message.key')} <span class="hint">{t('optional')}</span></span>
          <input class="input mono" value={key} maxLength={1024} autocomplete="off" spellcheck={false} onInput={(e) => setKey(e.currentTarget.value)} />
        </label>
        <label class="field">
          <span>{t('publish.delay')} <span class="hint">{t('publish.delayHint')}</span></span>
          <input class="input mono" value={wait} placeholder="10m" aria-invalid={ms === undefined} autocomplete="off" spellcheck={false} onInput={(e) => setWait(e.currentTarget.value)} />
        </label>
      </div>
      {error && <Trouble error={error} />}
      <div class="field">
        <span>{t('cli.equal')}</span>
        <Cli line={line} />
      </div>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>{t('cancel')}</button>
        <button type="submit" class="button primary" disabled={!ready}>{busy ? t('working') : t('publish')}</button>
      </div>
    </form>
  );
}

// jsonHint says whether what looks like JSON is.
function jsonHint(body: string): string {
  if (!/^\s*[{[]/.test(body)) return '';
  try {
    JSON.parse(body);
    return t('publish.json');
  } catch {
    return t('publish.notJson');
  }
}
