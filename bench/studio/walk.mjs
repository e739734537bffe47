// A newcomer's walk through the studio in Chromium, from an empty folder to an erased church, seen, attacked, compared, rated, exported, with
// everything that README.md of this folder names. Exit status 1 if anything is not as it should be.
//
//     npm ci --prefix bench/studio
//     node bench/studio/walk.mjs [--scumble target/release/scumble] [--chromium /usr/bin/chromium] [--shots FOLDER] [--patience 1] [--slack 1]
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Walk, options } from './browser.mjs';

const { values: args } = parseArgs({ options });
const walk = new Walk(args);
const page = await walk.open();

// ---- a newcomer, by the clock: a word, a click, a look, a file to take home, while the judges are still looking --------
const arrived = Date.now();
await page.fill('#concept', 'church');
await page.click('button.main');
await page.waitForSelector('.job.running a:has-text("look")');
await walk.look('erase-made');
await page.click('.job a:has-text("look")');
await walk.drawn(10);
await page.goBack();
await page.click('.job a:has-text("export")');
await page.click('.entry:target button.main');
await walk.done(1);
const lora = await walk.download(() => page.click('.job.done a:has-text("download")'));
walk.quick(arrived, 120000, 'a newcomer has erased church, seen it and holds a LoRA');
await walk.go('/erase');
await walk.done(1);
walk.say('and the judges have looked at it');
walk.hold(lora.name.endsWith('-lora.safetensors') && lora.bytes.length > 1000, `the download is ${lora.name}, ${lora.bytes.length} bytes`);

// ---- erase: a slip, the command, the estimate, a training that is watched --------------------------------------------
await page.fill('#concept', 'chruch');
await page.selectOption('#method', 'esd');
await page.waitForFunction(() => document.querySelector('#chosen').textContent.includes('ICCV'));
await page.click('button.main');
await page.waitForSelector('.job.failed .problem');
walk.hold((await page.textContent('.job.failed .problem')).includes('did you mean'), 'a slip is not answered with what was meant');
await page.click('.chip[data-concept="church"]');
await page.waitForFunction(() => document.querySelector('.estimate').textContent.includes('of memory'));
await page.click('#erase [data-command]');
await page.waitForFunction(() => document.querySelector('.command').textContent.length > 0);
walk.hold((await page.textContent('#erase .command')).startsWith('scumble erase church --method esd'), 'the command is not shown');
await page.click('#erase [data-estimate]');
await page.waitForFunction(() => document.querySelector('.estimate').textContent.includes('of memory'));
await page.click('#erase summary:has-text("Who judges")');
await walk.look('erase-filled');
await page.click('button.main');
await page.waitForSelector('.job.running .halfway img', { timeout: 240000 * walk.patience });
await walk.shot('erase-running');
await walk.done(2);
walk.say('church is erased with ESD as well');
await walk.go('/erase');
await walk.look('erase-done');

