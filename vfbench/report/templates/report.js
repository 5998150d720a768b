"use strict";
// The page's script: sortable tables, and one player that shows the same frame of every clip.
// Texts go into the page as text nodes only; nothing is requested but the sprite sheets beside the page.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Tables: a click on a heading sorts, a second one turns the order round, a third one restores it.

function makeSortable(table) {
  const body = table.tBodies[0], original = [...body.rows], headings = [...table.tHead.rows[0].cells];
  const numeric = headings.map((_, column) => original.some((row) => row.cells[column].dataset.value !== undefined));
  const key = (row, column) => {
    const { dataset, textContent } = row.cells[column];
    return numeric[column] ? Number(dataset.value ?? NaN) : textContent.trim();
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")] || "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      let rows = original;
      if (next !== "none") {
        heading.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        rows = [...original].sort((x, y) => {
          const [a, b] = [key(x, column), key(y, column)];
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // no value: last
          return sign * compare(a, b);
        });
      }
      body.append(...rows);
    });
  });
}
document.querySelectorAll("table.sortable").forEach(makeSortable);

// Player: all clips show frame `player.frame`, a shorter clip begins anew.

const BASE_RATE = 8; // frames a second at speed 1
const player = { frame: 0, playing: false, speed: 1, size: 128, clips: new Set(), longest: 1 };
const visible = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.clip.visible = isIntersecting;
    if (isIntersecting) target.clip.load();
  }
}, { rootMargin: "300px" });

class Clip {
  constructor(sprite, name) {
    this.sprite = sprite;
    this.visible = false;
    this.node = element("div", { class: "clip" });
    if (sprite.missing) return this.showAbsent(sprite.missing);
    this.canvas = element("canvas", { role: "img", "aria-label": name });
    this.canvas.width = sprite.width;
    this.canvas.height = sprite.height;
    this.canvas.clip = this;
    this.node.append(this.canvas);
    this.resize();
  }
  showAbsent(text) {
    this.canvas = null;
    this.absent = element("div", { class: "absent", role: "img", "aria-label": `missing clip: ${text}` }, text);
    this.node.replaceChildren(this.absent);
    this.resize();
  }
  attach() {
    player.clips.add(this);
    if (this.canvas) visible.observe(this.canvas);
    player.longest = Math.max(player.longest, this.sprite.frames || 1);
    return this.node;
  }
  detach() {
    player.clips.delete(this);
    if (this.canvas) visible.unobserve(this.canvas);
  }
  resize() {
    const { width = 1, height = 1 } = this.sprite;
    const style = (this.canvas || this.absent).style;
    style.width = this.node.style.width = `${player.size}px`;
    style.height = `${Math.round((player.size * height) / width)}px`;
  }
  load() {
    if (this.image || !this.canvas) return;
    this.image = new Image();
    this.image.addEventListener("load", () => this.draw());
    this.image.addEventListener("error", () => this.showAbsent(`${this.sprite.file} cannot be read`));
    this.image.src = this.sprite.file;
  }
  draw() {
    if (!this.canvas || !this.visible || !this.image || !this.image.naturalWidth) return;
    const { frames, width, height, columns } = this.sprite, number = player.frame % frames;
    const left = (number % columns) * width, top = Math.floor(number / columns) * height;
    this.canvas.getContext("2d").drawImage(this.image, left, top, width, height, 0, 0, width, height);
    this.canvas.dataset.frame = number;
  }
}

function showFrame(number) {
  player.frame = ((number % player.longest) + player.longest) % player.longest;
  for (const clip of player.clips) clip.draw();
  if (!byId("frame")) return;
  byId("frame").max = player.longest - 1;
  byId("frame").value = player.frame;
  byId("frame-number").textContent = `${player.frame + 1} / ${player.longest}`;
}

let last = 0;
function tick(time) {
  if (!player.playing) return;
  if (time - last >= 1000 / (BASE_RATE * player.speed)) {
    last = time;
    showFrame(player.frame + 1);
  }
  requestAnimationFrame(tick);
}

function play(playing) {
  player.playing = playing;
  document.querySelectorAll("[data-action=play]").forEach((button) => { button.textContent = playing ? "Pause" : "Play"; });
  if (playing) requestAnimationFrame(tick);
}

function step(frames) {
  play(false);
  showFrame(player.frame + frames);
}

// Gallery: a page of requests at a time.

const gallery = { page: 0, rows: data.requests, size: 8 };

function shownRequests() {
  const text = byId("find").value.trim().toLowerCase(), order = byId("order").value;
  const rows = data.requests.filter((row) => `${row.index} ${row.caption} ${row.class}`.toLowerCase().includes(text));
  if (order) {
    const [column, title, sign] = JSON.parse(order);
    const value = (row) => row.clips[column].values?.[title] ?? Infinity * sign;
    rows.sort((a, b) => sign * (value(a) - value(b)));
  }
  return rows;
}

