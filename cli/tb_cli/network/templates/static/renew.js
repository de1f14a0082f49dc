"use strict";
// The page asks for itself again and takes over what is different, so that focus, scrolling and
// what is marked stay as they are. Nothing is announced but trouble. A page that only says why
// there is none has a status, and takes over whatever comes next.

const PERIOD_MS = 5000;
const PATIENCE_MS = 10000;
const PAUSED = "paused";

const button = document.getElementById("pause");
const trouble = document.getElementById("trouble");
let timer = 0;

function isPaused() {
  return button.getAttribute("aria-pressed") === "true";
}

// Whether somebody has marked text to copy it.
function isMarked() {
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed;
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

// Make `old` what `fresh` is, and change no more than that.
function take(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
  } else if (old.nodeType === Node.ELEMENT_NODE) {
    takeAttributes(old, fresh);
    takeChildren(old, fresh);
  } else if (old.nodeValue !== fresh.nodeValue) {
    old.nodeValue = fresh.nodeValue;
  }
}

function takeAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

// Rows have a key: one that stays is the same element, wherever it stands by now.
function takeChildren(old, fresh) {
  const keys = new Set([...fresh.childNodes].map(keyOf));
  const known = new Map();
  for (const child of [...old.childNodes]) {
    const key = keyOf(child);
    if (key === null) continue;
    if (keys.has(key)) known.set(key, child);
    else child.remove();
  }
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const same = key === null ? at : known.get(key);
    if (!same || (key === null && keyOf(same) !== null)) {
      old.insertBefore(child, at);
    } else if (same === at) {
      at = at.nextSibling;
      take(same, child);
    } else {
      old.insertBefore(same, at);
      take(same, child);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// What the server said instead of the page; nothing when all is renewed.
async function renew() {
  const response = await fetch(location.href, {
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const found = new DOMParser().parseFromString(await response.text(), "text/html");
  const isOurs = found.getElementById("as-of") && found.getElementById("main");
  if (!isOurs || (!response.ok && !document.getElementById("main").dataset.status)) {
    return `Not renewed: ${response.status} ${found.querySelector("main h1")?.textContent ?? ""}`;
  }
  if (isMarked() || isPaused()) return "";
  document.title = found.title;
  for (const id of ["as-of", "main"]) {
    take(document.getElementById(id), document.adoptNode(found.getElementById(id)));
  }
  return "";
}

async function turn() {
  window.clearTimeout(timer);
  timer = 0;
  if (document.hidden || isPaused()) return;
  if (!isMarked()) {
    const told = await renew().catch(() => "Not renewed: the server does not answer");
    if (trouble.textContent !== told) trouble.textContent = told;
  }
  window.clearTimeout(timer);
  timer = window.setTimeout(turn, PERIOD_MS);
}

function show(paused) {
  button.setAttribute("aria-pressed", String(paused));
}

// A browser may be set to keep nothing of a page: then the next one is not paused.
function remember(paused) {
  try {
    sessionStorage.setItem(PAUSED, paused ? "yes" : "");
  } catch {}
}

function remembered() {
  try {
    return sessionStorage.getItem(PAUSED) === "yes";
  } catch {
    return false;
  }
}

button.addEventListener("click", () => {
  show(!isPaused());
  remember(isPaused());
  turn();
});
document.addEventListener("visibilitychange", turn);
show(remembered());
button.hidden = false;
timer = window.setTimeout(turn, PERIOD_MS);
