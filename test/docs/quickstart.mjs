// Runs the blocks of a page as they stand, from top to bottom, in one shell.
//
//   ```sh              is run; it must end well
//   ```sh background   is started, and goes on while the rest runs
//   ```sh build        is left out: `tidings` is on PATH already
//   ```text            is what the block before it prints: … is any text, and a
//                      line of it any lines
//   ```go, ```js       are the file that the line before them names: "as `NAME`:"
//
// Usage: node quickstart.mjs PAGE FOLDER, with FOLDER empty or not there
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const [page, folder] = [resolve(process.argv[2]), resolve(process.argv[3])];
const patience = 60_000; // ms for each block
mkdirSync(folder, { recursive: true });

// blocks are what stands between fences: what they are, what they hold, where.
function blocks(text) {
  const out = [];
  let open = null;
  let before = '';
  text.split('\n').forEach((line, i) => {
    if (!open && line.startsWith('```')) open = { info: line.slice(3).trim(), line: i + 1, before, body: '' };
    else if (open && line === '```') {
      out.push(open);
      open = null;
    } else if (open) open.body += line + '\n';
    if (line.trim()) before = line;
  });
  if (open) throw new Error(`line ${open.line}: the block has no end`);
  return out;
}

// fits tells whether a text is what was said, with … for any text.
function fits(said, got, whole) {
  const pattern = said.trim().replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/^…$\n?/gm, '(?:.*\\n)*').replace(/…/g, '.*');
  return new RegExp('^' + pattern.replace(/\n+$/, '') + (whole ? '\\n*$' : '')).test(got.trim() + '\n');
}

// The shell leads a process group of its own, so that all it started ends with it.
const shell = spawn('bash', ['--norc', '-eo', 'pipefail'], { cwd: folder, detached: true, stdio: ['pipe', 'pipe', 'inherit'] });
process.on('exit', () => {
  try {
    process.kill(-shell.pid, 'SIGKILL');
  } catch {
    // it is gone
  }
});
let out = '';
let ended = false;
shell.stdout.on('data', (d) => (out += d));
shell.on('exit', () => (ended = true));

async function until(what, check) {
  for (const end = Date.now() + patience; !check(); ) {
    if (ended || Date.now() > end) throw new Error(`${what}: ${ended ? 'the command failed' : 'nothing came'}; it printed\n${out}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

let ran = 0;
async function run(block, said) {
  const end = `end of block ${++ran}`;
  const where = `${page}:${block.line}`;
  out = '';
  if (block.info === 'sh background') {
    const log = join(folder, `block-${ran}.log`);
    shell.stdin.write(`{ ${block.body.trim()}\n} >'${log}' 2>&1 &\n`);
    await until(where, () => {
      try {
        out = readFileSync(log, 'utf8');
      } catch {
        return false;
      }
      return !said || fits(said.body, out, false);
    });
    return;
  }
  shell.stdin.write(`{ ${block.body.trim()}\n} 2>&1\necho; echo ${end}\n`);
  await until(where, () => out.includes(end));
  const got = out.slice(0, out.indexOf(end));
  if (said && !fits(said.body, got, true)) throw new Error(`${where} prints\n${got}\nwhere the page says\n${said.body}`);
}

const list = blocks(readFileSync(page, 'utf8'));
for (const [i, block] of list.entries()) {
  const said = list[i + 1]?.info === 'text' ? list[i + 1] : null;
  const [kind] = block.info.split(' ');
  if (kind === 'sh' && block.info !== 'sh build') await run(block, said);
  else if (kind === 'go' || kind === 'js') {
    const name = /as `([^`]+)`:$/.exec(block.before)?.[1];
    if (!name) throw new Error(`${page}:${block.line}: which file is it?`);
    writeFileSync(join(folder, name), block.body);
  } else if (kind !== 'text' && block.info !== 'sh build') throw new Error(`${page}:${block.line}: what is a block of ${block.info}?`);
}
if (ran < 6) throw new Error(`only ${ran} blocks were run`);
console.log(`note: ${ran} blocks of the quickstart were run`);
process.exit(0);