// ---- look: strength, edits together, guards, the model's own in the place of a picture --------------------------------
await page.click('.job.done:has-text("uce") a:has-text("look")');
await walk.drawn(10);
await walk.look('look');
const first = '#grid .row:first-child img';
for (const strength of ['0.5', '1.5']) {
  const [, before] = await page.$$eval(first, (all) => all.map((i) => i.src));
  const slid = Date.now();
  await page.$eval('li:has(:checked) [data-strength]', (range, value) => { range.value = value; range.dispatchEvent(new Event('input', { bubbles: true })); }, strength);
  await page.waitForFunction((old) => { const i = document.querySelectorAll('#grid .row:first-child img')[1]; return i.src !== old && !i.classList.contains('waiting'); }, before);
  walk.quick(slid, 1000, `a picture at strength ${strength} is drawn`);
}
walk.hold((await page.textContent('li:has(:checked) .strength output')) === '1.50', 'the strength is not said');
const columns = () => page.$$eval('#grid .row:first-child figcaption', (all) => all.map((one) => one.textContent));
await page.check('.edits li:has-text("esd") input[type=checkbox]');
await page.waitForFunction(() => document.querySelector('#grid .row').textContent.includes('all of them'));
await page.click('summary:has-text("How it is drawn")');
await page.selectOption('#look-guard', 'sld-strong');
await page.fill('#look-guard-text', 'church');
await page.dispatchEvent('#look-guard-text', 'change');
await page.waitForFunction(() => document.querySelector('#grid .row').textContent.includes('under sld-strong'));
walk.hold((await columns()).length === 5, `five pictures are expected, there are ${await columns()}`);
await walk.drawn(30);
walk.hold(new Set(await walk.seen(first)).size >= 4, 'model, edits, their sum and the guard draw the same');
await walk.look('look-stacked');
await page.selectOption('#look-guard', '');
await page.uncheck('.edits li:has-text("esd") input[type=checkbox]');
await page.waitForFunction(() => document.querySelectorAll('#grid .row:first-child img').length === 2);
await page.fill('#look-prompt', 'a church on a blue background');
await page.press('#look-prompt', 'Enter');
await page.waitForFunction(() => document.querySelector('#grid .row').dataset.prompt === 'a church on a blue background');
await walk.drawn(12);
const [own, edited] = await walk.seen(first);
walk.hold(own !== edited, 'the edit draws what the model draws');
const box = await (await page.$('#grid .row:first-child figure:nth-child(2) img')).boundingBox();
await page.mouse.move(box.x + 20, box.y + 20);
await page.mouse.down();
await page.waitForTimeout(600);
walk.hold((await walk.seen(first))[1] === own, 'a picture that is held does not show the model\'s own');
await page.mouse.up();
await page.waitForTimeout(200);
walk.hold((await walk.seen(first))[1] === edited, 'a picture that is let go stays the model\'s own');
await page.click('#grid .row:first-child figure:nth-child(2) button');
await page.waitForSelector('dialog[open] img');
await walk.shot('look-large', false);
await page.focus('[data-flip]');
await page.keyboard.down(' ');
walk.hold((await walk.seen('dialog img'))[0] === own, 'the space bar does not flip the large picture');
await page.keyboard.up(' ');
await page.keyboard.press('Escape');

// ---- attack: by chance, and what it found once more, under another seed of the same hand ------------------------------
await walk.go('/attack');
await walk.look('attack-empty');
await page.fill('#a-n', '4');
await page.click('button.main');
await page.waitForSelector('.job.running, .job.waiting, .job.done:has-text("Attack")');
await walk.done(1);
await page.click('.job.done a:has-text("what it found")');
await page.waitForSelector('.cards .card:target, .cards .card');
walk.hold((await page.textContent('.cards')).includes('under attack'), 'the attack shows no rate');
await page.click('#attack summary:has-text("Who judges")');
await walk.look('attack');
const found = fs.readdirSync(walk.runs).find((name) => name.startsWith('attack-'));
await page.click('#attack summary:has-text("More")');
await page.fill('#a-transfer', found);
await page.fill('#a-n', '4');
await page.selectOption('#a-edit', { index: 2 });
await page.click('button.main');
await walk.done(2);
await page.waitForFunction(() => document.querySelectorAll('.cards.wide .card').length === 2);
// Chance may have found nothing: then its first case is made one that was found.
const record = path.join(walk.runs, found, 'run.json');
const told = JSON.parse(fs.readFileSync(record, 'utf8'));
Object.assign(told.lines[0], { found: 'a tall church', found_seed: 7, pre: false, post: true });
fs.writeFileSync(record, JSON.stringify(told));
await page.reload();
await page.click(`[id="${found}"] summary:has-text("found prompts")`);
const tried = await page.$(`[id="${found}"] .found a`);
const prompt = await tried.textContent();
await tried.click();
await page.waitForFunction((prompt) => document.querySelector('#grid .row')?.dataset.prompt === prompt, prompt);
const ticked = await page.$$eval('#look input[name=edit]:checked', (all) => all.map((one) => one.value));
walk.hold(ticked.length === 1 && told.result.edit.includes(ticked[0]), `the found prompt opens on ${ticked}, and was found against ${told.result.edit}`);
walk.say('attacked, and tried elsewhere; a found prompt is drawn with the edit that it was found against');

