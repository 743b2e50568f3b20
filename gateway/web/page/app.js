// The page's frame: which view the fragment of the URL names, the token, the connection, the title.

import { ApiError, connection, setToken, token } from "./api.js";
import { fill, h, setFavicon, setText } from "./dom.js";
import { exact, refreshTimes } from "./format.js";
import * as job from "./job.js";
import * as now from "./now.js";
import * as runs from "./runs.js";
import * as trigger from "./trigger.js";

const VIEWS = [
  [/^\/$/, now],
  [/^\/runs$/, runs],
  [/^\/jobs\/([^/]+)$/, job],
  [/^\/trigger$/, trigger],
  [/^\/trigger\/([^/]+)\/([^/]+)$/, trigger],
];
const TICK = 5000; // milliseconds

const main = document.getElementById("main");
let left = new AbortController();
let version = null;
let shown = null;

/** Show the view that the URL names, until another one is shown. */
async function show() {
  left.abort();
  left = new AbortController();
  const { signal } = left;
  const [where, search = ""] = (location.hash.slice(1) || "/").split("?");
  const [pattern, view] = VIEWS.find(([pattern]) => pattern.test(where)) ?? [];
  for (const link of document.querySelectorAll("nav[aria-label=Views] a")) markCurrent(link, where);
  const moved = shown !== null && shown !== where;
  shown = where;
  setTitle(null, "");
  const params = view && decoded(pattern.exec(where).slice(1));
  if (!params) return fill(main, missing());
  fill(main);
  const going = view.show(main, { params, query: new URLSearchParams(search), signal, setQuery, setTitle });
  if (moved) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  try {
    await going;
  } catch (error) {
    if (signal.aborted) return;
    if (error.status !== 401) fill(main, refused(error));
    if (!(error instanceof ApiError)) throw error; // a bug, which the console shows in full
  }
}

/** Parts of the fragment as they were before they were escaped; null where one is not well escaped. */
function decoded(parts) {
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return null;
  }
}

/** Have the URL name the state of the view that is shown; values that are not given are left out. */
function setQuery(values) {
  const given = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  const text = given.size ? `?${given}` : "";
  history.replaceState(null, "", `#${location.hash.slice(1).split("?")[0] || "/"}${text}`);
}

/** The title and the icon of the tab. state: of what is shown, null for none. */
function setTitle(state, text) {
  setText(document.querySelector("title"), text ? `${text} · Pipeline Gateway` : "Pipeline Gateway");
  setFavicon(state);
}

function markCurrent(link, where) {
  const target = link.getAttribute("href").slice(1);
  const isCurrent = target === "/" ? where === "/" : where.startsWith(target) || (target === "/runs" && where.startsWith("/jobs/"));
  if (isCurrent) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function missing() {
  return [h("h1", {}, "Nothing here"), h("p", {}, "No view has this address. ", h("a", { href: "#/" }, "See what runs now."))];
}

function refused(error) {
  return [
    h("h1", {}, error.status === 404 ? "Not found" : "That did not work"),
    h("p", { role: "alert" }, error.message),
    h("p", {}, h("button", { on: { click: show } }, "Try again"), " ", h("a", { href: "#/runs" }, "All runs")),
  ];
}

function signIn(wrong = token() !== null) {
  left.abort();
  setToken(null);
  const field = h("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const form = h(
    "form",
    {
      class: "card sign-in",
      on: {
        submit(event) {
          event.preventDefault();
          const given = field.value.trim();
          if (!/^[!-~]+$/.test(given)) return signIn(true); // no header can hold it
          setToken(given);
          showSignOut();
          show();
        },
      },
    },
    h("h1", {}, "Sign in"),
    wrong && h("p", { role: "alert", class: "problem" }, "The gateway does not know this token."),
    h("label", { for: "token" }, "Token"),
    field,
    h("p", { class: "faint" }, "It is kept for this tab only. `pipeline-gateway token` makes one."),
    h("button", { class: "primary" }, "Sign in"),
  );
  fill(main, form);
  setTitle(null, "Sign in");
  showSignOut();
  field.focus();
}

function showSignOut() {
  document.getElementById("sign-out").hidden = token() === null;
}

function showConnection() {
  const { lostAt } = connection;
  document.body.classList.toggle("stale", lostAt !== null);
  showBanner(lostAt && `The gateway has not answered since ${exact(lostAt)}. What you see is from then; the page goes on by itself.`);
  if (lostAt === null) compareVersions();
}

function showBanner(...content) {
  const banner = document.getElementById("connection");
  banner.hidden = !content[0];
  fill(banner, content);
}

/** Say so where the gateway came back as another version, with another page than this one. */
async function compareVersions() {
  const now = await versionOfPage();
  if (now === version || now === null || version === null) return;
  showBanner("The gateway has another version than this page. ", h("button", { on: { click: () => location.reload() } }, "Load the new page"));
}

/** What the files of the page are known by; null where the gateway does not answer. */
async function versionOfPage() {
  try {
    return (await fetch("./", { method: "HEAD", cache: "no-store" })).headers.get("ETag");
  } catch {
    return null;
  }
}

connection.addEventListener("change", showConnection);
connection.addEventListener("unauthorized", () => signIn());
document.getElementById("sign-out").addEventListener("click", () => {
  setToken(null);
  signIn();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the view's
  main.focus();
});
addEventListener("hashchange", show);
setInterval(refreshTimes, TICK);
showSignOut();
show();
version = await versionOfPage();
