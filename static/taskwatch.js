// The refresh of pages. Polling: a "pulse" every so many seconds while the tab can be seen; the fragment listens to it.
// Live: the stream swaps by itself; while it is down, pulses go on. Beside that: ages, link state, the page's title.
(() => {
  const body = document.body;
  const pollMs = Number(body.dataset.pollSeconds) * 1000;
  const wantsLive = body.dataset.mode === "live";
  const link = document.getElementById("link-state");
  const age = document.getElementById("data-age");
  const stale = document.getElementById("stale");
  const announce = document.getElementById("announce");
  let connected = false;
  let freshAt = Date.now();
  let pulseAt = Date.now() + pollMs;
  let wasStale = false;
  let heardAt = Date.now();
  let triedAt = Date.now();
  const silence = 15000;

  // The server says how old its own knowledge is; silence of the server is counted here.
  const fresh = (ageMs) => { freshAt = Date.now() - (Number(ageMs) || 0); heardAt = Date.now(); };

  const showLink = () => {
    if (!wantsLive) {
      link.textContent = `Polling every ${pollMs / 1000} s`;
    } else {
      link.textContent = connected ? "Live" : "Reconnecting, polling meanwhile";
    }
    link.classList.toggle("live", connected);
    link.classList.toggle("late", wantsLive && !connected);
  };

  const words = (seconds) => {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
    return `${Math.floor(seconds / 86400)} d`;
  };

  const showTimes = () => {
    const now = Date.now();
    for (const time of document.querySelectorAll("#page time")) {
      const seconds = Math.round((now - Date.parse(time.dateTime)) / 1000);
      const text = seconds >= 0 ? `${words(seconds)} ago` : `in ${words(-seconds)}`;
      if (time.textContent !== text) time.textContent = text;
    }
  };

  const showAge = () => {
    const seconds = Math.max(0, Math.round((Date.now() - freshAt) / 1000));
    age.textContent = seconds < 2 ? "data just now" : `data ${words(seconds)} old`;
    const late = seconds * 1000 > 3 * pollMs;
    age.classList.toggle("late", late);
    const isStale = late && seconds > 20;
    stale.hidden = !isStale;
    if (isStale) stale.textContent = `Data is ${words(seconds)} old. The server does not answer; trying again.`;
    body.classList.toggle("is-stale", isStale);
    if (isStale !== wasStale) announce.textContent = isStale ? "Data is stale" : "Data is fresh again";
    wasStale = isStale;
  };

  const pulse = () => {
    pulseAt = Date.now() + pollMs;
    htmx.trigger(body, "pulse");
  };

  // A stream that fell silent (after sleep, behind a dead proxy) is open and dead, and one that does not come up may
  // never do so: it is made anew.
  const reconnect = () => {
    connected = false;
    heardAt = triedAt = Date.now();
    const old = document.getElementById("live");
    if (!old) return;
    const anew = old.cloneNode(false);
    old.replaceWith(anew);
    htmx.process(anew);
    showLink();
  };

  const tick = () => {
    if (!document.hidden) {
      if (connected && Date.now() - heardAt > silence) reconnect();
      if (wantsLive && !connected && Date.now() - triedAt > silence) reconnect();
      if (!connected && Date.now() >= pulseAt) pulse();
      showTimes();
    }
    showAge();
  };

  const showTitle = () => {
    const refresh = document.getElementById("refresh");
    if (refresh) document.title = `${refresh.dataset.title} · taskwatch`;
  };

  document.addEventListener("htmx:after:request", (event) => {
    const response = event.detail?.ctx?.response;
    const age = response?.headers?.get?.("x-data-age-ms");
    if ((response?.status === 200 || response?.status === 204) && age != null) fresh(age);
  });
  document.addEventListener("htmx:after:swap", () => { showTitle(); showTimes(); });
  document.addEventListener("htmx:sse:after:connection", () => { connected = true; heardAt = triedAt = Date.now(); showLink(); });
  document.addEventListener("htmx:sse:after:message", (event) => {
    connected = true;
    heardAt = triedAt = Date.now();
    const message = event.detail?.message;
    // A fragment is pushed because something happened; a heartbeat tells how old the server's knowledge is.
    fresh(message?.event === "heartbeat" ? JSON.parse(message.data).age_ms : 0);
    showLink();
  });
  for (const name of ["htmx:sse:error", "htmx:sse:close", "htmx:sse:before:connection"]) {
    document.addEventListener(name, () => { connected = false; pulseAt = Math.min(pulseAt, Date.now() + 1000); showLink(); });
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !connected) pulse(); });

  showLink();
  showTimes();
  setInterval(tick, 1000);
})();
