// A studio and a browser that looks at it: what walk.mjs and full.mjs share. What is not as it should be is said at once and counted.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Options that both walks take. `patience` is how many times longer than on the machine at hand everything may take before the walk gives up,
 * `slack` how many times longer what is promised may take. */
export const options = {
  scumble: { type: 'string', default: 'target/release/scumble' }, chromium: { type: 'string', default: '/usr/bin/chromium' },
  shots: { type: 'string' }, patience: { type: 'string', default: '1' }, slack: { type: 'string', default: '1' },
};

export class Walk {
  constructor(args) {
    this.args = args;
    this.patience = Number(args.patience);
    this.slack = Number(args.slack);
    this.home = fs.mkdtempSync(path.join(os.tmpdir(), 'studio-walk-'));
    this.runs = path.join(this.home, 'runs');
    this.problems = 0;
    this.taken = 0;
    this.began = Date.now();
    process.on('exit', () => { this.server?.kill('SIGKILL'); fs.rmSync(this.home, { recursive: true, force: true }); });
  }

  say(text) { console.log(`${((Date.now() - this.began) / 1000).toFixed(1).padStart(6)} s  ${text}`); }

  hold(fine, what) { if (!fine) { this.problems += 1; this.say(`NOT SO: ${what}`); } }

  /** Milliseconds that something took, held against what it may take. */
  quick(since, most, what) {
    const took = Math.round(Date.now() - since);
    this.say(`${what} after ${took} ms`);
    this.hold(took < most * this.slack, `${what} takes ${took} ms, and may take ${most * this.slack}`);
  }

  /** Starts a studio on the folder. */
  async start() {
    const env = { ...process.env, SCUMBLE_CACHE: path.join(this.home, 'cache'), HF_HUB_CACHE: path.join(this.home, 'hub') };
    this.server = spawn(this.args.scumble, ['studio', '--json', '--no-open', '--quiet', '--folder', this.runs], { stdio: ['ignore', 'pipe', 'inherit'], env });
    this.url = await new Promise((resolve, reject) => {
      this.server.once('error', reject);
      this.server.once('exit', (status) => reject(new Error(`the studio ended with ${status}`)));
      this.server.stdout.once('data', (line) => resolve(JSON.parse(line).url));
    });
    this.server.removeAllListeners('exit');
  }

  async end(signal) {
    const gone = new Promise((resolve) => this.server.once('close', resolve));
    this.server.kill(signal);
    await gone;
  }

  get own() { return new URL(this.url).origin; }

  /** A browser on the studio's first page. */
  async open() {
    await this.start();
    this.browser = await chromium.launch({ executablePath: this.args.chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 860 }, acceptDownloads: true });
    context.setDefaultTimeout(30000 * this.patience);
    context.on('request', (request) => {
      const to = request.url();
      this.hold(to.startsWith(this.own) || /^(data|blob):/.test(to), `a request to elsewhere: ${to}`);
    });
    context.on('weberror', (error) => this.hold(false, `a script fails: ${error.error().message}`));
    // A refusal is an answer, which the browser notes as well, and while the studio is away its pages hear nothing: neither is a fault.
    context.on('console', (message) => {
      if (message.type() === 'error' && !this.away && !message.text().includes('status of 422')) this.hold(false, `the console says: ${message.text()} (${message.page()?.url()})`);
    });
    this.context = context;
    this.page = await context.newPage();
    await this.enter();
    return this.page;
  }

  /** Comes in by the address that the studio printed. */
  async enter() {
    await this.page.goto(this.url);
    await this.page.waitForURL('**/erase');
    this.hold(!this.page.url().includes('token'), 'the key stays in the address');
  }

  go(place) { return this.page.goto(this.own + place); }

  async shot(name, fullPage = true) {
    if (!this.args.shots) return;
    fs.mkdirSync(this.args.shots, { recursive: true });
    this.taken += 1;
    if (fullPage) await this.page.evaluate(() => scrollTo(0, 0));
    await this.page.screenshot({ path: path.join(this.args.shots, `${String(this.taken).padStart(2, '0')}-${name}.png`), fullPage });
  }

  /** No violation that axe finds, and nothing wider than the page, at a desk and on a phone, in light and dark. */
  async look(name) {
    const { page } = this;
    for (const [where, viewport] of [['desk', { width: 1280, height: 860 }], ['phone', { width: 390, height: 844 }]]) {
      await page.setViewportSize(viewport);
      for (const scheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme });
        await page.waitForTimeout(100);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        this.hold(wide <= 0, `${name} is ${wide} px wider than a ${where}`);
        await page.evaluate(axe);
        const found = await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }));
        for (const one of found.violations) this.hold(false, `${name}, ${where}, ${scheme}: ${one.id}: ${one.nodes.length} times, such as ${one.nodes[0].html.slice(0, 120)}`);
        await this.shot(`${name}-${where}-${scheme}`);
      }
    }
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize({ width: 1280, height: 860 });
  }

  /** Waits until this many jobs are done; one that fails meanwhile ends the walk. */
  async done(n, minutes = 4) {
    const failed = await this.page.$$eval('.job.failed', (all) => all.length);
    const state = await this.page.waitForFunction(([n, failed]) => {
      const of = (state) => document.querySelectorAll(`.job.${state}`).length;
      return of('failed') > failed ? 'failed' : of('done') >= n && 'done';
    }, [n, failed], { timeout: 60000 * minutes * this.patience });
    if (await state.jsonValue() === 'failed') throw new Error(await this.page.textContent('.job.failed .problem'));
  }

  /** Waits until every picture of the grid, at least so many, is drawn. */
  async drawn(least, minutes = 2) {
    await this.page.waitForFunction((least) => {
      const all = [...document.querySelectorAll('#grid img')];
      return all.length >= least && all.every((i) => i.complete && i.naturalWidth && !i.classList.contains('waiting'));
    }, least, { timeout: 60000 * minutes * this.patience });
  }

  /** What pictures show, as data that can be compared. */
  seen(selector) {
    return this.page.$$eval(selector, (all) => all.map((image) => {
      const canvas = Object.assign(document.createElement('canvas'), { width: image.naturalWidth, height: image.naturalHeight });
      canvas.getContext('2d').drawImage(image, 0, 0);
      return canvas.toDataURL();
    }));
  }

  /** What a click lets the browser keep: the file's bytes. */
  async download(click) {
    const waiting = this.page.waitForEvent('download');
    await click();
    const file = await waiting;
    return { name: file.suggestedFilename(), bytes: fs.readFileSync(await file.path()) };
  }

  /** Ends everything; the exit status. */
  async close() {
    await this.browser.close();
    await this.end('SIGTERM');
    this.say(this.problems ? `${this.problems} problems` : 'everything is as it should be');
    process.exit(this.problems ? 1 : 0);
  }
}
