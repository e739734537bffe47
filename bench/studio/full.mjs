// The newcomer's way on a checkpoint of full width: what it will take is said first, a closed form erases, one picture of few steps is looked
// at beside the model's own, a LoRA is exported.
//
//     bench/parity/make_sd14.py /tmp/sd14        random numbers in SD 1.4's shapes
//     node bench/studio/full.mjs --model /tmp/sd14 [--scumble target/release/scumble] [--shots FOLDER] [--steps 2]
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import { Walk, options } from './browser.mjs';

const { values: args } = parseArgs({ options: { ...options, model: { type: 'string' }, steps: { type: 'string', default: '2' } } });
if (!args.model) throw new Error('--model FOLDER is missing');
const walk = new Walk(args);
const page = await walk.open();

await walk.go('/models');
await page.fill('#path', args.model);
const opened = Date.now();
await page.click('#model button.main');
await page.waitForURL('**/erase');
walk.quick(opened, 60000, 'the model is open');
await walk.go('/models');
walk.hold((await page.textContent('.facts')).includes('512 px'), 'the model is not one of 512 px');
await walk.look('models-full');

await walk.go('/erase');
await page.fill('#concept', 'Van Gogh');
await page.selectOption('#method', 'uce');
await page.waitForFunction(() => document.querySelector('#chosen').textContent.includes('closed form'));
const asked = Date.now();
await page.click('#erase [data-estimate]');
await page.waitForFunction(() => document.querySelector('.estimate').textContent.includes('of memory'), null, { timeout: 300000 * walk.patience });
const foretold = await page.textContent('.estimate');
walk.quick(asked, 120000, `the estimate is there: ${foretold}`);
walk.hold(!await page.$('.job'), 'something was queued before the estimate');
await walk.look('erase-full-estimate');
const clicked = Date.now();
await page.click('#erase button.main');
await walk.done(1, 10);
walk.quick(clicked, 300000, 'Van Gogh is erased');
await walk.look('erase-full-done');

await page.click('.job.done a:has-text("look")');
await page.waitForURL('**/look**');
await page.click('summary:has-text("How it is drawn")');
await page.fill('#look-steps', args.steps);
walk.hold(!await page.$('#grid img'), 'pictures that take minutes are drawn unasked');
await walk.look('look-full-undrawn');
const drawing = Date.now();
await page.click('#look button.main');
await page.waitForFunction(() => [0, 1].every((at) => {
  const image = document.querySelectorAll('#grid .row:first-child img')[at];
  return image?.naturalWidth === 512 && !image.classList.contains('waiting');
}), null, { timeout: 900000 * walk.patience });
walk.quick(drawing, 600000, `a picture of ${args.steps} steps stands beside the model's own`);
const [own, edited] = await walk.seen('#grid .row:first-child img');
walk.hold(own !== edited, 'the edit draws what the model draws');
await walk.shot('look-full');

await walk.go('/library');
await page.click('.entry details.out summary');
await page.check('.entry input[value=lora]');
const exporting = Date.now();
await page.click('.entry .export button.main');
await walk.done(1, 10);
walk.quick(exporting, 300000, 'a LoRA is exported');
const lora = await walk.download(() => page.click('.job.done a:has-text("download")'));
walk.hold(lora.name.endsWith('-lora.safetensors') && lora.bytes.length > 1000, `the download is ${lora.name}, ${lora.bytes.length} bytes`);
walk.say(`${lora.name}, ${(lora.bytes.length / 2 ** 20).toFixed(1)} MiB`);
const run = fs.readdirSync(walk.runs).find((name) => name.startsWith('uce-'));
const { result } = JSON.parse(fs.readFileSync(`${walk.runs}/${run}/run.json`, 'utf8'));
walk.say(`took ${result.seconds.toFixed(1)} s and ${(result.memory / 2 ** 30).toFixed(1)} GiB`);
walk.hold(result.memory < 1.3 * result.estimate.memory, 'it took far more memory than was foretold');
await walk.close();
