// Bodies of messages as something to read.
export function decode64(text: string): Uint8Array {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

// text gives UTF-8 as a string, null for what is none. A body that was cut may
// end within a character.
export function text(bytes: Uint8Array, cut = false): string | null {
  try {
    const s = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: cut });
    return /[\0-\x08\x0e-\x1f]/.test(s) ? null : s;
  } catch {
    return null;
  }
}

export interface Token {
  kind: '' | 'k' | 's' | 'n' | 'w'; // punctuation, key, string, number, word
  text: string;
}

const pieces = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

// json lays JSON out over lines and marks its parts; null for what is none.
// It works on the text, so that long numbers stay as they were sent.
export function json(source: string): Token[] | null {
  const head = source.trimStart()[0];
  if (head !== '{' && head !== '[') return null;
  try {
    JSON.parse(source);
  } catch {
    return null;
  }
  const out: Token[] = [];
  let depth = 0;
  const put = (kind: Token['kind'], text: string) => {
    const last = out.at(-1);
    if (last && kind === '' && last.kind === '') last.text += text;
    else out.push({ kind, text });
  };
  const all = source.match(pieces) ?? [];
  all.forEach((p, i) => {
    const next = all[i + 1];
    switch (p) {
      case '{':
      case '[':
        put('', p);
        if (next === '}' || next === ']') return;
        depth++;
        put('', '\n' + '  '.repeat(depth));
        return;
      case '}':
      case ']':
        if (all[i - 1] !== '{' && all[i - 1] !== '[') {
          depth--;
          put('', '\n' + '  '.repeat(depth));
        }
        put('', p);
        return;
      case ',':
        put('', ',\n' + '  '.repeat(depth));
        return;
      case ':':
        put('', ': ');
        return;
    }
    put(p[0] === '"' ? (next === ':' ? 'k' : 's') : /[tfn]/.test(p[0]!) ? 'w' : 'n', p);
  });
  return out;
}

// hex gives sixteen bytes to a line: offset, bytes, what of them is ASCII.
export function hex(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    let left = '';
    let right = '';
    for (let i = 0; i < 16; i++) {
      const b = row[i];
      left += (i === 8 ? ' ' : '') + (b === undefined ? '   ' : b.toString(16).padStart(2, '0') + ' ');
      if (b !== undefined) right += b >= 32 && b < 127 ? String.fromCharCode(b) : '·';
    }
    lines.push(`${at.toString(16).padStart(8, '0')}  ${left} ${right}`);
  }
  return lines.join('\n');
}

// preview is the start of a body on one line.
export function preview(bytes: Uint8Array, cut: boolean): string {
  const head = bytes.subarray(0, 240);
  const s = text(head, cut || head.length < bytes.length);
  if (s !== null) return s.replace(/\s+/g, ' ');
  return [...head.subarray(0, 32)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
}
