// The frame around every page.
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { line, useWatch } from '../core/live.ts';
import { short } from '../core/format.ts';
import { places } from '../core/keys.ts';
import { language, theme, type Theme } from '../core/prefs.ts';
import { url, usePlace } from '../core/router.ts';
import { mayChange, self } from '../core/self.ts';
import { useStore } from '../core/store.ts';
import type { Overview } from '../core/types.ts';
import { t, type Key } from '../i18n/index.ts';
import { entries, type Entry } from './nav.ts';
import { palette } from './palette.tsx';
import { Dialogs, show, shown } from './ask.tsx';
import { Icon, Mark, type IconName } from './icons.tsx';
import { Badge, Toasts, toastStore } from './parts.tsx';

export function Shell({ children }: { children: ComponentChildren }) {
  const place = usePlace();
  const [open, set] = useState(false);
  const toasts = useStore(toastStore);
  const dialog = useStore(shown);
  const state = useStore(line);
  useEffect(() => set(false), [place.url]);
  return (
    <>
      <a class="skip" href="#main">{t('skip')}</a>
      <div class="shell">
        <div class="menu-bar">
          <button type="button" class="button quiet icon" aria-label={t('menu')} aria-expanded={open} onClick={() => set(!open)}>
            <Icon name={open ? 'close' : 'menu'} />
          </button>
          <a class="brand" href={url([])} data-own><Mark /> tidings</a>
          <Pulse />
        </div>
        <Side open={open} at={place.path[0] ?? ''} />
        <main id="main" tabIndex={-1}>
          {state === 'off' && <div class="notice bad lost" role="alert"><Icon name="bad" />{t('error.unreachable')}</div>}
          {children}
        </main>
      </div>
      <Toasts list={toasts} />
      <Dialogs what={dialog} />
    </>
  );
}

function Side({ open, at }: { open: boolean; at: string }) {
  const me = useStore(self);
  const { data } = useWatch<Overview>('overview');
  const wrong = data ? data.findings.filter((f) => f.severity !== 'info').length + data.findings_more : 0;
  const link = (e: Entry) => {
    const path = places[e.key]!;
    return (
      <a key={e.key} href={url(path)} data-own aria-current={(path[0] ?? '') === at ? 'page' : undefined} title={`g ${e.key}`}>
        <Icon name={e.icon} />
        {t(e.text)}
        {e.key === 'o' && wrong > 0 && <span class="tally bad" aria-label={t('overview.wrong')}>{wrong}</span>}
        {e.key === 't' && data && <span class="tally">{short(data.totals.topics)}</span>}
      </a>
    );
  };
  return (
    <div class={'side' + (open ? ' open' : '')}>
      <a class="brand" href={url([])} data-own>
        <Mark /> tidings
      </a>
      <button type="button" class="button jump" onClick={palette}>
        <Icon name="search" />
        <span class="grow">{t('palette.title')}</span>
        <kbd>{/Mac|iP/.test(navigator.platform) ? '⌘ K' : 'Ctrl K'}</kbd>
      </button>
      <nav aria-label={t('nav')}>
        {entries.filter((e) => !e.cluster).map(link)}
        <div class="group">{t('nav.cluster')}</div>
        {entries.filter((e) => e.cluster).map(link)}
      </nav>
      <div class="foot">
        {me && !mayChange() && <div class="row"><Badge tone="accent">{t('readOnly')}</Badge></div>}
        <Pulse />
        {me && (
          <div class="live">
            <span title={me.cluster}>{me.node}</span>
            <span class="faint">{me.version}</span>
          </div>
        )}
        <Tools />
      </div>
    </div>
  );
}

function Pulse() {
  const state = useStore(line);
  const tone = state === 'off' ? 'bad' : state === 'paused' ? 'warn' : '';
  return (
    <div class={'live' + (state === 'on' ? ' on' : '')} role="status">
      <span class={'dot ' + tone} />
      {t(`live.${state}`)}
    </div>
  );
}

const themes: Record<Theme, { next: Theme; icon: IconName; text: Key }> = {
  system: { next: 'light', icon: 'auto', text: 'theme.system' },
  light: { next: 'dark', icon: 'sun', text: 'theme.light' },
  dark: { next: 'system', icon: 'moon', text: 'theme.dark' },
};

function Tools() {
  const now = themes[useStore(theme)];
  const lang = useStore(language);
  return (
    <div class="tools">
      <button type="button" class="button quiet icon" aria-label={t(now.text)} title={t(now.text)} onClick={() => theme.set(now.next)}>
        <Icon name={now.icon} />
      </button>
      <button type="button" class="button quiet" lang={lang === 'en' ? 'zh-CN' : 'en'} onClick={() => language.set(lang === 'en' ? 'zh' : 'en')}>
        {lang === 'en' ? '中文' : 'English'}
      </button>
      <button type="button" class="button quiet icon" aria-label={t('keys.title')} title="?" onClick={help}>
        <Icon name="help" />
      </button>
    </div>
  );
}

// help shows the keys.
export function help(): void {
  const keys: [string[], Key][] = [
    ...entries.map((e): [string[], Key] => [['g', e.key], e.text]),
    [['Ctrl', 'k'], 'palette.title'],
    [['/'], 'keys.search'],
    [['j', 'k'], 'keys.rows'],
    [['Enter'], 'keys.open'],
    [['u'], 'keys.up'],
    [['Esc'], 'keys.leave'],
    [['?'], 'keys.help'],
  ];
  show(t('keys.title'), (close) => (
    <div class="body">
      <h2>{t('keys.title')}</h2>
      <ul class="keys">
        {keys.map(([list, text]) => (
          <li key={text}>
            <span>{t(text)}</span>
            <span class="nowrap">{list.map((k) => <kbd key={k}>{k}</kbd>)}</span>
          </li>
        ))}
      </ul>
      <div class="buttons">
        <button type="button" class="button" autofocus onClick={close}>{t('close')}</button>
      </div>
    </div>
  ));
}