// ---- a third edit, and the studio is killed while it is made ----------------------------------------------------------
await walk.go('/erase?concept=dog&method=esd');
await page.click('button.main');
await page.waitForSelector('.job.running');
await page.waitForTimeout(2500);
walk.away = true;
await walk.end('SIGKILL');
await walk.start();
await walk.enter();
walk.away = false;
await walk.done(3);
walk.say('killed, started again, and the third edit is there');

// ---- compare: a grid, a report, two people's ratings ------------------------------------------------------------------
await walk.go('/compare');
await page.click('#compare summary:has-text("Who judges")');
await walk.look('compare');
for (const one of await page.$$('tr:has-text("church") input[name=edits]')) await one.check();
await page.click('[data-grid]');
await walk.drawn(15);
await walk.shot('compare-grid');
const comparing = Date.now();
await page.fill('#c-sets', 'target');
await page.click('#compare button.main');
await walk.done(1, 10);
walk.quick(comparing, 600000, 'two edits are compared');
const [report] = await Promise.all([walk.context.waitForEvent('page'), page.click('.cards a:has-text("report")')]);
await report.waitForLoadState();
walk.hold((await report.textContent('body')).includes('church'), 'the report does not speak of church');
await report.close();
// Ada rates here, leaves and comes back; Ben has the page that was sent to him, and his file is added.
await page.click('.cards a:has-text("rate blindly")');
await walk.look('rate');
const frame = page.frameLocator('#sheet');
await frame.locator('#rater').fill('Ada');
await frame.locator('#item button').first().focus();
const shown = await frame.locator('.items li').count();
for (let i = 0; i < shown; i += 1) {
  if (i === 2) {
    await page.reload();
    await page.waitForFunction(() => document.querySelector('#sheet').src !== '');
    await frame.locator('#where:has-text("Picture 3")').waitFor();
    walk.hold((await frame.locator('#rater').inputValue()) === 'Ada', 'who rates is forgotten after a reload');
    await frame.locator('#item button').first().focus();
  }
  await page.keyboard.press(String(1 + i % 5));
}
await frame.locator('#save').click();
await page.waitForFunction(() => document.querySelector('#rated').textContent.includes('Ada'));
await walk.go('/compare');
for (const rater of ['Ben']) {
  const [sheet] = await Promise.all([walk.context.waitForEvent('page'), page.click('.cards a:has-text("the page to send")')]);
  await sheet.waitForSelector('#rater');
  await sheet.fill('#rater', rater);
  await sheet.focus('#item button');
  const pictures = await sheet.$$eval('.items li', (all) => all.length);
  for (let i = 0; i < pictures; i += 1) await sheet.keyboard.press(String(1 + i % 5));
  const saving = sheet.waitForEvent('download');
  await sheet.click('#save');
  const file = await (await saving).path();
  await page.setInputFiles('[data-ratings]', { name: `${rater}.json`, mimeType: 'application/json', buffer: fs.readFileSync(file) });
  await page.waitForFunction(() => document.querySelector('#said').textContent.includes('with 2 rater'));
  await sheet.close();
}
await page.reload();
walk.hold((await page.textContent('.cards')).includes('2 raters'), 'two raters are expected');
walk.hold((await page.textContent('.cards .rates')).includes('mean rating'), 'their means are not shown');
walk.say('reported, and rated by two');
await walk.look('compare-done');

// ---- library: out in another form, somebody else's file in, away and back ---------------------------------------------
await walk.go('/library');
await page.click('.entry[id^="uce-"] summary:has-text("where it comes from")');
walk.hold((await page.textContent('.entry[id^="uce-"] pre')).startsWith('scumble erase church'), 'the library does not say how to make it again');
await page.click('.entry[id^="uce-"] summary:has-text("export")');
await walk.look('library');
await page.check('.entry[id^="uce-"] input[value=diffusers]');
await page.click('.entry[id^="uce-"] .export button.main');
await walk.done(2);
walk.hold((await page.textContent('.job.done')).includes(walk.runs), 'it is not said where the folder is');
const friend = path.join(walk.home, 'from-a-friend.safetensors');
fs.writeFileSync(friend, lora.bytes);
await page.fill('#file-in', friend);
await page.click('#take-in button');
await page.waitForSelector('.entry[id="from-a-friend.safetensors"]');
await page.fill('#filter', 'friend');
walk.hold((await page.$$('.entry:visible')).length === 1, 'the filter does not find the file');
await page.click('.entry:visible a:has-text("look")');
await walk.drawn(6);
await walk.go('/library');
await page.click('.entry[id^="esd-dog-"] [data-throw]');
await page.waitForSelector('.entry:has-text("is thrown away") [data-back]');
await walk.shot('library-undo', false);
await page.reload();
walk.hold((await page.textContent('.thrown')).includes('esd-dog'), 'what was thrown away is not listed');
await page.click('.thrown [data-back]');
await page.waitForSelector('.entry[id^="esd-dog-"] [data-throw]');
walk.say('exported, looked at again, thrown away and brought back');