function requestRow(row) {
  const heading = element("th", { scope: "row" }, element("a", { href: `#clip-${row.index}` }, `${row.index}`));
  heading.append(` ${row.caption || row.class}`);
  const cells = row.clips.map((sprite, column) => {
    const clip = new Clip(sprite, `${data.columns[column].label}: ${row.caption || `request ${row.index}`}`);
    const values = Object.entries(sprite.values || {}).map(([title, value]) => `${title} ${value.toPrecision(3)}`);
    clip.attach().append(...values.map((text) => element("small", {}, text)));
    return element("td", {}, clip.node);
  });
  return element("tr", { id: `clip-${row.index}` }, heading, ...cells);
}

function showPage(number) {
  gallery.rows = shownRequests();
  const pages = Math.max(1, Math.ceil(gallery.rows.length / gallery.size));
  gallery.page = Math.min(Math.max(number, 0), pages - 1);
  const body = byId("gallery").tBodies[0];
  for (const canvas of body.querySelectorAll("canvas")) canvas.clip.detach();
  const start = gallery.page * gallery.size;
  body.replaceChildren(...gallery.rows.slice(start, start + gallery.size).map(requestRow));
  byId("page-number").textContent = `${gallery.page + 1} / ${pages}`;
  byId("previous-page").disabled = gallery.page === 0;
  byId("next-page").disabled = gallery.page === pages - 1;
  showFrame(player.frame);
}

function followAnchor() {
  const match = /^#clip-(\d+)$/.exec(location.hash);
  const position = match ? gallery.rows.findIndex((row) => row.index === Number(match[1])) : -1;
  if (position < 0) return;
  showPage(Math.floor(position / gallery.size));
  byId(location.hash.slice(1)).scrollIntoView({ block: "center" });
}

function startGallery() {
  data.columns.forEach((column, number) => {
    const titles = new Set(data.requests.flatMap((row) => Object.keys(row.clips[number].values || {})));
    for (const title of titles)
      for (const [word, sign] of [["smallest", 1], ["largest", -1]]) {
        const value = JSON.stringify([number, title, sign]);
        byId("order").append(element("option", { value }, `${column.label}: ${word} ${title}`));
      }
  });
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  on("frame", "input", (event) => { play(false); showFrame(Number(event.target.value)); });
  on("speed", "change", (event) => { player.speed = Number(event.target.value); });
  on("zoom", "change", (event) => {
    player.size = Number(event.target.value);
    for (const clip of player.clips) clip.resize();
  });
  on("find", "input", () => showPage(0));
  on("order", "change", () => showPage(0));
  on("previous-page", "click", () => showPage(gallery.page - 1));
  on("next-page", "click", () => showPage(gallery.page + 1));
  window.addEventListener("hashchange", followAnchor);
  if (innerWidth < 600) byId("zoom").value = "64";
  player.size = Number(byId("zoom").value);
  showPage(0);
  followAnchor();
}

// Examples: made when their group is opened.

function showExamples() {
  const { examples, columns, requests } = data;
  columns.forEach((column, number) => {
    const groups = examples.filter((group) => group.column === number);
    if (!groups.length) return;
    const details = element("details", { id: `examples-${number}` }, element("summary", {}, column.label));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(...groups.map(exampleGroup));
    });
    byId("example-groups").append(details);
  });

  function exampleGroup({ column, title, examples: list }) {
    const clips = list.map(({ row, value, neighbours }) => {
      const request = requests[row], label = columns[column].label;
      const own = new Clip(request.clips[column], `${label}: ${request.caption}`);
      const link = element("a", { href: `#clip-${request.index}` }, `request ${request.index}`);
      own.attach().append(element("small", {}, link, ` ${value.toPrecision(3)}`));
      const near = neighbours.map(({ sprite, distance }) => {
        const clip = new Clip(sprite, `real clip at distance ${distance.toPrecision(3)}`);
        clip.attach().append(element("small", {}, `real, at ${distance.toPrecision(3)}`));
        return clip.node;
      });
      return element("div", { class: "example" }, own.node, ...near);
    });
    return element("div", {}, element("h3", {}, title), element("div", { class: "group" }, ...clips));
  }
}

// Blind vote: two models in random order; names are shown with the outcome alone.

const votes = { list: [], pair: null, key: `vfbench votes ${document.title}` };

