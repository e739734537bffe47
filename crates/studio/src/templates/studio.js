// The studio's pages: forms become jobs, events move bars, sliders redraw pictures. No library, nothing from elsewhere.
'use strict';

/** @param {string} selector @param {ParentNode} [within] @returns {HTMLElement|null} */
const one = (selector, within = document) => within.querySelector(selector);
/** @param {string} selector @param {ParentNode} [within] @returns {HTMLElement[]} */
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const model = document.body.dataset.model;

/** Says something at the foot of the page for a few seconds. */
let hush = 0;
function say(/** @type {string} */ text) {
  const said = one('#said');
  said.textContent = text;
  clearTimeout(hush);
  hush = setTimeout(() => { said.textContent = ''; }, 4000 + 40 * text.length);
}

/** Asks the studio for something; an error is in the words of the command line. */
async function ask(/** @type {string} */ address, /** @type {unknown} */ body) {
  let response;
  try {
    response = await fetch(address, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body ?? {}) });
  } catch {
    throw { error: 'the studio does not answer', hint: 'is `scumble studio` still running in its terminal?' };
  }
  if (response.ok) return response.json();
  const text = await response.text();
  try { throw JSON.parse(text); } catch (problem) { throw problem.error ? problem : { error: text || response.statusText }; }
}

/** Shows a problem where it happened. */
function problem(/** @type {HTMLElement} */ form, /** @type {{error: string, hint?: string}|null} */ what) {
  const place = one('.problem', form);
  if (!place) return what && say(what.error);
  place.hidden = !what;
  place.replaceChildren();
  if (!what) return;
  place.append(what.error);
  if (what.hint) {
    const hint = document.createElement('span');
    hint.className = 'hint';
    hint.textContent = what.hint;
    place.append(document.createElement('br'), hint);
  }
  place.scrollIntoView({ block: 'nearest' });
}

// ---- forms ----------------------------------------------------------------------------------------------------------

const numbers = ['n', 'budget', 'rank', 'seed', 'threshold'];

/** What a form asks for, as the studio reads it. */
function work(/** @type {HTMLFormElement} */ form) {
  const asked = { kind: form.dataset.work, model };
  const data = new FormData(form);
  for (const [name, value] of data) {
    if (name === 'edits') (asked.edits ??= []).push(value);
    else if (numbers.includes(name)) { if (value !== '') asked[name] = Number(value); }
    else asked[name] = value;
  }
  for (const box of form.querySelectorAll('input[type=checkbox][name]')) if (box.name !== 'edits') asked[box.name] = box.checked;
  const options = {};
  for (const input of form.querySelectorAll('[data-option]')) {
    const text = input.value.trim();
    if (text === '') continue;
    try { options[input.dataset.option] = JSON.parse(text); } catch { options[input.dataset.option] = text; }
  }
  if (asked.kind === 'erase') asked.options = options;
  return asked;
}

for (const form of all('form[data-work]')) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = one('button.main', form);
    button.disabled = true;
    problem(form, null);
    try {
      await ask(`/do/${form.dataset.work}`, work(form));
      await refresh();
      say('queued');
      if (innerWidth < 832 || form.className === 'export') one('#jobs')?.scrollIntoView({ behavior: 'smooth', block: 'center' });
    } catch (what) { problem(form, what); }
    button.disabled = false;
  });
  const button = one('[data-estimate]', form);
  let asked = 0;
  /** What it will take; whoever did not ask for it hears of no problem. */
  const estimate = async (/** @type {boolean} */ quiet) => {
    const place = one('.estimate', form);
    const now = asked += 1;
    button.disabled = true;
    if (!quiet) problem(form, null);
    place.hidden = false;
    place.textContent = 'trying one sample…';
    let text = '';
    try { text = (await ask('/part/estimate', work(form))).estimate; } catch (what) { if (!quiet) problem(form, what); }
    if (now !== asked) return;
    place.textContent = text;
    place.hidden = !text;
    button.disabled = false;
  };
  // An erasure that is filled in says unasked what it will take, unless somebody has asked.
  let soon = 0;
  button?.addEventListener('click', () => { clearTimeout(soon); estimate(false); });
  if (form.dataset.work === 'erase') form.addEventListener('change', () => {
    clearTimeout(soon);
    if (one('#concept', form).value.trim()) soon = setTimeout(() => { if (!button.disabled) estimate(true); }, 400);
  });
  one('[data-command]', form)?.addEventListener('click', async () => {
    const place = one('.command', form);
    try {
      place.textContent = (await ask('/part/command', work(form))).command;
      place.hidden = false;
    } catch (what) { problem(form, what); }
  });
}

