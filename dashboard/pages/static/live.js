// Keeps the page up to date: one event stream for all tabs of a browser, opened by one tab at a time; every
// tab fetches its own page again after a change. Hidden tabs do neither.
const channel = new BroadcastChannel("registry-events");
const state = document.getElementById("state");
let dirty = false;
let fetching = false;
let timer = 0;
let soon = 0;
let began = 0;
let pressed = false;
const PAUSE = 1000; // ms from one fetch to the next while changes keep coming, or the page would keep a core busy

async function refresh() {
  if (document.hidden || fetching) {
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
      say(state, filling() ? "paused while you edit" : "live");
    } else {
      say(state, answer.status === 401 ? "signed out: open the link again" : "the server answered with an error");
    }
  } catch {
    say(state, "disconnected, trying again");
  }
  fetching = false;
  if (dirty) changed();
  else later();
}

// The first change shows at once, further ones together.
function changed() {
  soon ||= setTimeout(() => {
    soon = 0;
    refresh();
  }, Math.max(50, began + PAUSE - performance.now()));
}

// Some changes make no event: an agent becomes silent, a log grows.
function later() {
  clearTimeout(timer);
  timer = setTimeout(refresh, Number(document.getElementById("main").dataset.every));
}

function swap(next) {
  if (filling()) return;
  if (pressed) {
    dirty = true; // a button that is replaced between press and release gets no click
    return;
  }
  const main = document.getElementById("main");
  document.title = next.title;
  const icon = document.getElementById("icon");
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
  markLinked();
  if (key) focusOn(key);
}

// An element that replaced the one that the address names is no :target.
function markLinked() {
  document.getElementById(location.hash.slice(1))?.classList.add("linked");
}

document.addEventListener("pointerdown", () => (pressed = true), true);
for (const name of ["pointerup", "pointercancel"]) {
  document.addEventListener(name, () => setTimeout(() => (pressed = false)), true);
}

// The page is not replaced while somebody edits a field.
function filling() {
  return document.activeElement.matches("main input, main select");
}

document.addEventListener("focusout", (event) => {
  if (event.target.matches("main input, main select")) setTimeout(refresh, 50);
});

// Focus the same element on the page that replaced the old one.
function focusOn(key) {
  const here = document.querySelectorAll("main a, main button, main pre, main summary");
  [...here].find((element) => keyOf(element) === key)?.focus({ preventScroll: true });
}

// The same link may be in several lists of a page.
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
  if (message === "change") changed();
  else say(state, message);
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
    stream.onerror = () => tell("disconnected, trying again");
    const close = () => {
      stream.close();
      done();
    };
    document.addEventListener("visibilitychange", close, { once: true });
  });
}

// Without https a browser has no locks, except on loopback: then each tab opens its own stream.
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
  }
});
if (!document.hidden) {
  hold();
  later();
}

// Operator actions: a button's data gives the URL, the question to confirm, and the key of the reason.
const dialog = document.getElementById("ask");
const reason = dialog.querySelector("input");
const said = document.getElementById("said");

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-post], [data-copy]");
  if (!button) return;
  if (button.dataset.copy) {
    copy(button.dataset.copy);
    return;
  }
  const order = { url: button.dataset.post, body: JSON.parse(button.dataset.body ?? "{}") };
  said.className = "";
  say(said, "");
  if (button.dataset.ask) ask(order, button);
  else send(order);
});

async function copy(text) {
  said.className = "";
  try {
    await navigator.clipboard.writeText(text);
    said.className = "done";
    say(said, `Copied: ${text}`);
  } catch {
    say(said, "The browser did not let the page copy: select the text instead.");
  }
}

function ask(order, button) {
  const name = button.dataset.reason;
  const key = keyOf(button);
  document.getElementById("asked").textContent = button.dataset.ask;
  document.getElementById("yes").textContent = button.textContent;
  document.getElementById("why").hidden = !name;
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
    say(said, "The server did not answer. Check the current state before you try again.");
  }
  refresh();
}

// Keys: none acts on the registry, and none is taken from a field or a dialog.
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
  else if (event.key === "?") document.getElementById("keys").showModal();
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

const log = document.getElementById("log");
if (log) log.scrollTop = log.scrollHeight;
document.documentElement.classList.add("scripted");