function strengths(wins) {
  // Bradley and Terry, Biometrika 39, 1952, by the iteration of Hunter, Annals of Statistics 32, 2004. Half a win of
  // each model over each other keeps a model that has lost every pair at a finite strength.
  const count = wins.length, prior = 0.5;
  let worth = Array(count).fill(1);
  for (let round = 0; round < 1000; round += 1) {
    const next = worth.map((own, i) => {
      let won = 0, share = 0;
      for (let j = 0; j < count; j += 1) {
        if (j === i) continue;
        won += wins[i][j] + prior;
        share += (wins[i][j] + wins[j][i] + 2 * prior) / (own + worth[j]);
      }
      return won / share;
    });
    const mean = Math.exp(next.reduce((sum, each) => sum + Math.log(each), 0) / count);
    worth = next.map((each) => each / mean);
  }
  return worth.map(Math.log);
}

function outcome() {
  const models = data.columns.filter((column) => column.kind === "model").map((column) => column.label);
  const wins = models.map(() => models.map(() => 0));
  for (const { left, right, better } of votes.list) {
    const [i, j] = [models.indexOf(left), models.indexOf(right)];
    if (i < 0 || j < 0) continue;
    wins[i][j] += { left: 1, equal: 0.5, right: 0 }[better];
    wins[j][i] += { left: 0, equal: 0.5, right: 1 }[better];
  }
  return { models, wins, strengths: strengths(wins) };
}

function nextPair() {
  const models = data.columns.flatMap((column, number) => (column.kind === "model" ? [number] : []));
  const rows = data.requests.filter((row) => models.filter((number) => row.clips[number].file).length > 1);
  for (const clip of votes.pair ? votes.pair.clips : []) clip.detach();
  if (!rows.length) return;
  const row = rows[Math.floor(Math.random() * rows.length)];
  const having = models.filter((number) => row.clips[number].file);
  const left = having.splice(Math.floor(Math.random() * having.length), 1)[0];
  const right = having[Math.floor(Math.random() * having.length)];
  const clips = [left, right].map((number, side) => new Clip(row.clips[number], side ? "right clip" : "left clip"));
  byId("vote-caption").textContent = row.caption || `request ${row.index}`;
  byId("vote-left").replaceChildren(clips[0].attach());
  byId("vote-right").replaceChildren(clips[1].attach());
  votes.pair = { request: row.index, left: data.columns[left].label, right: data.columns[right].label, clips };
  showFrame(player.frame);
}

function vote(better) {
  if (!votes.pair) return;
  const { request, left, right } = votes.pair;
  votes.list.push({ request, left, right, better });
  keepVotes();
  nextPair();
}

function keepVotes() {
  try {
    localStorage.setItem(votes.key, JSON.stringify(votes.list));
  } catch { /* a browser without storage forgets them with the page */ }
  showVotes();
}

function showVotes() {
  byId("vote-count").textContent = `${votes.list.length} vote${votes.list.length === 1 ? "" : "s"}`;
  const { models, wins, strengths: worth } = outcome();
  const cell = (text) => element("td", {}, text);
  const heading = (text) => element("th", { scope: "col" }, text);
  byId("votes").tHead.replaceChildren(element("tr", {}, ...["wins over", ...models, "strength"].map(heading)));
  byId("votes").tBodies[0].replaceChildren(...models.map((model, i) => element("tr", {},
    element("th", { scope: "row" }, model), ...wins[i].map((won, j) => cell(i === j ? "—" : `${won}`)),
    cell(worth[i].toFixed(2)))));
}

function exportVotes() {
  const content = JSON.stringify({ votes: votes.list, ...outcome() }, null, 2);
  const link = element("a", { href: URL.createObjectURL(new Blob([content])), download: "votes.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}

function startVote() {
  try {
    votes.list = JSON.parse(localStorage.getItem(votes.key)) || [];
  } catch { /* none kept */ }
  const choices = {
    "left-better": () => vote("left"), "right-better": () => vote("right"), equal: () => vote("equal"),
    skip: nextPair, "export-votes": exportVotes,
    "clear-votes": () => { votes.list = []; keepVotes(); },
    "show-votes": () => {
      const hidden = byId("vote-outcome").toggleAttribute("hidden");
      byId("show-votes").setAttribute("aria-expanded", String(!hidden));
    },
  };
  for (const [id, action] of Object.entries(choices)) byId(id).addEventListener("click", action);
  const keys = { 1: "left-better", 2: "right-better", 0: "equal", s: "skip" };
  byId("vote-pair").addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key]) choices[keys[event.key]]();
  });
  showVotes();
  nextPair();
}

const actions = { play: () => play(!player.playing), back: () => step(-1), forward: () => step(1) };
for (const button of document.querySelectorAll("[data-action]"))
  button.addEventListener("click", actions[button.dataset.action]);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const action = actions[{ k: "play", ",": "back", ".": "forward" }[event.key]];
  if (action) action();
});

if (byId("gallery")) startGallery();
if (byId("example-groups")) showExamples();
if (byId("vote-pair")) startVote();
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play(true);
