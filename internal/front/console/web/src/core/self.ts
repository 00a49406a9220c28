// Who answers, and what may be done here.
import { address, get } from './api.ts';
import { command } from './cli.ts';
import { readOnly } from './page.ts';
import { Store } from './store.ts';
import type { Self } from './types.ts';

export const self = new Store<Self | null>(null);

// load asks until there is an answer.
export async function load(): Promise<void> {
  for (let wait = 300; ; wait = Math.min(5000, wait * 2)) {
    try {
      self.set(await get<Self>(address(['self'])));
      return;
    } catch {
      await new Promise((done) => setTimeout(done, wait));
    }
  }
}

export const mayChange = (): boolean => !readOnly && !(self.get()?.read_only ?? false);

// reach gives host and port of a listening address as this browser's machine
// would name it; empty where it is the command line's default.
function reach(listens: string | undefined, usual: string): string {
  if (!listens) return '';
  const cut = listens.lastIndexOf(':');
  if (cut < 0) return '';
  let host = listens.slice(0, cut);
  if (['', '0.0.0.0', '[::]'].includes(host)) host = location.hostname;
  if (['localhost', '[::1]'].includes(host)) host = '127.0.0.1';
  const at = host + listens.slice(cut);
  return at === usual ? '' : at;
}

// cli is a command line against the node that this page comes from.
export function cli(...words: (string | number | false | null | undefined)[]): string {
  const at = reach(self.get()?.addresses.http, '127.0.0.1:4151');
  const end = words.indexOf('--'); // behind it there are no flags
  return command(...words.slice(0, end < 0 ? words.length : end), ...(at ? ['--server', at] : []), ...(end < 0 ? [] : words.slice(end)));
}

// adminCli is the same for commands that speak with the admin address.
export function adminCli(...words: (string | number | false | null | undefined)[]): string {
  const at = reach(self.get()?.addresses.admin ?? location.host, '127.0.0.1:4180');
  return command(...words, ...(at ? ['--admin', at] : []));
}
