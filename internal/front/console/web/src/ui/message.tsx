// Messages: one line each, which opens to the whole.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { address, get, Refusal } from '../core/api.ts';
import { bytes as size, clock, count, span } from '../core/format.ts';
import { serverNow } from '../core/live.ts';
import { decode64, hex, json, preview, text } from '../core/payload.ts';
import type { Gap, Message } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Icon } from './icons.tsx';
import { Badge, Choice, copy, CopyButton, Fact, say, Skeleton, Trouble } from './parts.tsx';

const SHOWN = 64 << 10; // bytes of a body that are laid out at once
const COLOURED = 96 << 10; // bytes of JSON that get colours

type Form = 'json' | 'text' | 'hex';

export const messageId = (m: Message): string => (m.partition < 0 ? m.id : `${m.partition}.${m.offset}`);

export interface MessagesProps {
  topic: string;
  items: Message[];
  gaps?: Gap[];
  find?: string;
  opened: string; // id of the open one
  onOpen: (id: string) => void;
}

export function Messages(p: MessagesProps) {
  return (
    <div>
      {p.gaps?.map((g) => (
        <div key={`${g.partition}.${g.first}`} class="pager">
          {t(g.reason === 'damaged' ? 'gap.damaged' : 'gap.deleted', {
            partition: g.partition, first: count(g.first), last: count(g.last),
          })}
        </div>
      ))}
      <ul class="messages">
        {p.items.map((m) => (
          <Item key={messageId(m)} topic={p.topic} m={m} find={p.find} open={p.opened === messageId(m)} onOpen={p.onOpen} />
        ))}
      </ul>
    </div>
  );
}

function Item({ topic, m, find, open, onOpen }: { topic: string; m: Message; find?: string; open: boolean; onOpen: (id: string) => void }) {
  const head = useMemo(() => preview(decode64(m.body), m.truncated), [m.body]);
  const place = m.partition < 0 ? m.id.slice(-8) : `${m.partition} · ${count(m.offset)}`;
  return (
    <li>
      <button type="button" class="line" data-row aria-expanded={open} onClick={() => onOpen(open ? '' : messageId(m))}>
        <Icon name="right" />
        <span class="place" title={t('message.place')}>{place}</span>
        <span class="when faint nowrap">{clock(m.timestamp_at)}</span>
        <span class="preview mono"><Found text={head} find={find} /></span>
        <span class="meta">
          {!!m.attempts && m.attempts > 1 && <Badge tone="warn">{t('message.attempts', { n: m.attempts })}</Badge>}
          {m.state === 'deferred' && m.due_at && <span>{due(m.due_at)}</span>}
          {m.state === 'in_flight' && m.deadline_at && <span>{deadline(m.deadline_at)}</span>}
          <span>{size(m.size_bytes)}</span>
        </span>
      </button>
      {open && <Opened topic={topic} first={m} />}
    </li>
  );
}

const due = (at: number): string =>
  at > serverNow() ? t('message.due', { span: span((at - serverNow()) / 1000) }) : t('message.dueNow');
const deadline = (at: number): string => t('message.deadline', { span: span(Math.max(0, at - serverNow()) / 1000) });

// Found marks what was searched for.
function Found({ text: s, find }: { text: string; find?: string }) {
  if (!find || find.startsWith('hex:')) return <>{s}</>;
  const parts = s.split(find);
  return (
    <>
      {parts.map((part, i) => (
        <>
          {i > 0 && <mark>{find}</mark>}
          {part}
        </>
      ))}
    </>
  );
}

