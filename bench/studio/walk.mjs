// A newcomer's walk through the studio in Chromium, from an empty folder to an erased church, seen, attacked, compared, exported: everything
// that README.md of this folder names is held. Exit status 1 if anything is not as it should be.
//
//     npm ci --prefix bench/studio
//     node bench/studio/walk.mjs --scumble target/release/scumble [--chromium /usr/bin/chromium] [--shots FOLDER]
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const { values: args } = parseArgs({ options: {
  scumble: { type: 'string', default: 'target/release/scumble' }, chromium: { type: 'string', default: '/usr/bin/chromium' },
  shots: { type: 'string' },
} });
const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const runs = fs.mkdtempSync(path.join(os.tmpdir(), 'studio-walk-'));
const problems = [];
const began = Date.now();
const said = (text) => console.log(`${((Date.now() - began) / 1000).toFixed(1).padStart(6)} s  ${text}`);
const hold = (fine, what) => { if (!fine) { problems.push(what); said(`NOT SO: ${what}`); } };

/** Starts a studio on the folder; its process and its address. */
function studio() {
  return new Promise((resolve, reject) => {
    const process = spawn(args.scumble, ['studio', '--json', '--no-open', '--quiet', '--folder', runs], { stdio: ['ignore', 'pipe', 'inherit'] });
    process.stdout.once('data', (line) => resolve({ process, url: JSON.parse(line).url }));
    process.once('exit', (status) => reject(new Error(`the studio ended with ${status}`)));
  });
}

