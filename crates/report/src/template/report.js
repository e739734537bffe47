"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  const stored = {
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* a page from a file may have no storage */ } },
  };

  // Light and dark: the system's choice until the reader makes one.
  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  const chosen = stored.get("scumble-theme");
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; stored.set("scumble-theme", root.dataset.theme); label(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();

  // Tabs: a concept chosen in one section is chosen in all.
  const groups = [];
  const choose = (tab) => {
    for (const { buttons, panels } of groups) {
      if (!panels.some((panel) => panel.dataset.tab === tab)) continue;
      panels.forEach((panel, i) => {
        const on = panel.dataset.tab === tab;
        panel.hidden = !on;
        buttons[i].setAttribute("aria-selected", String(on));
        buttons[i].tabIndex = on ? 0 : -1;
      });
    }
  };
  for (const box of all(".tabs")) {
    const panels = all(":scope > .panel", box);
    if (panels.length < 2) continue;
    const list = document.createElement("div");
    list.className = "tablist";
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", "Concepts");
    const buttons = panels.map((panel) => {
      const button = document.createElement("button");
      button.type = "button";
      button.id = `tab-${panel.id}`;
      button.textContent = panel.dataset.name;
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", button.id);
      button.addEventListener("click", () => {
        // Other sections may become shorter or longer above this one; it stays where it is on the screen.
        const before = button.getBoundingClientRect().top;
        choose(panel.dataset.tab);
        window.scrollBy({ top: button.getBoundingClientRect().top - before, behavior: "instant" });
      });
      list.append(button);
      return button;
    });
    list.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = buttons[(to + buttons.length) % buttons.length];
      next.focus();
      next.click();
    });
    box.prepend(list);
    box.classList.add("tabbed");
    groups.push({ buttons, panels });
  }
  if (groups.length) choose(groups[0].panels[0].dataset.tab);

  // Tables: by a column, numbers first downwards; what is pinned stays on top, what has no number goes last.
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const name = head.querySelector(".head");
      if (!name) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name.textContent;
      name.replaceWith(button);
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("num");
        const now = head.getAttribute("aria-sort");
        const up = now ? now === "descending" : !numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row, place) => {
          const cell = row.cells[column];
          const given = cell.dataset.sort;
          const key = numeric ? (given === undefined ? null : Number(given)) : cell.textContent.trim().toLowerCase();
          return { row, place, key, pinned: "pinned" in row.dataset };
        });
        keyed.sort((a, b) => {
          if (a.pinned !== b.pinned) return a.pinned ? -1 : 1;
          if ((a.key === null) !== (b.key === null)) return a.key === null ? 1 : -1;
          const order = a.key === b.key ? 0 : a.key < b.key ? -1 : 1;
          return (up ? order : -order) || a.place - b.place;
        });
        body.append(...keyed.map(({ row }) => row));
      });
    });
  }

  // Every number: rows with all the words.
  const filter = document.getElementById("filter");
  if (filter) {
    const rows = [...document.getElementById("all-numbers").tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const count = document.getElementById("filter-count");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = `${shown} of ${rows.length} rows`;
    });
  }

  // Legends: point at a name to see it alone, press it to keep it so.
  for (const legend of all(".legend")) {
    const box = legend.parentElement;
    const show = (style) => {
      box.classList.toggle("dim", style !== null);
      all(".point", box).forEach((point) => point.classList.toggle("on", point.classList.contains(`u${style}`)));
    };
    const kept = () => legend.querySelector("[aria-pressed=true]")?.dataset.style ?? null;
    all("button", legend).forEach((button) => {
      button.addEventListener("pointerenter", () => show(button.dataset.style));
      button.addEventListener("pointerleave", () => show(kept()));
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        all("button", legend).forEach((other) => other.setAttribute("aria-pressed", String(on && other === button)));
        show(kept());
      });
    });
  }

  // Matrices: what a square says is written below, for fingers and keys as well as for pointers.
  for (const box of all(".matrix-box")) {
    const svg = box.querySelector("svg");
    const readout = box.querySelector(".readout");
    let at = null;
    const say = (cell) => {
      if (!cell || cell === at) return;
      at?.classList.remove("at");
      at = cell;
      at.classList.add("at");
      readout.textContent = cell.querySelector("title").textContent;
    };
    const under = (event) => say(event.target.closest?.("rect")?.querySelector("title") ? event.target.closest("rect") : null);
    svg.addEventListener("pointerover", under);
    svg.addEventListener("click", under);
    const scroll = box.querySelector(".scroll");
    scroll.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const cells = all("rect", svg).filter((cell) => cell.querySelector("title"));
      if (!at) { say(cells[0]); return; }
      const place = (cell) => [cell.x.baseVal.value, cell.y.baseVal.value];
      const [x, y] = place(at);
      let best = null, least = Infinity;
      for (const cell of cells) {
        const [dx, dy] = [place(cell)[0] - x, place(cell)[1] - y];
        const along = dx * step[0] + dy * step[1];
        const across = Math.abs(dx * step[1]) + Math.abs(dy * step[0]);
        if (along > 1 && along + 3 * across < least) { best = cell; least = along + 3 * across; }
      }
      say(best);
      at.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  // Pictures: the base in place of an edit while the pointer rests; a slider between the two when pressed; arrow keys between them.
  const shots = all(".shot");
  const baseOf = (shot) => {
    const first = shot.closest("tr").querySelector("td .shot");
    return first && first !== shot && shot.closest("tr").cells[1].contains(first) ? first : null;
  };
  const names = (shot) => {
    const head = shot.closest("table").tHead.rows[0].cells[shot.closest("td").cellIndex];
    return head.childNodes.length ? [...head.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent).join("").trim() : "";
  };
  const swap = (shot, on) => {
    const image = shot.querySelector("img");
    if (on === shot.classList.contains("swapped")) return;
    const base = baseOf(shot);
    if (on && !base) return;
    if (on) {
      if (!shot.querySelector(".base-tag")) {
        const tag = document.createElement("span");
        tag.className = "base-tag";
        tag.textContent = names(base);
        tag.setAttribute("aria-hidden", "true");
        shot.append(tag);
      }
      shot.dataset.own = image.src;
      image.src = base.querySelector("img").src;
    } else {
      image.src = shot.dataset.own;
    }
    shot.classList.toggle("swapped", on);
  };
  const dialog = document.getElementById("compare");
  const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
  const slider = dialog.querySelector(".slide");
  const over = part("base"), edge = dialog.querySelector(".edge");
  const slide = () => {
    over.style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    edge.style.left = `${slider.value}%`;
  };
  let open = null;
  const compare = (shot) => {
    shots.forEach((other) => swap(other, false));
    open = shot;
    const base = baseOf(shot);
    const picture = shot.querySelector("img");
    const set = (name, from) => {
      const image = part(name);
      image.src = from.src;
      image.alt = from.alt;
      image.classList.toggle("small", from.classList.contains("small"));
    };
    set("edit", picture);
    if (base) set("base", base.querySelector("img"));
    [over, edge, slider].forEach((element) => { element.hidden = !base; });
    over.style.visibility = edge.style.visibility = base ? "visible" : "hidden";
    dialog.querySelector(".stage").classList.toggle("blur", shot.classList.contains("blur"));
    part("prompt").textContent = picture.alt;
    part("left").textContent = base ? `← ${names(base)}` : "";
    part("right").textContent = `${names(shot)}${base ? " →" : ""}`;
    const seen = (of) => of.parentElement.querySelector(".seen bdi")?.textContent || "nothing noted";
    part("seen").textContent = base ? `Judges saw: ${seen(base)} (${names(base)}); ${seen(shot)} (${names(shot)}).` : `Judges saw: ${seen(shot)}.`;
    slide();
    if (!dialog.open) dialog.showModal();
  };
  const move = (shot, dx, dy) => {
    const td = shot.closest("td"), tr = td.parentElement;
    const rows = [...tr.parentElement.rows];
    let x = td.cellIndex, y = rows.indexOf(tr);
    for (;;) {
      x += dx;
      y += dy;
      const cell = rows[y]?.cells[x];
      if (!cell || x < 1) return null;
      const found = cell.querySelector(".shot");
      if (found) return found;
    }
  };
  for (const shot of shots) {
    shot.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") swap(shot, true); });
    shot.addEventListener("pointerleave", () => swap(shot, false));
    shot.addEventListener("click", () => compare(shot));
    shot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      const next = step && move(shot, ...step);
      if (!next) return;
      event.preventDefault();
      shot.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  // One stop of the tab key for each table; arrow keys do the rest.
  for (const table of all("table.pictures")) all(".shot", table).forEach((shot, i) => { shot.tabIndex = i ? -1 : 0; });
  slider.addEventListener("input", slide);
  const step = (by) => { const next = open && (move(open, by, 0)); if (next) compare(next); };
  dialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action === "close" || event.target === dialog) dialog.close();
    if (action === "previous") step(-1);
    if (action === "next") step(1);
  });
  dialog.addEventListener("close", () => { open?.focus(); open = null; });

  // The section that is being read.
  const links = all(".bar a");
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => {
        if (link.hash === `#${entry.target.id}`) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  all("main > section").forEach((section) => watch.observe(section));

  // A link into something closed opens it; paper has everything open.
  const unfold = () => { const target = document.getElementById(location.hash.slice(1)); if (target?.matches("details")) target.open = true; };
  addEventListener("hashchange", unfold);
  unfold();
  let closed = [];
  addEventListener("beforeprint", () => { closed = all("details:not([open])"); closed.forEach((box) => { box.open = true; }); });
  addEventListener("afterprint", () => { closed.forEach((box) => { box.open = false; }); });
})();
