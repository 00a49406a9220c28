// Dialogs: one at a time, over the page.
import type { ComponentChildren } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Refusal } from '../core/api.ts';
import { Store } from '../core/store.ts';
import type { Done } from '../core/types.ts';
import { t } from '../i18n/index.ts';
import { Cli, say, Trouble } from './parts.tsx';

// Question is something that is asked before it is done.
export interface Question {
  title: string;
  text?: ComponentChildren;
  verb: string; // on the button
  danger?: boolean;
  name?: string; // must be typed, exactly
  cli: string;
  run: () => Promise<Done>;
  done: string; // said afterwards
  then?: () => void;
}

type Shown = Question | { view: (close: () => void) => ComponentChildren; label: string; wide?: boolean } | null;

export const shown = new Store<Shown>(null);

export const ask = (q: Question): void => shown.set(q);
export const show = (label: string, view: (close: () => void) => ComponentChildren, wide = false): void =>
  shown.set({ label, view, wide });

// act does something at once, and says what it did and how to type it.
export async function act(run: () => Promise<Done>, done: string, cli: string): Promise<void> {
  try {
    const answer = await run();
    say(answer.waits ? `${done} ${answer.waits}` : done, { cli });
  } catch (e) {
    say(reason(e), { bad: true });
  }
}

export function reason(e: unknown): string {
  if (!(e instanceof Refusal)) return String(e);
  if (e.status === 0) return t('error.unreachable');
  return e.failure.next ? `${e.failure.message} ${e.failure.next}` : e.failure.message;
}

export function Dialogs({ what }: { what: Shown }) {
  const box = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => { // before the next key is pressed
    if (what && box.current && !box.current.open) box.current.showModal();
  }, [what]);
  if (!what) return null;
  const close = () => {
    box.current?.close();
    shown.set(null);
  };
  const label = 'view' in what ? what.label : what.title;
  return (
    <dialog
      ref={box}
      class={'view' in what && what.wide ? 'wide' : ''}
      aria-label={label}
      onClose={() => shown.set(null)}
      onClick={(e) => e.target === box.current && close()}
    >
      {'view' in what ? what.view(close) : <Asked q={what} close={close} />}
    </dialog>
  );
}

function Asked({ q, close }: { q: Question; close: () => void }) {
  const [typed, set] = useState('');
  const [busy, work] = useState(false);
  const [error, fail] = useState<Refusal | null>(null);
  const ready = !busy && (!q.name || typed === q.name);
  const submit = async (e: Event) => {
    e.preventDefault();
    if (!ready) return;
    work(true);
    fail(null);
    try {
      const answer = await q.run();
      close();
      say(answer.waits ? `${q.done} ${answer.waits}` : q.done, { cli: q.cli });
      q.then?.();
    } catch (e) {
      work(false);
      fail(e instanceof Refusal ? e : new Refusal(0, { code: '', message: String(e) }));
    }
  };
  return (
    <form onSubmit={submit}>
      <h2>{q.title}</h2>
      {q.text && <div class="muted">{q.text}</div>}
      {q.name && (
        <label class="field">
          <span>{t('ask.type', { name: q.name })}</span>
          <input class="input mono" value={typed} autofocus autocomplete="off" spellcheck={false} onInput={(e) => set(e.currentTarget.value)} />
        </label>
      )}
      {error && <Trouble error={error} />}
      <div class="field">
        <span>{t('cli.equal')}</span>
        <Cli line={q.cli} />
      </div>
      <div class="buttons">
        <button type="button" class="button" onClick={close}>{t('cancel')}</button>
        <button type="submit" class={'button ' + (q.danger ? 'danger solid' : 'primary')} disabled={!ready} autofocus={!q.name}>
          {busy ? t('working') : q.verb}
        </button>
      </div>
    </form>
  );
}
