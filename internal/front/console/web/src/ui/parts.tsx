// Small parts that every page is made of.
import type { ComponentChildren } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { Refusal } from '../core/api.ts';
import { Store } from '../core/store.ts';
import type { Missing } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Icon, type IconName } from './icons.tsx';

export type Tone = 'good' | 'warn' | 'bad' | 'accent' | '';

export const Dot = ({ tone }: { tone: Tone }) => <span class={'dot ' + tone} />;

export function Badge({ tone = '', dot, children }: { tone?: Tone; dot?: boolean; children: ComponentChildren }) {
  return (
    <span class={'badge ' + tone}>
      {dot && <Dot tone={tone} />}
      {children}
    </span>
  );
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // plain HTTP has no clipboard; the old way asks nobody
    const area = document.createElement('textarea');
    area.value = text;
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

export function CopyButton({ text, label }: { text: string; label?: string }) {
  const [done, set] = useState(false);
  const name = label ?? t('copy');
  return (
    <button
      type="button"
      class="button quiet small icon"
      aria-label={name}
      title={name}
      onClick={async (e) => {
        e.stopPropagation();
        if (await copy(text)) {
          set(true);
          setTimeout(() => set(false), 1200);
        }
      }}
    >
      <Icon name={done ? 'check' : 'copy'} />
    </button>
  );
}

// Cli shows a command line that can be copied.
export function Cli({ line }: { line: string }) {
  return (
    <div class="cli">
      <span class="prompt mono" aria-hidden="true">$</span>
      <code tabIndex={0} role="group" aria-label={t('cli.label')}>{line}</code>
      <CopyButton text={line} label={t('cli.copy')} />
    </div>
  );
}

export function Card(p: { title?: ComponentChildren; end?: ComponentChildren; children?: ComponentChildren; id?: string }) {
  return (
    <section class="card" id={p.id}>
      {(p.title || p.end) && (
        <header>
          {p.title && <h2>{p.title}</h2>}
          {p.end && <div class="end">{p.end}</div>}
        </header>
      )}
      {p.children}
    </section>
  );
}

export interface FigureProps {
  name: string;
  value: ComponentChildren;
  unit?: string;
  note?: ComponentChildren;
  tint?: string; // a custom property's name
  tone?: Tone;
  title?: string;
}

export function Figure(p: FigureProps) {
  return (
    <div class={'figure ' + (p.tone ?? '')} title={p.title}>
      <div class="name">
        {p.tint && <i style={{ '--tint': `var(--${p.tint})` }} />}
        {p.name}
      </div>
      <div class="value">
        {p.value}
        {p.unit && <small>{p.unit}</small>}
      </div>
      <div class="note">{p.note}</div>
    </div>
  );
}

export const Figures = ({ children }: { children: ComponentChildren }) => <div class="card figures">{children}</div>;

export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Empty(p: { icon: IconName; title: string; text?: ComponentChildren; cli?: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={p.icon} />
      <h2>{p.title}</h2>
      {p.text && <p>{p.text}</p>}
      {p.cli && <Cli line={p.cli} />}
      {p.children}
    </div>
  );
}

export function Skeleton({ rows = 6 }: { rows?: number }) {
  return (
    <div class="skeleton" role="status" aria-label={t('loading')}>
      {Array.from({ length: rows }, (_, i) => (
        <i key={i} style={{ width: `${92 - ((i * 37) % 46)}%` }} />
      ))}
    </div>
  );
}

// Trouble shows why something could not be had.
export function Trouble({ error, again }: { error: Refusal; again?: () => void }) {
  return (
    <div class="notice bad" role="alert">
      <Icon name="bad" />
      <div class="grow">
        {error.status === 0 ? <div>{t('error.unreachable')}</div> : <div lang="en">{error.failure.message}</div>}
        {error.failure.next && <div lang="en">{error.failure.next}</div>}
      </div>
      {again && (
        <button type="button" class="button small" onClick={again}>
          {t('retry')}
        </button>
      )}
    </div>
  );
}

export function MissingNote({ missing }: { missing: Missing[] | undefined }) {
  if (!missing || missing.length === 0) return null;
  return (
    <div class="notice warn" role="status">
      <Icon name="warn" />
      <div>
        {t('missing.text', { nodes: missing.map((m) => m.node).join(', ') })}
      </div>
    </div>
  );
}

export interface Crumb {
  text: string;
  href: string;
}

export function Head(p: { crumbs?: Crumb[]; title: ComponentChildren; badges?: ComponentChildren; actions?: ComponentChildren; lead?: ComponentChildren }) {
  return (
    <header class="head">
      {p.crumbs && (
        <nav class="crumbs" aria-label={t('crumbs')}>
          {p.crumbs.map((c, i) => [i > 0 && <Icon name="right" />, <a href={c.href} data-own>{c.text}</a>])}
        </nav>
      )}
      <div class="title">
        <h1>{p.title}</h1>
        {p.badges}
        {p.actions && <div class="actions">{p.actions}</div>}
      </div>
      {p.lead && <p class="lead">{p.lead}</p>}
    </header>
  );
}

export interface Tab {
  id: string;
  text: string;
  href: string;
  tally?: string;
}

// Tabs may be wider than a narrow window: the one that is shown comes into sight.
export function Tabs({ tabs, at }: { tabs: Tab[]; at: string }) {
  const box = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    const now = box.current?.querySelector<HTMLElement>('[aria-current]');
    if (!now) return;
    const [left, right] = [now.offsetLeft - box.current!.offsetLeft, now.offsetLeft - box.current!.offsetLeft + now.offsetWidth];
    const { scrollLeft, clientWidth } = box.current!;
    if (left < scrollLeft || right > scrollLeft + clientWidth) box.current!.scrollLeft = right - clientWidth / 2;
  }, [at]);
  return (
    <nav class="tabs" ref={box} aria-label={t('sections')}>
      {tabs.map((x) => (
        <a key={x.id} href={x.href} data-own aria-current={x.id === at ? 'page' : undefined}>
          {x.text}
          {x.tally !== undefined && <span class="tally">{x.tally}</span>}
        </a>
      ))}
    </nav>
  );
}