/** What was thrown away leaves its place, where it can be brought back at once. */
function gone(/** @type {HTMLElement} */ entry, /** @type {string} */ name) {
  const undo = document.createElement('button');
  undo.type = 'button';
  undo.className = 'quiet';
  undo.dataset.back = name;
  undo.textContent = 'bring back';
  const text = document.createElement('p');
  text.append(`${name} is thrown away. `, undo);
  entry.replaceChildren(text);
  undo.focus();
  say('thrown away');
}

// The first click on a veiled picture shows it, the next one opens it.
document.addEventListener('click', (event) => {
  const veil = /** @type {HTMLElement} */ (event.target).closest('.veil');
  if (!veil) return;
  event.preventDefault();
  event.stopPropagation();
  veil.classList.remove('veil');
  veil.dataset.shown = '';
}, true);

document.addEventListener('click', async (event) => {
  const target = /** @type {HTMLElement} */ (event.target).closest('button');
  if (!target) return;
  const { concept, open, cancel, again, throw: thrown, back, model: chosen } = target.dataset;
  try {
    if (concept !== undefined) { one('#concept').value = concept; one('#concept').focus(); one('#concept').dispatchEvent(new Event('change', { bubbles: true })); }
    if (open) {
      const place = one('#' + open);
      place.hidden = !place.hidden;
      target.setAttribute('aria-expanded', String(!place.hidden));
    }
    if (cancel) { await ask(`/job/${cancel}/cancel`); say('it ends after this step'); await refresh(); }
    if (again) { await ask(`/job/${again}/again`); await refresh(); }
    if (thrown) { await ask(`/run/${encodeURIComponent(thrown)}/throw`); gone(target.closest('.entry'), thrown); }
    if (back) { await ask(`/run/${encodeURIComponent(back)}/back`); location.assign('/library#' + encodeURIComponent(back)); location.reload(); }
    if (chosen !== undefined) { one('#path').value = chosen; one('#model').requestSubmit(); }
  } catch (what) { say([what.error ?? String(what), what.hint].filter(Boolean).join('. ')); }
});

