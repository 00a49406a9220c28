// The command that does what the page is about to do, as one would type it.

// word quotes what the shell would not take as one word.
export function word(s: string): string {
  return /^[\w@%+=:,./#-]+$/.test(s) && !s.startsWith('#') ? s : `'${s.replaceAll("'", `'\\''`)}'`;
}

// command joins words; empty ones are left out.
export function command(...words: (string | number | false | null | undefined)[]): string {
  const list = words.filter((w) => w !== false && w !== null && w !== undefined && w !== '');
  return ['tidings', ...list.map((w) => word(String(w)))].join(' ');
}
