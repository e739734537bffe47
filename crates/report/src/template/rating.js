"use strict";
(() => {
  document.documentElement.classList.add("js");
  const main = document.getElementById("item");
  const items = [...document.querySelectorAll(".items li")];
  const buttons = [...document.querySelectorAll("[data-rating]")];
  const rater = document.getElementById("rater");
  const by = (id) => document.getElementById(id);
  const key = `scumble-ratings-${main.dataset.study}`;
  let state = { rater: "", at: 0, ratings: {} };
  try {
    const kept = JSON.parse(localStorage.getItem(key));
    if (kept && typeof kept.ratings === "object") state = { rater: String(kept.rater ?? ""), at: Number(kept.at) || 0, ratings: kept.ratings };
  } catch { /* no storage, or nothing of ours in it: begin anew */ }
  // In the studio's frame there is no storage: what was rated is kept there.
  const framed = parent !== window;
  const tell = (what) => { if (framed) parent.postMessage(what, "*"); };
  const keep = () => { tell({ scumble: "rating-kept", state }); if (framed) return; try { localStorage.setItem(key, JSON.stringify(state)); } catch { by("said").textContent = "This browser keeps nothing: save before you leave."; } };
  const rated = () => items.filter((item) => state.ratings[item.dataset.id]).length;
  const show = () => {
    state.at = Math.min(Math.max(state.at, 0), items.length - 1);
    items.forEach((item, i) => { item.hidden = i !== state.at; });
    const rating = state.ratings[items[state.at].dataset.id];
    buttons.forEach((button) => {
      const on = Number(button.dataset.rating) === rating;
      button.setAttribute("aria-checked", String(on));
    });
    by("where").textContent = `Picture ${state.at + 1} of ${items.length}`;
    by("done").value = rated();
    by("back").disabled = state.at === 0;
    by("skip").disabled = state.at === items.length - 1;
    keep();
  };
  const rate = (value) => {
    state.ratings[items[state.at].dataset.id] = value;
    const whole = rated() === items.length;
    by("said").textContent = whole ? "All pictures are rated. Save your ratings, and send the file back." : "";
    if (state.at < items.length - 1) state.at += 1;
    show();
  };
  const go = (by) => { state.at += by; show(); };
  const save = () => {
    if (!rater.value.trim()) { by("said").textContent = "Please fill in a name or a number above first."; rater.focus(); return; }
    const ratings = items.filter((item) => state.ratings[item.dataset.id]).map((item) => ({ id: item.dataset.id, rating: state.ratings[item.dataset.id] }));
    const file = { format: main.dataset.format, study: main.dataset.study, rater: rater.value.trim(), ratings };
    if (framed) {
      tell({ scumble: "rating-saved", file });
      by("said").textContent = `Handed over ${ratings.length} of ${items.length} ratings.`;
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1) + "\n"], { type: "application/json" }));
    link.download = `ratings-${main.dataset.study}-${rater.value.trim().replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    by("said").textContent = `Saved ${ratings.length} of ${items.length} ratings.`;
  };
  buttons.forEach((button) => button.addEventListener("click", () => rate(Number(button.dataset.rating))));
  by("back").addEventListener("click", () => go(-1));
  by("skip").addEventListener("click", () => go(1));
  by("save").addEventListener("click", save);
  rater.value = state.rater;
  rater.addEventListener("input", () => { state.rater = rater.value; keep(); });
  addEventListener("keydown", (event) => {
    if (event.target === rater || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[1-5]$/.test(event.key)) rate(Number(event.key));
    else if (event.key === "ArrowLeft") go(-1);
    else if (event.key === "ArrowRight") go(1);
    else if (event.key.toLowerCase() === "s") save();
  });
  addEventListener("message", (event) => {
    if (!framed || event.source !== parent || event.data?.scumble !== "rating-state") return;
    const kept = event.data.state;
    if (!kept || typeof kept.ratings !== "object") return;
    state = { rater: String(kept.rater ?? ""), at: Number(kept.at) || 0, ratings: kept.ratings };
    rater.value = state.rater;
    show();
  });
  if (framed) tell({ scumble: "rating-page" }); else show();
  if (framed) setTimeout(show, 300);
})();
