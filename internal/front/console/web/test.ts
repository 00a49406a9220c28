// Tests of what the pages compute; test/browser/run bundles and runs them.
import { command, word } from './src/core/cli.ts';
import { before } from './src/core/past.ts';
import { merge } from './src/core/merge.ts';
import { hex, json, preview, text } from './src/core/payload.ts';

let failed = 0;

function same(what: string, got: unknown, want: unknown): void {
  if (JSON.stringify(got) === JSON.stringify(want)) return;
  failed++;
  console.error(`${what}:\n  got  ${JSON.stringify(got)}\n  want ${JSON.stringify(want)}`);
}

const bytes = (s: string): Uint8Array => new TextEncoder().encode(s);
const laid = (s: string): string | undefined => json(s)?.map((k) => k.text).join('');

// The shell must read back what was meant, whatever it is.
same('plain word', word('orders.v1_x-y'), 'orders.v1_x-y');
same('ephemeral', word('sub#ephemeral'), 'sub#ephemeral');
same('comment', word('#x'), "'#x'");
same('quotes', word("it's $HOME `id`"), "'it'\\''s $HOME `id`'");
same('lines', word('a\nb'), "'a\nb'");
same('tilde', word('~'), "'~'");
same('command', command('pub', 'orders', null, '', false, '{"a": 1}'), `tidings pub orders '{"a": 1}'`);

// RFC 7396, appendix A.
for (const [target, patch, want] of [
  ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'], ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'], ['{"a":"b"}', '{"a":null}', '{}'],
  ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'], ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'], ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
  ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'], ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'], ['["a","b"]', '["c","d"]', '["c","d"]'],
  ['{"a":"b"}', '["c"]', '["c"]'], ['{"a":"foo"}', 'null', 'null'], ['{"a":"foo"}', '"bar"', '"bar"'], ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
  ['[1,2]', '{"a":"b","c":null}', '{"a":"b"}'], ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
]) same(`merge ${patch} into ${target}`, merge(JSON.parse(target!), JSON.parse(patch!)), JSON.parse(want!));

same('JSON', laid('{"a":[1,{"b":null}],"c":"x:y,{"}'), '{\n  "a": [\n    1,\n    {\n      "b": null\n    }\n  ],\n  "c": "x:y,{"\n}');
same('long numbers stay', laid('[12345678901234567890,1e-7]'), '[\n  12345678901234567890,\n  1e-7\n]');
same('empty parts', laid('{"a":{},"b":[]}'), '{\n  "a": {},\n  "b": []\n}');
same('escapes', laid('["\\"\\\\",1]'), '[\n  "\\"\\\\",\n  1\n]');
same('no JSON', [json('{"a":'), json('plain'), json('17')], [null, null, null]);

same('hex', hex(bytes('0123456789abcdefg\n')), '00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  0123456789abcdef\n00000010  67 0a                                             g·');
same('UTF-8', text(bytes('王小明')), '王小明');
same('cut UTF-8', [text(bytes('王小明').subarray(0, 7)), text(bytes('王小明').subarray(0, 7), true)], [null, '王小']);
same('binary', text(Uint8Array.of(0, 1, 2)), null);
same('preview', [preview(bytes('a\n  b'), false), preview(Uint8Array.of(255, 0), false)], ['a b', 'ff 00']);


// What the server has comes before what the page has seen; a hole is a gap.
const point = (s: number) => ({ at: s * 1000, in_rate: s, out_rate: null, backlog: 1, oldest_age_ms: 500 });
same('history', before({ at: 100_000, step_ms: 10_000, points: [point(10), point(20), point(60), point(70)] }, 65), [
  [10, 20, 20.001, 60], [10, 20, null, 60], [null, null, null, null], [1, 1, null, 1], [0.5, 0.5, null, 0.5],
]);

if (failed > 0) throw new Error(`${failed} failed`);