function Opened({ topic, first }: { topic: string; first: Message }) {
  const [whole, set] = useState<Message | null>(first.truncated && first.partition >= 0 ? null : first);
  const [error, fail] = useState<Refusal | null>(null);
  const path = ['topics', topic, 'messages', first.partition, first.offset];
  useEffect(() => {
    if (whole) return;
    const stop = new AbortController();
    get<Message>(address(path), stop.signal).then(set, (e) => e instanceof Refusal && fail(e));
    return () => stop.abort();
  }, []);
  const m = whole ?? first;
  return (
    <div class="opened">
      <dl class="facts">
        <Fact name={t('message.id')}>
          <span class="row"><span class="mono">{m.id}</span><CopyButton text={m.id} /></span>
        </Fact>
        <Fact name={t('message.published')}>{clock(m.timestamp_at)}</Fact>
        <Fact name={t('message.size')}>{count(m.size_bytes)} B</Fact>
        {m.attempts !== undefined && <Fact name={t('message.deliveries')}>{count(m.attempts)}</Fact>}
        {m.key && <Fact name={t('message.key')}><Short base64={m.key} /></Fact>}
        {m.name && <Fact name={t('message.name')}><Short base64={m.name} /></Fact>}
        {m.consumer && <Fact name={t('message.consumer')}><span class="mono">{m.consumer}</span></Fact>}
        {m.due_at && m.state === 'deferred' && <Fact name={t('message.dueAt')}>{clock(m.due_at)}</Fact>}
        {Object.entries(m.headers ?? {}).map(([k, v]) => (
          <Fact key={k} name={k}><Short base64={v} /></Fact>
        ))}
      </dl>
      {error && <Trouble error={error} />}
      {!whole && !error ? <Skeleton rows={3} /> : <Body m={m} link={m.partition >= 0 ? address([...path, 'body']) : null} />}
    </div>
  );
}

function Short({ base64 }: { base64: string }) {
  const b = decode64(base64);
  return <span class="mono">{text(b) ?? preview(b, false)}</span>;
}

// Body shows the bytes as JSON, as text or in hex, whatever they can be.
function Body({ m, link }: { m: Message; link: string | null }) {
  const all = useMemo(() => decode64(m.body), [m.body]);
  const plain = useMemo(() => text(all, m.truncated), [all]);
  const tokens = useMemo(() => (plain !== null && all.length <= COLOURED ? json(plain) : null), [plain]);
  const [chosen, choose] = useState<Form | null>(null);
  const [more, showMore] = useState(false);
  const form: Form = chosen ?? (tokens ? 'json' : plain !== null ? 'text' : 'hex');
  const part = more ? all : all.subarray(0, SHOWN);
  const forms: [Form, string][] = [];
  if (tokens) forms.push(['json', 'JSON']);
  if (plain !== null) forms.push(['text', t('body.text')]);
  forms.push(['hex', t('body.hex')]);
  return (
    <div class="stack">
      <div class="row wrap">
        <Choice label={t('body.form')} value={form} options={forms} onChange={choose} />
        <span class="grow" />
        <button type="button" class="button small" onClick={async () => (await copy(plain ?? hex(all))) && say(t('copied'))}>
          <Icon name="copy" />
          {t('copy')}
        </button>
        {link && <a class="button small" href={link} download={`${m.id}.bin`}>{t('body.download')}</a>}
      </div>
      <pre class={'payload ' + (form === 'hex' ? 'hex' : '')} tabIndex={0} role="group" aria-label={t('body.label')}>
        {form === 'json' && tokens!.map((k, i) => (k.kind ? <span key={i} class={k.kind}>{k.text}</span> : k.text))}
        {form === 'text' && (more || all.length <= SHOWN ? plain : text(part, true))}
        {form === 'hex' && hex(part)}
      </pre>
      {m.truncated && <span class="faint">{t('body.cut', { shown: size(all.length), size: size(m.size_bytes) })}</span>}
      {form !== 'json' && all.length > SHOWN && !more && (
        <div>
          <button type="button" class="button small" onClick={() => showMore(true)}>
            {t('body.more', { shown: size(SHOWN), size: size(all.length) })}
          </button>
        </div>
      )}
    </div>
  );
}