one('#model')?.addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  const button = one('button.main', form);
  button.disabled = true;
  button.textContent = 'Opening…';
  problem(form, null);
  try { await ask('/model', { model: one('#path').value }); location.assign('/erase'); } catch (what) { problem(form, what); }
  button.disabled = false;
  button.textContent = 'Open';
});
one('#take-in')?.addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  problem(form, null);
  try {
    const { name } = await ask('/file-in', { path: one('#file-in').value });
    location.assign('/library#' + encodeURIComponent(name));
    location.reload();
  } catch (what) { problem(form, what); }
});
for (const input of all('#path, #file-in')) input.addEventListener('drop', (event) => {
  const text = event.dataTransfer.getData('text/uri-list') || event.dataTransfer.getData('text/plain');
  if (!text) return;
  event.preventDefault();
  event.target.value = decodeURIComponent(text.split('\n')[0].replace(/^file:\/\//, '').trim());
});

/** Fetches a part of a page. */
async function part(/** @type {string} */ address, /** @type {HTMLElement} */ place) {
  const response = await fetch(address);
  if (response.ok) place.innerHTML = await response.text();
}
document.addEventListener('change', (event) => {
  const target = /** @type {HTMLSelectElement} */ (event.target);
  const chosen = one('#chosen');
  if (target.id === 'method') part(`/part/method?method=${encodeURIComponent(target.value)}`, chosen);
  if (target.id === 'variant') part(`/part/method?method=${encodeURIComponent(one('#method').value)}&variant=${target.value}`, chosen).then(() => { one('.options', chosen).open = true; });
  if (target.id === 'a-attack') part(`/part/attack?attack=${encodeURIComponent(target.value)}`, chosen);
});

document.addEventListener('change', async (event) => {
  const input = /** @type {HTMLInputElement} */ (event.target);
  if (input.dataset.ratings === undefined || !input.files.length) return;
  try {
    const file = JSON.parse(await input.files[0].text());
    const { raters } = await ask(`/run/${encodeURIComponent(input.dataset.ratings)}/ratings`, file);
    say(`the report is made anew, with ${raters} ${raters === 1 ? 'rater' : 'raters'}`);
  } catch (what) { say([what.error ?? 'this is no file of ratings', what.hint].filter(Boolean).join('. ')); }
  input.value = '';
});

// ---- rating: the page of a comparison in a frame that reaches nothing; what it says is kept here ------------------------

const sheet = /** @type {HTMLIFrameElement|null} */ (one('#sheet'));
if (sheet) {
  const run = sheet.dataset.run;
  const key = `rating ${run}`;
  addEventListener('message', async (event) => {
    if (event.source !== sheet.contentWindow || typeof event.data !== 'object' || event.data === null) return;
    const { scumble, state, file } = event.data;
    if (scumble === 'rating-page') sheet.contentWindow.postMessage({ scumble: 'rating-state', state: JSON.parse(localStorage.getItem(key) ?? 'null') }, '*');
    if (scumble === 'rating-kept') localStorage.setItem(key, JSON.stringify(state));
    if (scumble === 'rating-saved') {
      try {
        const { raters } = await ask(`/run/${encodeURIComponent(run)}/ratings`, file);
        one('#rated').textContent = `The ratings of ${file.rater} are counted; ${raters === 1 ? 'one person has' : `${raters} people have`} rated.`;
        one('#next').hidden = false;
      } catch (what) { one('#rated').textContent = [what.error, what.hint].filter(Boolean).join('. '); }
    }
  });
  one('#next').addEventListener('click', () => { localStorage.removeItem(key); location.reload(); });
  sheet.src = sheet.dataset.src;
}

// ---- jobs -----------------------------------------------------------------------------------------------------------

/** What a job that has just ended added to the page. */
async function fresh() {
  const places = all('[data-fresh]');
  if (!places.length) return;
  const response = await fetch(location.pathname);
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  for (const place of places) place.innerHTML = page.getElementById(place.id)?.innerHTML ?? place.innerHTML;
}

let refreshing = null;
/** The list of runs as it is now; what was open stays open. */
async function refresh() {
  const place = one('#jobs');
  if (!place) return;
  refreshing ??= (async () => {
    const open = new Set(all('details[open]', place).map((d) => d.closest('[data-job]')?.dataset.job + d.className));
    const before = all('.job.done', place).length;
    await part('/part/jobs?tab=' + document.body.dataset.page, place);
    if (all('.job.done', place).length > before) await fresh();
    for (const d of all('details', place)) if (open.has(d.closest('[data-job]')?.dataset.job + d.className)) d.open = true;
    refreshing = null;
  })();
  return refreshing;
}

/** Seconds for people. */
const time = (s) => s < 90 ? `${Math.ceil(s)} s left` : s < 5400 ? `${Math.round(s / 60)} min left` : `${(s / 3600).toFixed(1)} h left`;

function progress(/** @type {any} */ told) {
  const job = one(`[data-job="${told.id}"]`);
  if (!job || !one('progress', job)) return refresh();
  const bar = /** @type {HTMLProgressElement} */ (one('progress', job));
  bar.max = Math.max(1, told.total);
  bar.value = told.done;
  one('.stage', job).textContent = `${told.stage} ${told.total ? `${told.done}/${told.total}` : ''}`;
  one('.message', job).textContent = told.message;
  one('.left', job).textContent = told.left == null ? '' : time(told.left);
  one('.notes', job).textContent = told.notes.join('\n');
  const losses = told.losses.filter(Number.isFinite);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const at = (x, i) => `${(300 * i / Math.max(1, losses.length - 1)).toFixed(1)},${(45 - 42 * (high > low ? (x - low) / (high - low) : .5)).toFixed(1)}`;
  one('.loss polyline', job).setAttribute('points', losses.map(at).join(' '));
  const halfway = one('.halfway', job);
  for (const step of told.pictures) {
    if (one(`[data-step="${step}"]`, halfway)) continue;
    const picture = new Image();
    picture.src = `/live/${told.id}/${step}`;
    picture.alt = picture.title = job.dataset.kind === 'attack' ? `picture ${step}` : `after ${step} steps`;
    picture.dataset.step = String(step);
    halfway.append(picture);
  }
}

if (one('#jobs')) {
  const events = new EventSource('/events');
  events.onmessage = (event) => {
    const told = JSON.parse(event.data);
    if (told.kind === 'progress') progress(told); else refresh();
  };
  // After a pause, or a restart of the studio, some of it was missed.
  events.onopen = () => refresh();
}

// ---- looking --------------------------------------------------------------------------------------------------------

const grid = one('#grid');
const side = Number(grid?.dataset.side ?? 0);
/** Drawings that are still waited for, by their place. */
const pending = new Map();

/** The picture of a wish, into an image; an earlier wish for the same place is taken back. */
async function picture(/** @type {HTMLImageElement} */ image, /** @type {Record<string, string>} */ wish) {
  const address = '/draw?' + new URLSearchParams(wish);
  if (image.dataset.address === address) return;
  image.dataset.address = address;
  pending.get(image)?.abort();
  const control = new AbortController();
  pending.set(image, control);
  image.classList.add('waiting');
  try {
    const response = await fetch(address, { signal: control.signal });
    if (!response.ok) throw JSON.parse(await response.text());
    const old = image.src;
    image.src = URL.createObjectURL(await response.blob());
    if (old.startsWith('blob:')) setTimeout(() => URL.revokeObjectURL(old), 1000);
    image.classList.remove('waiting');
    problem(one('#look') ?? one('#compare'), null);
  } catch (what) {
    if (what.name === 'AbortError') return;
    delete image.dataset.address;
    problem(one('#look') ?? one('#compare'), what.error ? what : { error: 'the picture could not be drawn' });
  }
  if (pending.get(image) === control) pending.delete(image);
}

/** A row of pictures of one prompt: the base, then what `columns` say. */
function row(/** @type {{text: string, role: string}} */ prompt, /** @type {{name: string, edits: string}[]} */ columns, veiled = false) {
  let place = all('.row', grid).find((r) => r.dataset.prompt === prompt.text);
  if (!place) {
    place = document.createElement('div');
    place.className = 'row';
    place.dataset.prompt = prompt.text;
    const head = document.createElement('p');
    head.append(prompt.text);
    const role = document.createElement('span');
    role.className = 'role';
    role.textContent = prompt.role;
    head.append(role);
    const pictures = document.createElement('div');
    pictures.className = 'pictures';
    place.append(head, pictures);
    grid.append(place);
  }
  const pictures = one('.pictures', place);
  while (pictures.children.length > columns.length) pictures.lastChild.remove();
  return columns.map((column, i) => {
    let figure = pictures.children[i];
    if (!figure) {
      figure = document.createElement('figure');
      const button = document.createElement('button');
      button.type = 'button';
      button.append(document.createElement('img'));
      figure.append(button, document.createElement('figcaption'));
      pictures.append(figure);
    }
    const veil = one('button', figure);
    if (veiled && veil.dataset.shown === undefined) veil.classList.add('veil');
    const image = one('img', figure);
    image.alt = `${prompt.text}, ${column.name}`;
    image.classList.toggle('small', side < 128);
    one('figcaption', figure).textContent = column.name;
    return image;
  });
}

/** What the form on the left asks for. */
function wanted() {
  const form = one('#look');
  const value = (name) => one(`[name=${name}]`, form).value.trim();
  const chosen = all('input[name=edit]:checked', form).map((box) => ({
    name: box.value, title: one('span', box.parentElement).firstChild.textContent.trim(), strength: one(`[data-strength="${CSS.escape(box.value)}"]`, form).value,
  }));
  const base = { model, seed: value('seed') || '0', steps: value('steps') || '0', negative: value('negative') };
  if (value('guidance') !== '') base.guidance = value('guidance');
  const columns = [{ name: 'the model', edits: '', guards: '' }];
  for (const c of chosen) columns.push({ name: `${c.title} × ${Number(c.strength).toFixed(2)}`, edits: `${c.name}:${c.strength}`, guards: '' });
  if (chosen.length > 1) columns.push({ name: 'all of them', edits: chosen.map((c) => `${c.name}:${c.strength}`).join(';'), guards: '' });
  if (value('guard') && value('guardtext')) columns.push({ name: `under ${value('guard')}`, edits: chosen.map((c) => `${c.name}:${c.strength}`).join(';'), guards: `${value('guard')}=${value('guardtext')}` });
  return { base, columns, own: value('prompt') };
}

/** Whether pictures take so long that nothing is drawn before somebody asks. */
const heavy = side >= 128;

async function drawAll(asked = !heavy) {
  const note = one('#undrawn');
  if (!asked && note) return;
  note?.remove();
  const { base, columns, own } = wanted();
  const veiled = one('[data-sensitive]:checked', one('#look')) !== null;
  const prompts = JSON.parse(grid.dataset.prompts);
  const rows = own && !prompts.some((p) => p.text === own) ? [{ text: own, role: 'yours' }, ...prompts] : prompts;
  for (const stale of all('.row', grid)) if (!rows.some((p) => p.text === stale.dataset.prompt)) stale.remove();
  for (const prompt of rows) {
    const images = row(prompt, columns, veiled);
    if (prompt.role === 'yours') grid.prepend(images[0].closest('.row'));
    images.forEach((image, i) => picture(image, { ...base, prompt: prompt.text, edits: columns[i].edits, guards: columns[i].guards }));
  }
}

if (one('#look')) {
  const form = one('#look');
  one('[data-drawing]', form).addEventListener('click', async () => {
    const { base, columns, own } = wanted();
    const last = columns[columns.length - 1];
    const prompt = own || JSON.parse(grid.dataset.prompts)[0]?.text || '';
    const response = await fetch('/part/drawing?' + new URLSearchParams({ ...base, prompt, edits: last.edits, guards: last.guards }));
    const place = one('.command', form);
    place.textContent = response.ok ? (await response.json()).command : await response.text();
    place.hidden = false;
  });
  form.addEventListener('submit', (event) => { event.preventDefault(); drawAll(true); });
  form.addEventListener('input', (event) => {
    const target = /** @type {HTMLInputElement} */ (event.target);
    if (target.dataset.strength !== undefined) {
      one('output', target.parentElement).textContent = Number(target.value).toFixed(2);
      if (!heavy) drawAll();
    }
  });
  form.addEventListener('change', async (event) => {
    const target = /** @type {HTMLInputElement} */ (event.target);
    if (target.name === 'edit') {
      const first = one('input[name=edit]:checked', form);
      const response = await fetch('/part/prompts?edit=' + encodeURIComponent(first?.value ?? ''));
      if (response.ok) grid.dataset.prompts = await response.text();
    }
    if (target.type !== 'range' || heavy) drawAll();
  });
  const boxes = all('input[name=edit]:checked', form);
  if (boxes.length && !grid.dataset.asked) {
    fetch('/part/prompts?edit=' + encodeURIComponent(boxes[0].value)).then(async (response) => {
      if (response.ok) grid.dataset.prompts = await response.text();
      drawAll();
    });
  } else drawAll();
}

one('[data-grid]')?.addEventListener('click', async () => {
  const boxes = all('input[name=edits]:checked');
  const names = boxes.map((box) => box.value);
  if (!names.length) return problem(one('#compare'), { error: 'nothing to compare', hint: 'tick an edit or two' });
  const response = await fetch('/part/prompts?edit=' + encodeURIComponent(names[0]));
  const prompts = await response.json();
  const columns = [{ name: 'the model', edits: '' }, ...boxes.map((box) => ({ name: box.dataset.title, edits: `${box.value}:1` }))];
  grid.replaceChildren();
  const veiled = boxes.some((box) => box.dataset.sensitive !== undefined);
  for (const prompt of prompts) row(prompt, columns, veiled).forEach((image, i) => picture(image, { model, prompt: prompt.text, seed: '0', edits: columns[i].edits }));
  grid.scrollIntoView({ behavior: 'smooth' });
});

// Hold a picture: the model's own in its place. Click: large.
if (grid) {
  const base = (image) => one('img', image.closest('.pictures'));
  let held = null;
  const release = () => { if (held) { held.image.src = held.src; held = null; } };
  grid.addEventListener('pointerdown', (event) => {
    const image = one('img', event.target.closest('figure') ?? document.createElement('i'));
    if (!image || !image.src) return;
    const timer = setTimeout(() => { held = { image, src: image.src }; image.src = base(image).src; }, 350);
    const up = () => { clearTimeout(timer); removeEventListener('pointerup', up); removeEventListener('pointercancel', up); setTimeout(release); };
    addEventListener('pointerup', up);
    addEventListener('pointercancel', up);
  });
  const large = /** @type {HTMLDialogElement} */ (one('#large'));
  const shown = /** @type {HTMLImageElement} */ (one('img', large));
  let pair = ['', ''];
  grid.addEventListener('click', (event) => {
    if (held) return;
    const image = one('img', event.target.closest('figure') ?? document.createElement('i'));
    if (!image || !image.src) return;
    pair = [image.src, base(image).src];
    shown.src = pair[0];
    shown.alt = image.alt;
    shown.classList.toggle('small', side < 128);
    one('span', large).textContent = image.alt;
    large.showModal();
  });
  const flip = one('[data-flip]', large);
  for (const [down, up] of [['pointerdown', 'pointerup'], ['keydown', 'keyup']]) {
    flip.addEventListener(down, (event) => { if (event.key === undefined || event.key === ' ') shown.src = pair[1]; });
    flip.addEventListener(up, () => { shown.src = pair[0]; });
  }
  one('[data-close]', large).addEventListener('click', () => large.close());
}

// ---- the rest -------------------------------------------------------------------------------------------------------

one('#filter')?.addEventListener('input', (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const entry of all('.entry')) entry.hidden = !words.every((word) => entry.dataset.text.toLowerCase().includes(word));
});
// A link to an entry may name one whose export is wanted.
if (location.hash) one('#' + CSS.escape(decodeURIComponent(location.hash.slice(1))))?.querySelector('details.out')?.setAttribute('open', '');

const theme = localStorage.getItem('theme');
if (theme) document.documentElement.dataset.theme = theme;
one('#theme')?.addEventListener('click', () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes('dark');
  document.documentElement.dataset.theme = dark ? 'light' : 'dark';
  localStorage.setItem('theme', dark ? 'light' : 'dark');
});
