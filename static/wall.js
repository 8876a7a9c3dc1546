// The wall: pages turn over, nothing burns in, and it says so when it is not live. Nobody touches it for weeks.
(() => {
  const body = document.body;
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const cover = byId("cover");
  const rotateMs = Number(body.dataset.rotate || 0) * 1000;
  const started = Date.now();
  const reloadMs = (6 * 60 - 30 + Math.random() * 60) * 60000;
  const shifts = [[0, 0], [4, 0], [8, 0], [8, 4], [8, 8], [4, 8], [0, 8], [0, 4], [4, 4]];
  const [dimFrom, dimTo] = (body.dataset.dim || "").split("-");
  // A browser may not know a zone that the server knows.
  const clockOf = (zone) => [zone, new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit" })];
  const [zone, here] = (() => { try { return clockOf(body.dataset.tz || "UTC"); } catch { return clockOf("UTC"); } })();
  let turned = Date.now();
  let at = 0;
  let coveredSince = 0;
  let reloading = false;

  const asked = Number(root.dataset.scale || 100) / 100;
  const set = (element, name, value) => {
    if (element.style.getPropertyValue(name) !== value) element.style.setProperty(name, value);
  };
  const mark = (element, name, on) => { if (element.classList.contains(name) !== on) element.classList.toggle(name, on); };
  const shorten = (tile, on) => { if (tile.hasAttribute("data-short") !== on) tile.toggleAttribute("data-short", on); };
  const hide = (element, on) => { if (element.hidden !== on) element.hidden = on; };
  const greatest = (a, b) => (b ? greatest(b, a % b) : a);

  // The headline has a quarter of the screen at most.
  const fitHead = () => {
    const head = byId("wall-health");
    if (!head) return;
    let f = 1;
    set(head, "--f", "1");
    while (f > 0.3 && (head.scrollHeight > innerHeight / 4 || head.scrollWidth > head.clientWidth + 1)) {
      f *= 0.95;
      head.style.setProperty("--f", f.toFixed(3));
    }
  };

  // The columns that make tiles largest; the last row has wider tiles, so that nothing stays empty.
  const columns = (count, width, height, gap) => {
    let best = { u: 0, c: 1, r: count };
    for (let c = 1; c <= count; c += 1) {
      const r = Math.ceil(count / c);
      const u = Math.min((width - (c - 1) * gap) / c / 10, (height - (r - 1) * gap) / r / 8);
      if (u > best.u + 0.01) best = { u, c, r };
    }
    return best;
  };

  // Sentences are never cut: the longest that fits is taken, and only then all of it becomes smaller.
  const fitTiles = (tiles, size) => {
    const over = (element) => element.scrollWidth > element.clientWidth + 1;
    const isCut = (tile) => tile.scrollHeight > tile.clientHeight + 1 || [...tile.children].some((part) => part.offsetParent && over(part));
    const shrink = () => {
      for (const tile of tiles) {
        for (const part of tile.querySelectorAll(".name, .huge")) {
          set(part, "--f", "1");
          if (over(part)) set(part, "--f", (0.985 * part.clientWidth / part.scrollWidth).toFixed(3));
        }
      }
    };
    let u = size;
    body.style.setProperty("--u", `${u.toFixed(2)}px`);
    for (const tile of tiles) shorten(tile, false);
    shrink();
    for (const tile of tiles) {
      const long = tile.querySelector(".long");
      if (tile.scrollHeight > tile.clientHeight + 1 || long.offsetHeight > u * 1.25 * 2.2) shorten(tile, true);
    }
    for (let step = 0; step < 40 && tiles.some(isCut); step += 1) {
      u *= 0.97;
      body.style.setProperty("--u", `${u.toFixed(2)}px`);
      shrink();
    }
  };

  const layOut = () => {
    const grid = byId("tiles");
    if (!grid) return;
    const all = [...grid.children];
    const vmin = Math.min(innerWidth, innerHeight) / 100;
    const narrow = innerWidth <= 640;
    fitHead();
    if (narrow || !all.length) {
      for (const tile of all) { hide(tile, false); tile.removeAttribute("style"); }
      grid.removeAttribute("style");
      body.style.removeProperty("--u");
      return;
    }
    const gap = parseFloat(getComputedStyle(grid).columnGap) || 0;
    let count = Math.min(all.length, Number(grid.dataset.atOnce) || 12);
    let best = columns(count, grid.clientWidth, grid.clientHeight, gap);
    while (count > 1 && best.u < 2.8 * vmin) {
      count -= 1;
      best = columns(count, grid.clientWidth, grid.clientHeight, gap);
    }
    const pages = rotateMs ? Math.ceil(all.length / count) : 1;
    const first = (at % pages) * count;
    const tiles = all.slice(first, first + count);
    if (tiles.length < count) best = columns(tiles.length, grid.clientWidth, grid.clientHeight, gap);
    const left = tiles.length - (best.r - 1) * best.c;
    const tracks = (best.c * left) / greatest(best.c, left);
    set(grid, "grid-template-columns", `repeat(${tracks}, minmax(0px, 1fr))`);
    for (const tile of all) hide(tile, !tiles.includes(tile));
    tiles.forEach((tile, index) => {
      set(tile, "grid-column", `span ${index < (best.r - 1) * best.c ? tracks / best.c : tracks / left}`);
    });
    fitTiles(tiles, best.u * asked);
    const more = Number(byId("wall-more")?.dataset.more || 0) + (rotateMs ? 0 : all.length - tiles.length);
    const text = pages > 1 ? `${(at % pages) + 1}/${pages}` : more ? `+${more}` : "";
    const place = byId("wall-page");
    if (place.textContent !== text) place.textContent = text;
    hide(place, !text);
  };

  // Only when texts have become longer or shorter: nothing should twitch. All digits are equally wide.
  let laid = "";
  const show = () => {
    if (rotateMs && Date.now() - turned >= rotateMs) {
      at += 1;
      turned = Date.now();
      mark(body, "turned", true);
    }
    const texts = `${byId("wall-health")?.textContent} ${byId("tiles")?.textContent}`.replace(/\d/g, "0");
    const ids = [...document.querySelectorAll(".tile")].map((tile) => tile.id).join(" ");
    const now = `${innerWidth} ${innerHeight} ${at} ${byId("wall-more")?.dataset.more} ${ids} ${texts}`;
    if (now === laid) return;
    laid = now;
    layOut();
  };

  const clock = () => {
    const now = new Date();
    const text = `${here.format(now)} ${zone === "UTC" ? "UTC" : zone.split("/").pop().replace(/_/g, " ")}`;
    const shown = byId("clock");
    if (shown && shown.textContent !== text) shown.textContent = text;
    const time = here.format(now);
    const dim = dimFrom && dimTo && (dimFrom <= dimTo ? time >= dimFrom && time < dimTo : time >= dimFrom || time < dimTo);
    body.classList.toggle("dim", Boolean(dim));
    const [x, y] = shifts[Math.floor(now.getTime() / 60000) % shifts.length];
    root.style.setProperty("--shift-x", `${x}px`);
    root.style.setProperty("--shift-y", `${y}px`);
  };

  const guard = () => {
    const age = Number(body.dataset.age || 0);
    if (age >= 120 && body.dataset.mode !== "past") {
      coveredSince ||= Date.now() - age * 1000;
      const text = `NOT LIVE since ${new Date(coveredSince).toISOString().slice(11, 19)} UTC`;
      if (cover.textContent !== text) cover.textContent = text;
      cover.hidden = false;
    } else {
      coveredSince = 0;
      if (!cover.hidden) cover.hidden = true;
    }
  };

  // A fresh start now and then, and on a new build, only when the server is there, a little later than other walls.
  const reload = async () => {
    const build = body.dataset.newBuild;
    if (reloading || (!build && Date.now() - started < reloadMs)) return;
    reloading = true;
    if (build) await new Promise((done) => { setTimeout(done, Math.random() * 30000); });
    const answer = await fetch(`${body.dataset.root}healthz`, { cache: "no-store" }).catch(() => null);
    if (answer?.ok) location.reload();
    else setTimeout(() => { reloading = false; }, 30000);
  };

  const stayAwake = async () => {
    if (document.hidden) return;
    await navigator.wakeLock?.request("screen").catch(() => {});
  };
  document.addEventListener("visibilitychange", stayAwake);
  document.addEventListener("htmx:after:swap", show);
  window.addEventListener("resize", show);
  stayAwake();
  const step = () => { show(); clock(); guard(); reload(); };
  step();
  setInterval(step, 1000);
})();
