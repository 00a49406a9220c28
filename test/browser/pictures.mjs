// The pictures of the console in docs/img show the console as it is: the same
// words in the frame of the page, and much the same look. They are made anew with
// PICTURES=write (`make screenshots`).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { shots } from './rig.mjs';

const folder = fileURLToPath(new URL('../../docs/img/', import.meta.url));
const LARGEST = 150_000; // bytes of a picture
const UNLIKE = 3; // mean difference of brightness, of 255: the same page has below 1, other pages 5 to 6, the other theme 222
const advice = 'look at it, then run `make screenshots` and commit docs/img';

// words are those that are there whatever the nodes do.
const words = (page) =>
  page.evaluate(() => [...document.querySelectorAll('.side nav a, main h1, main h2, main .figure .name, main th')].map((e) => e.cloneNode(true)).map((e) => {
    e.querySelectorAll('.tally').forEach((x) => x.remove());
    return e.textContent.trim();
  }));

// unlike is how much two pictures differ, in squares of about 20 px.
export const unlike = (page, one, other) =>
  page.evaluate(async (both) => {
    const [a, b] = await Promise.all(both.map(async (data) => {
      const image = new Image();
      image.src = 'data:image/png;base64,' + data;
      await image.decode();
      const canvas = new OffscreenCanvas(64, 40);
      const draw = canvas.getContext('2d');
      draw.imageSmoothingQuality = 'high';
      draw.drawImage(image, 0, 0, 64, 40);
      const { data: pixels } = draw.getImageData(0, 0, 64, 40);
      const grey = [];
      for (let i = 0; i < pixels.length; i += 4) grey.push((pixels[i] + pixels[i + 1] + pixels[i + 2]) / 3);
      return { grey, width: image.width, height: image.height };
    }));
    if (a.width !== b.width || a.height !== b.height) return 255;
    return a.grey.reduce((sum, v, i) => sum + Math.abs(v - b.grey[i]), 0) / a.grey.length;
  }, [one, other].map((png) => png.toString('base64')));

// pictured holds a committed picture against what the viewer sees.
export async function pictured(viewer, name) {
  const now = await words(viewer.page);
  const png = await viewer.page.screenshot({ path: `${shots}/${name}.png`, animations: 'disabled' });
  const file = `${folder}${name}.png`;
  if (process.env.PICTURES === 'write') {
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, png);
    writeFileSync(`${folder}${name}.json`, JSON.stringify(now) + '\n');
  }
  const committed = readFileSync(file);
  if (committed.length > LARGEST) throw new Error(`${file} has ${committed.length} bytes: at most ${LARGEST}`);
  const then = JSON.parse(readFileSync(`${folder}${name}.json`, 'utf8'));
  const other = [...now.filter((w) => !then.includes(w)), ...then.filter((w) => !now.includes(w))];
  if (other.length > 0) throw new Error(`${file} is not the present page, which differs in ${other.join(', ')}: ${advice}`);
  const blank = await viewer.context.newPage();
  const by = await unlike(blank, committed, png);
  await blank.close();
  console.log(`      ${name}: ${committed.length} bytes, ${by.toFixed(1)} of 255 unlike`);
  if (by > UNLIKE) throw new Error(`${file} does not look like the present page (${by.toFixed(1)} of 255 unlike): ${advice}`);
}