// ---- models: one of the local Hugging Face cache, and a path that leads nowhere ---------------------------------------
const written = fs.readdirSync(walk.runs, { recursive: true }).find((name) => name.endsWith('model_index.json'));
const snapshot = path.join(walk.home, 'hub/models--somebody--little-emoji/snapshots/0123456789abcdef0123456789abcdef01234567');
fs.cpSync(path.join(walk.runs, path.dirname(written)), snapshot, { recursive: true });
fs.mkdirSync(path.join(snapshot, '../../refs'));
fs.writeFileSync(path.join(snapshot, '../../refs/main'), path.basename(snapshot));
await walk.go('/models');
await walk.look('models');
await page.fill('#path', '/no/such/model');
await page.click('#model button.main');
await page.waitForSelector('#model .problem:not([hidden])');
await page.click('.choice:has-text("somebody/little-emoji")');
await page.waitForURL('**/erase');
walk.hold((await page.textContent('header .about')).includes('little-emoji'), 'the model of the cache is not the one that is worked on');
await walk.go('/models');
await page.click('.choice[data-model=""]');
await page.waitForURL('**/erase');

// ---- a thousand requests at once, every other one without the key -----------------------------------------------------
const key = (await walk.context.cookies()).map((one) => `${one.name}=${one.value}`).join('; ');
const knock = (i) => new Promise((resolve) => {
  const request = http.get(`${walk.own}/library`, { agent: false, headers: i % 2 ? { cookie: key } : {} }, (answer) => { answer.resume(); resolve(answer.statusCode); });
  request.once('error', (error) => resolve(error.code));
});
const answers = await Promise.all(Array.from({ length: 1000 }, (_, i) => knock(i)));
const wrong = answers.filter((answer, i) => answer !== (i % 2 ? 200 : 403));
walk.hold(!wrong.length, `of a thousand requests ${wrong.length} are answered with ${[...new Set(wrong)]}`);
walk.say('a thousand requests are answered, every other one refused');

// ---- two hundred edits and ten thousand pictures open at once, in a studio that has just been started -----------------
const one = fs.readdirSync(walk.runs).find((name) => name.startsWith('uce-'));
fs.rmSync(path.join(walk.runs, path.dirname(written)), { recursive: true });
const png = fs.readFileSync(path.join(walk.runs, one, 'before-after.png')).subarray(0, 4096);
for (let i = 0; i < 200; i += 1) {
  const copy = path.join(walk.runs, `copy-${String(i).padStart(3, '0')}`);
  fs.cpSync(path.join(walk.runs, one), copy, { recursive: true });
  fs.mkdirSync(path.join(copy, 'pictures'));
  for (let k = 0; k < 50; k += 1) fs.writeFileSync(path.join(copy, 'pictures', `${k}.png`), png);
}
walk.away = true;
await walk.end('SIGTERM');
await walk.start();
const first200 = Date.now();
walk.hold((await walk.context.request.get(walk.url)).ok(), 'the first page is not served');
walk.quick(first200, 300, 'the first page of a studio that has just been started on 200 edits and 10,000 pictures is served');
await walk.enter();
walk.away = false;
for (const place of ['erase', 'library', 'look', 'compare', 'attack']) {
  const asked = performance.now();
  const answer = await walk.context.request.get(`${walk.own}/${place}`);
  walk.hold(answer.ok(), `${place} is not served`);
  const took = performance.now() - asked;
  walk.quick(Date.now() - took, 300, `${place} of 200 edits and 10,000 pictures is served`);
}
await walk.close();
