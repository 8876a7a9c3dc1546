// The refresh of pages. Polling: a "pulse" every so many seconds while the tab can be seen; the fragment listens to it.
// Live: the stream swaps by itself; while it is down, pulses go on. Nothing moves under the viewer's hands.
(() => {
  const body = document.body;
  const isWall = body.classList.contains("wall");
  const wantsLive = body.dataset.mode === "live";
  const isStill = body.dataset.mode === "still";
  const pollMs = Number(body.dataset.refreshSeconds) * 1000;
  const byId = (id) => document.getElementById(id);
  const link = byId("link-state");
  const age = byId("data-age");
  const stale = byId("stale");
  const announce = byId("announce");
  const pauseButton = byId("pause");
  const silence = 15000;
  const now = () => Date.now();
  let connected = false;
  let freshAt = now();
  let heardAt = now();
  let triedAt = now();
  let touchedAt = 0;
  let pulseAt = now() + Math.min(pollMs || 60000, document.getElementById("refresh")?.dataset.play > 0 ? 1000 : Infinity);
  let saidAt = 0;
  let isStale = false;
  let summary = null;
  let paused = false;
  let missed = 0;
  let crowded = false;
  let current = null;
  let gone = "";
  let clockOffset = 0;
  document.documentElement.classList.add("js");

  const words = (seconds) => {
    if (seconds < 60) return `${seconds}s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)}h`;
    return `${Math.floor(seconds / 86400)}d`;
  };
  const two = (number) => String(number).padStart(2, "0");
  const utc = (date) => `${date.toISOString().slice(0, 10)} ${date.toISOString().slice(11, 19)} UTC`;
  const local = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} `
    + `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const relative = (date) => {
    const seconds = Math.round((now() + clockOffset - date.getTime()) / 1000);
    return seconds >= 0 ? `${words(seconds)} ago` : `in ${words(-seconds)}`;
  };
  // A wall says how long, in steps that do not flicker.
  const span = (date) => {
    const seconds = Math.max(0, Math.round((now() + clockOffset - date.getTime()) / 1000));
    return seconds < 60 ? "<1m" : words(seconds);
  };
  const inWords = (date, style) => (style === "span" ? span(date) : style === "local" ? local(date) : style === "utc" ? utc(date) : relative(date));

  // The past does not get older while one looks at it.
  const times = ["relative", "span"].includes(body.dataset.times) && byId("past") ? "utc" : body.dataset.times;
  const showTimes = () => {
    for (const time of document.querySelectorAll("#page time")) {
      const date = new Date(time.dateTime);
      if (Number.isNaN(date.getTime())) continue;
      const stamp = time.classList.contains("stamp");
      const text = inWords(date, stamp && ["relative", "span"].includes(times) ? "utc" : times);
      if (time.textContent !== text) time.textContent = text;
      const title = times === "local" ? utc(date) : `${utc(date)}, here ${local(date)}`;
      if (time.title !== title) time.title = title;
    }
  };

  // At most one message in ten seconds: a screen reader must not talk all the time.
  const say = (text) => {
    if (now() - saidAt < 10000) return;
    saidAt = now();
    announce.textContent = text;
  };

  // Text that is being marked would be torn away by a swap.
  const isSelecting = () => {
    const selection = document.getSelection();
    return !isWall && selection && !selection.isCollapsed && byId("page").contains(selection.anchorNode);
  };
  // A list that grows at its top stays as it is while someone reads it: scrolled, pointed at, focused or selected from.
  let pointedAt = 0;
  let wantsNew = false;
  const newRows = byId("new-rows");
  const lists = () => (isWall ? [] : [...document.querySelectorAll("#page [data-follow]")]);
  const isRead = (list) => list.contains(document.activeElement) || list.querySelector("input.select:checked") !== null
    || list.getBoundingClientRect().top < 0 || (now() - pointedAt < 60000 && list.matches(":hover"));
  const isReading = () => !wantsNew && lists().some(isRead);
  // New rows of a live page wait for a click, unless one follows them; whatever else changes is shown at once.
  let follows = sessionStorage.getItem("taskwatch-follow") === "1";
  const followButton = byId("follow");
  const holdsRows = () => !wantsNew && lists().length > 0 && (!follows || isReading());
  // A whole page that was held back: what comes after it tells only what has changed since.
  let heldWhole = false;
  const isWhole = (part) => part.includes('hx-target="#page"');
  const isHeldPart = (part) => {
    if (isWhole(part)) return isReading();
    const element = byId(part.match(/^<hx-partial id="([^"]*)"/)?.[1] ?? "");
    return !element || /^<hx-partial [^>]*hx-swap=/.test(part)
      || lists().some((list) => element.contains(list) || (list.contains(element) && element.tagName !== "TR" && element.tagName !== "LI"));
  };
  const newIn = (part) => (part.includes('hx-swap="delete"') ? 0 : isWhole(part) ? 1 : (part.match(/<(tr|li) id="/g) ?? [1]).length);
  const isStopped = () => paused || isSelecting();
  const isHeld = () => isStopped() || isReading();

  // The server says how old its own knowledge is; silence of the server is counted here.
  const fresh = (ageMs) => { freshAt = now() - (Number(ageMs) || 0); heardAt = now(); };

  const play = () => Number(byId("refresh")?.dataset.play || 0);
  const isPast = () => Boolean(byId("refresh")?.dataset.url);
  const everyMs = () => (play() > 0 ? 1000 : isPast() ? 0 : wantsLive && !pollMs ? 5000 : pollMs);

  // What the link is, in a word, and at length.
  const linkState = () => {
    if (gone) return ["late", gone, "This page does not exist any more"];
    if (paused) return ["held", missed > 0 ? `Paused · ${missed}` : "Paused", missed > 0 ? `Paused, ${missed} changes wait` : "Paused"];
    if (isSelecting()) return ["held", "Held", "Holding still while text is selected"];
    if (!connected && isReading() && missed > 0) return ["held", `Held · ${missed}`, "Holding still while the list is read"];
    if (isPast()) return ["past", play() > 0 ? `Past · ${play()}×` : "Past", play() > 0 ? `Playing the past, ${play()} times as fast` : "This is the past"];
    if (isStale) return ["offline", "Offline", "The server does not answer; trying again"];
    if (wantsLive && crowded) return ["poll", "Every 5s", "Polling, as other windows are live"];
    if (wantsLive && connected) return ["live", "Live", "Changes come as they happen"];
    if (wantsLive) return ["late", "Reconnecting", "The stream is interrupted; polling meanwhile"];
    if (pollMs) return ["poll", `Every ${pollMs / 1000}s`, `Polling every ${pollMs / 1000} s`];
    return ["still", "Off", "Refresh is off"];
  };
  const showLink = () => {
    if (!link) return;
    const [state, word, sentence] = linkState();
    const seconds = Number(body.dataset.age || 0);
    const aged = !isWall && ["live", "poll", "offline", "still"].includes(state);
    const text = aged ? `${word} · ${words(seconds)}` : word;
    if (link.textContent !== text) link.textContent = text;
    const title = aged ? `${sentence}. Data is ${words(seconds)} old.` : sentence;
    if (link.title !== title) link.title = title;
    if (link.dataset.state !== state) link.dataset.state = state;
    if (followButton) followButton.hidden = !wantsLive || !lists().length;
    if (newRows) {
      const waits = missed > 0 && !isStopped();
      const label = connected && byId("event-rows") ? `${missed} new ↑` : "New data ↑";
      if (newRows.textContent !== label) newRows.textContent = label;
      if (newRows.hidden === waits) newRows.hidden = !waits;
    }
  };

  const showAge = () => {
    if (isPast()) { if (age) age.textContent = "as it was"; return; }
    const seconds = Math.max(0, Math.round((now() - freshAt) / 1000));
    const text = seconds < 4 ? "data just now" : `data ${words(seconds)} old`;
    if (age && age.textContent !== text) age.textContent = text;
    body.dataset.age = String(seconds);
    const usual = (wantsLive ? 5000 : everyMs()) || 60000;
    const late = seconds * 1000 > 3 * usual;
    const wasStale = isStale;
    isStale = late && seconds > 20 && !isStopped() && (wantsLive || everyMs() > 0);
    age?.classList.toggle("late", late);
    stale.hidden = !isStale;
    if (isStale) stale.textContent = `Data is ${words(seconds)} old. The server does not answer; trying again.`;
    body.classList.toggle("is-stale", isStale);
    if (isStale !== wasStale) {
      say(isStale ? "Data is stale" : "Data is fresh again");
      showTitle();
    }
  };

  // Health and numbers of the whole, whatever the page is about: title, icon and the numbers beside the names of pages.
  const heardSummary = (told) => {
    if (!told || isPast()) return;
    summary = told;
    for (const badge of document.querySelectorAll("[data-badge]")) {
      const number = told[badge.dataset.badge] || 0;
      if (badge.textContent !== String(number)) badge.textContent = String(number);
      badge.hidden = number === 0;
    }
    showTitle();
  };

  const pulse = () => {
    pulseAt = now() + (everyMs() || 60000);
    htmx.trigger(body, "pulse");
  };

  // Browsers share six connections with a server between all their tabs and windows: at most four of them are streams,
  // and none is that of a tab that nobody sees. Who finds no place polls.
  let release = null;
  const takeSlot = async () => {
    if (isWall || !navigator.locks || release) return true;
    for (let slot = 0; slot < 4; slot += 1) {
      const got = await new Promise((answer) => {
        navigator.locks.request(`taskwatch-live-${slot}`, { ifAvailable: true }, (lock) => {
          answer(Boolean(lock));
          return lock ? new Promise((done) => { release = done; }) : undefined;
        }).catch(() => answer(false));
      });
      if (got) return true;
    }
    return false;
  };

  const closeLive = () => {
    connected = false;
    current = null;
    const old = byId("live");
    // What htmx still has open for it would otherwise end with its next message only.
    const stream = old._htmx?.sse;
    stream?.reader?.cancel?.().catch?.(() => {});
    stream?.abortController?.abort?.();
    const anew = old.cloneNode(false);
    anew.removeAttribute("data-htmx-powered");
    old.replaceWith(anew);
  };

  const goLive = async () => {
    triedAt = heardAt = now();
    crowded = !(await takeSlot());
    const live = byId("live");
    if (live && !crowded) {
      if (!live.hasAttribute("data-htmx-powered")) htmx.process(live);
      htmx.trigger(live, "go-live");
    }
    showLink();
  };

  const rest = () => {
    closeLive();
    release?.();
    release = null;
  };

  // A stream that fell silent (after sleep, behind a dead proxy) is open and dead, and one that does not come up may
  // never do so: it is made anew. The first message of a stream is the whole page.
  const reconnect = () => {
    closeLive();
    goLive();
  };

  const setPaused = (on) => {
    paused = on;
    if (pauseButton) pauseButton.textContent = on ? "Resume" : "Pause";
    say(on ? "Paused" : "Resumed");
    if (!on) catchUp();
    showLink();
  };

  // What was held back is fetched whole.
  const catchUp = () => {
    const any = missed > 0;
    missed = 0;
    heldWhole = false;
    if (wantsLive && any) reconnect();
    else if (!connected && everyMs() > 0) pulse();
  };

  // Beside a stream a poll would bring what the stream tells later: the stream is asked for everything instead.
  const refresh = () => {
    if (isStopped()) { say("Held: resume, or give up the selection, to refresh"); return; }
    wantsNew = true;
    if (wantsLive && connected) reconnect();
    else pulse();
    say("Refreshed");
  };

  // Another build of the server needs other scripts: load the page anew, once for each build, never under the hands.
  const heardBuild = (build) => {
    if (!build || build === body.dataset.build) return;
    if (sessionStorage.getItem("taskwatch-build") === build) return;
    body.dataset.newBuild = build;
  };
  const isDirty = () => [...document.querySelectorAll("#page input, #page textarea")].some((field) => (
    field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue));
  const isTouched = () => {
    const active = document.activeElement?.tagName;
    const open = document.querySelector(".actions details[open]");
    return now() - touchedAt < 10000 || ["INPUT", "TEXTAREA", "SELECT"].includes(active) || open || isHeld();
  };
  const reloadForBuild = () => {
    const build = body.dataset.newBuild;
    // The wall has its own, more careful way.
    if (!build || isWall || isDirty() || (!document.hidden && isTouched())) return;
    sessionStorage.setItem("taskwatch-build", build);
    location.reload();
  };

  const tick = () => {
    if (isStill) return;
    const held = isHeld();
    if (!held && missed > 0 && (heldWhole || !(connected && holdsRows()))) catchUp();
    if (!document.hidden || isWall) {
      if (!isStopped()) {
        if (connected && now() - heardAt > silence) reconnect();
        if (wantsLive && !connected && now() - triedAt > silence) reconnect();
        if (!connected && everyMs() > 0 && now() + 100 >= pulseAt + (gone ? 25000 : 0)) pulse();
      }
      if (!paused) { showTimes(); showAge(); }
    }
    showLink();
    reloadForBuild();
  };

  const showTitle = () => {
    const title = byId("page-title")?.dataset.title;
    const icon = byId("icon");
    const level = isStale ? "offline" : isPast() ? "ok" : summary?.level;
    const trouble = { offline: "⚠ Offline · ", stalled: "✕ Stalled · ", degraded: "▲ Degraded · " };
    if (title && level) {
      const text = `${trouble[level] ?? ""}${title} · ${body.dataset.owner ?? "taskwatch"}`;
      if (document.title !== text) document.title = text;
      const file = icon?.dataset[level];
      if (file && icon.getAttribute("href") !== file) icon.setAttribute("href", file);
    }
    const url = byId("refresh")?.dataset.url;
    // While the past is played, the address goes along.
    if (url && play() > 0) {
      history.replaceState(null, "", url);
      const at = new URL(location.href).searchParams.get("at");
      for (const link of document.querySelectorAll("header nav a")) {
        const to = new URL(link.href);
        to.searchParams.set("at", at);
        link.href = to.pathname + to.search;
      }
    }
    const here = new URL(location.href);
    if (!url && here.searchParams.has("at")) {
      here.searchParams.delete("at");
      here.searchParams.delete("play");
      history.replaceState(null, "", here);
    }
  };

  document.addEventListener("htmx:before:request", (event) => {
    if (isStopped() && event.detail?.ctx?.sourceElement?.id === "refresh") event.preventDefault();
  });
  document.addEventListener("htmx:before:swap", (event) => {
    // A poll that comes in beside the stream is older than what the stream brought.
    if (event.detail?.ctx?.sourceElement?.id !== "refresh") return;
    if (connected) event.preventDefault();
    // Read on: what came is shown when the list is let go.
    if (isHeld()) { missed += 1; event.preventDefault(); }
  });
  document.addEventListener("htmx:after:request", (event) => {
    const response = event.detail?.ctx?.response;
    const header = (name) => response?.headers?.get?.(name);
    // Only of a page about one thing can that be believed, and even then it is asked again now and then.
    const about = /^(tasks|parents|bulk|workers)\/./.test(location.pathname.slice(body.dataset.root.length)) && event.detail?.ctx?.sourceElement?.id === "refresh";
    const status = response?.status;
    if (about && (status === 404 || status === 410)) gone = "Gone: it was deleted";
    else if (status === 401 || status === 403) gone = "Signed out";
    else if (status === 200 || status === 204) gone = "";
    showLink();
    heardBuild(header("x-app-build"));
    if (header("x-summary")) heardSummary(JSON.parse(header("x-summary")));
    const date = Date.parse(header("date") ?? "");
    if (date && Math.abs(date - now()) > 5000) clockOffset = date - now();
    if ((response?.status === 200 || response?.status === 204) && header("x-data-age-ms") != null) fresh(header("x-data-age-ms"));
  });
  // A part that has grown stays as tall: what comes and goes in it moves nothing below.
  const keepHeights = () => {
    for (const part of document.querySelectorAll("#page [data-steady]")) {
      const height = `${part.offsetHeight}px`;
      if (part.style.minHeight !== height) part.style.minHeight = height;
    }
  };
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail?.ctx?.sourceElement?.id === "refresh") wantsNew = false;
    keepHeights();
    showTitle();
    showTimes();
    showLink();
  });
  document.addEventListener("htmx:sse:after:connection", (event) => {
    current = event.detail?.connection ?? null;
    connected = true;
    gone = "";
    heardAt = triedAt = now();
    showLink();
  });
  document.addEventListener("htmx:sse:before:message", (event) => {
    const message = event.detail?.message;
    if (!message || message.event) return;
    if (isStopped()) {
      event.preventDefault();
      // Of lists of events the events, else the messages.
      missed += (message.data?.match(/<tr id="e/g) ?? [1]).length;
    } else if (holdsRows()) {
      const parts = message.data.split(/(?=<hx-partial )/);
      const kept = parts.filter((part) => !isHeldPart(part));
      missed += parts.filter(isHeldPart).reduce((sum, part) => sum + newIn(part), 0);
      heldWhole ||= parts.some((part) => isWhole(part) && isHeldPart(part));
      message.data = kept.join("");
      if (!kept.length) event.preventDefault();
    }
    // What was asked for has come with the whole page.
    if (isWhole(message.data)) wantsNew = heldWhole = false;
    heardAt = now();
    showLink();
  });
  document.addEventListener("htmx:sse:after:message", (event) => {
    connected = true;
    triedAt = now();
    heardAt = now();
    const message = event.detail?.message;
    // That something is sent does not say that the server knows the newest; its heartbeat says how old its knowledge is.
    if (message?.event === "heartbeat") {
      const beat = JSON.parse(message.data);
      heardBuild(beat.build);
      fresh(beat.age_ms);
      heardSummary(beat.summary);
    }
    showLink();
  });
  for (const name of ["htmx:sse:error", "htmx:sse:close", "htmx:sse:before:connection"]) {
    document.addEventListener(name, (event) => {
      const told = event.detail?.connection;
      // Late news of a stream that was given up.
      if (told && current && told !== current) return;
      connected = false;
      pulseAt = Math.min(pulseAt, now() + 1000);
      showLink();
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (isWall) return;
    if (document.hidden) { if (wantsLive) rest(); return; }
    if (wantsLive) goLive();
    else if (everyMs() > 0) pulse();
  });
  for (const name of ["keydown", "pointerdown", "input"]) {
    document.addEventListener(name, () => { touchedAt = now(); }, { capture: true, passive: true });
  }
  document.addEventListener("pointermove", () => { pointedAt = now(); }, { passive: true });
  newRows?.addEventListener("click", () => {
    for (const box of document.querySelectorAll("#page input.select:checked")) box.checked = false;
    window.scrollTo(0, 0);
    newRows.blur();
    wantsNew = true;
    catchUp();
    showLink();
  });
  const setFollows = (on) => {
    follows = on;
    sessionStorage.setItem("taskwatch-follow", on ? "1" : "0");
    followButton.textContent = on ? "Stop following" : "Follow new rows";
  };
  if (followButton) {
    setFollows(follows);
    followButton.addEventListener("click", () => setFollows(!follows));
  }
  pauseButton?.addEventListener("click", () => setPaused(!paused));
  byId("refresh-now")?.addEventListener("click", (event) => { event.preventDefault(); refresh(); });
  document.addEventListener("taskwatch:pause", () => setPaused(!paused));
  document.addEventListener("taskwatch:refresh", refresh);

  const start = () => { if (!document.hidden || isWall) goLive(); };
  if (pauseButton && !isPast()) pauseButton.hidden = false;
  if (wantsLive) { if (document.readyState === "complete") start(); else window.addEventListener("load", start); }
  // What was done is told for a while, and not again when the page is reloaded or shared.
  const done = byId("done");
  if (done) {
    const here = new URL(location.href);
    here.searchParams.delete("done");
    history.replaceState(null, "", here);
    setTimeout(() => done.remove(), 10000);
  }
  setInterval(tick, 1000);
  keepHeights();
  showLink();
  if (!isStill) showAge();
  showTimes();
})();
