// Keeps the page up to date: one event stream for all tabs, opened by one tab at a time; each tab fetches its
// page again after a change. A hidden tab does neither; one that notifies looks twice a minute.
const byId = (id) => document.getElementById(id);
const AWAY = "disconnected, trying again";
const channel = new BroadcastChannel("registry-events");
const state = byId("state");
let dirty, fetching, pressed, paused;
let timer, soon;
let began = 0;
let waiting = waits(document);
const PAUSE = 2000; // ms from one fetch to the next

async function refresh() {
  if ((document.hidden && !notifies()) || fetching) {
    dirty = true;
    return;
  }
  fetching = true;
  dirty = false;
  began = performance.now();
  try {
    const signal = AbortSignal.timeout(20_000);
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal });
    if (answer.ok) {
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      say(state, paused ? "paused" : filling() ? "paused while you edit" : "live");
    } else {
      say(state, answer.status === 401 ? "signed out: open the link again" : "the server answered with an error");
    }
  } catch {
    say(state, AWAY);
  }
  fetching = false;
  if (dirty) changed();
  else later();
}

function changed() {
  soon ||= setTimeout(() => {
    soon = 0;
    refresh();
  }, Math.max(50, began + PAUSE - performance.now()));
}

// Some changes make no event: an agent becomes silent, a log grows.
function later() {
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? 30_000 : Number(byId("main").dataset.every));
}

function swap(next) {
  const before = waiting;
  waiting = waits(next);
  const news = `Waiting for a human: ${waiting}`;
  if (waiting > before && notifies()) tried(() => new Notification(news, { tag: "waiting" }));
  if (filling()) return;
  if (pressed) {
    dirty = true; // or a click would miss its button
    return;
  }
  const main = byId("main");
  document.title = next.title;
  const icon = byId("icon");
  if (icon.href !== next.getElementById("icon").href) icon.href = next.getElementById("icon").href;
  if (main.isEqualNode(next.getElementById("main"))) return;
  const focused = document.activeElement;
  const key = main.contains(focused) ? keyOf(focused) : null;
  const tops = [...main.querySelectorAll("pre[id]")].map((pre) => [pre.id, pre.scrollTop, atEnd(pre)]);
  const fresh = next.getElementById("main");
  for (const shown of main.querySelectorAll("details[open]")) {
    next.getElementById(shown.id)?.setAttribute("open", "");
  }
  main.replaceWith(fresh);
  for (const pre of fresh.querySelectorAll("pre[id]")) {
    const [, top, end] = tops.find(([id]) => id === pre.id) ?? [pre.id, 0, true];
    pre.scrollTop = end ? pre.scrollHeight : top;
  }
  mark();
  if (key) focusOn(key);
}

function waits(page) {
  return Number(/^\((\d+)\)/.exec(page.title)?.[1] ?? 0);
}

function notifies() {
  return window.Notification?.permission === "granted";
}

// Marks the linked entry (one that was replaced is no :target), and what came since the last visit.
const visit = `seen ${location.pathname}`;
const seen = tried(() => localStorage.getItem(visit));
addEventListener("pagehide", () => {
  const newest = document.querySelector("#stream time");
  if (newest) tried(() => localStorage.setItem(visit, newest.dateTime));
});

// A browser may refuse to store or to notify.
function tried(what) {
  try {
    return what();
  } catch {
    return null;
  }
}

function mark() {
  byId(location.hash.slice(1))?.classList.add("linked");
  const link = byId("since");
  if (!link || !seen) return;
  const fresh = [...document.querySelectorAll("#stream li")].filter((li) => li.querySelector("time")?.dateTime > seen);
  for (const entry of fresh) entry.classList.add("new");
  link.hidden = !fresh.length;
  link.textContent = `${fresh.length} new since you last looked`;
  link.href = `?since=${seen}#activity`;
}

document.addEventListener("pointerdown", () => (pressed = true), true);
for (const name of ["pointerup", "pointercancel"]) {
  document.addEventListener(name, () => setTimeout(() => (pressed = false)), true);
}

// The page is not replaced while it is paused or somebody edits a field.
function filling() {
  return paused || document.activeElement.matches("main input, main select");
}

document.addEventListener("focusout", (event) => {
  if (event.target.matches("main input, main select")) setTimeout(refresh, 50);
});

function focusOn(key) {
  const here = [...document.querySelectorAll("main a, main button, main pre, main summary")];
  here.find((element) => keyOf(element) === key)?.focus({ preventScroll: true });
}