let { process: server, url } = await studio();
process.on('exit', () => server.kill('SIGKILL'));
server.removeAllListeners('exit');
const browser = await chromium.launch({ executablePath: args.chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
const page = await context.newPage();
const own = () => new URL(url).origin;
// A refusal is an answer, which the browser notes as well: what the page makes of it is held below.
const noted = (message) => { if (message.type() === 'error' && !message.text().includes('status of 422')) hold(false, `the console says: ${message.text()} (${page.url()})`); };
page.on('console', noted);
page.on('pageerror', (error) => hold(false, `a script fails: ${error.message} (${page.url()})`));
page.on('request', (request) => {
  const to = request.url();
  hold(to.startsWith(own()) || to.startsWith('data:') || to.startsWith('blob:'), `a request to elsewhere: ${to}`);
});

let shots = 0;
async function shot(name) {
  if (!args.shots) return;
  fs.mkdirSync(args.shots, { recursive: true });
  shots += 1;
  await page.screenshot({ path: path.join(args.shots, `${String(shots).padStart(2, '0')}-${name}.png`), fullPage: true });
}

/** No violation that axe finds, and nothing wider than the page, at a desk and on a phone. */
async function look(name) {
  for (const [where, viewport] of [['desk', { width: 1280, height: 860 }], ['phone', { width: 390, height: 844 }]]) {
    await page.setViewportSize(viewport);
    await page.waitForTimeout(150);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    hold(wide <= 0, `${name} is ${wide} px wider than a ${where}`);
    for (const scheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.evaluate(axe);
      const found = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
      for (const one of found.violations) hold(false, `${name}, ${where}, ${scheme}: ${one.id}: ${one.nodes.length} times, such as ${one.nodes[0].html.slice(0, 120)}`);
    }
    await page.emulateMedia({ colorScheme: 'light' });
    await shot(`${name}-${where}`);
  }
  await page.setViewportSize({ width: 1280, height: 860 });
}

const done = (n) => page.waitForFunction((n) => document.querySelectorAll('.job.done').length >= n, n, { timeout: 240000 });

page.setDefaultTimeout(60000);
await page.goto(url);
await page.waitForURL('**/erase');
hold(!page.url().includes('token'), 'the key stays in the address');
await look('erase-empty');
await page.fill('#concept', 'chruch');
await page.selectOption('#method', 'uce');
await page.click('button.main');
await page.waitForSelector('.job.failed .problem');
hold((await page.textContent('.job.failed .problem')).includes('did you mean'), 'a slip is not answered with what was meant');
await page.click('.chip[data-concept="church"]');
await page.click('#erase [data-command]');
await page.waitForFunction(() => document.querySelector('.command').textContent.length > 0);
hold((await page.textContent('#erase .command')).startsWith('scumble erase church --method uce'), 'the command is not shown');
await page.click('button.main');
await done(1);
said('church is erased');
await look('erase-done');

await page.click('.job.done a:has-text("look")');
await page.waitForFunction(() => document.querySelectorAll('#grid img').length >= 10 && [...document.querySelectorAll('#grid img')].every((i) => i.complete && i.naturalWidth && !i.classList.contains('waiting')), null, { timeout: 120000 });
await look('look');
const images = () => page.$$eval('#grid .row:first-child img', (all) => all.map((i) => i.src));
const before = await images();
const slid = Date.now();
await page.$eval('[data-strength]', (range) => { range.value = '0.5'; range.dispatchEvent(new Event('input', { bubbles: true })); });
await page.waitForFunction((old) => { const i = document.querySelectorAll('#grid .row:first-child img')[1]; return i.src !== old && !i.classList.contains('waiting'); }, before[1], { timeout: 60000 });
said(`a strength of 0.5 is drawn after ${Date.now() - slid} ms`);
hold((await page.textContent('.strength output')) === '0.50', 'the strength is not said');
await page.fill('#look-prompt', 'a church on a blue background');
await page.press('#look-prompt', 'Enter');
await page.waitForFunction(() => document.querySelectorAll('#grid .row')[0].dataset.prompt === 'a church on a blue background');
await page.waitForFunction(() => !document.querySelector('#grid .waiting'));
await page.click('#grid .row:first-child figure:nth-child(2) button');
await page.waitForSelector('dialog[open] img');
await shot('large');
await page.keyboard.press('Escape');

await page.goto(own() + '/attack');
await page.fill('#a-n', '4');
await page.click('button.main');
await page.waitForSelector('.job.running, .job.waiting, .job.done');
await done(2);
await page.reload();
hold((await page.textContent('.cards')).includes('under attack'), 'the attack shows no rate');
said('attacked');
await look('attack');

// A second edit, and the studio is killed while it is made.
await page.goto(own() + '/erase?concept=church&method=esd');
await page.fill('#concept', 'church');
await page.click('button.main');
await page.waitForSelector('.job.running');
await page.waitForTimeout(2500);
// Its pages hear nothing until another one is there; what they say then is no fault.
page.removeAllListeners('console');
server.kill('SIGKILL');
await new Promise((resolve) => server.once('close', resolve));
({ process: server, url } = await studio());
server.removeAllListeners('exit');
await page.goto(url);
await page.waitForURL('**/erase');
page.on('console', noted);
await done(3);
said('killed, started again, and the second edit is there');

await page.goto(own() + '/compare');
await look('compare');
for (const box of await page.$$('input[name=edits]')) await box.check();
await page.click('[data-grid]');
await page.waitForFunction(() => document.querySelectorAll('#grid img').length >= 9, null, { timeout: 60000 });
await page.goto(own() + '/library');
await look('library');
await page.click('.entry:has-text("uce") summary');
await page.check('.entry:has-text("uce") input[value=lora]');
await page.click('.entry:has-text("uce") button.main');
await done(4);
const files = fs.readdirSync(runs, { recursive: true }).filter((name) => name.endsWith('-lora.safetensors'));
hold(files.length === 1, `an exported LoRA is expected, there are ${files}`);
said('exported');
await page.goto(own() + '/models');
await look('models');
await page.fill('#path', '/no/such/model');
await page.click('button.main');
await page.waitForSelector('#model .problem:not([hidden])').catch(() => hold(false, 'a wrong path is not answered'));

// Two hundred edits open at once.
const one = fs.readdirSync(runs).find((name) => name.startsWith('uce-'));
for (let i = 0; i < 200; i += 1) fs.cpSync(path.join(runs, one), path.join(runs, `copy-${String(i).padStart(3, '0')}`), { recursive: true });
await page.goto(own() + '/library');
const again = Date.now();
await context.request.get(own() + '/library');
said(`a library of 200 edits is served in ${Date.now() - again} ms`);
hold(Date.now() - again < 300, 'a library of 200 edits takes more than 300 ms');

await browser.close();
server.kill('SIGTERM');
await new Promise((resolve) => server.once('close', resolve));
fs.rmSync(runs, { recursive: true });
said(problems.length ? `${problems.length} problems` : 'everything is as it should be');
process.exit(problems.length ? 1 : 0);