export function Choice<T extends string>(p: { value: T; options: readonly (readonly [T, string])[]; label: string; onChange: (v: T) => void }) {
  return (
    <div class="choice" role="group" aria-label={p.label}>
      {p.options.map(([v, text]) => (
        <button key={v} type="button" aria-pressed={v === p.value} onClick={() => p.onChange(v)}>
          {text}
        </button>
      ))}
    </div>
  );
}

// SearchBox reports what is typed a moment after the typing rests.
export function SearchBox(p: { value: string; label: string; onChange: (v: string) => void }) {
  const [typed, set] = useState<string | null>(null);
  const [timer, setTimer] = useState(0);
  const later = (v: string) => {
    set(v);
    clearTimeout(timer);
    setTimer(window.setTimeout(() => (p.onChange(v), set(null)), 150));
  };
  return (
    <div class="search">
      <Icon name="search" />
      <input
        class="input"
        type="search"
        data-search
        value={typed ?? p.value}
        placeholder={p.label}
        aria-label={p.label}
        autocomplete="off"
        spellcheck={false}
        onInput={(e) => later(e.currentTarget.value)}
      />
      <kbd aria-hidden="true">/</kbd>
    </div>
  );
}

interface Toast {
  id: number;
  text: string;
  cli?: string;
  bad: boolean;
}

const toasts = new Store<Toast[]>([]);
let nextToast = 1;

// say shows a line for some seconds; a bad one longer.
export function say(text: string, o: { cli?: string; bad?: boolean } = {}): void {
  const id = nextToast++;
  toasts.set([...toasts.get().slice(-3), { id, text, cli: o.cli, bad: !!o.bad }]);
  setTimeout(() => toasts.set(toasts.get().filter((x) => x.id !== id)), o.bad ? 10_000 : 6000);
}

export const toastStore = toasts;

export function Toasts({ list }: { list: Toast[] }) {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {list.map((x) => (
        <div key={x.id} class={'toast ' + (x.bad ? 'bad' : '')}>
          <Icon name={x.bad ? 'bad' : 'ok'} />
          <div class="grow stack">
            <span>{x.text}</span>
            {x.cli && <Cli line={x.cli} />}
          </div>
        </div>
      ))}
    </div>
  );
}

