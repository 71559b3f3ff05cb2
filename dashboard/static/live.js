// Keeps the page true: one stream for all tabs of a browser, held by one of them at a time; every tab
// fetches its own page again when something changed. Hidden tabs do neither.
const channel = new BroadcastChannel("registry-events");
const state = document.getElementById("state");
let dirty = false;
let fetching = false;

async function refresh() {
  if (document.hidden || fetching) {
    dirty = true;
    return;
  }
  fetching = true;
  dirty = false;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok) {
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = document.getElementById("main");
      const focused = document.activeElement;
      if (!main.contains(focused) || !focused.matches("input, select")) {
        main.replaceWith(next.getElementById("main"));
        document.title = next.title;
      }
      say("live");
    } else {
      say(answer.status === 401 ? "signed out: open the link again" : "the server has a problem");
    }
  } catch {
    say("disconnected, trying again");
  }
  fetching = false;
  if (dirty) setTimeout(refresh, 250);
}

function say(text) {
  if (state.textContent !== text) state.textContent = text;
}

function heard(message) {
  if (message === "change") setTimeout(refresh, 50);
  else say(message);
}

channel.onmessage = (event) => heard(event.data);

function tell(message) {
  channel.postMessage(message);
  heard(message);
}

function hold() {
  const shown = new AbortController();
  navigator.locks
    .request("registry-events", { signal: shown.signal }, () => {
      return new Promise((done) => {
        const stream = new EventSource("/api/events");
        stream.addEventListener("hello", () => tell("change"));
        stream.addEventListener("change", () => tell("change"));
        stream.addEventListener("reset", () => tell("change"));
        stream.onerror = () => tell("disconnected, trying again");
        document.addEventListener(
          "visibilitychange",
          () => {
            stream.close();
            done();
          },
          { once: true },
        );
      });
    })
    .catch(() => {});
  document.addEventListener("visibilitychange", () => shown.abort(), { once: true });
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    hold();
    refresh();
  }
});
if (!document.hidden) hold();