function keyOf(element) {
  const near = element.closest("[id], [aria-labelledby]");
  const place = near && (near.id || near.getAttribute("aria-labelledby"));
  return element.id || `${place} ${element.getAttribute("href") ?? (element.dataset.post ?? "") + element.textContent}`;
}

function atEnd(pre) {
  return pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
}

function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
  where.hidden = !text;
}

function heard(message) {
  if (message !== "change") say(state, message);
  else if (!document.hidden) changed();
}

channel.onmessage = (event) => heard(event.data);

function tell(message) {
  if (navigator.locks) channel.postMessage(message);
  heard(message);
}

function listen() {
  return new Promise((done) => {
    const stream = new EventSource("/api/events");
    for (const name of ["hello", "change", "reset", "migration", "job"]) {
      stream.addEventListener(name, () => tell("change"));
    }
    stream.onerror = () => tell(AWAY);
    const close = () => {
      stream.close();
      done();
    };
    document.addEventListener("visibilitychange", close, { once: true });
  });
}

// Without https only loopback has locks: else each tab opens its own stream.
function hold() {
  if (!navigator.locks) return listen();
  const shown = new AbortController();
  navigator.locks.request("registry-events", { signal: shown.signal }, listen).catch(() => {});
  document.addEventListener("visibilitychange", () => shown.abort(), { once: true });
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) {
    hold();
    refresh();
  } else if (notifies()) later();
});
if (!document.hidden) hold();
later();

// A button's data gives the URL, the question, and the key of the reason.
const dialog = byId("ask");
const reason = dialog.querySelector("input");
const said = byId("said");

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-post], [data-copy], [data-pause]");
  if (!button) return;
  said.className = "";
  say(said, "");
  const { post: url, copy: text, ask: question, body = "{}" } = button.dataset;
  const order = { url, body: JSON.parse(body) };
  if (text) copy(text);
  else if (!url) pause(button);
  else if (question) ask(order, button);
  else send(order);
});

function pause(button) {
  paused = !paused;
  button.textContent = paused ? "Continue" : "Pause";
  refresh();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    said.className = "done";
    say(said, `Copied: ${text}`);
  } catch {
    say(said, "The browser does not let the page copy: select the text.");
  }
}

function ask(order, button) {
  const name = button.dataset.reason;
  const key = keyOf(button);
  byId("asked").textContent = button.dataset.ask;
  byId("yes").textContent = button.textContent;
  byId("why").hidden = !name;
  reason.value = "";
  reason.required = Boolean(name);
  dialog.returnValue = "no";
  dialog.onclose = () => {
    focusOn(key); // the page may have been replaced meanwhile
    if (dialog.returnValue !== "yes") return;
    if (name) order.body[name] = reason.value;
    send(order);
  };
  dialog.showModal();
}

async function send({ url, body }) {
  try {
    const headers = { "content-type": "application/json", accept: "application/json" };
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    if (answer.ok) {
      answer.body?.cancel(); // progress arrives by the shared event stream
    } else {
      const { message, next_step: next } = await answer.json();
      say(said, [message, next].filter(Boolean).join(". "));
    }
  } catch {
    say(said, "The server did not answer. Check the state before you try again.");
  }
  refresh();
}

// No key acts on the registry or is taken from a field or dialog.
const PAGES = { o: "/", r: "/reviews", m: "/migration", s: "/system" };
let going = false;

document.addEventListener("keydown", (event) => {
  const armed = going;
  going = false;
  if (event.ctrlKey || event.metaKey || event.altKey || document.activeElement.matches("input, select")) return;
  if (document.querySelector("dialog[open]")) return;
  const to = armed && PAGES[event.key];
  going = event.key === "g";
  if (to) location.href = to;
  else if (event.key === "?") byId("keys").showModal();
  else if (event.key === "/") focusSearch(event);
  else if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
});

function focusSearch(event) {
  const field = document.querySelector("main input[type=search]");
  if (!field) return;
  event.preventDefault(); // or the field would get the key
  field.focus();
}

function move(step) {
  const rows = [...document.querySelectorAll("main .what a, main .stream li > a:first-of-type, main .plain li > a")];
  const at = rows.indexOf(document.activeElement);
  rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : at + step]?.focus();
}

const bell = byId("bell");
bell.hidden = window.Notification?.permission !== "default";
bell.onclick = () => Notification.requestPermission().then(() => (bell.hidden = true));

const log = byId("log");
if (log) log.scrollTop = log.scrollHeight;
mark();
